/**
 * The seam between the engine and what blocks are kept on. Two implementations: in-place/ over a
 * Device, object-log/ over an ObjectStore.
 *
 * 1. A VBN that `place` gave out is not given out again before `free` handed it back in a
 *    generation whose consistency point is durable, no log entry needed for recovery names it, and
 *    every read begun before then has ended.
 * 2. `place` is synchronous: between `ready` and `place` nothing may be awaited.
 * 3. What `appendLog` was given is found again by `recover`, in order, once it resolved.
 * 4. `commit` resolves when the consistency point, with all it names, is durable.
 * 5. After any call rejected with `device` or `fenced`, the medium answers nothing but that.
 */

import type { StoreError } from '../base/store-error.js';
import type { Fsinfo, MetafileRoot } from '../layout/fsinfo.js';
import type { LogEntry } from '../layout/log-entry.js';
import type { BlockTag, TagKind } from '../layout/log-record.js';
import type { Generation } from './generation.js';
import type { MetafileEditor } from './metafile.js';
import type { Tree } from './tree.js';
import type { VbnSet } from './vbn-set.js';

export interface Placed {
  /** One VBN for each block, in order. */
  readonly vbns: readonly number[];
  /** The blocks can be read from the medium. They are durable after the next sync. */
  readonly written: Promise<void>;
}

/** A piece of the log that belongs to one generation. */
export interface LogBatch {
  readonly cpNumber: number;
  /** Entries that must not be torn apart stand in one unit. */
  readonly units: readonly (readonly LogEntry[])[];
  /** Payload of the data entries, by payload index. */
  readonly payload: readonly Uint8Array[];
}

/** Space that is promised to dirty buffers, in blocks. */
export interface Demand {
  readonly dataBlocks: number;
  readonly metaBlocks: number;
}

/** What a consistency point says of itself to the medium. */
export interface CommitRequest {
  readonly generation: Generation;
  readonly clean: boolean;
  readonly roots: Readonly<Record<'tree' | 'vdisk' | 'reference', MetafileRoot>>;
  /** VBNs whose last owner is gone. The medium may add to the set. */
  readonly freedData: VbnSet;
  readonly nextTreeId: number;
  readonly nextVdiskId: number;
  /** Mask of features that a program must know to open the store as this consistency point is. */
  readonly incompatible: number;
}

export interface MediumSpace {
  readonly totalBlocks: number;
  readonly usedBlocks: number;
  /** Blocks that client data can still take, if nothing else is written. */
  readonly freeDataBlocks: number;
}

export interface PlacedCopies {
  readonly vbns: readonly number[];
  /** Resolves with the places, among them, of those that were not written: something is wrong. */
  readonly written: Promise<ReadonlySet<number>>;
}

/** 'survey': the entries only, nobody asks for payload. */
export type RecoveryPass = 'survey' | 'apply';

/** One batch of the log as recovery finds it. */
export interface RecoveredBatch {
  readonly cpNumber: number;
  readonly entries: readonly LogEntry[];
  readonly payload: (index: number) => Uint8Array;
}

/** What a medium asks of the engine. */
export interface MediumHost {
  readonly editor: MetafileEditor;
  readonly usage: Tree;
  readonly map: Tree;
  /** Blocks that dirty buffers and changed records will take. */
  promised(): Demand;
  /** The number of the generation that clients change now. */
  currentCp(): number;
  /** The medium has found out by itself that it can go on no more. */
  fail(error: StoreError): void;
}

/**
 * Who wants room, from the one for whom the store is full first to the one who finds some last:
 * what gives more back than it takes must never wait for those before it.
 */
export type Urgency = 'client' | 'overwrite' | 'trim' | 'merge' | 'release';

export interface Medium {
  readonly kind: 'in-place' | 'object-log';
  /** For messages. */
  readonly name: string;
  readonly fsinfo: Fsinfo;
  /** True: small dirty blocks go into the log by content. False: they are placed first. */
  readonly logsData: boolean;
  /** A consistency point is to be taken, though nothing has changed, before anything is logged. */
  readonly commitIsDue: boolean;
  /** Calls of `appendLog` that may be under way at once. They are durable in order. */
  readonly logsAtOnce: number;
  /** So many blocks are taken for one of metadata. */
  readonly metaCopies: number;
  /** Every VBN is below this. */
  readonly vbnEnd: number;

