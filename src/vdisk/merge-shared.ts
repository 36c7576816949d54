/**
 * Merging where a shared pointer of the source leads to the range.
 *
 * 1. Where the tree above has a hole as large as the shared block, it takes the pointer over, and
 *    with it the source's name in the reference file. How many blocks that is has to be counted.
 * 2. Elsewhere the source gets copies of its own down to what the tree above wants, for as much as
 *    one level-2 block covers. They are durable before the merge goes on, so that it finds placed
 *    blocks, and nothing beneath a shared pointer is ever passed.
 */
import { FIELDS_PER_BLOCK, SPAN_BLOCKS } from '../base/units.js';
import { vbnAt } from '../layout/pointer.js';
import { WALK_FIELD, WALK_MISS } from '../store/buffer-tree.js';
import { alignDown } from '../store/tree.js';
import { holeLevel, isCountedAbove, type Merge, type MergeStep, pass } from './merge-step.js';
import { countData, pointerAt } from './subtree.js';

/** What stands beneath the shared block that was counted last. */
export interface Counted {
  vbn: number;
  blocks: number;
}

/** One step where `mergeRange` came to a shared pointer; nothing was awaited since. */
export async function mergeShared(
  merge: Merge,
  fbn: number,
  counted: Counted,
  isStopped: () => boolean,
): Promise<MergeStep> {
  const { engine, source } = merge;
  engine.trees.walk(source, fbn);
  const level = engine.trees.sharedLevel;
  const adopted = holeLevel(merge, fbn, level, level);
  if (adopted < 0) return 'load';
  if (adopted === 0) return unshareSource(merge);
  const found = pointerAt(engine, source, fbn, level);
  if (typeof found === 'string') return 'load';
  if (counted.vbn !== vbnAt(found.pointer, 0)) {
    const blocks = await countData(engine, found.pointer, level, isStopped);
    if (blocks === undefined) return 'again';
    counted.vbn = vbnAt(found.pointer, 0);
    counted.blocks = blocks;
    return 'again';
  }
  return adoptShared(merge, fbn, level, found.pointer, counted.blocks);
}

function adoptShared(
  merge: Merge,
  fbn: number,
  level: number,
  pointer: Uint32Array,
  blocks: number,
): MergeStep {
  const { engine, source, above } = merge;
  const { trees, generation } = engine;
  let cost = 4;
  if (level < above.height) {
    const path = trees.pathCost(above, fbn, generation.number);
    if (path < 0) return 'load';
    cost += path;
  }
  if (!engine.medium.hasRoom({ dataBlocks: 0, metaBlocks: cost }, 'merge')) return 'space';
  trees.putSubtree(above, fbn, level, pointer, generation);
  generation.move(vbnAt(pointer, 0), source.ownerOfBlocks, above.ownerOfBlocks, false);
  if (!isCountedAbove(merge)) {
    source.mappedBlocks -= blocks;
    above.mappedBlocks += blocks;
  }
  source.sharedBlocks -= blocks;
  above.sharedBlocks += blocks;
  return pass(merge, fbn, level, level + 1);
}

/** Gives the source blocks of its own from its cursor on, and waits until they are durable. */
async function unshareSource(merge: Merge): Promise<MergeStep> {
  const { engine, source } = merge;
  const from = source.goneBelowFbn;
  const end = Math.min(source.capacityFbn, alignDown(from, 2) + (SPAN_BLOCKS[2] as number));
  let copies = 0;
  for (let fbn = from; fbn < end; ) {
    const step = unshareOne(merge, fbn);
    if (typeof step === 'number') {
      fbn = step;
    } else if (step === 'done') {
      copies++;
    } else {
      if (copies === 0) return step;
      break;
    }
  }
  await engine.consistencyPoint();
  return 'again';
}

/** One copy on the way to the FBN; a number: none is wanted up to there. */
function unshareOne(merge: Merge, fbn: number): number | 'done' | 'load' | 'space' {
  const { engine, source, resolver } = merge;
  const { trees, generation } = engine;
  if (!engine.hasBufferRoom) return 'space';
  engine.pool.makeFree(2 * source.height + 4);
  const found = trees.walk(source, fbn);
  if (found === WALK_MISS) return 'load';
  const { level: foundLevel, sharedLevel: level } = trees;
  if (level === 0) return endOf(fbn, found === WALK_FIELD ? 1 : foundLevel);
  const adopted = holeLevel(merge, fbn, level, level);
  if (adopted < 0) return 'load';
  if (adopted > 0) return endOf(fbn, level);
  const cost = trees.pathCost(source, fbn, generation.number);
  if (cost < 0) return 'load';
  if (!engine.medium.hasRoom({ dataBlocks: 0, metaBlocks: cost }, 'merge')) return 'space';
  trees.dirtyPath(source, fbn, generation, level);
  // What the copy names has the source for an owner now.
  const range = Math.floor(fbn / FIELDS_PER_BLOCK);
  resolver.dropRanges(range, range + 1);
  return 'done';
}

function endOf(fbn: number, level: number): number {
  return alignDown(fbn, level) + (SPAN_BLOCKS[level] as number);
}
