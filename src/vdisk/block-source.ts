/**
 * Where the bytes of one block of a tree come from, in one synchronous look: the tree itself, or,
 * through its holes, its backing stores.
 */
import { BLOCK_BYTES, FIELDS_PER_BLOCK } from '../base/units.js';
import { FLAG_IN_MEMORY, POINTER_WORDS, vbnAt, ZERO_VBN } from '../layout/pointer.js';
import { WALK_FIELD, WALK_MISS, WALK_ZERO } from '../store/buffer-tree.js';
import type { Engine } from '../store/engine.js';
import type { Tree } from '../store/tree.js';
import { FLAG_EXTERNAL, type Missing, type Resolution, type Resolver } from './resolution.js';

/** Zeros. */
export const SOURCE_ZERO = 0;
/** In memory: `buffer`. */
export const SOURCE_BUFFER = 1;
/** On the medium: `vbn`, `crc`. */
export const SOURCE_VBN = 2;
/** Something is missing: `missing` says what to load. */
export const SOURCE_MISS = 3;
/** In the external backing store that the lineage ends in. */
export const SOURCE_EXTERNAL = 4;

export class BlockSource {
  readonly #engine: Engine;
  readonly #resolver: Resolver;
  buffer = 0;
  vbn = 0;
  crc = 0;
  /** Bytes of the block that count; behind them are zeros. */
  validBytes = BLOCK_BYTES;
  /** The tree itself has no pointer for the block. */
  isHole = false;
  /** Trees between this one and the one that has the block. */
  depth = 0;
  readonly missing: Missing[] = [];
  // The last range that was resolved. Good for one synchronous stretch only: see `begin`.
  #lastTree: Tree | undefined;
  #lastRange = -1;
  #lastResolution: Resolution | undefined;

  constructor(engine: Engine, resolver: Resolver) {
    this.#engine = engine;
    this.#resolver = resolver;
  }

  /** Starts a synchronous stretch of looks. */
  begin(): void {
    this.#lastTree = undefined;
    this.missing.length = 0;
  }

  find(tree: Tree, fbn: number): number {
    const { trees, pool } = this.#engine;
    this.validBytes = BLOCK_BYTES;
    this.isHole = false;
    this.depth = 0;
    const found = trees.walk(tree, fbn);
    if (found === WALK_FIELD) {
      const words = trees.fieldWords;
      const at = trees.fieldAt;
      if (((words[at + 1] as number) & FLAG_IN_MEMORY) !== 0) {
        this.buffer = words[at] as number;
        return SOURCE_BUFFER;
      }
      const vbn = vbnAt(words, at);
      if (vbn > ZERO_VBN) {
        this.vbn = vbn;
        this.crc = words[at + 2] as number;
        this.buffer = pool.find(vbn);
        return this.buffer >= 0 ? SOURCE_BUFFER : SOURCE_VBN;
      }
      if (vbn === ZERO_VBN) return SOURCE_ZERO;
    } else if (found === WALK_ZERO) {
      return SOURCE_ZERO;
    } else if (found === WALK_MISS) {
      this.missing.push({ vbn: trees.missVbn, crc: trees.missCrc });
      // Look at the backing stores too: what they miss can be loaded at the same time.
      if (tree.backing !== undefined) this.#throughHole(tree, fbn);
      return SOURCE_MISS;
    }
    this.isHole = true;
    return this.#throughHole(tree, fbn);
  }

  #throughHole(tree: Tree, fbn: number): number {
    const backing = tree.backing;
    if (backing === undefined) return tree.isExternal ? this.#inExternal(tree, fbn) : SOURCE_ZERO;
    const left = tree.readThroughLimitBytes - fbn * BLOCK_BYTES;
    if (left <= 0) return SOURCE_ZERO;
    const range = Math.floor(fbn / FIELDS_PER_BLOCK);
    if (this.#lastTree !== backing || this.#lastRange !== range) {
      const resolution = this.#resolver.resolve(backing, range);
      if (resolution === undefined) {
        this.missing.push(...this.#resolver.missing);
        return SOURCE_MISS;
      }
      this.#lastTree = backing;
      this.#lastRange = range;
      this.#lastResolution = resolution;
    }
    return this.#fromResolution(this.#lastResolution as Resolution, fbn, left);
  }

  /** The external tree itself is read. */
  #inExternal(tree: Tree, fbn: number): number {
    const left = tree.sizeBytes - fbn * BLOCK_BYTES;
    if (left <= 0) return SOURCE_ZERO;
    const resolution = this.#resolver.resolve(tree, Math.floor(fbn / FIELDS_PER_BLOCK));
    if (resolution === undefined) {
      this.missing.push(...this.#resolver.missing);
      return SOURCE_MISS;
    }
    const found = this.#fromResolution(resolution, fbn, left);
    this.depth = 0;
    return found;
  }

  #fromResolution(resolution: Resolution, fbn: number, left: number): number {
    const index = fbn % FIELDS_PER_BLOCK;
    const at = index * POINTER_WORDS;
    const words = resolution.words;
    const high = words[at + 1] as number;
    const masked = resolution.masked?.get(index) ?? BLOCK_BYTES;
    this.validBytes = Math.min(BLOCK_BYTES, left, masked);
    this.depth = (words[at + 3] as number) + 1;
    if ((high & FLAG_IN_MEMORY) !== 0) {
      this.buffer = words[at] as number;
      return SOURCE_BUFFER;
    }
    const vbn = vbnAt(words, at);
    if (vbn <= ZERO_VBN) return (high & FLAG_EXTERNAL) === 0 ? SOURCE_ZERO : SOURCE_EXTERNAL;
    this.vbn = vbn;
    this.crc = words[at + 2] as number;
    this.buffer = this.#engine.pool.find(vbn);
    return this.buffer >= 0 ? SOURCE_BUFFER : SOURCE_VBN;
  }
}
