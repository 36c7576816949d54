/**
 * What a server may send, read by the protocol document as a client that mistrusts it: a byte that
 * the document does not allow is an error. Shares no code with the server.
 *
 * 1. A reply has the header that was agreed on, answers an open request, and ends once.
 * 2. Chunks of a read cover its range, each byte once; DF asks for one chunk of data. Of a block
 *    status each context that was asked for has one chunk, whose extents begin at the offset.
 * 3. An extended reply echoes the offset; a block status there is told in 64 bits only.
 */
import { BLOCK_STATUS, COMMAND, type TestRequest, type TestStyle } from './nbd-script.js';

const DF = 1 << 2;
const REQ_ONE = 1 << 3;
/** NBD_EPERM, EIO, ENOMEM, EINVAL, ENOSPC, EOVERFLOW, ENOTSUP, ESHUTDOWN. */
const ERRORS: ReadonlySet<number> = new Set([1, 5, 12, 22, 28, 75, 95, 108]);

export interface OptionReply {
  readonly option: number;
  readonly type: number;
  readonly data: Buffer;
}

export interface TestExtent {
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
  readonly contexts: ReadonlyMap<number, readonly TestExtent[]>;
}

interface Chunk {
  readonly isLast: boolean;
  readonly type: number;
  readonly cookie: bigint;
  readonly payload: Buffer;
}

/** Splits what the server sent, as a client that knows what it asked for. */
export class ReplyReader {
  readonly #bytes: Buffer;
  readonly #style: TestStyle | undefined;
  #at = 0;

