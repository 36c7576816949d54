/**
 * The write allocator: which segment is filled next, and which of its blocks are free.
 *
 * Segments come in aligned pairs. A metadata pair keeps a block in its even segment and the second
 * copy 1,024 blocks on, in the odd one. Other pairs hold data.
 *
 * 1. `occupied` of a segment counts every block that must not be given out: in the durable map,
 *    placed since, or freed but not yet released.
 * 2. A pair is free when nothing in it is occupied or open; then it has no kind.
 * 3. freePairs, dataGaps and metaGaps always are what `occupied` and the kinds say of the store;
 *    what dirty buffers were promised fits into them (`hasRoom`), so that a consistency point never
 *    fails.
 * 4. Data fills gaps before it takes a free pair that metadata may come to need.
 */
import { invariant } from '../../base/invariant.js';
import { StoreError } from '../../base/store-error.js';
import { SEGMENT_BLOCKS } from '../../base/units.js';
import type { TagKind } from '../../layout/log-record.js';
import {
  SEGMENT_DATA,
  SEGMENT_FREE,
  SEGMENT_META,
  SEGMENT_MIRROR,
  SEGMENT_RESERVED,
  USAGE_ENTRIES_PER_BLOCK,
} from '../../layout/usage-entry.js';
import type { Demand } from '../medium.js';
import { popcountAll } from '../vbn-set.js';

export const PAIR_DATA_BLOCKS = 2 * SEGMENT_BLOCKS;
const PAIR_META_BLOCKS = SEGMENT_BLOCKS;

/** A metadata pair with a quarter free is filled before a free one is taken. */
const META_ROOMY_MAX = (SEGMENT_BLOCKS * 3) / 4;

/** What one block of the usage file says, kept up to date with what happened since. */
export interface UsageChunk {
  readonly occupied: Uint16Array;
  readonly kind: Uint8Array;
}

interface OpenSegment {
  readonly segment: number;
  /** Bits of the blocks that may be given out. */
  readonly free: Uint32Array;
  left: number;
  word: number;
}

export interface AllocatorSource {
  /** Usage of 512 segments, what is held but no longer counted in the file included. */
  loadChunk(chunkIndex: number): Promise<UsageChunk>;
  /** Brings the segment's part of the active map into memory. */
  loadBits(segment: number): Promise<void>;
  /** Bits of the segment that may not be given out; undefined if they are not in memory. */
  busyBits(segment: number): Uint32Array | undefined;
  /** Blocks that are promised and not placed yet. */
  promised(): Demand;
}

export interface PairCounts {
  freePairs: number;
  dataGaps: number;
  metaGaps: number;
}

export class SegmentAllocator {
  readonly #source: AllocatorSource;
  readonly #segments: number;
  readonly #chunks = new Map<number, UsageChunk>();
  readonly #open: Record<TagKind, OpenSegment[]> = { data: [], meta: [] };
  readonly #openSegments = new Set<number>();
  /** Even segments of the metadata pairs that are known so far. */
  readonly #metaSegments = new Set<number>();
  #freePairs: number;
  #dataGaps: number;
  #metaGaps: number;
  #cursor: Record<TagKind, number> = { data: 0, meta: 0 };
  #preparing: Promise<void> = Promise.resolve();
  /** Pairs that data leaves to metadata as long as it finds gaps. */
  readonly #metaPairsMin: number;
  readonly #name: string;

  constructor(source: AllocatorSource, segments: number, counts: PairCounts, name: string) {
    this.#source = source;
    this.#segments = segments;
    this.#freePairs = counts.freePairs;
    this.#dataGaps = counts.dataGaps;
    this.#metaGaps = counts.metaGaps;
    // 1/32 of the store: a fully mapped tree needs 1/256 for its indirect blocks, twice.
    this.#metaPairsMin = Math.max(1, Math.floor(segments / 64));
    this.#name = name;
  }

