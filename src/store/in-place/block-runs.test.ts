import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BLOCK_BYTES } from '../../base/units.js';
import { joined } from '../../env/buffers.js';
import { toRanges, toRuns } from './block-runs.js';

const BLOCKS = 6;

/** Block `index` is full of this number. */
function bytesOf(index: number): Buffer {
  return Buffer.alloc(BLOCK_BYTES, index + 1);
}

/** Consecutive blocks in pieces: bit n of `cuts` begins a new piece with block n + 1. */
function toPieces(cuts: number): Uint8Array[] {
  const pieces: Uint8Array[][] = [[]];
  for (let index = 0; index < BLOCKS; index++) {
    if (index > 0 && (cuts & (1 << (index - 1))) !== 0) pieces.push([]);
    pieces.at(-1)?.push(bytesOf(index));
  }
  return pieces.map(joined);
}

/** Bit n of `gaps` leaves a VBN out before block n + 1. */
function toVbns(gaps: number): number[] {
  const vbns: number[] = [];
  for (let index = 0, vbn = 40; index < BLOCKS; index++, vbn++) {
    if (index > 0 && (gaps & (1 << (index - 1))) !== 0) vbn++;
    vbns.push(vbn);
  }
  return vbns;
}

test('runs: each block at its VBN, for all ways to cut six blocks and to place them', () => {
  for (let cuts = 0; cuts < 32; cuts++) {
    for (let gaps = 0; gaps < 32; gaps++) {
      const vbns = toVbns(gaps);
      const runs = toRuns(vbns, toPieces(cuts));
      const placed = new Map<number, Uint8Array>();
      for (const { vbn, endVbn, pieces } of runs) {
        const bytes = joined(pieces);
        assert.equal(bytes.length, (endVbn - vbn) * BLOCK_BYTES);
        for (let at = 0; at < endVbn - vbn; at++) {
          placed.set(vbn + at, bytes.subarray(at * BLOCK_BYTES, (at + 1) * BLOCK_BYTES));
        }
      }
      assert.equal(placed.size, BLOCKS);
      for (const [index, vbn] of vbns.entries())
        assert.deepEqual(placed.get(vbn), new Uint8Array(bytesOf(index)));
      const gapCount = vbns.filter(
        (vbn, at) => at > 0 && vbn !== (vbns[at - 1] as number) + 1,
      ).length;
      assert.equal(runs.length, gapCount + 1, 'adjacent blocks are one run');
    }
  }
});

test('ranges: the same VBNs, and neighbours in one of them', () => {
  for (let gaps = 0; gaps < 32; gaps++) {
    const vbns = toVbns(gaps);
    const ranges = toRanges(vbns);
    assert.deepEqual(
      ranges.flatMap(({ vbn, endVbn }) =>
        Array.from({ length: endVbn - vbn }, (_, at) => vbn + at),
      ),
      vbns,
    );
    assert.equal(ranges.length, toRuns(vbns, [new Uint8Array(BLOCKS * BLOCK_BYTES)]).length);
  }
});
