/** A vdisk or snapshot as its clients see it: the block target over an entry of the table. */
import { StoreError } from '../base/store-error.js';
import type { Engine } from '../store/engine.js';
import type { Tree } from '../store/tree.js';
import { blockStatus } from './block-status.js';
import type { BlockTarget, Extent, WriteOptions } from './block-target.js';
import type { ClientLoad } from './client-load.js';
import type { Reader } from './reader.js';
import type { VdiskEntry } from './vdisk-table.js';
import type { Writer } from './writer.js';

export interface VdiskParts {
  readonly engine: Engine;
  readonly reader: Reader;
  readonly writer: Writer;
  readonly load: ClientLoad;
}

export class Vdisk implements BlockTarget {
  readonly #parts: VdiskParts;
  readonly #entry: VdiskEntry;

  constructor(parts: VdiskParts, entry: VdiskEntry) {
    this.#parts = parts;
    this.#entry = entry;
  }

  get name(): string {
    return this.#entry.name;
  }

  get sizeBytes(): number {
    return this.#entry.head.sizeBytes;
  }

  get readOnly(): boolean {
    return this.#entry.record.kind !== 'vdisk';
  }

  /** The tree that takes the vdisk's writes now. */
  get head(): Tree {
    return this.#entry.head;
  }

  checkRange(offset: number, length: number): void {
    if (this.#entry.gone) {
      throw new StoreError('not-found', `${this.#entry.name} has been deleted`);
    }
    const size = this.sizeBytes;
    const isRange = Number.isSafeInteger(offset) && Number.isSafeInteger(length);
    if (!isRange || offset < 0 || length < 0 || offset + length > size) {
      throw new StoreError(
        'invalid',
        `bytes ${offset} to ${offset + length} are not within the ${size} bytes of ${this.name}`,
      );
    }
  }

  #checkWrite(offset: number, length: number): void {
    this.checkRange(offset, length);
    if (!this.readOnly) return;
    const what = this.#entry.record.kind === 'snapshot' ? 'a snapshot' : 'external: clone it';
    throw new StoreError('read-only', `${this.name} is ${what}`);
  }

  read(offset: number, into: Uint8Array): void | Promise<void> {
    this.checkRange(offset, into.length);
    const { reader, load } = this.#parts;
    if (!load.isWatched) return this.#confirm(reader.read(this, offset, into));
    return load.count(load.clock.nowMs(), this.#confirm(reader.read(this, offset, into)));
  }

  /** What was read is answered when it is sure that nobody else has written meanwhile. */
  #confirm(done: void | Promise<void>): void | Promise<void> {
    const { medium } = this.#parts.engine;
    if (!(done instanceof Promise)) return medium.readsConfirmed();
    return done.then(() => medium.readsConfirmed());
  }

  write(offset: number, data: Uint8Array, options?: WriteOptions): void | Promise<void> {
    this.#checkWrite(offset, data.length);
    const { writer, load } = this.#parts;
    if (!load.isWatched) return this.#finish(writer.write(this, offset, data), options);
    const startMs = load.clock.nowMs();
    return load.count(startMs, this.#finish(writer.write(this, offset, data), options));
  }

  trim(offset: number, length: number, options?: WriteOptions): void | Promise<void> {
    return this.writeZeroes(offset, length, options);
  }

  writeZeroes(offset: number, length: number, options?: WriteOptions): void | Promise<void> {
    this.#checkWrite(offset, length);
    const { writer, load } = this.#parts;
    if (!load.isWatched) return this.#finish(writer.zero(this, offset, length), options);
    const startMs = load.clock.nowMs();
    return load.count(startMs, this.#finish(writer.zero(this, offset, length), options));
  }

  #finish(done: void | Promise<void>, options: WriteOptions | undefined): void | Promise<void> {
    if (options?.fua !== true) return done;
    return this.#thenFlush(done);
  }

  async #thenFlush(done: void | Promise<void>): Promise<void> {
    await done;
    await this.flush();
  }

  async flush(): Promise<void> {
    this.checkRange(0, 0);
    const { engine, load } = this.#parts;
    engine.assertAlive();
    const startMs = load.clock.nowMs();
    const done = engine.writer.flush(unloggedOf(this.#entry.head));
    await (load.isWatched ? load.count(startMs, done) : done);
  }

  async blockStatus(offset: number, length: number, extentsMax?: number): Promise<Extent[]> {
    this.checkRange(offset, length);
    const extents = await blockStatus(this.#parts, this, { offset, length, extentsMax });
    await this.#parts.engine.medium.readsConfirmed();
    return extents;
  }
}

/**
 * The trees of the lineage that have writes which are not in the log. A clone's FLUSH covers what
 * it reads through, too: its client relies on bytes that it has seen.
 */
export function unloggedOf(head: Tree): Tree[] {
  const trees: Tree[] = [];
  for (let tree: Tree | undefined = head; tree !== undefined; tree = tree.backing) {
    if (tree.unlogged !== undefined || tree.unloggedOld !== undefined) trees.push(tree);
  }
  return trees;
}
