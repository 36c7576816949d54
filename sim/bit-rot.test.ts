/** Some hundred of the bits that `npm run sim -- --bit-rot 20000` flips. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { rotBits } from './bit-rot.js';
import { MEDIUM_KINDS } from './machine.js';

const POSITIONS = 100;

for (const medium of MEDIUM_KINDS) {
  for (const end of ['close', 'cut'] as const) {
    test(`${medium}, after a ${end}: ${POSITIONS} bits, nothing wrong or stale`, async () => {
      const { tried, refused, healed, closed } = await rotBits(medium, end, POSITIONS, 11);
      const sum = Object.values(tried).reduce((all, each) => all + each, 0);
      assert.equal(sum, POSITIONS);
      assert.ok(refused > 0, 'rotten data is refused');
      if (medium === 'in-place') assert.ok(healed > 0 && closed === 0, `${healed}, ${closed}`);
    });
  }
}
