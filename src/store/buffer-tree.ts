/**
 * Walking and changing buffer trees: synchronous, over loaded blocks.
 *
 * A tree is indirect blocks over data blocks. In memory a pointer is one of: a hole or zero (for
 * its whole subtree), a placed block (VBN and checksum), or, with FLAG_IN_MEMORY, a dirty buffer.
 *
 * 1. The dirty buffers of a tree hang together: above a dirty one every buffer up to the root is
 *    dirty. A consistency point finds them all from the root.
 * 2. A buffer of an older generation is frozen: it is being written as it was. Whoever changes it
 *    copies it, and the path to it, into the current generation first.
 * 3. `holder`/`holderIndex` of a dirty buffer say which live pointer names it, or none. When a
 *    frozen buffer gets its VBN, that pointer gets it too; if there is none, the VBN is free at
 *    once.
 * 4. A block that becomes dirty gives up its old VBN in the same step.
 * 5. A block that may have other names (FLAG_SHARED, on its pointer or on one above) is never
 *    changed: a copy is, and the generation notes that this tree names what the copy names. So what
 *    is reached without that flag belongs to this tree alone.
 * 6. Nothing here waits. A missing block is reported (`missVbn`, `missCrc`): load it, start again.
 */
import { isAllZero } from '../base/checksum.js';
import { invariant } from '../base/invariant.js';
import { FIELDS_PER_BLOCK, SPAN_BLOCKS } from '../base/units.js';
import {
  FLAG_FILLED,
  FLAG_IN_MEMORY,
  FLAG_SHARED,
  HOLE_VBN,
  POINTER_WORDS,
  VBN_HIGH_MASK,
  vbnAt,
  ZERO_VBN,
} from '../layout/pointer.js';
import { BUFFER_DIRTY, type BufferPool, HOLDER_NONE, rootHolder } from './buffer-pool.js';
import type { Generation } from './generation.js';
import { fieldIndex, type Tree, type TreeTable } from './tree.js';

/** What a walk came to. */
export const WALK_HOLE = 0;
export const WALK_ZERO = 1;
/** The level-1 block that covers the FBN is loaded: look at its field. */
export const WALK_FIELD = 2;
export const WALK_MISS = 3;

const BLOCK_WORDS = 1024;

export class BufferTrees {
  readonly #pool: BufferPool;
  readonly #table: TreeTable;

  /** WALK_FIELD: the level-1 buffer. */
  fieldBuffer = 0;
  /** WALK_FIELD: words of the level-1 block, and where its field for the FBN begins. */
  fieldWords: Uint32Array = new Uint32Array(0);
  fieldAt = 0;
  /** WALK_HOLE and WALK_ZERO: level of the subtree that the pointer stands for. */
  level = 0;
  /** WALK_HOLE, WALK_ZERO: the upper pointer says filled; WALK_FIELD: one above the field does. */
  filledAbove = false;
  /** Level of the highest block on the walk that a shared pointer names; 0 if there is none. */
  sharedLevel = 0;
  /** WALK_MISS: the metadata block to load. */
  missVbn = 0;
  missCrc = 0;
  /** Indirect buffers that are dirty and have no VBN yet, of all trees. */
  dirtyMetaCount = 0;
  /** Data buffers likewise. */
  dirtyDataCount = 0;

  constructor(pool: BufferPool, table: TreeTable) {
    this.#pool = pool;
    this.#table = table;
  }

  /** Goes from the root to the level-1 field for the FBN, or to where the walk ends above it. */
  walk(tree: Tree, fbn: number): number {
    if (fbn >= (SPAN_BLOCKS[tree.height] as number) || fbn < tree.goneBelowFbn) {
      this.level = 1;
      this.filledAbove = false;
      this.sharedLevel = 0;
      return WALK_HOLE;
    }
    let words: Uint32Array = tree.root;
    let at = 0;
    this.filledAbove = false;
    this.sharedLevel = 0;
    for (let level = tree.height; ; level--) {
      const high = words[at + 1] as number;
      let buffer: number;
      if ((high & FLAG_FILLED) !== 0) this.filledAbove = true;
      if ((high & FLAG_SHARED) !== 0 && this.sharedLevel === 0) this.sharedLevel = level;
      if ((high & FLAG_IN_MEMORY) !== 0) {
        buffer = words[at] as number;
      } else {
        const vbn = vbnAt(words, at);
        if (vbn <= ZERO_VBN) {
          this.level = level;
          return vbn;
        }
        buffer = this.#pool.find(vbn);
        if (buffer < 0) {
          this.missVbn = vbn;
          this.missCrc = words[at + 2] as number;
          return WALK_MISS;
        }
      }
      words = this.#pool.wordsOf(buffer);
      at = this.#pool.wordStart(buffer) + fieldIndex(fbn, level) * POINTER_WORDS;
      if (level === 1) {
        this.fieldBuffer = buffer;
        this.fieldWords = words;
        this.fieldAt = at;
        return WALK_FIELD;
      }
    }
  }

