import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { eachBitFlip, eachPrefix } from '../../test/support/bit-flips.js';
import {
  externalDescriptors,
  PLAIN_DESCRIPTOR,
  PLAIN_FILE,
} from '../../test/support/layout-values.js';
import { BLOCK_BYTES, SPAN_BLOCKS } from '../base/units.js';
import { viewOf } from './bytes.js';
import {
  DESCRIPTOR_BLOCKS_MAX,
  DESCRIPTOR_FBN,
  decodeExternalDescriptor,
  descriptorBlocks,
  EXTERNAL_HEIGHT,
  encodeExternalDescriptor,
} from './external-descriptor.js';

const TWO = {
  ...PLAIN_DESCRIPTOR,
  files: [
    PLAIN_FILE,
    { ...PLAIN_FILE, path: '/images/ö.qcow2', modifiedSeconds: 1, modifiedNs: 7 },
  ],
};

test('every descriptor comes back, with zeros behind it or not', () => {
  fc.assert(
    fc.property(externalDescriptors, (descriptor) => {
      const bytes = encodeExternalDescriptor(descriptor);
      assert.deepEqual(decodeExternalDescriptor(bytes), descriptor);
      const blocks = descriptorBlocks(bytes);
      assert.equal(blocks, Math.ceil(bytes.length / BLOCK_BYTES));
      const padded = new Uint8Array(blocks * BLOCK_BYTES);
      padded.set(bytes);
      assert.deepEqual(decodeExternalDescriptor(padded), descriptor);
    }),
    { numRuns: 30 },
  );
});

test('it stands behind every vdisk, in a tree that is high enough', () => {
  const end = SPAN_BLOCKS[EXTERNAL_HEIGHT] as number;
  assert.ok(DESCRIPTOR_FBN + DESCRIPTOR_BLOCKS_MAX <= end);
  assert.ok(DESCRIPTOR_FBN >= (SPAN_BLOCKS[EXTERNAL_HEIGHT - 1] as number));
});

test('every truncation is refused', () => {
  eachPrefix(encodeExternalDescriptor(TWO), (prefix) => {
    assert.equal(decodeExternalDescriptor(prefix), undefined, `${prefix.length} bytes`);
  });
});

test('lengths and counts that do not fit together are refused', () => {
  for (const [offset, value] of [
    [0, 0],
    [8, 0],
    [8, 2 ** 32 - 1],
    [8, DESCRIPTOR_BLOCKS_MAX * BLOCK_BYTES + 1],
    [12, 0],
    [12, 4],
    [24, 0],
    [24, 1],
    [24, 3],
    [24, 65],
    [40, 40],
    [40, 2 ** 32 - 8],
    [44, 0],
    [44, 9],
    [64, 1_000_000_000],
  ] as const) {
    const bytes = encodeExternalDescriptor(TWO);
    viewOf(bytes).setUint32(offset, value, true);
    assert.equal(decodeExternalDescriptor(bytes), undefined, `${value} at ${offset}`);
  }
  for (const offset of [16, 48, 56]) {
    const bytes = encodeExternalDescriptor(TWO);
    viewOf(bytes).setBigUint64(offset, 2n ** 53n, true);
    assert.equal(decodeExternalDescriptor(bytes), undefined, `2^53 at ${offset}`);
  }
  const bytes = encodeExternalDescriptor(TWO);
  bytes[80] = 0xff;
  assert.equal(decodeExternalDescriptor(bytes), undefined, 'a path that is no UTF-8');
});

test('no flipped bit makes the decoder throw', () => {
  const bytes = encodeExternalDescriptor(TWO);
  eachBitFlip(bytes, 0, bytes.length, (flipped) => decodeExternalDescriptor(flipped));
});
