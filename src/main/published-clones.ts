/**
 * Clones of snapshots that other stores have published, and the pins that keep those there.
 *
 * A clone hangs on an external backing store of its own store, which stands for the published
 * snapshot and is shared by all clones of it here. It comes with the first and goes with the last.
 *
 * 1. The order of coming: the backing store is durable, its pin is put, it is found that the
 *    snapshot is still published, and only then there is a clone. The order of going: that no clone
 *    is left is durable, the pin is deleted, then the backing store. So there is never a clone
 *    without a pin; and never a pin of which this store knows nothing, whenever it crashes.
 * 2. A backing store without clones, which a crash leaves behind, is never used again: it goes.
 * 3. Its pin has the tree's id, which no other has: what an earlier server of this store sends late
 *    cannot harm the pin of another.
 */
import { isStoreError, StoreError } from '../base/store-error.js';
import { toHex } from '../layout/bytes.js';
import type { Engine } from '../store/engine.js';
import {
  idText,
  isPublished,
  listPublished,
  partKey,
  pinText,
  putBytes,
  readManifest,
  type StorePrefix,
} from '../store/object-log/published/publication-objects.js';
import type { Tree } from '../store/tree.js';
import type { Acts } from '../vdisk/acts.js';
import type { VdiskEntry, VdiskTable } from '../vdisk/vdisk-table.js';
import type { ExternalCatalog } from './external-catalog.js';
import {
  describePublished,
  type PublishedAddress,
  type PublishedSource,
  publishedOf,
  type ReachStore,
} from './published-store.js';

export interface PublishedClonesParts {
  readonly engine: Engine;
  readonly table: VdiskTable;
  readonly acts: Acts;
  readonly catalog: ExternalCatalog;
  readonly reach: ReachStore;
}

export class PublishedClones {
  readonly #parts: PublishedClonesParts;
  /** Clones that are on their way, by the tree that they will hang on. */
  readonly #coming = new Map<Tree, number>();
  readonly #ending = new Map<Tree, Promise<void>>();
  /** Making and finding of backing stores, one after the other. */
  #queue: Promise<unknown> = Promise.resolve();
  #stopped = false;

  constructor(parts: PublishedClonesParts) {
    this.#parts = parts;
  }

  /** A clone of what another store has published. @throws {StoreError} not-found, invalid, … */
  async clone({ store, name }: PublishedAddress, cloneName: string): Promise<VdiskEntry> {
    const { acts, reach } = this.#parts;
    const place = await reach(store);
    const id = await this.#find(place, store, name);
    const head = await this.#inTurn(async () => {
      const known = this.#headOf({ store, name, id });
      if (known !== undefined && !this.#ending.has(known)) return this.#begin(known);
      return this.#hold(place, { store, name, id });
    });
    try {
      return await acts.clone(this.#entryOf(head).name, cloneName);
    } finally {
      this.#end(head);
    }
  }

