/**
 * The scripted workloads with the power cut in some of its calls, and in calls of the recovery.
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

const SPLIT_STRIDES: Record<MediumKind, number> = { 'in-place': 61, 'object-log': 29 };

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

  test(`${medium}: splits, a power cut in one call of ${SPLIT_STRIDES[medium]}`, async () => {
    const options = { medium, script: 'splits', first: 2, stride: SPLIT_STRIDES[medium] } as const;
    const { coverage } = await cutAtEveryWrite(options);
    for (const job of ['copy-split', 'share-split'] as const) {
      for (const kind of ['split-pause', 'split-change', 'split-cancel', 'split-undo']) {
        assert.ok(coverage.count(kind, job) > 0, `${kind} during a ${job}`);
      }
    }
    for (const kind of ['split-resume', 'delete-defer', 'delete-split']) {
      assert.ok(coverage.countOf(kind) > 0, kind);
    }
    const { splitsInterrupted, tallShares } = coverage.totals;
    assert.ok(splitsInterrupted > 0 && tallShares > 0);
  });
}

/** Some FLUSHes are older than this when the next comes: they wait for the object store. */
const LOCAL = { medium: 'object-log', localLagMs: 20 } as const;

test('local log: power is cut for it and the object store in one call of 13', async () => {
  const { coverage } = await cutAtEveryWrite({ ...LOCAL, first: 4, stride: 13 });
  const { cuts, recoveries, localGroups } = coverage.totals;
  assert.ok(cuts >= 5 && recoveries === cuts && localGroups > cuts, `${cuts}, ${localGroups}`);
});

test('local log: in one call of 41, and in each of the recovery', async () => {
  const options = { ...LOCAL, first: 3, stride: 41, nested: 1, seed: 2 } as const;
  const { nestedCuts, recoveries } = (await cutAtEveryWrite(options)).coverage.totals;
  assert.ok(recoveries >= 3 && nestedCuts >= 3 * recoveries, `${nestedCuts} in ${recoveries}`);
});

test('local log: splits, a power cut in one call of 37', async () => {
  const options = { ...LOCAL, localLagMs: 5, script: 'splits', first: 2, stride: 37 } as const;
  const { localWaits, splitsInterrupted } = (await cutAtEveryWrite(options)).coverage.totals;
  assert.ok(splitsInterrupted > 0 && localWaits > 0);
});
