/**
 * Power cuts in what the kernel was told to write:
 *
 *   npm run power-cut                          seed 1, 600 steps, 60 cuts
 *   npm run power-cut -- --seed 7 --steps 3000 --cuts 500
 *   npm run power-cut -- --seeds 20            seeds 1 to 20
 *
 * The simulator cuts the power of simulated devices; this looks at the calls that the real device
 * makes on a real file. Needs strace. Exit code 1: something was lost.
 */
import { parseArgs } from 'node:util';
import { cutPower, traceWorkload } from './power-cut.js';

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    seeds: { type: 'string', default: '1' },
    steps: { type: 'string', default: '600' },
    cuts: { type: 'string', default: '60' },
  },
});

const first = Number(values.seed);
for (let seed = first; seed < first + Number(values.seeds); seed++) {
  const trace = await traceWorkload(seed, Number(values.steps));
  const report = await cutPower(trace, { seed, cuts: Number(values.cuts) });
  const { writes, syncs, steps, cuts, sectors, faults } = report;
  console.log(
    `seed ${seed}: ${writes} writes and ${syncs} syncs for ${steps} steps; ${cuts} cuts, ` +
      `${sectors} sectors compared, ${faults.length} faults`,
  );
  for (const fault of faults.slice(0, 10)) console.error(`  ${fault}`);
  if (faults.length > 0) process.exitCode = 1;
}
