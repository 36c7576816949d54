import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { eachBitFlip, eachPrefix } from '../../test/support/bit-flips.js';
import { PLAIN_TREE, treeRecords } from '../../test/support/layout-values.js';
import { BLOCK_BYTES, HEIGHT_MAX } from '../base/units.js';
import { viewOf } from './bytes.js';
import { DEFAULT_POLICY } from './split-policy.js';
import {
  BAD_RANGES_MAX,
  decodeTreeRecord,
  encodeTreeRecord,
  TREE_RECORD_BYTES,
  TREE_RECORDS_PER_BLOCK,
  type TreeRecord,
} from './tree-record.js';

function encoded(record: TreeRecord): Uint8Array {
  // Old bytes must not shine through.
  const bytes = new Uint8Array(TREE_RECORD_BYTES).fill(0xee);
  encodeTreeRecord(record, bytes);
  return bytes;
}

const BAD = Array.from({ length: BAD_RANGES_MAX }, (_, i) => ({ fbn: i * 5, blocks: i + 1 }));
const SPLITTING: TreeRecord = {
  ...PLAIN_TREE,
  split: { mode: 'share', phase: 'filling', policy: DEFAULT_POLICY, positionFbn: 77, bad: BAD },
};

test('every record comes back', () => {
  fc.assert(
    fc.property(treeRecords, (record) => {
      assert.deepEqual(decodeTreeRecord(encoded(record)), record);
    }),
  );
});

test('sixteen fill a block', () => {
  assert.equal(TREE_RECORDS_PER_BLOCK, 16);
  assert.equal(TREE_RECORDS_PER_BLOCK * TREE_RECORD_BYTES, BLOCK_BYTES);
});

test('an empty slot is free, whatever its other bytes say', () => {
  assert.equal(decodeTreeRecord(new Uint8Array(TREE_RECORD_BYTES)), 'free');
  const bytes = encoded(SPLITTING);
  bytes.fill(0, 0, 8);
  assert.equal(decodeTreeRecord(bytes), 'free');
});

test('every truncation is refused', () => {
  eachPrefix(encoded(PLAIN_TREE), (prefix) => assert.equal(decodeTreeRecord(prefix), undefined));
});

test('every state, height, mode, phase, pace and flags byte: known or refused', () => {
  const known: readonly (readonly [number, readonly number[]])[] = [
    [8, [1, 2, 3]],
    [9, [1, 2, 3, 4, 5]],
    [10, [0, 1, 2]],
    [11, [1, 2, 3, 4]],
    [13, [0, 1, 2]],
    [14, [0, 2]],
    [104, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]],
  ];
  for (const [offset, values] of known) {
    for (let value = 0; value < 256; value++) {
      const bytes = encoded(SPLITTING);
      bytes[offset] = value;
      const record = decodeTreeRecord(bytes);
      assert.equal(typeof record === 'object', values.includes(value), `${value} at ${offset}`);
    }
  }
});

test('the flag of an external tree has a byte of its own, and ends a lineage', () => {
  const external = encoded({ ...PLAIN_TREE, isExternal: true });
  const plain = encoded(PLAIN_TREE);
  const changed = [...plain.keys()].filter((at) => plain[at] !== external[at]);
  assert.deepEqual(changed, [12]);
  for (let value = 0; value < 256; value++) {
    external[12] = value;
    assert.equal(decodeTreeRecord(external) !== undefined, value <= 1, `flags ${value}`);
    const split = encoded(SPLITTING);
    split[12] = value;
    assert.equal(decodeTreeRecord(split) !== undefined, value === 0, `split, flags ${value}`);
    const over = encoded({ ...PLAIN_TREE, backingId: 2 });
    over[12] = value;
    assert.equal(decodeTreeRecord(over) !== undefined, value === 0, `backing, flags ${value}`);
  }
});

test('a number of 2^53 or more is refused in every field', () => {
  const offsets = [0, 32, 40, 48, 56, 64, 72, 80, 88, 96, 136];
  for (const offset of offsets) {
    for (const value of [2n ** 53n, 2n ** 64n - 1n]) {
      const bytes = encoded(SPLITTING);
      viewOf(bytes).setBigUint64(offset, value, true);
      assert.equal(decodeTreeRecord(bytes), undefined, `${value} at ${offset}`);
    }
  }
});

test('each bad range has twelve bytes of its own, the last ending with the record', () => {
  const split = { mode: 'copy', phase: 'filling', policy: DEFAULT_POLICY, positionFbn: 0 } as const;
  const plain = BAD.map(() => ({ fbn: 0, blocks: 0 }));
  const before = encoded({ ...PLAIN_TREE, split: { ...split, bad: plain } });
  for (let index = 0; index < BAD_RANGES_MAX; index++) {
    const bad = plain.with(index, { fbn: 2 ** 53 - 1, blocks: 2 ** 32 - 1 });
    const after = encoded({ ...PLAIN_TREE, split: { ...split, bad } });
    for (let at = 0; at < TREE_RECORD_BYTES; at++) {
      const start = 136 + index * 12;
      // 2^53 - 1 leaves the highest byte of its eight at zero.
      const isOwn = at >= start && at < start + 12 && at !== start + 7;
      assert.equal(before[at] !== after[at], isOwn, `range ${index}, byte ${at}`);
    }
  }
  assert.equal(136 + BAD_RANGES_MAX * 12, TREE_RECORD_BYTES);
});

test('no flipped bit makes the decoder throw', () => {
  eachBitFlip(encoded(SPLITTING), 0, TREE_RECORD_BYTES, (flipped) => decodeTreeRecord(flipped));
});

test('what a decoder would refuse is never written', () => {
  const wrong: readonly Partial<TreeRecord>[] = [
    { id: 0 },
    { height: 0 },
    { height: HEIGHT_MAX + 1 },
    { sizeBytes: -1 },
    { isExternal: true, backingId: 2 },
    { isExternal: true, split: SPLITTING.split },
    {
      split: {
        mode: 'copy',
        phase: 'paused',
        policy: DEFAULT_POLICY,
        positionFbn: 0,
        bad: [...BAD, { fbn: 1, blocks: 1 }],
      },
    },
  ];
  for (const change of wrong) {
    assert.throws(() => encoded({ ...PLAIN_TREE, ...change }), { name: 'InvariantError' });
  }
});
