/** Puts the replies of one connection into its outbox, in the style that was agreed. */
import { invariant } from '../../base/invariant.js';
import type { Outbox } from './outbox.js';
import {
  type ChunkCodec,
  type ContextStatus,
  EXTENDED_CHUNKS,
  type Run,
  STRUCTURED_CHUNKS,
} from './wire-chunks.js';
import {
  type HeaderStyle,
  putSimpleReply,
  type RequestId,
  SIMPLE_REPLY_BYTES,
} from './wire-transmission.js';

const CHUNKS_OF_STYLE = {
  simple: undefined,
  structured: STRUCTURED_CHUNKS,
  extended: EXTENDED_CHUNKS,
} as const satisfies Record<HeaderStyle, ChunkCodec | undefined>;

export class Replies {
  readonly #outbox: Outbox;
  /** "the server MUST use the 32-byte extended reply header": for every reply. */
  readonly #isExtended: boolean;
  /** Undefined if all replies are simple. */
  readonly chunks: ChunkCodec | undefined;
  /** Bytes in front of what was read. */
  readonly readHeaderBytes: number;

  constructor(outbox: Outbox, style: HeaderStyle) {
    this.#outbox = outbox;
    this.#isExtended = style === 'extended';
    this.chunks = CHUNKS_OF_STYLE[style];
    this.readHeaderBytes = this.chunks?.dataHeaderBytes ?? SIMPLE_REPLY_BYTES;
  }

  /** Success without payload. A read is never answered by a simple reply if there are chunks. */
  done(id: RequestId, isRead = false): void {
    const outbox = this.#outbox;
    const chunks = isRead || this.#isExtended ? this.chunks : undefined;
    outbox.reserveForced(chunks?.headerBytes ?? SIMPLE_REPLY_BYTES);
    if (chunks === undefined) putSimpleReply(outbox.bytes, outbox.at, id, 0);
    else chunks.putNone(outbox.bytes, outbox.at, id);
    outbox.commit();
  }

  /** Failure; the message reaches the client if there are chunks. */
  failed(id: RequestId, errno: number, message: string): void {
    const outbox = this.#outbox;
    if (this.chunks !== undefined) {
      outbox.append(this.chunks.encodeError(id, errno, message));
      return;
    }
    outbox.reserveForced(SIMPLE_REPLY_BYTES);
    putSimpleReply(outbox.bytes, outbox.at, id, errno);
    outbox.commit();
  }

  /** The header in front of data that was read to `at + readHeaderBytes`. */
  putReadHeader(bytes: Uint8Array, at: number, id: RequestId, run: Run): void {
    if (this.chunks === undefined) putSimpleReply(bytes, at, id, 0);
    else this.chunks.putData(bytes, at, id, run);
  }

  /** One chunk for each metadata context. */
  status(id: RequestId, statuses: readonly ContextStatus[]): void {
    const { chunks } = this;
    invariant(
      chunks !== undefined,
      'metadata contexts are selected only where replies have chunks',
    );
    for (const [index, status] of statuses.entries()) {
      const isLast = index === statuses.length - 1;
      this.#outbox.append(chunks.encodeStatus(id, status, isLast));
    }
  }
}
