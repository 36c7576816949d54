import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BLOCK_BYTES, SEGMENT_BLOCKS } from '../base/units.js';
import {
  SEGMENT_DATA,
  SEGMENT_FREE,
  SEGMENT_META,
  SEGMENT_MIRROR,
  SEGMENT_RESERVED,
  USAGE_BLOCK_VBNS,
  USAGE_ENTRIES_PER_BLOCK,
  USAGE_ENTRY_BYTES,
  usageKind,
  usageLive,
  usageWord,
} from './usage-entry.js';

test('every live count and kind comes back', () => {
  const kinds = [SEGMENT_FREE, SEGMENT_DATA, SEGMENT_META, SEGMENT_MIRROR, SEGMENT_RESERVED];
  assert.equal(new Set(kinds).size, kinds.length);
  for (const kind of kinds) {
    for (let live = 0; live <= SEGMENT_BLOCKS; live++) {
      const word = usageWord(live, kind);
      assert.deepEqual([usageLive(word), usageKind(word)], [live, kind]);
    }
  }
});

test('a hole of the usage file is free entries', () => {
  assert.deepEqual([usageLive(0), usageKind(0)], [0, SEGMENT_FREE]);
});

test('512 entries of 8 bytes fill a block and count 512 segments', () => {
  assert.equal(USAGE_ENTRIES_PER_BLOCK * USAGE_ENTRY_BYTES, BLOCK_BYTES);
  assert.equal(USAGE_BLOCK_VBNS, USAGE_ENTRIES_PER_BLOCK * SEGMENT_BLOCKS);
});
