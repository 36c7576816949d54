/**
 * Stores of others, as a server reaches them for what they have published: by their address, with
 * the settings and credentials of its own store. One client for each bucket or directory.
 */
import { StoreError } from '../base/store-error.js';
import type { ObjectStore } from '../env/object-store.js';
import type { StorePrefix } from '../store/object-log/published/publication-objects.js';
import { type ObjectPlace, openObjects } from './object-place.js';
import type { Settings } from './settings.js';
import { type ObjectAddress, parseStoreAddress } from './store-address.js';

type Place = Pick<ObjectPlace, 'objects' | 'close'>;

export class OtherStores {
  readonly #settings: Settings;
  readonly #environment: Readonly<Record<string, string | undefined>>;
  readonly #places = new Map<string, Promise<Place>>();

  /** @param own  objects of the server's own store, if it has any: for others beside it, too */
  constructor(
    settings: Settings,
    environment: Readonly<Record<string, string | undefined>>,
    own: ObjectStore | undefined,
  ) {
    this.#settings = settings;
    this.#environment = environment;
    const address = parseStoreAddress(settings['store.path'] ?? '');
    if (own === undefined || address.kind === 'file') return;
    const place = { objects: own, close: () => undefined };
    this.#places.set(whereOf(address), Promise.resolve(place));
  }

  /** @throws {StoreError} invalid, not-found, device */
  async reach(text: string): Promise<StorePrefix> {
    const address = parseStoreAddress(text);
    if (address.kind === 'file') {
      const message = `${text} is a file or device: only a store on an object store can publish`;
      throw new StoreError('invalid', `${message}, as s3://BUCKET/PREFIX or dir:PATH`);
    }
    const where = whereOf(address);
    let place = this.#places.get(where);
    if (place === undefined) {
      place = openObjects(address, this.#settings, this.#environment);
      this.#places.set(where, place);
    }
    try {
      return { objects: (await place).objects, prefix: address.prefix };
    } catch (error) {
      this.#places.delete(where);
      throw error;
    }
  }

  /** When no store reads any more. */
  async close(): Promise<void> {
    for (const place of this.#places.values()) (await place.catch(() => undefined))?.close();
  }
}

function whereOf(address: ObjectAddress): string {
  return address.kind === 's3' ? `s3:${address.bucket}` : `dir:${address.path}`;
}
