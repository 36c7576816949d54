/** After a failed write or sync nothing succeeds any more, not even what was under way. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ofKind } from '../../../test/support/stores.js';
import { StoreError } from '../../base/store-error.js';
import { BLOCK_BYTES } from '../../base/units.js';
import { copyThroughMemory } from '../../env/copy-blocks.js';
import type { BlockCopies, Device } from '../../env/device.js';
import { FailStopDevice } from './fail-stop-device.js';

type Call = 'write' | 'writeDurable' | 'sync';
const CALLS: readonly Call[] = ['write', 'writeDurable', 'sync'];

/** A device whose calls end when, and as, the test says. */
class HeldDevice implements Device {
  readonly name = 'held';
  readonly sizeBytes = 1 << 20;
  readonly ends: ((error?: StoreError) => void)[] = [];

  #hold(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.ends.push((error) => (error === undefined ? resolve() : reject(error)));
    });
  }

  read(): Promise<void> {
    return Promise.resolve();
  }

  write(): Promise<void> {
    return this.#hold();
  }

  writeDurable(): Promise<void> {
    return this.#hold();
  }

  sync(): Promise<void> {
    return this.#hold();
  }

  copyBlocks(copies: BlockCopies): Promise<readonly number[]> {
    return copyThroughMemory(this, copies);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

function call(device: Device, name: Call): Promise<void> {
  return name === 'sync' ? device.sync() : device[name](0, [new Uint8Array(BLOCK_BYTES)]);
}

const failed = ofKind('device', 'the disk is gone');

for (const failing of CALLS) {
  for (const other of CALLS) {
    test(`a ${failing} fails: a ${other} beside it and one after it are refused`, async () => {
      const held = new HeldDevice();
      const device = new FailStopDevice(held);
      const first = call(device, failing);
      const beside = call(device, other);
      held.ends[0]?.(new StoreError('device', 'the disk is gone'));
      await assert.rejects(first, failed);
      held.ends[1]?.();
      await assert.rejects(beside, failed);
      await assert.rejects(call(device, other), failed);
      assert.equal(held.ends.length, 2, 'the disk is not asked any more');
      await device.read(0, [new Uint8Array(BLOCK_BYTES)]);
    });
  }
}
