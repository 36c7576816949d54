import { execFileSync } from 'node:child_process';
import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe } from 'node:test';
import { SimulatedDevice } from '../../sim/world/simulated-device.js';
import { VirtualClock } from '../../sim/world/virtual-clock.js';
import { openFileDevice } from '../../src/env/file-device.js';
import { MemoryDevice } from '../../src/env/memory-device.js';
import { seededRandom } from '../../src/env/seeded-random.js';
import { type DeviceFixture, deviceContract } from './device.js';

const itself = <T>(promise: Promise<T>): Promise<T> => promise;

deviceContract('memory', async (sizeBytes) => {
  const device = new MemoryDevice({ sizeBytes });
  return {
    device,
    reopen: () => Promise.resolve(device.reopen()),
    settle: itself,
    end: () => Promise.resolve(),
  };
});

for (const preallocate of [false, true]) {
  deviceContract(preallocate ? 'preallocated file' : 'sparse file', async (sizeBytes) => {
    const folder = await mkdtemp(join(tmpdir(), 'keiki-device-'));
    const path = join(folder, 'store');
    const device = await openFileDevice(path, { create: { sizeBytes, preallocate } });
    return {
      device,
      reopen: () => openFileDevice(path),
      settle: itself,
      end: async () => {
        await device.close();
        await rm(folder, { recursive: true });
      },
    };
  });
}

for (const seed of [1, 2, 3]) {
  deviceContract(`simulated, seed ${seed}`, (sizeBytes) => {
    const clock = new VirtualClock();
    const device = new SimulatedDevice({ clock, random: seededRandom(seed), sizeBytes });
    return Promise.resolve({
      device,
      reopen: () => Promise.resolve(device.reopen()),
      settle: (promise) => clock.run(promise),
      end: () => Promise.resolve(),
    });
  });
}

/** A block device over a file. Undefined where the system lets us make none. */
function attachLoop(path: string): string | undefined {
  try {
    return execFileSync('losetup', ['--find', '--show', path], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    }).trim();
  } catch {
    return undefined;
  }
}

async function makeLoopFixture(sizeBytes: number): Promise<DeviceFixture | undefined> {
  const folder = await mkdtemp(join(tmpdir(), 'keiki-device-'));
  const file = join(folder, 'disk');
  await writeFile(file, '');
  await truncate(file, sizeBytes);
  const path = attachLoop(file);
  if (path === undefined) {
    await rm(folder, { recursive: true });
    return undefined;
  }
  const device = await openFileDevice(path);
  return {
    device,
    reopen: () => openFileDevice(path),
    settle: itself,
    end: async () => {
      await device.close();
      execFileSync('losetup', ['--detach', path]);
      await rm(folder, { recursive: true });
    },
  };
}

// Making a block device needs root and a kernel with loop devices; nothing else here does.
const probe = await makeLoopFixture(4096);
await probe?.end();
if (probe === undefined) {
  describe('device contract: block device', { skip: 'no loop device can be made here' }, () => {});
} else {
  deviceContract('block device', async (sizeBytes) => {
    const fixture = await makeLoopFixture(sizeBytes);
    if (fixture === undefined) throw new Error('no loop device is left');
    return fixture;
  });
}
