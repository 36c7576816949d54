/**
 * Whether a block may have several names: what the reference file says of it, and what has been
 * shared since its last consistency point. Synchronous, over loaded blocks of that file.
 */
import { REFERENCE_ENTRIES_PER_BLOCK, REFERENCE_WORDS } from '../../layout/reference-entry.js';
import { BufferTrees } from '../../store/buffer-tree.js';
import type { Engine } from '../../store/engine.js';
import type { Share } from '../../store/generation.js';

/** Something has to be loaded first: missVbn, missCrc. */
export const LOAD = -1;
/** What became of this block is not counted yet: ask after the next consistency point. */
export const WAIT = -2;

export class LegalSharing {
  readonly #engine: Engine;
  readonly #walker: BufferTrees;

  constructor(engine: Engine) {
    this.#engine = engine;
    this.#walker = new BufferTrees(engine.pool, engine.table);
  }

  get missVbn(): number {
    return this.#walker.missVbn;
  }

  get missCrc(): number {
    return this.#walker.missCrc;
  }

  /** How many may name the block, by its entry: 1 without one. */
  counted(vbn: number): number {
    const { pool, metafiles } = this.#engine;
    const file = metafiles.reference;
    const fbn = Math.floor(vbn / REFERENCE_ENTRIES_PER_BLOCK);
    if (fbn >= file.capacityFbn) return 1;
    const buffer = this.#walker.findMetaBlock(file, fbn);
    if (buffer === -2) return LOAD;
    if (buffer < 0) return 1;
    const at = (vbn % REFERENCE_ENTRIES_PER_BLOCK) * REFERENCE_WORDS;
    return Math.max(1, pool.wordsOf(buffer)[pool.wordStart(buffer) + at] as number);
  }

  /**
   * True if all beneath this indirect block is shared with it: what it names is named through it
   * alone, however many name it, and needs no entries of its own.
   */
  covers(vbn: number, level: number): boolean | typeof LOAD {
    if (level < 1 || vbn === 0) return false;
    const count = this.counted(vbn);
    return count === LOAD ? LOAD : count >= 2;
  }

  /** The same with what was shared since: at least `wanted`, or how many they are. */
  counts(vbn: number, wanted: number): number {
    const { generation, frozenGeneration: frozen } = this.#engine;
    const counted = this.counted(vbn);
    if (counted === LOAD || counted >= wanted) return counted;
    // The entry may have the frozen ones already, or not yet.
    if (frozen !== undefined && (sharesOf(frozen.shares, vbn) > 0 || frozen.recounts(vbn))) {
      return WAIT;
    }
    // A copy of a shared indirect block names what that block names. Whether those are names more
    // depends on who else has copied it: the consistency point knows.
    if (generation.recounts(vbn)) return WAIT;
    return counted + sharesOf(generation.shares, vbn);
  }
}

function sharesOf(shares: readonly Share[], vbn: number): number {
  let count = 0;
  for (const share of shares) if (vbn >= share.vbn && vbn < share.vbn + share.blocks) count++;
  return count;
}
