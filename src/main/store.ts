/**
 * The store as a program uses it: vdisks, snapshots, clones, splits. See README.md for an example.
 *
 * Names are `golden` for a vdisk and `golden@v1` for its snapshot. Acts (create, snapshot, clone,
 * rename, resize, delete, split) are durable when their promise resolves.
 */
import { StoreError } from '../base/store-error.js';
import { BLOCK_BYTES } from '../base/units.js';
import type { Random } from '../env/random.js';
import type { SplitMode } from '../layout/tree-record.js';
import {
  type VerifyOptions,
  type VerifyReport,
  verifyEntry,
} from '../split/certificate/make-certificate.js';
import type { PolicyChange } from '../split/policy-change.js';
import type { SplitParts } from '../split/special-load.js';
import type { SplitState } from '../split/split-job.js';
import { type SplitChange, SplitJobs } from '../split/split-jobs.js';
import { planSplit, type SplitPlan, type SplitPlanOptions } from '../split/split-plan.js';
import type { Engine } from '../store/engine.js';
import { Cleaner, type CleanerOptions } from '../store/object-log/cleaner/cleaner.js';
import type { ObjectLogMedium } from '../store/object-log/object-log-medium.js';
import { OrphanSweep, type SweepOptions } from '../store/object-log/orphan-sweep.js';
import type { Tree } from '../store/tree.js';
import { Acts, type SnapshotItem } from '../vdisk/acts.js';
import { Background } from '../vdisk/background.js';
import { ClientLoad } from '../vdisk/client-load.js';
import { hashContent } from '../vdisk/content-hash.js';
import { type DiffExtent, diffTrees } from '../vdisk/diff.js';
import type { Externals } from '../vdisk/externals.js';
import { Reader } from '../vdisk/reader.js';
import { Resolver } from '../vdisk/resolution.js';
import { type ScanReport, scanTree } from '../vdisk/scan.js';
import { Vdisk, type VdiskParts } from '../vdisk/vdisk.js';
import type { VdiskEntry, VdiskTable } from '../vdisk/vdisk-table.js';
import { Writer } from '../vdisk/writer.js';
import type { ExternalCatalog, ExternalOptions, RelocateOptions } from './external-catalog.js';
import { PublishedClones } from './published-clones.js';
import { parsePublished, type ReachStore } from './published-store.js';
import type { PublicationInfo, Publisher, WithdrawOptions } from './publisher.js';
import type { StoreStats, VdiskInfo } from './store-info.js';

export interface DeleteOptions {
  /**
   * What becomes of others that need it. refuse (default): nothing is deleted. defer: the name goes
   * at once, of a vdisk with those of its snapshots, and the space comes back when the last of the
   * others has let go. split: the same, and every clone is split from it, by sharing.
   */
  readonly inUse?: 'refuse' | 'defer' | 'split';
}

export interface SplitOptions extends PolicyChange {
  /** copy: blocks of its own. share: the same blocks, counted twice. */
  readonly mode: SplitMode;
}

/** What a split of a vdisk would do. */
export interface VdiskSplitPlan extends SplitPlan {
  readonly name: string;
  /** What it would let go of; '' if that was deleted already. */
  readonly backing: string;
  /** What else reads through that. Its space comes back when the last of these lets go. */
  readonly otherHolders: readonly string[];
}

/** A split under way. */
export interface SplitJob {
  /**
   * Resolves when the clone stands alone, durably; rejects if the store stops or the clone goes.
   */
  readonly done: Promise<void>;
  /** Undefined when it is over. */
  state(): SplitState | undefined;
}

/** What the cleaner of an object log works on, and how. */
export interface Cleaning {
  readonly medium: ObjectLogMedium;
  readonly options: CleanerOptions;
  /** Undefined: orphans stay. */
  readonly sweep: SweepOptions | undefined;
}

export class Store {
  readonly #engine: Engine;
  readonly #table: VdiskTable;
  readonly #parts: VdiskParts;
  readonly #acts: Acts;
  readonly #background: Background;
  readonly #splitParts: SplitParts;
  readonly #splits: SplitJobs;
  readonly #externals: ExternalCatalog;
  readonly #recovered: boolean;
  readonly #cleaner: Cleaner | undefined;
  readonly #cleaning: Cleaning | undefined;
  readonly #publisher: Publisher | undefined;
  readonly #published: PublishedClones;
  readonly #sweep: OrphanSweep | undefined;

