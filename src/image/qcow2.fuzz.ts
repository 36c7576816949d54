/**
 * Damaged and hostile qcow2 images beside a naive reader: see test/support/mutated-images.ts. A few
 * thousand in every test run; 200,000, with figures:
 *
 *   npx tsx tools/fuzz-images.ts --seeds 2000
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fuzzSeeds } from '../../test/support/fuzz-seeds.js';
import {
  newOutcomes,
  tryMutatedImages,
  trySoundImages,
} from '../../test/support/mutated-images.js';

const outcomes = newOutcomes();

test('sound images are read, whole', trySoundImages);

for (const seed of fuzzSeeds(30)) {
  test(`mutated images, seed ${seed}`, () => tryMutatedImages(seed, outcomes));
}

test('the mutations reach every outcome', () => {
  // A fuzzer that always stops at the first field tests nothing.
  for (const [outcome, count] of Object.entries(outcomes)) {
    assert.ok(count > 50, `${outcome}: ${count}`);
  }
});
