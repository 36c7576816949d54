/** Patience is counted from the first failure, and begins anew when something worked. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VirtualClock } from '../../sim/world/virtual-clock.js';
import { seededRandom } from '../env/seeded-random.js';
import { Outage, Retries } from './retries.js';

test('an outage begins with its first failure, and ends with a success or long silence', () => {
  const outage = new Outage(100);
  assert.equal(outage.sinceMs(0), undefined);
  outage.failed(10, 20);
  outage.failed(50, 60);
  assert.equal(outage.sinceMs(60), 10);
  assert.equal(outage.isOver(109), false);
  assert.equal(outage.isOver(110), true);
  outage.worked();
  assert.equal(outage.sinceMs(110), undefined);
  outage.failed(200, 210);
  // Nobody has asked for longer than the patience: what failed then says nothing of today.
  assert.equal(outage.sinceMs(310), 200);
  assert.equal(outage.sinceMs(311), undefined);
  assert.equal(outage.isOver(400), false);
  outage.failed(400, 410);
  assert.equal(outage.sinceMs(410), 400);
});

test('pauses grow with the failures in a row', () => {
  const outage = new Outage(1_000_000);
  const longest = (): number => {
    const random = seededRandom(1);
    return Math.max(...Array.from({ length: 100 }, () => outage.pauseMs(random)));
  };
  outage.failed(0, 0);
  const first = longest();
  for (let count = 0; count < 20; count++) outage.failed(count, count);
  assert.ok(longest() > 10 * first);
  assert.ok(longest() <= 2000);
});

test('what is tried again ends with the outage that it is a part of', async () => {
  const clock = new VirtualClock();
  const triesSince = (sinceMs: number | undefined): Promise<number> =>
    clock.run(
      (async () => {
        const retries = new Retries(clock, seededRandom(1), 1000, sinceMs);
        while (await retries.again());
        return retries.count;
      })(),
    );
  await clock.run(clock.sleep(5000));
  assert.equal(await triesSince(3000), 0);
  assert.ok((await triesSince(undefined)) > 3);
});
