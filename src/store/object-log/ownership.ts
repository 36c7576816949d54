/**
 * Owning a store while it is served: knowing in time that somebody else has taken it over.
 *
 * 1. A read is answered only within `staleReadsMsMax` of a moment at which nobody had sealed the
 *    chain. A record that is acknowledged shows that, or a look at the next key of the chain.
 * 2. Nothing is put for it. While clients read, the next key is looked at once in half that time;
 *    else both it and the knock (claimant.ts) once in all of it.
 * 3. Who finds the next key taken ends: the engine fails with `fenced`.
 */
import { StoreError } from '../../base/store-error.js';
import type { Timer } from '../../env/clock.js';
import type { ObjectStore } from '../../env/object-store.js';
import { getPatiently } from './chain-walk.js';
import { knockKey, type OwnershipOptions } from './claimant.js';
import { fencedAt, type RecordChain, recordKey } from './record-chain.js';

export interface OwnedChain {
  readonly objects: ObjectStore;
  readonly prefix: string;
  readonly epoch: number;
  readonly chain: RecordChain;
}

export class Ownership {
  readonly #owned: OwnedChain;
  readonly #options: OwnershipOptions;
  readonly #fail: (error: StoreError) => void;
  #probe: Promise<void> | undefined;
  #timer: Timer | undefined;
  #hasEnded = false;

  constructor(owned: OwnedChain, options: OwnershipOptions, fail: (error: StoreError) => void) {
    this.#owned = owned;
    this.#options = options;
    this.#fail = fail;
    this.#setTimer();
  }

  /**
   * Undefined: what was read so far may be answered.
   * @throws {StoreError} closed, fenced, device
   */
  confirmed(): Promise<void> | undefined {
    const boundMs = this.#options.staleReadsMsMax;
    const ageMs = this.#ageMs();
    if (this.#hasEnded || ageMs > boundMs) return this.#confirm();
    if (ageMs * 2 > boundMs) this.look().catch(ignore);
    return undefined;
  }

  async #confirm(): Promise<void> {
    for (;;) {
      const { failure } = this.#owned.chain;
      if (failure !== undefined) throw failure;
      if (this.#hasEnded) {
        throw new StoreError('closed', `${this.#owned.objects.name}: the store has been closed`);
      }
      if (this.#ageMs() <= this.#options.staleReadsMsMax) return;
      await this.look();
    }
  }

  #ageMs(): number {
    return this.#options.clock.nowMs() - this.#owned.chain.confirmedMs;
  }

  /** Looks at the next key of the chain, once for all who ask. */
  look(): Promise<void> {
    this.#probe ??= this.#lookOnce().finally(() => {
      this.#probe = undefined;
    });
    return this.#probe;
  }

  /** Looks at a moment after the call. */
  async lookAfresh(): Promise<void> {
    await this.#probe?.catch(ignore);
    await this.look();
  }

  async #lookOnce(): Promise<void> {
    const { objects, prefix, chain, epoch } = this.#owned;
    const startMs = this.#options.clock.nowMs();
    const number = chain.firstOpen;
    // A record that was put may have landed, and have been deleted by a successor: that its key is
    // free says nothing. What came of the put does.
    if (chain.isSent(number)) {
      await chain.acknowledged(number);
      return;
    }
    const key = recordKey(prefix, number);
    const there = await getPatiently(objects, key, 0, 1);
    if (there === undefined) {
      chain.confirm(startMs);
    } else if (chain.firstOpen > number || chain.isSent(number)) {
      await chain.acknowledged(number);
    } else {
      const error = fencedAt(objects.name, key, epoch);
      this.end();
      chain.fail(error);
      this.#fail(error);
      throw error;
    }
  }

  #setTimer(): void {
    const { clock, staleReadsMsMax } = this.#options;
    this.#timer = clock.setTimer(staleReadsMsMax, () => {
      void this.#tick()
        .catch(ignore)
        .then(() => {
          if (!this.#hasEnded) this.#setTimer();
        });
    });
  }

  async #tick(): Promise<void> {
    const { objects, prefix, epoch, chain } = this.#owned;
    const { failure } = chain;
    if (failure !== undefined) {
      this.end();
      this.#fail(failure);
      return;
    }
    if (this.#ageMs() * 2 > this.#options.staleReadsMsMax) await this.look();
    const knock = knockKey(prefix, epoch);
    if ((await objects.get(knock, 0, 1)) !== undefined) await objects.delete([knock]);
  }

  /** The store is being handed over: nothing is answered any more. */
  end(): void {
    this.#hasEnded = true;
    this.#timer?.cancel();
  }
}

/** It is tried again: the next read, or the next tick. */
function ignore(): void {}
