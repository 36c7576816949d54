/** Puts the replies of one connection into its outbox, simple or structured as was agreed. */
import type { Outbox } from './outbox.js';
import * as wire from './wire-transmission.js';

export class Replies {
  readonly #outbox: Outbox;
  readonly #isStructured: boolean;
  /** Bytes in front of what was read. */
  readonly readHeaderBytes: number;

  constructor(outbox: Outbox, isStructured: boolean) {
    this.#outbox = outbox;
    this.#isStructured = isStructured;
    this.readHeaderBytes = isStructured ? wire.DATA_CHUNK_HEADER_BYTES : wire.SIMPLE_REPLY_BYTES;
  }

  /** Success without payload. A read is told so by a chunk if replies are structured. */
  done(cookie: wire.Cookie, isRead = false): void {
    const isChunk = isRead && this.#isStructured;
    this.#outbox.reserveForced(isChunk ? wire.CHUNK_HEADER_BYTES : wire.SIMPLE_REPLY_BYTES);
    if (isChunk) wire.putNoneChunk(this.#outbox.bytes, this.#outbox.at, cookie);
    else wire.putSimpleReply(this.#outbox.bytes, this.#outbox.at, cookie, 0);
    this.#outbox.commit();
  }

  /** Failure; the message reaches the client if replies are structured. */
  failed(cookie: wire.Cookie, errno: number, message: string): void {
    if (this.#isStructured) {
      this.#outbox.append(wire.encodeErrorChunk(cookie, errno, message));
      return;
    }
    this.#outbox.reserveForced(wire.SIMPLE_REPLY_BYTES);
    wire.putSimpleReply(this.#outbox.bytes, this.#outbox.at, cookie, errno);
    this.#outbox.commit();
  }

  /** The header in front of data that was read to `at + readHeaderBytes`. */
  putReadHeader(bytes: Uint8Array, at: number, cookie: wire.Cookie, run: wire.Run): void {
    if (this.#isStructured) wire.putDataChunk(bytes, at, cookie, run);
    else wire.putSimpleReply(bytes, at, cookie, 0);
  }

  /** One chunk for each metadata context. */
  status(cookie: wire.Cookie, statuses: readonly wire.ContextStatus[]): void {
    for (const [index, status] of statuses.entries()) {
      const isLast = index === statuses.length - 1;
      this.#outbox.append(wire.encodeStatusChunk(cookie, status, isLast));
    }
  }
}
