/**
 * Reads of a backing store for the clones that split from it together: each block is read once.
 * Lives for one step of a split; holds at most the data of its ranges.
 */
import { isStoreError } from '../base/store-error.js';
import { BLOCK_BYTES } from '../base/units.js';
import { toBlockViews } from '../store/block-loader.js';
import type { Hole, SplitParts } from './special-load.js';

/** A block that was asked for: the read that brings it, and its place among the blocks of that. */
interface BackingBlock {
  /** Resolves with the places of the blocks that cannot be read. */
  readonly read: Promise<ReadonlySet<number>>;
  readonly at: number;
  readonly bytes: Uint8Array;
}

const NONE_BAD: Promise<ReadonlySet<number>> = Promise.resolve(new Set<number>());

export class BackingReads {
  readonly #blocks = new Map<number, BackingBlock>();
  blocksRead = 0;

  /**
   * The bytes of the holes' blocks in the backing store, by index in the range at `fbn`. A block
   * that cannot be read, or does not have its checksum, is missing in the answer.
   */
  async load(
    parts: SplitParts,
    fbn: number,
    holes: readonly Hole[],
  ): Promise<Map<number, Uint8Array>> {
    const fresh = holes.filter((hole) => !this.#blocks.has(fbn + hole.index));
    for (let start = 0; start < fresh.length; ) {
      let end = start + 1;
      while (end < fresh.length && follows(fresh, start, end)) end++;
      this.#read(parts, fbn, fresh.slice(start, end));
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

  #read(parts: SplitParts, fbn: number, run: readonly Hole[]): void {
    const { pool } = parts.engine;
    const first = run[0] as Hole;
    if (run.length === 1) {
      const buffer = first.bytes === undefined ? pool.find(first.vbn) : -1;
      // A copy: the buffer may be gone when it is wanted.
      const bytes = buffer >= 0 ? Uint8Array.from(pool.bytes(buffer)) : first.bytes;
      if (bytes !== undefined) {
        this.#blocks.set(fbn + first.index, { read: NONE_BAD, at: 0, bytes });
        return;
      }
    }
    this.blocksRead += run.length;
    const views = toBlockViews(Buffer.allocUnsafeSlow(run.length * BLOCK_BYTES));
    const read = readRun(parts, run, views);
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
  if (first.bytes !== undefined || next.bytes !== undefined) return false;
  return next.vbn === first.vbn + end - start;
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