  /** @param style  what was agreed on; without it, any header that is not extended will do */
  constructor(bytes: Uint8Array, style?: TestStyle) {
    this.#bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#style = style;
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

  /** @param open  requests by cookie: a simple reply does not tell its length, a read at least */
  reply(open: ReadonlyMap<bigint, TestRequest>): Reply {
    if (this.restBytes < 4) throw new Error('a part of a magic number');
    const magic = this.#bytes.readUInt32BE(this.#at);
    if (magic !== 0x67446698) return this.#chunkedReply(open);
    if (this.#style === 'extended') throw new Error('a simple reply among extended ones');
    return this.#simpleReply(open);
  }

  #simpleReply(open: ReadonlyMap<bigint, TestRequest>): Reply {
    const header = this.take(16);
    const error = header.readUInt32BE(4);
    const cookie = header.readBigUInt64BE(8);
    const request = open.get(cookie);
    const isRead = request?.type === COMMAND.read;
    if (this.#style === 'structured' && isRead) throw new Error('a simple reply to a read');
    if (error !== 0 && !ERRORS.has(error)) throw new Error(`error ${error} is none of NBD's`);
    const data = isRead && error === 0 ? this.take(Number(request.length ?? 0)) : undefined;
    return { cookie, error, message: '', data, chunks: [], contexts: new Map() };
  }

  #chunk(): Chunk {
    const isExtended = this.#style === 'extended';
    const header = this.take(isExtended ? 32 : 20);
    if (this.#style === 'simple' || header.readUInt32BE() !== (isExtended ? EXTENDED : STRUCTURED))
      throw new Error(`magic ${header.toString('hex', 0, 4)} is none of style ${this.#style}`);
    const flags = header.readUInt16BE(4);
    if (flags > 1) throw new Error(`unknown flags ${flags} of a chunk`);
    const type = header.readUInt16BE(6);
    const cookie = header.readBigUInt64BE(8);
    const length = isExtended ? Number(header.readBigUInt64BE(24)) : header.readUInt32BE(16);
    const chunk = { isLast: flags === 1, type, cookie, payload: this.take(length) };
    this.#offset = isExtended ? header.readBigUInt64BE(16) : undefined;
    return chunk;
  }

  /** Of the last extended header. */
  #offset: bigint | undefined;

  #chunkedReply(open: ReadonlyMap<bigint, TestRequest>): Reply {
    let whole: ChunkedReply | undefined;
    for (;;) {
      const chunk = this.#chunk();
      whole ??= new ChunkedReply(chunk.cookie, open.get(chunk.cookie), this.#style);
      if (chunk.cookie !== whole.cookie) throw new Error('chunks of two replies are mixed');
      if (this.#offset !== undefined && this.#offset !== whole.offset) {
        throw new Error(`offset ${this.#offset} in a reply to a request at ${whole.offset}`);
      }
      whole.add(chunk);
      if (chunk.isLast) return whole.end();
    }
  }
}

const STRUCTURED = 0x668e33ef;
const EXTENDED = 0x6e8a278c;

/** A reply that is being put together. */
class ChunkedReply {
  readonly cookie: bigint;
  readonly offset: bigint;
  readonly #request: TestRequest | undefined;
  readonly #isExtended: boolean;
  readonly #length: number;
  readonly #chunks: string[] = [];
  readonly #contexts = new Map<number, TestExtent[]>();
  #error = 0;
  #message = '';
  #data: Buffer | undefined;
  #covered = 0;

  constructor(cookie: bigint, request: TestRequest | undefined, style: TestStyle | undefined) {
    this.cookie = cookie;
    this.offset = BigInt(request?.offset ?? 0);
    this.#request = request;
    this.#isExtended = style === 'extended';
    this.#length = Number(request?.length ?? 0);
  }

  add({ type, payload, isLast }: Chunk): void {
    switch (type) {
      case 0:
        this.#chunks.push('none');
        if (payload.length > 0 || !isLast) throw new Error('a none chunk that goes on');
        return;
      case 1:
        this.#chunks.push('data');
        this.#addRun(payload, payload.subarray(8));
        return;
      case 2:
        this.#chunks.push('hole');
        if (payload.length !== 12) throw new Error(`a hole chunk of ${payload.length} bytes`);
        this.#addRun(payload, Buffer.alloc(payload.readUInt32BE(8)));
        return;
      case 5:
      case 6:
        this.#chunks.push('status');
        if ((type === 6) !== this.#isExtended) throw new Error(`block status of type ${type}`);
        this.#addStatus(payload);
        return;
      case 0x8001:
        this.#chunks.push('error');
        this.#error = payload.readUInt32BE();
        this.#message = payload.toString('utf8', 6, 6 + payload.readUInt16BE(4));
        if (!ERRORS.has(this.#error)) throw new Error(`error ${this.#error} is none of NBD's`);
        if (payload.length !== 6 + payload.readUInt16BE(4))
          throw new Error('bytes behind a message');
        return;
      default:
        throw new Error(`unknown chunk type ${type}`);
    }
  }

  /** Our server sends runs in order, which is more than the document asks for. */
  #addRun(payload: Buffer, bytes: Buffer): void {
    if (this.#request?.type !== COMMAND.read) throw new Error('data for what is no read');
    this.#data ??= Buffer.alloc(this.#length, 0xee);
    const start = Number(payload.readBigUInt64BE() - this.offset);
    if (start !== this.#covered) throw new Error('chunks out of order');
    if (bytes.length === 0 || start + bytes.length > this.#length)
      throw new Error('chunk too long');
    bytes.copy(this.#data, start);
    this.#covered += bytes.length;
  }

  #addStatus(payload: Buffer): void {
    if (this.#request?.type !== BLOCK_STATUS) throw new Error('block status for something else');
    const id = payload.readUInt32BE();
    if (this.#contexts.has(id)) throw new Error(`context ${id} twice`);
    const extents = this.#isExtended ? extendedExtents(payload) : structuredExtents(payload);
    if (extents.length === 0 || extents.some(({ length }) => length === 0)) {
      throw new Error('block status of no bytes');
    }
    const isOne = ((this.#request.flags ?? 0) & REQ_ONE) !== 0;
    if (isOne && extents.length > 1) throw new Error('several extents where one was asked for');
    this.#contexts.set(id, extents);
  }

  end(): Reply {
    const { type, flags = 0 } = this.#request ?? { type: -1 };
    if (this.#error === 0) {
      if (type === COMMAND.read && this.#covered !== this.#length) throw new Error('gap');
      if ((type === BLOCK_STATUS) !== this.#contexts.size > 0) throw new Error('no block status');
      if ((flags & DF) !== 0 && this.#chunks.length > 1)
        throw new Error('fragments in spite of DF');
    }
    return {
      cookie: this.cookie,
      error: this.#error,
      message: this.#message,
      data: this.#error === 0 ? this.#data : undefined,
      chunks: this.#chunks,
      contexts: this.#contexts,
    };
  }
}

/** Id 4; times: length 4, flags 4. */
function structuredExtents(payload: Buffer): TestExtent[] {
  const extents: TestExtent[] = [];
  for (let at = 4; at < payload.length; at += 8) {
    extents.push({ length: payload.readUInt32BE(at), flags: payload.readUInt32BE(at + 4) });
  }
  return extents;
}

/** Id 4, count 4; times: length 8, flags 8. */
function extendedExtents(payload: Buffer): TestExtent[] {
  const extents: TestExtent[] = [];
  for (let at = 8; at < payload.length; at += 16) {
    const length = Number(payload.readBigUInt64BE(at));
    extents.push({ length, flags: Number(payload.readBigUInt64BE(at + 8)) });
  }
  if (extents.length !== payload.readUInt32BE(4)) throw new Error('the count of extents is wrong');
  return extents;
}
