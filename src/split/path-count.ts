/**
 * Counts the indirect blocks over level-1 ranges of a tree, each once: what a change of these
 * ranges writes anew, and how many of them are not there yet.
 */
import { SPAN_BLOCKS } from '../base/units.js';
import { WALK_FIELD, WALK_MISS } from '../store/buffer-tree.js';
import type { Engine } from '../store/engine.js';
import type { Tree } from '../store/tree.js';

export class PathCount {
  readonly #engine: Engine;
  readonly #tree: Tree;
  readonly #height: number;
  /** By level, the block that was counted last. */
  readonly #last: number[] = [];
  blocks = 0;
  /** Of these, the ones that are not there yet. */
  newBlocks = 0;

  /** `height`: that of the tree when the change is made. */
  constructor(engine: Engine, tree: Tree, height: number) {
    this.#engine = engine;
    this.#tree = tree;
    this.#height = height;
  }

  /**
   * The range of this FBN will be changed, from the block of a level up. Calls come in order of
   * FBNs.
   */
  async add(fbn: number, fromLevel = 1): Promise<void> {
    if (this.#last[fromLevel] === Math.floor(fbn / (SPAN_BLOCKS[fromLevel] as number))) return;
    const absentLevel = await this.#absentLevel(fbn);
    for (let level = fromLevel; level <= this.#height; level++) {
      const index = Math.floor(fbn / (SPAN_BLOCKS[level] as number));
      if (this.#last[level] === index) return;
      this.#last[level] = index;
      this.blocks++;
      if (level <= absentLevel || level > this.#tree.height) this.newBlocks++;
    }
  }

  /** Level of the highest block on the way that is not there; 0 if all are. */
  async #absentLevel(fbn: number): Promise<number> {
    const { trees, loader } = this.#engine;
    for (;;) {
      if (fbn >= this.#tree.capacityFbn) return this.#height;
      const found = trees.walk(this.#tree, fbn);
      if (found === WALK_FIELD) return 0;
      if (found !== WALK_MISS) return trees.level;
      await loader.loadMeta(trees.missVbn, trees.missCrc);
      this.#engine.assertAlive();
    }
  }
}
