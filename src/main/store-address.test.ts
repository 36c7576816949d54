import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isStoreError } from '../base/store-error.js';
import { parseStoreAddress } from './store-address.js';

test('files, directories and buckets', () => {
  for (const path of ['disks.keiki', '/dev/sdb', './dir:x', 'S3:x']) {
    assert.deepEqual(parseStoreAddress(path), { kind: 'file', path });
  }
  const directory = { kind: 'directory', path: '/mnt/a', prefix: 'store' };
  assert.deepEqual(parseStoreAddress('dir:/mnt/a'), directory);
  const one = { kind: 's3', bucket: 'b-1', prefix: '1f0c/a/one' };
  assert.deepEqual(parseStoreAddress('s3://b-1/a/one'), one);
  assert.deepEqual(parseStoreAddress('s3://b-1//a/one//'), one, 'slashes around it do not count');
});

test('what cannot be meant is refused, and made into no file', () => {
  for (const text of [
    'dir:',
    's3://b',
    's3://b/',
    's3:///a',
    's3://b/a b',
    's3://b/a//b',
    'gs://b/a',
  ]) {
    assert.throws(
      () => parseStoreAddress(text),
      (error) => isStoreError(error, 'invalid'),
      text,
    );
  }
});
