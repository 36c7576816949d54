/** Space that TRIM and shrink give up comes back by itself: nobody has to wait for `idle`. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MIB } from '../base/units.js';
import { MemoryDevice } from '../env/memory-device.js';
import { systemClock } from '../env/system-clock.js';
import { formatStore, openStore } from './open-store.js';
import type { Store } from './store.js';

async function fullVdisk(): Promise<Store> {
  const device = new MemoryDevice({ sizeBytes: 64 * MIB });
  await formatStore({ kind: 'device', device });
  const options = { memoryBytes: 32 * MIB, cpIntervalMs: 3_600_000 };
  const store = await openStore({ kind: 'device', device: device.reopen() }, options);
  const vdisk = await store.createVdisk('v', 32 * MIB);
  for (let at = 0; at < 32 * MIB; at += MIB) await vdisk.write(at, Buffer.alloc(MIB, 1));
  await store.consistencyPoint();
  return store;
}

const ACTS: readonly (readonly [string, (store: Store) => unknown])[] = [
  ['TRIM', (store) => store.vdisk('v').trim(0, 32 * MIB)],
  ['shrink', (store) => store.resize('v', MIB)],
];

for (const [name, act] of ACTS) {
  test(`a ${name} gives its space back after two consistency points`, async () => {
    const store = await fullVdisk();
    const before = store.stats().usedBytes;
    await act(store);
    await store.consistencyPoint();
    for (let turn = 0; turn < 100; turn++) await systemClock.yield();
    await store.consistencyPoint();
    const given = before - store.stats().usedBytes;
    assert.ok(given > 30 * MIB, `${given / MIB} MiB came back`);
    await store.close();
  });
}
