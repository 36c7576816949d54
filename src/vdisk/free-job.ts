/**
 * Frees the blocks of a dying tree, in the background and across restarts.
 *
 * 1. The tree's blocks are not changed: `goneBelowFbn` in its record says how far the job is, and a
 *    consistency point writes that together with the freed blocks. An indirect block goes when the
 *    job has passed its end.
 * 2. It begins when the tree is durable, so that no buffer of it is dirty.
 */
import { FIELDS_PER_BLOCK, SPAN_BLOCKS } from '../base/units.js';
import { POINTER_WORDS, vbnAt, ZERO_VBN } from '../layout/pointer.js';
import { WALK_FIELD, WALK_MISS } from '../store/buffer-tree.js';
import type { Engine } from '../store/engine.js';
import { alignDown, fieldIndex, type Tree } from '../store/tree.js';

/** Level-1 ranges between two yields: at most 16,384 blocks. */
const SLICE_RANGES = 64;

/** Waits until the tree, as it is now, is in a durable consistency point. */
export async function untilDurable(engine: Engine, tree: Tree): Promise<void> {
  while (!engine.isDurable(tree)) await engine.consistencyPoint();
}

/** Frees the tree and removes its record. Returns early when `isStopped` says so. */
export async function freeTree(
  engine: Engine,
  tree: Tree,
  isStopped: () => boolean,
): Promise<void> {
  await untilDurable(engine, tree);
  let ranges = 0;
  let fbn = tree.goneBelowFbn;
  while (fbn < tree.capacityFbn) {
    if (isStopped()) return;
    engine.assertAlive();
    // What the reference file needs for a range of shared blocks is there before it is freed.
    if (!engine.medium.hasRoom({ dataBlocks: 0, metaBlocks: 8 }, 'release')) {
      await engine.consistencyPoint();
    }
    const found = engine.trees.walk(tree, fbn);
    if (found === WALK_MISS) {
      await engine.loader.loadMeta(engine.trees.missVbn, engine.trees.missCrc);
      continue;
    }
    const level = found === WALK_FIELD ? 1 : engine.trees.level;
    engine.trees.noteDirty(tree, engine.generation);
    if (found === WALK_FIELD) freeFields(engine, tree);
    const next = alignDown(fbn, level) + (SPAN_BLOCKS[level] as number);
    freePath(engine, tree, fbn, next, found === WALK_FIELD ? 1 : level + 1);
    fbn = next;
    tree.goneBelowFbn = next;
    engine.changed();
    if (++ranges % SLICE_RANGES === 0) await engine.options.clock.yield();
  }
  engine.trees.noteDirty(tree, engine.generation);
  tree.root.fill(0);
  engine.removeTree(tree);
  engine.changed();
}

/** Frees the data blocks of the level-1 block that the walk found. */
function freeFields(engine: Engine, tree: Tree): void {
  const { fieldWords, fieldAt } = engine.trees;
  const counted = engine.table.get(tree.ownerOfBlocks);
  let count = 0;
  for (let index = 0; index < FIELDS_PER_BLOCK; index++) {
    const vbn = vbnAt(fieldWords, fieldAt + index * POINTER_WORDS);
    if (vbn <= ZERO_VBN) continue;
    engine.generation.freeData(tree.ownerOfBlocks, vbn);
    count++;
  }
  // Nobody asks how much a dying tree maps; after a broken-off merge another tree has its count.
  if (counted === undefined || counted.state === 'dying' || count === 0) return;
  engine.trees.noteDirty(counted, engine.generation);
  counted.mappedBlocks -= count;
}

/** Frees the indirect blocks above `fbn`, from `fromLevel` up, that end at or before `next`. */
export function freePath(
  engine: Engine,
  tree: Tree,
  fbn: number,
  next: number,
  fromLevel: number,
): void {
  const { pool } = engine;
  let words: Uint32Array = tree.root;
  let at = 0;
  for (let level = tree.height; level >= fromLevel; level--) {
    const vbn = vbnAt(words, at);
    if (vbn <= ZERO_VBN) return;
    const buffer = pool.find(vbn);
    // Freeing from above first would be wrong only if something were awaited here.
    if (next % (SPAN_BLOCKS[level] as number) === 0) engine.generation.metaFrees.add(vbn);
    words = pool.wordsOf(buffer);
    at = pool.wordStart(buffer) + fieldIndex(fbn, level) * POINTER_WORDS;
  }
}
