import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  ownersAt,
  REFERENCE_ENTRIES_PER_BLOCK,
  REFERENCE_WORDS,
  toggleOwner,
} from './reference-entry.js';

test('256 entries fill a block', () => {
  assert.equal(REFERENCE_ENTRIES_PER_BLOCK * REFERENCE_WORDS * 4, 4096);
});

test('when all owners but one are taken away, in any order, the id of that one is left', () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.integer({ min: 1, max: 2 ** 53 - 1 }), { minLength: 1, maxLength: 8 }),
      fc.gen(),
      (owners, gen) => {
        const words = new Uint32Array(12).fill(0xdead_beef);
        words.fill(0, 4, 8);
        for (const owner of owners) toggleOwner(words, 4, owner);
        const all = { minLength: owners.length, maxLength: owners.length };
        const leaving = gen(fc.shuffledSubarray, owners, all);
        const last = leaving.pop();
        for (const owner of leaving) toggleOwner(words, 4, owner);
        assert.equal(ownersAt(words, 4), last);
        assert.deepEqual([words[4], words[5]], [0, 0], 'the count is the caller’s');
        for (const word of [0, 1, 2, 3, 8, 9, 10, 11]) assert.equal(words[word], 0xdead_beef);
      },
    ),
  );
});
