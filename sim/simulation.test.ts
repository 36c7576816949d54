/** Random runs: short ones twice, to see that they are the same; whole ones on each medium. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MEDIUM_KINDS } from './machine.js';
import { simulate } from './simulation.js';

const SHORT = { actsMin: 300, cutsMin: 5 };

for (const medium of MEDIUM_KINDS) {
  test(`${medium}: the same seed gives the same run, another seed another one`, async () => {
    const first = await simulate({ seed: 7, medium, ...SHORT });
    const again = await simulate({ seed: 7, medium, ...SHORT });
    const other = await simulate({ seed: 8, medium, ...SHORT });
    assert.equal(again.digest, first.digest);
    assert.deepEqual(again.coverage, first.coverage);
    assert.notEqual(other.digest, first.digest);
  });

  let splits = 0;
  for (const seed of [1, 2, 3]) {
    test(`${medium}: seed ${seed}, without a violation`, async () => {
      const { coverage } = await simulate({ seed, medium });
      const { acts, cuts, recoveries, storeChecks, splitsStarted } = coverage.totals;
      assert.ok(acts >= 2000, `${acts} acts`);
      assert.ok(cuts >= 20, `${cuts} cuts`);
      assert.ok(recoveries > 0 && storeChecks >= recoveries, `${recoveries}, ${storeChecks}`);
      splits += splitsStarted;
    });
  }

  test(`${medium}: some of these lives have splits`, () => {
    assert.ok(splits > 0);
  });
}
