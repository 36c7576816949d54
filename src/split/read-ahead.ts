/**
 * Reads of a backing store for the window behind the one that is being filled, so that reading and
 * writing go on together.
 *
 * What a backing store has at an FBN never changes, so what was read for it stays true while the
 * clone is over it, though a merge may move its pointers meanwhile.
 */
import type { Tree } from '../store/tree.js';
import { BackingReads, ReadMemory } from './backing-reads.js';
import { type Fields, fieldsOf, loadHoles, type SplitParts } from './special-load.js';

export class ReadAhead {
  readonly #parts: SplitParts;
  readonly #memory = new ReadMemory();
  #from = -1;
  #reads = new BackingReads(this.#memory);
  #done: Promise<unknown> = Promise.resolve();

  constructor(parts: SplitParts) {
    this.#parts = parts;
  }

  /** The reads of the window that begins at `from`: those that were begun for it, or new ones. */
  take(from: number): BackingReads {
    const reads = this.#from === from ? this.#reads : new BackingReads(this.#memory);
    this.#from = -1;
    return reads;
  }

  /** Begins to read for the holes of the tree from `from` to `end`. */
  begin(tree: Tree, from: number, end: number): void {
    const reads = new BackingReads(this.#memory);
    const ranges: Promise<void>[] = [];
    for (const fields of fieldsOf(from, end)) ranges.push(this.#read(tree, fields, reads));
    this.#from = from;
    this.#reads = reads;
    // Who fills the window meets the same failure, if it is one that lasts.
    this.#done = Promise.allSettled(ranges);
  }

  /** Resolves when nothing is being read. */
  async ended(): Promise<void> {
    await this.#done;
  }

  async #read(tree: Tree, fields: Fields, reads: BackingReads): Promise<void> {
    // The VBNs that are named here must stay what they are until they are read.
    const letGo = this.#parts.engine.loader.hold();
    try {
      const { holes } = await loadHoles(this.#parts, tree, fields);
      await reads.load(this.#parts, tree, fields.base, holes);
    } finally {
      letGo();
    }
  }
}
