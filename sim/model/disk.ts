/**
 * Owns the naive model of one vdisk or snapshot: what clients wrote, and what a reader may see.
 *
 * 1. A write is told to the model before it is issued and after it was answered: in between a
 *    sector may hold either.
 * 2. A snapshot under way may or may not have the writes that are under way with it: they go into
 *    the new layer for certain, and perhaps into the old one.
 */
import { BLOCK_BYTES, SECTOR_BYTES } from '../../src/base/units.js';
import { type Contents, ZERO_STAMP } from '../content.js';
import { AFTER_CUT, Layer, type Version } from './layer.js';
import { Violation } from './violation.js';

const SECTORS_PER_BLOCK = BLOCK_BYTES / SECTOR_BYTES;

/** Sectors of a write that hold the same stamp. */
interface Piece {
  readonly first: number;
  readonly count: number;
  readonly stamp: number;
}

/** A write under way. */
export interface WriteUnderWay {
  readonly disk: ModelDisk;
  readonly offset: number;
  readonly length: number;
  readonly pieces: readonly Piece[];
  readonly issuedAt: number;
  /** The layers that have it, each with the versions of it. */
  readonly places: { readonly layer: Layer; readonly versions: Version[] }[];
}

/** Moments of the simulated world's history, as far as clients see it. */
export class Moments {
  #last = 0;

  readonly #reads = new Set<number>();

  next(): number {
    return ++this.#last;
  }

  /** A read begins: what it may see is kept until it ends. */
  beginRead(): number {
    const before = this.next();
    this.#reads.add(before);
    return before;
  }

  endRead(before: number): void {
    this.#reads.delete(before);
  }

  /** Nobody waits for an answer any more. */
  endAllReads(): void {
    this.#reads.clear();
  }

  /** When the oldest read that is under way began. */
  get oldestRead(): number {
    const [oldest] = this.#reads;
    return oldest ?? Number.POSITIVE_INFINITY;
  }
}

export interface ModelParts {
  readonly contents: Contents;
  readonly moments: Moments;
}

export interface ModelSplit {
  readonly mode: 'copy' | 'share';
  /** The layer whose holes are filled: the oldest of the vdisk's own. */
  readonly layer: Layer;
  /** False: all below is of deleted disks, and may be merged by now, or be what is split. */
  isSure: boolean;
  /** The split was answered: it goes on until it is done, whatever happens. */
  isDurable: boolean;
  /** A cancel was asked for. */
  isCancelled?: boolean;
  /** Somebody has paused it; undefined: nobody. */
  paused?: 'yes' | 'no' | 'perhaps';
}

export class ModelDisk {
  readonly id: number;
  readonly kind: 'vdisk' | 'snapshot' | 'external';
  /** The vdisk whose past this snapshot is. */
  of: ModelDisk | undefined;
  /** Of a snapshot: the part behind the @. */
  ownName: string;
  sizeBytes: number;
  layer: Layer;
  isGone = false;
  /** Its deletion is under way. */
  isLeaving = false;
  /** Of a vdisk: a split was asked for, and may be under way or done. */
  split: ModelSplit | undefined;
  /** An undo was asked for: it may be under way. */
  mayBeUndone = false;
  /** Its last split was cancelled, durably, and none was asked for since. */
  isCancelled = false;
  readonly writes = new Set<WriteUnderWay>();
  readonly #parts: ModelParts;
  /** While a snapshot is under way: the layer that will be its own. */
  #past: Layer | undefined;
  /** Moments from which on the end may have moved down, and where to. */
  readonly #shrinks: { readonly at: number; readonly sizeBytes: number }[] = [];

  constructor(
    parts: ModelParts,
    init: {
      id: number;
      kind: ModelDisk['kind'];
      name: string;
      sizeBytes: number;
      layer: Layer;
    },
  ) {
    this.#parts = parts;
    this.id = init.id;
    this.kind = init.kind;
    this.ownName = init.name;
    this.sizeBytes = init.sizeBytes;
    this.layer = init.layer;
  }

  get name(): string {
    return this.of === undefined ? this.ownName : `${this.of.name}@${this.ownName}`;
  }

  // -- writes

  /** A client is about to write; the bytes to write come back. */
  beginWrite(offset: number, length: number): { write: WriteUnderWay; data: Buffer } {
    const { contents } = this.#parts;
    const data = Buffer.allocUnsafe(length);
    const stamp = contents.newStamp();
    const pieces: Piece[] = [];
    const first = Math.ceil(offset / SECTOR_BYTES);
    const end = Math.floor((offset + length) / SECTOR_BYTES);
    for (let sector = first; sector < end; sector++) {
      contents.fillSector(data, sector * SECTOR_BYTES - offset, stamp, sector);
    }
    if (first < end) pieces.push({ first, count: end - first, stamp });
    this.#mixEdges(
      offset,
      length,
      (from, to, start) => {
        const sample = Buffer.alloc(SECTOR_BYTES);
        contents.fillSector(sample, 0, stamp, Math.floor(start / SECTOR_BYTES));
        sample.copy(data, from - offset, from - start, to - start);
        return sample.subarray(from - start, to - start);
      },
      pieces,
    );
    return { write: this.#begin(offset, length, pieces), data };
  }

