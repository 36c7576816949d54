/** What an act on an idle store costs, in blocks, and that the store is whole after each. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { BLOCK_BYTES, MIB } from '../base/units.js';
import { copyThroughMemory } from '../env/copy-blocks.js';
import type { BlockCopies, Device } from '../env/device.js';
import { MemoryDevice } from '../env/memory-device.js';
import { decodeFsinfo } from '../layout/fsinfo.js';
import { checkStore } from './check.js';
import { formatStore, openStore } from './open-store.js';
import type { Store } from './store.js';

/** Counts the blocks that are written to the device beneath it. */
class Counting implements Device {
  readonly name = 'counting';
  readonly sizeBytes: number;
  readonly inner: MemoryDevice;
  blocks = 0;

  constructor(inner: MemoryDevice) {
    this.inner = inner;
    this.sizeBytes = inner.sizeBytes;
  }

  read(offset: number, into: readonly Uint8Array[]): Promise<void> {
    return this.inner.read(offset, into);
  }

  write(offset: number, from: readonly Uint8Array[]): Promise<void> {
    for (const { length } of from) this.blocks += length / BLOCK_BYTES;
    return this.inner.write(offset, from);
  }

  writeDurable(offset: number, from: readonly Uint8Array[]): Promise<void> {
    return this.write(offset, from);
  }

  sync(): Promise<void> {
    return this.inner.sync();
  }

  copyBlocks(copies: BlockCopies): Promise<readonly number[]> {
    return copyThroughMemory(this, copies);
  }

  close(): Promise<void> {
    return this.inner.close();
  }
}

async function prepare(): Promise<{ store: Store; device: Counting }> {
  const memory = new MemoryDevice({ sizeBytes: 64 * MIB });
  await formatStore({ kind: 'device', device: memory });
  const device = new Counting(memory.reopen());
  const options = { memoryBytes: 8 * MIB, cpIntervalMs: 3_600_000 };
  const store = await openStore({ kind: 'device', device }, options);
  const golden = await store.createVdisk('golden', MIB);
  await golden.write(0, new Uint8Array(MIB).fill(7));
  await store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
  await store.consistencyPoint();
  return { store, device };
}

/** The store as a cut of power would leave it now is whole. */
async function checkAsCut(device: Counting): Promise<void> {
  const source = { kind: 'device', device: device.inner.duplicate() } as const;
  const { faults } = await checkStore(source);
  assert.deepEqual(faults, []);
}

/** Runs that the newest fsinfo leaves pending. */
async function pendingRuns(device: Counting): Promise<number> {
  const slots = await Promise.all(
    [0, 1].map(async (block) => {
      const bytes = new Uint8Array(BLOCK_BYTES);
      await device.read(block * BLOCK_BYTES, [bytes]);
      const outcome = decodeFsinfo(bytes);
      return outcome.kind === 'ok' ? outcome.fsinfo : assert.fail('both slots are sound');
    }),
  );
  const [a, b] = slots.sort((one, other) => other.cpNumber - one.cpNumber);
  assert.ok(a !== undefined && b !== undefined);
  return a.pending.length;
}

describe('an act on an idle store', () => {
  test('costs at most 16 blocks with its consistency point', async () => {
    const { store, device } = await prepare();
    let pending = 0;
    let flushed = 0;
    for (let number = 0; number < 100; number++) {
      const before = device.blocks;
      if (number % 2 === 0) await store.clone('golden@v1', `clone${number}`);
      else await store.rename(`clone${number - 1}`, `clone${number}`);
      await store.consistencyPoint();
      const isPending = (await pendingRuns(device)) > 0;
      if (isPending) pending++;
      else flushed++;
      // Now and then the maps are written after all.
      const most = isPending ? 16 : 24;
      assert.ok(device.blocks - before <= most, `act ${number}: ${device.blocks - before} blocks`);
      if (number % 5 === 0 || !isPending) await checkAsCut(device);
    }
    assert.ok(pending > 80, `${pending} of 100 left the maps alone`);
    assert.ok(flushed > 0, 'what is held is bounded');
    await store.close();
    await checkAsCut(device);
  });

  test('a store opened with pending runs gives none of their blocks out', async () => {
    const { store, device } = await prepare();
    await store.clone('golden@v1', 'a');
    await store.consistencyPoint();
    assert.ok((await pendingRuns(device)) > 0);
    const cut = new Counting(device.inner.duplicate());
    const again = await openStore({ kind: 'device', device: cut }, { memoryBytes: 8 * MIB });
    assert.equal(again.stats().usedBytes, store.stats().usedBytes);
    for (const name of ['b', 'c', 'd']) {
      const vdisk = await again.createVdisk(name, 4 * MIB);
      await vdisk.write(0, new Uint8Array(4 * MIB).fill(name.charCodeAt(0)));
      await again.consistencyPoint();
      await checkAsCut(cut);
    }
    const bytes = new Uint8Array(MIB);
    await again.vdisk('a').read(0, bytes);
    assert.deepEqual(bytes, new Uint8Array(MIB).fill(7));
    await again.close();
    await checkAsCut(cut);
  });
});
