/** Stores that lie about what fencing rests on must be refused, each by its reason. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SimulatedObjectStore } from '../../sim/world/simulated-object-store.js';
import { VirtualClock } from '../../sim/world/virtual-clock.js';
import { isStoreError } from '../base/store-error.js';
import { MemoryObjectStore } from '../env/memory-object-store.js';
import { ObjectMap } from '../env/object-map.js';
import type { ObjectStore } from '../env/object-store.js';
import { seededRandom } from '../env/seeded-random.js';
import { probeObjectStore } from './probe.js';

const probe = (...ways: ObjectStore[]): Promise<void> =>
  probeObjectStore({ prefix: 'p', random: seededRandom(1), ways });

/** A memory store of which some calls are others. */
function lying(lies: (honest: MemoryObjectStore) => Partial<ObjectStore>): MemoryObjectStore {
  const store = new MemoryObjectStore();
  return Object.assign(store, lies(new MemoryObjectStore({ objects: store.objects })));
}

async function refuses(store: MemoryObjectStore, why: RegExp): Promise<void> {
  await assert.rejects(
    probe(store),
    (error) => isStoreError(error, 'unsupported') && why.test(error.message),
  );
  assert.deepEqual(store.objects.list(''), [], 'nothing of the probe is left');
}

test('an honest store passes, by one way and by three, and nothing is left', async () => {
  const objects = new ObjectMap();
  const ways = [1, 2, 3].map(() => new MemoryObjectStore({ objects }));
  await probe(...ways.slice(0, 1));
  await probe(...ways);
  assert.deepEqual(objects.list(''), []);
});

test('a store of which all 16 win is refused', async () => {
  const store = lying((honest) => ({
    putNew: (key, chunks) => {
      honest.objects.delete(key);
      return honest.putNew(key, chunks);
    },
  }));
  await refuses(store, /16 of 16 creates of one key were all told/);
});

test('a store that looks first and writes then is refused', async () => {
  const store = lying((honest) => ({
    putNew: async (key, chunks) => {
      const isThere = (await honest.get(key)) !== undefined;
      if (isThere) return 'exists';
      honest.objects.delete(key);
      return honest.putNew(key, chunks);
    },
  }));
  await refuses(store, /\d+ of 16 creates of one key were all told/);
});

test('a store that answers "exists", and overwrites, is refused', async () => {
  const store = lying((honest) => ({
    putNew: async (key, chunks) => {
      const outcome = await honest.putNew(key, chunks);
      if (outcome === 'exists') {
        honest.objects.delete(key);
        await honest.putNew(key, chunks);
      }
      return outcome;
    },
  }));
  await refuses(store, /a create that lost has changed the object/);
});

test('two stores behind one name are refused', async () => {
  await assert.rejects(
    probe(new MemoryObjectStore(), new MemoryObjectStore()),
    /a GET does not see what a PUT before it created/,
  );
});

test('a store without ranges, one that lists late, and one that keeps what is deleted', async () => {
  await refuses(
    lying((honest) => ({ get: (key) => honest.get(key) })),
    /a GET of 1 bytes from 0 is wrong/,
  );
  await refuses(
    lying(() => ({ list: () => Promise.resolve([]) })),
    /a LIST does not show/,
  );
  const deaf = lying(() => ({ delete: () => Promise.resolve() }));
  await assert.rejects(probe(deaf), /what was deleted is still there/);
});

test('unknown outcomes are settled by what is there: a store that loses answers passes', async () => {
  for (let seed = 1; seed <= 30; seed++) {
    const clock = new VirtualClock();
    const store = new SimulatedObjectStore({ clock, random: seededRandom(seed) });
    store.faultRates = { lostResponse: 0.3 };
    await clock.run(probe(store, store.anotherClient()));
    assert.deepEqual(store.objects.list(''), []);
  }
});
