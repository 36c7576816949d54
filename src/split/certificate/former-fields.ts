/**
 * What the former backing store has in one level-1 range, for one synchronous step. Where it has no
 * backing store itself its own level-1 block says so, and nobody's kept resolutions are pushed out.
 */
import { crc32 } from '../../base/checksum.js';
import { BLOCK_BYTES, FIELDS_PER_BLOCK } from '../../base/units.js';
import { FLAG_IN_MEMORY, POINTER_WORDS, vbnAt, ZERO_VBN } from '../../layout/pointer.js';
import { WALK_FIELD, WALK_MISS } from '../../store/buffer-tree.js';
import { PointerPath } from '../../store/pointer-path.js';
import type { Tree } from '../../store/tree.js';
import { FLAG_EXTERNAL, type Missing } from '../../vdisk/resolution.js';
import type { SplitParts } from '../special-load.js';

/** One block of the former backing store. */
export interface FormerBlock {
  /** 0: a dirty buffer. */
  readonly vbn: number;
  readonly crc: number;
  /** Its bytes stand outside of the store. */
  readonly isExternal: boolean;
  /** Bytes of it that count; behind them are zeros. */
  readonly validBytes: number;
}

export class FormerFields {
  readonly tree: Tree;
  readonly #parts: SplitParts;
  readonly #path: PointerPath;
  #words: Uint32Array | undefined;
  #start = 0;
  #masked: ReadonlyMap<number, number> | undefined;

  constructor(parts: SplitParts, tree: Tree) {
    this.tree = tree;
    this.#parts = parts;
    this.#path = new PointerPath(parts.engine.pool);
  }

  /** False once it is being freed or merged: then it cannot be compared with any more. */
  get isWhole(): boolean {
    const { gone, state, goneBelowFbn } = this.tree;
    return !gone && state !== 'dying' && goneBelowFbn === 0;
  }

  /** Looks at the range that begins at `fbn`; what has to be loaded first, if anything has. */
  look(fbn: number): readonly Missing[] | undefined {
    const { tree } = this;
    this.#words = undefined;
    this.#masked = undefined;
    if (tree.backing === undefined && !tree.isExternal) {
      const found = this.#path.find(tree, fbn);
      if (found === WALK_MISS) return [{ vbn: this.#path.missVbn, crc: this.#path.missCrc }];
      if (found !== WALK_FIELD) return undefined;
      this.#words = this.#path.words;
      this.#start = this.#path.at;
      return undefined;
    }
    const { resolver } = this.#parts;
    const resolution = resolver.resolve(tree, fbn / FIELDS_PER_BLOCK);
    if (resolution === undefined) return resolver.missing.slice();
    this.#words = resolution.words;
    this.#start = 0;
    this.#masked = resolution.masked;
    return undefined;
  }

  /** What it has in the field of this index; undefined: zeros. */
  at(index: number): FormerBlock | undefined {
    const words = this.#words;
    if (words === undefined) return undefined;
    const at = this.#start + index * POINTER_WORDS;
    const high = words[at + 1] as number;
    const isExternal = (high & FLAG_EXTERNAL) !== 0;
    const isBuffer = (high & FLAG_IN_MEMORY) !== 0;
    const vbn = isBuffer || isExternal ? 0 : vbnAt(words, at);
    if (!isBuffer && !isExternal && vbn <= ZERO_VBN) return undefined;
    const { pool } = this.#parts.engine;
    const crc = isBuffer ? crc32(pool.bytes(words[at] as number)) : (words[at + 2] as number);
    return { vbn, crc, isExternal, validBytes: this.#masked?.get(index) ?? BLOCK_BYTES };
  }
}
