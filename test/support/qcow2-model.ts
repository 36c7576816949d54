/**
 * A naive qcow2 reader: the whole file in memory, every cluster from the beginning, in the words
 * of the format's document. It is slow, and knows no limits but those of the document and of the
 * size of a vdisk.
 */
import { dirname, resolve } from 'node:path';
import { constants, inflateRawSync } from 'node:zlib';
import { VDISK_BYTES_MAX } from '../../src/base/units.js';

/** The disk of an image. `undefined` bytes: they cannot be had. */
export interface ModelDisk {
  readonly sizeBytes: number;
  read(offset: number, length: number): Uint8Array | undefined;
}

type Files = ReadonlyMap<string, Uint8Array>;

const MAGIC = 0x514649fb;

/** Undefined if the image is to be refused. */
export function modelImage(
  files: Files,
  path: string,
  seen: readonly string[] = [],
): ModelDisk | undefined {
  const file = files.get(path);
  if (file === undefined || file.length < 72 || seen.includes(path)) return undefined;
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const u64 = (at: number): bigint => view.getBigUint64(at);
  const version = view.getUint32(4);
  const bits = view.getUint32(20);
  if (view.getUint32(0) !== MAGIC || (version !== 2 && version !== 3)) return undefined;
  if (bits < 9 || bits > 21) return undefined;
  const cluster = 2 ** bits;
  if (version === 3 && !isHeader3(view, cluster)) return undefined;
  const extended = version === 3 && (u64(72) & 16n) !== 0n;
  if (extended && bits < 14) return undefined;
  if (view.getUint32(32) !== 0) return undefined;
  const counts = u64(48);
  if (counts % BigInt(cluster) !== 0n || counts >= BigInt(file.length)) return undefined;
  const size = u64(24);
  if (size > BigInt(VDISK_BYTES_MAX) || size % 512n !== 0n) return undefined;
  const headerBytes = version === 2 ? 72 : view.getUint32(100);
  const backing = modelBacking(files, path, view, headerBytes, cluster, [...seen, path]);
  if (backing === 'refused') return undefined;
  const disk = new Model(file, view, Number(size), bits, version, extended, backing);
  return disk.isSound() ? disk : undefined;
}

function isHeader3(view: DataView, cluster: number): boolean {
  if (view.byteLength < 104) return false;
  const length = view.getUint32(100);
  if (length < 104 || length % 8 !== 0 || length > cluster || length > view.byteLength)
    return false;
  const type = length > 104 ? view.getUint8(104) : 0;
  return (view.getBigUint64(72) & ~0x11n) === 0n && type === 0 && view.getUint32(96) <= 6;
}

function modelBacking(
  files: Files,
  path: string,
  view: DataView,
  headerBytes: number,
  cluster: number,
  seen: readonly string[],
): ModelDisk | undefined | 'refused' {
  const first = Math.min(cluster, view.byteLength);
  const at = view.getBigUint64(8);
  const length = view.getUint32(16);
  if (at > BigInt(Number.MAX_SAFE_INTEGER)) return 'refused';
  const nameAt = Number(at);
  const end = nameAt >= headerBytes && nameAt <= first ? nameAt : first;
  let format: string | undefined;
  for (let place = headerBytes; place + 8 <= end; ) {
    const type = view.getUint32(place);
    const bytes = view.getUint32(place + 4);
    if (type === 0) break;
    if (place + 8 + bytes > end) return 'refused';
    if (type === 0xe2792aca) {
      format = textAt(view, place + 8, bytes);
      if (format === undefined) return 'refused';
    }
    place += 8 + Math.ceil(bytes / 8) * 8;
  }
  if (nameAt === 0) return undefined;
  if (length > 1023 || nameAt + length > first) return 'refused';
  const name = textAt(view, nameAt, length);
  if (name === undefined) return 'refused';
  if (name === '') return undefined;
  // The folder of the tests has plain names alone.
  const place = resolve(dirname(path), name.replace(/^file:/, ''));
  const file = files.get(place);
  if (file === undefined || seen.includes(place)) return 'refused';
  if (format === 'qcow2') return modelImage(files, place, seen) ?? 'refused';
  if (format !== undefined && !['raw', 'file', 'host_device'].includes(format)) return 'refused';
  if (format === undefined && file[0] === 0x51 && file[1] === 0x46) return 'refused';
  return rawDisk(file);
}

function textAt(view: DataView, at: number, length: number): string | undefined {
  const text = Buffer.from(view.buffer, view.byteOffset + at, length);
  const string = text.toString('utf8');
  if (!Buffer.from(string).equals(text)) return undefined;
  return [...string].every((letter) => letter >= ' ' && letter !== '\x7f') ? string : undefined;
}

function rawDisk(file: Uint8Array): ModelDisk {
  return {
    sizeBytes: Math.ceil(file.length / 512) * 512,
    read: (offset, length) => {
      const bytes = new Uint8Array(length);
      bytes.set(file.subarray(offset, offset + length));
      return bytes;
    },
  };
}

class Model implements ModelDisk {
  readonly sizeBytes: number;
  readonly #file: Uint8Array;
  readonly #view: DataView;
  readonly #bits: number;
  readonly #version: number;
  readonly #extended: boolean;
  readonly #backing: ModelDisk | undefined;

  constructor(
    file: Uint8Array,
    view: DataView,
    sizeBytes: number,
    bits: number,
    version: number,
    extended: boolean,
    backing: ModelDisk | undefined,
  ) {
    this.#file = file;
    this.#view = view;
    this.sizeBytes = sizeBytes;
    this.#bits = bits;
    this.#version = version;
    this.#extended = extended;
    this.#backing = backing;
  }

