/**
 * Administrative acts: create, snapshot, clone, rename, resize, delete; external backing stores.
 *
 * 1. An act changes memory in one synchronous step and is then logged as one unit, so that it is
 *    there wholly or not at all after a crash. It is durable when its promise resolves.
 * 2. New names can be seen only then: a clone is never seen before the reference on its backing
 *    store is durable.
 * 3. What an act costs does not depend on any size: a few entries in the log.
 */
import { StoreError } from '../base/store-error.js';
import {
  BLOCK_BYTES,
  formatBytes,
  heightFor,
  SECTOR_BYTES,
  VDISK_BYTES_MAX,
} from '../base/units.js';
import type { Random } from '../env/random.js';
import { EXTERNAL_HEIGHT, type ExternalDescriptor } from '../layout/external-descriptor.js';
import type { LogEntry } from '../layout/log-entry.js';
import type { VdiskKind, VdiskRecord } from '../layout/vdisk-record.js';
import type { Engine } from '../store/engine.js';
import { cutCost, cutRange, isCutLoaded } from '../store/range-cut.js';
import type { Tree } from '../store/tree.js';
import { prepareDescriptor, putDescriptor, toDescriptorBlocks } from './descriptor-blocks.js';
import { type CountedReads, countReads, holdersOf, InUseError, toInUseHolder } from './in-use.js';
import type { ScanParts } from './scan.js';
import { unloggedOf } from './vdisk.js';
import { checkName, VdiskEntry, type VdiskTable } from './vdisk-table.js';
import type { Writer } from './writer.js';

export interface SnapshotItem {
  readonly vdisk: string;
  readonly snapshot: string;
}

const NOTHING_COUNTED: CountedReads = new Map();

export interface ActsParts extends ScanParts {
  readonly writer: Writer;
}

export class Acts {
  readonly #parts: ActsParts;
  readonly #engine: Engine;
  readonly #table: VdiskTable;
  readonly #writer: Writer;
  readonly #random: Random;

  constructor(parts: ActsParts, table: VdiskTable, random: Random) {
    this.#parts = parts;
    this.#engine = parts.engine;
    this.#table = table;
    this.#writer = parts.writer;
    this.#random = random;
  }

  async create(name: string, sizeBytes: number): Promise<VdiskEntry> {
    checkName(name);
    checkSize(name, sizeBytes);
    await this.#room(4);
    this.#table.checkFree(name);
    const tree = this.#engine.addTree(sizeBytes);
    const entry = this.#addEntry(name, 'vdisk', tree, undefined);
    await this.#log([treeEntry(tree), vdiskEntry(entry)]);
    entry.isVisible = true;
    return entry;
  }

  /** Snapshots of several vdisks, as of one moment. */
  async snapshot(items: readonly SnapshotItem[]): Promise<void> {
    for (const { snapshot } of items) checkName(snapshot);
    await this.#room(4 * items.length);
    const seen = new Set<string>();
    for (const { vdisk, snapshot } of items) {
      const entry = this.#table.get(vdisk);
      if (entry.record.kind !== 'vdisk') {
        const what = entry.record.kind === 'snapshot' ? 'a snapshot already' : 'external';
        throw new StoreError('invalid', `${vdisk} is ${what}: clone it instead`);
      }
      this.#table.checkFree(`${vdisk}@${snapshot}`);
      if (seen.has(`${vdisk}@${snapshot}`)) {
        throw new StoreError('exists', `${vdisk}@${snapshot} is asked for twice`);
      }
      seen.add(`${vdisk}@${snapshot}`);
    }
    const entries: LogEntry[] = [];
    const made = items.map((item) => this.#snapshotOne(item, entries));
    await this.#log(entries);
    for (const entry of made) entry.isVisible = true;
    // The snapshot's content is durable with the next consistency point: let it come now, but
    // answer first.
    void this.#engine.options.clock.yield().then(() => this.#engine.wantConsistencyPoint());
  }

  #snapshotOne(item: SnapshotItem, entries: LogEntry[]): VdiskEntry {
    const engine = this.#engine;
    const vdisk = this.#table.get(item.vdisk);
    const past = vdisk.head;
    const head = engine.addTree(past.sizeBytes);
    engine.trees.noteDirty(past, engine.generation);
    head.backing = past;
    head.readThroughLimitBytes = past.sizeBytes;
    head.ownerId = vdisk.record.id;
    const snapshot = this.#addEntry(item.snapshot, 'snapshot', past, vdisk);
    vdisk.head = head;
    this.#putRecord(vdisk, { ...vdisk.record, headTreeId: head.id });
    entries.push(treeEntry(past), treeEntry(head), vdiskEntry(snapshot), vdiskEntry(vdisk));
    return snapshot;
  }

