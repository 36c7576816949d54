import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InvariantError } from '../base/invariant.js';
import { seededRandom } from './seeded-random.js';

/** sfc32 and its seeding again, from the text of their sources, in 64-bit integers. */
function* reference(seed: bigint): Generator<number> {
  const u32 = (value: bigint): bigint => BigInt.asUintN(32, value);
  let state = u32(seed);
  const splitmix = (): bigint => {
    state = u32(state + 0x9e3779b9n);
    let z = state;
    z = u32((z ^ (z >> 16n)) * 0x85ebca6bn);
    z = u32((z ^ (z >> 13n)) * 0xc2b2ae35n);
    return z ^ (z >> 16n);
  };
  let a = splitmix();
  state ^= seed >> 32n;
  let b = splitmix();
  let c = splitmix();
  let counter = 1n;
  for (let round = 0; ; round++) {
    const result = u32(a + b + counter);
    counter = u32(counter + 1n);
    a = b ^ (b >> 9n);
    b = u32(c + (c << 3n));
    c = u32((u32(c << 21n) | (c >> 11n)) + result);
    if (round >= 15) yield Number(result);
  }
}

const SEEDS = [0, 1, 2, 0x7fffffff, 0x80000000, 0xffffffff, 2 ** 32, 2 ** 32 + 1, 2 ** 53 - 1];

test('nextU32: the numbers of the reference, for small and large seeds', () => {
  for (const seed of SEEDS) {
    const random = seededRandom(seed);
    const expected = reference(BigInt(seed));
    for (let draw = 0; draw < 1000; draw++) assert.equal(random.nextU32(), expected.next().value);
  }
});

test('nextU32: these numbers for ever, so that an old seed replays', () => {
  const random = seededRandom(1);
  const drawn = Array.from({ length: 4 }, () => random.nextU32());
  assert.deepEqual(drawn, [1151041103, 1990438114, 272676157, 1346144161]);
});

test('different seeds give different numbers', () => {
  const first = new Set<number>();
  for (let seed = 0; seed < 1000; seed++) first.add(seededRandom(seed).nextU32());
  for (const seed of SEEDS.slice(3)) first.add(seededRandom(seed).nextU32());
  assert.equal(first.size, 1000 + SEEDS.length - 3);
});

test('below: each result about as often, for limits of every kind', () => {
  const random = seededRandom(3);
  for (const limit of [1, 2, 3, 7, 10, 256]) {
    const counts = new Array<number>(limit).fill(0);
    for (let draw = 0; draw < 1000 * limit; draw++) {
      const drawn = random.below(limit);
      counts[drawn] = (counts[drawn] ?? Number.NaN) + 1;
    }
    for (const count of counts) assert.ok(Math.abs(count - 1000) < 150, `${count} of 1000`);
  }
  // Three quarters of 2^32 and 2^53: a plain remainder would draw the lower third twice as often.
  for (const limit of [3 * 2 ** 30, 3 * 2 ** 51]) {
    let lower = 0;
    for (let draw = 0; draw < 10_000; draw++) if (random.below(limit) < limit / 3) lower++;
    assert.ok(Math.abs(lower - 3333) < 250, `${lower} of 10000 in the lower third of ${limit}`);
  }
});

test('below: integers below the limit, up to the largest', () => {
  const random = seededRandom(4);
  for (const limit of [1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, 2 ** 53]) {
    for (let draw = 0; draw < 1000; draw++) {
      const drawn = random.below(limit);
      assert.ok(Number.isSafeInteger(drawn) && drawn >= 0 && drawn < limit);
    }
  }
  for (const limit of [0, -1, 2 ** 53 + 2, Number.NaN]) {
    assert.throws(() => random.below(limit), InvariantError);
  }
});

test('nextFraction and chance', () => {
  const random = seededRandom(5);
  let [sum, hits] = [0, 0];
  for (let draw = 0; draw < 10_000; draw++) {
    const fraction = random.nextFraction();
    assert.ok(fraction >= 0 && fraction < 1);
    sum += fraction;
    if (random.chance(0.3)) hits++;
    assert.equal(random.chance(0), false);
    assert.equal(random.chance(1), true);
  }
  assert.ok(Math.abs(sum / 10_000 - 0.5) < 0.02);
  assert.ok(Math.abs(hits / 10_000 - 0.3) < 0.02);
});

test('fill: all of every part of a buffer, the same bytes whatever its alignment', () => {
  for (let start = 0; start < 8; start++) {
    for (let length = 0; length < 20; length++) {
      const bytes = new Uint8Array(40);
      seededRandom(6).fill(bytes.subarray(start, start + length));
      const aligned = new Uint8Array(length);
      seededRandom(6).fill(aligned);
      assert.deepEqual(bytes.slice(start, start + length), aligned);
      assert.ok(bytes.subarray(0, start).every((byte) => byte === 0));
      assert.ok(bytes.subarray(start + length).every((byte) => byte === 0));
    }
  }
  const bytes = new Uint8Array(100_000);
  seededRandom(7).fill(bytes);
  assert.equal(new Set(bytes).size, 256);
});

test('a seed is a whole number', () => {
  for (const seed of [-1, 0.5, 2 ** 53, Number.NaN, Infinity]) {
    assert.throws(() => seededRandom(seed), InvariantError);
  }
});
