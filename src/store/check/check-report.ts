/**
 * What a check found: faults of a closed set of kinds, and how much was looked at.
 *
 * 1. A fault is named once, where it is, with what to do next.
 * 2. The list is bounded: of a store that is damaged all over, the first FAULTS_MAX are kept and
 *    all are counted.
 */

const KEEP = 'do not write to this store any more: copy its vdisks to a new one';
const RESTORE = 'restore it from a copy; what else was found is still true';
const HEAL = 'check again with repair, or open the store';

/** Every kind of fault, with the next step for whoever reads of it. */
const NEXT_STEPS = {
  /** No fsinfo can be read: nothing else was looked at. */
  'fsinfo-lost': 'restore the whole store from a copy',
  /** One copy of an fsinfo is damaged, its twin is not. */
  'fsinfo-damaged': HEAL,
  /** Slots of fsinfo contradict each other. */
  'fsinfo-differs': KEEP,
  /** A counter of fsinfo is not what the maps say. */
  counter: KEEP,
  /** A pointer that cannot be one. */
  pointer: RESTORE,
  /** One of the two copies of a metadata block is damaged. */
  'metadata-copy': HEAL,
  /** A metadata block cannot be read from any copy. */
  'metadata-lost': RESTORE,
  /** A data block is not what its pointer's checksum says, or cannot be read. */
  'data-damaged': 'write these bytes again, or restore them from a copy',
  /** A tree record that makes no sense. */
  'tree-record': RESTORE,
  /** A vdisk or snapshot record that makes no sense. */
  'vdisk-record': RESTORE,
  /** Two vdisks, or two snapshots of one vdisk, have the same name. */
  name: 'rename one of them',
  /** A backing tree is missing, dying, goes in a circle, or is not where it should be. */
  lineage: RESTORE,
  /** The state of a split makes no sense, or it left a hole behind. */
  split: 'do not release the backing store: start the split again',
  /** A block has other owners than the reference file says. */
  reference: KEEP,
  /** A bit of the active map is set, and nothing names the block. */
  'map-leak': 'nothing is lost; the space comes back when the vdisks are copied to a new store',
  /** A block is named, and its bit in the active map is clear: it could be overwritten. */
  'map-missing': KEEP,
  /** The usage file has another live count or kind. */
  usage: KEEP,
  /** mappedBlocks or sharedBlocks of a tree is wrong. */
  'tree-count': 'nothing is lost; sizes that are shown for this vdisk are wrong',
  /** A record of the object log is missing or damaged. */
  record: RESTORE,
  /** The log cannot be replayed as it stands. */
  log: 'what was flushed since the last consistency point may be lost: restore it from a copy',
} as const satisfies Record<string, string>;

export type FaultKind = keyof typeof NEXT_STEPS;
export const FAULT_KINDS = Object.keys(NEXT_STEPS) as readonly FaultKind[];

export interface Fault {
  readonly kind: FaultKind;
  /** Object, numbers, next step. */
  readonly message: string;
  /** Written again from a sound copy. */
  readonly repaired: boolean;
}

export interface CheckCounts {
  /** Blocks read and summed; a metadata block with two copies counts twice. */
  blocksChecked: number;
  /** Blocks that are named. One that several trees name counts once. */
  dataBlocks: number;
  metaBlocks: number;
  /** Of the data blocks, the ones with an entry in the reference file. */
  sharedBlocks: number;
  trees: number;
  vdisks: number;
  snapshots: number;
  /** External backing stores. Their files are not looked at. */
  externals: number;
  /** Of the log behind the consistency point. */
  logBatches: number;
  logEntries: number;
  /** Twins of fsinfo that a power cut left behind; opening the store brings them up to date. */
  staleFsinfos: number;
}

/** Objects of an object log that nothing names: no fault. A server deletes them in time. */
export interface Orphans {
  readonly objects: number;
  readonly bytes: number;
  /** The first 1,000. */
  readonly keys: readonly string[];
}

export interface CheckReport {
  /** No fault at all, not even a repaired one. */
  readonly ok: boolean;
  readonly faults: readonly Fault[];
  /** All of them; `faults` holds the first 1,000. */
  readonly faultCount: number;
  /**
   * False if metadata is lost or a record makes no sense: what hangs on it was not seen, so leaks
   * and counts were not judged.
   */
  readonly isComplete: boolean;
  readonly counts: Readonly<CheckCounts>;
  /** Looked for only if the check is complete. */
  readonly orphans: Orphans;
}

const FAULTS_MAX = 1000;
const ORPHANS_MAX = 1000;

export class Findings {
  readonly counts: CheckCounts = {
    blocksChecked: 0,
    dataBlocks: 0,
    metaBlocks: 0,
    sharedBlocks: 0,
    trees: 0,
    vdisks: 0,
    snapshots: 0,
    externals: 0,
    logBatches: 0,
    logEntries: 0,
    staleFsinfos: 0,
  };
  readonly #faults: Fault[] = [];
  #faultCount = 0;
  #isComplete = true;
  readonly #orphanKeys: string[] = [];
  readonly #orphans = { objects: 0, bytes: 0 };

  add(kind: FaultKind, what: string): void {
    this.#push({ kind, message: `${what}; ${NEXT_STEPS[kind]}`, repaired: false });
  }

  /** A fault that was put right from a sound copy. */
  addRepaired(kind: FaultKind, what: string): void {
    this.#push({ kind, message: `${what}; it was written again from its copy`, repaired: true });
  }

  #push(fault: Fault): void {
    this.#faultCount++;
    if (this.#faults.length < FAULTS_MAX) this.#faults.push(fault);
  }

  addOrphan(key: string, bytes: number): void {
    this.#orphans.objects++;
    this.#orphans.bytes += bytes;
    if (this.#orphanKeys.length < ORPHANS_MAX) this.#orphanKeys.push(key);
  }

  /** Something could not be read that more hangs on. */
  markIncomplete(): void {
    this.#isComplete = false;
  }

  get isComplete(): boolean {
    return this.#isComplete;
  }

  toReport(): CheckReport {
    return {
      ok: this.#faultCount === 0,
      faults: this.#faults,
      faultCount: this.#faultCount,
      isComplete: this.#isComplete,
      counts: this.counts,
      orphans: { ...this.#orphans, keys: this.#orphanKeys },
    };
  }
}
