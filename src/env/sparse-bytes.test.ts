import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededRandom } from './seeded-random.js';
import { SparseBytes } from './sparse-bytes.js';

const CHUNK_BYTES = 16;
const SIZE_BYTES = 5 * CHUNK_BYTES;

test('every range, written into zeros and read back', () => {
  for (let start = 0; start < SIZE_BYTES; start += 3) {
    for (let end = start; end <= SIZE_BYTES; end++) {
      const bytes = new SparseBytes(CHUNK_BYTES);
      const model = new Uint8Array(SIZE_BYTES);
      const from = Uint8Array.from({ length: end - start }, (_, at) => at + 1);
      bytes.write(start, from);
      model.set(from, start);
      const all = new Uint8Array(SIZE_BYTES).fill(0xaa);
      bytes.read(0, all);
      assert.deepEqual(all, model);
      const part = new Uint8Array(end - start).fill(0xaa);
      bytes.read(start, part);
      assert.deepEqual(part, from);
    }
  }
});

test('only touched chunks take memory, at any offset below 2^53', () => {
  const bytes = new SparseBytes(CHUNK_BYTES);
  bytes.read(0, new Uint8Array(100));
  assert.equal(bytes.residentBytes, 0);
  const far = 2 ** 53 - 2 * CHUNK_BYTES;
  bytes.write(far, new Uint8Array([1, 2, 3]));
  assert.equal(bytes.residentBytes, CHUNK_BYTES);
  const into = new Uint8Array(4);
  bytes.read(far, into);
  assert.deepEqual([...into], [1, 2, 3, 0]);
});

test('clones of clones are independent: random writes beside plain arrays', () => {
  const random = seededRandom(1);
  const pairs = [{ bytes: new SparseBytes(CHUNK_BYTES), model: new Uint8Array(SIZE_BYTES) }];
  for (let turn = 0; turn < 5000; turn++) {
    const pair = pairs[random.below(pairs.length)];
    assert.ok(pair !== undefined);
    const start = random.below(SIZE_BYTES);
    const from = new Uint8Array(random.below(SIZE_BYTES - start + 1));
    random.fill(from);
    switch (random.below(8)) {
      case 0: {
        const clone = { bytes: pair.bytes.clone(), model: pair.model.slice() };
        if (pairs.length < 12) pairs.push(clone);
        else pairs[random.below(12)] = clone;
        break;
      }
      case 1: {
        const bit = random.below(8);
        pair.bytes.flipBit(start, bit);
        pair.model[start] = (pair.model[start] ?? 0) ^ (1 << bit);
        break;
      }
      default:
        pair.bytes.write(start, from);
        pair.model.set(from, start);
    }
    for (const { bytes, model } of pairs) {
      const all = new Uint8Array(SIZE_BYTES);
      bytes.read(0, all);
      assert.deepEqual(all, model);
    }
  }
});
