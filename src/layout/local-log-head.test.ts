import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eachBitFlip } from '../../test/support/bit-flips.js';
import { crc32 } from '../base/checksum.js';
import { BLOCK_BYTES } from '../base/units.js';
import { viewOf } from './bytes.js';
import { decodeLocalLogHead, encodeLocalLogHead, type LocalLogHead } from './local-log-head.js';

const id = (value: number): Uint8Array => new Uint8Array(16).fill(value);
const HEAD: LocalLogHead = {
  store: id(1),
  generation: 2 ** 40 + 7,
  deviceBlocks: 2048,
  ring: id(2),
  epoch: 9,
  ringBefore: id(3),
};

test('a head comes back as it was; what was never written is blank', () => {
  assert.deepEqual(decodeLocalLogHead(encodeLocalLogHead(HEAD)), HEAD);
  assert.equal(decodeLocalLogHead(new Uint8Array(BLOCK_BYTES)), 'blank');
});

test('every flipped bit of a head is noticed', () => {
  const bytes = encodeLocalLogHead(HEAD);
  let count = 0;
  eachBitFlip(bytes, 0, BLOCK_BYTES, (flipped, position) => {
    const found = decodeLocalLogHead(flipped);
    assert.equal(found, count < 64 ? 'foreign' : 'damaged', position);
    count++;
  });
  assert.equal(count, BLOCK_BYTES * 8);
});

test('what it says is in its first sector, so that a torn one is whole, or blank', () => {
  assert.ok(
    encodeLocalLogHead(HEAD)
      .subarray(512)
      .every((byte) => byte === 0),
  );
});

test('a newer version is told from damage, a number beyond 2^53 is damage', () => {
  const forged = (change: (view: DataView) => void): ReturnType<typeof decodeLocalLogHead> => {
    const bytes = encodeLocalLogHead(HEAD);
    change(viewOf(bytes));
    viewOf(bytes).setUint32(8, crc32(bytes.subarray(12)), true);
    return decodeLocalLogHead(bytes);
  };
  assert.equal(
    forged((view) => view.setUint32(12, 2, true)),
    'newer',
  );
  for (const at of [36, 44, 68]) {
    assert.equal(
      forged((view) => view.setUint32(at, 0xffff_ffff, true)),
      'damaged',
    );
  }
});
