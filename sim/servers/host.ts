/**
 * Owns one machine of several that share an object store: it can stand still for a while, as one
 * that is paused does, and nothing it waits for reaches it meanwhile. Or it is killed.
 */
import type { Clock, Timer } from '../../src/env/clock.js';
import type { ObjectStore } from '../../src/env/object-store.js';
import type { Random } from '../../src/env/random.js';
import type { SimulatedObjectStore } from '../world/simulated-object-store.js';
import type { VirtualClock } from '../world/virtual-clock.js';

/** One request in so many is stuck on its way for a while. */
const STUCK_ONE_IN = 400;
export const STUCK_MS_MAX = 3000;

/** The clock of one life of a host. */
export class HostClock implements Clock {
  readonly #world: VirtualClock;
  #isOn = true;
  #frozenUntilMs = 0;

  constructor(world: VirtualClock) {
    this.#world = world;
  }

  nowMs(): number {
    return this.#world.nowMs();
  }

  wallMs(): number {
    return this.#world.wallMs();
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    let isCancelled = false;
    this.#world.setTimer(delayMs, () =>
      this.deliver(() => {
        if (!isCancelled) callback();
      }),
    );
    return {
      cancel: () => {
        isCancelled = true;
      },
    };
  }

  yield(): Promise<void> {
    return new Promise((resolve) => {
      this.setTimer(0, resolve);
    });
  }

  get isOn(): boolean {
    return this.#isOn;
  }

  get isFrozen(): boolean {
    return this.#frozenUntilMs > this.#world.nowMs();
  }

  /** The world goes on without it. */
  freeze(durationMs: number): void {
    this.#frozenUntilMs = this.#world.nowMs() + durationMs;
  }

  powerOff(): void {
    this.#isOn = false;
  }

  /** Something reaches the host, as soon as it runs. */
  deliver(callback: () => void): void {
    if (!this.#isOn) return;
    const restMs = this.#frozenUntilMs - this.#world.nowMs();
    if (restMs <= 0) callback();
    else this.#world.setTimer(restMs, () => this.deliver(callback));
  }
}

/** The object store as the host sees it. */
export class HostObjects implements ObjectStore {
  readonly name: string;
  readonly client: SimulatedObjectStore;
  readonly #world: VirtualClock;
  readonly #clock: HostClock;
  readonly #random: Random;
  /** The epoch that this host claimed last. */
  claimed = 0;

  constructor(client: SimulatedObjectStore, world: VirtualClock, clock: HostClock, random: Random) {
    this.name = client.name;
    this.client = client;
    this.#world = world;
    this.#clock = clock;
    this.#random = random;
  }

  putNew(key: string, chunks: readonly Uint8Array[]): Promise<'created' | 'exists'> {
    const epoch = /\/epoch\/([0-9a-f]+)$/.exec(key)?.[1];
    if (epoch !== undefined) this.claimed = Number.parseInt(epoch, 16);
    // As it is now: the caller may use the memory again while the request is stuck.
    const bytes = chunks.map((chunk) => chunk.slice());
    return this.#travel(() => this.client.putNew(key, bytes));
  }

  get(key: string, offset?: number, length?: number): Promise<Uint8Array | undefined> {
    return this.#travel(() => this.client.get(key, offset, length));
  }

  delete(keys: readonly string[]): Promise<void> {
    return this.#travel(() => this.client.delete(keys));
  }

  list(prefix: string, after?: string): Promise<string[]> {
    return this.#travel(() => this.client.list(prefix, after));
  }

  #travel<T>(call: () => Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const send = (): void => {
        call().then(
          (value) => this.#clock.deliver(() => resolve(value)),
          (error: unknown) => {
            const failure = error instanceof Error ? error : new Error(String(error));
            this.#clock.deliver(() => reject(failure));
          },
        );
      };
      if (this.#random.below(STUCK_ONE_IN) > 0) send();
      else this.#world.setTimer(this.#random.nextFraction() * STUCK_MS_MAX, send);
    });
  }
}
