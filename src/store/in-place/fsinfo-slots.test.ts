import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { isStoreError } from '../../base/store-error.js';
import { BLOCK_BYTES, MIB } from '../../base/units.js';
import { type LogEvent, silentLog } from '../../env/log-sink.js';
import { MemoryDevice } from '../../env/memory-device.js';
import { systemClock } from '../../env/system-clock.js';
import { decodeFsinfo, encodeFsinfo, type Fsinfo } from '../../layout/fsinfo.js';
import { formatDevice, openDevice } from './format.js';
import { healSlots, readSlots, slotBlocks, writeSlots } from './fsinfo-slots.js';

async function newDevice(sizeBytes = 64 * MIB, storeBytes = sizeBytes): Promise<MemoryDevice> {
  const device = new MemoryDevice({ sizeBytes });
  const uuid = new Uint8Array(16).fill(6);
  const request = { sizeBytes: storeBytes, logBytes: undefined, uuid, clock: systemClock };
  await formatDevice(device, request);
  return device.reopen();
}

/** A device with consistency points 8 and 9 in its slots. */
async function twoGenerations(): Promise<{ device: MemoryDevice; newest: Fsinfo }> {
  const device = await newDevice();
  const { fsinfo } = await readSlots(device);
  await writeSlots(device, { ...fsinfo, cpNumber: 8, nextTreeId: 80 });
  const newest = { ...fsinfo, cpNumber: 9, nextTreeId: 90 };
  await writeSlots(device, newest);
  return { device, newest };
}

const SLOTS = [0, 1, 16_382, 16_383];

/** What may have become of a slot. */
const DAMAGES: Readonly<Record<string, (device: MemoryDevice, block: number) => Promise<void>>> = {
  sound: () => Promise.resolve(),
  zeros: (device, block) => device.write(block * BLOCK_BYTES, [new Uint8Array(BLOCK_BYTES)]),
  'one bit': (device, block) => {
    device.flipBit(block * BLOCK_BYTES + 2000, 3);
    return Promise.resolve();
  },
};

describe('fsinfo slots', () => {
  test('consistency point n stands in slot n mod 2, at both ends', () => {
    assert.deepEqual(slotBlocks(8, 16_384), [0, 16_382]);
    assert.deepEqual(slotBlocks(9, 16_384), [1, 16_383]);
  });

  test('every combination of damages: the newest that is left is opened, its twin healed', async () => {
    const { device: origin } = await twoGenerations();
    const kinds = Object.keys(DAMAGES);
    let opened = 0;
    for (let code = 0; code < kinds.length ** 4; code++) {
      const device = origin.duplicate();
      const chosen = SLOTS.map((_, index) => kinds[Math.floor(code / kinds.length ** index) % 3]);
      for (const [index, kind] of chosen.entries()) {
        await DAMAGES[kind as string]?.(device, SLOTS[index] as number);
      }
      const isSound = chosen.map((kind) => kind === 'sound');
      const expected = isSound[1] || isSound[3] ? 9 : isSound[0] || isSound[2] ? 8 : undefined;
      if (expected === undefined) {
        await assert.rejects(readSlots(device), (error) => isStoreError(error, 'invalid'));
        continue;
      }
      opened++;
      const outcome = await readSlots(device);
      assert.equal(outcome.fsinfo.cpNumber, expected, chosen.join(', '));
      assert.equal(outcome.fsinfo.nextTreeId, expected * 10);
      const events: LogEvent[] = [];
      await healSlots(device, outcome, (event) => events.push(event));
      assert.equal(events.length, outcome.stale.length);
      for (const block of slotBlocks(expected, 16_384)) {
        const bytes = new Uint8Array(BLOCK_BYTES);
        await device.read(block * BLOCK_BYTES, [bytes]);
        assert.deepEqual(bytes, Uint8Array.from(encodeFsinfo(outcome.fsinfo)));
      }
      assert.deepEqual((await readSlots(device)).stale, []);
    }
    assert.equal(opened, 3 ** 4 - 2 ** 4);
  });

  test('any one bit of the newest slot: the twin is opened, the slot healed', async () => {
    const { device, newest } = await twoGenerations();
    const wanted = Uint8Array.from(encodeFsinfo(newest));
    for (let bit = 0; bit < BLOCK_BYTES * 8; bit += 7) {
      device.flipBit(BLOCK_BYTES + (bit >>> 3), bit & 7);
      const outcome = await readSlots(device);
      assert.equal(outcome.fsinfo.cpNumber, 9);
      assert.deepEqual(outcome.stale, [1]);
      await healSlots(device, outcome, silentLog);
      const bytes = new Uint8Array(BLOCK_BYTES);
      await device.read(BLOCK_BYTES, [bytes]);
      assert.deepEqual(bytes, wanted);
    }
  });

  test('a torn write of a slot leaves the consistency point before it, or the new one', async () => {
    const { device, newest } = await twoGenerations();
    const next = { ...newest, cpNumber: 10, nextTreeId: 100 };
    const bytes = encodeFsinfo(next);
    const old = new Uint8Array(BLOCK_BYTES);
    await device.read(0, [old]);
    for (let sectors = 0; sectors <= 8; sectors++) {
      const cut = device.duplicate();
      const mixed = old.slice();
      mixed.set(bytes.subarray(0, sectors * 512));
      await cut.write(0, [mixed]);
      const { cpNumber } = (await readSlots(cut)).fsinfo;
      assert.ok(cpNumber === 9 || cpNumber === 10);
      if (decodeFsinfo(mixed).kind === 'ok' && sectors === 8) assert.equal(cpNumber, 10);
    }
  });

  test('a store that is smaller than its device is found from either end of it', async () => {
    const device = await newDevice(128 * MIB, 64 * MIB);
    const { fsinfo } = await readSlots(device);
    assert.equal(fsinfo.storeBlocks, 16_384);
    const medium = await openDevice(device, silentLog);
    assert.equal(medium.vbnEnd, 16_384);
  });
});

