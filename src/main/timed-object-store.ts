/** An object store that keeps times, bytes and errors of its calls, for the metrics. */
import type { ObjectCounters, ObjectMeter, ObjectMeters } from '../control/control-plane.js';
import { RequestPace, type Requests } from '../control/costs.js';
import { Histogram } from '../control/histogram.js';
import { totalBytes } from '../env/buffers.js';
import type { Clock } from '../env/clock.js';
import { AmbiguousPutError, type ObjectStore } from '../env/object-store.js';

type Mutable<T> = { -readonly [K in keyof T]: T[K] };

export class TimedObjectStore implements ObjectStore {
  readonly #objects: ObjectStore;
  readonly #clock: Clock;
  readonly #startMs: number;
  readonly #pace: RequestPace;
  readonly meters: Readonly<Record<keyof ObjectMeters, Mutable<ObjectMeter>>> = {
    put: newMeter(),
    get: newMeter(),
    delete: newMeter(),
    list: newMeter(),
  };

  constructor(objects: ObjectStore, clock: Clock) {
    this.#objects = objects;
    this.#clock = clock;
    this.#startMs = clock.nowMs();
    this.#pace = new RequestPace(this.#startMs);
  }

  #requests(): Requests {
    const { put, get, list } = this.meters;
    return {
      puts: put.times.count + list.times.count,
      gets: get.times.count,
      egressBytes: get.bytes,
    };
  }

  spent(): ReturnType<ObjectCounters['spent']> {
    const nowMs = this.#clock.nowMs();
    const sums = this.#requests();
    return {
      sinceStart: { ms: nowMs - this.#startMs, ...sums },
      lastHour: this.#pace.since(nowMs, sums),
    };
  }

  get name(): string {
    return this.#objects.name;
  }

  putNew(key: string, chunks: readonly Uint8Array[]): Promise<'created' | 'exists'> {
    const call = this.#objects.putNew(key, chunks);
    return this.#time(this.meters.put, call, () => totalBytes(chunks));
  }

  get(key: string, offset?: number, length?: number): Promise<Uint8Array | undefined> {
    const call = this.#objects.get(key, offset, length);
    return this.#time(this.meters.get, call, (bytes) => bytes?.length ?? 0);
  }

  delete(keys: readonly string[]): Promise<void> {
    return this.#time(this.meters.delete, this.#objects.delete(keys), () => 0);
  }

  list(prefix: string, after?: string): Promise<string[]> {
    return this.#time(this.meters.list, this.#objects.list(prefix, after), () => 0);
  }

  async #time<T>(
    meter: Mutable<ObjectMeter>,
    call: Promise<T>,
    bytesOf: (result: T) => number,
  ): Promise<T> {
    const startMs = this.#clock.nowMs();
    this.#pace.note(startMs, () => this.#requests());
    try {
      const result = await call;
      meter.bytes += bytesOf(result);
      return result;
    } catch (error) {
      if (error instanceof AmbiguousPutError) meter.unknown++;
      else meter.errors++;
      throw error;
    } finally {
      meter.times.add(this.#clock.nowMs() - startMs);
    }
  }
}

function newMeter(): Mutable<ObjectMeter> {
  return { times: new Histogram(), bytes: 0, errors: 0, unknown: 0 };
}
