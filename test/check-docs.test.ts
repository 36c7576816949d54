/** The table of faults in docs/DURABILITY.md lists what the check can find, in its order. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { FAULT_KINDS } from '../src/store/check/check-report.js';

test('docs/DURABILITY.md lists every kind of fault', () => {
  const text = readFileSync(new URL('../docs/DURABILITY.md', import.meta.url), 'utf8');
  const table = text.split('<!-- kinds of faults -->')[1]?.split('\n## ')[0] ?? '';
  const kinds = [...table.matchAll(/^\| `([a-z-]+)` \|/gm)].map((match) => match[1]);
  assert.deepEqual(kinds, FAULT_KINDS);
});
