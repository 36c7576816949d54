/**
 * Streams of NBD clients, sound and damaged, to the server's sessions beside a naive server, a
 * hundred for each seed; says what became of them.
 *
 *   npx tsx tools/fuzz-nbd.ts --seeds 50000 [--first 1]     5,000,000 inputs
 */
import { parseArgs } from 'node:util';
import { MIB } from '../src/base/units.js';
import { newNbdOutcomes, tryNbdInputs } from '../test/support/nbd-fuzz.js';

const { values } = parseArgs({ options: { seeds: { type: 'string' }, first: { type: 'string' } } });
const seeds = Number(values.seeds ?? '100');
const first = Number(values.first ?? '1');

const outcomes = newNbdOutcomes();
const startMs = performance.now();
let slowestMs = 0;
for (let seed = first; seed < first + seeds; seed++) {
  const seedMs = performance.now();
  await tryNbdInputs(seed, outcomes);
  slowestMs = Math.max(slowestMs, performance.now() - seedMs);
}
const seconds = (performance.now() - startMs) / 1000;
const { inputs, options, entered, requests, failed, waited, ended, violated } = outcomes;
console.log(
  `${inputs} inputs from seed ${first} in ${seconds.toFixed(0)} s: ` +
    `${options} options, ${entered} entered, ${requests} requests, ${failed} of them refused; ` +
    `${waited} waited for more, ${ended} took leave, ${violated} were cut off; ` +
    `at most ${(outcomes.heldBytesMax / MIB).toFixed(1)} MiB held by one, ` +
    `${slowestMs.toFixed(0)} ms for a seed; ` +
    `memory ${Math.round(process.resourceUsage().maxRSS / 1024)} MiB`,
);
