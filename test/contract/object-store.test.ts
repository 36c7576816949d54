import { SimulatedObjectStore } from '../../sim/world/simulated-object-store.js';
import { VirtualClock } from '../../sim/world/virtual-clock.js';
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
