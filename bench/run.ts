/**
 * `npm run bench -- list`, `npm run bench -- NAME ...`, `npm run bench -- all`.
 *
 * `all` runs each bench in a process of its own, one after the other, so that peak memory is that
 * bench's own. Exit status 1: a target was missed.
 */
import { spawnSync } from 'node:child_process';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { BENCHES } from './benches.js';
import type { Bench } from './harness/bench.js';
import { Report } from './harness/report.js';
import { elapsedMs } from './harness/timing.js';
import { LOAD_PROCESS, obeyLoadCommands } from './nbd/load-process.js';

async function runOne(bench: Bench): Promise<number> {
  console.log(`${bench.name}: ${bench.question}`);
  const report = new Report((line) => console.log(line));
  const ms = await elapsedMs(() => bench.run(report));
  console.log(`  ${(ms / 1000).toFixed(1)} s in all`);
  return report.misses;
}

function runAll(): number {
  let failed = 0;
  for (const { name } of BENCHES) {
    const words = [...process.execArgv, fileURLToPath(import.meta.url), name];
    if (spawnSync(process.execPath, words, { stdio: 'inherit' }).status !== 0) failed++;
  }
  console.log(`${BENCHES.length} benches, ${failed} with a miss`);
  return failed;
}

function benchOf(name: string | undefined): Bench {
  const bench = BENCHES.find((each) => each.name === name);
  if (bench === undefined) throw new Error(`there is no bench ${name}; see: npm run bench -- list`);
  return bench;
}

async function main(names: readonly string[]): Promise<number> {
  if (names.length === 0 || names[0] === 'list') {
    for (const { name, question } of BENCHES) console.log(`${name.padEnd(16)} ${question}`);
    return 0;
  }
  if (names[0] === '--prepare') {
    await benchOf(names[1]).prepare?.(names[2] ?? '');
    return 0;
  }
  if (names[0] === LOAD_PROCESS) {
    obeyLoadCommands();
    return 0;
  }
  const machine = `${cpus().length} x ${cpus()[0]?.model ?? 'unknown processor'}`;
  console.log(`Node ${process.versions.node}, ${machine}, ${process.platform}`);
  if (names[0] === 'all') return runAll();
  let misses = 0;
  for (const name of names) misses += await runOne(benchOf(name));
  return misses;
}

process.exitCode = (await main(process.argv.slice(2))) === 0 ? 0 : 1;
