/**
 * Reads blocks of records: from what was read ahead, from the cache file, from the object store.
 *
 * 1. A record never changes and a VBN never comes back: what is kept is never stale.
 * 2. Whoever wants bytes that are on their way waits for them: one GET.
 * 3. What is read at random goes into the cache file at once. What is read in a stream does only
 *    when it is missed for the second time: a backup does not push everything else out, and costs
 *    one GET a record.
 * 4. What was read ahead is kept in memory until it is read, or pushed out by what was read ahead
 *    later. The blocks that are used again are in the engine's buffers, before they get here.
 * 5. Nothing is verified here: whoever has the checksum calls readAgain for what was wrong, and
 *    what was kept of it is gone.
 */
import { StoreError } from '../../../base/store-error.js';
import { BLOCK_BYTES, SEGMENT_BLOCKS } from '../../../base/units.js';
import type { CacheFile, CacheFileStats } from './cache-file.js';
import { ReadStreams } from './read-streams.js';

/** Bytes of blocks [vbn, vbn + count) of one record; fewer where the record ends. */
export type FetchBlocks = (vbn: number, count: number) => Promise<Uint8Array>;

export interface BlockCacheStats {
  memoryHits: number;
  fileHits: number;
  misses: number;
  /** GETs, and blocks that they brought beyond what was asked for. */
  fetches: number;
  aheadBlocks: number;
  memoryBytes: number;
  file: CacheFileStats | undefined;
}

export class BlockCache {
  readonly #fetchBlocks: FetchBlocks;
  readonly #aheadMax: number;
  readonly #file: CacheFile | undefined;
  readonly #streams = new ReadStreams();
  /** Read ahead and not yet read; the oldest first. */
  readonly #ahead = new Map<number, Uint8Array>();
  /** On their way: the bytes of a fetch, and its first VBN. */
  readonly #coming = new Map<number, Promise<Fetched>>();
  /** Missed once, in a stream; the oldest first. */
  readonly #missed = new Set<number>();
  readonly #counts = { memoryHits: 0, fileHits: 0, misses: 0, fetches: 0, aheadBlocks: 0 };

  constructor(fetchBlocks: FetchBlocks, aheadBytes: number, file: CacheFile | undefined) {
    this.#fetchBlocks = fetchBlocks;
    this.#aheadMax = Math.floor(aheadBytes / BLOCK_BYTES);
    this.#file = file;
  }

