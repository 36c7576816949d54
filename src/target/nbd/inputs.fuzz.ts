/**
 * Sound and damaged streams beside a naive server: see test/support/nbd-fuzz.ts. A few here, as
 * many as one likes by tools/fuzz-nbd.ts.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { fuzzSeeds } from '../../../test/support/fuzz-seeds.js';
import { INPUTS_PER_SEED, newNbdOutcomes, tryNbdInputs } from '../../../test/support/nbd-fuzz.js';

describe('streams of clients', () => {
  it('are answered as a naive server foretells', async () => {
    const seeds = fuzzSeeds(20);
    const outcomes = newNbdOutcomes();
    for (const seed of seeds) await tryNbdInputs(seed, outcomes);
    assert.equal(outcomes.inputs, seeds.length * INPUTS_PER_SEED);
    // The inputs are worth something: most enter, and not all requests are refused.
    assert.ok(outcomes.entered > outcomes.inputs / 3);
    assert.ok(outcomes.requests - outcomes.failed > outcomes.requests / 4);
    assert.ok(outcomes.violated > outcomes.inputs / 10);
  });
});
