/**
 * Owns one client's view of an object store in a simulated world; several clients may share the
 * objects.
 *
 * 1. A put, get or delete takes effect at one moment between its call and its answer
 *    (linearizable): calls run side by side and take effect in any order.
 * 2. An ambiguous put has landed, never will, or lands later, even after its client has ended.
 * 3. Without power no promise of the client settles, then or later. The objects stay.
 * 4. Faults are off until asked for, and counted when they happen.
 */
import { StoreError } from '../../src/base/store-error.js';
import { joined } from '../../src/env/buffers.js';
import type { Clock } from '../../src/env/clock.js';
import { newObjectStoreStats, type ObjectStoreStats } from '../../src/env/memory-object-store.js';
import { ObjectMap } from '../../src/env/object-map.js';
import { AmbiguousPutError, type ObjectStore } from '../../src/env/object-store.js';
import type { Random } from '../../src/env/random.js';
import { newObjectFaultCounts, type ObjectFaultCounts } from './fault-counts.js';
import { drawLatencyMs } from './latency.js';
import { never } from './never.js';

/** What becomes of a put. `lost-…` and `late` are answered with AmbiguousPutError. */
export type PutFate = 'lands' | 'lost-request' | 'lost-response' | 'late';

/** How often each fault happens, as probabilities. */
export interface ObjectFaultRates {
  readonly lostRequest?: number;
  readonly lostResponse?: number;
  readonly latePut?: number;
  /** A get that fails with StoreError `device`. */
  readonly failedGet?: number;
  /** A delete that fails the same way, with some of its keys deleted. */
  readonly failedDelete?: number;
}

export interface SimulatedObjectStoreOptions {
  /** The world's clock: what is on its way arrives although its sender has no power. */
  readonly clock: Clock;
  readonly random: Random;
  readonly name?: string;
  /** Objects to start with, shared with whoever made them. */
  readonly objects?: ObjectMap;
  readonly counts?: ObjectFaultCounts;
  /** Mean of one way, there or back. */
  readonly latencyMs?: number;
  /** A late put lands at most so long after its answer. */
  readonly lateMsMax?: number;
}

interface PutInFlight {
  readonly key: string;
  readonly bytes: Uint8Array;
}

export class SimulatedObjectStore implements ObjectStore {
  readonly name: string;
  readonly stats: ObjectStoreStats = newObjectStoreStats();
  readonly objects: ObjectMap;
  readonly counts: ObjectFaultCounts;
  /** May be changed at any time; holds for calls from then on. */
  faultRates: ObjectFaultRates = {};
  readonly #options: SimulatedObjectStoreOptions;
  /** Puts that have not taken effect. */
  readonly #putsInFlight = new Set<PutInFlight>();
  readonly #deletesInFlight = new Set<readonly string[]>();
  readonly #fateAt = new Map<number, PutFate>();
  #isOn = true;
  #putsIssued = 0;
  #cutAt: { readonly number: number; readonly onCut: () => void } | undefined;

  constructor(options: SimulatedObjectStoreOptions) {
    this.name = options.name ?? 'simulated';
    this.objects = options.objects ?? new ObjectMap();
    this.counts = options.counts ?? newObjectFaultCounts();
    this.#options = options;
  }

  /** Calls of putNew by this client: the points of cutAtPut and fatePutAt. */
  get putsIssued(): number {
    return this.#putsIssued;
  }

  get isOn(): boolean {
    return this.#isOn;
  }

