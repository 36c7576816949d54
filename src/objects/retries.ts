/**
 * When to try again: full jitter, so that clients that failed together do not come back together.
 *
 * Source: "Exponential Backoff And Jitter", AWS Architecture Blog, 2015
 */
import type { Clock } from '../env/clock.js';
import type { Random } from '../env/random.js';

const FIRST_MS = 25;
const PAUSE_MS_MAX = 2000;

export class Retries {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #endMs: number;
  #count = 0;

  constructor(clock: Clock, random: Random, patienceMs: number) {
    this.#clock = clock;
    this.#random = random;
    this.#endMs = clock.nowMs() + patienceMs;
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