  async clone(source: string, name: string): Promise<VdiskEntry> {
    checkName(name);
    await this.#room(4);
    const snapshot = this.#table.get(source);
    if (snapshot.record.kind === 'vdisk') {
      throw new StoreError('invalid', `${source} is no snapshot: take one of it, and clone that`);
    }
    this.#table.checkFree(name);
    const backing = snapshot.head;
    const tree = this.#engine.addTree(backing.sizeBytes);
    tree.backing = backing;
    tree.readThroughLimitBytes = backing.sizeBytes;
    const entry = this.#addEntry(name, 'vdisk', tree, undefined);
    await this.#log([treeEntry(tree), vdiskEntry(entry)]);
    entry.isVisible = true;
    return entry;
  }

  /**
   * A disk that stands in files outside of the store. It comes with a consistency point, not with
   * the log: that announces the feature to programs that do not know it, all in one. `open` is
   * called before anybody can find it.
   */
  async createExternal(
    name: string,
    descriptor: ExternalDescriptor,
    open: (tree: Tree) => void,
  ): Promise<VdiskEntry> {
    const engine = this.#engine;
    checkName(name);
    checkSize(name, descriptor.sizeBytes);
    const blocks = toDescriptorBlocks(descriptor);
    await this.#descriptorRoom(blocks.length);
    this.#table.checkFree(name);
    const tree = engine.addExternalTree(descriptor.sizeBytes);
    engine.pool.makeFree(cutCost(tree) + blocks.length);
    putDescriptor(engine, tree, blocks);
    const entry = this.#addEntry(name, 'external', tree, undefined);
    await engine.consistencyPoint();
    open(tree);
    entry.isVisible = true;
    return entry;
  }

  /** The same disk stands in other files, or in files that look different. */
  async redescribe(entry: VdiskEntry, descriptor: ExternalDescriptor): Promise<void> {
    const engine = this.#engine;
    const blocks = toDescriptorBlocks(descriptor);
    await this.#descriptorRoom(blocks.length);
    await prepareDescriptor(engine, entry.head);
    this.#checkThere(entry);
    putDescriptor(engine, entry.head, blocks);
    await engine.consistencyPoint();
  }

