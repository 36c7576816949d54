/**
 * What an NBD server has to answer to a stream of bytes, by the protocol document and
 * docs/PROTOCOLS.md: a naive reader that has the whole stream before it, keeps nothing, and shares
 * no code with the server. It foretells replies, not their order, which is the disk's business.
 */
import { isUtf8 } from 'node:buffer';
import { BLOCK_STATUS, COMMAND, PAYLOAD_LEN, type TestStyle } from './nbd-script.js';

export interface NaiveExport {
  readonly name: string;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
}

export interface NaiveWorld {
  /** The first one is the default. */
  readonly exports: readonly NaiveExport[];
  readonly tls: 'off' | 'allow' | 'require';
  readonly optionsMax: number;
}

/** Replies to one option, by their types. */
export interface ForeseenOption {
  readonly option: number;
  readonly types: readonly number[];
}

export interface ForeseenEntry {
  readonly found: NaiveExport;
  /** Bytes that answer NBD_OPT_EXPORT_NAME; undefined if it was NBD_OPT_GO. */
  readonly replyBytes: number | undefined;
  readonly style: TestStyle;
  readonly contextIds: readonly number[];
}

export interface ForeseenRequest {
  readonly type: number;
  readonly flags: number;
  readonly cookie: bigint;
  readonly offset: bigint;
  /** Of the range. */
  readonly length: number;
  readonly payload: Buffer;
  /** Contexts that a block status tells. */
  readonly contextIds: readonly number[];
  /** 0, or the error by its number. */
  readonly error: number;
}

export interface Foreseen {
  readonly options: readonly ForeseenOption[];
  readonly entry: ForeseenEntry | undefined;
  readonly requests: readonly ForeseenRequest[];
  /** It waits for more, says goodbye, or cuts off the client. */
  readonly end: 'waits' | 'ends' | 'violated';
}

const MIB = 1 << 20;
const [UNSUP, INVALID, TLS_REQD, UNKNOWN] = [0x80000001, 0x80000003, 0x80000005, 0x80000006];
const [TOO_BIG, EXT_REQD] = [0x80000009, 0x8000000a];
const [ACK, SERVER, INFO, META] = [1, 2, 3, 4];
const [EPERM, EINVAL, ENOSPC, ENOTSUP] = [1, 22, 28, 95];
const [FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO] = [1, 2, 4, 8, 16];
const CONTEXTS = ['base:allocation', 'qemu:allocation-depth', 'keiki:state'];

/** The stream as far as it was read. */
class Stream {
  readonly #bytes: Buffer;
  at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get rest(): number {
    return this.#bytes.length - this.at;
  }

  take(length: number): Buffer | undefined {
    if (this.rest < length) return undefined;
    this.at += length;
    return this.#bytes.subarray(this.at - length, this.at);
  }
}

/** @param cuts  where the stream was cut: only there TLS may begin */
export function foresee(bytes: Buffer, cuts: ReadonlySet<number>, world: NaiveWorld): Foreseen {
  const stream = new Stream(bytes);
  const haggling = new Haggling(world);
  const haggled = haggling.run(stream, cuts);
  const { options, entry } = haggling;
  if (entry === undefined) return { options, entry, requests: [], end: haggled };
  const requests: ForeseenRequest[] = [];
  const end = foreseeRequests(stream, entry, requests);
  return { options, entry, requests, end };
}

class Haggling {
  readonly #world: NaiveWorld;
  readonly options: ForeseenOption[] = [];
  entry: ForeseenEntry | undefined;
  #style: TestStyle = 'simple';
  #contextIds: number[] = [];
  #contextsName: string | undefined;
  #isEncrypted = false;
  #zeroes = 124;

  constructor(world: NaiveWorld) {
    this.#world = world;
  }

