/** Ten rounds of the crash loop. `npm run crash-loop` has as many as one likes. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { crashLoopOn } from './crash-loop/on-store.js';

const ROUNDS = 10;

it('a server that is killed ten times under load loses nothing that was flushed', async () => {
  const said: string[] = [];
  const say = (line: string): void => void said.push(line);
  const { tally, lines } = await crashLoopOn({ store: 'file', rounds: ROUNDS, seed: 5, say });
  assert.equal(tally.rounds, ROUNDS, lines.join('\n'));
  assert.equal(said.length, ROUNDS);
  // What was under way at a kill is left to chance and to the speed of the machine.
  assert.ok(tally.kills >= ROUNDS);
});
