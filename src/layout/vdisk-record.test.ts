import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { eachBitFlip, eachPrefix } from '../../test/support/bit-flips.js';
import { PLAIN_VDISK, vdiskRecords } from '../../test/support/layout-values.js';
import { BLOCK_BYTES } from '../base/units.js';
import { viewOf } from './bytes.js';
import {
  decodeVdiskRecord,
  encodeVdiskRecord,
  NAME_BYTES_MAX,
  VDISK_RECORD_BYTES,
  VDISK_RECORDS_PER_BLOCK,
  type VdiskRecord,
} from './vdisk-record.js';

function encoded(record: VdiskRecord): Uint8Array {
  // Old bytes must not shine through.
  const bytes = new Uint8Array(VDISK_RECORD_BYTES).fill(0xee);
  encodeVdiskRecord(record, bytes);
  return bytes;
}

test('every record comes back', () => {
  fc.assert(
    fc.property(vdiskRecords, (record) => {
      assert.deepEqual(decodeVdiskRecord(encoded(record)), record);
    }),
  );
});

test('a name of 255 bytes and one that begins with a byte order mark come back', () => {
  for (const name of ['n'.repeat(NAME_BYTES_MAX), '\ufeffdisk', 'ö'.repeat(127), '\0']) {
    assert.deepEqual(decodeVdiskRecord(encoded({ ...PLAIN_VDISK, name })), {
      ...PLAIN_VDISK,
      name,
    });
  }
});

test('eight fill a block', () => {
  assert.equal(VDISK_RECORDS_PER_BLOCK, 8);
  assert.equal(VDISK_RECORDS_PER_BLOCK * VDISK_RECORD_BYTES, BLOCK_BYTES);
});

test('an empty slot is free', () => {
  assert.equal(decodeVdiskRecord(new Uint8Array(VDISK_RECORD_BYTES)), 'free');
});

test('every truncation is refused', () => {
  eachPrefix(encoded(PLAIN_VDISK), (prefix) => assert.equal(decodeVdiskRecord(prefix), undefined));
});

test('every kind and state byte and every length of the name: known or refused', () => {
  for (const [offset, most] of [
    [8, 3],
    [9, 2],
  ] as const) {
    for (let value = 0; value < 256; value++) {
      const bytes = encoded(PLAIN_VDISK);
      bytes[offset] = value;
      assert.equal(decodeVdiskRecord(bytes) !== undefined, value >= 1 && value <= most);
    }
  }
  for (let length = 0; length < 65536; length++) {
    const bytes = encoded(PLAIN_VDISK);
    viewOf(bytes).setUint16(10, length, true);
    const isName = length >= 1 && length <= NAME_BYTES_MAX;
    assert.equal(decodeVdiskRecord(bytes) !== undefined, isName, `${length} bytes`);
  }
});

test('a name that is not UTF-8 is refused', () => {
  for (const name of [[0x80], [0xc3], [0xff], [0xc0, 0xaf], [0xed, 0xa0, 0x80], [0xf8, 0x88]]) {
    const bytes = encoded(PLAIN_VDISK);
    viewOf(bytes).setUint16(10, name.length, true);
    bytes.set(name, 64);
    assert.equal(decodeVdiskRecord(bytes), undefined);
  }
});

test('a number of 2^53 or more is refused in every field', () => {
  for (const offset of [0, 16, 24, 48, 56]) {
    for (const value of [2n ** 53n, 2n ** 64n - 1n]) {
      const bytes = encoded(PLAIN_VDISK);
      viewOf(bytes).setBigUint64(offset, value, true);
      assert.equal(decodeVdiskRecord(bytes), undefined, `${value} at ${offset}`);
    }
  }
});

test('no flipped bit makes the decoder throw', () => {
  eachBitFlip(encoded(PLAIN_VDISK), 0, VDISK_RECORD_BYTES, (flipped) => decodeVdiskRecord(flipped));
});

test('what a decoder would refuse is never written', () => {
  for (const change of [{ id: 0 }, { name: '' }, { name: 'n'.repeat(256) }, { createdCp: 0.5 }]) {
    assert.throws(() => encoded({ ...PLAIN_VDISK, ...change }), { name: 'InvariantError' });
  }
});
