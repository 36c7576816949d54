/**
 * The pointers from a tree's root down to one block, as they are now: which indirect blocks stand
 * over it. Synchronous, over loaded blocks, and apart from the state that `BufferTrees` keeps for
 * those who change trees.
 */
import { HEIGHT_MAX } from '../base/units.js';
import { FLAG_FILLED, FLAG_IN_MEMORY, POINTER_WORDS, vbnAt, ZERO_VBN } from '../layout/pointer.js';
import type { BufferPool } from './buffer-pool.js';
import { WALK_FIELD, WALK_HOLE, WALK_MISS } from './buffer-tree.js';
import { fieldIndex, type Tree } from './tree.js';

export class PointerPath {
  readonly #pool: BufferPool;
  /** By level, from `lowest` to the tree's height: the indirect block's VBN; 0: a dirty buffer. */
  readonly vbns = new Float64Array(HEIGHT_MAX + 1);
  /** Level of the last indirect block on the path; the height + 1 if there is none. */
  lowest = 0;
  /** WALK_HOLE and WALK_ZERO: level of the subtree that the pointer stands for. */
  level = 0;
  /** WALK_FIELD: words of the level-1 block, and where its field for the FBN begins. */
  words: Uint32Array = new Uint32Array(0);
  at = 0;
  /** WALK_FIELD: a pointer above says filled. WALK_HOLE and WALK_ZERO: it or one above does. */
  filledAbove = false;
  /** WALK_MISS: what to load. The path holds down to it. */
  missVbn = 0;
  missCrc = 0;

  constructor(pool: BufferPool) {
    this.#pool = pool;
  }

  /** Like BufferTrees.walk. */
  find(tree: Tree, fbn: number): number {
    this.lowest = tree.height + 1;
    this.filledAbove = false;
    if (fbn >= tree.capacityFbn || fbn < tree.goneBelowFbn) {
      this.level = 1;
      return WALK_HOLE;
    }
    let words: Uint32Array = tree.root;
    let at = 0;
    for (let level = tree.height; ; level--) {
      const high = words[at + 1] as number;
      if ((high & FLAG_FILLED) !== 0) this.filledAbove = true;
      const isBuffer = (high & FLAG_IN_MEMORY) !== 0;
      const vbn = isBuffer ? 0 : vbnAt(words, at);
      if (!isBuffer && vbn <= ZERO_VBN) {
        this.level = level;
        return vbn;
      }
      this.lowest = level;
      this.vbns[level] = vbn;
      const buffer = isBuffer ? (words[at] as number) : this.#pool.find(vbn);
      if (buffer < 0) {
        this.missVbn = vbn;
        this.missCrc = words[at + 2] as number;
        return WALK_MISS;
      }
      words = this.#pool.wordsOf(buffer);
      at = this.#pool.wordStart(buffer) + fieldIndex(fbn, level) * POINTER_WORDS;
      if (level > 1) continue;
      this.words = words;
      this.at = at;
      return WALK_FIELD;
    }
  }

  /**
   * VBN that the tree has for this FBN at a level, 0 for data; 0 if it has none there, or one that
   * is not placed yet; -1 if something has to be loaded first.
   */
  vbnOf(tree: Tree, fbn: number, level: number): number {
    const found = this.find(tree, fbn);
    if (level >= 1) return this.lowest <= level ? (this.vbns[level] as number) : this.#none(found);
    if (found !== WALK_FIELD) return this.#none(found);
    const isBuffer = ((this.words[this.at + 1] as number) & FLAG_IN_MEMORY) !== 0;
    const vbn = isBuffer ? 0 : vbnAt(this.words, this.at);
    return vbn > ZERO_VBN ? vbn : 0;
  }

  #none(found: number): number {
    return found === WALK_MISS ? -1 : 0;
  }

  /** After `vbnOf`: VBN of the block that holds the pointer; 0: a dirty buffer, or the record. */
  holderOf(tree: Tree, level: number): number {
    return level < tree.height ? (this.vbns[level + 1] as number) : 0;
  }
}
