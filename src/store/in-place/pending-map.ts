/**
 * Metadata that came into use and free since the active map and the usage file were written. A
 * consistency point that changes little of it, and no data, leaves the two files alone and names
 * these blocks in fsinfo instead: eight blocks less to write, for an act on an idle store nearly
 * half. Both sets name second copies, too.
 *
 * 1. What is held here is busy, freed blocks included: none is given out before both files have it.
 * 2. A block that came into use and free again is in neither the files nor fsinfo, but held.
 */
import { SEGMENT_BLOCKS } from '../../base/units.js';
import { PENDING_RUNS_MAX, type PendingRun } from '../../layout/fsinfo.js';
import { SEGMENT_META, SEGMENT_MIRROR } from '../../layout/usage-entry.js';
import { SEGMENT_WORDS, VbnSet } from '../vbn-set.js';

/** Blocks that are held at most, second copies counted. */
const HELD_BLOCKS_MAX = 512;

export class PendingMap {
  readonly allocated = new VbnSet();
  readonly freed = new VbnSet();

  /** By how many bits the active map falls short of the blocks in use. */
  get netBlocks(): number {
    return this.allocated.size - this.freed.size;
  }

  add(allocated: VbnSet, freed: VbnSet): void {
    this.allocated.addAll(allocated);
    this.freed.addAll(freed);
  }

  addRun({ vbn, blocks, isFreed }: PendingRun): void {
    const set = isFreed ? this.freed : this.allocated;
    for (let at = vbn; at < vbn + blocks; at++) {
      set.add(at);
      set.add(at + SEGMENT_BLOCKS);
    }
  }

  /** As fsinfo names it; undefined if that is too much for it, or there is data. */
  toRuns(kindOf: (segment: number) => number): PendingRun[] | undefined {
    if (this.allocated.size + this.freed.size > HELD_BLOCKS_MAX) return undefined;
    for (const segment of this.allocated.segments()) {
      const kind = kindOf(segment);
      if (kind !== SEGMENT_META && kind !== SEGMENT_MIRROR) return undefined;
    }
    const runs: PendingRun[] = [];
    addRuns(runs, this.allocated, this.freed, false);
    addRuns(runs, this.freed, this.allocated, true);
    return runs.length > PENDING_RUNS_MAX ? undefined : runs;
  }
}

/** Adds the blocks that are in the one set and not in the other. */
function addRuns(runs: PendingRun[], those: VbnSet, without: VbnSet, isFreed: boolean): void {
  for (const segment of [...those.segments()].sort((a, b) => a - b)) {
    // Second copies, in the odd segment, go with the first.
    if (segment % 2 !== 0) continue;
    const bits = those.bitsOf(segment);
    const other = without.bitsOf(segment);
    let start = -1;
    for (let index = 0; index <= SEGMENT_WORDS * 32; index++) {
      const word = index >>> 5;
      const net = (bits?.[word] ?? 0) & ~(other?.[word] ?? 0);
      const isIn = ((net >>> (index & 31)) & 1) === 1;
      if (isIn && start < 0) start = index;
      if (isIn || start < 0) continue;
      runs.push({ vbn: segment * SEGMENT_BLOCKS + start, blocks: index - start, isFreed });
      start = -1;
    }
  }
}
