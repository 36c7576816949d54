/**
 * The client's side of NBD, byte by byte from the protocol document, for tests of the server: it
 * shares no code and no constant with the server's codec, so that a mistake there is seen here.
 */

export const COMMAND = { read: 0, write: 1, disc: 2, flush: 3, trim: 4, cache: 5, zeroes: 6 };
export const BLOCK_STATUS = 7;

export interface TestRequest {
  readonly type: number;
  readonly flags?: number;
  readonly cookie: bigint;
  readonly offset?: number | bigint;
  readonly length?: number;
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

export function request(fields: TestRequest): Buffer {
  const bytes = Buffer.alloc(28);
  bytes.writeUInt32BE(0x25609513);
  bytes.writeUInt16BE(fields.flags ?? 0, 4);
  bytes.writeUInt16BE(fields.type, 6);
  bytes.writeBigUInt64BE(fields.cookie, 8);
  bytes.writeBigUInt64BE(BigInt(fields.offset ?? 0), 16);
  bytes.writeUInt32BE(fields.length ?? fields.payload?.length ?? 0, 24);
  return fields.payload === undefined ? bytes : Buffer.concat([bytes, fields.payload]);
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

/** All that a client sends to be in transmission. */
export function enter(
  name: string,
  options: { structured?: boolean; contexts?: string[] } = {},
): Buffer {
  const parts = [clientFlags()];
  if (options.structured === true) parts.push(option(8));
  if (options.contexts !== undefined) parts.push(option(10, metaData(name, options.contexts)));
  parts.push(option(7, infoData(name)));
  return Buffer.concat(parts);
}

export interface OptionReply {
  readonly option: number;
  readonly type: number;
  readonly data: Buffer;
}

export interface Extent {
  readonly length: number;
  readonly flags: number;
}

/** What a reply said, its chunks put together. */
export interface Reply {
  readonly cookie: bigint;
  readonly error: number;
  readonly message: string;
  /** Bytes of a successful read. */
  readonly data: Buffer | undefined;
  /** 'data', 'hole', 'status', 'none', 'error' for each chunk; empty for a simple reply. */
  readonly chunks: readonly string[];
  readonly contexts: ReadonlyMap<number, readonly Extent[]>;
}

/** Splits what the server sent, as a client that knows what it asked for. */
export class ReplyReader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  get restBytes(): number {
    return this.#bytes.length - this.#at;
  }

  take(length: number): Buffer {
    if (this.restBytes < length) throw new Error(`${length} bytes wanted, ${this.restBytes} there`);
    this.#at += length;
    return this.#bytes.subarray(this.#at - length, this.#at);
  }

  greeting(): number {
    const bytes = this.take(18);
    if (bytes.toString('latin1', 0, 16) !== 'NBDMAGICIHAVEOPT') throw new Error('no greeting');
    return bytes.readUInt16BE(16);
  }

  optionReply(): OptionReply {
    const header = this.take(20);
    if (header.readBigUInt64BE() !== 0x3e889045565a9n) throw new Error('no option reply');
    const data = this.take(header.readUInt32BE(16));
    return { option: header.readUInt32BE(8), type: header.readUInt32BE(12), data };
  }

  /** Replies up to and with the final one: an acknowledgement or an error. */
  optionReplies(): OptionReply[] {
    const replies: OptionReply[] = [];
    for (;;) {
      const reply = this.optionReply();
      replies.push(reply);
      if (reply.type === 1 || reply.type >= 0x8000_0000) return replies;
    }
  }

  /** @param reads the read requests, by cookie: a simple reply does not tell its length */
  reply(reads: ReadonlyMap<bigint, TestRequest>): Reply {
    return this.#bytes.readUInt32BE(this.#at) === 0x67446698
      ? this.#simpleReply(reads)
      : this.#structuredReply(reads);
  }

  #simpleReply(reads: ReadonlyMap<bigint, TestRequest>): Reply {
    const header = this.take(16);
    const error = header.readUInt32BE(4);
    const cookie = header.readBigUInt64BE(8);
    const read = reads.get(cookie);
    const data = read !== undefined && error === 0 ? this.take(read.length ?? 0) : undefined;
    return { cookie, error, message: '', data, chunks: [], contexts: new Map() };
  }

  #structuredReply(reads: ReadonlyMap<bigint, TestRequest>): Reply {
    const chunks: string[] = [];
    const contexts = new Map<number, Extent[]>();
    let error = 0;
    let message = '';
    let data: Buffer | undefined;
    let covered = 0;
    for (;;) {
      const header = this.take(20);
      if (header.readUInt32BE() !== 0x668e33ef) throw new Error('no structured reply');
      const cookie = header.readBigUInt64BE(8);
      const payload = this.take(header.readUInt32BE(16));
      const read = reads.get(cookie);
      if (read !== undefined) data ??= Buffer.alloc(read.length ?? 0, 0xee);
      const start = (): number => Number(payload.readBigUInt64BE() - BigInt(read?.offset ?? 0));
      switch (header.readUInt16BE(6)) {
        case 0:
          chunks.push('none');
          break;
        case 1:
          chunks.push('data');
          if (start() !== covered) throw new Error('chunks out of order');
          covered += payload.copy(data ?? Buffer.alloc(0), start(), 8);
          break;
        case 2:
          chunks.push('hole');
          if (start() !== covered) throw new Error('chunks out of order');
          covered += payload.readUInt32BE(8);
          data?.fill(0, start(), start() + payload.readUInt32BE(8));
          break;
        case 5:
          chunks.push('status');
          contexts.set(payload.readUInt32BE(), readExtents(payload.subarray(4)));
          break;
        case 0x8001:
          chunks.push('error');
          error = payload.readUInt32BE();
          message = payload.toString('utf8', 6, 6 + payload.readUInt16BE(4));
          break;
        default:
          throw new Error('unknown chunk');
      }
      if ((header.readUInt16BE(4) & 1) === 0) continue;
      if (read !== undefined && error === 0 && covered !== read.length) throw new Error('gap');
      return { cookie, error, message, data: error === 0 ? data : undefined, chunks, contexts };
    }
  }
}

function readExtents(bytes: Buffer): Extent[] {
  const extents: Extent[] = [];
  for (let at = 0; at < bytes.length; at += 8) {
    extents.push({ length: bytes.readUInt32BE(at), flags: bytes.readUInt32BE(at + 4) });
  }
  return extents;
}