  /** Use openStore. */
  constructor(
    engine: Engine,
    table: VdiskTable,
    random: Random,
    parts: {
      readonly recovered: boolean;
      readonly externals: Externals;
      readonly catalog: ExternalCatalog;
      /** Undefined: a store in place. */
      readonly cleaning: Cleaning | undefined;
      readonly publisher: Publisher | undefined;
      readonly reach: ReachStore;
    },
  ) {
    const resolver = new Resolver(engine.trees, engine.options.memoryBytes, parts.externals);
    const reader = new Reader(engine, resolver);
    const writer = new Writer(engine, reader);
    this.#engine = engine;
    this.#table = table;
    const load = new ClientLoad(engine.options.clock);
    this.#parts = { engine, reader, writer, load };
    this.#acts = new Acts(this.#parts, table, random);
    this.#background = new Background(engine, resolver, (tree) => this.#splits.takeUp(tree));
    this.#splitParts = { engine, reader, resolver };
    this.#splits = new SplitJobs(this.#splitParts, table, load, () => this.#background.wake());
    this.#externals = parts.catalog;
    this.#recovered = parts.recovered;
    this.#publisher = parts.publisher;
    const { catalog, reach } = parts;
    this.#published = new PublishedClones({ engine, table, acts: this.#acts, catalog, reach });
    // A TRIM or a shrink leaves a dying tree behind, and wakes nobody.
    engine.onDurable = () => this.#wake();
    this.#splits.resumeAll();
    const { cleaning } = parts;
    this.#cleaning = cleaning;
    this.#cleaner =
      cleaning === undefined
        ? undefined
        : new Cleaner(engine, cleaning.medium, cleaning.options, (from, to) =>
            resolver.dropRanges(from, to),
          );
    this.#publisher?.settleInBackground();
    this.#sweep = cleaning?.sweep && new OrphanSweep(engine, cleaning.medium, cleaning.sweep);
    this.#wake();
  }

