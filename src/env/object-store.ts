/**
 * What Keiki asks of an object store. Keys are never overwritten.
 *
 * 1. `putNew` is linearizable and durable on return: of all calls for one key exactly one answers
 *    'created', for ever. It rejects with AmbiguousPutError when it cannot know: read the key, and
 *    put again if it is not there.
 * 2. A `get` that begins after a `putNew` returned sees the object (strong read-after-write).
 * 3. `list` may be slow; it is used at open and in sweeps only.
 * 4. How long something is tried is decided in one place. A store that tries again by itself ends
 *    with PatienceOverError, and so it ends a put that is put again and again.
 */
import { isStoreError, StoreError } from '../base/store-error.js';

export interface ObjectStore {
  readonly name: string;
  /**
   * Creates the object from the chunks in order, or answers 'exists' and changes nothing. The
   * caller leaves their bytes alone until it is settled.
   */
  putNew(key: string, chunks: readonly Uint8Array[]): Promise<'created' | 'exists'>;
  /**
   * The object's bytes, or the part [offset, offset + length) of them (shorter where it ends);
   * undefined if there is no such object. Rejects `device` on a transport error.
   */
  get(key: string, offset?: number, length?: number): Promise<Uint8Array | undefined>;
  /** Deletes the objects; one that is not there is no error. */
  delete(keys: readonly string[]): Promise<void>;
  /** Up to 1000 keys that start with `prefix` and sort after `after`, in order of their bytes. */
  list(prefix: string, after?: string): Promise<string[]>;
}

/** It was tried for as long as the store's patience lasts: whoever asked need not ask again. */
export class PatienceOverError extends StoreError {
  constructor(message: string, options?: ErrorOptions) {
    super('device', message, options);
  }
}

/** A read that failed and may be tried again. */
export function isPassingFailure(error: unknown): boolean {
  return isStoreError(error, 'device') && !(error instanceof PatienceOverError);
}

/** The put may or may not have happened: read the key to find out. */
export class AmbiguousPutError extends Error {
  override readonly name = 'AmbiguousPutError';
}
