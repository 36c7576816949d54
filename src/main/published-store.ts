/**
 * A snapshot that another store has published, as external backing store: which one it is, as
 * people write it and as a descriptor keeps it, and reading it.
 *
 * 1. That store's server is not asked: it may be down.
 * 2. The manifest is read when it is first needed, and has to be the one that was described. After
 *    a failure the next call tries anew.
 */
import { crc32 } from '../base/checksum.js';
import { isStoreError, StoreError } from '../base/store-error.js';
import { BLOCK_BYTES } from '../base/units.js';
import type { LogSink } from '../env/log-sink.js';
import type { ExternalDescriptor } from '../layout/external-descriptor.js';
import type { Manifest } from '../layout/publication.js';
import {
  idText,
  type PublicationKey,
  readManifest,
  type StorePrefix,
} from '../store/object-log/published/publication-objects.js';
import { PublishedDisk } from '../store/object-log/published/published-disk.js';
import { type ExternalStore, PIECE_BLOCKS } from '../vdisk/external-store.js';

/** `s3://BUCKET/PREFIX#golden@v1`: the store, and what it has published. */
export interface PublishedAddress {
  readonly store: string;
  readonly name: string;
}

/** Finds the objects of a store by its address. @throws {StoreError} invalid, not-found, device */
export type ReachStore = (address: string) => Promise<StorePrefix>;

/** What a descriptor says of a published snapshot. */
export interface PublishedSource extends PublicationKey {
  readonly store: string;
}

/** Undefined: it names something of this store. @throws {StoreError} invalid */
export function parsePublished(text: string): PublishedAddress | undefined {
  const at = text.indexOf('#');
  if (at < 0) return undefined;
  const store = text.slice(0, at);
  const name = text.slice(at + 1);
  if (store !== '' && /^[^@#/]+@[^@#/]+$/.test(name)) return { store, name };
  throw new StoreError(
    'invalid',
    `"${text}" names no published snapshot: STORE#VDISK@SNAP, as s3://bucket/prefix#golden@v1`,
  );
}

export function describePublished(
  { store, name, id }: PublishedSource,
  manifest: Manifest,
  bytes: Uint8Array,
): ExternalDescriptor {
  const crc = crc32(bytes);
  const file = {
    path: `${store}#${name}/${idText(id)}`,
    sizeBytes: bytes.length,
    modifiedSeconds: 0,
    modifiedNs: 0,
    headCrc: crc,
    tailCrc: crc,
  };
  return { format: 'published', sizeBytes: manifest.sizeBytes, files: [file] };
}

/** Undefined if the descriptor is one of files. */
export function publishedOf(
  descriptor: ExternalDescriptor | undefined,
): PublishedSource | undefined {
  if (descriptor?.format !== 'published') return undefined;
  const path = descriptor.files[0]?.path ?? '';
  const [, store, name, id] = /^(.+)#([^#/]+)\/([0-9a-f]{8})$/.exec(path) ?? [];
  if (store === undefined || name === undefined || id === undefined) return undefined;
  return { store, name, id: Number.parseInt(id, 16) };
}

export class PublishedStore implements ExternalStore {
  readonly #descriptor: ExternalDescriptor;
  readonly #reach: ReachStore;
  readonly #log: LogSink;
  #opening: Promise<PublishedDisk> | undefined;
  #trouble: StoreError | undefined;
  #isClosed = false;
  readonly #calls = new Set<Promise<unknown>>();

  constructor(descriptor: ExternalDescriptor, reach: ReachStore, log: LogSink) {
    this.#descriptor = descriptor;
    this.#reach = reach;
    this.#log = log;
  }

  get trouble(): StoreError | undefined {
    return this.#trouble;
  }

  read(fbn: number, into: Uint8Array): Promise<void> {
    return this.#with((disk) => disk.read(fbn, into));
  }

  presence(piece: number): Promise<Uint8Array> {
    return this.#with((disk) => disk.presence(piece * PIECE_BLOCKS, PIECE_BLOCKS));
  }

  async look(): Promise<void> {
    // One block: that it can be reached does not yet say that its records are there.
    await this.read(0, new Uint8Array(BLOCK_BYTES)).catch((error: unknown) => {
      if (!isStoreError(error)) throw error;
    });
  }

  async #with<T>(call: (disk: PublishedDisk) => Promise<T>): Promise<T> {
    if (this.#isClosed) throw new StoreError('closed', `${this.#path} is closed`);
    const running = this.#call(call);
    this.#calls.add(running);
    try {
      return await running;
    } finally {
      this.#calls.delete(running);
    }
  }

  async #call<T>(call: (disk: PublishedDisk) => Promise<T>): Promise<T> {
    this.#opening ??= this.#open();
    const opening = this.#opening;
    try {
      const result = await call(await opening);
      if (this.#trouble !== undefined) this.#say('info', 'external-back', 'can be read again');
      this.#trouble = undefined;
      return result;
    } catch (error) {
      if (this.#opening === opening) this.#opening = undefined;
      throw this.#noted(error);
    }
  }

  async #open(): Promise<PublishedDisk> {
    const source = publishedOf(this.#descriptor);
    if (source === undefined) {
      throw new StoreError('corrupt', `${this.#path} names no published snapshot`);
    }
    const place = await this.#reach(source.store);
    const { manifest, bytes } = await readManifest(place, source);
    const [was] = this.#descriptor.files;
    if (was?.headCrc === crc32(bytes) && was.sizeBytes === bytes.length) {
      return new PublishedDisk(place, manifest);
    }
    throw new StoreError('corrupt', `${this.#path} is not what it was when it was cloned`);
  }

  get #path(): string {
    return this.#descriptor.files[0]?.path ?? '';
  }

  /** Why it cannot be read, in words for who reads a clone of it. */
  #noted(error: unknown): unknown {
    if (!isStoreError(error) || this.#isClosed) return error;
    // A reader of a vdisk must not think that the vdisk is gone.
    const kind = error.kind === 'not-found' || error.kind === 'invalid' ? 'device' : error.kind;
    const trouble = new StoreError(kind, error.message, { cause: error });
    if (this.#trouble?.message !== error.message) {
      this.#say('warn', 'external-trouble', `cannot be read: ${error.message}`);
    }
    this.#trouble = trouble;
    return trouble;
  }

  #say(level: 'info' | 'warn', event: string, what: string): void {
    const message = `Published snapshot ${this.#path} ${what}.`;
    this.#log({ level, event, message, fields: { path: this.#path } });
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.allSettled(this.#calls);
  }
}
