/**
 * mappedBlocks and sharedBlocks of every tree against what its pointers name.
 *
 * 1. Blocks of a dying tree that was cut out of another count for that one (countedById), if it still
 *    is there.
 * 2. While a deleted snapshot is merged, whole subtrees have moved up that its own mappedBlocks still
 *    counts: of the two trees only the sum is known.
 */
import type { Findings } from './check-report.js';
import type { StoreRecords } from './record-check.js';

interface Named {
  mapped: number;
  shared: number;
}

export class TreeCount {
  readonly #records: StoreRecords;
  readonly #findings: Findings;
  readonly #named = new Map<number, Named>();

  constructor(records: StoreRecords, findings: Findings) {
    this.#records = records;
    this.#findings = findings;
  }

  /** Tree `countedBy` names a block; `isShared`: the block has a reference entry. */
  note(countedBy: number, isShared: boolean): void {
    let named = this.#named.get(countedBy);
    if (named === undefined) {
      named = { mapped: 0, shared: 0 };
      this.#named.set(countedBy, named);
    }
    named.mapped++;
    if (isShared) named.shared++;
  }

  compare(): void {
    const merging = new Map<number, { stored: number; found: number; names: string[] }>();
    for (const tree of this.#records.trees.values()) {
      // A cut-out tree has no counters of its own.
      const isCut = tree.countedById !== 0;
      const named = isCut ? undefined : this.#named.get(tree.id);
      const { mapped, shared } = named ?? { mapped: 0, shared: 0 };
      const name = this.#records.nameOfTree(tree.id);
      const top = this.#topOfMerge(tree.id);
      if (top === undefined) {
        this.#compareOne(name, 'mappedBlocks', tree.mappedBlocks, mapped);
      } else {
        const sum = merging.get(top) ?? { stored: 0, found: 0, names: [] };
        sum.stored += tree.mappedBlocks;
        sum.found += mapped;
        sum.names.push(name);
        merging.set(top, sum);
      }
      this.#compareOne(name, 'sharedBlocks', tree.sharedBlocks, shared);
    }
    for (const { stored, found, names } of merging.values()) {
      this.#compareOne(names.join(' and '), 'mappedBlocks together', stored, found);
    }
  }

  #compareOne(name: string, what: string, stored: number, found: number): void {
    if (stored === found) return;
    this.#findings.add('tree-count', `${name} has ${what} ${stored}, but names ${found} blocks`);
  }

  /** The tree into which this one and others are being merged; undefined if there is no merge. */
  #topOfMerge(id: number): number | undefined {
    let top = id;
    let isMerging = (this.#records.over.get(id) ?? []).some(() => this.#hasMoved(id));
    for (let steps = 0; this.#hasMoved(top) && steps < this.#records.trees.size; steps++) {
      const above = this.#records.over.get(top)?.[0];
      if (above === undefined) break;
      top = above;
      isMerging = true;
    }
    const below = this.#records.trees.get(id)?.backingId ?? 0;
    return isMerging || this.#hasMoved(below) ? top : undefined;
  }

  #hasMoved(id: number): boolean {
    const tree = this.#records.trees.get(id);
    return tree?.state === 'deleting' && tree.goneBelowFbn > 0;
  }
}
