import assert from 'node:assert/strict';
import { test } from 'node:test';
import { crc32, findSingleBitError, isAllZero, ZERO_BLOCK_CRC } from './checksum.js';
import { BLOCK_BYTES } from './units.js';

const BLOCK_BITS = BLOCK_BYTES * 8;

/** A block without structure: the checks below must not hang on zeros. */
function sampleBlock(): Uint8Array {
  const block = new Uint8Array(BLOCK_BYTES);
  for (let index = 0; index < block.length; index++) block[index] = (index * 167 + 13) >>> 2;
  return block;
}

function flip(bytes: Uint8Array, bit: number): void {
  bytes[bit >>> 3] = (bytes[bit >>> 3] ?? 0) ^ (1 << (bit & 7));
}

test('crc32: known values', () => {
  const text = new TextEncoder();
  // "Check" of CRC-32/ISO-HDLC in the catalogue of parametrised CRC algorithms.
  assert.equal(crc32(text.encode('123456789')), 0xcbf43926);
  assert.equal(crc32(new Uint8Array(0)), 0);
  assert.equal(crc32(new Uint8Array(1)), 0xd202ef8d);
  // RFC 3720 has its vectors for CRC-32C; these are the same inputs under CRC-32.
  assert.equal(crc32(new Uint8Array(32)), 0x190a55ad);
  assert.equal(crc32(new Uint8Array(32).fill(0xff)), 0xff6cab0b);
  assert.equal(ZERO_BLOCK_CRC, 0xc71c0011);
});

test('crc32: continued from a seed, at every cut', () => {
  const bytes = sampleBlock().subarray(0, 300);
  const whole = crc32(bytes);
  for (let cut = 0; cut <= bytes.length; cut++) {
    assert.equal(crc32(bytes.subarray(cut), crc32(bytes.subarray(0, cut))), whole);
  }
});

test('crc32: every flipped bit of a block changes it, each differently', () => {
  const block = sampleBlock();
  const seen = new Set([crc32(block)]);
  for (let bit = 0; bit < BLOCK_BITS; bit++) {
    flip(block, bit);
    seen.add(crc32(block));
    flip(block, bit);
  }
  assert.equal(seen.size, BLOCK_BITS + 1);
});

test('findSingleBitError: finds every single bit of a block', () => {
  const block = sampleBlock();
  const crc = crc32(block);
  for (let bit = 0; bit < BLOCK_BITS; bit++) {
    flip(block, bit);
    assert.equal(findSingleBitError(block, crc), bit);
    flip(block, bit);
  }
});

test('findSingleBitError: none if the bytes are right, or more than one bit is wrong', () => {
  const block = sampleBlock();
  const crc = crc32(block);
  assert.equal(findSingleBitError(block, crc), undefined);
  // Two wrong bits: the distance of the code is 4, so no third one makes them right.
  for (let bit = 1; bit < BLOCK_BITS; bit += 61) {
    flip(block, 0);
    flip(block, bit);
    assert.equal(findSingleBitError(block, crc), undefined);
    flip(block, bit);
    flip(block, 0);
  }
  assert.equal(findSingleBitError(new Uint8Array(0), 1), undefined);
});

test('isAllZero: true for zeros, false for any bit set', () => {
  const block = new Uint8Array(BLOCK_BYTES);
  assert.equal(isAllZero(block), true);
  for (let bit = 0; bit < BLOCK_BITS; bit++) {
    flip(block, bit);
    assert.equal(isAllZero(block), false);
    flip(block, bit);
  }
  assert.equal(isAllZero(block), true);
});

test('isAllZero: a part of a buffer, without its neighbours', () => {
  const bytes = new Uint8Array(3 * BLOCK_BYTES).fill(1);
  const middle = bytes.subarray(BLOCK_BYTES, 2 * BLOCK_BYTES);
  assert.equal(isAllZero(middle), false);
  middle.fill(0);
  assert.equal(isAllZero(middle), true);
});