  /** Another clone of a backing store that is here. @throws {StoreError} not-found: it is going */
  async cloneHeld(entry: VdiskEntry, cloneName: string): Promise<VdiskEntry> {
    const { head, name } = entry;
    if (this.#ending.has(head)) throw new StoreError('not-found', `${name} is being let go`);
    this.#begin(head);
    try {
      return await this.#parts.acts.clone(name, cloneName);
    } finally {
      this.#end(head);
    }
  }

  /** Lets go of those that no clone is left of. Tried again with every consistency point. */
  wake(): void {
    if (this.#stopped) return;
    for (const tree of this.#parts.catalog.published()) {
      if (tree.overCount > 0 || this.#coming.has(tree) || this.#ending.has(tree)) continue;
      const ended = this.#letGo(tree)
        .catch((error: unknown) => this.#tellFailure(error))
        .finally(() => this.#ending.delete(tree));
      this.#ending.set(tree, ended);
    }
  }

  /** Resolves when nothing is on its way out. */
  async idle(): Promise<void> {
    this.wake();
    await Promise.all(this.#ending.values());
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#ending.values());
  }

  #begin(tree: Tree): Tree {
    this.#coming.set(tree, (this.#coming.get(tree) ?? 0) + 1);
    return tree;
  }

  #end(tree: Tree): void {
    const left = (this.#coming.get(tree) ?? 1) - 1;
    if (left > 0) this.#coming.set(tree, left);
    else this.#coming.delete(tree);
    this.wake();
  }

  #inTurn<T>(step: () => Promise<T>): Promise<T> {
    const done = this.#queue.then(step);
    this.#queue = done.catch(() => undefined);
    return done;
  }

  /** The id under which it is published. @throws {StoreError} not-found */
  async #find(place: StorePrefix, store: string, name: string): Promise<number> {
    const objects = await listPublished(place, name);
    const ids = objects.filter(({ part }) => part === 'ready').map(({ id }) => id);
    const id = ids.at(-1);
    if (id !== undefined) return id;
    const next = `publish it there first: keiki publish ${name}`;
    throw new StoreError('not-found', `${store} has not published ${name}; ${next}`);
  }

  #headOf({ store, name, id }: PublishedSource): Tree | undefined {
    for (const tree of this.#parts.catalog.published()) {
      const source = publishedOf(this.#parts.catalog.descriptorOf(tree));
      if (source?.store === store && source.name === name && source.id === id) return tree;
    }
    return undefined;
  }

  #entryOf(tree: Tree): VdiskEntry {
    const entry = this.#parts.table.byId(tree.ownerId);
    if (entry !== undefined) return entry;
    throw new StoreError('not-found', 'the backing store of the clone was deleted meanwhile');
  }

  /** Makes the backing store, and pins the snapshot. */
  async #hold(place: StorePrefix, source: PublishedSource): Promise<Tree> {
    const { engine, acts, catalog } = this.#parts;
    const { manifest, bytes } = await readManifest(place, source);
    if (Buffer.compare(manifest.uuid, engine.medium.fsinfo.uuid) === 0) {
      const message = `${source.store} is this store itself: clone ${source.name}`;
      throw new StoreError('invalid', message);
    }
    const descriptor = describePublished(source, manifest, bytes);
    // With the consistency point that brings it.
    engine.announcesPublished = true;
    const entry = await acts.createExternal(this.#freeName(source), descriptor, (tree) => {
      this.#begin(tree);
      catalog.begin(tree, descriptor);
    });
    const { head } = entry;
    try {
      const holder = { store: engine.medium.name, name: entry.name };
      await putBytes(place.objects, this.#pinKey(place, source, head), pinText(holder));
      if (await isPublished(place, source)) return head;
      throw new StoreError('not-found', `${source.name} is being withdrawn from ${source.store}`);
    } catch (error) {
      this.#end(head);
      throw error;
    }
  }

  /** `golden-v1-00c0ffee`: what it is a snapshot of, and under which id it is published. */
  #freeName({ name, id }: PublishedSource): string {
    const start = `${name.replace('@', '-')}-${idText(id)}`;
    for (let count = 1; ; count++) {
      const text = count === 1 ? start : `${start}-${count}`;
      if (this.#parts.table.isFree(text)) return text;
    }
  }

  #pinKey({ prefix }: StorePrefix, source: PublishedSource, { id }: Tree): string {
    const uuid = toHex(this.#parts.engine.medium.fsinfo.uuid);
    return partKey(prefix, source, `pin/${uuid}-${id}`);
  }

  async #letGo(tree: Tree): Promise<void> {
    const { engine, acts, catalog, reach } = this.#parts;
    // Whoever is called from the end of a consistency point lets it end first.
    await Promise.resolve();
    const entry = this.#entryOf(tree);
    const source = publishedOf(catalog.descriptorOf(tree));
    // What let go of it may not be durable yet: after a crash it would read through it again.
    await engine.consistencyPoint();
    if (source !== undefined) {
      const place = await reach(source.store);
      await place.objects.delete([this.#pinKey(place, source, tree)]);
    }
    await acts.delete(entry.name, 'refuse');
    await catalog.end(tree);
  }

  #tellFailure(error: unknown): void {
    const { engine } = this.#parts;
    if (!isStoreError(error)) {
      engine.fail(error);
      return;
    }
    if (engine.failure !== undefined || this.#stopped) return;
    const message = `A pin on a published snapshot could not be given back: ${error.message}`;
    engine.options.log({ level: 'warn', event: 'pin-kept', message: `${message}.` });
  }
}
