/**
 * The client's side of NBD, byte by byte from the protocol document, for tests of the server: it
 * shares no code and no constant with the server's codec, so that a mistake there is seen here.
 */

export const COMMAND = { read: 0, write: 1, disc: 2, flush: 3, trim: 4, cache: 5, zeroes: 6 };
export const BLOCK_STATUS = 7;
/** Flag of an extended request: its length is that of a payload. */
export const PAYLOAD_LEN = 1 << 5;

/** Which headers were agreed on. */
export type TestStyle = 'simple' | 'structured' | 'extended';

export interface TestRequest {
  readonly type: number;
  readonly flags?: number;
  readonly cookie: bigint;
  readonly offset?: number | bigint;
  readonly length?: number | bigint;
  readonly payload?: Uint8Array;
}

export function clientFlags(flags = 3): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(flags);
  return bytes;
}

export function option(type: number, data: Uint8Array = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(16);
  header.write('IHAVEOPT', 'latin1');
  header.writeUInt32BE(type, 8);
  header.writeUInt32BE(data.length, 12);
  return Buffer.concat([header, data]);
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
}

function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value);
  return bytes;
}

/** Data of INFO (6) and GO (7). */
export function infoData(name: string, infos: readonly number[] = []): Buffer {
  const text = Buffer.from(name);
  return Buffer.concat([u32(text.length), text, u16(infos.length), ...infos.map(u16)]);
}

/** Data of LIST_META_CONTEXT (9) and SET_META_CONTEXT (10). */
export function metaData(name: string, queries: readonly string[]): Buffer {
  const texts = queries.map((query) => Buffer.from(query));
  const nameBytes = Buffer.from(name);
  const parts = texts.flatMap((text) => [u32(text.length), text]);
  return Buffer.concat([u32(nameBytes.length), nameBytes, u32(texts.length), ...parts]);
}

/** A compact request; its length is that of the payload if nothing else is said. */
export function request(fields: TestRequest): Buffer {
  const bytes = Buffer.alloc(28);
  putCommon(bytes, 0x25609513, fields);
  bytes.writeUInt32BE(Number(fields.length ?? fields.payload?.length ?? 0), 24);
  return fields.payload === undefined ? bytes : Buffer.concat([bytes, fields.payload]);
}

/** The same with an extended header; a flag says that there is a payload. */
export function extendedRequest(fields: TestRequest): Buffer {
  const { payload, flags = 0 } = fields;
  const bytes = Buffer.alloc(32);
  const flagged = payload === undefined ? flags : flags | PAYLOAD_LEN;
  putCommon(bytes, 0x21e41c71, { ...fields, flags: flagged });
  bytes.writeBigUInt64BE(BigInt(fields.length ?? payload?.length ?? 0), 24);
  return payload === undefined ? bytes : Buffer.concat([bytes, payload]);
}

export function requestOf(style: TestStyle, fields: TestRequest): Buffer {
  return style === 'extended' ? extendedRequest(fields) : request(fields);
}

function putCommon(bytes: Buffer, magic: number, fields: TestRequest): void {
  bytes.writeUInt32BE(magic);
  bytes.writeUInt16BE(fields.flags ?? 0, 4);
  bytes.writeUInt16BE(fields.type, 6);
  bytes.writeBigUInt64BE(fields.cookie, 8);
  bytes.writeBigUInt64BE(BigInt(fields.offset ?? 0), 16);
}

/** Payload of an extended block status: for so many bytes, of these contexts only. */
export function statusPayload(length: number | bigint, ids: readonly number[]): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(BigInt(length));
  return Buffer.concat([bytes, ...ids.map(u32)]);
}

export function read(cookie: bigint, offset: number, length: number): TestRequest {
  return { type: COMMAND.read, cookie, offset, length };
}

export function write(cookie: bigint, offset: number, payload: Uint8Array, flags = 0): TestRequest {
  return { type: COMMAND.write, cookie, offset, payload, flags };
}

/** Bytes that differ from place to place and from seed to seed. */
export function pattern(length: number, seed: number): Buffer {
  return Buffer.from(Uint8Array.from({ length }, (_, index) => index * 7 + seed + (index >> 8)));
}

export interface EnterOptions {
  readonly structured?: boolean;
  readonly extended?: boolean;
  readonly contexts?: readonly string[];
}

export function styleOf({ structured, extended }: EnterOptions): TestStyle {
  if (extended === true) return 'extended';
  return structured === true ? 'structured' : 'simple';
}

/** All that a client sends to be in transmission. */
export function enter(name: string, options: EnterOptions = {}): Buffer {
  const parts = [clientFlags()];
  if (options.structured === true) parts.push(option(8));
  if (options.extended === true) parts.push(option(11));
  if (options.contexts !== undefined) parts.push(option(10, metaData(name, options.contexts)));
  parts.push(option(7, infoData(name)));
  return Buffer.concat(parts);
}
