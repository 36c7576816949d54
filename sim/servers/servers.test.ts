/** Several servers and one store: a few seeds in every test run, one of which found a bug. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { simulateServers } from './servers.js';

test('seeds, three servers', async () => {
  let takeOvers = 0;
  let deposed = 0;
  // 22: a key whose record had been deleted by a successor looked as if nobody had sealed. The
  // others: enough that somebody is deposed.
  for (const seed of [1, 2, 5, 22]) {
    const { counts } = await simulateServers({ seed, servers: 3 });
    takeOvers += counts.takeOvers ?? 0;
    deposed += counts.deposed ?? 0;
  }
  assert.ok(takeOvers > 5 && deposed > 0, `${takeOvers} take-overs, ${deposed} deposed`);
});

test('the same seed gives the same digest', async () => {
  const runs = [1, 2].map(() => simulateServers({ seed: 3, servers: 3 }));
  const [first, second] = await Promise.all(runs);
  assert.equal(first?.digest, second?.digest);
});
