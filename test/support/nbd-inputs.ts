/**
 * Streams of an NBD client, sound and damaged, from a seed: options and requests of every kind with
 * every flag and limit, names, lengths and counts that lie, bytes changed, lost and repeated, cut
 * anywhere.
 */
import type { Random } from '../../src/env/random.js';
import { foresee, type NaiveWorld } from './nbd-naive-server.js';
import {
  BLOCK_STATUS,
  COMMAND,
  clientFlags,
  infoData,
  metaData,
  option,
  requestOf,
  statusPayload,
  type TestStyle,
} from './nbd-script.js';

const KIB = 1024;
const MIB = 1024 * KIB;

export interface NbdInput {
  readonly bytes: Buffer;
  /** Where the stream is cut, in order. */
  readonly cuts: readonly number[];
}

export function makeInput(random: Random, world: NaiveWorld): NbdInput {
  const script = new Script(random, world);
  script.haggle();
  if (random.chance(0.9)) script.enter();
  const ends = script.parts.length;
  // Requests behind a handshake that has failed are bad options, of which a few will do.
  const count = script.learn() || random.chance(0.1) ? random.below(9) : 0;
  for (let index = 0; index < count; index++) script.request();
  if (random.chance(0.2)) script.push(requestOf(script.style, { type: COMMAND.disc, cookie: 0n }));
  const bytes = random.chance(0.3) ? damage(random, script.parts) : Buffer.concat(script.parts);
  const isCutWhereTlsBegins = random.chance(world.tls === 'off' ? 0.3 : 0.95);
  const parts = isCutWhereTlsBegins ? boundaries(script.parts, ends) : [];
  return { bytes, cuts: makeCuts(random, bytes.length, parts) };
}

function pick<T>(random: Random, values: readonly T[]): T {
  return values[random.below(values.length)] as T;
}

/** Lengths at which something changes. */
function oddLength(random: Random): number {
  const edges = [0, 1, 3, 4, 5, 511, 512, 4095, 4096, 4097, 65535, 65536, 65537, MIB, MIB + 1];
  const far = [0x7fffffff, 0x80000000, 0xffffffff];
  return random.chance(0.9) ? random.below(40) : pick(random, random.chance(0.8) ? edges : far);
}

class Script {
  readonly #random: Random;
  readonly #world: NaiveWorld;
  readonly parts: Buffer[] = [];
  /** What was agreed on. */
  style: TestStyle = 'simple';
  /** The export that a sound client means. */
  readonly #chosen: string;
  #sizeBytes = 0;
  #cookie = 0n;

  constructor(random: Random, world: NaiveWorld) {
    this.#random = random;
    this.#world = world;
    this.#chosen = this.#name(0.98);
  }

