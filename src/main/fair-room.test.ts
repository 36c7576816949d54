/** A vdisk that is flushed does not wait for memory behind one that never is. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BLOCK_BYTES, MIB } from '../base/units.js';
import { MemoryDevice } from '../env/memory-device.js';
import { formatStore, openStore } from './open-store.js';

test('dirty buffers are kept for vdisks whose writes are flushed', async () => {
  const device = new MemoryDevice({ sizeBytes: 128 * MIB });
  await formatStore({ kind: 'device', device });
  const store = await openStore(
    { kind: 'device', device: device.reopen() },
    { memoryBytes: 16 * MIB, dirtyBytesMax: 4 * MIB, cpIntervalMs: 3_600_000 },
  );
  const busy = await store.createVdisk('busy', 32 * MIB);
  const quiet = await store.createVdisk('quiet', 32 * MIB);
  const block = new Uint8Array(BLOCK_BYTES).fill(5);
  await quiet.write(0, block);
  await quiet.flush();
  // One turn: no consistency point makes room meanwhile.
  let waiting = busy.write(0, block);
  for (let at = 1; waiting === undefined; at++) waiting = busy.write(at * BLOCK_BYTES, block);
  assert.equal(quiet.write(BLOCK_BYTES, block), undefined, 'it finds room at once');
  assert.notEqual(quiet.write(2 * BLOCK_BYTES, block), undefined, 'but not before it is flushed');
  await waiting;
  await quiet.flush();
  await store.close();
});
