/**
 * Reads blocks of records: from what was read ahead, from the cache file, from the object store.
 *
 * 1. A record never changes and a VBN never comes back: what is kept is never stale.
 * 2. Whoever wants bytes that are on their way waits for them: one GET.
 * 3. What is read at random goes into the cache file at once. What is read in a stream does only
 *    when it is missed for the second time, and what was read ahead does not: a backup does not
 *    push everything else out, and costs one GET a record.
 * 4. What was read ahead is kept in memory until it is read, or pushed out by what was read ahead
 *    later. The blocks that are used again are in the engine's buffers, before they get here.
 * 5. Nothing is verified here: whoever has the checksum calls readAgain for what was wrong, and
 *    what was kept of it is gone.
 */
import { StoreError } from '../../../base/store-error.js';
import { BLOCK_BYTES, SEGMENT_BLOCKS } from '../../../base/units.js';
import { joinAdjacent } from '../../../env/buffers.js';
import type { CacheFile, CacheFileStats } from './cache-file.js';
import { type Piece, Pieces } from './pieces.js';
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

/** Blocks that are missing, one behind the other, and how many behind them are worth a GET. */
interface Gap {
  readonly vbn: number;
  readonly into: readonly Uint8Array[];
  readonly end: number;
  readonly isLong: boolean;
}

export class BlockCache {
  readonly #fetchBlocks: FetchBlocks;
  readonly #file: CacheFile | undefined;
  readonly #streams = new ReadStreams();
  readonly #pieces: Pieces;
  /** Missed once, in a stream; the oldest first. */
  readonly #missed = new Set<number>();
  readonly #counts = { memoryHits: 0, fileHits: 0, misses: 0, fetches: 0, aheadBlocks: 0 };

  constructor(fetchBlocks: FetchBlocks, aheadBytes: number, file: CacheFile | undefined) {
    this.#fetchBlocks = fetchBlocks;
    this.#pieces = new Pieces(Math.floor(aheadBytes / BLOCK_BYTES));
    this.#file = file;
  }

  get stats(): BlockCacheStats {
    const memoryBytes = this.#pieces.heldBytes;
    return { ...this.#counts, memoryBytes, file: this.#file?.stats };
  }

  /** Fills the blocks, which are one behind the other in one record. @throws {StoreError} device */
  async read(vbn: number, into: readonly Uint8Array[]): Promise<void> {
    const last = vbn + into.length;
    const { end, isStream } = this.#streams.noteRead(vbn, into.length);
    const isLong = isStream || into.length > LONG_BLOCKS;
    const waits: Promise<void>[] = [];
    for (let at = vbn, stop = vbn; at < last; at = stop) {
      const piece = this.#pieces.find(at);
      if (piece !== undefined) {
        stop = this.#pieces.runEnd(piece, at, last);
        waits.push(this.#readPiece(piece, at, into.slice(at - vbn, stop - vbn)));
      } else if (this.#file?.has(at) === true) {
        stop = at + 1;
        waits.push(this.#readFile(at, into[at - vbn] as Uint8Array, isLong));
      } else {
        stop = this.#gapEnd(at, last);
        const blocks = into.slice(at - vbn, stop - vbn);
        const behind = stop === last ? this.#pieces.gapEnd(at, Math.max(end, stop)) : stop;
        waits.push(this.#readMissing({ vbn: at, into: blocks, end: behind, isLong }));
      }
    }
    // All must have ended before the caller may use its buffers again, even if one failed.
    const outcomes = await Promise.allSettled(waits);
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
  }

  /** Fetches a block that was not what its pointer says, and keeps nothing of it. */
  async readAgain(vbn: number, into: Uint8Array): Promise<void> {
    this.#pieces.forget(vbn);
    this.#file?.forget(vbn);
    this.#counts.fetches++;
    const bytes = await this.#fetchBlocks(vbn, 1);
    if (bytes.length < BLOCK_BYTES) throw tooShort(vbn);
    into.set(bytes.subarray(0, BLOCK_BYTES));
  }

  /**
   * Begins to fetch blocks of one record that will be read soon, as far as there is memory for
   * them. A failure is for whoever comes to read them.
   */
  readAhead(vbn: number, count: number): void {
    const end = vbn + count;
    for (let at = vbn, stop = vbn; at < end; at = stop) {
      const piece = this.#pieces.find(at);
      if (piece !== undefined || this.#file?.has(at) === true) {
        stop = piece === undefined ? at + 1 : this.#pieces.runEnd(piece, at, end);
        continue;
      }
      stop = this.#gapEnd(at, end);
      if (!this.#pieces.hasRoom(stop - at)) return;
      this.#counts.aheadBlocks += stop - at;
      this.#fetch(at, stop).coming.catch(() => undefined);
    }
  }

  /** The first VBN from here on that is here or on its way; `end` if none is. */
  #gapEnd(vbn: number, end: number): number {
    const stop = this.#pieces.gapEnd(vbn, end);
    if (this.#file === undefined) return stop;
    let at = vbn + 1;
    while (at < stop && !this.#file.has(at)) at++;
    return at;
  }

  async #readPiece(piece: Piece, vbn: number, into: readonly Uint8Array[]): Promise<void> {
    this.#deliver(piece, piece.bytes ?? (await piece.coming), vbn, into);
    this.#counts.memoryHits += into.length;
  }

  #deliver(piece: Piece, bytes: Uint8Array, vbn: number, into: readonly Uint8Array[]): void {
    const start = (vbn - piece.first) * BLOCK_BYTES;
    if (start + into.length * BLOCK_BYTES > bytes.length) throw tooShort(vbn);
    // A long read's blocks lie side by side in the reply: they are copied in one go.
    for (let at = start, blocks = joinAdjacent(into), index = 0; index < blocks.length; index++) {
      const block = blocks[index] as Uint8Array;
      block.set(bytes.subarray(at, at + block.length));
      at += block.length;
    }
    this.#pieces.take(piece, vbn, into.length);
  }

  async #readFile(vbn: number, into: Uint8Array, isLong: boolean): Promise<void> {
    if ((await this.#file?.read(vbn, into)) === true) {
      this.#counts.fileHits++;
      return;
    }
    const piece = this.#pieces.find(vbn);
    if (piece !== undefined) await this.#readPiece(piece, vbn, [into]);
    else await this.#readMissing({ vbn, into: [into], end: vbn + 1, isLong });
  }

  async #readMissing({ vbn, into, end, isLong }: Gap): Promise<void> {
    const wanted = into.length;
    this.#counts.misses += wanted;
    const piece = this.#fetch(vbn, end);
    const bytes = await piece.coming;
    this.#counts.aheadBlocks += Math.floor(bytes.length / BLOCK_BYTES) - wanted;
    this.#deliver(piece, bytes, vbn, into);
    into.forEach((block, index) => {
      this.#offer(vbn + index, block, isLong);
    });
  }

  #fetch(first: number, end: number): Piece {
    this.#counts.fetches++;
    return this.#pieces.add(first, end, this.#fetchBlocks(first, end - first));
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

  /** Lets go of the cache file, once it is written. */
  async close(): Promise<void> {
    await this.#file?.close();
  }
}

/** A read of more is not at random: see KEPT_BLOCKS_MAX of the reader. */
const LONG_BLOCKS = 16;
/** VBNs that are remembered to have been missed: 4 GiB of stream. */
const MISSED_MAX = 1 << 20;

function tooShort(vbn: number): StoreError {
  const record = Math.floor(vbn / SEGMENT_BLOCKS);
  return new StoreError('device', `record ${record} is too short for VBN ${vbn}`);
}
