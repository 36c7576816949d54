/** mappedBytes stays right while a deleted snapshot is merged into a vdisk that still changes. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BLOCK_BYTES, MIB } from '../base/units.js';
import { MemoryDevice } from '../env/memory-device.js';
import { checkStore } from './check.js';
import { formatStore, openStore } from './open-store.js';
import type { Store } from './store.js';

const RANGES = 300;

/** A vdisk with a block in every MiB, a snapshot of it, and one block written since. */
async function mergingStore(device: MemoryDevice): Promise<Store> {
  await formatStore({ kind: 'device', device });
  const options = { memoryBytes: 32 * MIB, cpIntervalMs: 3_600_000 };
  const store = await openStore({ kind: 'device', device: device.reopen() }, options);
  const vdisk = await store.createVdisk('v', RANGES * MIB);
  for (let range = 0; range < RANGES; range++) {
    await vdisk.write(range * MIB, Buffer.alloc(2 * BLOCK_BYTES, range + 1));
  }
  await store.snapshot([{ vdisk: 'v', snapshot: 's' }]);
  // So that the whole tree cannot be adopted with one pointer.
  await vdisk.write(150 * MIB, Buffer.alloc(BLOCK_BYTES, 9));
  await store.consistencyPoint();
  await store.delete('v@s');
  return store;
}

async function assertSound(device: MemoryDevice): Promise<void> {
  const { faults } = await checkStore({ kind: 'device', device: device.duplicate() });
  assert.deepEqual(faults, []);
}

test('a TRIM of blocks that a merge has just adopted takes them off the count', async () => {
  const device = new MemoryDevice({ sizeBytes: 64 * MIB });
  const store = await mergingStore(device);
  let trimsInMerge = 0;
  for (let range = 0; range < RANGES; range++) {
    await store.vdisk('v').trim(range * MIB, BLOCK_BYTES);
    if (store.stats().background === 'merge') trimsInMerge++;
    await store.consistencyPoint();
  }
  await assertSound(device);
  await store.idle();
  await store.consistencyPoint();
  assert.ok(trimsInMerge > 3, `${trimsInMerge} TRIMs met the merge`);
  assert.equal(store.show('v').mappedBytes, RANGES * BLOCK_BYTES);
  await assertSound(device);
  await store.close();
});

test('a vdisk deleted in mid-merge is freed, and so is what was left to merge', async () => {
  const device = new MemoryDevice({ sizeBytes: 64 * MIB });
  const store = await mergingStore(device);
  const before = store.stats().usedBytes;
  while (store.show('v').mappedBytes <= BLOCK_BYTES) await store.consistencyPoint();
  await store.delete('v');
  await store.consistencyPoint();
  await assertSound(device);
  await store.idle();
  await store.consistencyPoint();
  assert.ok(store.stats().usedBytes < before - RANGES * BLOCK_BYTES);
  await assertSound(device);
  await store.close();
});
