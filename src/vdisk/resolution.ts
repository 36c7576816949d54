/**
 * Resolution: what the holes over one level-1 range of a tree lead to, all backing stores
 * considered. Found once, it serves every clone: a warm read costs the same at any depth.
 *
 * 1. It is made in one synchronous pass over loaded blocks, so it is true at that moment. What is
 *    missing is reported for the whole lineage at once, to be loaded together.
 * 2. It is kept only for trees that do not change, and dropped for a range (`dropRanges`) when a
 *    merge moves pointers there, altogether (`clear`) when a tree leaves a lineage. One that names
 *    a dirty buffer is not kept: the buffer gets a VBN soon.
 * 3. What is a hole down to an external tree at the end stands in its file, where that has data:
 *    such a field has FLAG_EXTERNAL and no VBN.
 * 4. A split that fills a hole of a backing store changes no bytes; what it resolved to stays true
 *    until the association is released.
 */
import { BLOCK_BYTES, FIELDS_PER_BLOCK } from '../base/units.js';
import {
  FLAG_IN_MEMORY,
  FLAG_SHARED,
  HOLE_VBN,
  POINTER_WORDS,
  vbnAt,
  ZERO_VBN,
} from '../layout/pointer.js';
import { type BufferTrees, WALK_FIELD, WALK_MISS, WALK_ZERO } from '../store/buffer-tree.js';
import type { Tree } from '../store/tree.js';
import { PIECE_BLOCKS } from './external-store.js';
import { Externals, hasBit, type MissingPresence } from './externals.js';

/** In memory only, in a resolution: the bytes are those of the external backing store. */
export const FLAG_EXTERNAL = 0x4000_0000;

const RANGE_WORDS = FIELDS_PER_BLOCK * POINTER_WORDS;
/** Resolutions whose words are one piece of memory: pieces of 4 KiB are dear to make. */
const RANGES_OF_PIECE = 16;

export class Resolution {
  /**
   * Pointers like an indirect block's; the fourth word is the depth the block was found at. Shared:
   * the block is named beneath a shared pointer.
   */
  readonly words: Uint32Array;
  /** Blocks of which only so many bytes count, by index: a read-through limit lies in them. */
  masked: Map<number, number> | undefined;
  isLasting = true;
  /** Fields that lead to a data block, or to the external backing store. */
  dataCount = 0;

  constructor(words: Uint32Array) {
    this.words = words;
  }
}

export interface MissingBlock {
  readonly vbn: number;
  readonly crc: number;
}

export type Missing = MissingBlock | MissingPresence;

export class Resolver {
  readonly externals: Externals;
  readonly #trees: BufferTrees;
  readonly #ranges = new Map<Tree, Map<number, Resolution>>();
  readonly #countMax: number;
  #count = 0;
  /** After `resolve` gave undefined: what to load. */
  readonly missing: Missing[] = [];

  #piece = new Uint32Array(0);
  #pieceLeft = 0;
  /** Fields that a pass has found nothing for so far. */
  readonly #open = new Uint8Array(FIELDS_PER_BLOCK);

  constructor(trees: BufferTrees, memoryBytes: number, externals = new Externals()) {
    this.#trees = trees;
    this.externals = externals;
    this.#countMax = Math.max(64, Math.floor(memoryBytes / 16 / BLOCK_BYTES));
  }

  /** What the range of this tree and its backing stores holds; undefined if blocks are missing. */
  resolve(tree: Tree, range: number): Resolution | undefined {
    const kept = this.#ranges.get(tree)?.get(range);
    if (kept !== undefined) return kept;
    const resolution = this.#pass(tree, range);
    if (resolution?.isLasting === true) this.#keep(tree, range, resolution);
    return resolution;
  }

