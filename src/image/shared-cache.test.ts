import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededRandom } from '../env/seeded-random.js';
import { CacheTable, SharedCache } from './shared-cache.js';

test('keeps what was used last, of all tables, within its budget: beside a list', async () => {
  const random = seededRandom(1);
  const cache = new SharedCache(1000);
  const tables = [new CacheTable(cache), new CacheTable(cache), new CacheTable(cache)];
  /** The oldest first. */
  let model: { table: number; key: number; bytes: number }[] = [];
  for (let step = 0; step < 20_000; step++) {
    const [index, key] = [random.below(3), random.below(12)];
    const table = tables[index] as CacheTable;
    const known = model.find((entry) => entry.table === index && entry.key === key);
    assert.equal(table.get(key)?.[0], known === undefined ? undefined : key + 1);
    if (known !== undefined) {
      model = [...model.filter((entry) => entry !== known), known];
      continue;
    }
    const bytes = random.chance(0.01) ? 1500 : 1 + random.below(200);
    const loaded = await table.load(key, async () => new Uint8Array(bytes).fill(key + 1));
    assert.equal(loaded.length, bytes);
    model.push({ table: index, key, bytes });
    const used = (): number => model.reduce((sum, entry) => sum + entry.bytes, 0);
    while (used() > 1000 && model.length > 1) model.shift();
    assert.equal(cache.usedBytes, used());
  }
});

test('one load for all that wait; a failed one is tried again', async () => {
  const table = new CacheTable(new SharedCache(1000));
  let loads = 0;
  const load = async (): Promise<Uint8Array> => {
    if (++loads === 1) throw new Error('first');
    return new Uint8Array(8);
  };
  const both = await Promise.allSettled([table.load(1, load), table.load(1, load)]);
  assert.deepEqual(
    both.map(({ status }) => status),
    ['rejected', 'rejected'],
  );
  await Promise.all([table.load(1, load), table.load(1, load)]);
  await table.load(1, load);
  assert.equal(loads, 2);
});
