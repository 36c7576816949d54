/**
 * When to try again, and when no more: full jitter, so that clients that failed together do not
 * come back together; and patience that is one for all requests, not one for each.
 *
 * Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015
 */
import type { Clock } from '../env/clock.js';
import type { Random } from '../env/random.js';

const FIRST_MS = 25;
const PAUSE_MS_MAX = 2000;

/**
 * A stretch of time in which every request of a kind has failed. Without it each one would begin
 * its patience anew: eight that wait behind eight, a PUT that is sent again when its key was read.
 */
export class Outage {
  readonly #patienceMs: number;
  #sinceMs = 0;
  #lastMs = Number.NEGATIVE_INFINITY;
  #count = 0;

  constructor(patienceMs: number) {
    this.#patienceMs = patienceMs;
  }

  /** Undefined: nothing has failed since something worked, or not for long. */
  sinceMs(nowMs: number): number | undefined {
    return nowMs - this.#lastMs > this.#patienceMs ? undefined : this.#sinceMs;
  }

  failed(startMs: number, nowMs: number): void {
    if (this.sinceMs(nowMs) === undefined) {
      this.#sinceMs = startMs;
      this.#count = 0;
    }
    this.#lastMs = nowMs;
    this.#count++;
  }

  worked(): void {
    this.#lastMs = Number.NEGATIVE_INFINITY;
  }

  isOver(nowMs: number): boolean {
    const sinceMs = this.sinceMs(nowMs);
    return sinceMs !== undefined && nowMs - sinceMs >= this.#patienceMs;
  }

  /** Before it is tried again. */
  pauseMs(random: Random): number {
    return (
      random.nextFraction() * Math.min(PAUSE_MS_MAX, FIRST_MS * 2 ** Math.min(this.#count, 20))
    );
  }
}

export class Retries {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #endMs: number;
  #count = 0;

  /** @param sinceMs  when what it is a part of began to fail; undefined: it has not */
  constructor(clock: Clock, random: Random, patienceMs: number, sinceMs: number | undefined) {
    this.#clock = clock;
    this.#random = random;
    this.#endMs = (sinceMs ?? clock.nowMs()) + patienceMs;
  }

  /** How often it was tried again. */
  get count(): number {
    return this.#count;
  }

  /** Waits; false if there was time enough. */
  async again(): Promise<boolean> {
    if (this.#clock.nowMs() >= this.#endMs) return false;
    const boundMs = Math.min(PAUSE_MS_MAX, FIRST_MS * 2 ** Math.min(this.#count, 20));
    this.#count++;
    await pause(this.#clock, this.#random.nextFraction() * boundMs);
    return true;
  }
}

export function pause(clock: Clock, ms: number): Promise<void> {
  return new Promise((resolve) => {
    clock.setTimer(ms, resolve, { keepsAlive: true });
  });
}