  putNew(key: string, chunks: readonly Uint8Array[]): Promise<'created' | 'exists'> {
    if (!this.#isOn) return never();
    const put: PutInFlight = { key, bytes: joined(chunks) };
    const number = ++this.#putsIssued;
    this.stats.puts++;
    this.stats.bytesPut += put.bytes.length;
    this.#putsInFlight.add(put);
    if (number === this.#cutAt?.number) {
      const { onCut } = this.#cutAt;
      this.powerOff();
      this.#options.clock.setTimer(0, onCut);
      return never();
    }
    const fate = this.#fateAt.get(number) ?? this.#drawFate();
    return new Promise((resolve, reject) => {
      this.#after(this.#drawMs(), () => {
        const answer = this.#arrive(put, fate);
        this.#after(this.#drawMs(), () => {
          if (answer !== undefined) resolve(answer);
          else reject(new AmbiguousPutError(`${this.name}: no answer to put ${key} (simulated)`));
        });
      });
    });
  }

  get(key: string, offset?: number, length?: number): Promise<Uint8Array | undefined> {
    if (!this.#isOn) return never();
    this.stats.gets++;
    const fails = this.#options.random.chance(this.faultRates.failedGet ?? 0);
    return new Promise((resolve, reject) => {
      this.#after(this.#drawMs(), () => {
        const bytes = fails ? undefined : this.objects.get(key, offset, length);
        this.stats.bytesGot += bytes?.length ?? 0;
        if (fails) this.counts.failedGets++;
        this.#after(this.#drawMs(), () => {
          if (fails) reject(this.#serverError(`get ${key}`));
          else resolve(bytes);
        });
      });
    });
  }

  delete(keys: readonly string[]): Promise<void> {
    if (!this.#isOn) return never();
    const { random } = this.#options;
    const named = [...keys];
    this.stats.deletes++;
    this.stats.keysDeleted += named.length;
    this.#deletesInFlight.add(named);
    const fails = random.chance(this.faultRates.failedDelete ?? 0);
    return new Promise((resolve, reject) => {
      this.#after(this.#drawMs(), () => {
        this.#deletesInFlight.delete(named);
        if (fails) this.counts.failedDeletes++;
        for (const key of named) if (!fails || random.chance(0.5)) this.objects.delete(key);
        this.#after(this.#drawMs(), () => {
          if (fails) reject(this.#serverError(`delete of ${named.length} keys`));
          else resolve();
        });
      });
    });
  }

  list(prefix: string, after?: string): Promise<string[]> {
    if (!this.#isOn) return never();
    this.stats.lists++;
    return new Promise((resolve) => {
      this.#after(this.#drawMs(), () => {
        const keys = this.objects.list(prefix, after);
        this.#after(this.#drawMs(), () => resolve(keys));
      });
    });
  }

  /** Another client of the same objects. */
  anotherClient(): SimulatedObjectStore {
    const client = new SimulatedObjectStore({
      ...this.#options,
      objects: this.objects,
      counts: this.counts,
    });
    client.faultRates = this.faultRates;
    return client;
  }

  /** Nothing reaches this client any more; what it sent waits for `cutClient`. */
  powerOff(): void {
    this.#isOn = false;
  }

  /**
   * Cuts this client's power and gives the next client of the same objects. Each put in flight has
   * landed, is lost, or lands later; each key of a delete in flight is deleted or not.
   */
  cutClient(): SimulatedObjectStore {
    this.powerOff();
    this.counts.cuts++;
    const { random } = this.#options;
    for (const put of this.#putsInFlight) {
      switch (random.below(3)) {
        case 0:
          this.counts.putsLandedAtCut++;
          this.objects.create(put.key, put.bytes);
          break;
        case 1:
          this.counts.putsLostAtCut++;
          break;
        default:
          this.counts.putsLandedAfterCut++;
          this.#landLater(put);
      }
    }
    this.#putsInFlight.clear();
    for (const keys of this.#deletesInFlight) {
      for (const key of keys) if (random.chance(0.5)) this.objects.delete(key);
    }
    this.#deletesInFlight.clear();
    return this.anotherClient();
  }

  /**
   * Power of this client fails in its `number`-th put (1-based, by putsIssued), with that put in
   * flight; `onCut` is called once, as an event of its own.
   */
  cutAtPut(number: number, onCut: () => void): void {
    this.#cutAt = { number, onCut };
  }

  /** What becomes of the `number`-th put (1-based, by putsIssued), whatever the rates say. */
  fatePutAt(number: number, fate: PutFate): void {
    this.#fateAt.set(number, fate);
  }

  /** Inverts bit `bit` (0-7) of the byte at `offset` of an object, as rot does. */
  flipBit(key: string, offset: number, bit: number): void {
    this.objects.flipBit(key, offset, bit);
    this.counts.flippedBits++;
  }

  /** The request is at the store. Undefined if the client will not hear what came of it. */
  #arrive(put: PutInFlight, fate: PutFate): 'created' | 'exists' | undefined {
    this.#putsInFlight.delete(put);
    switch (fate) {
      case 'lands':
        return this.objects.create(put.key, put.bytes) ? 'created' : 'exists';
      case 'lost-response':
        this.counts.lostResponses++;
        this.objects.create(put.key, put.bytes);
        return undefined;
      case 'lost-request':
        this.counts.lostRequests++;
        return undefined;
      case 'late':
        this.counts.latePuts++;
        this.#landLater(put);
        return undefined;
    }
  }

  /** The put is under way in the network, whatever becomes of its sender. */
  #landLater(put: PutInFlight): void {
    const { clock, random, lateMsMax } = this.#options;
    clock.setTimer((lateMsMax ?? 10_000) * random.nextFraction(), () => {
      this.objects.create(put.key, put.bytes);
    });
  }

  #drawFate(): PutFate {
    const { lostRequest = 0, lostResponse = 0, latePut = 0 } = this.faultRates;
    const drawn = this.#options.random.nextFraction();
    if (drawn < lostRequest) return 'lost-request';
    if (drawn < lostRequest + lostResponse) return 'lost-response';
    if (drawn < lostRequest + lostResponse + latePut) return 'late';
    return 'lands';
  }

  #drawMs(): number {
    return drawLatencyMs(this.#options.latencyMs ?? 3, this.#options.random);
  }

  /** Calls back later, if the client still has power. */
  #after(delayMs: number, callback: () => void): void {
    this.#options.clock.setTimer(delayMs, () => {
      if (this.#isOn) callback();
    });
  }

  #serverError(what: string): StoreError {
    return new StoreError('device', `${this.name}: ${what} answered 503 (simulated)`);
  }
}