  async #descriptorRoom(dataBlocks: number): Promise<void> {
    const engine = this.#engine;
    await engine.bufferRoom();
    // A path from its block to the root, written anew, and the records.
    const demand = { dataBlocks, metaBlocks: 2 * EXTERNAL_HEIGHT + 4 };
    if (engine.medium.hasRoom(demand, 'client')) return;
    if (engine.hasPendingFrees) await engine.consistencyPoint();
    engine.admit(demand.dataBlocks, demand.metaBlocks, 'client');
  }

  async rename(name: string, newName: string): Promise<void> {
    await this.#room(2);
    const entry = this.#table.get(name);
    let last = newName;
    if (entry.of !== undefined) {
      const start = `${entry.of.record.name}@`;
      if (!newName.startsWith(start)) {
        throw new StoreError(
          'invalid',
          `a snapshot stays with its vdisk: ${newName} is not ${start}…`,
        );
      }
      last = newName.slice(start.length);
    }
    checkName(last);
    if (newName === name) return;
    this.#table.checkFree(newName);
    const record = { ...entry.record, name: last };
    this.#table.rename(entry, record);
    this.#putRecord(entry, record);
    await this.#log([vdiskEntry(entry)]);
  }

  async resize(name: string, sizeBytes: number): Promise<void> {
    checkSize(name, sizeBytes);
    const entry = this.#table.get(name);
    const { kind } = entry.record;
    if (kind !== 'vdisk') {
      const what = kind === 'snapshot' ? 'a snapshot' : 'external';
      throw new StoreError('read-only', `${name} is ${what}: its size is fixed`);
    }
    if (sizeBytes < entry.head.sizeBytes) await this.#shrink(entry, sizeBytes);
    else if (sizeBytes > entry.head.sizeBytes) await this.#grow(entry, sizeBytes);
  }

  async #shrink(entry: VdiskEntry, sizeBytes: number): Promise<void> {
    const engine = this.#engine;
    const from = Math.ceil(sizeBytes / BLOCK_BYTES);
    for (let didWait = false; ; ) {
      engine.assertAlive();
      this.#checkThere(entry);
      const tree = entry.head;
      if (sizeBytes >= tree.sizeBytes) return;
      engine.pool.makeFree(cutCost(tree));
      if (!isCutLoaded(engine, tree, from, tree.capacityFbn)) {
        await engine.loader.loadMeta(engine.trees.missVbn, engine.trees.missCrc);
        continue;
      }
      const demand = { dataBlocks: 0, metaBlocks: cutCost(tree) + 2 };
      if (!engine.medium.hasRoom(demand, 'trim')) {
        if (didWait && !engine.hasPendingFrees) throw engine.outOfSpace();
        didWait = true;
        await engine.consistencyPoint();
        continue;
      }
      engine.trees.noteDirty(tree, engine.generation);
      cutRange(engine, tree, from, tree.capacityFbn, 'hole');
      const blocks = tree.capacityFbn - from;
      tree.sizeBytes = sizeBytes;
      tree.readThroughLimitBytes = Math.min(tree.readThroughLimitBytes, sizeBytes);
      const cut = { kind: 'range', treeId: tree.id, fbn: from, blocks, to: 'hole' } as const;
      await this.#log([cut, treeEntry(tree)]);
      return;
    }
  }

  async #grow(entry: VdiskEntry, sizeBytes: number): Promise<void> {
    const engine = this.#engine;
    await this.#clearTail(entry);
    await this.#room(8);
    this.#checkThere(entry);
    const tree = entry.head;
    if (sizeBytes <= tree.sizeBytes) return;
    engine.trees.noteDirty(tree, engine.generation);
    tree.sizeBytes = sizeBytes;
    engine.trees.grow(tree, heightFor(sizeBytes), engine.generation);
    await this.#log([treeEntry(tree)]);
  }

  /** What an earlier shrink left behind the end, in the last block, must not come back. */
  async #clearTail(entry: VdiskEntry): Promise<void> {
    const { sizeBytes } = entry.head;
    const start = Math.floor(sizeBytes / BLOCK_BYTES) * BLOCK_BYTES;
    if (start === sizeBytes) return;
    const target = {
      name: entry.name,
      get head(): Tree {
        return entry.head;
      },
      checkRange: () => this.#checkThere(entry),
    };
    await this.#writer.write(target, sizeBytes, new Uint8Array(start + BLOCK_BYTES - sizeBytes));
    await this.#engine.writer.flush(unloggedOf(entry.head));
  }

  /**
   * Deletes a vdisk or snapshot. With `defer` it goes although others need it: a vdisk together
   * with its snapshots, and a tree that others read through stays, without a name, for as long as
   * they do.
   * @throws {StoreError} InUseError with what the others read, if they are in the way
   */
  async delete(name: string, inUse: 'refuse' | 'defer'): Promise<void> {
    const counted = inUse === 'refuse' ? await this.#countInTheWay(name) : NOTHING_COUNTED;
    // Whatever changed while it counted, what is there now decides.
    const snapshotCount = this.#table.get(name).snapshots.size;
    await this.#room(4 * (1 + snapshotCount), 'release');
    const entry = this.#table.get(name);
    for (const each of [entry, ...entry.snapshots]) checkUnpublished(each);
    if (inUse === 'refuse') this.#checkUnused(entry, counted);
    const entries: LogEntry[] = [];
    // The youngest first: what nobody reads through any more dies at once.
    const snapshots = [...entry.snapshots].sort((a, b) => b.record.id - a.record.id);
    // Nobody will ask for the end of a split that all of these had in common.
    if (entry.of === undefined) for (const { head } of snapshots) head.split = undefined;
    for (const each of [entry, ...snapshots]) this.#deleteOne(each, entries);
    await this.#log(entries);
  }

  /** What a refusal tells beside the names, if one is to be expected. */
  async #countInTheWay(name: string): Promise<CountedReads> {
    const { head, snapshots } = this.#table.get(name);
    if (snapshots.size > 0 || !isInTheWay(head)) return NOTHING_COUNTED;
    return countReads(this.#parts, head, holdersOf(this.#table, head));
  }

  #checkUnused({ name, head, snapshots }: VdiskEntry, counted: CountedReads): void {
    if (snapshots.size > 0) {
      const names = [...snapshots].map((each) => each.name).slice(0, 10);
      throw new StoreError('in-use', `${name} has snapshots: delete ${names.join(', ')} first`);
    }
    if (!isInTheWay(head)) return;
    const holders = holdersOf(this.#table, head).map((each) => toInUseHolder(each, head, counted));
    const orDefer = head.isExternal ? '' : ', or defer: it goes when the last of them lets go';
    throw new InUseError(name, holders, orDefer);
  }

  #deleteOne(entry: VdiskEntry, entries: LogEntry[]): void {
    const engine = this.#engine;
    const tree = entry.head;
    engine.trees.noteDirty(tree, engine.generation);
    tree.state = tree.overCount === 0 ? 'dying' : 'deleting';
    if (tree.state === 'dying') {
      tree.backing = undefined;
      tree.split = undefined;
    }
    tree.ownerId = 0;
    this.#table.remove(entry);
    engine.putVdisk(entry.index, undefined);
    const gone: LogEntry = { kind: 'vdisk', record: { ...entry.record, gone: true } };
    entries.push(treeEntry(tree), gone);
  }

  /** Names of what reads through the tree, directly or behind what has lost its name. */
  holdersOf(tree: Tree): string[] {
    return holdersOf(this.#table, tree).map(({ name }) => name);
  }

  #checkThere(entry: VdiskEntry): void {
    if (entry.gone) throw new StoreError('not-found', `${entry.name} has been deleted`);
  }

  /** Room for the metadata of an act; a full store may have some after a consistency point. */
  async #room(metaBlocks: number, urgency: 'client' | 'release' = 'client'): Promise<void> {
    const engine = this.#engine;
    engine.assertAlive();
    const demand = { dataBlocks: 0, metaBlocks };
    if (engine.medium.hasRoom(demand, urgency)) return;
    if (engine.hasPendingFrees) await engine.consistencyPoint();
    engine.admit(0, metaBlocks, urgency);
  }

  #addEntry(name: string, kind: VdiskKind, head: Tree, of: VdiskEntry | undefined): VdiskEntry {
    const engine = this.#engine;
    const serial = new Uint8Array(16);
    this.#random.fill(serial);
    const record: VdiskRecord = {
      id: engine.nextVdiskId++,
      kind,
      gone: false,
      name,
      headTreeId: head.id,
      ofVdiskId: of?.record.id ?? 0,
      serial,
      createdCp: engine.generation.number,
      createdWallMs: Math.max(0, Math.floor(engine.options.clock.wallMs())),
      certificate: undefined,
      publication: 0,
    };
    const entry = new VdiskEntry(record, engine.vdiskSlots.take(), head);
    entry.of = of;
    head.ownerId = record.id;
    this.#table.add(entry);
    engine.putVdisk(entry.index, record);
    return entry;
  }

  #putRecord(entry: VdiskEntry, record: VdiskRecord): void {
    entry.record = record;
    this.#engine.putVdisk(entry.index, record);
  }

  async #log(entries: LogEntry[]): Promise<void> {
    await this.#engine.logAct(entries);
  }
}

