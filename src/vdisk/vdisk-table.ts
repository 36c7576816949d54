/**
 * Vdisks and snapshots by name and by id, with the place of each record in the vdisk file.
 *
 * 1. A name is found only when the act that gave it is durable; until then it is taken all the
 *    same.
 * 2. `golden@v1` is snapshot v1 of vdisk golden.
 */
import { StoreError } from '../base/store-error.js';
import { NAME_BYTES_MAX, type VdiskRecord } from '../layout/vdisk-record.js';
import type { Engine } from '../store/engine.js';
import type { VdiskSink } from '../store/recovery.js';
import type { Tree } from '../store/tree.js';

export class VdiskEntry {
  record: VdiskRecord;
  readonly index: number;
  head: Tree;
  /** The act that made it is durable. */
  isVisible = false;
  gone = false;
  /** Snapshot: the vdisk whose past it is. */
  of: VdiskEntry | undefined;
  readonly snapshots = new Set<VdiskEntry>();

  constructor(record: VdiskRecord, index: number, head: Tree) {
    this.record = record;
    this.index = index;
    this.head = head;
  }

  get name(): string {
    return this.of === undefined ? this.record.name : `${this.of.record.name}@${this.record.name}`;
  }
}

const NAME_PATTERN = /^[A-Za-z0-9_][A-Za-z0-9_.:+-]*$/;

/** @throws {StoreError} invalid if a vdisk or snapshot cannot have this name */
export function checkName(name: string): void {
  if (new TextEncoder().encode(name).length > NAME_BYTES_MAX || !NAME_PATTERN.test(name)) {
    throw new StoreError(
      'invalid',
      `"${name.slice(0, 80)}" is no name: use up to ${NAME_BYTES_MAX} of A-Z a-z 0-9 _ . : + -, ` +
        'the first a letter, a digit or _',
    );
  }
}

export class VdiskTable {
  readonly #byId = new Map<number, VdiskEntry>();
  readonly #byName = new Map<string, VdiskEntry>();

  add(entry: VdiskEntry): void {
    this.#byId.set(entry.record.id, entry);
    entry.of?.snapshots.add(entry);
    this.#byName.set(entry.name, entry);
  }

  remove(entry: VdiskEntry): void {
    entry.gone = true;
    this.#byId.delete(entry.record.id);
    this.#byName.delete(entry.name);
    entry.of?.snapshots.delete(entry);
  }

  rename(entry: VdiskEntry, record: VdiskRecord): void {
    const moved = [entry, ...entry.snapshots];
    for (const each of moved) this.#byName.delete(each.name);
    entry.record = record;
    for (const each of moved) this.#byName.set(each.name, each);
  }

  isFree(name: string): boolean {
    return !this.#byName.has(name);
  }

  /** @throws {StoreError} exists */
  checkFree(name: string): void {
    if (!this.isFree(name)) throw new StoreError('exists', `${name} exists already`);
  }

  /** @throws {StoreError} not-found */
  get(name: string): VdiskEntry {
    const entry = this.#byName.get(name);
    if (entry?.isVisible === true) return entry;
    const kind = name.includes('@') ? 'snapshot' : 'vdisk';
    throw new StoreError('not-found', `there is no ${kind} ${name}`);
  }

  byId(id: number): VdiskEntry | undefined {
    return this.#byId.get(id);
  }

  /** Everything that can be seen, in order of names. */
  all(): VdiskEntry[] {
    return [...this.#byName.entries()]
      .filter(([, entry]) => entry.isVisible)
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([, entry]) => entry);
  }

  get size(): number {
    return this.#byId.size;
  }
}

/** Collects the records that recovery finds, then builds the table. */
export class RecordCollector implements VdiskSink {
  readonly #engine: Engine;
  readonly #records = new Map<number, { index: number; record: VdiskRecord }>();

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  put(index: number | undefined, record: VdiskRecord): void {
    const known = this.#records.get(record.id);
    if (index !== undefined) {
      this.#records.set(record.id, { index, record });
      return;
    }
    const place = known?.index ?? this.#engine.vdiskSlots.take();
    this.#records.set(record.id, { index: place, record });
    this.#engine.putVdisk(place, record);
  }

  remove(id: number): void {
    const known = this.#records.get(id);
    if (known === undefined) return;
    this.#records.delete(id);
    this.#engine.putVdisk(known.index, undefined);
  }

  toTable(): VdiskTable {
    const table = new VdiskTable();
    const entries: VdiskEntry[] = [];
    for (const { index, record } of this.#records.values()) {
      const head = this.#engine.table.get(record.headTreeId);
      if (head === undefined) {
        throw new StoreError(
          'corrupt',
          `vdisk record ${record.id} (${record.name}) names tree ${record.headTreeId}, ` +
            'which is missing; run a check of the store',
        );
      }
      entries.push(new VdiskEntry(record, index, head));
    }
    const byId = new Map(entries.map((entry) => [entry.record.id, entry]));
    for (const entry of entries) {
      entry.of = byId.get(entry.record.ofVdiskId);
      entry.isVisible = true;
    }
    for (const entry of entries) table.add(entry);
    return table;
  }
}
