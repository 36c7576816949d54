/**
 * Codec of the transmission phase: requests, simple replies, structured reply chunks. Pure.
 *
 * Headers are put in front of payloads that are in place already, so that a reply is one run of
 * bytes. A cookie (also called handle) is eight bytes to echo; it is kept as two signed halves.
 *
 * Source: proto.md, "Request message", "Simple reply message", "Structured reply chunk message",
 * "Structured reply types".
 */
import { getI32, getU16, getU32, getU64, putU16, putU32, putU64 } from './big-endian.js';
import {
  NBD_REPLY_FLAG_DONE,
  NBD_REPLY_TYPE_BLOCK_STATUS,
  NBD_REPLY_TYPE_ERROR,
  NBD_REPLY_TYPE_NONE,
  NBD_REPLY_TYPE_OFFSET_DATA,
  NBD_REPLY_TYPE_OFFSET_HOLE,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STRUCTURED_REPLY_MAGIC,
} from './protocol.js';
import { encodeString } from './wire-string.js';

/** Magic 4, flags 2, type 2, cookie 8, offset 8, length 4. */
export const REQUEST_BYTES = 28;
/** Magic 4, error 4, cookie 8. */
export const SIMPLE_REPLY_BYTES = 16;
/** Magic 4, flags 2, type 2, cookie 8, length 4. */
export const CHUNK_HEADER_BYTES = 20;
/** A chunk's header and the offset before its data. */
export const DATA_CHUNK_HEADER_BYTES = CHUNK_HEADER_BYTES + 8;
/** Offset 8, hole size 4. */
export const HOLE_CHUNK_BYTES = CHUNK_HEADER_BYTES + 12;

export interface Cookie {
  readonly cookieHigh: number;
  readonly cookieLow: number;
}

/** A decoded request; one object is filled again and again. */
export interface Request extends Cookie {
  magic: number;
  flags: number;
  type: number;
  cookieHigh: number;
  cookieLow: number;
  /** Rounded if above 2^53, which is beyond any end. */
  offset: number;
  length: number;
}

/** One run of bytes with the same status. */
export interface StatusExtent {
  readonly length: number;
  readonly flags: number;
}

export function emptyRequest(): Request {
  return { magic: 0, flags: 0, type: 0, cookieHigh: 0, cookieLow: 0, offset: 0, length: 0 };
}

export function decodeRequest(bytes: Uint8Array, at: number, into: Request): void {
  into.magic = getU32(bytes, at);
  into.flags = getU16(bytes, at + 4);
  into.type = getU16(bytes, at + 6);
  into.cookieHigh = getI32(bytes, at + 8);
  into.cookieLow = getI32(bytes, at + 12);
  into.offset = getU64(bytes, at + 16);
  into.length = getU32(bytes, at + 24);
}

export function putSimpleReply(into: Uint8Array, at: number, cookie: Cookie, error: number): void {
  putU32(into, at, NBD_SIMPLE_REPLY_MAGIC);
  putU32(into, at + 4, error);
  putU32(into, at + 8, cookie.cookieHigh);
  putU32(into, at + 12, cookie.cookieLow);
}

/** Fields of a chunk's header that differ from chunk to chunk. */
interface Chunk {
  readonly type: number;
  readonly payloadBytes: number;
  readonly isLast: boolean;
}

function putChunkHeader(into: Uint8Array, at: number, cookie: Cookie, chunk: Chunk): void {
  putU32(into, at, NBD_STRUCTURED_REPLY_MAGIC);
  putU16(into, at + 4, chunk.isLast ? NBD_REPLY_FLAG_DONE : 0);
  putU16(into, at + 6, chunk.type);
  putU32(into, at + 8, cookie.cookieHigh);
  putU32(into, at + 12, cookie.cookieLow);
  putU32(into, at + 16, chunk.payloadBytes);
}

/** A run of an export's bytes, as a chunk of a read reply describes it. */
export interface Run {
  readonly offset: number;
  readonly length: number;
  readonly isLast: boolean;
}

/** The header of a data chunk; `run.length` bytes of data follow it. */
export function putDataChunk(into: Uint8Array, at: number, cookie: Cookie, run: Run): void {
  const payloadBytes = 8 + run.length;
  const type = NBD_REPLY_TYPE_OFFSET_DATA;
  putChunkHeader(into, at, cookie, { type, payloadBytes, isLast: run.isLast });
  putU64(into, at + CHUNK_HEADER_BYTES, run.offset);
}

/** A whole hole chunk of HOLE_CHUNK_BYTES. */
export function putHoleChunk(into: Uint8Array, at: number, cookie: Cookie, run: Run): void {
  const type = NBD_REPLY_TYPE_OFFSET_HOLE;
  putChunkHeader(into, at, cookie, { type, payloadBytes: 12, isLast: run.isLast });
  putU64(into, at + CHUNK_HEADER_BYTES, run.offset);
  putU32(into, at + CHUNK_HEADER_BYTES + 8, run.length);
}

/** The whole, last chunk of a reply without payload. */
export function putNoneChunk(into: Uint8Array, at: number, cookie: Cookie): void {
  putChunkHeader(into, at, cookie, { type: NBD_REPLY_TYPE_NONE, payloadBytes: 0, isLast: true });
}

/** Error 4, length of the message 2, message. The only chunk of its reply. */
export function encodeErrorChunk(cookie: Cookie, error: number, message: string): Uint8Array {
  const text = encodeString(message);
  const payloadBytes = 6 + text.length;
  const bytes = new Uint8Array(CHUNK_HEADER_BYTES + payloadBytes);
  putChunkHeader(bytes, 0, cookie, { type: NBD_REPLY_TYPE_ERROR, payloadBytes, isLast: true });
  putU32(bytes, CHUNK_HEADER_BYTES, error);
  putU16(bytes, CHUNK_HEADER_BYTES + 4, text.length);
  bytes.set(text, CHUNK_HEADER_BYTES + 6);
  return bytes;
}

/** What one metadata context says of the range asked for. */
export interface ContextStatus {
  readonly contextId: number;
  readonly extents: readonly StatusExtent[];
}

/** Context id 4, then for each extent: length 4, flags 4. */
export function encodeStatusChunk(
  cookie: Cookie,
  status: ContextStatus,
  isLast: boolean,
): Uint8Array {
  const payloadBytes = 4 + 8 * status.extents.length;
  const bytes = new Uint8Array(CHUNK_HEADER_BYTES + payloadBytes);
  putChunkHeader(bytes, 0, cookie, { type: NBD_REPLY_TYPE_BLOCK_STATUS, payloadBytes, isLast });
  putU32(bytes, CHUNK_HEADER_BYTES, status.contextId);
  let at = CHUNK_HEADER_BYTES + 4;
  for (const extent of status.extents) {
    putU32(bytes, at, extent.length);
    putU32(bytes, at + 4, extent.flags);
    at += 8;
  }
  return bytes;
}
