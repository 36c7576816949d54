/**
 * Codec of replies that come in chunks, structured or extended. Pure.
 *
 * Headers are put in front of payloads that are in place already, so that a reply is one run of
 * bytes.
 *
 * | | structured | extended |
 * | --- | --- | --- |
 * | header | magic 4, flags 2, type 2, cookie 8, length 4 | the same with offset 8, length 8 |
 * | block status | id 4; times length 4, flags 4 | id 4, count 4; times length 8, flags 8 |
 *
 * The offset of an extended header is that of the request, in every chunk.
 *
 * Source: proto.md, "Structured reply chunk message", "Extended reply chunk message", "Structured
 * reply types".
 */
import { putU16, putU32, putU64 } from './big-endian.js';
import {
  NBD_EXTENDED_REPLY_MAGIC,
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE_BLOCK_STATUS,
  NBD_REPLY_TYPE_BLOCK_STATUS_EXT,
  NBD_REPLY_TYPE_ERROR,
  NBD_REPLY_TYPE_NONE,
  NBD_REPLY_TYPE_OFFSET_DATA,
  NBD_REPLY_TYPE_OFFSET_HOLE,
  NBD_STRUCTURED_REPLY_MAGIC,
} from './protocol.js';
import { encodeString } from './wire-string.js';
import type { RequestId } from './wire-transmission.js';

const STRUCTURED_HEADER_BYTES = 20;
const EXTENDED_HEADER_BYTES = 32;

/** A run of an export's bytes, as a chunk of a read reply describes it. */
export interface Run {
  readonly offset: number;
  readonly length: number;
  readonly isLast: boolean;
}

/** One run of bytes with the same status. */
export interface StatusExtent {
  readonly length: number;
  readonly flags: number;
}

/** What one metadata context says of the range asked for. */
export interface ContextStatus {
  readonly contextId: number;
  readonly extents: readonly StatusExtent[];
}

/** Fields of a chunk's header that differ from chunk to chunk. */
interface Chunk {
  readonly type: number;
  readonly payloadBytes: number;
  readonly isLast: boolean;
}

export class ChunkCodec {
  readonly #isExtended: boolean;
  readonly headerBytes: number;
  /** A chunk's header and the offset before its data. */
  readonly dataHeaderBytes: number;
  /** A whole hole chunk: header, offset 8, hole size 4. */
  readonly holeBytes: number;

  constructor(isExtended: boolean) {
    this.#isExtended = isExtended;
    this.headerBytes = isExtended ? EXTENDED_HEADER_BYTES : STRUCTURED_HEADER_BYTES;
    this.dataHeaderBytes = this.headerBytes + 8;
    this.holeBytes = this.headerBytes + 12;
  }

  /** The header of a data chunk; `run.length` bytes of data follow it. */
  putData(into: Uint8Array, at: number, id: RequestId, run: Run): void {
    const payloadBytes = 8 + run.length;
    const type = NBD_REPLY_TYPE_OFFSET_DATA;
    this.#putHeader(into, at, id, { type, payloadBytes, isLast: run.isLast });
    putU64(into, at + this.headerBytes, run.offset);
  }

  /** A whole hole chunk of `holeBytes`. */
  putHole(into: Uint8Array, at: number, id: RequestId, run: Run): void {
    const type = NBD_REPLY_TYPE_OFFSET_HOLE;
    this.#putHeader(into, at, id, { type, payloadBytes: 12, isLast: run.isLast });
    putU64(into, at + this.headerBytes, run.offset);
    putU32(into, at + this.headerBytes + 8, run.length);
  }

  /** The whole, last chunk of a reply without payload. */
  putNone(into: Uint8Array, at: number, id: RequestId): void {
    this.#putHeader(into, at, id, { type: NBD_REPLY_TYPE_NONE, payloadBytes: 0, isLast: true });
  }

  /** Error 4, length of the message 2, message. The only chunk of its reply. */
  encodeError(id: RequestId, error: number, message: string): Uint8Array {
    const text = encodeString(message);
    const payloadBytes = 6 + text.length;
    const bytes = new Uint8Array(this.headerBytes + payloadBytes);
    this.#putHeader(bytes, 0, id, { type: NBD_REPLY_TYPE_ERROR, payloadBytes, isLast: true });
    putU32(bytes, this.headerBytes, error);
    putU16(bytes, this.headerBytes + 4, text.length);
    bytes.set(text, this.headerBytes + 6);
    return bytes;
  }

  encodeStatus(id: RequestId, status: ContextStatus, isLast: boolean): Uint8Array {
    return this.#isExtended
      ? this.#encodeExtendedStatus(id, status, isLast)
      : this.#encodeStructuredStatus(id, status, isLast);
  }

  #encodeStructuredStatus(id: RequestId, status: ContextStatus, isLast: boolean): Uint8Array {
    const { contextId, extents } = status;
    const type = NBD_REPLY_TYPE_BLOCK_STATUS;
    const payloadBytes = 4 + 8 * extents.length;
    const bytes = new Uint8Array(this.headerBytes + payloadBytes);
    this.#putHeader(bytes, 0, id, { type, payloadBytes, isLast });
    putU32(bytes, this.headerBytes, contextId);
    let at = this.headerBytes + 4;
    for (const extent of extents) {
      putU32(bytes, at, extent.length);
      putU32(bytes, at + 4, extent.flags);
      at += 8;
    }
    return bytes;
  }

  #encodeExtendedStatus(id: RequestId, status: ContextStatus, isLast: boolean): Uint8Array {
    const { contextId, extents } = status;
    const type = NBD_REPLY_TYPE_BLOCK_STATUS_EXT;
    const payloadBytes = 8 + 16 * extents.length;
    const bytes = new Uint8Array(this.headerBytes + payloadBytes);
    this.#putHeader(bytes, 0, id, { type, payloadBytes, isLast });
    putU32(bytes, this.headerBytes, contextId);
    putU32(bytes, this.headerBytes + 4, extents.length);
    let at = this.headerBytes + 8;
    for (const extent of extents) {
      putU64(bytes, at, extent.length);
      putU64(bytes, at + 8, extent.flags);
      at += 16;
    }
    return bytes;
  }

  #putHeader(into: Uint8Array, at: number, id: RequestId, chunk: Chunk): void {
    putU32(into, at, this.#isExtended ? NBD_EXTENDED_REPLY_MAGIC : NBD_STRUCTURED_REPLY_MAGIC);
    putU16(into, at + 4, chunk.isLast ? NBD_REPLY_FLAG_DONE : 0);
    putU16(into, at + 6, chunk.type);
    putU32(into, at + 8, id.cookieHigh);
    putU32(into, at + 12, id.cookieLow);
    if (this.#isExtended) {
      putU32(into, at + 16, id.offsetHigh);
      putU32(into, at + 20, id.offsetLow);
      putU64(into, at + 24, chunk.payloadBytes);
    } else {
      putU32(into, at + 16, chunk.payloadBytes);
    }
  }
}

export const STRUCTURED_CHUNKS = new ChunkCodec(false);
export const EXTENDED_CHUNKS = new ChunkCodec(true);
