/**
 * The engine: buffers, generations, consistency points and the log of one open store.
 *
 * 1. Functions without `async` change state and never wait; async ones bring blocks in, make room
 *    or make things durable. Every await ends the truth of what was checked before it.
 * 2. At most one consistency point is being written. What clients do meanwhile belongs to the next
 *    generation.
 * 3. A failed write or sync ends the engine: nothing is acknowledged any more, `assertAlive` throws
 *    what happened. Open the store again: after a failed sync the bytes may have been dropped.
 * 4. Dirty buffers are bounded: `hasBufferRoom` says when a client must wait (`bufferRoom`).
 */
import { invariant } from '../base/invariant.js';
import { isStoreError, StoreError } from '../base/store-error.js';
import { BLOCK_BYTES } from '../base/units.js';
import type { Clock, Timer } from '../env/clock.js';
import type { LogSink } from '../env/log-sink.js';
import { EXTERNAL_HEIGHT } from '../layout/external-descriptor.js';
import {
  FEATURE_EXTERNAL,
  FEATURE_PUBLISHED,
  FEATURE_SHARED_INDIRECT,
  hasPublished,
  hasSharedIndirect,
  METAFILES,
  type Metafile,
} from '../layout/fsinfo.js';
import type { LogEntry } from '../layout/log-entry.js';
import { REFERENCE_ENTRIES_PER_BLOCK, REFERENCE_WORDS } from '../layout/reference-entry.js';
import { TREE_RECORDS_PER_BLOCK } from '../layout/tree-record.js';
import { VDISK_RECORDS_PER_BLOCK, type VdiskRecord } from '../layout/vdisk-record.js';
import { BlockLoader } from './block-loader.js';
import { BufferPool } from './buffer-pool.js';
import { BufferTrees } from './buffer-tree.js';
import { ConsistencyPoint, type Metafiles } from './consistency-point.js';
import { Generation } from './generation.js';
import { LogWriter } from './log-writer.js';
import type { Demand, Medium, Urgency } from './medium.js';
import { MetafileEditor } from './metafile.js';
import { RecordSlots } from './record-slots.js';
import { type Reservation, Reservations } from './reservation.js';
import { type Tree, TreeTable } from './tree.js';

export interface EngineOptions {
  readonly memoryBytes: number;
  readonly dirtyBytesMax: number;
  readonly cpIntervalMs: number;
  readonly clock: Clock;
  readonly log: LogSink;
}

export interface EngineStats {
  cpCount: number;
  cpBlocksWritten: number;
  /** Milliseconds of all consistency points together. */
  cpMs: number;
  logGroups: number;
}

export class Engine {
  readonly medium: Medium;
  readonly options: EngineOptions;
  readonly pool: BufferPool;
  readonly table = new TreeTable();
  readonly trees: BufferTrees;
  readonly loader: BlockLoader;
  readonly editor: MetafileEditor;
  readonly metafiles: Metafiles;
  readonly treeSlots = new RecordSlots();
  readonly vdiskSlots = new RecordSlots();
  readonly #reserved = new Reservations();
  /** Trees whose content stands outside of the store. */
  readonly externals = new Set<Tree>();
  /** There may be shared indirect blocks: the next consistency point announces it, for good. */
  sharesIndirect: boolean;
  /** Something is published, or read that is: announced the same way. */
  announcesPublished: boolean;
  readonly stats: EngineStats = { cpCount: 0, cpBlocksWritten: 0, cpMs: 0, logGroups: 0 };
  readonly writer: LogWriter;
  /** Called when a consistency point is durable: trees that died in it can be freed. */
  onDurable: () => void = () => undefined;
  generation: Generation;
  #cp: { generation: Generation; point: ConsistencyPoint; done: Promise<void> } | undefined;
  readonly #cpWanted: { resolve: () => void; reject: (error: unknown) => void }[] = [];
  #cpLoop: Promise<void> | undefined;
  #cpTimer: Timer | undefined;
  #cleanWanted = false;
  #roomWaiters: (() => void)[] = [];
  #failure: StoreError | undefined;
  #closed = false;
  nextTreeId: number;
  nextVdiskId: number;
  readonly #dirtyMax: number;
  /** Of these, kept for writes to trees that are flushed. */
  readonly #dirtyReserve: number;
  /** Looks into the reference file from within a step that uses the fields of `trees`. */
  readonly #referenceWalker: BufferTrees;
  /** Trees to take out of the table when the consistency point under way has ended. */
  readonly #removals: Tree[] = [];

