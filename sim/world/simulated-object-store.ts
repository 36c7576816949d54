/**
 * Owns one client's view of an object store in a simulated world; several clients may share the
 * objects.
 *
 * 1. A put, get or delete takes effect at one moment between its call and its answer
 *    (linearizable): calls run side by side and take effect in any order.
 * 2. An ambiguous put has landed, never will, or lands later, even after its client has ended. One
 *    that was answered may land once more, later, if its key is free then.
 * 3. Without power no promise of the client settles, then or later. The objects stay.
 * 4. What a get answers may have one bit inverted on its way; the object has not.
 * 5. Faults are off until asked for, and counted when they happen.
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

/**
 * What becomes of a put. `lost-…` and `late` are answered with AmbiguousPutError. `late-copy`: it
 * lands, and what somebody on the way sends again lands later. `repeated`: it lands twice, and the
 * second time is what is answered.
 */
export type PutFate =
  | 'lands'
  | 'lost-request'
  | 'lost-response'
  | 'late'
  | 'late-copy'
  | 'repeated';

/** How often each fault happens, as probabilities. */
export interface ObjectFaultRates {
  /** Lost on its way, or answered 503. */
  readonly lostRequest?: number;
  readonly lostResponse?: number;
  readonly latePut?: number;
  readonly lateCopy?: number;
  readonly repeatedPut?: number;
  /** A get that fails with StoreError `device`. */
  readonly failedGet?: number;
  /** A get that answers with one bit inverted. */
  readonly corruptedGet?: number;
  /** A list that fails with StoreError `device`. */
  readonly failedList?: number;
  /** A delete that fails the same way, with some of its keys deleted. */
  readonly failedDelete?: number;
  /** A request of any kind that is stuck on its way there, at most `delayMsMax`. */
  readonly delayed?: number;
}

type RequestFault = 'failedGet' | 'corruptedGet' | 'failedList' | 'failedDelete' | 'delayed';

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
  readonly delayMsMax?: number;
  /** Who hears the answers, as soon as it runs. */
  readonly receiver?: Receiver | undefined;
}

export interface Receiver {
  deliver(callback: () => void): void;
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
      this.#send(() => {
        const answer = this.#arrive(put, fate);
        this.#answer(() => {
          if (answer !== undefined) resolve(answer);
          else reject(new AmbiguousPutError(`${this.name}: no answer to put ${key} (simulated)`));
        });
      });
    });
  }

  get(key: string, offset?: number, length?: number): Promise<Uint8Array | undefined> {
    if (!this.#isOn) return never();
    this.stats.gets++;
    const fails = this.#draws('failedGet');
    const isCorrupted = this.#draws('corruptedGet');
    return new Promise((resolve, reject) => {
      this.#send(() => {
        const bytes = fails ? undefined : this.objects.get(key, offset, length);
        this.stats.bytesGot += bytes?.length ?? 0;
        if (fails) this.counts.failedGets++;
        if (bytes !== undefined && isCorrupted) this.#corrupt(bytes);
        this.#answer(() => {
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
    const fails = this.#draws('failedDelete');
    return new Promise((resolve, reject) => {
      this.#send(() => {
        this.#deletesInFlight.delete(named);
        if (fails) this.counts.failedDeletes++;
        for (const key of named) if (!fails || random.chance(0.5)) this.objects.delete(key);
        this.#answer(() => {
          if (fails) reject(this.#serverError(`delete of ${named.length} keys`));
          else resolve();
        });
      });
    });
  }

  list(prefix: string, after?: string): Promise<string[]> {
    if (!this.#isOn) return never();
    this.stats.lists++;
    const fails = this.#draws('failedList');
    return new Promise((resolve, reject) => {
      this.#send(() => {
        const keys = fails ? [] : this.objects.list(prefix, after);
        if (fails) this.counts.failedLists++;
        this.#answer(() => {
          if (fails) reject(this.#serverError(`list of ${prefix}`));
          else resolve(keys);
        });
      });
    });
  }

  /** Another client of the same objects, on a machine of its own or none. */
  anotherClient(receiver?: Receiver): SimulatedObjectStore {
    const client = new SimulatedObjectStore({
      ...this.#options,
      receiver,
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
  cutClient(receiver?: Receiver): SimulatedObjectStore {
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
    return this.anotherClient(receiver);
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
      case 'late-copy':
        this.counts.lateCopies++;
        this.#landLater(put);
        return this.objects.create(put.key, put.bytes) ? 'created' : 'exists';
      case 'repeated':
        this.counts.repeatedPuts++;
        this.objects.create(put.key, put.bytes);
        return 'exists';
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
    const rates = this.faultRates;
    const fates: readonly (readonly [PutFate, number | undefined])[] = [
      ['lost-request', rates.lostRequest],
      ['lost-response', rates.lostResponse],
      ['late', rates.latePut],
      ['late-copy', rates.lateCopy],
      ['repeated', rates.repeatedPut],
    ];
    let drawn = this.#options.random.nextFraction();
    for (const [fate, rate = 0] of fates) {
      if (drawn < rate) return fate;
      drawn -= rate;
    }
    return 'lands';
  }

  #draws(fault: RequestFault): boolean {
    const rate = this.faultRates[fault] ?? 0;
    // A fault that is off leaves the run as it was.
    return rate > 0 && this.#options.random.chance(rate);
  }

  #corrupt(bytes: Uint8Array): void {
    if (bytes.length === 0) return;
    const { random } = this.#options;
    const at = random.below(bytes.length);
    bytes[at] = (bytes[at] as number) ^ (1 << random.below(8));
    this.counts.corruptedGets++;
  }

  #drawMs(): number {
    return drawLatencyMs(this.#options.latencyMs ?? 3, this.#options.random);
  }

  /** A request arrives later, or much later, if the client has power until then. */
  #send(arrive: () => void): void {
    const { random, delayMsMax = 3000 } = this.#options;
    const isDelayed = this.#draws('delayed');
    if (isDelayed) this.counts.delayed++;
    this.#after(this.#drawMs() + (isDelayed ? delayMsMax * random.nextFraction() : 0), arrive);
  }

  #answer(hear: () => void): void {
    const { receiver } = this.#options;
    this.#after(this.#drawMs(), () => (receiver === undefined ? hear() : receiver.deliver(hear)));
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
