/**
 * Opening: the records of all trees and vdisks, then the log since the last consistency point.
 *
 * 1. Before anything is applied, every VBN that the log names is marked as in use.
 * 2. Entries are applied in order, each once, to the tree of the last consistency point; batches of
 *    generations that it holds already are skipped.
 * 3. What the applied entries need is loaded for many of them at a time: the log of 32,000 small
 *    writes must not cost 32,000 waits.
 * 4. No consistency point runs before the last entry is applied: it would empty a log of which a
 *    part is still to come. Data is placed as it is applied, so that it needs no memory.
 */
import { invariant } from '../base/invariant.js';
import { isStoreError, StoreError } from '../base/store-error.js';
import { heightFor } from '../base/units.js';
import type { LogEntry } from '../layout/log-entry.js';
import type { BlockTag } from '../layout/log-record.js';
import { FLAG_IN_MEMORY, putPointer, vbnAt } from '../layout/pointer.js';
import {
  decodeTreeRecord,
  type SplitRecord,
  TREE_RECORD_BYTES,
  TREE_RECORDS_PER_BLOCK,
  type TreeRecord,
} from '../layout/tree-record.js';
import {
  decodeVdiskRecord,
  VDISK_RECORD_BYTES,
  VDISK_RECORDS_PER_BLOCK,
  type VdiskRecord,
} from '../layout/vdisk-record.js';
import { WALK_FIELD } from './buffer-tree.js';
import type { Engine } from './engine.js';
import { cutRange, isCutLoaded } from './range-cut.js';
import type { Tree } from './tree.js';

/** What recovery tells whoever keeps names: every vdisk record, with its place. */
export interface VdiskSink {
  put(index: number | undefined, record: VdiskRecord): void;
  remove(id: number): void;
}

export interface RecoveryReport {
  readonly batches: number;
  readonly entries: number;
  readonly blocks: number;
}

/** Entries that are loaded for together. */
const WINDOW_ENTRIES = 2048;
/** Windows whose data may be under way to the medium at once: 16 MiB. */
const WINDOWS_IN_FLIGHT = 2;

// -- records

export async function loadRecords(engine: Engine, sink: VdiskSink): Promise<void> {
  const { tree, vdisk } = engine.metafiles;
  const records: { index: number; record: TreeRecord }[] = [];
  await forEachRecord(engine, tree, TREE_RECORDS_PER_BLOCK, TREE_RECORD_BYTES, (index, bytes) => {
    const record = decodeTreeRecord(bytes);
    if (record === undefined) throw badRecord(engine, 'tree', index);
    if (record !== 'free') records.push({ index, record });
  });
  for (const { index, record } of records) addTree(engine, index, record);
  for (const { record } of records) link(engine, record);
  engine.treeSlots.restore(records.map(({ index }) => index));
  const vdisks: number[] = [];
  await forEachRecord(
    engine,
    vdisk,
    VDISK_RECORDS_PER_BLOCK,
    VDISK_RECORD_BYTES,
    (index, bytes) => {
      const record = decodeVdiskRecord(bytes);
      if (record === undefined) throw badRecord(engine, 'vdisk', index);
      if (record === 'free') return;
      vdisks.push(index);
      sink.put(index, record);
    },
  );
  engine.vdiskSlots.restore(vdisks);
}

function badRecord(engine: Engine, kind: string, index: number): StoreError {
  return new StoreError(
    'corrupt',
    `${kind} record ${index} of ${engine.medium.name} makes no sense; run a check of the store`,
  );
}

/** Calls for every record slot of a metafile, up to its last block that is no hole. */
async function forEachRecord(
  engine: Engine,
  file: Tree,
  perBlock: number,
  recordBytes: number,
  visit: (index: number, bytes: Uint8Array) => void,
): Promise<void> {
  let holes = 0;
  // Blocks are taken from the start, so a stretch of holes longer than one level-1 block is the
  // end.
  for (let fbn = 0; fbn < file.capacityFbn && holes <= 256; fbn++) {
    const buffer = await engine.editor.load(file, fbn);
    if (buffer < 0) {
      holes++;
      continue;
    }
    holes = 0;
    const bytes = engine.pool.bytes(buffer);
    for (let index = 0; index < perBlock; index++) {
      visit(fbn * perBlock + index, bytes.subarray(index * recordBytes, (index + 1) * recordBytes));
    }
  }
}

