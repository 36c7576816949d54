import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BLOCK_BYTES, PIB } from '../base/units.js';
import { MemoryDevice } from './memory-device.js';

function block(value: number): Uint8Array[] {
  return [new Uint8Array(BLOCK_BYTES).fill(value)];
}

async function firstByte(device: MemoryDevice): Promise<number | undefined> {
  const into = block(0xaa);
  await device.read(0, into);
  return into[0]?.[0];
}

test('stats count calls and blocks since the device was opened', async () => {
  const device = new MemoryDevice({ sizeBytes: 4 * PIB, name: 'large' });
  await device.write(PIB, [...block(1), ...block(2)]);
  await device.writeDurable(0, block(3));
  await device.sync();
  await device.read(PIB, [new Uint8Array(3 * BLOCK_BYTES)]);
  assert.deepEqual(device.stats, {
    reads: 1,
    blocksRead: 3,
    writes: 2,
    durableWrites: 1,
    blocksWritten: 3,
    syncs: 1,
  });
  await device.close();
  assert.equal(device.reopen().stats.writes, 0);
});

test('a refused write does not count', async () => {
  const device = new MemoryDevice({ sizeBytes: BLOCK_BYTES });
  await assert.rejects(device.writeDurable(BLOCK_BYTES, block(1)));
  assert.equal(device.stats.writes, 0);
  assert.equal(device.stats.durableWrites, 0);
});

test('a call is done before its promise is returned', async () => {
  const device = new MemoryDevice({ sizeBytes: BLOCK_BYTES });
  const into = block(0);
  const calls = [device.write(0, block(1)), device.read(0, into)];
  assert.equal(into[0]?.[0], 1);
  await Promise.all(calls);
});

test('duplicate: independent from then on', async () => {
  const device = new MemoryDevice({ sizeBytes: BLOCK_BYTES });
  await device.write(0, block(1));
  const other = device.duplicate();
  await other.write(0, block(2));
  assert.equal(await firstByte(device), 1);
  device.flipBit(0, 4);
  assert.equal(await firstByte(device), 17);
  assert.equal(await firstByte(other), 2);
});