  constructor(medium: Medium, options: EngineOptions) {
    this.medium = medium;
    this.options = options;
    this.pool = new BufferPool(Math.ceil(options.memoryBytes / BLOCK_BYTES));
    this.trees = new BufferTrees(this.pool, this.table);
    this.#referenceWalker = new BufferTrees(this.pool, this.table);
    this.loader = new BlockLoader(this.pool, medium, options.log);
    this.editor = new MetafileEditor(this.trees, this.loader);
    this.#dirtyMax = Math.max(512, Math.floor(options.dirtyBytesMax / BLOCK_BYTES));
    this.#dirtyReserve = this.#dirtyMax >>> 5;
    const { fsinfo } = medium;
    this.metafiles = this.#openMetafiles();
    this.generation = this.newGeneration(fsinfo.cpNumber + 1);
    this.sharesIndirect = hasSharedIndirect(fsinfo);
    this.announcesPublished = hasPublished(fsinfo);
    this.nextTreeId = fsinfo.nextTreeId;
    this.nextVdiskId = fsinfo.nextVdiskId;
    medium.attach({
      editor: this.editor,
      usage: this.metafiles.usage,
      map: this.metafiles.map,
      promised: () => this.#promised(),
      currentCp: () => this.generation.number,
      fail: (error) => void this.fail(error),
    });
    this.writer = new LogWriter(this);
  }