  get counts(): PairCounts {
    return { freePairs: this.#freePairs, dataGaps: this.#dataGaps, metaGaps: this.#metaGaps };
  }

  /** True if so many data and metadata blocks would still find a place. */
  fits(dataBlocks: number, metaBlocks: number): boolean {
    const forData = Math.max(0, Math.ceil((dataBlocks - this.#dataGaps) / PAIR_DATA_BLOCKS));
    const forMeta = Math.max(0, Math.ceil((metaBlocks - this.#metaGaps) / PAIR_META_BLOCKS));
    return forData + forMeta <= this.#freePairs;
  }

  isReady(kind: TagKind, blocks: number): boolean {
    let left = 0;
    for (const open of this.#open[kind]) {
      left += open.left;
      if (left >= blocks) return true;
    }
    return blocks === 0;
  }

  /** Opens segments until so many blocks can be taken at once. */
  prepare(kind: TagKind, blocks: number): Promise<void> {
    const run = this.#preparing.then(() => this.#openUntil(kind, blocks));
    this.#preparing = run.catch(() => undefined);
    return run;
  }

  async #openUntil(kind: TagKind, blocks: number): Promise<void> {
    while (!this.isReady(kind, blocks)) {
      const segment = await this.#choose(kind);
      if (segment === undefined) {
        if (await this.#refreshOpen(kind)) continue;
        throw new StoreError(
          'out-of-space',
          `${this.#name} has no room for ${blocks} more ${kind} blocks; delete vdisks or snapshots`,
        );
      }
      // Somebody may have been promised the pair since it was chosen.
      if (this.#isFreePair(segment) && !this.#mayTakePair(kind)) continue;
      await this.#openSegment(kind, segment);
    }
  }

  /**
   * Gaps count as room although they came about in a segment that is open: takes them in.
   * @returns true if there were any
   */
  async #refreshOpen(kind: TagKind): Promise<boolean> {
    let isMore = false;
    for (const open of [...this.#open[kind]]) {
      let busy = this.#source.busyBits(open.segment);
      while (busy === undefined) {
        await this.#source.loadBits(open.segment);
        busy = this.#source.busyBits(open.segment);
      }
      // Loading let others run: it may be full by now.
      if (!this.#open[kind].includes(open)) continue;
      const free = busy.map((word) => ~word);
      const left = popcountAll(free);
      if (left > open.left) isMore = true;
      open.free.set(free);
      open.left = left;
      open.word = 0;
    }
    return isMore;
  }

  async #openSegment(kind: TagKind, segment: number): Promise<void> {
    this.#openSegments.add(segment);
    // Before anything is awaited: what is promised from here on must not count on the pair.
    if (kind === 'meta') this.#claimForMeta(segment);
    else this.#claimForData(segment);
    let busy = this.#source.busyBits(segment);
    try {
      while (busy === undefined) {
        await this.#source.loadBits(segment);
        busy = this.#source.busyBits(segment);
      }
    } catch (error) {
      this.#openSegments.delete(segment);
      this.#freePairIfEmpty(segment);
      throw error;
    }
    const free = busy.map((word) => ~word);
    const left = popcountAll(free);
    const chunk = this.#chunkOf(segment);
    const index = segment % USAGE_ENTRIES_PER_BLOCK;
    invariant(
      SEGMENT_BLOCKS - left === chunk.occupied[index],
      `the active map and the usage file agree on segment ${segment}`,
    );
    if (left === 0) {
      this.#openSegments.delete(segment);
      return;
    }
    this.#open[kind].push({ segment, free, left, word: 0 });
  }

  #claimForMeta(segment: number): void {
    const chunk = this.#chunkOf(segment);
    const index = segment % USAGE_ENTRIES_PER_BLOCK;
    if (chunk.kind[index] === SEGMENT_META) return;
    this.#freePairs--;
    this.#metaGaps += PAIR_META_BLOCKS;
    chunk.kind[index] = SEGMENT_META;
    chunk.kind[index + 1] = SEGMENT_MIRROR;
    this.#metaSegments.add(segment);
  }

  #claimForData(segment: number): void {
    const chunk = this.#chunkOf(segment);
    const index = segment % USAGE_ENTRIES_PER_BLOCK;
    if (this.#isFreePair(segment)) {
      this.#freePairs--;
      this.#dataGaps += PAIR_DATA_BLOCKS;
    }
    chunk.kind[index] = SEGMENT_DATA;
  }

  /** Both segments without kind, so that the pair counts as free. */
  #isFreePair(segment: number): boolean {
    const even = segment - (segment % 2);
    const chunk = this.#chunkOf(even);
    const index = even % USAGE_ENTRIES_PER_BLOCK;
    return chunk.kind[index] === SEGMENT_FREE && chunk.kind[index + 1] === SEGMENT_FREE;
  }

  #chunkOf(segment: number): UsageChunk {
    const chunk = this.#chunks.get(Math.floor(segment / USAGE_ENTRIES_PER_BLOCK));
    invariant(chunk !== undefined, 'the usage of a segment is loaded before it is changed');
    return chunk;
  }

  isLoaded(segment: number): boolean {
    return this.#chunks.has(Math.floor(segment / USAGE_ENTRIES_PER_BLOCK));
  }

  async load(segment: number): Promise<void> {
    await this.#loadChunk(Math.floor(segment / USAGE_ENTRIES_PER_BLOCK));
  }

  async #loadChunk(chunkIndex: number): Promise<UsageChunk> {
    const there = this.#chunks.get(chunkIndex);
    if (there !== undefined) return there;
    const chunk = await this.#source.loadChunk(chunkIndex);
    const meanwhile = this.#chunks.get(chunkIndex);
    if (meanwhile !== undefined) return meanwhile;
    this.#chunks.set(chunkIndex, chunk);
    for (let index = 0; index < USAGE_ENTRIES_PER_BLOCK; index += 2) {
      if (chunk.kind[index] !== SEGMENT_META) continue;
      this.#metaSegments.add(chunkIndex * USAGE_ENTRIES_PER_BLOCK + index);
    }
    return chunk;
  }

  kindOf(segment: number): number {
    return this.#chunkOf(segment).kind[segment % USAGE_ENTRIES_PER_BLOCK] as number;
  }

  /** Format and recovery only: the block is in use though `take` did not give it out. */
  occupy(segment: number, blocks: number, kind: number): void {
    const chunk = this.#chunkOf(segment);
    const index = segment % USAGE_ENTRIES_PER_BLOCK;
    if (chunk.kind[index] === SEGMENT_FREE) {
      if (kind === SEGMENT_META) {
        this.#claimForMeta(segment);
      } else if (kind !== SEGMENT_MIRROR) {
        this.#claimForData(segment);
        chunk.kind[index] = kind;
      }
    }
    chunk.occupied[index] = (chunk.occupied[index] as number) + blocks;
    if (kind === SEGMENT_META) {
      chunk.occupied[index + 1] = (chunk.occupied[index + 1] as number) + blocks;
      this.#metaGaps -= blocks;
    } else {
      this.#dataGaps -= blocks;
    }
  }

  /** The next free block. `isReady` must have said so. */
  take(kind: TagKind): number {
    const list = this.#open[kind];
    const open = list[0];
    invariant(open !== undefined, 'room is prepared before blocks are placed');
    while (open.free[open.word] === 0) open.word++;
    const word = open.free[open.word] as number;
    const bit = 31 - Math.clz32(word & -word);
    open.free[open.word] = (word & (word - 1)) >>> 0;
    open.left--;
    const chunk = this.#chunkOf(open.segment);
    const index = open.segment % USAGE_ENTRIES_PER_BLOCK;
    chunk.occupied[index] = (chunk.occupied[index] as number) + 1;
    if (kind === 'meta') {
      chunk.occupied[index + 1] = (chunk.occupied[index + 1] as number) + 1;
      this.#metaGaps--;
    } else {
      this.#dataGaps--;
    }
    if (open.left === 0) {
      list.shift();
      this.#openSegments.delete(open.segment);
    }
    return open.segment * SEGMENT_BLOCKS + open.word * 32 + bit;
  }

  /** `blocks` of the segment may be given out again. Of a metadata pair, name the even one. */
  release(segment: number, blocks: number): void {
    const chunk = this.#chunkOf(segment);
    const index = segment % USAGE_ENTRIES_PER_BLOCK;
    const left = (chunk.occupied[index] as number) - blocks;
    invariant(left >= 0, `no block of segment ${segment} is released twice`);
    chunk.occupied[index] = left;
    if (chunk.kind[index] === SEGMENT_META) {
      chunk.occupied[index + 1] = left;
      this.#metaGaps += blocks;
    } else {
      this.#dataGaps += blocks;
    }
    this.#freePairIfEmpty(segment);
  }

  #freePairIfEmpty(segment: number): void {
    const even = segment - (segment % 2);
    const chunk = this.#chunkOf(even);
    const index = even % USAGE_ENTRIES_PER_BLOCK;
    if (chunk.occupied[index] !== 0 || chunk.occupied[index + 1] !== 0) return;
    if (this.#openSegments.has(even) || this.#openSegments.has(even + 1)) return;
    if (chunk.kind[index] === SEGMENT_META) this.#metaGaps -= PAIR_META_BLOCKS;
    else this.#dataGaps -= PAIR_DATA_BLOCKS;
    this.#freePairs++;
    this.#metaSegments.delete(even);
    chunk.kind[index] = SEGMENT_FREE;
    chunk.kind[index + 1] = SEGMENT_FREE;
  }

  /**
   * The next segment to open. Data: an empty one while metadata can spare it, else the emptiest of
   * a stretch. Metadata: a pair with a quarter free, else a free pair, else any with room.
   */
  async #choose(kind: TagKind): Promise<number | undefined> {
    const chunks = Math.ceil(this.#segments / USAGE_ENTRIES_PER_BLOCK);
    const roomy = kind === 'meta' ? this.#roomyMetaSegment() : undefined;
    if (roomy !== undefined) return roomy;
    const spared = kind === 'data' && !this.#metaCanSpare();
    if (spared) {
      // Gaps first; a free pair only when there are none.
      const gap = await this.#search(kind, chunks, false);
      if (gap !== undefined) return gap;
    }
    return this.#search(kind, chunks, true);
  }

  async #search(
    kind: TagKind,
    chunks: number,
    withFreePairs: boolean,
  ): Promise<number | undefined> {
    let best: number | undefined;
    let bestOccupied = SEGMENT_BLOCKS;
    for (let step = 0; step <= chunks; step++) {
      const cursor = this.#cursor[kind];
      const chunkIndex = Math.floor(cursor / USAGE_ENTRIES_PER_BLOCK);
      const chunk = await this.#loadChunk(chunkIndex);
      const mayTakePair = withFreePairs && this.#mayTakePair(kind);
      const first = chunkIndex * USAGE_ENTRIES_PER_BLOCK;
      const end = Math.min(first + USAGE_ENTRIES_PER_BLOCK, this.#segments);
      for (let segment = step === 0 ? cursor : first; segment < end; segment++) {
        const occupied = chunk.occupied[segment - first] as number;
        if (occupied >= bestOccupied || !this.#isCandidate(kind, segment, mayTakePair)) continue;
        best = segment;
        bestOccupied = occupied;
        if (occupied === 0) {
          this.#cursor[kind] = segment;
          return segment;
        }
      }
      // Enough looked at: a stretch of 16 GiB gives a segment that is half empty.
      if (best !== undefined && step >= 8 && bestOccupied <= SEGMENT_BLOCKS / 2) break;
      this.#cursor[kind] = end >= this.#segments ? 0 : end;
    }
    return best;
  }

  #roomyMetaSegment(): number | undefined {
    for (const segment of this.#metaSegments) {
      const occupied = this.#chunkOf(segment).occupied[segment % USAGE_ENTRIES_PER_BLOCK] as number;
      if (occupied <= META_ROOMY_MAX && !this.#openSegments.has(segment)) return segment;
    }
    return undefined;
  }

  /** True if what is promised still fits when this kind takes a free pair. */
  #mayTakePair(kind: TagKind): boolean {
    const { dataBlocks, metaBlocks } = this.#source.promised();
    const isData = kind === 'data';
    const dataGaps = this.#dataGaps + (isData ? PAIR_DATA_BLOCKS : 0);
    const metaGaps = this.#metaGaps + (isData ? 0 : PAIR_META_BLOCKS);
    const forData = Math.max(0, Math.ceil((dataBlocks - dataGaps) / PAIR_DATA_BLOCKS));
    const forMeta = Math.max(0, Math.ceil((metaBlocks - metaGaps) / PAIR_META_BLOCKS));
    return forData + forMeta <= this.#freePairs - 1;
  }

  /** Metadata keeps 1/32 of the store while data can use gaps. */
  #metaCanSpare(): boolean {
    return this.#freePairs + this.#metaSegments.size > this.#metaPairsMin;
  }

  #isCandidate(kind: TagKind, segment: number, mayTakePair: boolean): boolean {
    if (this.#openSegments.has(segment)) return false;
    const own = this.kindOf(segment);
    if (kind === 'meta') {
      if (segment % 2 !== 0) return false;
      if (own === SEGMENT_META) return true;
      return mayTakePair && this.#isFreePair(segment) && !this.#openSegments.has(segment + 1);
    }
    if (own === SEGMENT_DATA) return true;
    if (own !== SEGMENT_FREE) return false;
    if (this.#isFreePair(segment)) return mayTakePair && !this.#openSegments.has(segment ^ 1);
    return true;
  }
}

/** What a pair adds to the counts of the store, as its usage entries say. */
export function countPair(
  kinds: readonly [number, number],
  live: readonly [number, number],
  into: PairCounts,
  sign: 1 | -1,
): void {
  const isEmpty = live[0] === 0 && live[1] === 0;
  if (isEmpty && kinds[0] !== SEGMENT_RESERVED && kinds[1] !== SEGMENT_RESERVED) {
    into.freePairs += sign;
  } else if (kinds[0] === SEGMENT_META) {
    into.metaGaps += sign * (PAIR_META_BLOCKS - live[0]);
  } else {
    into.dataGaps += sign * (PAIR_DATA_BLOCKS - live[0] - live[1]);
  }
}
