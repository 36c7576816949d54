/**
 * Snapshots that this store publishes: other stores read them from its records, without it.
 *
 * 1. What a published snapshot needs is found by a walk over its trees as of one consistency point,
 *    while no record is deleted, and is pinned from then on: what becomes of those trees later
 *    (a merge, the cleaner, a split) does not matter to who reads them as they were.
 * 2. It is published when the record of the snapshot says so, in a consistency point: whoever takes
 *    the store over knows of it. Only then `ready` is put, without which nobody reads it.
 * 3. It is withdrawn when its record says so no more, durably; that happens only if nobody had a
 *    pin after the try to withdraw could be seen. Records are deleted after that.
 * 4. What a crash leaves is ended at the next open: a publication that no record speaks of is
 *    withdrawn, one that a record speaks of is made ready.
 */
import { isStoreError, StoreError } from '../base/store-error.js';
import type { Random } from '../env/random.js';
import { toHex } from '../layout/bytes.js';
import { FLAG_IN_MEMORY } from '../layout/pointer.js';
import {
  decodeRecordList,
  encodeManifest,
  encodeRecordList,
  type PublishedTree,
  type RecordRun,
} from '../layout/publication.js';
import type { Engine } from '../store/engine.js';
import { getPatiently } from '../store/object-log/chain-walk.js';
import type { ObjectLogMedium } from '../store/object-log/object-log-medium.js';
import { toRuns } from '../store/object-log/published/pinned-records.js';
import {
  idText,
  isFreeId,
  listParts,
  listPublished,
  type PinHolder,
  type PublicationKey,
  partKey,
  putBytes,
  putReady,
  putWithdrawn,
  readPin,
} from '../store/object-log/published/publication-objects.js';
import { addReachedRecords } from '../store/object-log/published/reached-records.js';
import type { Tree } from '../store/tree.js';
import type { VdiskEntry, VdiskTable } from '../vdisk/vdisk-table.js';

/** What others are told of a published snapshot. */
export interface PublicationInfo {
  /** The snapshot, as it is called now. */
  readonly name: string;
  /** As it was called when it was published: what others clone. */
  readonly publishedAs: string;
  readonly id: string;
  readonly sizeBytes: number;
  readonly holders: readonly PinHolder[];
}

export interface WithdrawOptions {
  /**
   * Take the pins of others away first: what they have not read by then they lose. For stores that
   * are gone for good.
   */
  readonly dropHolders?: boolean;
}

/** A withdrawal that is refused: others read through the snapshot. */
class PinnedError extends StoreError {
  readonly pins: readonly PinHolder[];

  constructor(name: string, pins: readonly PinHolder[]) {
    const list = pins.slice(0, 5).map(({ store, name: as }) => `${store} as ${as}`);
    const more = pins.length > 5 ? `, and ${pins.length - 5} more` : '';
    super(
      'in-use',
      `${name} is read by ${pins.length === 1 ? 'another store' : `${pins.length} other stores`} ` +
        `(${list.join(', ')}${more}): split or delete the clones there first`,
    );
    this.pins = pins;
  }
}

/** Longer names make keys that some file systems cannot hold. */
const PUBLISHED_NAME_MAX = 200;
/** So often it is tried to see all trees at rest. */
const CAPTURE_TRIES_MAX = 16;

type Found = ReadonlyMap<number, readonly string[]>;

export class Publisher {
  readonly #engine: Engine;
  readonly #medium: ObjectLogMedium;
  readonly #table: VdiskTable;
  readonly #random: Random;
  /** Publishing and withdrawing, one after the other. */
  #queue: Promise<unknown> = Promise.resolve();
  /** By id: what it is published as. */
  readonly #names = new Map<number, string>();
  #tries = 0;

  constructor(engine: Engine, medium: ObjectLogMedium, table: VdiskTable, random: Random) {
    this.#engine = engine;
    this.#medium = medium;
    this.#table = table;
    this.#random = random;
  }

  /** @throws {StoreError} exists: it is published; invalid, not-found, in-use, device */
  publish(name: string): Promise<void> {
    return this.#inTurn(() => this.#publish(this.#table.get(name)));
  }

