/**
 * Codec of the handshake: greeting, options, option replies. Bytes to values and back, pure.
 *
 * A decoder reads no byte beyond what it was given and checks every length against that.
 *
 * Source: proto.md, "Newstyle negotiation", "Fixed newstyle negotiation", "Option types",
 * "Option reply types".
 */
import { getU16, getU32, putU16, putU32, putU64 } from './big-endian.js';
import {
  BLOCK_SIZE_MINIMUM,
  BLOCK_SIZE_PREFERRED,
  IHAVEOPT,
  INIT_PASSWD,
  NBD_FLAG_FIXED_NEWSTYLE,
  NBD_FLAG_NO_ZEROES,
  NBD_INFO_BLOCK_SIZE,
  NBD_INFO_EXPORT,
  NBD_INFO_NAME,
  NBD_REP_INFO,
  NBD_REP_META_CONTEXT,
  NBD_REP_SERVER,
  REPLY_MAGIC,
  REQUEST_BYTES_MAX,
} from './protocol.js';
import { decodeString, encodeString } from './wire-string.js';

export const CLIENT_FLAGS_BYTES = 4;
/** Magic 8, option 4, length of its data 4. */
export const OPTION_HEADER_BYTES = 16;
/** Magic 8, option 4, reply type 4, length 4. */
const OPTION_REPLY_HEADER_BYTES = 20;
/** Reserved zeroes after the reply to NBD_OPT_EXPORT_NAME. */
const EXPORT_NAME_ZEROES = 124;

export interface OptionHeader {
  readonly option: number;
  readonly dataBytes: number;
}

/** Data of NBD_OPT_INFO and NBD_OPT_GO. */
export interface InfoRequest {
  readonly name: string;
  /** NBD_INFO_* types the client asks for. */
  readonly infos: readonly number[];
}

/** Data of NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT. */
export interface MetaContextRequest {
  readonly name: string;
  readonly queries: readonly string[];
}

export function encodeGreeting(): Uint8Array {
  const bytes = new Uint8Array(18);
  putU32(bytes, 0, INIT_PASSWD[0]);
  putU32(bytes, 4, INIT_PASSWD[1]);
  putU32(bytes, 8, IHAVEOPT[0]);
  putU32(bytes, 12, IHAVEOPT[1]);
  putU16(bytes, 16, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
  return bytes;
}

/** Undefined if the magic is wrong. */
export function decodeOptionHeader(bytes: Uint8Array, at: number): OptionHeader | undefined {
  if (getU32(bytes, at) !== IHAVEOPT[0] || getU32(bytes, at + 4) !== IHAVEOPT[1]) return undefined;
  return { option: getU32(bytes, at + 8), dataBytes: getU32(bytes, at + 12) };
}

/** Length of the name 4, name, count 2, count types of 2 bytes each. */
export function decodeInfoRequest(data: Uint8Array): InfoRequest | undefined {
  const reader = new FieldReader(data);
  const name = reader.string();
  const count = reader.u16();
  if (name === undefined || count === undefined || reader.restBytes !== 2 * count) return undefined;
  const infos: number[] = [];
  for (let index = 0; index < count; index++) infos.push(reader.u16() ?? 0);
  return { name, infos };
}

/** Length of the name 4, name, count 4, count times: length 4, query. */
export function decodeMetaContextRequest(data: Uint8Array): MetaContextRequest | undefined {
  const reader = new FieldReader(data);
  const name = reader.string();
  const count = reader.u32();
  // Each query takes at least the four bytes of its length: no larger count is believed.
  if (name === undefined || count === undefined || count > reader.restBytes / 4) return undefined;
  const queries: string[] = [];
  for (let index = 0; index < count; index++) {
    const query = reader.string();
    if (query === undefined) return undefined;
    queries.push(query);
  }
  return reader.restBytes === 0 ? { name, queries } : undefined;
}

export function encodeOptionReply(option: number, type: number, data?: Uint8Array): Uint8Array {
  const dataBytes = data?.length ?? 0;
  const bytes = new Uint8Array(OPTION_REPLY_HEADER_BYTES + dataBytes);
  putU32(bytes, 0, REPLY_MAGIC[0]);
  putU32(bytes, 4, REPLY_MAGIC[1]);
  putU32(bytes, 8, option);
  putU32(bytes, 12, type);
  putU32(bytes, 16, dataBytes);
  if (data !== undefined) bytes.set(data, OPTION_REPLY_HEADER_BYTES);
  return bytes;
}

/** An error reply with a sentence for the person at the client. */
export function encodeOptionError(option: number, type: number, message: string): Uint8Array {
  return encodeOptionReply(option, type, encodeString(message));
}

export function encodeServerReply(option: number, name: string): Uint8Array {
  const text = encodeString(name);
  const data = new Uint8Array(4 + text.length);
  putU32(data, 0, text.length);
  data.set(text, 4);
  return encodeOptionReply(option, NBD_REP_SERVER, data);
}

export function encodeInfoExport(option: number, sizeBytes: number, flags: number): Uint8Array {
  const data = new Uint8Array(12);
  putU16(data, 0, NBD_INFO_EXPORT);
  putU64(data, 2, sizeBytes);
  putU16(data, 10, flags);
  return encodeOptionReply(option, NBD_REP_INFO, data);
}

export function encodeInfoName(option: number, name: string): Uint8Array {
  const text = encodeString(name);
  const data = new Uint8Array(2 + text.length);
  putU16(data, 0, NBD_INFO_NAME);
  data.set(text, 2);
  return encodeOptionReply(option, NBD_REP_INFO, data);
}

export function encodeInfoBlockSize(option: number): Uint8Array {
  const data = new Uint8Array(14);
  putU16(data, 0, NBD_INFO_BLOCK_SIZE);
  putU32(data, 2, BLOCK_SIZE_MINIMUM);
  putU32(data, 6, BLOCK_SIZE_PREFERRED);
  putU32(data, 10, REQUEST_BYTES_MAX);
  return encodeOptionReply(option, NBD_REP_INFO, data);
}

export function encodeMetaContext(option: number, id: number, name: string): Uint8Array {
  const text = encodeString(name);
  const data = new Uint8Array(4 + text.length);
  putU32(data, 0, id);
  data.set(text, 4);
  return encodeOptionReply(option, NBD_REP_META_CONTEXT, data);
}

/** The answer to NBD_OPT_EXPORT_NAME, which is no option reply. */
export function encodeExportNameReply(
  sizeBytes: number,
  flags: number,
  withZeroes: boolean,
): Uint8Array {
  const bytes = new Uint8Array(10 + (withZeroes ? EXPORT_NAME_ZEROES : 0));
  putU64(bytes, 0, sizeBytes);
  putU16(bytes, 8, flags);
  return bytes;
}

/** Reads fields one after the other; undefined once a field would go beyond the end. */
class FieldReader {
  readonly #data: Uint8Array;
  #at = 0;

  constructor(data: Uint8Array) {
    this.#data = data;
  }

  get restBytes(): number {
    return this.#data.length - this.#at;
  }

  u16(): number | undefined {
    if (this.restBytes < 2) return undefined;
    this.#at += 2;
    return getU16(this.#data, this.#at - 2);
  }

  u32(): number | undefined {
    if (this.restBytes < 4) return undefined;
    this.#at += 4;
    return getU32(this.#data, this.#at - 4);
  }

  /** 32 bits of length, then so many bytes. */
  string(): string | undefined {
    const length = this.u32();
    if (length === undefined || length > this.restBytes) return undefined;
    this.#at += length;
    return decodeString(this.#data.subarray(this.#at - length, this.#at));
  }
}
