/**
 * The list of deliberate bugs does not rot: each can still be put in, and something must catch it.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { test } from 'node:test';
import { BUGS } from './bugs.js';

test('each patch finds its place exactly once, and changes it', () => {
  for (const { name, patches } of BUGS) {
    assert.ok(patches.length > 0, name);
    for (const { file, find, replace } of patches) {
      const places = readFileSync(file, 'utf8').split(find).length - 1;
      assert.equal(places, 1, `${name}: ${file} holds this ${places} times: ${find}`);
      assert.notEqual(find, replace, name);
    }
  }
});

test('each bug has a name of its own, and a test or a run that catches it', () => {
  assert.equal(new Set(BUGS.map(({ name }) => name)).size, BUGS.length);
  for (const { name, caughtBy } of BUGS) {
    assert.ok(caughtBy.length > 0, `${name}: nothing catches it`);
    for (const catcher of caughtBy) {
      if (catcher.kind === 'test') assert.ok(existsSync(catcher.file), catcher.file);
    }
  }
});

test('docs/TESTING.md has a line for each bug', () => {
  const page = readFileSync('docs/TESTING.md', 'utf8');
  for (const { name } of BUGS) assert.ok(page.includes(`| ${name} |`), name);
});
