/**
 * A generation: everything that changed between two freezes, and so goes into one consistency
 * point. There are at most two: the one that clients change, and the one that is being written.
 */
import { FIELDS_PER_BLOCK } from '../base/units.js';
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
  readonly kind: 'move';
  readonly vbn: number;
  readonly fromId: number;
  readonly toId: number;
  /** What is no data block counts for no tree's `sharedBlocks`. */
  readonly isData: boolean;
}

/** An indirect block that one more tree names. */
export interface Lending {
  readonly kind: 'lend';
  readonly vbn: number;
  /** Tree whose block it was, or 0 if it stands beneath a shared pointer. */
  readonly ownerId: number;
  readonly withId: number;
}

/** A tree named a shared block, and names a copy of its own instead. */
export interface Unsharing {
  readonly kind: 'unshare';
  readonly vbn: number;
  readonly treeId: number;
  readonly level: number;
  /** What the block names, and so the copy. */
  readonly named: readonly number[];
}

export type Renaming = Move | Lending | Unsharing;

/** Applied in the order in which they happened, together with the shares. */
export interface RenamingStep {
  readonly renaming: Renaming;
  readonly sharesBefore: number;
}

export type MetafileName = 'tree' | 'vdisk' | 'reference' | 'usage';

/** A block of a metafile that is to be placed anew, as it is, if it still stands there. */
export interface Renewal {
  readonly name: MetafileName;
  readonly vbn: number;
  readonly fbn: number;
  readonly level: number;
  readonly crc: number;
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
  /** Names that a tree had let go of before it got them again: it may let go of them once more. */
  readonly earlierFrees: { readonly treeId: number; readonly vbn: number }[] = [];
  /** Indirect and metafile blocks let go; each has one owner. */
  readonly metaFrees = new VbnSet();
  /** Blocks placed; in place a metadata block counts with its second copy. */
  readonly allocated = new VbnSet();
  readonly shares: Share[] = [];
  /** Blocks that moved from one tree to another, by a merge, and shared indirect blocks. */
  readonly renamings: RenamingStep[] = [];
  /** Shared indirect blocks that a dying tree let go of, with all beneath, and as whose. */
  readonly sharedFrees = new Map<number, number>();
  /** Indirect blocks whose entries the renamings change. */
  readonly #renamed = new VbnSet();
  /** Acts and ranges that are not in the log yet, in order. A unit is one act. */
  units: LogEntry[][] = [];
  dataFreeCount = 0;
  readonly renewals: Renewal[] = [];
  /** Blocks of the reference file that this generation may change, of its two lower levels. */
  readonly #referenceFbns = new Set<number>();
  readonly #referenceUppers = new Set<number>();

  constructor(number: number, maybeShared: (vbn: number) => boolean = () => false) {
    this.number = number;
    this.#maybeShared = maybeShared;
  }

  /** The tree names blocks of another one from now on. */
  share({ vbn, blocks, ownerId, withId }: Share): void {
    // Who is given names has seldom let go of any.
    if ((this.dataFrees.get(withId)?.size ?? 0) > 0) {
      for (let at = vbn; at < vbn + blocks; at++) this.#regain(withId, at);
    }
    const last = this.shares.at(-1);
    const isNext = last?.ownerId === ownerId && last.withId === withId;
    // A run does not go on behind a renaming: the order of the two counts.
    const isBehindRenaming = this.renamings.at(-1)?.sharesBefore === this.shares.length;
    if (last !== undefined && isNext && last.vbn + last.blocks === vbn && !isBehindRenaming) {
      last.blocks += blocks;
    } else {
      this.shares.push({ vbn, blocks, ownerId, withId });
    }
    const end = (vbn + blocks) / REFERENCE_ENTRIES_PER_BLOCK;
    for (let fbn = Math.floor(vbn / REFERENCE_ENTRIES_PER_BLOCK); fbn < end; fbn++) {
      this.#noteReference(fbn);
    }
  }

