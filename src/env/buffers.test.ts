import assert from 'node:assert/strict';
import { test } from 'node:test';
import { gather, joined, totalBytes, withoutFirst } from './buffers.js';

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

test('gather: what there is room for, in order', () => {
  for (const pieces of cuttings()) {
    for (let room = 0; room <= 12; room++) {
      const into = Buffer.alloc(room, 0xff);
      const filled = gather(pieces, into);
      assert.equal(filled.buffer, into.buffer);
      assert.deepEqual(Uint8Array.from(filled), all.slice(0, room));
      assert.ok(into.subarray(filled.length).every((byte) => byte === 0xff));
    }
  }
});