  /** A client is about to trim or to write zeroes. */
  beginZero(offset: number, length: number): WriteUnderWay {
    const pieces: Piece[] = [];
    const first = Math.ceil(offset / SECTOR_BYTES);
    const end = Math.floor((offset + length) / SECTOR_BYTES);
    if (first < end) pieces.push({ first, count: end - first, stamp: ZERO_STAMP });
    this.#mixEdges(offset, length, (from, to) => Buffer.alloc(to - from), pieces);
    return this.#begin(offset, length, pieces);
  }

  /** Adds the sectors at either end that the write covers in part. */
  #mixEdges(
    offset: number,
    length: number,
    bytesOf: (from: number, to: number, sectorStart: number) => Uint8Array,
    pieces: Piece[],
  ): void {
    const end = offset + length;
    const sectors = new Set<number>();
    if (offset % SECTOR_BYTES !== 0) sectors.add(Math.floor(offset / SECTOR_BYTES));
    if (end % SECTOR_BYTES !== 0) sectors.add(Math.floor(end / SECTOR_BYTES));
    for (const sector of sectors) {
      const start = sector * SECTOR_BYTES;
      const from = Math.max(offset, start);
      const to = Math.min(end, start + SECTOR_BYTES);
      const mixed = this.sectorContent(sector);
      mixed.set(bytesOf(from, to, start), from - start);
      pieces.push({ first: sector, count: 1, stamp: this.#parts.contents.stampOf(mixed) });
    }
  }

  /** The sector's content, if a reader could see only one. */
  isPlain(sector: number): boolean {
    return this.layer.candidates(sector, Number.POSITIVE_INFINITY).size === 1;
  }

  sectorContent(sector: number): Buffer {
    const [stamp, ...others] = this.layer.candidates(sector, Number.POSITIVE_INFINITY);
    if (stamp === undefined || others.length > 0) {
      throw new Error(`sector ${sector} of ${this.name} may have several contents`);
    }
    const bytes = Buffer.alloc(SECTOR_BYTES);
    this.#parts.contents.fillSector(bytes, 0, stamp, sector);
    return bytes;
  }

  #begin(offset: number, length: number, pieces: readonly Piece[]): WriteUnderWay {
    const issuedAt = this.#parts.moments.next();
    const write = { disk: this, offset, length, pieces, issuedAt, places: [] };
    this.#place(write, this.layer, true);
    if (this.#past !== undefined) this.#place(write, this.#past, false);
    this.writes.add(write);
    return write;
  }

  #place(write: WriteUnderWay, layer: Layer, certain: boolean, past?: Layer): void {
    const versions: Version[] = [];
    for (const { first, count, stamp } of write.pieces) {
      const { issuedAt } = write;
      const version = { stamp, issuedAt, answeredAt: Number.POSITIVE_INFINITY, certain };
      versions.push(version);
      // One that overlaps with it and ended before the snapshot may have replaced it in the past:
      // they come in either order. Those that are under way are in the new layer themselves.
      const now = this.#parts.moments.next();
      const baseAt = (sector: number): number =>
        past?.isAnsweredAfter(sector, issuedAt) === true ? now : 0;
      putPiece(layer, first, count, version, baseAt);
    }
    const endBlock = Math.ceil((write.offset + write.length) / BLOCK_BYTES);
    layer.noteChanged(Math.floor(write.offset / BLOCK_BYTES), endBlock);
    write.places.push({ layer, versions });
  }

  /**
   * The write has ended: done, failed (each sector has it or not), or lost (no answer, it may still
   * come to pass before the store is opened again).
   */
  endWrite(write: WriteUnderWay, outcome: 'done' | 'failed' | 'lost', isDurable = false): void {
    if (outcome === 'lost') return;
    this.writes.delete(write);
    const now = this.#parts.moments.next();
    for (const { versions } of write.places) {
      for (const version of versions) {
        version.answeredAt = now;
        if (outcome === 'failed') version.certain = false;
      }
    }
    if (outcome === 'failed' || !isDurable) return;
    const { oldestRead } = this.#parts.moments;
    for (const { layer, versions } of write.places) {
      if (versions[0]?.certain !== true) continue;
      for (const { first, count } of write.pieces) {
        layer.settleWrite(first, count, write.issuedAt, oldestRead);
      }
    }
  }

  // -- snapshots and sizes

  /** A snapshot is about to be asked for: what comes now goes into a new layer. */
  beginSnapshot(): Layer {
    const past = this.layer;
    const layer = new Layer();
    layer.backing = past;
    layer.below = past;
    layer.limitSector = this.sizeBytes / SECTOR_BYTES;
    this.layer = layer;
    this.#past = past;
    for (const write of this.writes) {
      for (const place of write.places) {
        if (place.layer === past) for (const version of place.versions) version.certain = false;
      }
      this.#place(write, layer, true, past);
    }
    return past;
  }

  endSnapshot(): void {
    this.#past = undefined;
  }

  /** A resize begins. */
  noteShrink(sizeBytes: number): void {
    if (sizeBytes >= this.sizeBytes) return;
    this.#shrinks.push({ at: this.#parts.moments.next(), sizeBytes });
  }

  resize(sizeBytes: number): void {
    if (sizeBytes < this.sizeBytes) {
      this.layer.cutTail(sizeBytes / SECTOR_BYTES);
    }
    this.sizeBytes = sizeBytes;
  }

  // -- durability

  /** A FLUSH that was called at this moment was answered. */
  settle(calledAt: number): void {
    const { oldestRead } = this.#parts.moments;
    for (const layer of this.layer.lineage()) layer.settle(calledAt, oldestRead);
  }

  // -- reads

  /**
   * Compares what a client read with what it may see.
   *
   * @param before  moment at which the read began; AFTER_CUT: the first read after a recovery
   * @param into    stamps by chunk: what was read, for `adopt`
   */
  checkRead(
    offset: number,
    bytes: Buffer,
    before: number,
    into?: (sector: number, stamp: number) => void,
  ): void {
    const { contents } = this.#parts;
    const end = Math.min(offset + bytes.length, this.#lowestEndSince(before));
    for (let sector = Math.floor(offset / SECTOR_BYTES); sector * SECTOR_BYTES < end; sector++) {
      const start = sector * SECTOR_BYTES;
      const at = start - offset;
      const isWhole = start >= offset && start + SECTOR_BYTES <= end;
      const part = {
        at: Math.max(0, at),
        from: Math.max(0, offset - start),
        length: Math.min(end, start + SECTOR_BYTES) - Math.max(offset, start),
      };
      const test = isWhole
        ? (stamp: number): boolean => contents.isSector(bytes, at, stamp, sector)
        : (stamp: number): boolean => contents.isPart(bytes, part, stamp, sector);
      const stamp = this.layer.match(sector, before, test, isWhole);
      if (stamp === undefined) throw this.#wrongSector(sector, bytes, part.at, before, isWhole);
      into?.(sector, stamp);
    }
  }

  /** What a reader meets behind an end that moved down meanwhile is anybody's guess. */
  #lowestEndSince(before: number): number {
    let end = Number.POSITIVE_INFINITY;
    if (before === AFTER_CUT) return end;
    for (const { at, sizeBytes } of this.#shrinks) {
      if (at > before) end = Math.min(end, sizeBytes);
    }
    return end;
  }

  /** What is called a hole or zeros may be read as zeros. */
  checkZeros(offset: number, length: number, before: number, kind: string): void {
    const isZero = (stamp: number): boolean => stamp === ZERO_STAMP;
    const first = Math.floor(offset / SECTOR_BYTES);
    const end = Math.min(offset + length, this.#lowestEndSince(before)) / SECTOR_BYTES;
    for (const [from, to] of touchedSectors(this.layer, first, end)) {
      for (let sector = from; sector < to; sector++) {
        if (this.layer.match(sector, before, isZero, false) !== undefined) continue;
        const allowed = [...this.layer.candidates(sector, before)].join(', ');
        throw new Violation(
          `${this.name}: sector ${sector} is called a ${kind}; its content may be: ${allowed}`,
        );
      }
    }
  }

  #wrongSector(
    sector: number,
    bytes: Buffer,
    at: number,
    before: number,
    isWhole: boolean,
  ): Violation {
    const seen = isWhole ? this.#parts.contents.describe(bytes, at) : 'a part of something else';
    const allowed = [...this.layer.candidates(sector, before)].join(', ');
    const block = Math.floor(sector / SECTORS_PER_BLOCK);
    return new Violation(
      `${this.name}: sector ${sector} (block ${block}) reads as ${seen}; allowed: ${allowed}`,
    );
  }
}

function putPiece(
  layer: Layer,
  first: number,
  count: number,
  version: Version,
  baseAt: (sector: number) => number,
): void {
  // Zeros over a large part of a vdisk that nobody wrote to change nothing.
  if (version.stamp !== ZERO_STAMP || count <= 8192) {
    for (let sector = first; sector < first + count; sector++)
      layer.put(sector, version, baseAt(sector));
    return;
  }
  for (const [from, to] of touchedSectors(layer, first, first + count)) {
    for (let sector = from; sector < to; sector++) layer.put(sector, version, baseAt(sector));
  }
}

/** Stretches of [first, end) in which anything was ever written. */
export function touchedSectors(layer: Layer, first: number, end: number): [number, number][] {
  const found: [number, number][] = [];
  for (const chunk of [...layer.chunks()].sort((a, b) => a - b)) {
    const from = Math.max(first, chunk * 128);
    const to = Math.min(end, (chunk + 1) * 128);
    if (from < to) found.push([from, to]);
  }
  return found;
}
