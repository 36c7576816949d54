/**
 * Background jobs of the vdisk layer: trees that die are freed, trees of deleted snapshots are
 * merged down when one tree is left over them, or freed when none is. Restartable: what there is to
 * do is read from the trees' states.
 */
import { isStoreError } from '../base/store-error.js';
import type { Engine } from '../store/engine.js';
import type { Tree } from '../store/tree.js';
import { treeEntry } from './acts.js';
import { freeTree } from './free-job.js';
import { hasMergeRoom, mayMerge, mergeDown } from './merge-job.js';
import type { Resolver } from './resolution.js';

export class Background {
  readonly #engine: Engine;
  readonly #resolver: Resolver;
  readonly #onMerged: (above: Tree) => void;
  #running: Promise<void> | undefined;
  #stopped = false;
  /** What the loop is at: for statistics and the simulator. */
  current: 'free' | 'merge' | undefined;
  trouble: string | undefined;

  /** `onMerged` is called when a tree has taken in the one below it. */
  constructor(engine: Engine, resolver: Resolver, onMerged: (above: Tree) => void) {
    this.#engine = engine;
    this.#resolver = resolver;
    this.#onMerged = onMerged;
  }

  get isIdle(): boolean {
    return this.#running === undefined;
  }

  /** Looks for trees that have something to be done, and sees to it. */
  wake(): void {
    if (this.#running !== undefined || this.#stopped) return;
    if (this.#next() === undefined) return;
    this.#running = this.#run();
  }

  /** Resolves when there is nothing to do now. */
  async idle(): Promise<void> {
    this.wake();
    while (this.#running !== undefined) await this.#running;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  async #run(): Promise<void> {
    await Promise.resolve();
    try {
      for (let tree = this.#next(); tree !== undefined; tree = this.#next()) {
        if (this.#stopped) break;
        await this.#one(tree);
      }
      this.trouble = undefined;
    } catch (error) {
      if (!isStoreError(error)) this.#engine.fail(error);
      this.trouble = error instanceof Error ? error.message : String(error);
      this.#engine.options.log({
        level: 'error',
        event: 'background-stopped',
        message: `Freeing deleted blocks has stopped: ${this.trouble}`,
      });
      // Tried again after the next open: what a damaged tree holds stays taken until then.
      this.#stopped = true;
    } finally {
      this.#running = undefined;
      this.current = undefined;
    }
  }

  #next(): Tree | undefined {
    const trees = [...this.#engine.table.all()].filter((tree) => !tree.gone);
    // Freeing comes first: a tree that is merged must not count blocks of dying ones (countedById).
    for (const tree of trees) {
      if (tree.state === 'dying') return tree;
      if (tree.state !== 'deleting' || tree.overCount > 0) continue;
      this.#engine.trees.noteDirty(tree, this.#engine.generation);
      tree.state = 'dying';
      tree.backing = undefined;
      tree.split = undefined;
      // An act may rely on it that this tree reads through nothing any more: the log says it first.
      this.#engine.generation.units.push([treeEntry(tree)]);
      return tree;
    }
    return trees.find((tree) => {
      const [above] = tree.over();
      if (tree.state !== 'deleting' || above === undefined) return false;
      return mayMerge(tree, above) && hasMergeRoom(this.#engine, above);
    });
  }

  async #one(tree: Tree): Promise<void> {
    const isStopped = (): boolean => this.#stopped;
    if (tree.state === 'dying') {
      this.current = 'free';
      await freeTree(this.#engine, tree, isStopped);
    } else {
      this.current = 'merge';
      const above = await mergeDown(this.#engine, this.#resolver, tree, isStopped);
      if (above !== undefined) this.#onMerged(above);
    }
  }
}
