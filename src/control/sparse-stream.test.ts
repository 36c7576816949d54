import assert from 'node:assert/strict';
import { buffer } from 'node:stream/consumers';
import { test } from 'node:test';
import { isStoreError } from '../base/store-error.js';
import { decodeSparse, encodeSparse, type SparsePiece } from './sparse-stream.js';

const PIECES: SparsePiece[] = [
  { kind: 'data', offset: 0, bytes: Buffer.from('hello') },
  { kind: 'zero', offset: 5, length: 2 ** 50 },
  { kind: 'data', offset: 2 ** 50 + 5, bytes: Buffer.from('world!') },
];

async function* each<T>(items: readonly T[]): AsyncGenerator<T> {
  for (const item of items) yield await Promise.resolve(item);
}

const encode = (pieces: readonly SparsePiece[]): Promise<Buffer> =>
  buffer(encodeSparse(each(pieces), () => 2 ** 51));

/** Neighbouring data in one piece: how the stream was cut is of no matter. */
async function decode(chunks: readonly Uint8Array[]): Promise<SparsePiece[]> {
  const pieces: SparsePiece[] = [];
  for await (const piece of decodeSparse(each(chunks))) {
    const last = pieces.at(-1);
    const isNext =
      last?.kind === 'data' &&
      piece.kind === 'data' &&
      last.offset + last.bytes.length === piece.offset;
    if (!isNext) {
      pieces.push(piece.kind === 'data' ? { ...piece, bytes: Buffer.from(piece.bytes) } : piece);
    } else {
      const bytes = Buffer.concat([last.bytes, piece.bytes]);
      pieces[pieces.length - 1] = { kind: 'data', offset: last.offset, bytes };
    }
  }
  return pieces;
}

test('what was encoded comes back, however the stream is cut in two', async () => {
  const bytes = await encode(PIECES);
  for (let cut = 0; cut <= bytes.length; cut++) {
    assert.deepEqual(await decode([bytes.subarray(0, cut), bytes.subarray(cut)]), PIECES);
  }
  assert.deepEqual(await decode(Array.from(bytes, (byte) => Buffer.of(byte))), PIECES);
  assert.deepEqual(await decode([await encode([])]), []);
});

test('every stream that ends too early is refused', async () => {
  const bytes = await encode(PIECES);
  for (let length = 0; length < bytes.length; length++) {
    await assert.rejects(decode([bytes.subarray(0, length)]), /cut off/);
  }
});

test('every flipped bit of a record is refused, or moves what it says, and nothing else', async () => {
  const bytes = await encode([{ kind: 'zero', offset: 4096, length: 4096 }]);
  for (let bit = 0; bit < 8 * bytes.length; bit++) {
    const wrong = Buffer.from(bytes);
    wrong[bit >> 3] = (wrong[bit >> 3] ?? 0) ^ (1 << (bit & 7));
    try {
      for (const piece of await decode([wrong])) {
        assert.ok(Number.isSafeInteger(piece.offset));
        if (piece.kind === 'zero') assert.ok(Number.isSafeInteger(piece.length));
      }
    } catch (error) {
      assert.ok(isStoreError(error, 'invalid'), String(error));
    }
  }
});

test('pieces that go back, and bytes behind the end, are refused', async () => {
  const back = await encode([...PIECES, { kind: 'zero', offset: 4, length: 1 }]);
  await assert.rejects(decode([back]), /byte 4 comes after/);
  const more = Buffer.concat([await encode(PIECES), Buffer.of(0)]);
  await assert.rejects(decode([more]), /bytes follow the end/);
});
