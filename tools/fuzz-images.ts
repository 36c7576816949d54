/**
 * Reads mutated qcow2 images beside a naive reader, a hundred for each seed, and says what became
 * of them and what it took.
 *
 *   npx tsx tools/fuzz-images.ts --seeds 2000 [--first 1]     200,000 images
 */
import { parseArgs } from 'node:util';
import { MIB } from '../src/base/units.js';
import { IMAGES_PER_SEED, newOutcomes, tryMutatedImages } from '../test/support/mutated-images.js';

const { values } = parseArgs({ options: { seeds: { type: 'string' }, first: { type: 'string' } } });
const seeds = Number(values.seeds ?? '100');
const first = Number(values.first ?? '1');

const outcomes = newOutcomes();
const startMs = performance.now();
let slowestMs = 0;
for (let seed = first; seed < first + seeds; seed++) {
  const seedMs = performance.now();
  await tryMutatedImages(seed, outcomes);
  slowestMs = Math.max(slowestMs, performance.now() - seedMs);
}
const seconds = (performance.now() - startMs) / 1000;
const { refused, readWhole, readInPart, imported, readsMax, bytesReadMax } = outcomes;
console.log(
  `${seeds * IMAGES_PER_SEED} images from seed ${first} in ${seconds.toFixed(0)} s: ` +
    `${refused} refused, ${readWhole} read whole, ${readInPart} in part, ${imported} imported; ` +
    `at most ${readsMax} reads of ${(bytesReadMax / MIB).toFixed(1)} MiB for one, ` +
    `${slowestMs.toFixed(0)} ms for ${IMAGES_PER_SEED}; ` +
    `memory ${Math.round(process.resourceUsage().maxRSS / 1024)} MiB`,
);