  /** Finds out whether an export was entered, and how. */
  learn(): boolean {
    const cuts = new Set(boundaries(this.parts, this.parts.length));
    const { entry } = foresee(Buffer.concat(this.parts), cuts, this.#world);
    this.style = entry?.style ?? 'simple';
    this.#sizeBytes = entry?.found.sizeBytes ?? 0;
    return entry !== undefined;
  }

  push(bytes: Buffer): void {
    this.parts.push(bytes);
  }

  haggle(): void {
    const random = this.#random;
    const flags = random.chance(0.98) ? random.below(4) : (1 << random.below(32)) >>> 0;
    this.push(clientFlags(flags));
    if (this.#world.tls !== 'off' && random.chance(0.7)) this.push(option(5));
    if (random.chance(0.4)) this.push(option(11));
    else if (random.chance(0.6)) this.push(option(8));
    for (let count = random.below(4); count > 0; count--) {
      this.#option(random.chance(0.9) ? pick(random, OPTIONS) : random.nextU32());
    }
    if (random.chance(0.6)) this.push(option(10, metaData(this.#chosen, this.#queries())));
  }

  enter(): void {
    const random = this.#random;
    const name = random.chance(0.9) ? this.#chosen : this.#name(0.5);
    if (random.chance(0.1)) this.push(option(1, Buffer.from(name)));
    else this.push(option(7, infoData(name, random.chance(0.5) ? [3] : [])));
  }

  #name(soundness: number): string {
    const random = this.#random;
    if (random.chance(soundness)) return pick(random, this.#world.exports).name;
    const long = 'x'.repeat(pick(random, [255, 256, 4095, 4096, 4097]));
    return pick(random, ['', 'nope', 'a\0b', 'disk ', 'DISK', 'ä', long]);
  }

  #queries(): string[] {
    const random = this.#random;
    const all = ['base:allocation', 'qemu:allocation-depth', 'keiki:state', 'base:', 'qemu:', ':'];
    const more = ['', 'x-other:y', 'base:allocatio', 'qemu:dirty-bitmap:x', 'q'.repeat(4097)];
    return Array.from({ length: random.below(5) }, () =>
      random.chance(0.8) ? pick(random, all) : pick(random, more),
    );
  }

  /** An option whose data may be sound, of some length, cut, or lying about its lengths. */
  #option(type: number): void {
    const random = this.#random;
    let data: Buffer = Buffer.alloc(0);
    if (random.chance(0.85)) {
      if (type === 6 || type === 7) {
        const infos = Array.from({ length: random.below(4) }, () => random.below(5));
        data = infoData(this.#name(type === 7 ? 0.1 : 0.7), infos);
      } else if (type === 9 || type === 10) {
        data = metaData(this.#name(0.8), this.#queries());
      }
    } else {
      const length = oddLength(random);
      data = Buffer.alloc(length > 70_000 ? random.below(9) : length, random.below(256));
      if (length > 70_000) {
        this.push(lying(option(type, data), 12, length));
        return;
      }
    }
    if (data.length >= 4 && random.chance(0.15)) {
      const at = random.below(data.length - 3);
      data.writeUInt32BE(pick(random, [0, 1, data.length, data.length - 4, 0xffffffff]), at);
    }
    if (random.chance(0.05)) data = data.subarray(0, random.below(data.length + 1));
    const bytes = option(type, data);
    this.push(random.chance(0.02) ? lying(bytes, 12, oddLength(random)) : bytes);
  }

  request(): void {
    this.push(this.#request());
  }

  #request(): Buffer {
    const random = this.#random;
    const type = random.chance(0.95) ? pick(random, TYPES) : random.below(65536);
    const isExtended = this.style === 'extended';
    const flags = random.chance(0.8) ? 0 : (1 << random.below(random.chance(0.9) ? 6 : 16)) & 65535;
    const cookie = ++this.#cookie + BigInt(random.below(4)) * 2n ** 62n;
    const fields = { type, flags, cookie, ...this.#range() };
    if (type === BLOCK_STATUS && isExtended && random.chance(0.4)) {
      const ids = [1, 2, 3, 1 + random.below(4)].filter(() => random.chance(0.5));
      const payload = statusPayload(this.#length(), ids);
      const cut = payload.subarray(0, random.chance(0.9) ? payload.length : random.below(28));
      return requestOf(this.style, { ...fields, length: cut.length, payload: cut });
    }
    const hasPayload = type === COMMAND.write || (isExtended && random.chance(0.1));
    if (!hasPayload) return requestOf(this.style, fields);
    const isLong = random.chance(0.05);
    const length = isLong ? 70_000 : random.chance(0.4) ? random.below(600) : Number(fields.length);
    const payload = Buffer.alloc(Math.min(length, 70_000), 1 + random.below(255));
    // Now and then the header names another length than what follows.
    const told = random.chance(0.97) ? payload.length : fields.length;
    return requestOf(this.style, { ...fields, length: told, payload });
  }

  #range(): { offset: bigint; length: number | bigint } {
    const random = this.#random;
    if (random.chance(0.9)) return { offset: this.#offset(), length: this.#length() };
    // Up to the end, or one byte less or more.
    const length = 1 + random.below(4096);
    const end = this.#sizeBytes - 1 + random.below(3);
    return { offset: BigInt(Math.max(0, end - length)), length };
  }

  #offset(): bigint {
    const random = this.#random;
    const sizeBytes = Math.max(this.#sizeBytes, 4096);
    const size = BigInt(sizeBytes);
    const edges = [
      0n,
      size - 512n,
      size - 1n,
      size,
      size + 1n,
      2n ** 53n,
      2n ** 63n,
      2n ** 64n - 1n,
    ];
    if (random.chance(0.12)) return pick(random, edges);
    const within = Math.min(sizeBytes, random.chance(0.7) ? 64 * KIB : 2 ** 45);
    const offset = random.below(within);
    return BigInt(random.chance(0.5) ? offset - (offset % 4096) : offset);
  }

  #length(): number | bigint {
    const random = this.#random;
    if (random.chance(0.6)) return random.below(9000);
    if (random.chance(0.6)) return 4096 * random.below(64);
    const edges = [0, 1, 512, 128 * KIB, MIB, 4 * MIB, 32 * MIB + 1, 0x7fffffff, 0xffffffff];
    if (this.style !== 'extended') return pick(random, edges);
    // The largest numbers that a double still tells apart: model and server round alike.
    return pick(random, [...edges, 2 ** 32, 2 ** 40, 2 ** 53, 2n ** 63n, 2n ** 64n - 1n]);
  }
}

/** NBD_OPT_ABORT ends it all: not too often. */
const OPTIONS = [3, 3, 4, 5, 5, 6, 6, 7, 7, 8, 9, 9, 9, 10, 10, 10, 11, 2];
const TYPES = [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 3, 4, 4, 5, 6, 6, 6, 7, 7, 7, 7, 8];

function lying(bytes: Buffer, at: number, length: number): Buffer {
  bytes.writeUInt32BE(length, at);
  return bytes;
}

/** Bytes changed, lost, repeated or swapped, in the first bytes more often than later. */
function damage(random: Random, parts: readonly Buffer[]): Buffer {
  if (random.chance(0.2)) {
    const shuffled = [...parts];
    const [from, to] = [random.below(parts.length), random.below(parts.length)];
    shuffled.splice(to, 0, ...shuffled.splice(from, 1));
    return Buffer.concat(shuffled);
  }
  let bytes = Buffer.concat(parts);
  for (let count = random.below(3); count >= 0 && bytes.length > 8; count--) {
    const at = random.below(random.chance(0.6) ? Math.min(200, bytes.length) : bytes.length);
    const cut = Math.min(bytes.length, at + 1 + random.below(40));
    switch (random.below(5)) {
      case 0:
        bytes[at] = random.below(256);
        break;
      case 1:
        bytes[at] = (bytes[at] ?? 0) ^ (1 << random.below(8));
        break;
      case 2:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(cut)]);
        break;
      case 3:
        bytes = Buffer.concat([bytes.subarray(0, cut), bytes.subarray(at)]);
        break;
      default:
        bytes.writeUInt32BE(pick(random, [0, 0xffffffff]), Math.min(at, bytes.length - 4));
    }
  }
  return random.chance(0.2) ? bytes.subarray(0, random.below(bytes.length + 1)) : bytes;
}

/** Ends of the first parts: behind one of them TLS may begin. */
function boundaries(parts: readonly Buffer[], count: number): number[] {
  let at = 0;
  return parts.slice(0, count).map((part) => {
    at += part.length;
    return at;
  });
}

function makeCuts(random: Random, length: number, parts: readonly number[]): number[] {
  const cuts = new Set(parts);
  if (random.chance(0.02) && length < 3000) {
    for (let at = 1; at < length; at++) cuts.add(at);
  } else {
    for (let count = random.below(6); count > 0; count--) cuts.add(random.below(length + 1));
  }
  return [...cuts].filter((cut) => cut > 0 && cut < length).sort((a, b) => a - b);
}
