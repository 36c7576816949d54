/**
 * Cutting a range out of a tree, as TRIM, write zeroes and shrink do: in steps as many as the tree
 * is high, whatever the size. Whole subtrees move, pointer by pointer, into a dying tree that a
 * background job frees.
 *
 * 1. One synchronous step: nobody sees a range half cut.
 * 2. `mappedBlocks` of the tree goes on counting what hangs on the dying tree until that is freed:
 *    nobody knows the number without a walk.
 */
import { FIELDS_PER_BLOCK, SPAN_BLOCKS } from '../base/units.js';
import { FLAG_IN_MEMORY, HOLE_VBN, POINTER_WORDS, vbnAt, ZERO_VBN } from '../layout/pointer.js';
import { WALK_HOLE, WALK_MISS, WALK_ZERO } from './buffer-tree.js';
import type { Engine } from './engine.js';
import { alignDown, type Tree } from './tree.js';

interface Cut {
  readonly engine: Engine;
  readonly tree: Tree;
  readonly from: number;
  readonly to: number;
  readonly target: number;
  /** Subtrees that were taken out: level of the block, first FBN, pointer. */
  readonly taken: { level: number; fbn: number; pointer: Uint32Array }[];
}

/** Indirect blocks that a cut can make dirty: two paths, and the dying tree's. */
export function cutCost(tree: Tree): number {
  return 4 * tree.height + 2;
}

/**
 * True if the paths to both ends are loaded; else walker.missVbn and missCrc say what is not.
 */
export function isCutLoaded(engine: Engine, tree: Tree, from: number, to: number): boolean {
  const { trees, generation } = engine;
  const end = Math.min(to, tree.capacityFbn);
  if (from >= end || isNothingToCut(engine, tree, from, end)) return true;
  if (trees.walk(tree, from) === WALK_MISS) return false;
  return (
    trees.pathCost(tree, from, generation.number) >= 0 &&
    trees.pathCost(tree, end - 1, generation.number) >= 0
  );
}

/** One pointer says for the whole range that there is nothing in it. */
function isNothingToCut(engine: Engine, tree: Tree, from: number, to: number): boolean {
  const found = engine.trees.walk(tree, from);
  if (found !== WALK_ZERO && !(found === WALK_HOLE && !tree.needsZeros)) return false;
  const { level } = engine.trees;
  return alignDown(from, level) + (SPAN_BLOCKS[level] as number) >= to;
}

/**
 * Replaces every pointer of blocks [from, to) by a hole or a zero pointer. `isCutLoaded` must hold.
 *
 * @returns the tree that holds what was cut, for a background job; undefined if there is none
 */
export function cutRange(
  engine: Engine,
  tree: Tree,
  from: number,
  to: number,
  kind: 'hole' | 'zero',
): Tree | undefined {
  const { trees, generation } = engine;
  const end = Math.min(to, tree.capacityFbn);
  if (from >= end || isNothingToCut(engine, tree, from, end)) return undefined;
  const target = kind === 'hole' ? HOLE_VBN : ZERO_VBN;
  const cut: Cut = { engine, tree, from, to: end, target, taken: [] };
  if (from === 0 && end === tree.capacityFbn) {
    trees.noteDirty(tree, generation);
    take(cut, tree.root, 0, tree.height, 0);
  } else {
    cutBlock(cut, trees.dirtyRoot(tree, generation), tree.height, 0);
  }
  return cut.taken.length === 0 ? undefined : toDyingTree(cut);
}

function cutBlock(cut: Cut, buffer: number, level: number, base: number): void {
  const { trees, pool, generation } = cut.engine;
  const span = SPAN_BLOCKS[level - 1] as number;
  const words = pool.wordsOf(buffer);
  const first = Math.max(0, Math.floor((cut.from - base) / span));
  const last = Math.min(FIELDS_PER_BLOCK, Math.ceil((cut.to - base) / span));
  for (let index = first; index < last; index++) {
    const at = pool.wordStart(buffer) + index * POINTER_WORDS;
    const fbn = base + index * span;
    if (cut.from <= fbn && fbn + span <= cut.to) {
      if (level === 1) cutField(cut, words, at);
      else take(cut, words, at, level - 1, fbn);
      continue;
    }
    const isEmpty = ((words[at + 1] as number) & FLAG_IN_MEMORY) === 0 && vbnAt(words, at) <= 1;
    // Zeros stay zeros; a hole stays one unless a part of it has to hide the backing store.
    if (isEmpty && (vbnAt(words, at) === ZERO_VBN || cut.target === HOLE_VBN)) continue;
    const below = trees.dirtyBelow(cut.tree, buffer, index, level - 1, generation);
    cutBlock(cut, below, level - 1, fbn);
  }
}

function cutField(cut: Cut, words: Uint32Array, at: number): void {
  const { trees, generation } = cut.engine;
  if (trees.letGoField(cut.tree, words, at, generation)) cut.tree.mappedBlocks--;
  words.fill(0, at, at + POINTER_WORDS);
  words[at] = cut.target;
}

function take(cut: Cut, words: Uint32Array, at: number, level: number, fbn: number): void {
  const inMemory = ((words[at + 1] as number) & FLAG_IN_MEMORY) !== 0;
  if (inMemory || vbnAt(words, at) > ZERO_VBN) {
    cut.taken.push({ level, fbn, pointer: words.slice(at, at + POINTER_WORDS) });
  }
  words.fill(0, at, at + POINTER_WORDS);
  words[at] = cut.target;
}

function toDyingTree(cut: Cut): Tree {
  const { engine, tree } = cut;
  const dying = engine.addTree(0);
  dying.height = tree.height;
  dying.state = 'dying';
  dying.countedById = tree.ownerOfBlocks;
  for (const { level, fbn, pointer } of cut.taken) {
    engine.trees.putSubtree(dying, fbn, level, pointer, engine.generation);
  }
  return dying;
}
