import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SimulatedObjectStore } from '../../sim/world/simulated-object-store.js';
import { VirtualClock } from '../../sim/world/virtual-clock.js';
import { DirectoryObjectStore } from '../../src/env/directory-object-store.js';
import { MemoryObjectStore } from '../../src/env/memory-object-store.js';
import { seededRandom } from '../../src/env/seeded-random.js';
import { objectStoreContract } from './object-store.js';

objectStoreContract('memory', () => {
  const objects = new MemoryObjectStore();
  return Promise.resolve({
    objects,
    anotherClient: () => new MemoryObjectStore({ objects: objects.objects }),
    settle: (promise) => promise,
    end: () => Promise.resolve(),
  });
});

for (const seed of [1, 2, 3]) {
  objectStoreContract(`simulated, seed ${seed}`, () => {
    const clock = new VirtualClock();
    const objects = new SimulatedObjectStore({ clock, random: seededRandom(seed) });
    return Promise.resolve({
      objects,
      anotherClient: () => objects.anotherClient(),
      settle: (promise) => clock.run(promise),
      end: () => Promise.resolve(),
    });
  });
}

objectStoreContract('directory', () => {
  const path = mkdtempSync(join(tmpdir(), 'keiki-objects-'));
  let clients = 0;
  const client = (): DirectoryObjectStore =>
    new DirectoryObjectStore({ path, random: seededRandom(++clients) });
  return Promise.resolve({
    objects: client(),
    anotherClient: client,
    settle: (promise) => promise,
    end: () => Promise.resolve(rmSync(path, { recursive: true })),
  });
});
