import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  BLOCK_BYTES,
  FIELDS_PER_BLOCK,
  formatBytes,
  GIB,
  HEIGHT_MAX,
  heightFor,
  KIB,
  MIB,
  PIB,
  SEGMENT_BYTES,
  SPAN_BLOCKS,
  STORE_BYTES_MAX,
  TIB,
  toBlocks,
  VDISK_BYTES_MAX,
} from './units.js';

test('sizes follow from one another', () => {
  assert.equal(FIELDS_PER_BLOCK * 16, BLOCK_BYTES);
  assert.equal(SEGMENT_BYTES, 4 * MIB);
  assert.equal(SPAN_BLOCKS.length, HEIGHT_MAX + 1);
  for (let level = 1; level <= HEIGHT_MAX; level++) {
    assert.equal(SPAN_BLOCKS[level], (SPAN_BLOCKS[level - 1] ?? 0) * FIELDS_PER_BLOCK);
  }
  assert.equal((SPAN_BLOCKS[HEIGHT_MAX] ?? 0) * BLOCK_BYTES, STORE_BYTES_MAX);
});

test('toBlocks: a block begun is a block', () => {
  assert.equal(toBlocks(0), 0);
  assert.equal(toBlocks(1), 1);
  assert.equal(toBlocks(BLOCK_BYTES - 1), 1);
  assert.equal(toBlocks(BLOCK_BYTES), 1);
  assert.equal(toBlocks(BLOCK_BYTES + 1), 2);
  assert.equal(toBlocks(PIB), PIB / BLOCK_BYTES);
});

test('heightFor: the smallest height that covers, at every edge', () => {
  assert.equal(heightFor(0), 1);
  assert.equal(heightFor(512), 1);
  for (let height = 1; height < HEIGHT_MAX; height++) {
    const coveredBytes = (SPAN_BLOCKS[height] ?? 0) * BLOCK_BYTES;
    assert.equal(heightFor(coveredBytes - 512), height);
    assert.equal(heightFor(coveredBytes), height);
    assert.equal(heightFor(coveredBytes + 512), height + 1);
  }
  assert.equal(heightFor(VDISK_BYTES_MAX), HEIGHT_MAX);
  assert.equal(heightFor(STORE_BYTES_MAX), HEIGHT_MAX);
});

test('formatBytes: three digits, four from 1000 on', () => {
  const cases: [number, string][] = [
    [0, '0 B'],
    [1, '1 B'],
    [1023, '1023 B'],
    [KIB, '1 KiB'],
    [4 * KIB, '4 KiB'],
    [1.5 * GIB, '1.5 GiB'],
    [1000 * MIB, '1000 MiB'],
    [1023 * MIB, '1023 MiB'],
    [TIB, '1 TiB'],
    [4 * PIB, '4 PiB'],
    [5000 * PIB, '5000 PiB'],
    [123_456_789, '118 MiB'],
  ];
  for (const [bytes, text] of cases) assert.equal(formatBytes(bytes), text);
});
