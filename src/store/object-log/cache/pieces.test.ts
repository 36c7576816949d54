/** Pieces beside a naive model: which blocks can be found, and how much memory they take. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BLOCK_BYTES } from '../../../base/units.js';
import { seededRandom } from '../../../env/seeded-random.js';
import { Pieces } from './pieces.js';

const FIRST = 5 * 1024;
const BLOCKS = 40;

function arrived(count: number): Promise<Uint8Array> {
  return Promise.resolve(new Uint8Array(count * BLOCK_BYTES));
}

test('what can be found is what was fetched and not taken, run by run', async () => {
  for (let seed = 1; seed <= 50; seed++) {
    const random = seededRandom(seed);
    const pieces = new Pieces(10 * BLOCKS);
    const isThere = new Array<boolean>(BLOCKS).fill(false);
    for (let step = 0; step < 40; step++) {
      const at = random.below(BLOCKS);
      const piece = pieces.find(FIRST + at);
      assert.equal(piece !== undefined, isThere[at], `seed ${seed}, step ${step}, block ${at}`);
      const count = 1 + random.below(BLOCKS - at);
      const isRun = isThere[at] === true;
      let stop = at;
      while (stop < at + count && isThere[stop] === isRun) stop++;
      if (piece === undefined) {
        assert.equal(pieces.gapEnd(FIRST + at, FIRST + at + count), FIRST + stop);
        await pieces.add(FIRST + at, FIRST + stop, arrived(stop - at)).coming;
      } else {
        // A run may go on in the next piece.
        stop = pieces.runEnd(piece, FIRST + at, FIRST + stop) - FIRST;
        assert.ok(stop > at);
        pieces.take(piece, FIRST + at, stop - at);
      }
      isThere.fill(!isRun, at, stop);
    }
    for (let at = 0; at < BLOCKS; at++) {
      const piece = pieces.find(FIRST + at);
      if (piece !== undefined) pieces.take(piece, FIRST + at, 1);
    }
    assert.equal(pieces.heldBytes, 0, 'all are taken');
  }
});

test('the oldest that is here goes first, and what is on its way stays', async () => {
  const pieces = new Pieces(30);
  let come: (bytes: Uint8Array) => void = () => undefined;
  const slow = new Promise<Uint8Array>((resolve) => {
    come = resolve;
  });
  pieces.add(1024, 1034, slow);
  await pieces.add(2048, 2058, arrived(10)).coming;
  await pieces.add(3072, 3082, arrived(10)).coming;
  assert.equal(pieces.hasRoom(1), true);
  assert.equal(pieces.find(2048), undefined, 'the oldest that is here');
  assert.notEqual(pieces.find(3072), undefined);
  assert.notEqual(pieces.find(1024), undefined);
  assert.equal(pieces.hasRoom(21), false, 'no more than what is on its way leaves');
  come(new Uint8Array(10 * BLOCK_BYTES));
});

test('a record that ends before its piece does leaves nothing behind', async () => {
  const pieces = new Pieces(100);
  await pieces.add(1024, 1054, arrived(4)).coming;
  assert.equal(pieces.heldBytes, 4 * BLOCK_BYTES);
  assert.equal(pieces.find(1028), undefined);
  const piece = pieces.find(1024);
  assert.ok(piece !== undefined);
  pieces.take(piece, 1024, 4);
  assert.equal(pieces.heldBytes, 0);
  await assert.rejects(pieces.add(1024, 1030, Promise.reject(new Error('no'))).coming);
  assert.equal(pieces.find(1024), undefined, 'a GET that failed is asked again');
});

test('what was pushed out while somebody copied it gives its memory back once', async () => {
  const pieces = new Pieces(30);
  const piece = pieces.add(FIRST, FIRST + 20, arrived(20));
  await piece.coming;
  await pieces.add(FIRST + 30, FIRST + 50, arrived(20)).coming;
  assert.equal(pieces.find(FIRST), undefined, 'pushed out');
  pieces.take(piece, FIRST, 20);
  assert.equal(pieces.heldBytes, 20 * BLOCK_BYTES);
});
