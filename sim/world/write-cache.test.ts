/** What a cut may do must also happen: a device kinder than its contract would hide bugs. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BLOCK_BYTES, SECTOR_BYTES } from '../../src/base/units.js';
import { seededRandom } from '../../src/env/seeded-random.js';
import { newFaultCounts } from './fault-counts.js';
import { type PendingWrite, WriteCache } from './write-cache.js';

const SECTORS = 4 * (BLOCK_BYTES / SECTOR_BYTES);
const OUTCOMES = 400;

/** Four blocks of one value. */
function fourBlocks(value: number): PendingWrite {
  return { offset: 0, data: new Uint8Array(4 * BLOCK_BYTES).fill(value) };
}

function oneBlock(index: number, value: number): PendingWrite {
  return { offset: index * BLOCK_BYTES, data: new Uint8Array(BLOCK_BYTES).fill(value) };
}

/** The value of each sector after many cuts of the same moment. */
function cutOften(cache: WriteCache, inFlight: readonly PendingWrite[] = []): number[][] {
  const random = seededRandom(1);
  return Array.from({ length: OUTCOMES }, () => {
    const after = cache.afterCut(inFlight, random, newFaultCounts());
    const bytes = new Uint8Array(4 * BLOCK_BYTES);
    after.read(0, bytes);
    return Array.from({ length: SECTORS }, (_, sector) => bytes[sector * SECTOR_BYTES] ?? -1);
  });
}

/** How the sectors of one write look after a cut. */
function shapeOf(sectors: readonly number[]): string {
  const runs = sectors.filter((value, index) => index === 0 || value !== sectors[index - 1]);
  if (runs.length === 1) return runs[0] === 0 ? 'lost' : 'kept';
  if (runs.length === 2) return runs[0] === 0 ? 'last part' : 'first part';
  return 'scattered';
}

test('one unsynced write: kept, lost, its first or last part, scattered sectors', () => {
  for (const isInFlight of [false, true]) {
    const cache = new WriteCache();
    if (!isInFlight) cache.complete(fourBlocks(1));
    const outcomes = cutOften(cache, isInFlight ? [fourBlocks(1)] : []);
    for (const shape of ['kept', 'lost', 'first part', 'last part', 'scattered']) {
      const count = outcomes.filter((sectors) => shapeOf(sectors) === shape).length;
      assert.ok(count >= OUTCOMES / 50, `${shape}: ${count} of ${OUTCOMES}`);
    }
  }
});

test('two unsynced writes of the same sectors: neither, the older or the newer on top', () => {
  const cache = new WriteCache();
  cache.complete(fourBlocks(1));
  cache.complete(fourBlocks(2));
  const outcomes = cutOften(cache);
  for (const value of [0, 1, 2]) {
    const count = outcomes.filter((sectors) => sectors.every((sector) => sector === value)).length;
    assert.ok(count >= OUTCOMES / 25, `all ${value}: ${count} of ${OUTCOMES}`);
  }
  // Both landed, in the wrong order.
  const random = seededRandom(1);
  let reordered = 0;
  for (let cut = 0; cut < OUTCOMES; cut++) {
    const counts = newFaultCounts();
    const bytes = new Uint8Array(1);
    cache.afterCut([], random, counts).read(0, bytes);
    if (counts.writesKept === 2 && bytes[0] === 1) reordered++;
  }
  assert.ok(reordered >= OUTCOMES / 25, `reordered: ${reordered} of ${OUTCOMES}`);
});

test('many unsynced writes: all kept, all lost, and any of them without the others', () => {
  const cache = new WriteCache();
  for (let index = 0; index < 4; index++) cache.complete(oneBlock(index, 1));
  const seen = new Set<string>();
  for (const sectors of cutOften(cache)) {
    const blocks = [0, 8, 16, 24].map((first) => sectors.slice(first, first + 8));
    const isWhole = blocks.every((block) => block.every((sector) => sector === block[0]));
    if (isWhole) seen.add(blocks.map((block) => block[0]).join(''));
  }
  assert.equal(seen.size, 16, [...seen].sort().join(' '));
});

test('durable writes are kept in every outcome, whatever was below them', () => {
  const cache = new WriteCache();
  cache.complete(fourBlocks(1));
  cache.completeDurable(oneBlock(1, 2));
  cache.complete(oneBlock(2, 3));
  cache.syncThrough(cache.mark());
  cache.complete(oneBlock(3, 4));
  for (const sectors of cutOften(cache)) {
    const expected = [1, 2, 3];
    expected.forEach((value, block) => {
      const part = sectors.slice(block * 8, (block + 1) * 8);
      assert.ok(part.every((sector) => sector === value));
    });
    assert.ok(sectors.slice(24).every((sector) => sector === 1 || sector === 4));
  }
});

test('a sync covers what completed before it began, not what came meanwhile', () => {
  const cache = new WriteCache();
  cache.complete(oneBlock(0, 1));
  const mark = cache.mark();
  cache.complete(oneBlock(1, 1));
  cache.syncThrough(mark);
  const outcomes = cutOften(cache);
  assert.ok(outcomes.every((sectors) => sectors.slice(0, 8).every((sector) => sector === 1)));
  assert.ok(outcomes.some((sectors) => sectors.slice(8, 16).every((sector) => sector === 0)));
});

test('counts: each write in flight or unsynced is kept, lost or torn', () => {
  const cache = new WriteCache();
  for (let index = 0; index < 3; index++) cache.complete(oneBlock(index, 1));
  const counts = newFaultCounts();
  const random = seededRandom(2);
  for (let cut = 0; cut < OUTCOMES; cut++) cache.afterCut([oneBlock(3, 1)], random, counts);
  assert.equal(counts.writesKept + counts.writesLost + counts.writesTorn, 4 * OUTCOMES);
  for (const count of [counts.writesKept, counts.writesLost, counts.writesTorn]) {
    assert.ok(count > OUTCOMES / 4, `${count} of ${4 * OUTCOMES}`);
  }
});
