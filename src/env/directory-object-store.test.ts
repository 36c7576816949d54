/** What a directory adds to the contract of an object store (test/contract). */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { isStoreError } from '../base/store-error.js';
import { DirectoryObjectStore, openDirectory } from './directory-object-store.js';
import { seededRandom } from './seeded-random.js';

let path: string;
let objects: DirectoryObjectStore;
beforeEach(() => {
  path = mkdtempSync(join(tmpdir(), 'keiki-directory-'));
  objects = new DirectoryObjectStore({ path, random: seededRandom(1) });
});
afterEach(() => rmSync(path, { recursive: true }));

test('keys that would lead elsewhere, or collide with names of its own, are objects', async () => {
  const keys = ['../outside', '..', '.', '/top', 'a//b', 'a/', 'a.object', '.unfinished/x', '%'];
  for (const key of keys) assert.equal(await objects.putNew(key, [Buffer.from(key)]), 'created');
  for (const key of keys) assert.equal(Buffer.from((await objects.get(key)) ?? []).toString(), key);
  assert.deepEqual((await objects.list('')).toSorted(), keys.toSorted());
});

test('a file that a crash left unfinished is no object, and none stays after a put', async () => {
  mkdirSync(join(path, '.unfinished'));
  writeFileSync(join(path, '.unfinished', 'left'), 'half');
  await objects.putNew('k', []);
  assert.equal(await objects.putNew('k', []), 'exists');
  assert.deepEqual(await objects.list(''), ['k']);
  assert.deepEqual(readdirSync(join(path, '.unfinished')), ['left']);
});

test('an object of many chunks, more than one call of the system takes', async () => {
  const chunks = Array.from({ length: 3000 }, (_, at) => new Uint8Array(10).fill(at));
  await objects.putNew('k', chunks);
  assert.ok(Buffer.concat(chunks).equals((await objects.get('k')) ?? new Uint8Array()));
});

test('a directory that is not there, or is a file, is refused', async () => {
  writeFileSync(join(path, 'file'), '');
  const random = seededRandom(1);
  const open = (name: string): Promise<unknown> =>
    openDirectory({ path: join(path, name), random });
  await assert.rejects(open('none'), (error) => isStoreError(error, 'not-found'));
  await assert.rejects(open('file'), (error) => isStoreError(error, 'invalid'));
});
