/** Ten rounds of the crash loop. `npm run crash-loop` has as many as one likes. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { isRoot } from '../test/support/mounted-vdisk.js';
import { crashLoopOn } from './crash-loop/on-store.js';

const ROUNDS = 10;

it('a server that is killed ten times under load loses nothing that was flushed', async () => {
  const said: string[] = [];
  const say = (line: string): void => void said.push(line);
  const { tally, lines } = await crashLoopOn({ store: 'file', rounds: ROUNDS, seed: 5, say });
  assert.equal(tally.rounds, ROUNDS, lines.join('\n'));
  assert.equal(said.length, ROUNDS);
  assert.ok(tally.splitsCut > 0, 'a split was under way at a kill');
  assert.ok(tally.killsInStart > 0, 'a start was killed');
  assert.ok(tally.checkedBy('fio') > 0, 'fio had flushed blocks');
  // Without root there is no mounted file system; fio takes its rounds.
  if (isRoot()) assert.ok(tally.checkedBy('SQLite') > 0, 'SQLite had committed');
});