function addTree(engine: Engine, index: number, record: TreeRecord): Tree {
  const tree = engine.table.add(record.id, index, record.sizeBytes);
  tree.height = record.height;
  tree.root.set(record.root);
  tree.mappedBlocks = record.mappedBlocks;
  tree.sharedBlocks = record.sharedBlocks;
  tree.goneBelowFbn = record.goneBelowFbn;
  tree.isExternal = record.isExternal;
  if (record.isExternal) engine.externals.add(tree);
  setAttributes(tree, record);
  tree.split =
    record.split === undefined ? undefined : { ...record.split, bad: [...record.split.bad] };
  return tree;
}

function setAttributes(tree: Tree, record: TreeRecord): void {
  tree.state = record.state;
  tree.sizeBytes = record.sizeBytes;
  tree.readThroughLimitBytes = record.readThroughLimitBytes;
  tree.ownerId = record.ownerId;
  tree.countedById = record.countedById;
}

/** How far the split is, the last consistency point says: it came with the fills. */
function setSplit(tree: Tree, logged: SplitRecord | undefined): void {
  const known = tree.split;
  const goesOn =
    logged !== undefined &&
    known !== undefined &&
    (logged.phase === 'undoing') === (known.phase === 'undoing');
  if (logged === undefined) {
    tree.split = undefined;
    return;
  }
  // What it had filled since is not there: it may be far from its end again.
  const phase = logged.phase === 'releasing' ? 'filling' : logged.phase;
  const { positionFbn, bad } = goesOn ? known : { positionFbn: 0, bad: [] };
  tree.split = { ...logged, phase, positionFbn, bad };
}

function link(engine: Engine, record: TreeRecord): void {
  const tree = engine.table.get(record.id);
  const backing = record.backingId === 0 ? undefined : engine.table.get(record.backingId);
  if (tree === undefined || (record.backingId !== 0 && backing === undefined)) {
    throw new StoreError(
      'corrupt',
      `tree ${record.id} of ${engine.medium.name} reads through tree ${record.backingId}, ` +
        'which is missing; run a check of the store',
    );
  }
  tree.backing = backing;
}

// -- log

/** Applies the log; leaves everything dirty in the generation, for a consistency point. */
export async function replayLog(engine: Engine, sink: VdiskSink): Promise<RecoveryReport> {
  const durable = engine.medium.fsinfo.cpNumber;
  let highest = durable;
  const vbns: number[] = [];
  for await (const batch of engine.medium.recover('survey')) {
    highest = Math.max(highest, batch.cpNumber);
    if (batch.cpNumber <= durable) continue;
    for (const entry of batch.entries) noteIds(engine, entry, vbns);
  }
  if (highest === durable) return { batches: 0, entries: 0, blocks: 0 };
  // Later than anything in the log, and in the slot that the last consistency point is not in.
  const number = (highest + 1 - durable) % 2 === 1 ? highest + 1 : highest + 2;
  engine.generation = engine.newGeneration(number);
  await engine.medium.reclaim(vbns, engine.generation);
  const replay = new Replay(engine, sink);
  for await (const batch of engine.medium.recover('apply')) {
    if (batch.cpNumber > durable) await replay.add(batch.entries, batch.payload);
  }
  return replay.finish();
}

function noteIds(engine: Engine, entry: LogEntry, vbns: number[]): void {
  if (entry.kind === 'pointers') {
    for (let index = 0; index < entry.crcs.length; index++) vbns.push(entry.vbn + index);
  } else if (entry.kind === 'tree') {
    engine.nextTreeId = Math.max(engine.nextTreeId, entry.record.id + 1);
  } else if (entry.kind === 'vdisk') {
    engine.nextVdiskId = Math.max(engine.nextVdiskId, entry.record.id + 1);
  }
}

interface Pending {
  readonly entry: LogEntry;
  readonly payload: Uint8Array | undefined;
}

interface PlacedData {
  readonly index: number;
  readonly entry: Extract<LogEntry, { kind: 'data' }>;
  readonly payload: Uint8Array;
}

