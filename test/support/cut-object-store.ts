/**
 * An object store at one of whose calls something happens. The client dies: the call has its effect
 * or has not, is not answered, and no later call has any. Or somebody else is quicker, and does
 * what they do before the call goes on.
 */
import { StoreError } from '../../src/base/store-error.js';
import { AmbiguousPutError, type ObjectStore } from '../../src/env/object-store.js';

export type Landing = 'lands' | 'is-lost' | 'goes-on';

export class CutObjectStore implements ObjectStore {
  readonly name: string;
  readonly #objects: ObjectStore;
  /** Calls so far. */
  calls = 0;
  #cutAt = Infinity;
  #landing: Landing = 'is-lost';

  constructor(objects: ObjectStore) {
    this.#objects = objects;
    this.name = objects.name;
  }

  /** Dies at the call of this number from now on, counted from 1. */
  cutAt(call: number, landing: Landing): void {
    this.calls = 0;
    this.#cutAt = call;
    this.#landing = landing;
  }

  /** Called when it happens; the call waits for it. */
  onCut: () => void | Promise<void> = () => undefined;

  get isCut(): boolean {
    return this.calls >= this.#cutAt;
  }

  async #call<T>(act: () => Promise<T>): Promise<T> {
    this.calls++;
    if (this.calls < this.#cutAt) return act();
    if (this.calls === this.#cutAt) {
      if (this.#landing === 'lands') await act();
      await this.onCut();
    }
    if (this.#landing === 'goes-on') return act();
    throw new StoreError('device', 'the client has died (simulated)');
  }

  putNew(key: string, chunks: readonly Uint8Array[]): Promise<'created' | 'exists'> {
    return this.#call(() => this.#objects.putNew(key, chunks)).catch((cause: unknown) => {
      throw new AmbiguousPutError('no answer (simulated)', { cause });
    });
  }

  get(key: string, offset?: number, length?: number): Promise<Uint8Array | undefined> {
    return this.#call(() => this.#objects.get(key, offset, length));
  }

  delete(keys: readonly string[]): Promise<void> {
    return this.#call(() => this.#objects.delete(keys));
  }

  list(prefix: string, after?: string): Promise<string[]> {
    return this.#call(() => this.#objects.list(prefix, after));
  }
}
