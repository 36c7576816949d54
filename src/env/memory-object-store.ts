/**
 * Owns an object store whose objects live in memory and end with the process.
 *
 * Every call is done before its promise is returned; none is ambiguous.
 */
import { joined } from './buffers.js';
import { ObjectMap } from './object-map.js';
import type { ObjectStore } from './object-store.js';

/** What was asked of an object store. */
export interface ObjectStoreStats {
  puts: number;
  bytesPut: number;
  gets: number;
  bytesGot: number;
  /** Calls of `delete`, and the keys that they named. */
  deletes: number;
  keysDeleted: number;
  lists: number;
}

/** Counters that start at zero. */
export function newObjectStoreStats(): ObjectStoreStats {
  return { puts: 0, bytesPut: 0, gets: 0, bytesGot: 0, deletes: 0, keysDeleted: 0, lists: 0 };
}

export interface MemoryObjectStoreOptions {
  readonly name?: string;
  /** Objects to start with, shared with whoever made them. */
  readonly objects?: ObjectMap;
}

export class MemoryObjectStore implements ObjectStore {
  readonly name: string;
  readonly stats: ObjectStoreStats = newObjectStoreStats();
  readonly objects: ObjectMap;

  constructor(options: MemoryObjectStoreOptions = {}) {
    this.name = options.name ?? 'memory';
    this.objects = options.objects ?? new ObjectMap();
  }

  putNew(key: string, chunks: readonly Uint8Array[]): Promise<'created' | 'exists'> {
    const bytes = joined(chunks);
    this.stats.puts++;
    this.stats.bytesPut += bytes.length;
    return Promise.resolve(this.objects.create(key, bytes) ? 'created' : 'exists');
  }

  get(key: string, offset?: number, length?: number): Promise<Uint8Array | undefined> {
    const bytes = this.objects.get(key, offset, length);
    this.stats.gets++;
    this.stats.bytesGot += bytes?.length ?? 0;
    return Promise.resolve(bytes);
  }

  delete(keys: readonly string[]): Promise<void> {
    this.stats.deletes++;
    this.stats.keysDeleted += keys.length;
    for (const key of keys) this.objects.delete(key);
    return Promise.resolve();
  }

  list(prefix: string, after?: string): Promise<string[]> {
    this.stats.lists++;
    return Promise.resolve(this.objects.list(prefix, after));
  }

  /** A store with the same objects, independent from here on. */
  duplicate(): MemoryObjectStore {
    return new MemoryObjectStore({ name: this.name, objects: this.objects.clone() });
  }
}
