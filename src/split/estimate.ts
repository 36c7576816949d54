/**
 * What a split would do, told from the counters of the trees alone: at once, whatever the size, and
 * at most. What the tree and its backing stores both have is counted though it is no hole, and so
 * is what lies behind the read-through limit; a disk outside of the store counts whole.
 */
import { FIELDS_PER_BLOCK, SPAN_BLOCKS, toBlocks } from '../base/units.js';
import { REFERENCE_ENTRIES_PER_BLOCK } from '../layout/reference-entry.js';
import type { Tree } from '../store/tree.js';
import { fatesOf, type GiveBack } from './give-back.js';
import { type HoleCount, startOf } from './plan.js';

export function estimateHoles(tree: Tree): HoleCount {
  const room = roomForHoles(tree);
  let inStore = 0;
  let outside = 0;
  for (let at = tree.backing; at !== undefined; at = at.backing) {
    if (at.isExternal) outside += toBlocks(at.sizeBytes);
    else inStore += at.mappedBlocks;
  }
  const plainBlocks = Math.min(inStore, room);
  const externalBlocks = Math.min(outside, room - plainBlocks);
  const indirectBlocks = blocksOver(tree.height, plainBlocks + externalBlocks, room);
  const leaves = Math.ceil(plainBlocks / REFERENCE_ENTRIES_PER_BLOCK);
  const referenceBlocks = leaves + blocksOver(2, leaves, leaves);
  return {
    plainBlocks,
    zeroBlocks: 0,
    maskedBlocks: 0,
    externalBlocks,
    unplacedBlocks: 0,
    indirectBlocks,
    newIndirectBlocks: indirectBlocks,
    referenceBlocks,
    newReferenceBlocks: referenceBlocks,
  };
}

/** Blocks below the limit that may be holes: neither passed by a split nor the tree's own. */
function roomForHoles(tree: Tree): number {
  const limit = toBlocks(tree.readThroughLimitBytes);
  const passed = Math.min(limit, startOf(tree));
  // Of its own blocks so many at most lie behind the limit.
  const behind = Math.max(0, toBlocks(tree.sizeBytes) - limit);
  const own = Math.min(limit, Math.max(0, tree.mappedBlocks - behind));
  return limit - Math.max(passed, own);
}

/** Indirect blocks of all levels over so many blocks, which lie anywhere among `room`. */
function blocksOver(height: number, blocks: number, room: number): number {
  let sum = 0;
  for (let level = 1; level <= height; level++) {
    sum += Math.min(blocks, Math.ceil(room / (SPAN_BLOCKS[level] as number)));
  }
  return sum;
}

/** Undefined: a merge would tell, and nobody knows before. */
export function estimateGiveBack(
  tree: Tree,
  doomed: readonly Tree[],
  { plainBlocks }: HoleCount,
): GiveBack | undefined {
  let blocks = 0;
  let metaBlocks = 0;
  for (const [{ mappedBlocks, sharedBlocks }, { kind }] of fatesOf(tree, doomed)) {
    if (kind === 'merges') return undefined;
    if (kind === 'held') continue;
    blocks += Math.max(0, mappedBlocks - sharedBlocks);
    metaBlocks += Math.ceil(mappedBlocks / FIELDS_PER_BLOCK);
  }
  return {
    copyBlocks: blocks,
    shareBlocks: Math.max(0, blocks - plainBlocks),
    copyMetaBlocks: metaBlocks,
    shareMetaBlocks: metaBlocks,
  };
}
