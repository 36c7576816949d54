/**
 * The scripted workload with the power cut in some of its calls, and in calls of the recovery.
 * `npm run sim -- --every-write --nested 1` does it in all of them.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MEDIUM_KINDS, type MediumKind } from './machine.js';
import { cutAtEveryWrite } from './scripted.js';

/** Primes: the cuts fall on every kind of call. */
const STRIDES: Record<MediumKind, { once: number; nested: number }> = {
  'in-place': { once: 17, nested: 53 },
  'object-log': { once: 7, nested: 23 },
};

for (const medium of MEDIUM_KINDS) {
  const { once, nested } = STRIDES[medium];

  test(`${medium}: a power cut in one call of ${once}`, async () => {
    const { calls, coverage } = await cutAtEveryWrite({ medium, first: 3, stride: once });
    assert.equal(coverage.totals.cuts, Math.ceil((calls - 2) / once));
    assert.equal(coverage.totals.recoveries, coverage.totals.cuts);
    assert.ok(coverage.totals.splitsInterrupted > 0, 'some cuts fall into splits');
  });

  test(`${medium}: a power cut in one call of ${nested}, and in each of the recovery`, async () => {
    const options = { medium, first: 5, stride: nested, nested: 1, seed: 2 } as const;
    const { calls, coverage } = await cutAtEveryWrite(options);
    const { cuts, nestedCuts, recoveries } = coverage.totals;
    assert.equal(recoveries, Math.ceil((calls - 4) / nested));
    assert.ok(
      nestedCuts >= 2 * recoveries,
      `${nestedCuts} nested cuts in ${recoveries} recoveries`,
    );
    assert.equal(cuts, recoveries + nestedCuts);
  });
}
