/**
 * Puts one deliberate bug after the other into a copy of the project, and runs what must catch it:
 * tests, seeds of the simulator, runs with rot. A bug that nothing notices is a hole in the tests.
 *
 *   npm run bugs                            all
 *   npm run bugs -- trim-writes-hole        one, or several
 *   npm run bugs -- --list                  what there is
 *   npm run bugs -- --unpatched             the same runs without the bugs: all must pass
 *
 * The list is deliberate-bugs/bugs.ts. The checkout is not touched.
 */
import { spawn } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import type { Catcher, DeliberateBug, Patch } from './deliberate-bugs/bug.js';
import { BUGS } from './deliberate-bugs/bugs.js';

const COPIED = ['src', 'sim', 'test', 'tools', 'package.json', 'tsconfig.json'];
/** A run that hangs is told from one that catches the bug. */
const TIMEOUT_MS = 900_000;
/** Random runs, from seed 1 on, one of which must come upon a bug. */
const SEEDS_MAX = 100;
/** Positions of a run with rot. */
const POSITIONS_MAX = 400;
const LINE_COLUMNS = 160;

interface Outcome {
  readonly kind: 'passed' | 'failed' | 'hung';
  readonly said: string;
  readonly seconds: number;
}

/** Runs Node with these arguments in the copy. */
function runNode(copy: string, args: readonly string[]): Promise<Outcome> {
  const startedMs = performance.now();
  return new Promise((resolvePromise) => {
    // A group of its own: a test that spins is a process of its own, and has to end with it.
    const run = spawn(process.execPath, ['--import', 'tsx', ...args], {
      cwd: copy,
      detached: true,
    });
    let said = '';
    const listen = (chunk: Buffer): void => {
      said += chunk.toString();
    };
    run.stdout.on('data', listen);
    run.stderr.on('data', listen);
    let isHung = false;
    const killGroup = (): void => {
      try {
        if (run.pid !== undefined) process.kill(-run.pid, 'SIGKILL');
      } catch {
        // All of it has ended.
      }
    };
    const timer = setTimeout(() => {
      isHung = true;
      killGroup();
    }, TIMEOUT_MS);
    process.once('exit', killGroup);
    run.on('exit', killGroup);
    run.on('close', (status) => {
      clearTimeout(timer);
      process.off('exit', killGroup);
      const kind = isHung ? 'hung' : status === 0 ? 'passed' : 'failed';
      resolvePromise({ kind, said, seconds: (performance.now() - startedMs) / 1000 });
    });
  });
}

function makeCopy(): string {
  const copy = mkdtempSync(join(tmpdir(), 'keiki-bugs-'));
  for (const name of COPIED) cpSync(name, join(copy, name), { recursive: true });
  symlinkSync(resolve('node_modules'), join(copy, 'node_modules'));
  return copy;
}

/** Writes the bug into the copy; returns what takes it out again. */
function patch(copy: string, patches: readonly Patch[]): () => void {
  const files = new Set(patches.map(({ file }) => join(copy, file)));
  const before = new Map([...files].map((path) => [path, readFileSync(path, 'utf8')]));
  for (const { file, find, replace } of patches) {
    const path = join(copy, file);
    const text = readFileSync(path, 'utf8');
    if (text.split(find).length !== 2) {
      throw new Error(`${file} must hold once, and does not: ${find}`);
    }
    writeFileSync(
      path,
      text.replace(find, () => replace),
    );
  }
  return () => {
    for (const [path, text] of before) writeFileSync(path, text);
  };
}

function argsOf(catcher: Catcher): readonly string[] {
  switch (catcher.kind) {
    case 'test':
      return [
        '--test',
        '--test-reporter=tap',
        `--test-name-pattern=${escaped(catcher.name)}`,
        catcher.file,
      ];
    case 'seeds':
      return ['sim/run.ts', '--medium', catcher.medium, '--seeds', String(SEEDS_MAX)];
    case 'rot':
      return ['sim/run.ts', '--medium', catcher.medium, '--bit-rot', String(POSITIONS_MAX)];
    case 'servers':
      return ['sim/run.ts', '--servers', '3', '--seeds', String(SEEDS_MAX)];
  }
}

