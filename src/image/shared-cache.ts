/**
 * Owns what all images of one chain keep in memory: slices of L2 tables, inflated clusters.
 *
 * 1. All entries together take at most `budgetBytes`, but for the newest one, which always fits.
 * 2. The entry that was used least recently goes first, whichever image it belongs to.
 * 3. Who waits for an entry that somebody loads already gets that one.
 */

interface Entry {
  readonly table: CacheTable;
  readonly key: number;
  readonly bytes: Uint8Array;
  older: Entry | undefined;
  newer: Entry | undefined;
}

export class SharedCache {
  readonly budgetBytes: number;
  #usedBytes = 0;
  #newest: Entry | undefined;
  #oldest: Entry | undefined;

  constructor(budgetBytes: number) {
    this.budgetBytes = budgetBytes;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  /** Only for CacheTable. */
  add(entry: Entry): void {
    this.#usedBytes += entry.bytes.length;
    this.#link(entry);
    while (this.#usedBytes > this.budgetBytes && this.#oldest !== entry) {
      const oldest = this.#oldest as Entry;
      this.#unlink(oldest);
      this.#usedBytes -= oldest.bytes.length;
      oldest.table.forget(oldest.key);
    }
  }

  /** Only for CacheTable. */
  touch(entry: Entry): void {
    if (this.#newest === entry) return;
    this.#unlink(entry);
    this.#link(entry);
  }

  #link(entry: Entry): void {
    entry.older = this.#newest;
    entry.newer = undefined;
    if (this.#newest === undefined) this.#oldest = entry;
    else this.#newest.newer = entry;
    this.#newest = entry;
  }

  #unlink(entry: Entry): void {
    if (entry.older === undefined) this.#oldest = entry.newer;
    else entry.older.newer = entry.newer;
    if (entry.newer === undefined) this.#newest = entry.older;
    else entry.newer.older = entry.older;
  }
}

/** One image's part: bytes by a number, as a rule their offset in the file. */
export class CacheTable {
  readonly #cache: SharedCache;
  readonly #entries = new Map<number, Entry>();
  readonly #loading = new Map<number, Promise<Uint8Array>>();

  constructor(cache: SharedCache) {
    this.#cache = cache;
  }

  get(key: number): Uint8Array | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined) return undefined;
    this.#cache.touch(entry);
    return entry.bytes;
  }

  /** A failed load is not remembered: the next one tries again. */
  load(key: number, load: () => Promise<Uint8Array>): Promise<Uint8Array> {
    const there = this.get(key);
    if (there !== undefined) return Promise.resolve(there);
    const other = this.#loading.get(key);
    if (other !== undefined) return other;
    const loading = load().then(
      (bytes) => {
        this.#loading.delete(key);
        this.#put(key, bytes);
        return bytes;
      },
      (error: unknown) => {
        this.#loading.delete(key);
        throw error;
      },
    );
    this.#loading.set(key, loading);
    return loading;
  }

  /** Only for SharedCache. */
  forget(key: number): void {
    this.#entries.delete(key);
  }

  #put(key: number, bytes: Uint8Array): void {
    const entry: Entry = { table: this, key, bytes, older: undefined, newer: undefined };
    this.#entries.set(key, entry);
    this.#cache.add(entry);
  }
}
