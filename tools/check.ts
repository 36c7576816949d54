/**
 * `npm run check`: everything that can be wrong without a look from a person, in one command.
 *
 * First the checks that read the code, two at a time; each says one line, and its own words only
 * when it objects. Then the tests. The tests run even if a check has objected, so that one run
 * tells all; the exit status is 0 only if all of it passed.
 */
import { spawn } from 'node:child_process';

interface Step {
  readonly title: string;
  /** A command as npm would run it. */
  readonly command: string;
}

const STEPS: readonly Step[] = [
  { title: 'types', command: 'npm run --silent types' },
  { title: 'format and lint', command: 'npm run --silent lint' },
  { title: 'lint with types', command: 'npm run --silent lint:types' },
  { title: 'tidy', command: 'npm run --silent tidy' },
  { title: 'dead code', command: 'npm run --silent dead-code' },
  { title: 'build', command: 'npm run --silent build' },
];

const AT_ONCE = 2;

function secondsSince(startMs: number): string {
  return `${((performance.now() - startMs) / 1000).toFixed(1).padStart(6)} s`;
}

/** Runs the step; prints its line, and what it said if it objects. True if it does not. */
function runStep({ title, command }: Step): Promise<boolean> {
  const startMs = performance.now();
  return new Promise((resolve) => {
    const run = spawn(command, { shell: true, stdio: ['ignore', 'pipe', 'pipe'] });
    let said = '';
    run.stdout.on('data', (chunk: Buffer) => {
      said += chunk.toString();
    });
    run.stderr.on('data', (chunk: Buffer) => {
      said += chunk.toString();
    });
    run.on('close', (status) => {
      console.log(
        `${status === 0 ? 'ok  ' : 'FAIL'}  ${title.padEnd(52)} ${secondsSince(startMs)}`,
      );
      if (status !== 0) console.log(said.replaceAll(/^/gm, '      '));
      resolve(status === 0);
    });
  });
}

function runTests(): Promise<boolean> {
  return new Promise((resolve) => {
    const run = spawn('npm', ['run', '--silent', 'test'], { stdio: 'inherit' });
    run.on('close', (status) => resolve(status === 0));
  });
}

async function main(): Promise<void> {
  const startMs = performance.now();
  const waiting = [...STEPS];
  const failed: string[] = [];
  const work = async (): Promise<void> => {
    for (let step = waiting.shift(); step !== undefined; step = waiting.shift()) {
      if (!(await runStep(step))) failed.push(step.title);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  if (!(await runTests())) failed.push('tests');
  const verdict = failed.length === 0 ? 'passed' : `FAILED: ${failed.join(', ')}`;
  console.log(`check ${verdict} (${secondsSince(startMs).trim()})`);
  process.exitCode = failed.length === 0 ? 0 : 1;
}

await main();