  get #cluster(): number {
    return 2 ** this.#bits;
  }

  get #perTable(): number {
    return this.#cluster / (this.#extended ? 16 : 8);
  }

  get #l1Needed(): number {
    return Math.ceil(this.sizeBytes / (this.#cluster * this.#perTable));
  }

  get #l1At(): number {
    return Number(this.#view.getBigUint64(40));
  }

  /** The L1 table is there, and every table it names, once. */
  isSound(): boolean {
    const count = this.#view.getUint32(36);
    const at = this.#view.getBigUint64(40);
    if (count < this.#l1Needed || count > 4194304) return false;
    if (at > BigInt(Number.MAX_SAFE_INTEGER)) return false;
    if (count === 0) return true;
    if (at % BigInt(this.#cluster) !== 0n || at === 0n) return false;
    if (at + BigInt(count) * 8n > BigInt(this.#file.length)) return false;
    const tables = this.#tables();
    if (new Set(tables).size !== tables.length) return false;
    return tables.every((table) => {
      const start = table & 0x00fffffffffffe00n;
      const end = Number(start) + this.#cluster;
      return (
        (table & ~0x80fffffffffffe00n) === 0n &&
        start % BigInt(this.#cluster) === 0n &&
        end <= this.#file.length &&
        (Number(start) >= this.#l1At + this.#l1Needed * 8 || end <= this.#l1At)
      );
    });
  }

  #tables(): bigint[] {
    const tables: bigint[] = [];
    for (let index = 0; index < this.#l1Needed; index++) {
      const entry = this.#view.getBigUint64(this.#l1At + index * 8);
      if ((entry & 0x00fffffffffffe00n) !== 0n || (entry & ~(1n << 63n)) !== 0n) {
        tables.push(entry & 0x7fffffffffffffffn);
      }
    }
    return tables;
  }

  read(offset: number, length: number): Uint8Array | undefined {
    const bytes = new Uint8Array(length);
    const unit = this.#extended ? this.#cluster / 32 : this.#cluster;
    for (let at = offset; at < offset + length; ) {
      const stop = Math.min(offset + length, (Math.floor(at / unit) + 1) * unit);
      const part = this.#unit(at, stop - at, unit);
      if (part === undefined) return undefined;
      bytes.set(part, at - offset);
      at = stop;
    }
    return bytes;
  }

  /** Bytes that lie in one unit. */
  #unit(offset: number, length: number, unit: number): Uint8Array | undefined {
    const index = Math.floor(offset / this.#cluster);
    const l1 = this.#view.getBigUint64(this.#l1At + Math.floor(index / this.#perTable) * 8);
    const table = Number(l1 & 0x00fffffffffffe00n);
    if (table === 0) return this.#behind(offset, length);
    const at = table + (index % this.#perTable) * (this.#extended ? 16 : 8);
    const entry = this.#view.getBigUint64(at);
    if ((entry & (1n << 62n)) !== 0n) return this.#packed(entry, offset, length);
    if ((entry & 0x3f000000000001fen) !== 0n) return undefined;
    const host = entry & 0x00fffffffffffe00n;
    let kind = host === 0n ? 'none' : 'data';
    if ((entry & 1n) !== 0n) {
      if (this.#version === 2 || this.#extended) return undefined;
      kind = 'zero';
    }
    if (this.#extended) {
      const map = this.#view.getBigUint64(at + 8);
      if (((map >> 32n) & map & 0xffffffffn) !== 0n) return undefined;
      const bit = BigInt(Math.floor((offset % this.#cluster) / unit));
      kind = (map >> (32n + bit)) & 1n ? 'zero' : (map >> bit) & 1n ? 'data' : 'none';
    }
    if (kind === 'zero') return new Uint8Array(length);
    if (kind === 'none') return this.#behind(offset, length);
    return this.#data(Number(host), offset, length, unit);
  }

  #data(host: number, offset: number, length: number, unit: number): Uint8Array | undefined {
    if (host === 0 || host % this.#cluster !== 0) return undefined;
    const l1End = this.#l1At + this.#l1Needed * 8;
    if (host < l1End && host + this.#cluster > this.#l1At) return undefined;
    const tables = this.#tables().map((table) => Number(table & 0x00fffffffffffe00n));
    if (tables.includes(host)) return undefined;
    const start = host + (offset % this.#cluster);
    const unitStart = offset - (offset % unit);
    const unitHost = start - (offset % unit);
    if (unitHost + Math.min(unit, this.sizeBytes - unitStart) > this.#file.length) return undefined;
    return this.#file.slice(start, start + length);
  }

  #packed(entry: bigint, offset: number, length: number): Uint8Array | undefined {
    const x = BigInt(62 - (this.#bits - 8));
    const host = entry & ((1n << x) - 1n);
    const sectors = (entry & ((1n << 62n) - 1n)) >> x;
    if (host < BigInt(this.#cluster) || host >= BigInt(this.#file.length)) return undefined;
    const end = (host / 512n + 1n + sectors) * 512n;
    const stream = this.#file.slice(Number(host), Math.min(Number(end), this.#file.length));
    try {
      const options = { finishFlush: constants.Z_SYNC_FLUSH, maxOutputLength: this.#cluster };
      const bytes = inflateRawSync(stream, options);
      const skip = offset % this.#cluster;
      return bytes.length === this.#cluster ? bytes.subarray(skip, skip + length) : undefined;
    } catch {
      return undefined;
    }
  }

  #behind(offset: number, length: number): Uint8Array | undefined {
    const bytes = new Uint8Array(length);
    const there = Math.min(length, Math.max(0, (this.#backing?.sizeBytes ?? 0) - offset));
    if (there === 0) return bytes;
    const part = this.#backing?.read(offset, there);
    if (part === undefined) return undefined;
    bytes.set(part);
    return bytes;
  }
}