  run(stream: Stream, cuts: ReadonlySet<number>): Foreseen['end'] {
    const flags = stream.take(4)?.readUInt32BE();
    if (flags === undefined) return 'waits';
    if (flags > 3) return 'violated';
    if ((flags & 2) !== 0) this.#zeroes = 0;
    for (let count = 1; ; count++) {
      const header = stream.take(16);
      if (header === undefined) return 'waits';
      if (header.toString('latin1', 0, 8) !== 'IHAVEOPT') return 'violated';
      if (count > this.#world.optionsMax || header.readUInt32BE(12) > MIB) return 'violated';
      const data = stream.take(header.readUInt32BE(12));
      if (data === undefined) return 'waits';
      const option = header.readUInt32BE(8);
      const types = this.#typesOf(option, data);
      if (types === undefined) return 'violated';
      // The answer to NBD_OPT_EXPORT_NAME is no option reply.
      if (option !== 1) this.options.push({ option, types });
      if (this.entry !== undefined || (option === 2 && types[0] === ACK)) return 'ends';
      const isTls = option === 5 && types[0] === ACK;
      if (isTls && stream.rest > 0 && !cuts.has(stream.at)) return 'violated';
    }
  }

  /** Undefined if there is no reply to give, and the connection ends. */
  #typesOf(option: number, data: Buffer): number[] | undefined {
    const { tls } = this.#world;
    if (option === 5) return [this.#startTls(data)];
    if (tls === 'require' && !this.#isEncrypted && option !== 2) {
      return option === 1 ? undefined : [TLS_REQD];
    }
    if (option === 1) return this.#exportName(data);
    if (option === 2) return [ACK];
    if (![3, 6, 7, 8, 9, 10, 11].includes(option)) return [UNSUP];
    if (option === 10) this.#contextIds = [];
    if (data.length > 65536) return [TOO_BIG];
    if (option === 6 || option === 7) return this.#info(option, data);
    if (option === 9 || option === 10) return this.#metaContexts(option, data);
    if (data.length > 0) return [INVALID];
    if (option === 3) return [...this.#world.exports.map(() => SERVER), ACK];
    if (option === 8 && this.#style === 'extended') return [EXT_REQD];
    this.#style = option === 8 ? 'structured' : 'extended';
    return [ACK];
  }

  #startTls(data: Buffer): number {
    if (this.#world.tls === 'off') return UNSUP;
    if (data.length > 0 || this.#isEncrypted) return INVALID;
    this.#isEncrypted = true;
    this.#style = 'simple';
    this.#contextIds = [];
    this.#contextsName = undefined;
    return ACK;
  }

  #find(name: string): NaiveExport | undefined {
    const { exports } = this.#world;
    return name === '' ? exports[0] : exports.find((each) => each.name === name);
  }

  #enter(found: NaiveExport, replyBytes?: number): void {
    const contextIds = this.#contextsName === found.name ? this.#contextIds : [];
    this.entry = { found, replyBytes, style: this.#style, contextIds };
  }

  #exportName(data: Buffer): number[] | undefined {
    const found = isString(data) ? this.#find(data.toString()) : undefined;
    if (this.#style === 'extended' || found === undefined) return undefined;
    this.#enter(found, 10 + this.#zeroes);
    return [];
  }

  #info(option: number, data: Buffer): number[] {
    const fields = new Stream(data);
    const name = takeString(fields);
    const count = fields.take(2)?.readUInt16BE();
    if (name === undefined || count === undefined || fields.rest !== 2 * count) return [INVALID];
    const found = this.#find(name);
    if (found === undefined) return [UNKNOWN];
    const infos = Array.from({ length: count }, () => fields.take(2)?.readUInt16BE());
    if (option === 7) this.#enter(found);
    return [INFO, ...[1, 3].filter((info) => infos.includes(info)).map(() => INFO), ACK];
  }

  #metaContexts(option: number, data: Buffer): number[] {
    if (this.#style === 'simple') return [INVALID];
    const fields = new Stream(data);
    const name = takeString(fields);
    const count = fields.take(4)?.readUInt32BE();
    if (name === undefined || count === undefined || count > data.length) return [INVALID];
    const queries = Array.from({ length: count }, () => takeString(fields));
    if (queries.includes(undefined) || fields.rest > 0) return [INVALID];
    const found = this.#find(name);
    if (found === undefined) return [UNKNOWN];
    const isNamed = (context: string): boolean => queries.includes(context);
    const isInSpace = (context: string): boolean =>
      count === 0 || queries.includes(context.slice(0, context.indexOf(':') + 1));
    const chosen = CONTEXTS.filter(
      (context) => isNamed(context) || (option === 9 && isInSpace(context)),
    );
    if (option === 10) {
      this.#contextIds = chosen.map((context) => CONTEXTS.indexOf(context) + 1);
      this.#contextsName = found.name;
    }
    return [...chosen.map(() => META), ACK];
  }
}

function isString(bytes: Buffer): boolean {
  return bytes.length <= 4096 && isUtf8(bytes) && !bytes.includes(0);
}

function takeString(fields: Stream): string | undefined {
  const length = fields.take(4)?.readUInt32BE();
  const bytes = length === undefined ? undefined : fields.take(length);
  return bytes !== undefined && isString(bytes) ? bytes.toString() : undefined;
}

function foreseeRequests(
  stream: Stream,
  entry: ForeseenEntry,
  requests: ForeseenRequest[],
): Foreseen['end'] {
  const isExtended = entry.style === 'extended';
  for (;;) {
    const header = stream.take(isExtended ? 32 : 28);
    if (header === undefined) return 'waits';
    if (header.readUInt32BE() !== (isExtended ? 0x21e41c71 : 0x25609513)) return 'violated';
    const flags = header.readUInt16BE(4);
    const type = header.readUInt16BE(6);
    if (type === COMMAND.disc) return 'ends';
    const length = isExtended ? Number(header.readBigUInt64BE(24)) : header.readUInt32BE(24);
    const hasPayload = type === COMMAND.write || (isExtended && (flags & PAYLOAD_LEN) !== 0);
    const payloadBytes = hasPayload ? length : 0;
    const cookie = header.readBigUInt64BE(8);
    const fields = { type, flags, cookie, offset: header.readBigUInt64BE(16), length };
    const early = errorOf({ ...fields, payloadBytes }, entry);
    if (early !== 0 && payloadBytes > 64 * MIB) return 'violated';
    const payload = stream.take(payloadBytes);
    if (payload === undefined) return 'waits';
    const common = { ...fields, payload, contextIds: entry.contextIds, error: early };
    const isFiltered = type === BLOCK_STATUS && early === 0 && payloadBytes > 0;
    requests.push(isFiltered ? filtered(common, payload, entry) : common);
  }
}

/** The length and the ids that the payload of a block status has named. */
function filtered(
  request: ForeseenRequest,
  payload: Buffer,
  entry: ForeseenEntry,
): ForeseenRequest {
  const contextIds: number[] = [];
  for (let at = 8; at < payload.length; at += 4) contextIds.push(payload.readUInt32BE(at));
  const length = Number(payload.readBigUInt64BE());
  const isChosen = (id: number, index: number): boolean =>
    entry.contextIds.includes(id) && contextIds.indexOf(id) === index;
  const isRight = contextIds.every(isChosen) && length > 0 && !isBeyond(request, length, entry);
  return { ...request, length, contextIds, error: isRight ? 0 : EINVAL };
}

interface Header {
  readonly type: number;
  readonly flags: number;
  readonly offset: bigint;
  readonly length: number;
  readonly payloadBytes: number;
}

function isBeyond(
  { offset }: { offset: bigint },
  length: number,
  { found }: ForeseenEntry,
): boolean {
  return offset + BigInt(length) > BigInt(found.sizeBytes);
}

function allowedFlags(chunkFlag: number, payloadFlag: number): ReadonlyMap<number, number> {
  return new Map([
    [COMMAND.read, FUA | chunkFlag],
    [COMMAND.write, FUA | payloadFlag],
    [COMMAND.flush, FUA],
    [COMMAND.trim, FUA],
    [COMMAND.cache, FUA],
    [COMMAND.zeroes, FUA | NO_HOLE | FAST_ZERO],
    [BLOCK_STATUS, FUA | REQ_ONE | payloadFlag],
  ]);
}

const ALLOWED_FLAGS = {
  simple: allowedFlags(0, 0),
  structured: allowedFlags(DF, 0),
  extended: allowedFlags(DF, PAYLOAD_LEN),
} as const satisfies Record<TestStyle, ReadonlyMap<number, number>>;

/** The table "Errors" of docs/PROTOCOLS.md; what can be said before the payload is seen. */
function errorOf(header: Header, entry: ForeseenEntry): number {
  const { type, flags, length, payloadBytes } = header;
  const { found, style, contextIds } = entry;
  const allowed = ALLOWED_FLAGS[style].get(type);
  if (allowed === undefined || (flags & ~allowed) !== 0) return EINVAL;
  const writes = [COMMAND.write, COMMAND.trim, COMMAND.zeroes].includes(type);
  if (writes && found.readOnly) return EPERM;
  if ((type === COMMAND.read || type === COMMAND.write) && length > 32 * MIB) return EINVAL;
  if (type === BLOCK_STATUS) {
    if (contextIds.length === 0) return EINVAL;
    if ((flags & PAYLOAD_LEN) !== 0) {
      const ids = (payloadBytes - 8) / 4;
      return ids >= 1 && ids <= contextIds.length && Number.isInteger(ids) ? 0 : EINVAL;
    }
    if (length === 0) return EINVAL;
  }
  if (type !== COMMAND.flush && isBeyond(header, length, entry)) {
    return type === COMMAND.write || type === COMMAND.zeroes ? ENOSPC : EINVAL;
  }
  if (type === COMMAND.zeroes && (flags & FAST_ZERO) !== 0) {
    const end = Number(header.offset) + length;
    const isWhole = header.offset % 4096n === 0n && (end % 4096 === 0 || end === found.sizeBytes);
    if (!isWhole || (flags & NO_HOLE) !== 0) return ENOTSUP;
  }
  return 0;
}
