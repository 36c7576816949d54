/** Three rounds of split-kills. `npm run split-kills` has as many as one likes. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { MIB } from '../src/base/units.js';
import { splitKillsOn } from './split-kills/on-store.js';

const ROUNDS = 3;

it('a split that is killed goes on by itself, ends proven, and gives all space back', async () => {
  const say = (): void => undefined;
  const goldenBytes = 24 * MIB;
  const options = { store: 'file', rounds: ROUNDS, seed: 2, say, goldenBytes } as const;
  const { tally, lines } = await splitKillsOn(options);
  assert.equal(tally.rounds, ROUNDS, lines.join('\n'));
});