  /**
   * Number of indirect blocks that making the level-1 block of this FBN dirty would make dirty,
   * with those of the reference file if some are shared; -1 if one of them is not loaded.
   */
  pathCost(tree: Tree, fbn: number, generation: number): number {
    invariant(fbn < (SPAN_BLOCKS[tree.height] as number), 'the tree is high enough for the FBN');
    let words: Uint32Array = tree.root;
    let at = 0;
    let cost = 0;
    let isShared = false;
    for (let level = tree.height; level >= 1; level--) {
      const high = words[at + 1] as number;
      let buffer: number;
      if ((high & FLAG_SHARED) !== 0) isShared = true;
      if ((high & FLAG_IN_MEMORY) !== 0) {
        buffer = words[at] as number;
        if (this.#pool.generation[buffer] !== generation) cost++;
      } else {
        const vbn = vbnAt(words, at);
        if (vbn <= ZERO_VBN) return cost + level;
        buffer = this.#pool.find(vbn);
        if (buffer < 0) {
          this.missVbn = vbn;
          this.missCrc = words[at + 2] as number;
          return -1;
        }
        cost++;
        if (isShared) cost += this.#unshareCost(vbn, buffer);
      }
      words = this.#pool.wordsOf(buffer);
      at = this.#pool.wordStart(buffer) + fieldIndex(fbn, level) * POINTER_WORDS;
    }
    return cost;
  }

  /** Blocks of the reference file, of both its lower levels, that counting the names changes. */
  #unshareCost(vbn: number, buffer: number): number {
    const words = this.#pool.wordsOf(buffer);
    const start = this.#pool.wordStart(buffer);
    let block = Math.floor(vbn / FIELDS_PER_BLOCK);
    let cost = 2;
    for (let at = start; at < start + BLOCK_WORDS; at += POINTER_WORDS) {
      const named = vbnAt(words, at);
      if (named <= ZERO_VBN) continue;
      const next = Math.floor(named / FIELDS_PER_BLOCK);
      if (next === block) continue;
      cost += Math.floor(next / FIELDS_PER_BLOCK) === Math.floor(block / FIELDS_PER_BLOCK) ? 1 : 2;
      block = next;
    }
    return cost;
  }

  /**
   * Makes the path to the block of `toLevel` above this FBN dirty in the generation and leaves the
   * field for the FBN in fieldWords/fieldAt/fieldBuffer. The path must be loaded (`pathCost` >= 0).
   */
  dirtyPath(tree: Tree, fbn: number, generation: Generation, toLevel = 1): number {
    const pool = this.#pool;
    let words: Uint32Array = tree.root;
    let at = 0;
    let holder = rootHolder(tree.index);
    let holderIndex = 0;
    this.#noteDirty(tree, generation);
    for (let level = tree.height; ; level--) {
      const buffer = this.#dirtyField(tree, words, at, level, generation);
      pool.holder[buffer] = holder;
      pool.holderIndex[buffer] = holderIndex;
      const index = fieldIndex(fbn, level);
      words = pool.wordsOf(buffer);
      at = pool.wordStart(buffer) + index * POINTER_WORDS;
      if (level === toLevel) {
        this.fieldBuffer = buffer;
        this.fieldWords = words;
        this.fieldAt = at;
        return buffer;
      }
      holder = buffer;
      holderIndex = index;
    }
  }

  /**
   * The tree's record or root changes in this generation. To be called before the change: what the
   * record was goes into the consistency point that is being written, if that changes a counter.
   */
  noteDirty(tree: Tree, generation: Generation): void {
    this.#noteDirty(tree, generation);
  }

