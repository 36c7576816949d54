/**
 * What the clients of a store are doing: whether they ask for anything, and how long it takes.
 * Background work that makes way for them looks here.
 *
 * 1. Nobody looks: a request costs one look at a field.
 * 2. Beside its own time, a request may have waited to be seen, since requests were last taken from
 *    a socket. Busy clients have the next one there at once, so that is what they wait.
 * 3. Times are counted by sixteenths of a power of two (4 %), from 1 µs to 134 s.
 */
import type { Clock } from '../env/clock.js';

/** Requests that begin within so little were there together. */
const TURN_MS = 0.02;
/** More than that nobody has waited: there was nothing to do. */
const WAIT_MS_MAX = 8;
const STEPS_OF_OCTAVE = 16;
const OCTAVES = 27;
const STEPS = STEPS_OF_OCTAVE * OCTAVES;

/** Times that are forgotten by and by. */
export class FadingTimes {
  readonly #counts = new Float64Array(STEPS);
  #count = 0;

  get count(): number {
    return this.#count;
  }

  add(ms: number): void {
    const step = Math.floor(Math.log2(Math.max(1, ms * 1000)) * STEPS_OF_OCTAVE);
    const at = Math.min(step, STEPS - 1);
    this.#counts[at] = (this.#counts[at] as number) + 1;
    this.#count++;
  }

  /** Each time counts for this much less from now on. */
  fade(factor: number): void {
    for (let at = 0; at < STEPS; at++) this.#counts[at] = (this.#counts[at] as number) * factor;
    this.#count *= factor;
  }

  /** Which part of them fell into this step. */
  partAt(step: number): number {
    return this.#count === 0 ? 0 : (this.#counts[step] as number) / this.#count;
  }
}

/** Times, and which part they are of several together. */
export interface Weighted {
  readonly times: FadingTimes;
  readonly weight: number;
}

/** The time below which this fraction of all of them lies. Weights are 1 together. */
export function quantileMs(parts: readonly Weighted[], fraction: number): number {
  let left = fraction;
  let at = 0;
  for (; at < STEPS - 1; at++) {
    for (const { times, weight } of parts) left -= weight * times.partAt(at);
    if (left <= 0) break;
  }
  return 2 ** ((at + 1) / STEPS_OF_OCTAVE) / 1000;
}

export class ClientLoad {
  readonly clock: Clock;
  /** Somebody wants to know: requests are counted. */
  isWatched = false;
  /** Told what each request took, and how long it may have waited before. */
  onRequest: ((tookMs: number, waitedMs: number) => void) | undefined;
  #beganMs = 0;
  #waitMs = 0;
  #lastMs = Number.NEGATIVE_INFINITY;
  #underWay = 0;

  constructor(clock: Clock) {
    this.clock = clock;
  }

  /** Milliseconds since a client last had something under way. */
  get quietMs(): number {
    return this.#underWay > 0 ? 0 : this.clock.nowMs() - this.#lastMs;
  }

  /** What a request came to: at once, or later. */
  count<T>(startMs: number, outcome: T | Promise<T>): T | Promise<T> {
    const gapMs = startMs - this.#beganMs;
    if (gapMs > TURN_MS) this.#waitMs = Math.min(gapMs, WAIT_MS_MAX);
    this.#beganMs = startMs;
    const waitedMs = this.#waitMs;
    if (outcome instanceof Promise) return this.#later(startMs, waitedMs, outcome);
    this.#done(startMs, waitedMs);
    return outcome;
  }

  async #later<T>(startMs: number, waitedMs: number, outcome: Promise<T>): Promise<T> {
    this.#underWay++;
    try {
      return await outcome;
    } finally {
      this.#underWay--;
      this.#done(startMs, waitedMs);
    }
  }

  #done(startMs: number, waitedMs: number): void {
    this.#lastMs = this.clock.nowMs();
    this.onRequest?.(this.#lastMs - startMs, waitedMs);
  }
}
