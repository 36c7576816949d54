import assert from 'node:assert/strict';
import { test } from 'node:test';
import { joined, totalBytes, withoutFirst } from './buffers.js';

const all = Uint8Array.from({ length: 10 }, (_, index) => index);

/** The ten bytes in every set of pieces with at most two cuts, and empty pieces. */
function* cuttings(): Generator<Uint8Array[]> {
  for (let first = 0; first <= 10; first++) {
    for (let second = first; second <= 10; second++) {
      yield [all.subarray(0, first), all.subarray(first, second), all.subarray(second)];
    }
  }
}

test('totalBytes and joined: all pieces, in order', () => {
  for (const pieces of cuttings()) {
    assert.equal(totalBytes(pieces), 10);
    assert.deepEqual(joined(pieces), all);
  }
  assert.equal(totalBytes([]), 0);
  assert.notEqual(joined([all]).buffer, all.buffer);
});

test('withoutFirst: what is left after any number of bytes, in the same memory', () => {
  for (const pieces of cuttings()) {
    for (let skip = 0; skip <= 10; skip++) {
      const rest = withoutFirst(pieces, skip);
      assert.deepEqual(joined(rest), all.slice(skip));
      for (const piece of rest) {
        assert.equal(piece.buffer, all.buffer);
        assert.ok(piece.length > 0);
      }
    }
  }
});
