/**
 * What Keiki asks of an object store. Keys are never overwritten.
 *
 * 1. `putNew` is linearizable and durable on return: of all calls for one key exactly one answers
 *    'created', for ever. It rejects with AmbiguousPutError when it cannot know.
 * 2. A `get` that begins after a `putNew` returned sees the object (strong read-after-write).
 * 3. `list` may be slow; it is used at open and in sweeps only.
 */
export interface ObjectStore {
  readonly name: string;
  /** Creates the object from the chunks in order, or answers 'exists' and changes nothing. */
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

/** The put may or may not have happened: read the key to find out. */
export class AmbiguousPutError extends Error {
  override readonly name = 'AmbiguousPutError';
}