  #wake(): void {
    this.#background.wake();
    this.#cleaner?.wake();
    this.#published.wake();
    this.#sweep?.wake();
  }

  /** A new vdisk that reads as zeros. @throws {StoreError} exists, invalid, out-of-space */
  async createVdisk(name: string, sizeBytes: number): Promise<Vdisk> {
    return this.#toVdisk(await this.#acts.create(name, sizeBytes));
  }

  /** The vdisk, or the snapshot (read-only). @throws {StoreError} not-found */
  vdisk(name: string): Vdisk {
    return this.#toVdisk(this.#table.get(name));
  }

  #toVdisk(entry: VdiskEntry): Vdisk {
    return new Vdisk(this.#parts, entry);
  }

  list(): VdiskInfo[] {
    return this.#table.all().map((entry) => this.#infoOf(entry));
  }

  /** @throws {StoreError} not-found */
  show(name: string): VdiskInfo {
    return this.#infoOf(this.#table.get(name));
  }

  #infoOf(entry: VdiskEntry): VdiskInfo {
    const { head } = entry;
    const { backing } = head;
    const target = this.#splits.targetOf(entry);
    return {
      name: entry.name,
      kind: entry.record.kind,
      sizeBytes: head.sizeBytes,
      backing: backing === undefined ? undefined : this.#nameOf(backing),
      mappedBytes: head.mappedBlocks * BLOCK_BYTES,
      sharedBytes: head.sharedBlocks * BLOCK_BYTES,
      ownBytes: (head.mappedBlocks - head.sharedBlocks) * BLOCK_BYTES,
      split: target === undefined ? undefined : this.#splits.stateOf(target),
      holders: this.#acts.holdersOf(head),
      external: this.#externals.infoOf(head),
      published: this.#publisher?.publishedAs(entry),
      certificate: entry.record.certificate,
      durability: this.#durability,
    };
  }

  /** Snapshots of one vdisk or of several, as of one moment. */
  snapshot(items: readonly SnapshotItem[]): Promise<void> {
    return this.#acts.snapshot(items);
  }

  /**
   * A disk image, raw or qcow2, as a backing store: read-only, cloned like a snapshot, read from
   * its file until the clones are split. Nobody may change the file meanwhile.
   * @throws {StoreError} not-found (the file), exists (the name), invalid, unsupported, corrupt
   */
  async createExternal(name: string, path: string, options: ExternalOptions = {}): Promise<Vdisk> {
    return this.#toVdisk(await this.#externals.create(this.#acts, name, path, options));
  }

  /**
   * The external backing store's file stands elsewhere now: a copy of it, or with `trust` whatever
   * holds the same disk.
   * @throws {StoreError} invalid: it is another disk, or looks different
   */
  relocate(name: string, path: string, options: RelocateOptions = {}): Promise<void> {
    return this.#externals.relocate(this.#acts, this.#table.get(name), path, options);
  }

  /** Looks whether the files behind it can be read; `show` tells what came of it. */
  lookAtExternal(name: string): Promise<void> {
    return this.#externals.look(this.#table.get(name));
  }

  /**
   * A writable clone of a snapshot or of an external backing store, at once; or of what another
   * store has published: `s3://bucket/prefix#golden@v1`.
   */
  async clone(snapshot: string, name: string): Promise<Vdisk> {
    const address = parsePublished(snapshot);
    if (address !== undefined) return this.#toVdisk(await this.#published.clone(address, name));
    const entry = this.#table.get(snapshot);
    const isHeld = this.#externals.isPublished(entry.head);
    const cloned = isHeld
      ? this.#published.cloneHeld(entry, name)
      : this.#acts.clone(snapshot, name);
    return this.#toVdisk(await cloned);
  }

  /**
   * Lets other stores clone the snapshot and read it from the records of this one, whether this
   * store is open or not. As long as that is so it cannot be deleted.
   * @throws {StoreError} unsupported: a store in place; exists, invalid, not-found, in-use, device
   */
  publish(name: string): Promise<void> {
    return this.#toPublisher().publish(name);
  }

  /**
   * Ends that. @throws {StoreError} in-use (PinnedError): clones in other stores read through it;
   * invalid: it is not published
   */
  unpublish(name: string, options: WithdrawOptions = {}): Promise<void> {
    return this.#toPublisher().withdraw(name, options);
  }

  /** What is published, and which other stores read it. @throws {StoreError} device */
  async publications(): Promise<PublicationInfo[]> {
    return (await this.#publisher?.list()) ?? [];
  }

  #toPublisher(): Publisher {
    if (this.#publisher !== undefined) return this.#publisher;
    const { name } = this.#engine.medium;
    const message = `${name} is a file or device: only a store on an object store can publish`;
    throw new StoreError('unsupported', message);
  }

  rename(name: string, newName: string): Promise<void> {
    return this.#acts.rename(name, newName);
  }

  resize(name: string, sizeBytes: number): Promise<void> {
    return this.#acts.resize(name, sizeBytes);
  }

  /**
   * Deletes a vdisk or snapshot; its space comes back in the background. An external backing store
   * is refused as long as anybody reads through it, whatever the options say.
   * @throws {StoreError} in-use (InUseError, with what others read), not-found, out-of-space
   */
  async delete(name: string, options: DeleteOptions = {}): Promise<void> {
    const entry = this.#table.get(name);
    const { head } = entry;
    if (this.#externals.isPublished(head) && head.overCount === 0) {
      await this.#published.idle();
      return;
    }
    const inUse = head.isExternal ? 'refuse' : (options.inUse ?? 'refuse');
    if (inUse === 'split') await this.#splitHolders(entry);
    try {
      await this.#acts.delete(name, inUse === 'refuse' ? 'refuse' : 'defer');
      if (head.isExternal) await this.#externals.end(head);
    } finally {
      // Also a refusal: a merge may have waited for its count.
      this.#background.wake();
    }
  }

  /** Starts the split of every other vdisk that reads through this one or a snapshot of it. */
  async #splitHolders(entry: VdiskEntry): Promise<void> {
    const own = entry.of ?? entry;
    for (const each of [entry, ...entry.snapshots]) {
      for (const over of [...each.head.over()]) {
        const holder = this.#table.byId(over.ownerId);
        if (holder === undefined || (holder.of ?? holder) === own) continue;
        // It may have let go, or be on its way, since others were asked.
        if (over.backing !== each.head || over.split !== undefined) continue;
        await this.#splits.start(holder, 'share');
      }
    }
  }

  /**
   * Separates the vdisk from its backing store, in the background. One that is under way takes the
   * options over, goes on if it was paused, and tries again what it waits for.
   * @throws {StoreError} invalid, not-found, out-of-space: what it may need cannot be set aside
   */
  async split(name: string, { mode, ...policy }: SplitOptions): Promise<SplitJob> {
    const entry = this.#table.get(name);
    if (mode === 'share') this.#checkShareable(entry);
    return this.#toSplitJob(await this.#splits.start(entry, mode, policy));
  }

  /** The other store may delete its records: there is nothing that both could name. */
  #checkShareable(entry: VdiskEntry): void {
    const backing = this.#splits.targetOf(entry)?.backing;
    if (backing === undefined || !this.#externals.isPublished(backing)) return;
    const [path] = this.#externals.infoOf(backing)?.files ?? [];
    throw new StoreError(
      'invalid',
      `${entry.name} reads through ${path}, which stands in another store: blocks cannot be ` +
        'shared across stores; split it with the mode copy',
    );
  }

  /** The split that is under way, if one is; nothing changes. @throws {StoreError} not-found */
  splitOf(name: string): SplitJob | undefined {
    const tree = this.#splits.targetOf(this.#table.get(name));
    return tree?.split === undefined ? undefined : this.#toSplitJob(tree);
  }

  #toSplitJob(tree: Tree): SplitJob {
    return { done: this.#splits.doneOf(tree), state: () => this.#splits.stateOf(tree) };
  }

  /**
   * What a split of the vdisk would read, write and give back; of one that is under way, what is
   * left. By a scan of level-1 buffers, which goes on beside everything else, or as an estimate.
   * @throws {StoreError} not-found; invalid: it reads through nothing
   */
  async planSplit(name: string, options: SplitPlanOptions = {}): Promise<VdiskSplitPlan> {
    const entry = this.#table.get(name);
    const tree = this.#splits.targetOf(entry);
    const backing = tree?.backing;
    if (tree === undefined || backing === undefined) {
      const message = `${entry.name} has no backing store: there is no split to plan`;
      throw new StoreError('invalid', message);
    }
    try {
      const backingVdisk = [backing, ...this.#treesOfVdisk(backing)];
      const subject = { tree, backing, backingVdisk };
      const plan = await planSplit(this.#splitParts, subject, this.#splits.speed, options);
      const own = this.#nameOf(tree);
      const otherHolders = this.#acts.holdersOf(backing).filter((holder) => holder !== own);
      return { name: entry.name, backing: this.#nameOf(backing), otherHolders, ...plan };
    } finally {
      // A merge may have waited for it.
      this.#background.wake();
    }
  }

  /** Of the vdisk that the tree belongs to, and of its snapshots. */
  #treesOfVdisk({ ownerId }: Tree): Tree[] {
    const entry = this.#table.byId(ownerId);
    const vdisk = entry?.of ?? entry;
    return vdisk === undefined ? [] : [vdisk, ...vdisk.snapshots].map(({ head }) => head);
  }

  /** '' for a tree that has lost its name. */
  #nameOf({ ownerId }: Tree): string {
    return this.#table.byId(ownerId)?.name ?? '';
  }

  /** Another mode or policy on the way. @throws {StoreError} invalid: it is not being split */
  changeSplit(name: string, change: SplitChange): Promise<void> {
    return this.#splits.change(this.#table.get(name), change);
  }

  /** Stops filling until `resumeSplit`, whatever happens. @throws {StoreError} invalid */
  pauseSplit(name: string): Promise<void> {
    return this.#splits.pause(this.#table.get(name));
  }

  /** @throws {StoreError} invalid: it is not being split */
  resumeSplit(name: string): Promise<void> {
    return this.#splits.goOn(this.#table.get(name));
  }

  /**
   * Ends the split. What it filled stays; with `undo` it becomes holes again, in the background.
   * @throws {StoreError} invalid: it is not being split; in-use: it cannot be undone in mid-merge
   */
  async cancelSplit(name: string, options: { readonly undo?: boolean } = {}): Promise<void> {
    await this.#splits.cancel(this.#table.get(name), options);
    this.#background.wake();
  }

  /**
   * Extents that clients changed after `from` (undefined: since the beginning), up to `to`. Names
   * of snapshots or vdisks; `from` must lie in the past of `to`.
   */
  diff(from: string | undefined, to: string): AsyncGenerator<DiffExtent> {
    const older = from === undefined ? undefined : this.#table.get(from);
    const names: [string, string] = [from ?? '', to];
    return this.#diff(older?.head, this.#table.get(to).head, names);
  }

  async *#diff(
    from: Tree | undefined,
    to: Tree,
    names: [string, string],
  ): AsyncGenerator<DiffExtent> {
    try {
      const { externals } = this.#parts.reader;
      yield* diffTrees({ engine: this.#engine, externals }, from, to, names);
    } finally {
      // A merge may have waited for it.
      this.#background.wake();
    }
  }

  /** Exact figures, by a walk over level-1 blocks. */
  async scan(name: string): Promise<ScanReport> {
    const report = await scanTree(this.#parts, this.#table.get(name).head);
    this.#background.wake();
    return report;
  }

  /**
   * Proves that the vdisk (or snapshot) and its older snapshots name no block of others, or says
   * what speaks against it; with a hash, that its content has it. Kept in its record, durably.
   * @throws {StoreError} not-found, invalid, out-of-space; in-use: it changed while it was read
   */
  async verify(name: string, options: VerifyOptions = {}): Promise<VerifyReport> {
    const entry = this.#table.get(name);
    try {
      return await verifyEntry(this.#splitParts, this.#table, entry, {
        wanted: options.contentHash,
        hashContent: () => this.#hash(entry, options.signal),
      });
    } finally {
      // A merge may have waited for it.
      this.#background.wake();
    }
  }

  /** SHA-256 of all that clients would read now. @throws {StoreError} not-found, in-use */
  contentHash(name: string, options: { signal?: AbortSignal } = {}): Promise<Uint8Array> {
    return this.#hash(this.#table.get(name), options.signal);
  }

  async #hash(entry: VdiskEntry, signal?: AbortSignal): Promise<Uint8Array> {
    try {
      return await hashContent(this.#engine, this.#toVdisk(entry), entry, signal);
    } finally {
      // A merge may have waited for it.
      this.#background.wake();
    }
  }

  /** Makes everything durable in the tree; the log is empty afterwards. */
  consistencyPoint(): Promise<void> {
    return this.#engine.consistencyPoint();
  }

  /** Resolves when no background job is left to do; a paused split does not count. */
  async idle(): Promise<void> {
    do {
      await this.#splits.idle();
      await this.#background.idle();
    } while (this.#splits.activeCount > 0 || !this.#background.isIdle);
    await this.#cleaner?.idle();
    await this.#publisher?.idle();
    await this.#published.idle();
  }

  get #durability(): VdiskInfo['durability'] {
    if (this.#engine.medium.kind === 'in-place') return 'device';
    return this.#engine.medium.logsData ? 'local' : 'remote';
  }

  stats(): StoreStats {
    const { medium, pool, loader, stats } = this.#engine;
    const { totalBlocks, usedBlocks, freeDataBlocks } = medium.space;
    return {
      cpNumber: medium.fsinfo.cpNumber,
      ...stats,
      totalBytes: totalBlocks * BLOCK_BYTES,
      usedBytes: usedBlocks * BLOCK_BYTES,
      freeBytes: freeDataBlocks * BLOCK_BYTES,
      dirtyBuffers: pool.dirtyCount,
      memoryBytes: pool.bytesAllocated,
      blocksRead: loader.blocksRead,
      blocksHealed: loader.blocksHealed,
      splitsActive: this.#splits.activeCount,
      splitsCompleted: this.#splits.counters.completed,
      splitBlocksFilled: this.#splits.counters.blocksFilled,
      splitBackingBlocksRead: this.#splits.counters.backingBlocksRead,
      splitWholeShares: this.#splits.counters.wholeShares,
      splitTallShares: this.#splits.counters.tallShares,
      cpInProgress: this.#engine.frozenGeneration !== undefined,
      background: this.#background.current,
      recovered: this.#recovered,
      dataBytesPlaced: this.#cleaning && this.#cleaning.medium.dataBlocksPlaced * BLOCK_BYTES,
      cleaner: this.#cleaner === undefined ? undefined : { ...this.#cleaner.stats },
      cache: this.#cleaning?.medium.cacheStats,
      localLog: this.#cleaning?.medium.localLogStats,
      sweep: this.#sweep === undefined ? undefined : { ...this.#sweep.stats },
    };
  }

  /** Stops background jobs, makes everything durable, lets go of the device. */
  async close(): Promise<void> {
    await this.#splits.stop();
    await this.#background.stop();
    await this.#cleaner?.stop();
    await this.#publisher?.idle();
    await this.#published.stop();
    await this.#sweep?.stop();
    await this.#externals.close();
    await this.#engine.close();
  }
}
