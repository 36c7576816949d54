/**
 * mappedBlocks and sharedBlocks of every tree against what its pointers name.
 *
 * 1. Blocks of a dying tree that was cut out of another count for that one (countedById), if it
 *    still is there. How much a dying tree itself maps, or shares whole, nobody asks: it is not
 *    kept up to date. Nor is it of a half merged tree that nobody reads through any more: it dies
 *    next.
 * 2. While a deleted snapshot is merged, the tree above may count for both: only their sum is
 *    known.
 */
import type { TreeRecord } from '../../layout/tree-record.js';
import type { Findings } from './check-report.js';
import type { StoreRecords } from './record-check.js';

interface Named {
  mapped: number;
  shared: number;
}

interface Merge {
  stored: number;
  found: number;
  readonly names: string[];
}

export class TreeCount {
  readonly #records: StoreRecords;
  readonly #findings: Findings;
  /** The store may have shared indirect blocks. */
  readonly #sharesIndirect: boolean;
  readonly #named = new Map<number, Named>();

  constructor(records: StoreRecords, findings: Findings, sharesIndirect: boolean) {
    this.#records = records;
    this.#sharesIndirect = sharesIndirect;
    this.#findings = findings;
  }

  /**
   * Tree `countedBy` names data blocks. `isShared`: they have reference entries, or a shared
   * pointer leads to them.
   */
  note(countedBy: number, blocks: number, isShared: boolean): void {
    let named = this.#named.get(countedBy);
    if (named === undefined) {
      named = { mapped: 0, shared: 0 };
      this.#named.set(countedBy, named);
    }
    named.mapped += blocks;
    if (isShared) named.shared += blocks;
  }

  compare(): void {
    const merges = new Map<number, Merge>();
    for (const tree of this.#records.trees.values()) {
      const name = this.#records.nameOfTree(tree.id);
      // A cut-out tree has no counters of its own.
      const named = tree.countedById === 0 ? this.#named.get(tree.id) : undefined;
      const { mapped, shared } = named ?? { mapped: 0, shared: 0 };
      const isDying =
        tree.state === 'dying' || (isMerging(tree) && !this.#records.over.has(tree.id));
      if (!isDying || !this.#sharesIndirect) {
        this.#compareOne(name, 'sharedBlocks', tree.sharedBlocks, shared);
      }
      if (isDying) continue;
      const top = this.#topOfMerge(tree);
      if (top === undefined) {
        this.#compareOne(name, 'mappedBlocks', tree.mappedBlocks, mapped);
        continue;
      }
      const merge = merges.get(top) ?? { stored: 0, found: 0, names: [] };
      merge.stored += tree.mappedBlocks;
      merge.found += mapped;
      merge.names.push(name);
      merges.set(top, merge);
    }
    for (const { stored, found, names } of merges.values()) {
      this.#compareOne(names.join(' and '), 'mappedBlocks together', stored, found);
    }
  }

  #compareOne(name: string, what: string, stored: number, found: number): void {
    if (stored === found) return;
    this.#findings.add('tree-count', `${name} has ${what} ${stored}, but ${found} are named`);
  }

  /** The tree into which this one is being merged, or others into it; undefined without a merge. */
  #topOfMerge(tree: TreeRecord): number | undefined {
    let top = tree;
    for (let steps = 0; isMerging(top) && steps < this.#records.trees.size; steps++) {
      const above = this.#records.trees.get(this.#records.over.get(top.id)?.[0] ?? 0);
      if (above === undefined) break;
      top = above;
    }
    const below = this.#records.trees.get(tree.backingId);
    const isIn = top !== tree || (below !== undefined && isMerging(below));
    return isIn ? top.id : undefined;
  }
}

function isMerging(tree: TreeRecord): boolean {
  return tree.state === 'deleting' && tree.goneBelowFbn > 0;
}