  /** The block is named by another tree instead, with all owners that it has. */
  move(vbn: number, fromId: number, toId: number, isData = true): void {
    this.#regain(toId, vbn);
    this.#rename({ kind: 'move', vbn, fromId, toId, isData });
    this.#noteReferenceOf(vbn);
  }

  /** One more tree names the indirect block. */
  lend(vbn: number, ownerId: number, withId: number): void {
    this.#rename({ kind: 'lend', vbn, ownerId, withId });
    this.#noteReferenceOf(vbn);
    this.#renamed.add(vbn);
  }

  /** The tree names a copy of the block from now on. */
  unshare(unsharing: Omit<Unsharing, 'kind'>): void {
    const { vbn, treeId, level, named } = unsharing;
    for (const below of named) this.#regain(treeId, below);
    this.#rename({ kind: 'unshare', ...unsharing });
    this.#noteReferenceOf(vbn);
    this.#renamed.add(vbn);
    for (const below of named) {
      this.#noteReferenceOf(below);
      if (level > 1) this.#renamed.add(below);
    }
  }

  /** Each name that is let go of counts, and a set has it once. */
  #regain(treeId: number, vbn: number): void {
    if (this.dataFrees.get(treeId)?.delete(vbn) === true) this.earlierFrees.push({ treeId, vbn });
  }

  #rename(renaming: Renaming): void {
    this.renamings.push({ renaming, sharesBefore: this.shares.length });
  }

  /** A dying tree lets go of a shared indirect block, and of all beneath. */
  freeShared(ownerId: number, vbn: number): void {
    this.sharedFrees.set(vbn, ownerId);
    this.#noteReferenceOf(vbn);
  }

  /** True if the entry of the indirect block is to change in this generation, or may. */
  renames(vbn: number): boolean {
    return this.#renamed.has(vbn) || this.sharedFrees.has(vbn);
  }

  /** True if blocks may have entries that the file does not have yet. */
  get hasNewNames(): boolean {
    return this.shares.length > 0 || this.#renamed.size > 0;
  }

  /** True if a name of this tree is to be counted that the tree's counter does not know of yet. */
  countsFor(treeId: number): boolean {
    return (
      this.shares.some(({ ownerId, withId }) => ownerId === treeId || withId === treeId) ||
      this.renamings.some(({ renaming }) => renaming.kind === 'move' && renaming.toId === treeId)
    );
  }

  /** True if a renaming has given the block another number of names. */
  recounts(vbn: number): boolean {
    if (!this.#referenceFbns.has(Math.floor(vbn / REFERENCE_ENTRIES_PER_BLOCK))) return false;
    return this.renamings.some(({ renaming }) => {
      if (renaming.kind === 'move') return false;
      return renaming.vbn === vbn || (renaming.kind === 'unshare' && renaming.named.includes(vbn));
    });
  }

  /** Blocks of the reference file that this generation may write. */
  get referenceBlocks(): number {
    return this.#referenceFbns.size + this.#referenceUppers.size;
  }

  #noteReferenceOf(vbn: number): void {
    this.#noteReference(Math.floor(vbn / REFERENCE_ENTRIES_PER_BLOCK));
  }

  #noteReference(fbn: number): void {
    this.#referenceFbns.add(fbn);
    this.#referenceUppers.add(Math.floor(fbn / FIELDS_PER_BLOCK));
  }

  freeData(treeId: number, vbn: number): void {
    let set = this.dataFrees.get(treeId);
    if (set === undefined) {
      set = new VbnSet();
      this.dataFrees.set(treeId, set);
    }
    set.add(vbn);
    this.dataFreeCount++;
    if (this.#maybeShared(vbn)) this.#noteReferenceOf(vbn);
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
      !this.hasNewNames &&
      this.sharedFrees.size === 0 &&
      this.renewals.length === 0
    );
  }
}
