/**
 * Owns the objects of a bucket in memory, without promises: what the memory and the simulated
 * object store have in common.
 *
 * 1. An object never changes: `create` refuses a key that is there (bit flips are for tests).
 * 2. Keys are listed in the order of their UTF-8 bytes, as object stores do.
 */
import { StoreError } from '../base/store-error.js';

/** As S3 does. */
const LIST_KEYS_MAX = 1000;

export class ObjectMap {
  readonly #objects: Map<string, Uint8Array>;
  /** Sorted keys; made when a list needs them, dropped when the set of keys changes. */
  #keys: string[] | undefined;

  constructor(objects: ReadonlyMap<string, Uint8Array> = new Map()) {
    this.#objects = new Map(objects);
  }

  get count(): number {
    return this.#objects.size;
  }

  /** False if the key is there. The map owns the bytes from here on. */
  create(key: string, bytes: Uint8Array): boolean {
    if (this.#objects.has(key)) return false;
    this.#objects.set(key, bytes);
    this.#keys = undefined;
    return true;
  }

  /** A copy of the part [offset, offset + length), shorter where the object ends. */
  get(key: string, offset = 0, length = Infinity): Uint8Array | undefined {
    return this.#objects.get(key)?.slice(offset, offset + length);
  }

  delete(key: string): void {
    if (this.#objects.delete(key)) this.#keys = undefined;
  }

  /** Up to LIST_KEYS_MAX keys that start with `prefix` and sort after `after`. */
  list(prefix: string, after?: string): string[] {
    this.#keys ??= [...this.#objects.keys()].sort(compareKeys);
    const keys = this.#keys;
    const found: string[] = [];
    for (let index = firstAfter(keys, prefix, after); index < keys.length; index++) {
      const key = keys[index];
      if (key === undefined || !key.startsWith(prefix) || found.length === LIST_KEYS_MAX) break;
      found.push(key);
    }
    return found;
  }

  /** Inverts one bit of an object, as rot does. */
  flipBit(key: string, offset: number, bit: number): void {
    const bytes = this.#objects.get(key)?.slice();
    if (bytes === undefined || offset >= bytes.length) {
      throw new StoreError('not-found', `no byte ${offset} in object ${key}`);
    }
    bytes[offset] = (bytes[offset] ?? 0) ^ (1 << bit);
    this.#objects.set(key, bytes);
  }

  /** An independent map with the same objects; no bytes are copied. */
  clone(): ObjectMap {
    return new ObjectMap(this.#objects);
  }
}

/** Index of the first key that is not below `prefix` and is above `after`. */
function firstAfter(keys: readonly string[], prefix: string, after: string | undefined): number {
  let low = 0;
  let high = keys.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const key = keys[middle] ?? '';
    const isBelow =
      compareKeys(key, prefix) < 0 || (after !== undefined && compareKeys(key, after) <= 0);
    if (isBelow) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Orders two keys as their UTF-8 bytes would be. */
export function compareKeys(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let index = 0; index < length; index++) {
    const unitA = a.charCodeAt(index);
    const unitB = b.charCodeAt(index);
    if (unitA !== unitB) return utf8Rank(unitA) - utf8Rank(unitB);
  }
  return a.length - b.length;
}

/** UTF-16 has its surrogates (code points from 0x10000) below 0xe000-0xffff; UTF-8 above. */
function utf8Rank(unit: number): number {
  return unit >= 0xd800 && unit < 0xe000 ? unit + 0x10000 : unit;
}
