/**
 * Reads of a backing store for the clones that split from it together: each block is read once.
 * Lives for one step of a split; holds at most the data of its ranges, in memory that later steps
 * use again.
 */
import { isStoreError } from '../base/store-error.js';
import { BLOCK_BYTES, FIELDS_PER_BLOCK } from '../base/units.js';
import { toBlockViews } from '../store/block-loader.js';
import type { Tree } from '../store/tree.js';
import { ExternalError } from '../vdisk/external-store.js';
import { externalUnder } from '../vdisk/externals.js';
import type { Hole, SplitParts } from './special-load.js';

/** A block that was asked for: the read that brings it, and its place among the blocks of that. */
interface BackingBlock {
  /** Resolves with the places of the blocks that cannot be read. */
  readonly read: Promise<ReadonlySet<number>>;
  readonly at: number;
  readonly bytes: Uint8Array;
}

/** Pieces of a megabyte: what has passed through one step is used again by a later one. */
const PIECE_BYTES = FIELDS_PER_BLOCK * BLOCK_BYTES;
const PIECES_KEPT_MAX = 8;

export class ReadMemory {
  readonly #free: Buffer[] = [];

  take(): Buffer {
    return this.#free.pop() ?? Buffer.allocUnsafeSlow(PIECE_BYTES);
  }

  give(pieces: readonly Buffer[]): void {
    for (const piece of pieces) if (this.#free.length < PIECES_KEPT_MAX) this.#free.push(piece);
  }
}

const NONE: ReadonlySet<number> = new Set();
const NONE_BAD = Promise.resolve(NONE);

export class BackingReads {
  readonly #memory: ReadMemory;
  readonly #pieces: Buffer[] = [];
  readonly #reading: Promise<unknown>[] = [];
  /** Bytes of the last piece that are in use. */
  #used = PIECE_BYTES;
  readonly #blocks = new Map<number, BackingBlock>();
  blocksRead = 0;

  constructor(memory: ReadMemory) {
    this.#memory = memory;
  }

  /** Nobody looks at the bytes any more. */
  async release(): Promise<void> {
    const pieces = this.#pieces.splice(0);
    // What is asked for from here on, by who read ahead, gets memory of its own.
    this.#used = PIECE_BYTES;
    this.#blocks.clear();
    // A block that nobody waited for may still be on its way into its piece.
    await Promise.allSettled(this.#reading.splice(0));
    this.#memory.give(pieces);
  }

  /** A run is in one level-1 range, so it fits a piece. */
  #bytesFor(blocks: number): Buffer {
    const length = blocks * BLOCK_BYTES;
    if (this.#used + length > PIECE_BYTES) {
      this.#pieces.push(this.#memory.take());
      this.#used = 0;
    }
    const start = this.#used;
    this.#used += length;
    return (this.#pieces.at(-1) as Buffer).subarray(start, this.#used);
  }

  /**
   * The bytes of the holes' blocks in the backing store, by index in the range at `fbn`. A block
   * that cannot be read, or does not have its checksum, is missing in the answer.
   * @throws {ExternalError} if the external backing store cannot be read
   */
  async load(
    parts: SplitParts,
    clone: Tree,
    fbn: number,
    holes: readonly Hole[],
  ): Promise<Map<number, Uint8Array>> {
    const fresh = holes.filter((hole) => !this.#blocks.has(fbn + hole.index));
    for (let start = 0; start < fresh.length; ) {
      let end = start + 1;
      while (end < fresh.length && follows(fresh, start, end)) end++;
      this.#read(parts, clone, fbn, fresh.slice(start, end));
      start = end;
    }
    const loaded = new Map<number, Uint8Array>();
    // Blocks of one run have one read: it is waited for once.
    let waited: BackingBlock['read'] | undefined;
    let bad: ReadonlySet<number> = new Set();
    for (const { index } of holes) {
      const block = this.#blocks.get(fbn + index);
      if (block === undefined) continue;
      if (block.read !== waited) {
        waited = block.read;
        bad = await waited;
      }
      if (!bad.has(block.at)) loaded.set(index, block.bytes);
    }
    return loaded;
  }

  #read(parts: SplitParts, clone: Tree, fbn: number, run: readonly Hole[]): void {
    const { pool } = parts.engine;
    const first = run[0] as Hole;
    if (run.length === 1 && !first.isExternal) {
      const buffer = first.bytes === undefined ? pool.find(first.vbn) : -1;
      // A copy: the buffer may be gone when it is wanted.
      const bytes = buffer >= 0 ? Uint8Array.from(pool.bytes(buffer)) : first.bytes;
      if (bytes !== undefined) {
        this.#blocks.set(fbn + first.index, { read: NONE_BAD, at: 0, bytes });
        return;
      }
    }
    this.blocksRead += run.length;
    const bytes = this.#bytesFor(run.length);
    const views = toBlockViews(bytes);
    const read = first.isExternal
      ? readExternal(parts, clone, fbn + first.index, bytes)
      : readRun(parts, run, views);
    this.#reading.push(read);
    // Whoever waits for it hears of a failure; it may be that nobody comes to wait.
    read.catch(() => undefined);
    run.forEach((hole, at) => {
      this.#blocks.set(fbn + hole.index, { read, at, bytes: views[at] as Uint8Array });
    });
  }
}

function follows(holes: readonly Hole[], start: number, end: number): boolean {
  const first = holes[start] as Hole;
  const next = holes[end] as Hole;
  if (first.isExternal || next.isExternal) {
    return first.isExternal && next.isExternal && next.index === first.index + end - start;
  }
  if (first.bytes !== undefined || next.bytes !== undefined) return false;
  return next.vbn === first.vbn + end - start;
}

/** No checksum vouches for these: they are all there, or the call rejects. */
async function readExternal(
  { reader }: SplitParts,
  clone: Tree,
  fbn: number,
  bytes: Uint8Array,
): Promise<ReadonlySet<number>> {
  const tree = externalUnder(clone);
  // The clone was let go meanwhile: nobody needs the bytes.
  if (tree === undefined)
    throw new ExternalError('closed', `tree ${clone.id} is not over it any more`);
  await reader.externals.read(tree, fbn, bytes);
  return NONE;
}

/** Reads a run of blocks; resolves with the places of those that are bad. */
async function readRun(
  parts: SplitParts,
  run: readonly Hole[],
  views: readonly Uint8Array[],
): Promise<Set<number>> {
  const { loader } = parts.engine;
  const bad = new Set<number>();
  const first = run[0] as Hole;
  try {
    const at = await loader.readData(
      first.vbn,
      views,
      run.map((hole) => hole.crc),
    );
    if (at < 0) return bad;
  } catch (error) {
    if (!isStoreError(error, 'device')) throw error;
  }
  // Something in the run is damaged: find out block by block what is not.
  for (let at = 0; at < run.length; at++) {
    const { vbn, crc } = run[at] as Hole;
    try {
      if ((await loader.readData(vbn, [views[at] as Uint8Array], [crc])) >= 0) bad.add(at);
    } catch (error) {
      if (!isStoreError(error, 'device')) throw error;
      bad.add(at);
    }
  }
  return bad;
}
