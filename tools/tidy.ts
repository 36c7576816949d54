/**
 * The house rules that no other tool checks: layers, doors to the operating system, words, shape,
 * leftovers. `npm run tidy` prints each fault; tidy.test.ts shows each rule a bad sample.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { doorRules } from './tidy/doors.js';
import { layerRules } from './tidy/layers.js';
import { leftoverRules } from './tidy/leftovers.js';
import { countLines, FILE_LINES_AIM, shapeRules } from './tidy/shape.js';
import type { Fault, SourceFile } from './tidy/source-file.js';
import { isTypeScript } from './tidy/source-file.js';
import { wordRules } from './tidy/words.js';

const RULES = [...layerRules, ...doorRules, ...wordRules, ...shapeRules, ...leftoverRules];

/** Files of other kinds count as present, and are not read. */
const TEXT = ['.ts', '.js', '.mjs', '.json', '.md', '.sh', '.py', '.yml', '.yaml', '', '.c'];

export function tidy(files: readonly SourceFile[]): Fault[] {
  return RULES.flatMap((rule) => rule(files));
}

/** All files of the project, but for the folders that .gitignore names. */
export function readProject(root: string): SourceFile[] {
  const ignored = readFileSync(join(root, '.gitignore'), 'utf8')
    .split('\n')
    .filter((line) => line.endsWith('/'))
    .map((line) => line.slice(0, -1));
  const skipped = new Set(['.git', ...ignored]);
  const files: SourceFile[] = [];
  const visit = (folder: string): void => {
    for (const entry of readdirSync(join(root, folder), { withFileTypes: true })) {
      const path = folder === '' ? entry.name : `${folder}/${entry.name}`;
      if (entry.isDirectory()) {
        if (!skipped.has(entry.name)) visit(path);
      } else if (entry.isFile()) {
        const isText = TEXT.includes(extname(path)) && entry.name !== 'LICENSE';
        files.push({ path, text: isText ? readFileSync(join(root, path), 'utf8') : '' });
      }
    }
  };
  visit('');
  return files;
}

export function describeFault({ path, line, rule, message }: Fault): string {
  return `${path}${line === 0 ? '' : `:${line}`}  ${message}  [${rule}]`;
}

function main(): void {
  const files = readProject('.');
  const faults = tidy(files);
  for (const fault of faults) console.log(describeFault(fault));
  for (const { path, text } of files) {
    const lines = countLines(text);
    if (!isTypeScript(path) || lines <= FILE_LINES_AIM) continue;
    console.log(`note: ${path} has ${lines} lines, more than the ${FILE_LINES_AIM} we aim at`);
  }
  console.log(`${files.length} files, ${faults.length} faults`);
  process.exitCode = faults.length === 0 ? 0 : 1;
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) main();