class Replay {
  readonly #engine: Engine;
  readonly #sink: VdiskSink;
  #window: Pending[] = [];
  #batches = 0;
  #entries = 0;
  #blocks = 0;
  readonly #writes: Promise<void>[] = [];

  constructor(engine: Engine, sink: VdiskSink) {
    this.#engine = engine;
    this.#sink = sink;
  }

  async add(entries: readonly LogEntry[], payload: (index: number) => Uint8Array): Promise<void> {
    this.#batches++;
    for (const entry of entries) {
      this.#window.push({
        entry,
        payload: entry.kind === 'data' ? payload(entry.payloadIndex) : undefined,
      });
    }
    if (this.#window.length >= WINDOW_ENTRIES) await this.#applyWindow();
  }

  async finish(): Promise<RecoveryReport> {
    await this.#applyWindow();
    await Promise.all(this.#writes);
    return { batches: this.#batches, entries: this.#entries, blocks: this.#blocks };
  }

  async #applyWindow(): Promise<void> {
    const window = this.#window;
    this.#window = [];
    await this.#preload(window);
    const vbns = await this.#placeData(window);
    for (let index = 0; index < window.length; index++) {
      const { entry, payload } = window[index] as Pending;
      this.#entries++;
      // Nearly always loaded by now; an act before this entry may have changed what it needs.
      this.#makeFree(entry);
      while (!this.#isLoaded(entry)) {
        await this.#loadMissing();
        this.#makeFree(entry);
      }
      const vbn = vbns.get(index);
      if (vbn === undefined) this.#apply(entry, payload);
      else this.#applyPlaced(entry, vbn);
    }
  }

  /**
   * Places the window's data, in order of tree and FBN.
   * @returns VBNs by index in the window; none if there is no room to spare: a block that the log
   *   holds several times would be placed several times, and only dirty buffers were promised room
   */
  async #placeData(window: readonly Pending[]): Promise<Map<number, number>> {
    const { medium } = this.#engine;
    const placed = new Map<number, number>();
    const data: PlacedData[] = [];
    window.forEach(({ entry, payload }, index) => {
      if (entry.kind === 'data' && payload !== undefined) data.push({ index, entry, payload });
    });
    const demand = { dataBlocks: data.length, metaBlocks: data.length };
    if (data.length === 0 || !medium.hasRoom(demand, 'client')) return placed;
    try {
      while (!medium.isReady('data', data.length)) await medium.prepare('data', data.length);
    } catch (error) {
      if (isStoreError(error, 'out-of-space')) return placed;
      throw error;
    }
    data.sort((a, b) => a.entry.treeId - b.entry.treeId || a.entry.fbn - b.entry.fbn);
    const tags = data.map(({ entry: { treeId, fbn, crc } }): BlockTag => {
      return { treeId, fbn, level: 0, crc, kind: 'data' };
    });
    const blocks = data.map(({ payload }) => payload);
    const { vbns, written } = medium.place('data', blocks, tags);
    data.forEach(({ index }, at) => {
      placed.set(index, vbns[at] as number);
    });
    written.catch(() => undefined);
    this.#writes.push(written);
    if (this.#writes.length > WINDOWS_IN_FLIGHT) await this.#writes.shift();
    return placed;
  }

  async #preload(window: readonly Pending[]): Promise<void> {
    const { loader, trees } = this.#engine;
    for (;;) {
      const loads = new Map<number, Promise<void>>();
      for (const { entry } of window) {
        if (this.#isLoaded(entry) || loads.has(trees.missVbn)) continue;
        loads.set(trees.missVbn, loader.loadMeta(trees.missVbn, trees.missCrc));
      }
      if (loads.size === 0) return;
      await Promise.all(loads.values());
    }
  }

  #makeFree(entry: LogEntry): void {
    this.#engine.pool.makeFree(entry.kind === 'pointers' ? 64 : 32);
  }

  #loadMissing(): Promise<void> {
    const { loader, trees } = this.#engine;
    return loader.loadMeta(trees.missVbn, trees.missCrc);
  }

  #isLoaded(entry: LogEntry): boolean {
    const { table, trees, generation } = this.#engine;
    if (entry.kind === 'tree' || entry.kind === 'vdisk') return true;
    const tree = table.get(entry.treeId);
    if (tree === undefined) return true;
    if (entry.kind === 'range') {
      return isCutLoaded(this.#engine, tree, entry.fbn, entry.fbn + entry.blocks);
    }
    const count = entry.kind === 'data' ? 1 : entry.crcs.length;
    for (let fbn = entry.fbn; fbn < entry.fbn + count; fbn += 256 - (fbn % 256)) {
      if (fbn >= tree.capacityFbn) return true;
      if (trees.pathCost(tree, fbn, generation.number) < 0) return false;
    }
    return true;
  }

  #apply(entry: LogEntry, payload: Uint8Array | undefined): void {
    switch (entry.kind) {
      case 'tree':
        this.#applyTree(entry.record);
        return;
      case 'vdisk':
        if (entry.record.gone) this.#sink.remove(entry.record.id);
        else this.#sink.put(undefined, entry.record);
        return;
      case 'data':
        invariant(payload !== undefined, 'a data entry has its payload');
        this.#applyData(this.#tree(entry.treeId), entry.fbn, payload);
        return;
      case 'pointers': {
        const tree = this.#tree(entry.treeId);
        entry.crcs.forEach((crc, index) => {
          this.#applyPointer(tree, entry.fbn + index, entry.vbn + index, crc);
        });
        return;
      }
      case 'range':
        cutRange(
          this.#engine,
          this.#tree(entry.treeId),
          entry.fbn,
          entry.fbn + entry.blocks,
          entry.to,
        );
    }
  }

  #tree(id: number): Tree {
    const tree = this.#engine.table.get(id);
    if (tree !== undefined) return tree;
    throw new StoreError(
      'corrupt',
      `the log of ${this.#engine.medium.name} names tree ${id}, which is missing`,
    );
  }

  #applyTree(record: TreeRecord): void {
    const engine = this.#engine;
    let tree = engine.table.get(record.id);
    if (tree === undefined) {
      tree = engine.table.add(record.id, engine.treeSlots.take(), record.sizeBytes);
    }
    engine.trees.noteDirty(tree, engine.generation);
    setAttributes(tree, record);
    engine.trees.grow(
      tree,
      Math.max(record.height, heightFor(record.sizeBytes)),
      engine.generation,
    );
    setSplit(tree, record.split);
    link(engine, record);
  }

  #applyPlaced(entry: LogEntry, vbn: number): void {
    invariant(entry.kind === 'data', 'only data is placed in recovery');
    const { generation, medium } = this.#engine;
    this.#putPointer(this.#tree(entry.treeId), entry.fbn, vbn, entry.crc);
    medium.adopt(vbn, 'data', generation);
  }

  #applyData(tree: Tree, fbn: number, payload: Uint8Array): void {
    const { trees, pool, generation } = this.#engine;
    trees.dirtyPath(tree, fbn, generation);
    const buffer = pool.take();
    pool.bytes(buffer).set(payload);
    trees.putData(tree, buffer, generation, false);
    this.#blocks++;
  }

  #applyPointer(tree: Tree, fbn: number, vbn: number, crc: number): void {
    const { trees, generation, medium } = this.#engine;
    if (trees.walk(tree, fbn) === WALK_FIELD) {
      const words = trees.fieldWords;
      const at = trees.fieldAt;
      const inMemory = ((words[at + 1] as number) & FLAG_IN_MEMORY) !== 0;
      // The consistency point had it already.
      if (!inMemory && vbnAt(words, at) === vbn) return;
    }
    this.#putPointer(tree, fbn, vbn, crc);
    medium.claim(vbn, generation);
  }

  #putPointer(tree: Tree, fbn: number, vbn: number, crc: number): void {
    const { trees, generation } = this.#engine;
    trees.dirtyPath(tree, fbn, generation);
    if (!trees.letGoField(tree, trees.fieldWords, trees.fieldAt, generation)) tree.mappedBlocks++;
    putPointer(trees.fieldWords, trees.fieldAt, vbn, crc, 0);
    this.#blocks++;
  }
}