  /** Before anything else but reads. */
  attach(host: MediumHost): void;

  /**
   * Undefined: what has been read so far is what clients may be told. Else it is when this
   * resolves: the medium makes sure that nobody else has written meanwhile.
   */
  readsConfirmed(): Promise<void> | undefined;

  /** Reads `into.length` blocks that begin at this VBN; checks nothing. */
  readBlocks(vbn: number, into: readonly Uint8Array[]): Promise<void>;
  /** True: it is worth telling what will be read soon. */
  readonly readsAhead: boolean;
  /** These blocks will be read soon. Says nothing of failures: the read does. */
  readAhead(vbn: number, count: number): void;
  /**
   * Reads a block whose checksum is wrong once more, past all that is kept of it: its bytes may
   * have changed on their way. False: another reading would not differ.
   */
  readAgain(vbn: number, into: Uint8Array): Promise<boolean>;
  /** Reads the second copy of a metadata block; false if the medium keeps none. */
  readSecondCopy(vbn: number, into: Uint8Array): Promise<boolean>;
  /** Writes the good bytes over the damaged copy of a metadata block. */
  heal(vbn: number, bytes: Uint8Array, which: 'first' | 'second'): Promise<void>;

  /** True if the promised blocks and these more would still find room. */
  hasRoom(demand: Demand, urgency: Urgency): boolean;
  /** True if this many blocks can be placed now, without waiting. */
  isReady(kind: TagKind, blocks: number): boolean;
  /** Makes it so. @throws {StoreError} out-of-space, device */
  prepare(kind: TagKind, blocks: number): Promise<void>;
  /**
   * Gives each block a VBN and begins to write it. The caller keeps the bytes until `written`.
   * The VBNs are held until `adopt` or `abandon` is called for them.
   *
   * @param pieces  the bytes of the blocks in order; a piece may hold several of them
   * @param tags    one for each block
   */
  place(kind: TagKind, pieces: readonly Uint8Array[], tags: readonly BlockTag[]): Placed;
  /** True: `placeCopies` can be called. */
  readonly copiesBlocks: boolean;
  /**
   * Places copies of data blocks that stand on the medium, as `place` would, without their bytes
   * ever coming here. At most 256 blocks.
   *
   * @param sources  their VBNs
   * @param crcs     their checksums, which are looked at before anything is written
   */
  placeCopies(sources: readonly number[], crcs: readonly number[]): PlacedCopies;
  /** The VBN belongs to this generation's tree from now on. */
  adopt(vbn: number, kind: TagKind, generation: Generation): void;
  /** Nothing will name the VBN. */
  abandon(vbn: number, kind: TagKind): void;
  /** Recovery: a log entry names the VBN, so it is in use. */
  reclaim(vbns: readonly number[], generation: Generation): Promise<void>;
  /** Recovery: the VBN of a log entry now stands in a tree. */
  claim(vbn: number, generation: Generation): void;

  /**
   * Makes the batches durable, in order, and every block whose `written` had resolved before.
   * 'full': there is no room for them; take a consistency point instead.
   */
  appendLog(batches: readonly LogBatch[]): Promise<'durable' | 'full'>;
  /** True when a consistency point should empty the log. */
  readonly logIsHalfFull: boolean;
  /** Marks where the log stands, as generation `cpNumber` is frozen. */
  freezeLog(cpNumber: number): void;
  /** The log since the consistency point that was opened, in order. */
  recover(pass: RecoveryPass): AsyncIterable<RecoveredBatch>;

  commit(request: CommitRequest): Promise<void>;
  /** Calls once the reads begun so far have ended: what the last commit freed may be used again. */
  releaseFreed(): void;
  readonly space: MediumSpace;
  /** Loads what `useOf` looks at. */
  loadUse(segment: number): Promise<void>;
  /**
   * A bit for each of the segment's VBNs: set if it is in use, or was until a moment ago. An object
   * log knows no more than whether the record is. Undefined: `loadUse` it first.
   */
  useOf(segment: number): Uint32Array | undefined;
  close(): Promise<void>;
}
