import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { pointerWords } from '../../test/support/layout-values.js';
import {
  FLAG_FILLED,
  FLAG_IN_MEMORY,
  FLAG_SHARED,
  HOLE_VBN,
  pointerFault,
  putPointer,
  VBN_HIGH_MASK,
  vbnAt,
  ZERO_VBN,
} from './pointer.js';

const MOST = Number.MAX_SAFE_INTEGER;

test('VBN, checksum and flags come back, and the neighbours stay', () => {
  const flags = fc.constantFrom(
    0,
    FLAG_FILLED,
    FLAG_IN_MEMORY,
    (FLAG_FILLED | FLAG_IN_MEMORY) >>> 0,
  );
  fc.assert(
    fc.property(fc.maxSafeNat(), fc.nat(2 ** 32 - 1), flags, (vbn, crc, flag) => {
      const words = new Uint32Array(12).fill(0xdead_beef);
      putPointer(words, 4, vbn, crc, flag);
      assert.equal(vbnAt(words, 4), vbn);
      assert.equal(((words[5] ?? 0) & ~VBN_HIGH_MASK) >>> 0, flag);
      assert.equal(words[6], crc);
      assert.equal(words[7], 0);
      for (const word of [0, 1, 2, 3, 8, 9, 10, 11]) assert.equal(words[word], 0xdead_beef);
    }),
  );
});

test('what may stand on disk has no fault', () => {
  fc.assert(
    fc.property(fc.integer({ min: 2, max: MOST }), fc.gen(), (vbnEnd, gen) => {
      const words = Uint32Array.from(gen(pointerWords, vbnEnd));
      assert.equal(pointerFault(words, 0, vbnEnd), undefined);
    }),
  );
});

test('every flag but filled and shared is a fault, and shared without a block', () => {
  for (let bit = 24; bit < 32; bit++) {
    const words = Uint32Array.of(9, 2 ** bit, 9, 0);
    const fault = pointerFault(words, 0, 10);
    const isKnown = 2 ** bit === FLAG_FILLED || 2 ** bit === FLAG_SHARED;
    assert.equal(fault, isKnown ? undefined : 'has unknown flags', `bit ${bit}`);
  }
  for (const vbn of [HOLE_VBN, ZERO_VBN]) {
    const fault = pointerFault(Uint32Array.of(vbn, FLAG_SHARED, 0, 0), 0, 10);
    assert.equal(fault, 'is shared but names no block');
  }
});

test('a VBN from the end of the store on is a fault, every bit of it', () => {
  assert.equal(pointerFault(Uint32Array.of(9, 0, 1, 0), 0, 10), undefined);
  assert.match(pointerFault(Uint32Array.of(10, 0, 1, 0), 0, 10) ?? '', /VBN 10, beyond/);
  for (let bit = 4; bit < 56; bit++) {
    const words = bit < 32 ? [2 ** bit, 0, 1, 0] : [0, 2 ** (bit - 32), 1, 0];
    assert.match(pointerFault(Uint32Array.from(words), 0, 10) ?? '', /beyond/, `bit ${bit}`);
  }
  // 2^53 and more lies beyond every store.
  assert.match(pointerFault(Uint32Array.of(0, 0x20_0000, 1, 0), 0, MOST) ?? '', /beyond/);
  assert.match(pointerFault(Uint32Array.of(1, 0xff_ffff, 1, 0), 0, MOST) ?? '', /beyond/);
});

test('a hole or zero pointer has no checksum; the spare word is zero', () => {
  for (const vbn of [HOLE_VBN, ZERO_VBN]) {
    assert.equal(pointerFault(Uint32Array.of(vbn, FLAG_FILLED, 0, 0), 0, 10), undefined);
    assert.match(pointerFault(Uint32Array.of(vbn, 0, 1, 0), 0, 10) ?? '', /no block/);
  }
  assert.match(pointerFault(Uint32Array.of(9, 0, 1, 1), 0, 10) ?? '', /spare/);
});
