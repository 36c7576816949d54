import assert from 'node:assert/strict';
import { test } from 'node:test';
import { AnyName, SnapshotName, VdiskName } from '../control/name-schemas.js';
import {
  ANY_NAME,
  SNAPSHOT_NAME,
  toAnyName,
  toSizeBytes,
  toVdiskName,
  VDISK_NAME,
} from './arguments.js';
import { toSnapshots } from './commands/clone-commands.js';

test('names are those of the API', () => {
  const patterns = [VdiskName, SnapshotName, AnyName].map(
    (schema) => (schema as unknown as { readonly pattern: string }).pattern,
  );
  assert.deepEqual(
    [VDISK_NAME, SNAPSHOT_NAME, ANY_NAME].map(({ source }) => source),
    patterns,
  );
});

test('a name is refused with what is meant', () => {
  assert.equal(toVdiskName('web-1.a:b+c_d'), 'web-1.a:b+c_d');
  assert.equal(toAnyName('golden'), 'golden');
  assert.equal(toAnyName('golden@v1'), 'golden@v1');
  assert.throws(() => toVdiskName('golden@v1'), /not a snapshot/);
  for (const text of ['', '-a', '.a', 'a b', 'a/b', 'a@', '@a', 'a@b@c', 'ä', 'a'.repeat(256)]) {
    assert.throws(() => toAnyName(text), /1 to 255/, text);
  }
});

test('sizes are what vdisks can have', () => {
  const sizes: readonly (readonly [string, number])[] = [
    ['512', 512],
    ['20G', 20 * 1024 ** 3],
    ['1.5T', 1.5 * 1024 ** 4],
    ['64MiB', 64 * 1024 ** 2],
    ['4k', 4096],
    ['1P', 1024 ** 5],
  ];
  for (const [text, bytes] of sizes) assert.equal(toSizeBytes(text), bytes, text);
  for (const text of ['0', '511', '513', '2P', '1000']) {
    assert.throws(() => toSizeBytes(text), /multiple of 512/, text);
  }
  for (const text of ['', 'x', '-1', '20GB', '1e9', '12Q']) {
    assert.throws(() => toSizeBytes(text), /A size is/, text);
  }
});

test('snapshots are named once for all vdisks, or for each of them', () => {
  assert.deepEqual(toSnapshots(['a', 'b', 's']), [
    { vdisk: 'a', snapshot: 's' },
    { vdisk: 'b', snapshot: 's' },
  ]);
  assert.deepEqual(toSnapshots(['a@x', 'b@y']), [
    { vdisk: 'a', snapshot: 'x' },
    { vdisk: 'b', snapshot: 'y' },
  ]);
  assert.throws(() => toSnapshots(['a']), /name of the snapshot is missing/);
  assert.throws(() => toSnapshots(['a@x', 'b']), /a@x names its snapshot/);
  assert.throws(() => toSnapshots(['a', 'b@y']), /b@y names its snapshot/);
});
