/**
 * Frees the blocks of a dying tree, in the background and across restarts.
 *
 * 1. The tree's blocks are not changed: `goneBelowFbn` in its record says how far the job is, and a
 *    consistency point writes that together with the freed blocks. An indirect block goes when the
 *    job has passed its end.
 * 2. It begins when the tree is durable, so that no buffer of it is dirty.
 * 3. A shared indirect block that others name too is let go of in one step, with all beneath; this
 *    is decided where it begins. One that nobody else names any more is gone through like the
 *    tree's own, but what it names belongs to nobody in particular.
 */
import { FIELDS_PER_BLOCK, SPAN_BLOCKS } from '../base/units.js';
import { POINTER_WORDS, vbnAt, ZERO_VBN } from '../layout/pointer.js';
import { WALK_FIELD, WALK_MISS } from '../store/buffer-tree.js';
import type { Engine } from '../store/engine.js';
import { alignDown, fieldIndex, type Tree } from '../store/tree.js';
import { countData } from './subtree.js';

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
  let counted: CountedBlock | undefined;
  while (tree.goneBelowFbn < tree.capacityFbn) {
    if (isStopped()) return;
    engine.assertAlive();
    // What the reference file needs for a range of shared blocks is there before it is freed.
    if (!engine.medium.hasRoom({ dataBlocks: 0, metaBlocks: 8 }, 'release')) {
      await engine.consistencyPoint();
    }
    const step = freeRange(engine, tree, counted);
    if (step === 'load') {
      await engine.loader.loadMeta(engine.trees.missVbn, engine.trees.missCrc);
    } else if (step === 'load-reference') {
      await engine.loadReference();
    } else if (step === 'wait') {
      await engine.consistencyPoint();
    } else if (step !== 'done') {
      const blocks = await countData(engine, step.pointer, step.level, isStopped);
      if (blocks === undefined) return;
      counted = { vbn: vbnAt(step.pointer, 0), blocks };
    } else {
      engine.changed();
      if (++ranges % SLICE_RANGES === 0) await engine.options.clock.yield();
    }
  }
  engine.trees.noteDirty(tree, engine.generation);
  tree.root.fill(0);
  engine.removeTree(tree);
  engine.changed();
}

/** How many data blocks stand beneath a shared block: for the tree that counts them. */
interface CountedBlock {
  readonly vbn: number;
  readonly blocks: number;
}

interface SharedBlock {
  readonly level: number;
  readonly pointer: Uint32Array;
}

type FreeStep = 'done' | 'load' | 'load-reference' | 'wait' | SharedBlock;

/** Moves the cursor on by one range or subtree, or says what it lacks: a count, of a block. */
function freeRange(engine: Engine, tree: Tree, known: CountedBlock | undefined): FreeStep {
  const { trees } = engine;
  const fbn = tree.goneBelowFbn;
  const found = trees.walk(tree, fbn);
  const { level: levelFound, sharedLevel } = trees;
  if (sharedLevel > 0) {
    const shared = sharedFrom(engine, tree, fbn, sharedLevel);
    if (typeof shared === 'string') return shared;
    if (shared !== undefined) {
      const isOwn = shared.level === sharedLevel;
      return freeShared(engine, tree, shared, isOwn ? tree.ownerOfBlocks : 0, known);
    }
  }
  if (found === WALK_MISS) return 'load';
  const level = found === WALK_FIELD ? 1 : levelFound;
  trees.noteDirty(tree, engine.generation);
  if (found === WALK_FIELD) freeFields(engine, tree, sharedLevel > 0);
  passTo(engine, tree, level, found === WALK_FIELD ? 1 : level + 1);
  return 'done';
}

/** The cursor goes to the end of this block; indirect blocks that it passes are freed. */
function passTo(engine: Engine, tree: Tree, level: number, freeFrom: number): void {
  const fbn = tree.goneBelowFbn;
  const next = alignDown(fbn, level) + (SPAN_BLOCKS[level] as number);
  freePath(engine, tree, fbn, next, freeFrom);
  tree.goneBelowFbn = next;
}

/**
 * The highest block that begins here and that others name too. Of those that began before it was
 * found that nobody does; nor will anybody, since nobody could learn of them.
 */
function sharedFrom(
  engine: Engine,
  tree: Tree,
  fbn: number,
  sharedLevel: number,
): SharedBlock | 'wait' | 'load-reference' | undefined {
  const { pool } = engine;
  let words: Uint32Array = tree.root;
  let at = 0;
  for (let level = tree.height; level >= 1; level--) {
    const vbn = vbnAt(words, at);
    if (vbn <= ZERO_VBN) return undefined;
    if (level <= sharedLevel && fbn % (SPAN_BLOCKS[level] as number) === 0) {
      const names = engine.namesOf(vbn);
      if (names === 'load') return 'load-reference';
      if (names === 'wait') return 'wait';
      if (names > 1) return { level, pointer: words.slice(at, at + POINTER_WORDS) };
    }
    const buffer = pool.find(vbn);
    if (buffer < 0) return undefined;
    words = pool.wordsOf(buffer);
    at = pool.wordStart(buffer) + fieldIndex(fbn, level) * POINTER_WORDS;
  }
  return undefined;
}

function freeShared(
  engine: Engine,
  tree: Tree,
  shared: SharedBlock,
  ownerId: number,
  known: CountedBlock | undefined,
): FreeStep {
  const vbn = vbnAt(shared.pointer, 0);
  const counting = countingTree(engine, tree);
  if (counting !== undefined) {
    if (known?.vbn !== vbn) return shared;
    engine.trees.noteDirty(counting, engine.generation);
    counting.mappedBlocks -= known.blocks;
    counting.sharedBlocks -= known.blocks;
  }
  engine.trees.noteDirty(tree, engine.generation);
  engine.generation.freeShared(ownerId, vbn);
  passTo(engine, tree, shared.level, shared.level + 1);
  return 'done';
}

/**
 * The tree whose counters still hold the blocks of this one. Nobody asks how much a dying tree
 * itself maps; after a broken-off merge another one has its count.
 */
function countingTree(engine: Engine, tree: Tree): Tree | undefined {
  const counting = engine.table.get(tree.ownerOfBlocks);
  return counting?.state === 'dying' ? undefined : counting;
}

/** Frees the data blocks of the level-1 block that the walk found. */
function freeFields(engine: Engine, tree: Tree, isBeneathShared: boolean): void {
  const { fieldWords, fieldAt } = engine.trees;
  const ownerId = isBeneathShared ? 0 : tree.ownerOfBlocks;
  const counting = countingTree(engine, tree);
  let count = 0;
  for (let index = 0; index < FIELDS_PER_BLOCK; index++) {
    const vbn = vbnAt(fieldWords, fieldAt + index * POINTER_WORDS);
    if (vbn <= ZERO_VBN) continue;
    engine.generation.freeData(ownerId, vbn);
    count++;
  }
  if (counting === undefined || count === 0) return;
  engine.trees.noteDirty(counting, engine.generation);
  counting.mappedBlocks -= count;
  if (isBeneathShared) counting.sharedBlocks -= count;
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
