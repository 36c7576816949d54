/** Large writes that arrive together: each finds room for its blocks, or waits for it. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MIB } from '../base/units.js';
import { MemoryDevice } from '../env/memory-device.js';
import { formatStore, openStore } from './open-store.js';

test('twelve writes of 1 MiB in one turn all land', async () => {
  const device = new MemoryDevice({ sizeBytes: 64 * MIB });
  await formatStore({ kind: 'device', device });
  const store = await openStore({ kind: 'device', device }, { memoryBytes: 8 * MIB });
  const vdisk = await store.createVdisk('a', 16 * MIB);
  const data = Array.from({ length: 12 }, (_, index) => new Uint8Array(MIB).fill(index + 1));
  await Promise.all(data.map((bytes, index) => vdisk.write(index * MIB, bytes)));
  for (const [index, bytes] of data.entries()) {
    const read = new Uint8Array(MIB);
    await vdisk.read(index * MIB, read);
    assert.deepEqual(read, bytes);
  }
  await store.close();
});
