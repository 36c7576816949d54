/** A split that is cancelled: durable, nothing is lost, and a new one ends what it began. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BLOCK_BYTES, MIB } from '../base/units.js';
import { MemoryDevice } from '../env/memory-device.js';
import { systemClock } from '../env/system-clock.js';
import { checkStore } from './check.js';
import { formatStore, openStore } from './open-store.js';
import type { Store } from './store.js';

const OPTIONS = { memoryBytes: 8 * MIB, cpIntervalMs: 3_600_000 };
const SIZE = 24 * MIB;

async function open(device: MemoryDevice): Promise<Store> {
  return openStore({ kind: 'device', device: device.duplicate() }, OPTIONS);
}

async function assertContent(store: Store): Promise<void> {
  const into = new Uint8Array(SIZE);
  await store.vdisk('c').read(0, into);
  assert.ok(into.subarray(0, BLOCK_BYTES).every((byte) => byte === 9));
  assert.ok(into.subarray(BLOCK_BYTES).every((byte) => byte === 7));
}

for (const mode of ['copy', 'share'] as const) {
  test(`a ${mode} split is cancelled halfway, and taken up again after a crash`, async () => {
    const device = new MemoryDevice({ sizeBytes: 128 * MIB });
    await formatStore({ kind: 'device', device });
    const store = await openStore({ kind: 'device', device: device.reopen() }, OPTIONS);
    const golden = await store.createVdisk('golden', SIZE);
    for (let at = 0; at < SIZE; at += MIB) await golden.write(at, Buffer.alloc(MIB, 7));
    await store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
    const clone = await store.clone('golden@v1', 'c');
    await clone.write(0, Buffer.alloc(BLOCK_BYTES, 9));
    await clone.flush();
    await store.consistencyPoint();
    await assert.rejects(store.cancelSplit('c'), { kind: 'invalid' });

    const job = await store.split('c', { mode });
    const aborted = assert.rejects(job.done, /cancelled/);
    while (job.state()?.filledBytes === 0) await systemClock.yield();
    assert.ok(job.state() !== undefined, 'the split is at work');
    await store.cancelSplit('c');
    await aborted;
    assert.equal(job.state(), undefined);
    assert.equal(store.show('c').split, undefined);
    assert.equal(store.show('c').backing, 'golden@v1');
    await assert.rejects(store.cancelSplit('c'), { kind: 'invalid' });
    const changed = [];
    for await (const extent of store.diff('golden@v1', 'c')) changed.push(extent);
    assert.deepEqual(changed, [{ offset: 0, length: BLOCK_BYTES, kind: 'data' }]);

    // The power fails right here.
    const after = await open(device);
    assert.equal(after.show('c').split, undefined);
    await after.idle();
    assert.equal(after.show('c').backing, 'golden@v1');
    await assertContent(after);
    await (await after.split('c', { mode })).done;
    assert.equal(after.show('c').backing, undefined);
    await after.delete('golden@v1');
    await after.delete('golden');
    await after.idle();
    await assertContent(after);
    await after.close();
    await store.idle();
    await assertContent(store);
    await store.consistencyPoint();
    const { faults } = await checkStore({ kind: 'device', device: device.duplicate() });
    assert.deepEqual(faults, []);
    await store.close();
  });
}
