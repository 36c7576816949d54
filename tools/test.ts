/**
 * Runs the tests: every *.test.ts and *.fuzz.ts of the project, each file in a process of its own.
 *
 *   npm test                                 all
 *   npm test -- src/base split.test          files whose path contains one of the words
 *   npm test -- src/base --name=trim         of these, the tests whose name matches
 *
 * The list is made here because `node --test` understands patterns only from Node 21 on.
 */
import { existsSync, readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { run } from 'node:test';
import { parseArgs } from 'node:util';
import { report } from './test-reporter.js';

const ROOTS = ['src', 'tools', 'test', 'sim', 'bench'];
/** For one file. Long enough for the longest simulation; a test that hangs ends all the same. */
const TIMEOUT_MS = 20 * 60 * 1000;

function listTests(folder: string): string[] {
  const found: string[] = [];
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) found.push(...listTests(path));
    else if (/\.(test|fuzz)\.ts$/.test(entry.name)) found.push(path);
  }
  return found.sort();
}

const { positionals: words, values } = parseArgs({
  allowPositionals: true,
  options: { name: { type: 'string' } },
});
const all = ROOTS.filter((root) => existsSync(root)).flatMap(listTests);
const files = all.filter((path) => words.length === 0 || words.some((word) => path.includes(word)));
if (files.length === 0) {
  console.error(`No test file matches ${words.join(' ')} (${all.length} files in all).`);
  process.exit(1);
}

console.log(`Tests on Node ${process.version}: ${files.length} of ${all.length} files`);
// Each file's process gets this one's options for node, and with them tsx.
const events = run({
  files: files.map((path) => resolve(path)),
  concurrency: 2,
  timeout: TIMEOUT_MS,
  ...(values.name === undefined ? {} : { testNamePatterns: values.name }),
});
events.on('test:fail', () => {
  process.exitCode = 1;
});
for await (const text of report(events)) process.stdout.write(text);
