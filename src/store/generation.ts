/**
 * A generation: everything that changed between two freezes, and so goes into one consistency
 * point. There are at most two: the one that clients change, and the one that is being written.
 */
import type { LogEntry } from '../layout/log-entry.js';
import { REFERENCE_ENTRIES_PER_BLOCK } from '../layout/reference-entry.js';
import type { VdiskRecord } from '../layout/vdisk-record.js';
import type { Tree } from './tree.js';
import { VbnSet } from './vbn-set.js';

/** Blocks, one behind the other, that one more tree names. */
export interface Share {
  readonly vbn: number;
  blocks: number;
  /** Tree whose block it was; counted in only if the block has no entry yet. */
  readonly ownerId: number;
  readonly withId: number;
}

/** A block that one tree names instead of another. */
export interface Move {
  readonly vbn: number;
  readonly fromId: number;
  readonly toId: number;
  /** Shares that came before it: the two are applied in the order in which they happened. */
  readonly sharesBefore: number;
}

export class Generation {
  readonly number: number;
  /** True if a block that is let go may have an entry in the reference file. */
  readonly #maybeShared: (vbn: number) => boolean;
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
  /** Blocks that moved from one tree to another, by a merge. */
  readonly moves: Move[] = [];
  /** Acts and ranges that are not in the log yet, in order. A unit is one act. */
  units: LogEntry[][] = [];
  dataFreeCount = 0;
  /** Blocks of the reference file that this generation may change. */
  readonly referenceFbns = new Set<number>();

  constructor(number: number, maybeShared: (vbn: number) => boolean = () => false) {
    this.number = number;
    this.#maybeShared = maybeShared;
  }

  /** The tree names blocks of another one from now on. */
  share({ vbn, blocks, ownerId, withId }: Share): void {
    const last = this.shares.at(-1);
    const isNext = last?.ownerId === ownerId && last.withId === withId;
    // A run does not go on behind a move: the order of the two counts.
    const isBehindMove = this.moves.at(-1)?.sharesBefore === this.shares.length;
    if (last !== undefined && isNext && last.vbn + last.blocks === vbn && !isBehindMove) {
      last.blocks += blocks;
    } else {
      this.shares.push({ vbn, blocks, ownerId, withId });
    }
    const end = (vbn + blocks) / REFERENCE_ENTRIES_PER_BLOCK;
    for (let fbn = Math.floor(vbn / REFERENCE_ENTRIES_PER_BLOCK); fbn < end; fbn++) {
      this.referenceFbns.add(fbn);
    }
  }

  /** The block is named by another tree instead, with all owners that it has. */
  move(vbn: number, fromId: number, toId: number): void {
    this.moves.push({ vbn, fromId, toId, sharesBefore: this.shares.length });
    this.referenceFbns.add(Math.floor(vbn / REFERENCE_ENTRIES_PER_BLOCK));
  }

  freeData(treeId: number, vbn: number): void {
    let set = this.dataFrees.get(treeId);
    if (set === undefined) {
      set = new VbnSet();
      this.dataFrees.set(treeId, set);
    }
    set.add(vbn);
    this.dataFreeCount++;
    if (this.#maybeShared(vbn)) {
      this.referenceFbns.add(Math.floor(vbn / REFERENCE_ENTRIES_PER_BLOCK));
    }
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
