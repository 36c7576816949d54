/** Time, percentiles and turns. */
import { performance } from 'node:perf_hooks';

export function nowMs(): number {
  return performance.now();
}

export async function elapsedMs(work: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** The value that this part of the samples does not exceed. Sorts them. */
export function percentile(samples: number[], part: number): number {
  if (samples.length === 0) return Number.NaN;
  samples.sort((a, b) => a - b);
  return samples[Math.min(samples.length - 1, Math.floor(samples.length * part))] as number;
}

export function median(samples: readonly number[]): number {
  return percentile([...samples], 0.5);
}

/** Fast random integers below 2^32, for loops in which a better generator would be measured. */
export class QuickRandom {
  #state: number;

  constructor(seed: number) {
    this.#state = seed | 1;
  }

  /** An integer in [0, limit), limit <= 2^32. */
  below(limit: number): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x;
    return Math.floor(((x >>> 0) / 0x1_0000_0000) * limit);
  }
}
