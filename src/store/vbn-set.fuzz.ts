/** VbnSet beside a Set of numbers. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { fuzzSeeds } from '../../test/support/fuzz-seeds.js';
import { SEGMENT_BLOCKS } from '../base/units.js';
import { seededRandom } from '../env/seeded-random.js';
import { popcount, popcountAll, VbnSet } from './vbn-set.js';

/** Close neighbours, far ones beyond 2^32, and the ends of segments. */
const BASES = [0, 1000, 31 * SEGMENT_BLOCKS, 2 ** 32 - 8, 2 ** 50];

function assertSame(set: VbnSet, model: ReadonlySet<number>): void {
  assert.equal(set.size, model.size);
  const listed = [...set.values()];
  assert.equal(listed.length, model.size);
  assert.deepEqual(new Set(listed), model);
  const segments = new Set([...model].map((vbn) => Math.floor(vbn / SEGMENT_BLOCKS)));
  assert.deepEqual(new Set(set.segments()), segments);
  let bits = 0;
  for (const segment of segments) bits += popcountAll(set.bitsOf(segment) ?? new Uint32Array());
  assert.equal(bits, model.size);
}

function run(seed: number): void {
  const random = seededRandom(seed);
  const draw = (): number => (BASES[random.below(BASES.length)] ?? 0) + random.below(80);
  const set = new VbnSet();
  const model = new Set<number>();
  for (let step = 0; step < 400; step++) {
    const vbn = draw();
    switch (random.below(4)) {
      case 0:
      case 1:
        assert.equal(set.add(vbn), !model.has(vbn));
        model.add(vbn);
        break;
      case 2:
        assert.equal(set.delete(vbn), model.delete(vbn));
        break;
      default: {
        const other = new VbnSet();
        for (let count = random.below(20); count > 0; count--) {
          const more = draw();
          other.add(more);
          model.add(more);
        }
        const before = [...other.values()];
        set.addAll(other);
        assert.deepEqual([...other.values()], before, 'the set added from stays as it is');
      }
    }
    assert.equal(set.has(vbn), model.has(vbn));
    if (step % 50 === 49) assertSame(set, model);
  }
}

describe('vbn set beside a Set', () => {
  test('seeds', () => {
    for (const seed of fuzzSeeds(30)) run(seed);
  });

  test('popcount agrees with counting digits', () => {
    const random = seededRandom(1);
    for (const word of [
      0,
      1,
      -1,
      0x8000_0000,
      ...Array.from({ length: 2000 }, () => random.nextU32()),
    ]) {
      const digits = (word >>> 0).toString(2).replaceAll('0', '').length;
      assert.equal(popcount(word), digits);
    }
  });

  test('a set that was added to another does not change with it', () => {
    const one = new VbnSet();
    one.add(5);
    const two = new VbnSet();
    two.addAll(one);
    two.add(6);
    assert.deepEqual([...one.values()], [5]);
  });
});
