/**
 * A generation: everything that changed between two freezes, and so goes into one consistency
 * point. There are at most two: the one that clients change, and the one that is being written.
 */
import type { LogEntry } from '../layout/log-entry.js';
import type { VdiskRecord } from '../layout/vdisk-record.js';
import type { Tree } from './tree.js';
import { VbnSet } from './vbn-set.js';

/** A block that one more tree names. */
export interface Share {
  readonly vbn: number;
  /** Tree whose block it was; counted in only if the block has no entry yet. */
  readonly ownerId: number;
  readonly withId: number;
}

export class Generation {
  readonly number: number;
  readonly trees = new Set<Tree>();
  /** Tree records to empty, by their place in the tree file. */
  readonly removedTrees = new Set<number>();
  /** Vdisk records by their place in the vdisk file; undefined empties it. */
  readonly vdisks = new Map<number, VdiskRecord | undefined>();
  /** Data blocks let go, by the tree that named them. */
  readonly dataFrees = new Map<number, VbnSet>();
  /** Indirect and metafile blocks let go; each has one owner. */
  readonly metaFrees = new VbnSet();
  /** Blocks placed; in place a metadata block counts with its second copy. */
  readonly allocated = new VbnSet();
  readonly shares: Share[] = [];
  /** Blocks that moved from one tree to another, by a merge: vbn, from, to. */
  readonly moves: { readonly vbn: number; readonly fromId: number; readonly toId: number }[] = [];
  /** Acts and ranges that are not in the log yet, in order. A unit is one act. */
  units: LogEntry[][] = [];
  dataFreeCount = 0;

  constructor(number: number) {
    this.number = number;
  }

  freeData(treeId: number, vbn: number): void {
    let set = this.dataFrees.get(treeId);
    if (set === undefined) {
      set = new VbnSet();
      this.dataFrees.set(treeId, set);
    }
    set.add(vbn);
    this.dataFreeCount++;
  }

  /** True if a consistency point of this generation would change nothing. */
  get isEmpty(): boolean {
    return (
      this.trees.size === 0 &&
      this.vdisks.size === 0 &&
      this.removedTrees.size === 0 &&
      this.dataFrees.size === 0 &&
      this.metaFrees.size === 0 &&
      this.allocated.size === 0 &&
      this.shares.length === 0
    );
  }
}