  get stats(): BlockCacheStats {
    const memoryBytes = this.#ahead.size * BLOCK_BYTES;
    return { ...this.#counts, memoryBytes, file: this.#file?.stats };
  }

  /** Fills the blocks, which are one behind the other in one record. @throws {StoreError} device */
  async read(vbn: number, into: readonly Uint8Array[]): Promise<void> {
    const { end, isStream } = this.#streams.noteRead(vbn, into.length);
    const isLong = isStream || into.length > LONG_BLOCKS;
    const missing: number[] = [];
    const waits: Promise<void>[] = [];
    for (let index = 0; index < into.length; index++) {
      const block = into[index] as Uint8Array;
      const at = vbn + index;
      if (this.#takeAhead(at, block)) continue;
      const coming = this.#coming.get(at);
      if (coming !== undefined) waits.push(this.#copyComing(coming, at, block));
      else if (this.#file?.has(at) === true) waits.push(this.#readFile(at, block, isLong));
      else missing.push(index);
    }
    for (let start = 0; start < missing.length; ) {
      let stop = start + 1;
      const first = missing[start] as number;
      while (stop < missing.length && missing[stop] === first + stop - start) stop++;
      const isLast = stop === missing.length && first + stop - start === into.length;
      const wanted = into.slice(first, first + stop - start);
      waits.push(this.#readMissing(vbn + first, wanted, isLast ? end : 0, isLong));
      start = stop;
    }
    // All must have ended before the caller may use its buffers again, even if one failed.
    const outcomes = await Promise.allSettled(waits);
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  }

  /** Fetches a block that was not what its pointer says, and keeps nothing of it. */
  async readAgain(vbn: number, into: Uint8Array): Promise<void> {
    this.#ahead.delete(vbn);
    this.#file?.forget(vbn);
    this.#counts.fetches++;
    const bytes = await this.#fetchBlocks(vbn, 1);
    if (bytes.length < BLOCK_BYTES) throw tooShort(vbn);
    into.set(bytes.subarray(0, BLOCK_BYTES));
  }

  #takeAhead(vbn: number, into: Uint8Array): boolean {
    const bytes = this.#ahead.get(vbn);
    if (bytes === undefined) return false;
    into.set(bytes);
    // Now it is the engine's to keep.
    this.#ahead.delete(vbn);
    this.#counts.memoryHits++;
    return true;
  }

  async #copyComing(coming: Promise<Fetched>, vbn: number, into: Uint8Array): Promise<void> {
    const { first, bytes } = await coming;
    const start = (vbn - first) * BLOCK_BYTES;
    if (start + BLOCK_BYTES > bytes.length) throw tooShort(vbn);
    into.set(bytes.subarray(start, start + BLOCK_BYTES));
    this.#ahead.delete(vbn);
    this.#counts.memoryHits++;
  }

  async #readFile(vbn: number, into: Uint8Array, isLong: boolean): Promise<void> {
    if ((await this.#file?.read(vbn, into)) === true) this.#counts.fileHits++;
    else await this.#readMissing(vbn, [into], 0, isLong);
  }

  async #readMissing(
    vbn: number,
    into: readonly Uint8Array[],
    end: number,
    isLong: boolean,
  ): Promise<void> {
    this.#counts.misses += into.length;
    const { bytes } = await this.#fetch(vbn, Math.max(end, vbn + into.length) - vbn);
    if (bytes.length < into.length * BLOCK_BYTES) throw tooShort(vbn);
    into.forEach((block, index) => {
      const part = bytes.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES);
      block.set(part);
      if (part.length === BLOCK_BYTES) this.#offer(vbn + index, part, isLong);
    });
    const ahead = bytes.subarray(into.length * BLOCK_BYTES);
    this.#keepAhead(vbn + into.length, ahead);
  }

  async #fetch(first: number, count: number): Promise<Fetched> {
    const fetched = this.#fetchBlocks(first, count).then((bytes) => ({ first, bytes }));
    this.#counts.fetches++;
    for (let vbn = first; vbn < first + count; vbn++) this.#coming.set(vbn, fetched);
    try {
      return await fetched;
    } finally {
      for (let vbn = first; vbn < first + count; vbn++) {
        if (this.#coming.get(vbn) === fetched) this.#coming.delete(vbn);
      }
    }
  }

  #offer(vbn: number, bytes: Uint8Array, isLong: boolean): void {
    if (this.#file === undefined) return;
    if (!isLong || this.#missed.delete(vbn)) {
      this.#file.add(vbn, bytes);
      return;
    }
    this.#missed.add(vbn);
    const [oldest] = this.#missed;
    if (this.#missed.size > MISSED_MAX && oldest !== undefined) this.#missed.delete(oldest);
  }

  #keepAhead(first: number, bytes: Uint8Array): void {
    const count = Math.min(this.#aheadMax, Math.floor(bytes.length / BLOCK_BYTES));
    for (let index = 0; index < count; index++) {
      const start = index * BLOCK_BYTES;
      this.#ahead.set(first + index, bytes.slice(start, start + BLOCK_BYTES));
      this.#counts.aheadBlocks++;
    }
    for (const vbn of this.#ahead.keys()) {
      if (this.#ahead.size <= this.#aheadMax) break;
      this.#ahead.delete(vbn);
    }
  }

  /** Lets go of the cache file, once it is written. */
  async close(): Promise<void> {
    await this.#file?.close();
  }
}

interface Fetched {
  readonly first: number;
  readonly bytes: Uint8Array;
}

/** A read of more is not at random: see KEPT_BLOCKS_MAX of the reader. */
const LONG_BLOCKS = 16;
/** VBNs that are remembered to have been missed: 4 GiB of stream. */
const MISSED_MAX = 1 << 20;

function tooShort(vbn: number): StoreError {
  const record = Math.floor(vbn / SEGMENT_BLOCKS);
  return new StoreError('device', `record ${record} is too short for VBN ${vbn}`);
}
