/** Randomness from a seed: same seed, same numbers. */
export interface Random {
  /** An integer in [0, 2^32). */
  nextU32(): number;
  /** An integer in [0, limit), 0 < limit <= 2^53. */
  below(limit: number): number;
  /** A number in [0, 1). */
  nextFraction(): number;
  /** True with this probability. */
  chance(probability: number): boolean;
  /** Fills the buffer. */
  fill(into: Uint8Array): void;
}
