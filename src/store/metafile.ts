/**
 * Metafiles: the trees that the store keeps for itself. Only a consistency point changes them, in
 * its own generation, so that they are never frozen and live at once.
 */
import { FIELDS_PER_BLOCK, SPAN_BLOCKS } from '../base/units.js';
import type { MetafileRoot } from '../layout/fsinfo.js';
import { FLAG_IN_MEMORY, POINTER_WORDS } from '../layout/pointer.js';
import type { BlockLoader } from './block-loader.js';
import type { BufferPool } from './buffer-pool.js';
import type { BufferTrees } from './buffer-tree.js';
import type { Generation, Renewal } from './generation.js';
import { namedAs } from './named-block.js';
import type { Tree } from './tree.js';

/** Dirty buffers of one level of a tree, with the pointers that name them, in order of FBN. */
export interface DirtyLevel {
  readonly buffers: number[];
  /** Words and index of the naming pointer. */
  readonly words: Uint32Array[];
  readonly ats: number[];
  /** First FBN of each. */
  readonly fbns: number[];
}

export class MetafileEditor {
  readonly trees: BufferTrees;
  readonly pool: BufferPool;
  readonly #loader: BlockLoader;

  constructor(trees: BufferTrees, loader: BlockLoader) {
    this.trees = trees;
    this.pool = trees.pool;
    this.#loader = loader;
  }

  /** Loads a level-0 block; resolves with its buffer, or -1 for a hole. */
  async load(tree: Tree, fbn: number): Promise<number> {
    for (;;) {
      const buffer = this.trees.findMetaBlock(tree, fbn);
      if (buffer !== -2) return buffer;
      await this.#loader.loadMeta(this.trees.missVbn, this.trees.missCrc);
    }
  }

  /** Makes the block dirty as it is, if the file still names this VBN there. */
  async renew(tree: Tree, renewal: Renewal, generation: Generation): Promise<void> {
    const { vbn, fbn, level, crc } = renewal;
    for (;;) {
      this.pool.makeFree(tree.height + 2);
      const named = namedAs(this.trees, tree, vbn, renewal);
      if (named === 'load') await this.#loader.loadMeta(this.trees.missVbn, this.trees.missCrc);
      else if (named === 'none') return;
      else if (this.pool.find(vbn) < 0) await this.#loader.loadMeta(vbn, crc);
      else break;
    }
    if (level === 0) this.trees.dirtyMetaBlock(tree, fbn, generation);
    else this.trees.dirtyPath(tree, fbn, generation, level);
  }

  /** Loads a level-0 block and makes it dirty. */
  async edit(tree: Tree, fbn: number, generation: Generation): Promise<number> {
    if (fbn >= tree.capacityFbn) {
      let height = tree.height;
      while (fbn >= (SPAN_BLOCKS[height] as number)) height++;
      this.trees.grow(tree, height, generation);
    }
    for (;;) {
      this.pool.makeFree(tree.height + 2);
      if (this.trees.findMetaBlock(tree, fbn) !== -2) break;
      await this.#loader.loadMeta(this.trees.missVbn, this.trees.missCrc);
    }
    return this.trees.dirtyMetaBlock(tree, fbn, generation);
  }
}

/** The tree's dirty buffers under this root, by level: index 0 holds level 0. */
export function collectDirty(pool: BufferPool, root: Uint32Array, height: number): DirtyLevel[] {
  const levels: DirtyLevel[] = [];
  for (let level = 0; level <= height; level++) {
    levels.push({ buffers: [], words: [], ats: [], fbns: [] });
  }
  if (((root[1] as number) & FLAG_IN_MEMORY) === 0) return levels;
  add(levels[height] as DirtyLevel, root[0] as number, root, 0, 0);
  for (let level = height; level >= 1; level--) {
    const from = levels[level] as DirtyLevel;
    const to = levels[level - 1] as DirtyLevel;
    for (let index = 0; index < from.buffers.length; index++) {
      collectFields(pool, from.buffers[index] as number, from.fbns[index] as number, level, to);
    }
  }
  return levels;
}

/**
 * Puts holes where dirty blocks of a metafile have only zeros: what needed them is gone, and so is
 * their space. Only before any of them is placed.
 */
export function cutZeros(trees: BufferTrees, levels: DirtyLevel[]): void {
  for (const [index, { buffers, words, ats, fbns }] of levels.entries()) {
    const kept: DirtyLevel = { buffers: [], words: [], ats: [], fbns: [] };
    for (const [place, buffer] of buffers.entries()) {
      const naming = words[place] as Uint32Array;
      const at = ats[place] as number;
      if (!trees.dropZeros(buffer)) add(kept, buffer, naming, at, fbns[place] as number);
      else naming.fill(0, at, at + POINTER_WORDS);
    }
    levels[index] = kept;
  }
}

function collectFields(
  pool: BufferPool,
  buffer: number,
  fbn: number,
  level: number,
  to: DirtyLevel,
): void {
  const words = pool.wordsOf(buffer);
  const start = pool.wordStart(buffer);
  const span = SPAN_BLOCKS[level - 1] as number;
  for (let index = 0; index < FIELDS_PER_BLOCK; index++) {
    const at = start + index * POINTER_WORDS;
    if (((words[at + 1] as number) & FLAG_IN_MEMORY) === 0) continue;
    add(to, words[at] as number, words, at, fbn + index * span);
  }
}

function add(level: DirtyLevel, buffer: number, words: Uint32Array, at: number, fbn: number): void {
  level.buffers.push(buffer);
  level.words.push(words);
  level.ats.push(at);
  level.fbns.push(fbn);
}

export function rootOf(tree: Tree): MetafileRoot {
  const [a, b, c, d] = tree.root;
  return {
    words: [a as number, b as number, c as number, d as number],
    height: tree.height,
  };
}
