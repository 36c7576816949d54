import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { seededRandom } from '../env/seeded-random.js';
import { RecordSlots } from './record-slots.js';

describe('record slots', () => {
  test('a new file is filled from its start', () => {
    const slots = new RecordSlots();
    assert.deepEqual([slots.take(), slots.take(), slots.take()], [0, 1, 2]);
    assert.equal(slots.end, 3);
  });

  test('after every possible set of records on 8 places, gaps are used first, lowest first', () => {
    for (let mask = 0; mask < 256; mask++) {
      const taken = [0, 1, 2, 3, 4, 5, 6, 7].filter((place) => (mask & (1 << place)) !== 0);
      const slots = new RecordSlots();
      slots.restore(taken);
      const end = (taken.at(-1) ?? -1) + 1;
      assert.equal(slots.end, end);
      const gaps = Array.from({ length: end }, (_, place) => place).filter(
        (place) => !taken.includes(place),
      );
      assert.deepEqual(
        gaps.map(() => slots.take()),
        gaps,
      );
      assert.equal(slots.take(), end);
    }
  });

  test('no place is given out twice', () => {
    const random = seededRandom(7);
    const slots = new RecordSlots();
    const taken = new Set<number>();
    for (let step = 0; step < 5000; step++) {
      if (random.chance(0.55) || taken.size === 0) {
        const place = slots.take();
        assert.ok(!taken.has(place));
        assert.ok(place < slots.end);
        taken.add(place);
      } else {
        const place = [...taken][random.below(taken.size)] as number;
        taken.delete(place);
        slots.free(place);
      }
      if (step % 500 === 499) slots.restore([...taken].sort((a, b) => a - b));
    }
    assert.ok(slots.end <= taken.size + 600, 'freed places are used again');
  });
});
