import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { fromHex, getU64, putU64, toHex, viewOf } from './bytes.js';

const view = (...bytes: number[]): DataView => viewOf(Uint8Array.from(bytes));

test('a number comes back, and stands little-endian', () => {
  fc.assert(
    fc.property(fc.maxSafeNat(), (value) => {
      const bytes = new Uint8Array(8);
      putU64(viewOf(bytes), 0, value);
      assert.equal(getU64(viewOf(bytes), 0), value);
      assert.equal(viewOf(bytes).getBigUint64(0, true), BigInt(value));
    }),
  );
});

test('every power of two below 2^53 comes back, and from 2^53 on reads as NaN', () => {
  for (let bit = 0; bit < 64; bit++) {
    const bytes = viewOf(new Uint8Array(8));
    bytes.setBigUint64(0, 1n << BigInt(bit), true);
    assert.equal(getU64(bytes, 0), bit < 53 ? 2 ** bit : Number.NaN, `bit ${bit}`);
  }
  assert.equal(getU64(view(255, 255, 255, 255, 255, 255, 31, 0), 0), Number.MAX_SAFE_INTEGER);
});

test('a number that the format cannot hold is a bug of the writer', () => {
  for (const value of [2 ** 53, -1, 0.5, Number.NaN, Number.POSITIVE_INFINITY]) {
    assert.throws(() => putU64(view(0, 0, 0, 0, 0, 0, 0, 0), 0, value), /in \[0, 2\^53\)/);
  }
});

test('an id comes back from its digits', () => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), (id) => {
      assert.deepEqual(fromHex(toHex(id)), id);
      assert.deepEqual(fromHex(toHex(id).toUpperCase()), id);
    }),
  );
  const dashed = '00112233-4455-6677-8899-aabbccddeeff';
  assert.equal(toHex(fromHex(dashed) ?? new Uint8Array()), dashed.replaceAll('-', ''));
});

test('what is not 32 digits is no id', () => {
  const digits = '00112233445566778899aabbccddeeff';
  for (const text of ['', digits.slice(1), `${digits}0`, `${digits.slice(1)}g`, ` ${digits}`]) {
    assert.equal(fromHex(text), undefined, JSON.stringify(text));
  }
});
