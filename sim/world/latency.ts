/** How long things take in a simulated world. */
import type { Random } from '../../src/env/random.js';

/** One call in so many is slow. */
const SLOW_ONE_IN = 64;
const SLOW_FACTOR = 10;

/** Between a quarter and seven quarters of the mean, and now and then ten times that. */
export function drawLatencyMs(meanMs: number, random: Random): number {
  const usual = meanMs * (0.25 + 1.5 * random.nextFraction());
  return random.below(SLOW_ONE_IN) === 0 ? usual * SLOW_FACTOR : usual;
}