  #openMetafiles(): Metafiles {
    const open = (name: Metafile): Tree => {
      const root = this.medium.fsinfo.roots[name];
      const tree = this.table.add(0, -1, 0);
      tree.height = Math.max(1, root.height);
      tree.root.set(root.words);
      return tree;
    };
    const [tree, vdisk, reference, usage, map] = METAFILES.map(open) as [
      Tree,
      Tree,
      Tree,
      Tree,
      Tree,
    ];
    return { tree, vdisk, reference, usage, map };
  }

  // -- life

  get failure(): StoreError | undefined {
    return this.#failure;
  }

  /** @throws {StoreError} closed, or what ended the engine */
  assertAlive(): void {
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#closed) throw new StoreError('closed', `${this.medium.name} is closed`);
  }

  /** Ends the engine: the medium did not do what it was told. */
  fail(error: unknown): StoreError {
    if (this.#failure === undefined) {
      this.#failure = isStoreError(error)
        ? new StoreError(
            error.kind,
            `${this.medium.name} has stopped, open it again: ${error.message}`,
            { cause: error },
          )
        : new StoreError('device', `${this.medium.name} has stopped: ${String(error)}`, {
            cause: error,
          });
      const { kind, message } = this.#failure;
      this.options.log({ level: 'error', event: 'store-stopped', message, fields: { kind } });
    }
    this.#cpTimer?.cancel();
    const waiting = this.#cpWanted.splice(0);
    for (const { reject } of waiting) reject(this.#failure);
    this.roomMade();
    if (!isStoreError(error)) throw error;
    return this.#failure;
  }

  /** Takes a last, clean consistency point and lets go of the medium. */
  async close(): Promise<void> {
    if (this.#closed) return;
    await this.closeKeepingMedium();
    await this.medium.close();
  }

  /** The same, but the medium stays open. */
  async closeKeepingMedium(): Promise<void> {
    if (this.#failure === undefined) {
      this.#cleanWanted = true;
      await this.consistencyPoint();
    }
    this.#closed = true;
    this.#cpTimer?.cancel();
    await this.loader.drained();
  }

  // -- space and memory

  #promised(): Demand {
    const { trees, vdisks } = this.generation;
    const frozen = this.#cp?.generation;
    const treeCount = trees.size + (frozen?.trees.size ?? 0);
    const vdiskCount = vdisks.size + (frozen?.vdisks.size ?? 0);
    const references = this.generation.referenceBlocks + (frozen?.referenceBlocks ?? 0);
    const renewals = 3 * (this.generation.renewals.length + (frozen?.renewals.length ?? 0));
    const records =
      renewals +
      Math.min(treeCount, Math.ceil(this.treeSlots.end / TREE_RECORDS_PER_BLOCK) + 1) +
      Math.min(vdiskCount, Math.ceil(this.vdiskSlots.end / VDISK_RECORDS_PER_BLOCK) + 1);
    return {
      dataBlocks: this.trees.dirtyDataCount + this.#reserved.dataBlocks,
      metaBlocks: this.trees.dirtyMetaCount + records + references + 8 + this.#reserved.metaBlocks,
    };
  }

  /** @throws {StoreError} out-of-space if the store has no room for so many more blocks */
  admit(dataBlocks: number, metaBlocks: number, urgency: Urgency): void {
    if (this.medium.hasRoom({ dataBlocks, metaBlocks }, urgency)) return;
    throw this.outOfSpace();
  }

  /** Sets space aside; undefined if there is not so much. */
  reserve(demand: Demand): Reservation | undefined {
    if (!this.medium.hasRoom(demand, 'client')) return undefined;
    return this.#reserved.make(demand);
  }

  /** True if there is room for the demand in what is set aside and what is free. */
  hasRoomWith(reservation: Reservation | undefined, demand: Demand): boolean {
    const more = {
      dataBlocks: Math.max(0, demand.dataBlocks - (reservation?.dataBlocks ?? 0)),
      metaBlocks: Math.max(0, demand.metaBlocks - (reservation?.metaBlocks ?? 0)),
    };
    return this.medium.hasRoom(more, 'client');
  }

  outOfSpace(): StoreError {
    const { totalBlocks, freeDataBlocks } = this.medium.space;
    const isRefused = !this.medium.hasRoom({ dataBlocks: 0, metaBlocks: 1 }, 'client');
    const but = freeDataBlocks > 0 && isRefused ? ', but none is left for metadata' : '';
    return new StoreError(
      'out-of-space',
      `${this.medium.name} is full: data can take ${freeDataBlocks} of ${totalBlocks} blocks` +
        `${but}; delete vdisks or snapshots`,
    );
  }

  /** True if a consistency point could give blocks back. */
  get hasPendingFrees(): boolean {
    if (this.#cp !== undefined) return true;
    const { dataFreeCount, metaFrees, sharedFrees } = this.generation;
    return dataFreeCount > 0 || metaFrees.size > 0 || sharedFrees.size > 0;
  }

  get hasBufferRoom(): boolean {
    return this.pool.dirtyCount < this.#dirtyMax - this.#dirtyReserve;
  }

  /**
   * The same for a write to this tree. Who flushes each write makes few buffers dirty and is waited
   * for: a part of them is kept for such, so that none stands behind one who never flushes.
   */
  hasBufferRoomFor(tree: Tree): boolean {
    if (this.hasBufferRoom) return true;
    const isFlushed = tree.unlogged === undefined && tree.unloggedOld === undefined;
    return isFlushed && this.pool.dirtyCount < this.#dirtyMax;
  }

  /** Resolves when a client may make more buffers dirty. */
  async bufferRoom(): Promise<void> {
    while (!this.hasBufferRoom) {
      this.assertAlive();
      this.wantConsistencyPoint();
      await new Promise<void>((resolve) => this.#roomWaiters.push(resolve));
    }
    this.assertAlive();
  }

  roomMade(): void {
    if (this.#roomWaiters.length === 0) return;
    if (!this.hasBufferRoom && this.#failure === undefined) return;
    const waiters = this.#roomWaiters;
    this.#roomWaiters = [];
    for (const resolve of waiters) resolve();
  }

  // -- consistency points

  /** Called after every change: sees to it that a consistency point comes in time. */
  changed(): void {
    if (this.#cpLoop !== undefined) return;
    if (this.pool.dirtyCount * 2 > this.#dirtyMax || this.medium.logIsHalfFull) {
      this.wantConsistencyPoint();
    } else if (this.#cpTimer === undefined) {
      this.#cpTimer = this.options.clock.setTimer(this.options.cpIntervalMs, () => {
        this.#cpTimer = undefined;
        this.wantConsistencyPoint();
      });
    }
  }

  /** Starts a consistency point if none is on its way. Its failure ends the engine. */
  wantConsistencyPoint(): void {
    if (this.#cpLoop !== undefined || this.#failure !== undefined || this.#closed) return;
    this.consistencyPoint().catch(() => undefined);
  }

  /** A consistency point is being written. */
  get isTakingCp(): boolean {
    return this.#cp !== undefined;
  }

  /** Resolves when everything that was acknowledged before the call is durable in the tree. */
  consistencyPoint(): Promise<void> {
    this.assertAlive();
    const wanted = new Promise<void>((resolve, reject) => {
      this.#cpWanted.push({ resolve, reject });
    });
    this.#cpLoop ??= this.#runConsistencyPoints();
    return wanted;
  }

  async #runConsistencyPoints(): Promise<void> {
    while (this.#cpWanted.length > 0 && this.#failure === undefined) {
      const waiting = this.#cpWanted.splice(0);
      try {
        await this.#oneConsistencyPoint();
        for (const { resolve } of waiting) resolve();
      } catch (error) {
        this.#cpLoop = undefined;
        for (const { reject } of waiting) reject(this.#failure ?? error);
        this.fail(error);
        return;
      }
    }
    this.#cpLoop = undefined;
    if (this.#failure === undefined && !this.generation.isEmpty) this.changed();
  }

  async #oneConsistencyPoint(): Promise<void> {
    this.#cpTimer?.cancel();
    this.#cpTimer = undefined;
    const clean = this.#cleanWanted;
    const { fsinfo, commitIsDue } = this.medium;
    if (this.generation.isEmpty && fsinfo.clean === clean && !commitIsDue) {
      this.generation.units.length = 0;
      return;
    }
    const startMs = this.options.clock.nowMs();
    const { generation, point } = this.#freeze();
    const done = point.run(clean);
    this.#cp = { generation, point, done };
    await done;
    this.stats.cpCount++;
    this.stats.cpBlocksWritten += point.blocksWritten;
    this.stats.cpMs += this.options.clock.nowMs() - startMs;
    this.#thaw(generation);
    this.#cp = undefined;
    // Whoever reads a block that this consistency point freed must be done before it is used again.
    await this.loader.drained();
    this.medium.releaseFreed();
    this.roomMade();
    this.onDurable();
  }

  #freeze(): { generation: Generation; point: ConsistencyPoint } {
    const generation = this.generation;
    for (const tree of generation.trees) {
      const root = tree.root.slice();
      tree.frozen = { record: tree.toRecord(), root };
      tree.dirty = false;
      tree.baseline = undefined;
      tree.unloggedOld = tree.unlogged;
      tree.unlogged = undefined;
      tree.changedCp = generation.number;
    }
    this.medium.freezeLog(generation.number);
    this.generation = this.newGeneration(generation.number + 1);
    const point = new ConsistencyPoint(
      {
        medium: this.medium,
        editor: this.editor,
        clock: this.options.clock,
        table: this.table,
        metafiles: this.metafiles,
        live: () => this.generation,
        roomMade: () => this.roomMade(),
        incompatible: this.#features(),
        ids: () => ({ nextTreeId: this.nextTreeId, nextVdiskId: this.nextVdiskId }),
      },
      generation,
    );
    return { generation, point };
  }

  #features(): number {
    const external = this.externals.size > 0 ? FEATURE_EXTERNAL : 0;
    const published = this.announcesPublished ? FEATURE_PUBLISHED : 0;
    return external + published + (this.sharesIndirect ? FEATURE_SHARED_INDIRECT : 0);
  }

  #thaw(generation: Generation): void {
    for (const tree of generation.trees) {
      tree.frozen = undefined;
      tree.unloggedOld = undefined;
    }
    for (const index of generation.removedTrees) this.treeSlots.free(index);
    for (const [index, record] of generation.vdisks) {
      if (record === undefined && !this.generation.vdisks.has(index)) this.vdiskSlots.free(index);
    }
    for (const tree of this.#removals.splice(0)) this.table.remove(tree);
  }

  /** The generation that is being written, if one is. */
  get frozenGeneration(): Generation | undefined {
    return this.#cp?.generation;
  }

  /** Resolves when the data blocks of the generation being written have their VBNs. */
  async dataPlaced(): Promise<void> {
    const cp = this.#cp;
    if (cp !== undefined) await Promise.race([cp.point.dataPlaced, cp.done]);
  }

  /** True if the tree, as it is now, is in a durable consistency point. */
  isDurable(tree: Tree): boolean {
    return !tree.dirty && tree.frozen === undefined;
  }

  // -- trees and records

  newGeneration(number: number): Generation {
    return new Generation(number, (vbn) => this.#maybeShared(vbn));
  }

  /** False only if the reference file surely has no entry for the block. */
  #maybeShared(vbn: number): boolean {
    const file = this.metafiles.reference;
    const isEmpty = ((file.root[0] as number) | (file.root[1] as number)) === 0;
    if (isEmpty) return this.generation.hasNewNames || this.#cp?.generation.hasNewNames === true;
    const fbn = Math.floor(vbn / REFERENCE_ENTRIES_PER_BLOCK);
    return fbn < file.capacityFbn && this.#referenceWalker.findMetaBlock(file, fbn) !== -1;
  }

  /**
   * How many trees and blocks name the indirect block, which a shared pointer names: as of the last
   * consistency point, and for this synchronous step. 'wait': one that changes it is under way.
   * 'load': `referenceMiss` says what.
   */
  namesOf(vbn: number): number | 'wait' | 'load' {
    if (this.#cp?.generation.renames(vbn) === true) return 'wait';
    if (this.generation.sharedFrees.has(vbn)) return 'wait';
    const file = this.metafiles.reference;
    const fbn = Math.floor(vbn / REFERENCE_ENTRIES_PER_BLOCK);
    if (fbn >= file.capacityFbn) return 1;
    const buffer = this.#referenceWalker.findMetaBlock(file, fbn);
    if (buffer === -2) return 'load';
    if (buffer < 0) return 1;
    const at = (vbn % REFERENCE_ENTRIES_PER_BLOCK) * REFERENCE_WORDS;
    return Math.max(1, this.pool.wordsOf(buffer)[this.pool.wordStart(buffer) + at] as number);
  }

  /** Loads the block of the reference file that `namesOf` missed. */
  loadReference(): Promise<void> {
    const { missVbn, missCrc } = this.#referenceWalker;
    return this.loader.loadMeta(missVbn, missCrc);
  }

  /** True if more than one tree names the block, as of the last consistency point. */
  async isShared(vbn: number): Promise<boolean> {
    const file = this.metafiles.reference;
    const fbn = Math.floor(vbn / REFERENCE_ENTRIES_PER_BLOCK);
    const buffer = fbn >= file.capacityFbn ? -1 : await this.editor.load(file, fbn);
    if (buffer < 0) return false;
    const at = (vbn % REFERENCE_ENTRIES_PER_BLOCK) * REFERENCE_WORDS;
    return this.pool.wordsOf(buffer)[this.pool.wordStart(buffer) + at] !== 0;
  }

  /** A new, empty tree. In the log only when the caller logs it. */
  addTree(sizeBytes: number): Tree {
    const tree = this.table.add(this.nextTreeId++, this.treeSlots.take(), sizeBytes);
    this.trees.noteDirty(tree, this.generation);
    return tree;
  }

  /**
   * A new external tree, as high as its descriptor wants it. It must come into being with a
   * consistency point, never with the log: that is what announces the feature.
   */
  addExternalTree(sizeBytes: number): Tree {
    const tree = this.addTree(sizeBytes);
    tree.height = EXTERNAL_HEIGHT;
    tree.readThroughLimitBytes = sizeBytes;
    tree.isExternal = true;
    this.externals.add(tree);
    return tree;
  }

  /** The tree has no block left and nobody reads through it: its record goes. */
  removeTree(tree: Tree): void {
    invariant(!tree.gone, 'a tree is removed once');
    tree.gone = true;
    tree.backing = undefined;
    this.externals.delete(tree);
    this.generation.trees.delete(tree);
    this.generation.removedTrees.add(tree.recordIndex);
    // Keeps the generation from counting it dirty again; its place in the table is used no more.
    tree.dirty = true;
    // The consistency point under way may still write its buffers, or count its shared blocks.
    if (this.#cp === undefined) this.table.remove(tree);
    else this.#removals.push(tree);
  }

  putVdisk(index: number, record: VdiskRecord | undefined): void {
    this.generation.vdisks.set(index, record);
  }

  /** Adds an act to the log and resolves when it is durable. Its effect is in memory already. */
  async logAct(entries: LogEntry[]): Promise<void> {
    this.generation.units.push(entries);
    this.changed();
    await this.writer.flush([]);
  }
}
