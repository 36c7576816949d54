import assert from 'node:assert/strict';
import { test } from 'node:test';
import { pattern } from '../../test/support/stores.js';
import { isStoreError, StoreError } from '../base/store-error.js';
import { MIB } from '../base/units.js';
import type { BlockCopies } from '../env/device.js';
import { MemoryDevice } from '../env/memory-device.js';
import { formatStore, openStore } from './open-store.js';

/** From `breakNow` on no copy can be written. */
class BreakingDevice extends MemoryDevice {
  #isBroken = false;

  breakNow(): void {
    this.#isBroken = true;
  }

  override copyBlocks(copies: BlockCopies): Promise<readonly number[]> {
    if (!this.#isBroken) return super.copyBlocks(copies);
    return Promise.reject(new StoreError('device', 'this copy is broken'));
  }
}

test('a copy that cannot be written ends the store, with its reason, and nothing else', async () => {
  const device = new BreakingDevice({ sizeBytes: 256 * MIB });
  await formatStore({ kind: 'device', device: device.reopen() });
  const store = await openStore({ kind: 'device', device });
  await (await store.createVdisk('golden', 8 * MIB)).write(0, pattern(8 * MIB, 1));
  await store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
  await store.clone('golden@v1', 'clone');
  await store.consistencyPoint();
  device.breakNow();
  // Several ranges are under way: what the first fails with is heard, although others begin later.
  const job = await store.split('clone', { mode: 'copy', pace: 'now' });
  await assert.rejects(job.done, (error) => String(error).includes('this copy is broken'));
  await assert.rejects(
    async () => store.consistencyPoint(),
    (error) => isStoreError(error, 'device'),
  );
  await store.close().catch(() => undefined);
});