  #newWords(): Uint32Array {
    if (this.#pieceLeft === 0) {
      this.#piece = new Uint32Array(RANGES_OF_PIECE * RANGE_WORDS);
      this.#pieceLeft = RANGES_OF_PIECE;
    }
    const start = --this.#pieceLeft * RANGE_WORDS;
    return this.#piece.subarray(start, start + RANGE_WORDS);
  }

  #pass(tree: Tree, range: number): Resolution | undefined {
    const resolution = new Resolution(this.#newWords());
    const open = this.#open.fill(1);
    this.missing.length = 0;
    let limit = Number.POSITIVE_INFINITY;
    let depth = 0;
    for (let at: Tree | undefined = tree; at !== undefined; at = at.backing) {
      const found = this.#trees.walk(at, range * FIELDS_PER_BLOCK);
      if (found === WALK_MISS) {
        this.missing.push({ vbn: this.#trees.missVbn, crc: this.#trees.missCrc });
      } else if (found === WALK_ZERO) {
        break;
      } else if (found === WALK_FIELD && this.#takeFields(resolution, open, depth, limit, range)) {
        break;
      }
      limit = Math.min(limit, at.readThroughLimitBytes);
      if (limit <= range * FIELDS_PER_BLOCK * BLOCK_BYTES) break;
      if (at.isExternal) this.#takeExternal(resolution, at, depth, limit, range);
      depth++;
    }
    return this.missing.length > 0 ? undefined : resolution;
  }

  /** Takes what the level-1 block has for fields that are still open; true if none is left. */
  #takeFields(
    resolution: Resolution,
    open: Uint8Array,
    depth: number,
    limit: number,
    range: number,
  ): boolean {
    const from = this.#trees.fieldWords;
    // The walk went to the range's first FBN, so this is the block's first field.
    const start = this.#trees.fieldAt;
    let left = 0;
    for (let index = 0; index < FIELDS_PER_BLOCK; index++) {
      if (open[index] === 0) continue;
      const blockStart = (range * FIELDS_PER_BLOCK + index) * BLOCK_BYTES;
      const at = start + index * POINTER_WORDS;
      const isBuffer = ((from[at + 1] as number) & FLAG_IN_MEMORY) !== 0;
      const vbn = isBuffer ? -1 : vbnAt(from, at);
      if (blockStart >= limit) {
        open[index] = 0;
      } else if (vbn === HOLE_VBN) {
        left++;
      } else if (vbn === ZERO_VBN) {
        open[index] = 0;
      } else {
        open[index] = 0;
        this.#takeField(resolution, from, at, index, depth, isBuffer);
        if (limit < blockStart + BLOCK_BYTES) {
          resolution.masked ??= new Map();
          resolution.masked.set(index, limit - blockStart);
        }
      }
    }
    return left === 0;
  }

  /** What is still open stands in the files behind the tree, where they have data. */
  #takeExternal(
    resolution: Resolution,
    tree: Tree,
    depth: number,
    limit: number,
    range: number,
  ): void {
    const first = range * FIELDS_PER_BLOCK;
    const piece = Math.floor(first / PIECE_BLOCKS);
    const bits = this.externals.presenceOf(tree, piece);
    if (bits === undefined) {
      this.missing.push({ external: tree, piece });
      return;
    }
    for (let index = 0; index < FIELDS_PER_BLOCK; index++) {
      const left = limit - (first + index) * BLOCK_BYTES;
      if (left <= 0) break;
      if (this.#open[index] === 0 || !hasBit(bits, first + index)) continue;
      resolution.words[index * POINTER_WORDS + 1] = FLAG_EXTERNAL;
      resolution.words[index * POINTER_WORDS + 3] = depth;
      resolution.dataCount++;
      if (left < BLOCK_BYTES) {
        resolution.masked ??= new Map();
        resolution.masked.set(index, left);
      }
    }
  }

  #takeField(
    resolution: Resolution,
    from: Uint32Array,
    at: number,
    index: number,
    depth: number,
    isBuffer: boolean,
  ): void {
    const to = index * POINTER_WORDS;
    resolution.words[to] = from[at] as number;
    const shared = this.#trees.sharedLevel > 0 && !isBuffer ? FLAG_SHARED : 0;
    resolution.words[to + 1] = (from[at + 1] as number) | shared;
    resolution.words[to + 2] = from[at + 2] as number;
    resolution.words[to + 3] = depth;
    resolution.dataCount++;
    if (isBuffer) resolution.isLasting = false;
  }

  #keep(tree: Tree, range: number, resolution: Resolution): void {
    let ranges = this.#ranges.get(tree);
    if (ranges === undefined) {
      ranges = new Map();
      this.#ranges.set(tree, ranges);
    }
    ranges.set(range, resolution);
    this.#count++;
    while (this.#count > this.#countMax) this.#dropOldest();
  }

  #dropOldest(): void {
    for (const [tree, ranges] of this.#ranges) {
      for (const range of ranges.keys()) {
        ranges.delete(range);
        this.#count--;
        if (ranges.size === 0) this.#ranges.delete(tree);
        return;
      }
    }
  }

  /** Pointers of these ranges moved from one tree to another. */
  dropRanges(from: number, to: number): void {
    for (const ranges of this.#ranges.values()) {
      if (to - from === 1) {
        if (ranges.delete(from)) this.#count--;
        continue;
      }
      for (const range of ranges.keys()) {
        if (range >= from && range < to && ranges.delete(range)) this.#count--;
      }
    }
  }

  /** A tree left a lineage. */
  clear(): void {
    this.#ranges.clear();
    this.#count = 0;
  }
}
