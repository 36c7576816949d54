/** Manifest and list of records: what was written comes back, and damage is found. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eachBitFlip, eachPrefix } from '../../test/support/bit-flips.js';
import { UUID } from '../../test/support/layout-values.js';
import {
  decodeManifest,
  decodeRecordList,
  encodeManifest,
  encodeRecordList,
  type Manifest,
} from './publication.js';

const MANIFEST: Manifest = {
  uuid: UUID,
  name: 'golden-image@v1.2',
  sizeBytes: 5 * 2 ** 40 + 512,
  cpNumber: 77,
  wallMs: 1_700_000_000_000,
  trees: [
    { root: [5, 0x0200_0001, 0xffff_ffff, 0], height: 4, readThroughLimitBytes: 2 ** 41 + 5 },
    { root: [0, 0, 0, 0], height: 1, readThroughLimitBytes: 0 },
  ],
};
const RUNS = [
  { first: 2, count: 1 },
  { first: 4, count: 1000 },
  { first: 2 ** 40, count: 3 },
];

test('a manifest comes back as it was', () => {
  assert.deepEqual(decodeManifest(encodeManifest(MANIFEST)), MANIFEST);
});

test('a list of records comes back as it was, to its own store only', () => {
  assert.deepEqual(decodeRecordList(UUID, encodeRecordList(UUID, RUNS)), RUNS);
  assert.deepEqual(decodeRecordList(UUID, encodeRecordList(UUID, [])), []);
  assert.equal(decodeRecordList(new Uint8Array(16), encodeRecordList(UUID, RUNS)), undefined);
});

test('every flipped bit and every cut is found', () => {
  for (const bytes of [encodeManifest(MANIFEST), encodeRecordList(UUID, RUNS)]) {
    const read = (some: Uint8Array): unknown =>
      decodeManifest(some) ?? decodeRecordList(UUID, some);
    assert.notEqual(read(bytes), undefined);
    const isFound = (some: Uint8Array, where: string): void =>
      assert.equal(read(some), undefined, where);
    eachBitFlip(bytes, 0, bytes.length, isFound);
    eachPrefix(bytes, (prefix) => isFound(prefix, `${prefix.length} bytes`));
  }
});

test('runs that overlap, or are out of order, are refused', () => {
  const [a, b] = RUNS as [(typeof RUNS)[number], (typeof RUNS)[number]];
  for (const runs of [[b, a], [a, a], [{ first: 1, count: 5 }, b], [{ first: 0, count: 1 }]]) {
    assert.equal(decodeRecordList(UUID, encodeRecordList(UUID, runs)), undefined);
  }
});
