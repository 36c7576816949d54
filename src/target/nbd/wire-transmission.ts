/**
 * Codec of the transmission phase: requests, compact and extended, and simple replies. Pure.
 * Replies that come in chunks: wire-chunks.ts.
 *
 * Source: proto.md, "Request message", "Simple reply message".
 */
import { getI32, getU16, getU32, getU64, putU32 } from './big-endian.js';
import { NBD_SIMPLE_REPLY_MAGIC } from './protocol.js';

/** Magic 4, flags 2, type 2, cookie 8, offset 8, length 4. */
export const REQUEST_BYTES = 28;
/** The same with a length of 8. */
export const EXTENDED_REQUEST_BYTES = 32;
/** Magic 4, error 4, cookie 8. */
export const SIMPLE_REPLY_BYTES = 16;
/** In front of the ids in the payload of a block status: the length asked for. */
const STATUS_PAYLOAD_HEADER_BYTES = 8;

/**
 * What was agreed about headers: compact requests with simple replies, or with structured ones
 * where there is more to say, or extended requests and extended replies only.
 */
export type HeaderStyle = 'simple' | 'structured' | 'extended';

/** What a reply echoes bit by bit, as signed halves: the offset only in extended replies. */
export interface RequestId {
  readonly cookieHigh: number;
  readonly cookieLow: number;
  readonly offsetHigh: number;
  readonly offsetLow: number;
}

/** A decoded request; one object is filled again and again. */
export interface Request extends RequestId {
  magic: number;
  flags: number;
  type: number;
  cookieHigh: number;
  cookieLow: number;
  offsetHigh: number;
  offsetLow: number;
  /** Rounded if above 2^53, which is beyond any end. */
  offset: number;
  /** Of the payload, if there is one; else of the range. Rounded like the offset. */
  length: number;
}

export function emptyRequest(): Request {
  return {
    magic: 0,
    flags: 0,
    type: 0,
    cookieHigh: 0,
    cookieLow: 0,
    offsetHigh: 0,
    offsetLow: 0,
    offset: 0,
    length: 0,
  };
}

export function decodeRequest(bytes: Uint8Array, at: number, into: Request): void {
  decodeCommon(bytes, at, into);
  into.length = getU32(bytes, at + 24);
}

export function decodeExtendedRequest(bytes: Uint8Array, at: number, into: Request): void {
  decodeCommon(bytes, at, into);
  into.length = getU64(bytes, at + 24);
}

function decodeCommon(bytes: Uint8Array, at: number, into: Request): void {
  into.magic = getU32(bytes, at);
  into.flags = getU16(bytes, at + 4);
  into.type = getU16(bytes, at + 6);
  into.cookieHigh = getI32(bytes, at + 8);
  into.cookieLow = getI32(bytes, at + 12);
  into.offsetHigh = getI32(bytes, at + 16);
  into.offsetLow = getI32(bytes, at + 20);
  into.offset = getU64(bytes, at + 16);
}

/** Payload of a block status: for so many bytes, of these metadata contexts only. */
export interface StatusPayload {
  readonly length: number;
  readonly contextIds: readonly number[];
}

/** Length 8, then ids of 4 bytes each. */
export function statusPayloadBytes(idCount: number): number {
  return STATUS_PAYLOAD_HEADER_BYTES + 4 * idCount;
}

/** @param payloadBytes  as statusPayloadBytes says it */
export function decodeStatusPayload(
  bytes: Uint8Array,
  at: number,
  payloadBytes: number,
): StatusPayload {
  const contextIds: number[] = [];
  for (let from = STATUS_PAYLOAD_HEADER_BYTES; from < payloadBytes; from += 4) {
    contextIds.push(getU32(bytes, at + from));
  }
  return { length: getU64(bytes, at), contextIds };
}

export function putSimpleReply(into: Uint8Array, at: number, id: RequestId, error: number): void {
  putU32(into, at, NBD_SIMPLE_REPLY_MAGIC);
  putU32(into, at + 4, error);
  putU32(into, at + 8, id.cookieHigh);
  putU32(into, at + 12, id.cookieLow);
}
