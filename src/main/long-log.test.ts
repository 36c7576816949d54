/** Recovery of a log that holds much more than may be dirty at once. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BLOCK_BYTES, MIB } from '../base/units.js';
import type { Device } from '../env/device.js';
import { MemoryDevice } from '../env/memory-device.js';
import { formatStore, openStore } from './open-store.js';

/** With a header each they nearly fill the log; with a header for 64 of them half of it. */
const BLOCKS = 2016;
const VDISK_BLOCKS = 4096;

/** From `hold` on no sync ends: what is flushed stands in the log alone. */
function withoutSyncs(device: Device): Device & { hold(): void } {
  let isHeld = false;
  return {
    name: device.name,
    sizeBytes: device.sizeBytes,
    read: (offset, into) => device.read(offset, into),
    write: (offset, from) => device.write(offset, from),
    writeDurable: (offset, from) => device.writeDurable(offset, from),
    copyBlocks: (copies) => device.copyBlocks(copies),
    sync: () => (isHeld ? new Promise<void>(() => undefined) : device.sync()),
    close: () => device.close(),
    hold() {
      isHeld = true;
    },
  };
}

function blockOf(write: number): Uint8Array {
  const block = new Uint8Array(BLOCK_BYTES);
  new DataView(block.buffer).setUint32(0, write + 1, true);
  return block;
}

function fbnOf(write: number): number {
  return (write * 1579) % VDISK_BLOCKS;
}

for (const writesOfFlush of [1, 7, 64]) {
  test(`a log longer than the memory is replayed, ${writesOfFlush} writes a group`, async () => {
    const memory = new MemoryDevice({ sizeBytes: 256 * MIB });
    await formatStore({ kind: 'device', device: memory }, { logBytes: 16 * MIB });
    const device = withoutSyncs(memory.reopen());
    const busy = await openStore({ kind: 'device', device }, { cpIntervalMs: 3_600_000 });
    const vdisk = await busy.createVdisk('v', VDISK_BLOCKS * BLOCK_BYTES);
    await busy.consistencyPoint();
    device.hold();
    for (let write = 0; write < BLOCKS; write++) {
      await vdisk.write(fbnOf(write) * BLOCK_BYTES, blockOf(write));
      if (write % writesOfFlush === writesOfFlush - 1) await vdisk.flush();
    }
    await vdisk.flush();
    // The power fails. A consistency point in the middle of the replay would take the whole log for
    // applied, and a second failure right then would lose the rest of it.
    const options = { memoryBytes: 4 * MIB, dirtyBytesMax: 2 * MIB };
    const again = await openStore({ kind: 'device', device: memory.reopen() }, options);
    assert.equal(again.stats().cpCount, 1);
    const into = new Uint8Array(BLOCK_BYTES);
    for (let write = 0; write < BLOCKS; write++) {
      await again.vdisk('v').read(fbnOf(write) * BLOCK_BYTES, into);
      assert.deepEqual(into, blockOf(write), `write ${write}`);
    }
    assert.ok(again.stats().memoryBytes <= 12 * MIB, `${again.stats().memoryBytes} bytes`);
    await again.close();
  });
}