  /** @throws {StoreError} invalid: it is not published; in-use (PinnedError); not-found, device */
  withdraw(name: string, options: WithdrawOptions = {}): Promise<void> {
    return this.#inTurn(() => this.#withdraw(this.#table.get(name), options));
  }

  #inTurn(step: () => Promise<void>): Promise<void> {
    const done = this.#queue.then(step);
    this.#queue = done.catch(() => undefined);
    return done;
  }

  /** Everything that is published, and who reads it. @throws {StoreError} device */
  async list(): Promise<PublicationInfo[]> {
    const infos: PublicationInfo[] = [];
    for (const entry of this.#table.all()) {
      const publication = this.#publicationOf(entry);
      if (publication === undefined) continue;
      infos.push({
        name: entry.name,
        publishedAs: publication.name,
        id: idText(publication.id),
        sizeBytes: entry.head.sizeBytes,
        holders: await this.#holdersOf(publication),
      });
    }
    return infos;
  }

  /** What others clone it as; undefined if it is not published. */
  publishedAs(entry: VdiskEntry): string | undefined {
    return this.#publicationOf(entry)?.name;
  }

  #publicationOf({ name, record }: VdiskEntry): PublicationKey | undefined {
    const id = record.publication;
    return id === 0 ? undefined : { id, name: this.#names.get(id) ?? name };
  }

  async #holdersOf(publication: PublicationKey): Promise<PinHolder[]> {
    const { where } = this.#medium;
    const pins = await listParts(where, publication, 'pin');
    const holders = await Promise.all(pins.map((key) => readPin(where, key)));
    return holders.flatMap((holder) => holder ?? []);
  }

  // -- publishing

  async #publish(entry: VdiskEntry): Promise<void> {
    const { name } = entry;
    if (entry.record.kind !== 'snapshot') {
      throw new StoreError('invalid', `${name} is no snapshot: take one of it, and publish that`);
    }
    if (entry.record.publication !== 0 || [...this.#names.values()].includes(name)) {
      throw new StoreError('exists', `a snapshot is published as ${name} already`);
    }
    if (new TextEncoder().encode(name).length > PUBLISHED_NAME_MAX) {
      const what = `the name ${name.slice(0, 40)}… is too long to publish`;
      throw new StoreError('invalid', `${what}: give it one of ${PUBLISHED_NAME_MAX} bytes`);
    }
    checkLineage(entry);
    this.#medium.pins.beginHold();
    const held: Tree[] = [];
    try {
      await this.#publishHeld(entry, held);
    } finally {
      for (const tree of held) tree.holds--;
      this.#medium.unpinned(this.#medium.pins.endHold());
    }
  }

  /** No record is deleted meanwhile. */
  async #publishHeld(entry: VdiskEntry, held: Tree[]): Promise<void> {
    const { where, pins } = this.#medium;
    const captured = await this.#capture(entry, held);
    const records = new Set<number>();
    for (const tree of captured.trees) await addReachedRecords(this.#medium, tree, records);
    const runs = toRuns(records);
    const publication = { name: entry.name, id: await this.#newId() };
    const { uuid } = this.#medium.fsinfo;
    const manifest = encodeManifest({ uuid, name: publication.name, ...captured });
    const put = (part: string, bytes: Uint8Array): Promise<void> =>
      putBytes(where.objects, partKey(where.prefix, publication, part), bytes);
    await put('records', encodeRecordList(uuid, runs));
    await put('manifest', manifest);
    if (entry.gone) {
      await this.#removeObjects(await this.#partsOf(publication));
      throw new StoreError('not-found', `${publication.name} was deleted meanwhile`);
    }
    pins.add(publication.id, runs);
    this.#engine.announcesPublished = true;
    this.#names.set(publication.id, publication.name);
    this.#putPublication(entry, publication.id);
    await this.#engine.consistencyPoint();
    await putReady(where, publication);
  }

  /** The snapshot's trees as of a consistency point that is durable. */
  async #capture(
    entry: VdiskEntry,
    held: Tree[],
  ): Promise<{ sizeBytes: number; cpNumber: number; wallMs: number; trees: PublishedTree[] }> {
    const engine = this.#engine;
    for (let tries = 0; tries < CAPTURE_TRIES_MAX; tries++) {
      await engine.consistencyPoint();
      if (entry.gone) throw new StoreError('not-found', `${entry.name} was deleted meanwhile`);
      checkLineage(entry);
      const lineage = lineageOf(entry.head);
      // What merges into them, or changes them without altering them, waits.
      for (const tree of held.splice(0)) tree.holds--;
      for (const tree of lineage) tree.holds++;
      held.push(...lineage);
      if (!lineage.every((tree) => isAtRest(engine, tree))) continue;
      return {
        sizeBytes: entry.head.sizeBytes,
        cpNumber: engine.medium.fsinfo.cpNumber,
        wallMs: Math.max(0, Math.floor(engine.options.clock.wallMs())),
        trees: lineage.map((tree) => ({
          root: [...tree.root] as [number, number, number, number],
          height: tree.height,
          readThroughLimitBytes: tree.readThroughLimitBytes,
        })),
      };
    }
    const what = `${entry.name}, or a snapshot behind it, is being split or merged`;
    throw new StoreError('in-use', `${what}: publish it when that is done`);
  }

  async #newId(): Promise<number> {
    const bytes = new Uint8Array(4);
    for (;;) {
      this.#random.fill(bytes);
      const id = new DataView(bytes.buffer).getUint32(0);
      if (id !== 0 && !this.#names.has(id) && (await isFreeId(this.#medium.where, id))) return id;
    }
  }

  #putPublication(entry: VdiskEntry, publication: number): void {
    entry.record = { ...entry.record, publication };
    this.#engine.putVdisk(entry.index, entry.record);
    this.#engine.changed();
  }

  // -- withdrawing

  async #withdraw(entry: VdiskEntry, { dropHolders }: WithdrawOptions): Promise<void> {
    const { where, epoch } = this.#medium;
    const publication = this.#publicationOf(entry);
    if (publication === undefined) {
      throw new StoreError('invalid', `${entry.name} is not published`);
    }
    if (dropHolders === true) {
      await where.objects.delete(await listParts(where, publication, 'pin'));
    }
    // Who is there already is told without a trace.
    await this.#refusePinned(publication);
    const nonce = new Uint8Array(16);
    this.#random.fill(nonce);
    const mark = `closing/${epoch}-${++this.#tries}-${toHex(nonce)}`;
    const key = partKey(where.prefix, publication, mark);
    await putBytes(where.objects, key, new TextEncoder().encode('closing\n'));
    try {
      await this.#refusePinned(publication);
    } catch (error) {
      await where.objects.delete([key]);
      throw error;
    }
    this.#putPublication(entry, 0);
    await this.#engine.consistencyPoint();
    this.#names.delete(publication.id);
    await this.#endPublication(publication);
  }

  async #refusePinned(publication: PublicationKey): Promise<void> {
    const holders = await this.#holdersOf(publication);
    if (holders.length > 0) throw new PinnedError(publication.name, holders);
  }

  /** No record speaks of it any more, durably: its objects go, and the dead records it pinned. */
  async #endPublication(publication: PublicationKey): Promise<void> {
    const { pins, where } = this.#medium;
    await putWithdrawn(where, publication.id);
    const runs = pins.remove(publication.id);
    if (runs.length > 0) {
      this.#medium.unpinned(numbersIn(runs));
      // A consistency point looks for the dead among them, and deletes these. It comes only if
      // there is something to write.
      const [any] = this.#table.all();
      if (any !== undefined) this.#engine.trees.noteDirty(any.head, this.#engine.generation);
      await this.#engine.consistencyPoint();
    }
    await this.#removeObjects(await this.#partsOf(publication));
  }

  async #partsOf({ name, id }: PublicationKey): Promise<string[]> {
    const objects = await listPublished(this.#medium.where, name);
    return objects.filter((object) => object.id === id).map(({ key }) => key);
  }

  /** The list of records goes late: after a crash it says what there is to be looked at. */
  async #removeObjects(keys: readonly string[]): Promise<void> {
    const { objects } = this.#medium.where;
    const isLate = (key: string): boolean => key.endsWith('/records');
    await objects.delete(keys.filter((key) => !isLate(key)));
    await objects.delete(keys.filter(isLate));
  }

  // -- opening

  /**
   * Pins the records of all that was published, before anything is deleted. What cannot be read
   * pins everything.
   */
  async pinAll(): Promise<void> {
    const { where, pins, fsinfo } = this.#medium;
    const found = await this.#find();
    for (const [id, keys] of found) {
      const key = keys.find((each) => each.endsWith('/records'));
      const bytes = key === undefined ? undefined : await getPatiently(where.objects, key);
      const runs = bytes === undefined ? undefined : decodeRecordList(fsinfo.uuid, bytes);
      if (runs !== undefined) pins.add(id, runs);
      else if (bytes !== undefined) this.#pinEverything(id);
    }
    for (const { record } of this.#table.all()) {
      const id = record.publication;
      if (id !== 0) this.#engine.announcesPublished = true;
      const isThere = found.get(id)?.some((key) => key.endsWith('/records')) === true;
      if (id !== 0 && !isThere) this.#pinEverything(id);
    }
  }

  #pinEverything(id: number): void {
    this.#medium.pins.add(id, 'all');
    const message =
      `The list of records of publication ${idText(id)} is missing or damaged: ` +
      'no record is deleted until it is withdrawn.';
    this.#engine.options.log({ level: 'error', event: 'publication-damaged', message });
  }

  async #find(): Promise<Found> {
    const found = new Map<number, string[]>();
    for (const { id, name, key } of await listPublished(this.#medium.where)) {
      this.#names.set(id, name);
      found.set(id, [...(found.get(id) ?? []), key]);
    }
    return found;
  }

  /** Ends what a crash has left half done. */
  settle(): Promise<void> {
    return this.#inTurn(() => this.#settle());
  }

  async #settle(): Promise<void> {
    const { where } = this.#medium;
    const published = new Set<number>();
    for (const entry of this.#table.all()) {
      const publication = this.#publicationOf(entry);
      if (publication === undefined) continue;
      published.add(publication.id);
      await putReady(where, publication);
      const tries = await listParts(where, publication, 'closing');
      if (tries.length > 0) await where.objects.delete(tries);
    }
    for (const [id, name] of [...this.#names]) {
      if (published.has(id)) continue;
      await this.#endPublication({ id, name });
      this.#names.delete(id);
    }
  }

  /** Begins to settle; what cannot be done now is left to the next open. */
  settleInBackground(): void {
    this.settle().catch((error: unknown) => {
      if (!isStoreError(error)) this.#engine.fail(error);
      if (this.#engine.failure !== undefined) return;
      const message = `What is left of publications could not be put in order: ${String(error)}`;
      this.#engine.options.log({ level: 'warn', event: 'publication-left', message });
    });
  }

  /** Resolves when nothing is under way. */
  async idle(): Promise<void> {
    await this.#queue;
  }
}

function lineageOf(head: Tree): Tree[] {
  const lineage: Tree[] = [];
  for (let at: Tree | undefined = head; at !== undefined; at = at.backing) lineage.push(at);
  return lineage;
}

/** @throws {StoreError} invalid: others could not read it from the records of this store */
function checkLineage({ name, head }: VdiskEntry): void {
  if (lineageOf(head).at(-1)?.isExternal !== true) return;
  throw new StoreError(
    'invalid',
    `${name} reads through a backing store outside of this store: split its vdisk from that first`,
  );
}

/** What its root names is on the medium, and nothing is being moved out of it. */
function isAtRest(engine: Engine, tree: Tree): boolean {
  const isInMemory = ((tree.root[1] as number) & FLAG_IN_MEMORY) !== 0;
  return engine.isDurable(tree) && !isInMemory && tree.goneBelowFbn === 0;
}

function* numbersIn(runs: readonly RecordRun[]): Generator<number> {
  for (const { first, count } of runs) {
    for (let record = first; record < first + count; record++) yield record;
  }
}