describe('formatting and opening a device', () => {
  const uuid = new Uint8Array(16).fill(1);

  test('too small, too large for the device, or no store at all', async () => {
    const small = new MemoryDevice({ sizeBytes: 64 * MIB - BLOCK_BYTES });
    const request = { logBytes: undefined, uuid, clock: systemClock };
    await assert.rejects(formatDevice(small, { ...request, sizeBytes: small.sizeBytes }), (error) =>
      isStoreError(error, 'invalid'),
    );
    const device = new MemoryDevice({ sizeBytes: 64 * MIB });
    await assert.rejects(formatDevice(device, { ...request, sizeBytes: 72 * MIB }), (error) =>
      isStoreError(error, 'invalid'),
    );
    await assert.rejects(openDevice(device, silentLog), (error) => isStoreError(error, 'invalid'));
  });

  test('a device that was cut short is refused, and is as it was when it is whole again', async () => {
    const device = await newDevice(80 * MIB);
    for (const sizeBytes of [8 * MIB, 64 * MIB, 80 * MIB - BLOCK_BYTES]) {
      const front = new Uint8Array(2 * BLOCK_BYTES);
      await device.read(0, [front]);
      const short = new MemoryDevice({ sizeBytes });
      await short.write(0, [front]);
      await assert.rejects(
        openDevice(short, silentLog),
        (error) => isStoreError(error, 'invalid') && /cut short/.test(error.message),
      );
    }
    await openDevice(device, silentLog);
  });

  test('formatted again it is another, empty store, whatever stood there', async () => {
    for (const sizeBytes of [80 * MIB, 64 * MIB]) {
      const device = await newDevice(80 * MIB);
      const { fsinfo } = await readSlots(device);
      for (const cpNumber of [50, 51]) await writeSlots(device, { ...fsinfo, cpNumber });
      await formatDevice(device, { sizeBytes, logBytes: undefined, uuid, clock: systemClock });
      assert.deepEqual((await readSlots(device)).fsinfo.uuid, uuid);
      // Even with both front slots gone, nothing of the old store is taken for this one's.
      await device.write(0, [new Uint8Array(2 * BLOCK_BYTES)]);
      const found = await readSlots(device).catch(() => undefined);
      assert.deepEqual(found?.fsinfo.uuid, sizeBytes === 80 * MIB ? uuid : undefined);
    }
  });
});
