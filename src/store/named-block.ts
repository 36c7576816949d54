/** Where a tree names a block, found synchronously over loaded blocks. */
import { FLAG_IN_MEMORY, FLAG_SHARED, POINTER_WORDS, vbnAt, ZERO_VBN } from '../layout/pointer.js';
import type { BufferTrees } from './buffer-tree.js';
import { fieldIndex, type Tree } from './tree.js';

/** A block in a tree: level 0 is data, or what a metafile holds. */
export interface BlockPlace {
  readonly fbn: number;
  readonly level: number;
}

/**
 * none: the tree names something else there, or a buffer without a VBN.
 * own: this tree's alone. shared: a shared pointer leads there, so others may name it, too.
 * load: `missVbn` and `missCrc` of the trees say what.
 */
export type NamedAs = 'none' | 'own' | 'shared' | 'load';

/** After 'shared': the blocks that a shared pointer leads to, on the way and at its end. */
export const sharedPath: number[] = [];

/** Whether, and how, the tree names this VBN at the place. */
export function namedAs(trees: BufferTrees, tree: Tree, vbn: number, place: BlockPlace): NamedAs {
  const { pool } = trees;
  const { fbn, level } = place;
  if (fbn >= tree.capacityFbn || fbn < tree.goneBelowFbn || level > tree.height) return 'none';
  let words: Uint32Array = tree.root;
  let at = 0;
  let isShared = false;
  sharedPath.length = 0;
  for (let above = tree.height; ; above--) {
    const high = words[at + 1] as number;
    const isBuffer = (high & FLAG_IN_MEMORY) !== 0;
    const named = isBuffer ? 0 : vbnAt(words, at);
    if ((high & FLAG_SHARED) !== 0) isShared = true;
    if (isShared && above > 0) sharedPath.push(named);
    if (above === level) {
      if (named !== vbn) return 'none';
      return isShared ? 'shared' : 'own';
    }
    if (!isBuffer && named <= ZERO_VBN) return 'none';
    const buffer = isBuffer ? (words[at] as number) : pool.find(named);
    if (buffer < 0) {
      trees.missVbn = named;
      trees.missCrc = words[at + 2] as number;
      return 'load';
    }
    words = pool.wordsOf(buffer);
    at = pool.wordStart(buffer) + fieldIndex(fbn, above) * POINTER_WORDS;
  }
}
