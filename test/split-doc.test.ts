/** docs/SPLIT.md names functions and tests: each stands in the file that it is said to be in. */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';

const ROOT = new URL('../', import.meta.url);
const TEXT = readFileSync(new URL('docs/SPLIT.md', ROOT), 'utf8');

/** The rows of the table behind the mark. */
function rowsBehind(mark: string): string[] {
  const behind = TEXT.split(`<!-- ${mark} -->\n`)[1];
  assert.ok(behind !== undefined, `there is a table of ${mark}`);
  const table =
    behind
      .trimStart()
      .split('\n\n')
      .find((part) => part.startsWith('|')) ?? '';
  return table.trim().split('\n').slice(2);
}

function escaped(name: string): string {
  return name.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&');
}

/** A test or a group of tests has the name, whole or behind a variable. */
function hasTest(source: string, name: string): boolean {
  return new RegExp(`['\`](?:\\$\\{\\w+\\}: )?${escaped(name)}['\`]`).test(source);
}

function defines(source: string, name: string): boolean {
  const named = escaped(name);
  return new RegExp(`(?:function\\*?|class|const) ${named}\\b|^  (?:async )?${named}\\(`, 'm').test(
    source,
  );
}

for (const [mark, rowsMin] of [
  ['guarantees', 15],
  ['faults', 6],
  ['claims', 10],
] as const) {
  test(`docs/SPLIT.md, ${mark}: what each row names is there`, () => {
    const rows = rowsBehind(mark);
    assert.ok(rows.length >= rowsMin, `${rows.length} rows`);
    for (const row of rows) {
      let path = '';
      let tests = 0;
      for (const [, span = ''] of row.matchAll(/`([^`]+)`/g)) {
        if (/^(?:src|test)\/.*\.ts$/.test(span)) {
          path = span;
          assert.ok(existsSync(new URL(path, ROOT)), `${path} is there`);
        } else if (path !== '') {
          const source = readFileSync(new URL(path, ROOT), 'utf8');
          const isTest = path.endsWith('.test.ts');
          const isThere = isTest ? hasTest(source, span) : defines(source, span);
          assert.ok(isThere, `${path} has ${span}`);
          if (isTest) tests++;
        }
      }
      assert.ok(tests > 0, `a test shows it: ${row}`);
    }
  });
}

test('docs/SPLIT.md speaks of every claim once', () => {
  const numbers = rowsBehind('claims').flatMap((row) =>
    (row.split('|')[1] ?? '').split(',').map(Number),
  );
  assert.deepEqual(
    numbers.toSorted((a, b) => a - b),
    Array.from({ length: 20 }, (_, index) => index + 1),
  );
});
