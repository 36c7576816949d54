/**
 * What stands beneath a pointer to an indirect block: walks that read no data. Whoever asks sees to
 * it that the block keeps its name meanwhile; then nothing beneath it changes.
 */
import { FIELDS_PER_BLOCK, SPAN_BLOCKS } from '../base/units.js';
import { FLAG_IN_MEMORY, FLAG_SHARED, POINTER_WORDS, vbnAt, ZERO_VBN } from '../layout/pointer.js';
import type { Engine } from '../store/engine.js';
import { fieldIndex, type Tree } from '../store/tree.js';

/** Blocks that are loaded at once. */
const LOADS_AT_ONCE = 64;

/** The tree's pointer to its block of some level, and what stands on the way to it. */
export interface Found {
  /** As it stands; a hole if one above it is one. */
  readonly pointer: Uint32Array;
  /** A shared pointer leads to the block that the pointer stands in. */
  readonly isBeneathShared: boolean;
}

/** 'load': the block `trees.missVbn` is not loaded. 'dirty': it has no VBN yet. */
export function pointerAt(
  engine: Engine,
  tree: Tree,
  fbn: number,
  level: number,
): Found | 'load' | 'dirty' {
  const { pool, trees } = engine;
  let words: Uint32Array = tree.root;
  let at = 0;
  let isBeneathShared = false;
  for (let above = tree.height; above > level; above--) {
    const high = words[at + 1] as number;
    const isBuffer = (high & FLAG_IN_MEMORY) !== 0;
    const vbn = vbnAt(words, at);
    if (!isBuffer && vbn <= ZERO_VBN) break;
    if ((high & FLAG_SHARED) !== 0) isBeneathShared = true;
    const buffer = isBuffer ? (words[at] as number) : pool.find(vbn);
    if (buffer < 0) {
      trees.missVbn = vbn;
      trees.missCrc = words[at + 2] as number;
      return 'load';
    }
    words = pool.wordsOf(buffer);
    at = pool.wordStart(buffer) + fieldIndex(fbn, above) * POINTER_WORDS;
  }
  if (((words[at + 1] as number) & FLAG_IN_MEMORY) !== 0) return 'dirty';
  return { pointer: words.slice(at, at + POINTER_WORDS), isBeneathShared };
}

/** Level of the highest block here that others name too; 0 if there is none. */
export async function sharedAbove(
  engine: Engine,
  tree: Tree,
  fbn: number,
  levelMax: number,
): Promise<number> {
  for (let level = levelMax; level >= 1; level--) {
    const found = pointerAt(engine, tree, fbn, level);
    if (typeof found === 'string') return 0;
    const vbn = vbnAt(found.pointer, 0);
    if (vbn <= ZERO_VBN) return 0;
    if (await engine.isShared(vbn)) return level;
  }
  return 0;
}

/** Data blocks beneath the pointer to a block of this level; undefined if stopped. */
export async function countData(
  engine: Engine,
  pointer: Uint32Array,
  level: number,
  isStopped: () => boolean,
): Promise<number | undefined> {
  let count = 0;
  const walk = { engine, fromFbn: 0, toLevel: 1 };
  for await (const { words, level: at } of blocksBeneath(walk, pointer, level, 0)) {
    if (isStopped()) return undefined;
    if (at > 1) continue;
    for (let field = 0; field < words.length; field += POINTER_WORDS) {
      if (vbnAt(words, field) > ZERO_VBN) count++;
    }
  }
  return count;
}

/** True if some pointer of the tree is shared; it has no dirty block. */
export async function hasShared(engine: Engine, tree: Tree): Promise<boolean> {
  if (((tree.root[1] as number) & FLAG_SHARED) !== 0) return true;
  // Pointers to level-1 blocks stand in those of level 2.
  const walk = { engine, fromFbn: tree.goneBelowFbn, toLevel: 2 };
  for await (const { words } of blocksBeneath(walk, tree.root.slice(), tree.height, 0)) {
    for (let field = 1; field < words.length; field += POINTER_WORDS) {
      if (((words[field] as number) & FLAG_SHARED) !== 0) return true;
    }
  }
  return false;
}

interface Walk {
  readonly engine: Engine;
  /** What is wholly below is not looked at: it may be gone. */
  readonly fromFbn: number;
  readonly toLevel: number;
}

interface Fields {
  readonly words: Uint32Array;
  readonly level: number;
}

/** The blocks from this pointer down to a level, each with a copy of its fields. */
async function* blocksBeneath(
  walk: Walk,
  pointer: Uint32Array,
  level: number,
  fbn: number,
): AsyncGenerator<Fields> {
  const { engine, fromFbn, toLevel } = walk;
  if (level < toLevel || vbnAt(pointer, 0) <= ZERO_VBN) return;
  if (fbn + (SPAN_BLOCKS[level] as number) <= fromFbn) return;
  const words = await fieldsOf(engine, pointer);
  yield { words, level };
  if (level === toLevel) return;
  const span = SPAN_BLOCKS[level - 1] as number;
  for (let first = 0; first < FIELDS_PER_BLOCK; first += LOADS_AT_ONCE) {
    const fields = new Map<number, Uint32Array>();
    for (let index = first; index < first + LOADS_AT_ONCE; index++) {
      const field = words.subarray(index * POINTER_WORDS, (index + 1) * POINTER_WORDS);
      const isThere = fbn + (index + 1) * span > fromFbn;
      if (isThere && vbnAt(field, 0) > ZERO_VBN) fields.set(fbn + index * span, field);
    }
    if (fields.size === 0) continue;
    await Promise.all([...fields.values()].map((field) => fieldsOf(engine, field)));
    for (const [at, field] of fields) yield* blocksBeneath(walk, field, level - 1, at);
    await engine.options.clock.yield();
    engine.assertAlive();
  }
}

async function fieldsOf(engine: Engine, pointer: Uint32Array): Promise<Uint32Array> {
  const { pool, loader } = engine;
  const vbn = vbnAt(pointer, 0);
  for (;;) {
    const buffer = pool.find(vbn);
    if (buffer >= 0) {
      const start = pool.wordStart(buffer);
      return pool.wordsOf(buffer).slice(start, start + FIELDS_PER_BLOCK * POINTER_WORDS);
    }
    await loader.loadMeta(vbn, pointer[2] as number);
  }
}
