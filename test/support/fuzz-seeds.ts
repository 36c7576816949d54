/**
 * Seeds of a model fuzzer: a few fixed ones in every test run. To soak by hand:
 *
 *   FUZZ_SEEDS=5000 FUZZ_FIRST=1000 npx tsx --test src/store/vbn-set.fuzz.ts
 */

/** `count` seeds from 1 on, or what the environment asks for. */
export function fuzzSeeds(count: number): number[] {
  const { FUZZ_SEEDS, FUZZ_FIRST } = process.env;
  const first = FUZZ_FIRST === undefined ? 1 : Number(FUZZ_FIRST);
  const length = FUZZ_SEEDS === undefined ? count : Number(FUZZ_SEEDS);
  return Array.from({ length }, (_, index) => first + index);
}
