/**
 * The shape of files and folders: names, sizes, what opens them, and what never stands in them.
 */
import { posix } from 'node:path';
import { type Fault, isTest, isTypeScript, lineRule, type Rule } from './source-file.js';

/** A file of this many lines asks to be read again; `npm run tidy` names it. */
export const FILE_LINES_AIM = 300;
/** A file of more lines than this is two files. */
export const FILE_LINES_MAX = 600;
const LINE_COLUMNS_MAX = 100;
const NAME_COLUMNS_MAX = 120;
const README_LINES_MAX = 15;

/** Names that say nothing about what a file owns. */
const EMPTY_NAMES = ['util', 'utils', 'helper', 'helpers', 'common', 'manager', 'misc', 'shared'];

export function countLines(text: string): number {
  const lines = text.split('\n');
  return lines.at(-1) === '' ? lines.length - 1 : lines.length;
}

function fileRule(rule: string, check: (path: string, text: string) => string | undefined): Rule {
  return (files) =>
    files.flatMap(({ path, text }): Fault[] => {
      const message = check(path, text);
      return message === undefined ? [] : [{ path, line: 0, rule, message }];
    });
}

const fileLines = fileRule('file-lines', (path, text) => {
  const lines = countLines(text);
  if (!isTypeScript(path) || lines <= FILE_LINES_MAX) return undefined;
  return `${lines} lines, at most ${FILE_LINES_MAX}: find the two things it owns`;
});

/** A test's name, which reads better in one piece: the call and the string are all of the line. */
function isName(line: string): boolean {
  const isCall = /^\s*(test|it|describe|[a-z][A-Za-z]+)\('[^']+', .*\{$/.test(line);
  return isCall && [...line].length <= NAME_COLUMNS_MAX;
}

const lineColumns = lineRule('line-columns', isTypeScript, (line) => {
  const columns = [...line].length;
  if (columns <= LINE_COLUMNS_MAX || line.includes('https://') || isName(line)) return undefined;
  return `${columns} columns, at most ${LINE_COLUMNS_MAX}`;
});

const fileNames = fileRule('file-names', (path) => {
  if (!isTypeScript(path)) return undefined;
  const name = posix.basename(path).replace(/(\.(test|fuzz))?(\.d)?\.ts$/, '');
  if (!/^[a-z0-9]+(-[a-z0-9]+)*$/.test(name)) return 'file names are kebab-case';
  return EMPTY_NAMES.includes(name) ? `'${name}' says nothing: name what it owns` : undefined;
});

const opening = fileRule('opening', (path, text) => {
  if (!path.startsWith('src/') || !isTypeScript(path) || isTest(path)) return undefined;
  return text.startsWith('/**') ? undefined : 'opens without a comment that says what it owns';
});

/** Each folder of src that holds code, here or deeper, has a short README.md. */
const readmes: Rule = (files) => {
  const folders = new Set<string>();
  for (const { path } of files) {
    if (!path.startsWith('src/') || !isTypeScript(path)) continue;
    for (let folder = posix.dirname(path); folder !== 'src'; folder = posix.dirname(folder)) {
      folders.add(folder);
    }
  }
  const texts = new Map(files.map((file) => [file.path, file.text]));
  return [...folders].sort().flatMap((folder): Fault[] => {
    const path = `${folder}/README.md`;
    const text = texts.get(path);
    const fault = (message: string): Fault[] => [{ path, line: 0, rule: 'readmes', message }];
    if (text === undefined) return fault('missing: what it owns, may use, must not know');
    const lines = countLines(text);
    if (lines <= README_LINES_MAX) return [];
    return fault(`${lines} lines, at most ${README_LINES_MAX}`);
  });
};

/** A relative link of a document leads to a file or folder that is there. */
const links: Rule = (files) => {
  const there = new Set<string>();
  for (const { path } of files) {
    for (let place = path; place !== '.'; place = posix.dirname(place)) there.add(place);
  }
  const check = lineRule(
    'links',
    (path) => path.endsWith('.md'),
    (line, path) => {
      for (const [, target = ''] of line.matchAll(/\]\(([^)\s#]+)[^)]*\)/g)) {
        if (/^[a-z]+:/.test(target)) continue;
        const place = posix.join(posix.dirname(path), target).replace(/\/$/, '');
        if (!there.has(place)) return `leads to ${place}, which is not there`;
      }
      return undefined;
    },
  );
  return check(files);
};

export const shapeRules: readonly Rule[] = [
  fileLines,
  lineColumns,
  fileNames,
  opening,
  readmes,
  links,
];
