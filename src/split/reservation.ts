/**
 * The space that a split sets aside before its first fill: a bound from the trees' counters, which
 * costs nothing; where there is no room for the bound, what a walk over the indirect blocks counts.
 */
import { StoreError } from '../base/store-error.js';
import { BLOCK_BYTES, FIELDS_PER_BLOCK, formatBytes } from '../base/units.js';
import type { SplitMode } from '../layout/tree-record.js';
import type { Engine } from '../store/engine.js';
import type { Demand } from '../store/medium.js';
import type { Tree } from '../store/tree.js';
import { planTree } from './plan.js';
import type { SplitParts } from './special-load.js';

/** Beside what grows with the work: paths that are being rewritten, records. */
const META_MORE = 16;

/** Blocks that the rest of the tree's split may take, at most. */
export function boundOf(tree: Tree, mode: SplitMode): Demand {
  const limitFbn = Math.ceil(tree.readThroughLimitBytes / BLOCK_BYTES);
  const leftFbns = Math.max(0, limitFbn - (tree.split?.positionFbn ?? 0));
  let backingBlocks = 0;
  let trees = 0;
  let isExternal = false;
  for (let at = tree.backing; at !== undefined; at = at.backing) {
    if (at.isExternal) isExternal = true;
    backingBlocks += at.mappedBlocks;
    trees++;
  }
  const fills = isExternal ? leftFbns : Math.min(leftFbns, backingBlocks);
  const ranges = Math.min(Math.ceil(leftFbns / FIELDS_PER_BLOCK) + 1, fills);
  const copies = mode === 'copy' || isExternal;
  return {
    // What is shared takes none, but for blocks that a limit cuts in two.
    dataBlocks: copies ? fills : Math.min(fills, trees),
    metaBlocks: metaOf(tree, ranges) + (copies ? 0 : ranges),
  };
}

/**
 * What a new split needs, counted only where there is no room for the bound; undefined: nobody
 * counted.
 *
 * @param target  the tree to split now, asked again after every wait; undefined: it needs nothing
 * @throws {StoreError} out-of-space, what `target` throws
 */
export async function needsOf(
  parts: SplitParts,
  name: string,
  mode: SplitMode,
  target: () => Tree | undefined,
): Promise<Demand | undefined> {
  const { engine } = parts;
  let counted: { readonly tree: Tree; readonly needs: Demand } | undefined;
  for (;;) {
    engine.assertAlive();
    const tree = target();
    if (tree === undefined) return undefined;
    const needs = counted?.tree === tree ? counted.needs : undefined;
    const demand = lesser(boundOf(tree, mode), needs);
    if (engine.hasRoomWith(undefined, demand)) return needs;
    if (engine.hasPendingFrees) {
      // What was freed may be enough: look again when it is there.
      await engine.consistencyPoint();
      if (engine.hasRoomWith(undefined, demand)) continue;
    }
    if (needs !== undefined) throw noRoom(engine, name, demand);
    counted = { tree, needs: await countNeeds(parts, tree, mode) };
  }
}

function noRoom({ medium }: Engine, name: string, { dataBlocks, metaBlocks }: Demand): StoreError {
  const wanted = formatBytes((dataBlocks + metaBlocks) * BLOCK_BYTES);
  const free = formatBytes(medium.space.freeDataBlocks * BLOCK_BYTES);
  return new StoreError(
    'out-of-space',
    `the split of ${name} takes up to ${wanted}, and ${medium.name} has ${free} for data: ` +
      'delete something, or split without setting space aside',
  );
}

/** The same, as exactly as it can be known. @throws {StoreError} not-found, corrupt, device */
export async function countNeeds(parts: SplitParts, tree: Tree, mode: SplitMode): Promise<Demand> {
  const { dataBlocks, newMetaBlocks } = await planTree(parts, tree, mode);
  return { dataBlocks, metaBlocks: newMetaBlocks + 2 * tree.height + META_MORE };
}

export function lesser(one: Demand, other: Demand | undefined): Demand {
  if (other === undefined) return one;
  return {
    dataBlocks: Math.min(one.dataBlocks, other.dataBlocks),
    metaBlocks: Math.min(one.metaBlocks, other.metaBlocks),
  };
}

/** Level-1 blocks, and what is above them. */
function metaOf(tree: Tree, ranges: number): number {
  return ranges + Math.ceil(ranges / 64) + 2 * tree.height + META_MORE;
}