  #noteDirty(tree: Tree, generation: Generation): void {
    if (tree.dirty || tree.recordIndex < 0) return;
    tree.dirty = true;
    tree.baseline = tree.frozen === undefined ? tree.toRecord() : undefined;
    generation.trees.add(tree);
  }

  /** Makes the block that the pointer names a dirty buffer of this generation. */
  #dirtyField(
    tree: Tree,
    words: Uint32Array,
    at: number,
    level: number,
    generation: Generation,
  ): number {
    const pool = this.#pool;
    const high = words[at + 1] as number;
    if ((high & FLAG_IN_MEMORY) !== 0) {
      const buffer = words[at] as number;
      if (pool.generation[buffer] === generation.number) return buffer;
      return this.#thaw(buffer, words, at, level, generation);
    }
    const vbn = vbnAt(words, at);
    let buffer: number;
    if (vbn <= ZERO_VBN) {
      buffer = this.#newBlock(vbn, high & FLAG_FILLED);
    } else if ((high & FLAG_SHARED) !== 0) {
      buffer = this.#unshare(tree, vbn, level, generation);
    } else {
      buffer = this.#own(vbn);
      generation.metaFrees.add(vbn);
    }
    if (vbn > ZERO_VBN && (high & FLAG_FILLED) !== 0) this.#pushDown(buffer, FLAG_FILLED);
    pool.setDirty(buffer, generation.number);
    pool.unpin(buffer);
    this.dirtyMetaCount++;
    words[at] = buffer;
    words[at + 1] = FLAG_IN_MEMORY;
    words[at + 2] = 0;
    return buffer;
  }

  /** A buffer, pinned, with the content of the clean block: itself, or a copy if it is in use. */
  #own(vbn: number): number {
    const pool = this.#pool;
    const clean = pool.find(vbn);
    invariant(clean >= 0, 'the path was loaded before it is made dirty');
    if (pool.pins[clean] === 0) {
      pool.pin(clean);
      return clean;
    }
    const buffer = pool.take();
    this.#copyBlock(clean, buffer);
    return buffer;
  }

  /** A buffer, pinned, with a copy of the block, which this tree does not name any more. */
  #unshare(tree: Tree, vbn: number, level: number, generation: Generation): number {
    const pool = this.#pool;
    const shared = pool.find(vbn);
    invariant(shared >= 0, 'the path was loaded before it is made dirty');
    pool.pin(shared);
    const buffer = pool.take();
    this.#copyBlock(shared, buffer);
    pool.unpin(shared);
    const words = pool.wordsOf(buffer);
    const start = pool.wordStart(buffer);
    const named: number[] = [];
    for (let at = start; at < start + BLOCK_WORDS; at += POINTER_WORDS) {
      const below = vbnAt(words, at);
      if (below > ZERO_VBN) named.push(below);
    }
    generation.unshare({ vbn, treeId: tree.ownerOfBlocks, level, named });
    if (level > 1) this.#pushDown(buffer, FLAG_SHARED);
    return buffer;
  }

  #newBlock(vbn: number, filled: number): number {
    const pool = this.#pool;
    const buffer = pool.take();
    const words = pool.wordsOf(buffer);
    const start = pool.wordStart(buffer);
    words.fill(0, start, start + BLOCK_WORDS);
    if (vbn === ZERO_VBN) {
      for (let at = start; at < start + BLOCK_WORDS; at += POINTER_WORDS) {
        words[at] = ZERO_VBN;
        words[at + 1] = filled;
      }
    }
    return buffer;
  }

  /** A flag above covers all beneath; before something beneath changes it moves down. */
  #pushDown(buffer: number, flag: number): void {
    const words = this.#pool.wordsOf(buffer);
    const start = this.#pool.wordStart(buffer);
    const least = flag === FLAG_SHARED ? ZERO_VBN : HOLE_VBN;
    for (let at = start; at < start + BLOCK_WORDS; at += POINTER_WORDS) {
      if (vbnAt(words, at) > least) words[at + 1] = (words[at + 1] as number) | flag;
    }
  }

  /**
   * Copies a frozen indirect buffer into this generation and points the live pointer at the copy.
   */
  #thaw(
    frozen: number,
    words: Uint32Array,
    at: number,
    level: number,
    generation: Generation,
  ): number {
    const pool = this.#pool;
    const buffer = pool.take();
    this.#copyBlock(frozen, buffer);
    pool.setDirty(buffer, generation.number);
    pool.unpin(buffer);
    this.dirtyMetaCount++;
    pool.holder[frozen] = HOLDER_NONE;
    words[at] = buffer;
    invariant(level >= 1, 'only indirect blocks are copied with their fields');
    this.#adoptFields(buffer);
    return buffer;
  }

  /** The buffers that this block's fields name are held by it from now on. */
  #adoptFields(buffer: number): void {
    const pool = this.#pool;
    const words = pool.wordsOf(buffer);
    const start = pool.wordStart(buffer);
    for (let index = 0; index < 256; index++) {
      const at = start + index * POINTER_WORDS;
      if (((words[at + 1] as number) & FLAG_IN_MEMORY) === 0) continue;
      const held = words[at] as number;
      pool.holder[held] = buffer;
      pool.holderIndex[held] = index;
    }
  }

  #copyBlock(from: number, to: number): void {
    const pool = this.#pool;
    const start = pool.byteStart(from);
    pool.slabOf(from).copy(pool.slabOf(to), pool.byteStart(to), start, start + 4096);
  }

  /**
   * Puts a new dirty data buffer into the field that dirtyPath left, over whatever it named.
   * The buffer must be pinned once; it is unpinned.
   */
  putData(tree: Tree, buffer: number, generation: Generation, filled: boolean): void {
    const pool = this.#pool;
    const words = this.fieldWords;
    const at = this.fieldAt;
    if (!this.letGoField(tree, words, at, generation)) tree.mappedBlocks++;
    pool.setDirty(buffer, generation.number);
    pool.unpin(buffer);
    this.dirtyDataCount++;
    pool.holder[buffer] = this.fieldBuffer;
    pool.holderIndex[buffer] = (at - pool.wordStart(this.fieldBuffer)) >>> 2;
    words[at] = buffer;
    words[at + 1] = filled ? FLAG_IN_MEMORY | FLAG_FILLED : FLAG_IN_MEMORY;
    words[at + 2] = 0;
    words[at + 3] = 0;
  }

  /**
   * Lets go of the data block that the level-1 field names; the caller overwrites the field.
   * @returns true if there was one (so that mappedBlocks counts it)
   */
  letGoField(tree: Tree, words: Uint32Array, at: number, generation: Generation): boolean {
    const high = words[at + 1] as number;
    if ((high & FLAG_IN_MEMORY) !== 0) {
      this.letGoDirtyData(words[at] as number, generation);
      return true;
    }
    const vbn = vbnAt(words, at);
    if (vbn <= ZERO_VBN) return false;
    generation.freeData(tree.ownerOfBlocks, vbn);
    return true;
  }

  /** A dirty data buffer loses its live pointer. */
  letGoDirtyData(buffer: number, generation: Generation): void {
    const pool = this.#pool;
    if (pool.generation[buffer] === generation.number) {
      pool.drop(buffer);
      this.dirtyDataCount--;
    } else {
      pool.holder[buffer] = HOLDER_NONE;
    }
  }

  /** Makes the block that field `index` of a dirty buffer names dirty; `level` is that block's. */
  dirtyBelow(
    tree: Tree,
    buffer: number,
    index: number,
    level: number,
    generation: Generation,
  ): number {
    const pool = this.#pool;
    const at = pool.wordStart(buffer) + index * POINTER_WORDS;
    const below = this.#dirtyField(tree, pool.wordsOf(buffer), at, level, generation);
    pool.holder[below] = buffer;
    pool.holderIndex[below] = index;
    return below;
  }

  /** Makes the tree's root block dirty. */
  dirtyRoot(tree: Tree, generation: Generation): number {
    this.#noteDirty(tree, generation);
    const root = this.#dirtyField(tree, tree.root, 0, tree.height, generation);
    this.#pool.holder[root] = rootHolder(tree.index);
    this.#pool.holderIndex[root] = 0;
    return root;
  }

  /**
   * Puts a pointer, as it stood elsewhere, where the block of this level above the FBN is named.
   * The path above is made dirty; it must be loaded.
   */
  putSubtree(
    tree: Tree,
    fbn: number,
    level: number,
    pointer: Uint32Array,
    generation: Generation,
  ): void {
    const pool = this.#pool;
    let words: Uint32Array = tree.root;
    let at = 0;
    let holder = rootHolder(tree.index);
    let index = 0;
    this.#noteDirty(tree, generation);
    if (level < tree.height) {
      holder = this.dirtyPath(tree, fbn, generation, level + 1);
      words = this.fieldWords;
      at = this.fieldAt;
      index = fieldIndex(fbn, level + 1);
    }
    words.set(pointer, at);
    if (((pointer[1] as number) & FLAG_IN_MEMORY) === 0) return;
    pool.holder[pointer[0] as number] = holder;
    pool.holderIndex[pointer[0] as number] = index;
  }

  /**
   * Gives a dirty buffer its VBN, in the frozen pointer (if `frozen` is given) and in the live one.
   * @returns true if a live pointer names it; else the VBN is free in the live generation
   */
  settle(
    buffer: number,
    vbn: number,
    crc: number,
    frozenWords: Uint32Array | undefined,
    frozenAt: number,
    isData: boolean,
  ): boolean {
    const pool = this.#pool;
    invariant(pool.state[buffer] === BUFFER_DIRTY, 'only a dirty buffer is given a VBN');
    if (frozenWords !== undefined) setPlaced(frozenWords, frozenAt, vbn, crc);
    const holder = pool.holder[buffer] as number;
    let live = true;
    if (holder === HOLDER_NONE) {
      live = false;
    } else {
      let words: Uint32Array;
      let at: number;
      if (holder < HOLDER_NONE) {
        words = this.#table.at(-2 - holder).root;
        at = 0;
      } else {
        words = pool.wordsOf(holder);
        at = pool.wordStart(holder) + (pool.holderIndex[buffer] as number) * POINTER_WORDS;
      }
      if (words !== frozenWords || at !== frozenAt) {
        invariant(
          words[at] === buffer && ((words[at + 1] as number) & FLAG_IN_MEMORY) !== 0,
          'the holder of a dirty buffer names it',
        );
        setPlaced(words, at, vbn, crc);
      }
    }
    if (isData) this.dirtyDataCount--;
    else this.dirtyMetaCount--;
    pool.setClean(buffer, vbn, crc);
    if (!isData) pool.noteMeta(buffer);
    return live;
  }

  get pool(): BufferPool {
    return this.#pool;
  }

  /**
   * The level-0 block of a metafile: its buffer, -1 for a hole, -2 if something on the way is not
   * loaded (missVbn, missCrc).
   */
  findMetaBlock(tree: Tree, fbn: number): number {
    const found = this.walk(tree, fbn);
    if (found === WALK_MISS) return -2;
    if (found !== WALK_FIELD) return -1;
    const high = this.fieldWords[this.fieldAt + 1] as number;
    if ((high & FLAG_IN_MEMORY) !== 0) return this.fieldWords[this.fieldAt] as number;
    const vbn = vbnAt(this.fieldWords, this.fieldAt);
    if (vbn <= ZERO_VBN) return -1;
    const buffer = this.#pool.find(vbn);
    if (buffer >= 0) return buffer;
    this.missVbn = vbn;
    this.missCrc = this.fieldWords[this.fieldAt + 2] as number;
    return -2;
  }

  /** Makes a level-0 block of a metafile dirty; it and its path must be loaded. */
  dirtyMetaBlock(tree: Tree, fbn: number, generation: Generation): number {
    const holder = this.dirtyPath(tree, fbn, generation);
    const buffer = this.#dirtyField(tree, this.fieldWords, this.fieldAt, 0, generation);
    this.#pool.holder[buffer] = holder;
    this.#pool.holderIndex[buffer] = fieldIndex(fbn, 1);
    return buffer;
  }

  /**
   * Gives up a dirty metadata buffer if all of it is zero; the caller makes its pointer a hole.
   * @returns true if it was
   */
  dropZeros(buffer: number): boolean {
    const pool = this.#pool;
    if (!isAllZero(pool.bytes(buffer))) return false;
    pool.drop(buffer);
    this.dirtyMetaCount--;
    return true;
  }

  /** Makes the tree at least this high; what it holds stays where it is. */
  grow(tree: Tree, height: number, generation: Generation): void {
    const pool = this.#pool;
    this.#noteDirty(tree, generation);
    while (tree.height < height) {
      tree.height++;
      const root = tree.root;
      const inMemory = ((root[1] as number) & FLAG_IN_MEMORY) !== 0;
      if (!inMemory && vbnAt(root, 0) === HOLE_VBN) continue;
      const buffer = this.#newBlock(HOLE_VBN, 0);
      pool.setDirty(buffer, generation.number);
      pool.unpin(buffer);
      this.dirtyMetaCount++;
      pool.wordsOf(buffer).set(root, pool.wordStart(buffer));
      if (inMemory) {
        pool.holder[root[0] as number] = buffer;
        pool.holderIndex[root[0] as number] = 0;
      }
      pool.holder[buffer] = rootHolder(tree.index);
      pool.holderIndex[buffer] = 0;
      root[0] = buffer;
      root[1] = FLAG_IN_MEMORY;
      root[2] = 0;
    }
  }
}

/** Turns a pointer to a buffer into one to its VBN; the filled flag stays. */
function setPlaced(words: Uint32Array, at: number, vbn: number, crc: number): void {
  const filled = (words[at + 1] as number) & FLAG_FILLED;
  words[at] = vbn >>> 0;
  words[at + 1] = (Math.floor(vbn / 0x1_0000_0000) & VBN_HIGH_MASK) | filled;
  words[at + 2] = crc;
  words[at + 3] = 0;
}