/**
 * A deleted snapshot merges into the one tree over it; an external one has nothing to merge.
 */
function isInTheWay(head: Tree): boolean {
  return head.overCount > (head.isExternal ? 0 : 1);
}

/** Others read it from the records of this store, and would not be asked. */
function checkUnpublished({ name, record }: VdiskEntry): void {
  if (record.publication === 0) return;
  throw new StoreError('in-use', `${name} is published: unpublish it first`);
}

/** Attributes of a tree for the log. Root and counters in it are not looked at. */
export function treeEntry(tree: Tree): LogEntry {
  return { kind: 'tree', record: { ...tree.toRecord(), root: [0, 0, 0, 0] } };
}

function vdiskEntry(entry: VdiskEntry): LogEntry {
  return { kind: 'vdisk', record: entry.record };
}

function checkSize(name: string, sizeBytes: number): void {
  if (
    !Number.isSafeInteger(sizeBytes) ||
    sizeBytes < SECTOR_BYTES ||
    sizeBytes > VDISK_BYTES_MAX ||
    sizeBytes % SECTOR_BYTES !== 0
  ) {
    throw new StoreError(
      'invalid',
      `${name} cannot have ${sizeBytes} bytes: a size is a multiple of ${SECTOR_BYTES}, ` +
        `from ${SECTOR_BYTES} to ${formatBytes(VDISK_BYTES_MAX)}`,
    );
  }
}