/** A pattern for this text and nothing else. */
function escaped(text: string): string {
  return text.replaceAll(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`);
}

/** Whose run it is, as the table says it. */
function describe(catcher: Catcher, said: string): string {
  switch (catcher.kind) {
    case 'test':
      return `${catcher.file}: ${catcher.name}`;
    case 'seeds':
      return `${catcher.medium}, seed ${/--first (\d+) --verbose/.exec(said)?.[1] ?? '?'}`;
    case 'rot':
      return `${catcher.medium}, bit rot`;
    case 'servers':
      return `three servers, seed ${/--first (\d+) --verbose/.exec(said)?.[1] ?? '?'}`;
  }
}

/** The line that says what was noticed; undefined if there is none. */
function findLine(catcher: Catcher, said: string): string | undefined {
  const lines = said.split('\n').map((line) => line.trim());
  if (catcher.kind !== 'test') return lines.find((line) => catcher.says.test(line));
  return lines.find((line) => line.startsWith('not ok') && line.includes(catcher.name));
}

function judge(catcher: Catcher, { kind, said }: Outcome): string | undefined {
  if (kind === 'passed') return 'NOT CAUGHT: the run passes';
  if (kind === 'hung') return `NOT CAUGHT: no end after ${TIMEOUT_MS / 1000} s`;
  return findLine(catcher, said) === undefined ? 'fails, but not as expected' : undefined;
}

function print(mark: string, name: string, seconds: number, text: string): void {
  console.log(`${mark.padEnd(6)}${name.padEnd(26)}${seconds.toFixed(1).padStart(6)} s  ${text}`);
}

/** @returns true if all of it went as expected */
async function tryCatchers(copy: string, bug: DeliberateBug): Promise<boolean> {
  let isFine = true;
  for (const catcher of bug.caughtBy) {
    const outcome = await runNode(copy, argsOf(catcher));
    const { said, seconds } = outcome;
    const objection = judge(catcher, outcome);
    if (objection === undefined) {
      print('ok', bug.name, seconds, describe(catcher, said));
      if (catcher.kind === 'test') continue;
      console.log(`${' '.repeat(42)}${findLine(catcher, said)?.slice(0, LINE_COLUMNS) ?? ''}`);
    } else {
      isFine = false;
      print('FAIL', bug.name, seconds, `${describe(catcher, said)}: ${objection}`);
      console.log(said.split('\n').slice(-30).join('\n'));
    }
  }
  return isFine;
}

/** Runs everything once without a bug: what fails then proves nothing. */
async function tryUnpatched(copy: string, bugs: readonly DeliberateBug[]): Promise<boolean> {
  const runs = new Map(
    bugs.flatMap(({ caughtBy }) => caughtBy.map((each) => [argsOf(each).join(' '), each] as const)),
  );
  let isFine = true;
  for (const [args, catcher] of runs) {
    const { kind, said, seconds } = await runNode(copy, argsOf(catcher));
    print(kind === 'passed' ? 'ok' : 'FAIL', 'without a bug', seconds, args);
    if (kind === 'passed') continue;
    isFine = false;
    console.log(said.split('\n').slice(-30).join('\n'));
  }
  return isFine;
}

function chosen(names: readonly string[]): readonly DeliberateBug[] {
  if (names.length === 0) return BUGS;
  const unknown = names.filter((name) => !BUGS.some((bug) => bug.name === name));
  if (unknown.length > 0) {
    console.error(`no bug is called ${unknown.join(', ')}: npm run bugs -- --list`);
    process.exit(2);
  }
  return BUGS.filter(({ name }) => names.includes(name));
}

async function main(): Promise<void> {
  const { positionals, values } = parseArgs({
    allowPositionals: true,
    options: {
      list: { type: 'boolean', default: false },
      unpatched: { type: 'boolean', default: false },
    },
  });
  const bugs = chosen(positionals);
  if (values.list) {
    for (const { name, what } of bugs) console.log(`${name.padEnd(28)}${what}`);
    return;
  }
  process.once('SIGINT', () => process.exit(130));
  const copy = makeCopy();
  const missed: string[] = [];
  try {
    if (values.unpatched) {
      process.exitCode = (await tryUnpatched(copy, bugs)) ? 0 : 1;
      return;
    }
    for (const bug of bugs) {
      const restore = patch(copy, bug.patches);
      if (!(await tryCatchers(copy, bug))) missed.push(bug.name);
      restore();
    }
  } finally {
    rmSync(copy, { recursive: true, force: true });
  }
  console.log(`${bugs.length - missed.length} of ${bugs.length} bugs caught by all that must`);
  if (missed.length > 0) console.log(`missed: ${missed.join(', ')}`);
  process.exitCode = missed.length === 0 ? 0 : 1;
}

await main();
