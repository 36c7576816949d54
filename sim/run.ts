/**
 * The simulator's command.
 *
 *   npm run sim -- --seeds 10 --first 1 --medium in-place
 */
import { parseArgs } from 'node:util';
import { Coverage } from './coverage.js';
import { MEDIUM_KINDS, type MediumKind } from './machine.js';
import { simulate } from './simulation.js';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '10' },
    first: { type: 'string', default: '1' },
    medium: { type: 'string', default: 'in-place' },
    verbose: { type: 'boolean', default: false },
  },
});
let onCrash: ((error: unknown) => void) | undefined;
process.on('unhandledRejection', (error) => onCrash?.(error));
process.on('uncaughtException', (error) => onCrash?.(error));
const medium = values.medium as MediumKind;
const total = new Coverage();
const start = performance.now();
for (let seed = Number(values.first), n = 0; n < Number(values.seeds); seed++, n++) {
  const t = performance.now();
  try {
    const crash = new Promise<never>((_, reject) => {
      onCrash = reject;
    });
    const { digest, coverage } = await Promise.race([
      crash,
      simulate({
        seed,
        medium,
        ...(values.verbose ? { trace: (line: string) => console.log(line) } : {}),
      }),
    ]);
    total.add(coverage);
    console.log(
      `seed ${seed} ${digest} ${coverage.totals.acts} acts ${Math.round(performance.now() - t)} ms`,
    );
  } catch (error) {
    console.log(`FAILED seed ${seed}: ${(error as Error).stack}`);
    console.log(`replay: npm run sim -- --seeds 1 --first ${seed} --medium ${medium}`);
    process.exitCode = 1;
  }
}
console.log(total.matrix());
console.log(total.totals, `${((performance.now() - start) / 1000).toFixed(1)} s`, MEDIUM_KINDS);
