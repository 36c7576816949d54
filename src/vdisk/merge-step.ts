/** What the steps of a merge have in common; see merge-job.ts. */
import { BLOCK_BYTES, FIELDS_PER_BLOCK, SPAN_BLOCKS } from '../base/units.js';
import { WALK_HOLE, WALK_MISS } from '../store/buffer-tree.js';
import type { Engine } from '../store/engine.js';
import { alignDown, type Tree } from '../store/tree.js';
import { freePath } from './free-job.js';
import type { Resolver } from './resolution.js';

export interface Merge {
  readonly engine: Engine;
  readonly resolver: Resolver;
  readonly source: Tree;
  readonly above: Tree;
  /** The source may have shared pointers. */
  readonly mayShare: boolean;
}

/**
 * mask: a block is cut by the limit. shared: a shared pointer leads here. again: something was
 * awaited.
 */
export type MergeStep = 'done' | 'load' | 'space' | 'mask' | 'shared' | 'again';

/** The source's cursor goes to the end of this block; indirect blocks that it passes are freed. */
export function pass(merge: Merge, fbn: number, level: number, freeFrom: number): MergeStep {
  const next = alignDown(fbn, level) + (SPAN_BLOCKS[level] as number);
  freePath(merge.engine, merge.source, fbn, next, freeFrom);
  merge.source.goneBelowFbn = next;
  merge.resolver.dropRanges(Math.floor(fbn / FIELDS_PER_BLOCK), Math.ceil(next / FIELDS_PER_BLOCK));
  return 'done';
}

/** Asked at a block of the source: a source that counts none of its blocks gave its count away. */
export function isCountedAbove(merge: Merge): boolean {
  return merge.source.mappedBlocks === 0;
}

/**
 * The highest level, of these, at which the tree above has nothing at all from this FBN on, and
 * reads all of it from the source; 0 if there is none, -1 if something is not loaded.
 */
export function holeLevel(
  { engine, above }: Merge,
  fbn: number,
  levelMax: number,
  levelMin = 1,
): number {
  const found = engine.trees.walk(above, fbn);
  if (found === WALK_MISS) return -1;
  if (found !== WALK_HOLE) return 0;
  if (fbn >= above.capacityFbn) return 0;
  for (let level = Math.min(engine.trees.level, levelMax); level >= levelMin; level--) {
    const span = SPAN_BLOCKS[level] as number;
    if (fbn % span !== 0) continue;
    if ((fbn + span) * BLOCK_BYTES > above.readThroughLimitBytes) continue;
    return level;
  }
  return 0;
}
