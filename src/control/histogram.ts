/**
 * Counts of times, by powers of two from 16 µs to 16 s: cheap enough for every request.
 *
 * 1. Bucket n holds times up to BUCKET_MS[n]; the last one has no bound.
 * 2. Counts never go down, as Prometheus wants it.
 */

const FIRST_MICROSECONDS = 16;
const BUCKETS = 21;

/** Upper bounds in milliseconds; the last bucket, beyond them, has none. */
export const BUCKET_MS: readonly number[] = Array.from(
  { length: BUCKETS },
  (_, index) => (FIRST_MICROSECONDS * 2 ** index) / 1000,
);

export class Histogram {
  readonly #counts = new Float64Array(BUCKETS + 1);
  #sumMs = 0;
  #count = 0;

  add(ms: number): void {
    this.#sumMs += ms;
    this.#count++;
    const sixteenths = Math.ceil((ms * 1000) / FIRST_MICROSECONDS);
    const index = sixteenths <= 1 ? 0 : 32 - Math.clz32(Math.min(sixteenths, 2 ** 30) - 1);
    const at = Math.min(index, BUCKETS);
    this.#counts[at] = (this.#counts[at] as number) + 1;
  }

  get count(): number {
    return this.#count;
  }

  get sumMs(): number {
    return this.#sumMs;
  }

  /** Times that took no longer than BUCKET_MS[index]. */
  cumulative(): number[] {
    let sum = 0;
    return Array.from(BUCKET_MS, (_, index) => {
      sum += this.#counts[index] as number;
      return sum;
    });
  }

  /** Upper bound of the bucket in which this fraction of the times is reached. */
  quantileMs(fraction: number): number | undefined {
    if (this.#count === 0) return undefined;
    const wanted = Math.max(1, Math.ceil(this.#count * fraction));
    const sums = this.cumulative();
    const index = sums.findIndex((sum) => sum >= wanted);
    return BUCKET_MS[index < 0 ? BUCKETS - 1 : index];
  }
}
