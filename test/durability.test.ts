/**
 * docs/DURABILITY.md, row by row: what is there after a kill, and after damage. A kill is a store that
 * nobody closes, opened again from its device. The simulator has the power cuts.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isStoreError, StoreError, type StoreErrorKind } from '../src/base/store-error.js';
import { BLOCK_BYTES, MIB } from '../src/base/units.js';
import type { Device } from '../src/env/device.js';
import { MemoryDevice } from '../src/env/memory-device.js';
import { formatStore, openStore } from '../src/main/open-store.js';
import type { Store } from '../src/main/store.js';

const DEVICE_BYTES = 64 * MIB;
/** No consistency point comes by itself. */
const NEVER_MS = 2 ** 30;

function open(device: Device): Promise<Store> {
  return openStore({ kind: 'device', device }, { cpIntervalMs: NEVER_MS });
}

async function newStore(): Promise<{ device: MemoryDevice; store: Store }> {
  const device = new MemoryDevice({ sizeBytes: DEVICE_BYTES });
  await formatStore({ kind: 'device', device });
  return { device, store: await open(device) };
}

function filled(byte: number, bytes = BLOCK_BYTES): Buffer {
  return Buffer.alloc(bytes, byte);
}

async function byteAt(store: Store, name: string, offset: number): Promise<number | undefined> {
  const into = Buffer.alloc(1);
  await store.vdisk(name).read(offset, into);
  return into[0];
}

function rejectsWith(kind: StoreErrorKind, work: Promise<unknown>, text = /./): Promise<void> {
  return assert.rejects(work, (error) => isStoreError(error, kind) && text.test(error.message));
}

describe('after a kill', () => {
  it('what was flushed is there: writes, FUA with all before it, trims', async () => {
    const { device, store } = await newStore();
    const disk = await store.createVdisk('disk', MIB);
    await disk.write(0, filled(1));
    await disk.write(5000, filled(2, 100));
    await disk.flush();
    await disk.trim(0, BLOCK_BYTES);
    await disk.write(9 * BLOCK_BYTES, filled(3));
    await disk.write(10 * BLOCK_BYTES, filled(4, 512), { fua: true });
    const again = await open(device);
    assert.equal(again.stats().recovered, true);
    const found = [0, 5000, 9 * BLOCK_BYTES, 10 * BLOCK_BYTES];
    const bytes = await Promise.all(found.map((offset) => byteAt(again, 'disk', offset)));
    assert.deepEqual(bytes, [0, 2, 3, 4]);
  });

  it('every act that was answered is there', async () => {
    const { device, store } = await newStore();
    await store.createVdisk('disk', MIB);
    await store.createVdisk('gone', MIB);
    await store.snapshot([{ vdisk: 'disk', snapshot: 'v1' }]);
    await store.clone('disk@v1', 'clone');
    await store.rename('clone', 'other');
    await store.resize('other', 2 * MIB);
    await store.delete('gone');
    const again = await open(device);
    const names = again.list().map(({ name, sizeBytes }) => `${name} ${sizeBytes / MIB}`);
    assert.deepEqual(names.sort(), ['disk 1', 'disk@v1 1', 'other 2']);
  });

  it('a flush of a clone covers what it reads through', async () => {
    const { device, store } = await newStore();
    const golden = await store.createVdisk('golden', MIB);
    await golden.write(0, filled(7));
    await store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
    const clone = await store.clone('golden@v1', 'clone');
    await clone.flush();
    assert.equal(await byteAt(await open(device), 'clone', 0), 7);
  });

  it('a split that was started goes on by itself; one that is done is done', async () => {
    const { device, store } = await newStore();
    const golden = await store.createVdisk('golden', 8 * MIB);
    await golden.write(0, filled(7, 8 * MIB));
    await store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
    await store.clone('golden@v1', 'clone');
    await store.split('clone', { mode: 'copy' });
    const second = await open(device);
    await second.idle();
    assert.equal(second.show('clone').backing, undefined);
    const third = await open(device);
    assert.equal(third.show('clone').backing, undefined);
    assert.equal(await byteAt(third, 'clone', 8 * MIB - 1), 7);
  });

  it('a store that was closed is just as it was, and says so', async () => {
    const { device, store } = await newStore();
    const disk = await store.createVdisk('disk', MIB);
    await disk.write(0, filled(1));
    await store.close();
    const again = await open(device);
    assert.equal(again.stats().recovered, false);
    assert.equal(await byteAt(again, 'disk', 0), 1);
  });
});

/** Passes everything on until it is told to fail: from then on no write succeeds. */
function failing(device: Device): { device: Device; fail: () => void } {
  let isFailing = false;
  const checked = (work: () => Promise<void>): Promise<void> =>
    isFailing ? Promise.reject(new StoreError('device', 'the disk is broken')) : work();
  return {
    fail: () => {
      isFailing = true;
    },
    device: {
      name: device.name,
      sizeBytes: device.sizeBytes,
      read: (offset, into) => device.read(offset, into),
      write: (offset, from) => checked(() => device.write(offset, from)),
      writeDurable: (offset, from) => checked(() => device.writeDurable(offset, from)),
      sync: () => checked(() => device.sync()),
      close: () => device.close(),
    },
  };
}

describe('when the device fails or is full', () => {
  it('a failed write stops the store, and what had been flushed is there', async () => {
    const { device, store } = await newStore();
    await store.close();
    const broken = failing(device);
    const stopped = await open(broken.device);
    const disk = await stopped.createVdisk('disk', MIB);
    await disk.write(0, filled(1));
    await disk.flush();
    broken.fail();
    await disk.write(0, filled(2));
    await rejectsWith('device', disk.flush(), /open it again/);
    await rejectsWith('device', disk.flush());
    await rejectsWith('device', stopped.createVdisk('more', MIB));
    assert.throws(() => void disk.write(0, filled(3)), /open it again/);
    assert.equal(await byteAt(await open(device), 'disk', 0), 1);
  });

  it('a write without space changes nothing; flush and delete work, and space comes back', async () => {
    const { store } = await newStore();
    const disk = await store.createVdisk('disk', 100 * MIB);
    const fillUp = async (): Promise<number> => {
      for (let offset = 0; ; offset += MIB) {
        try {
          await disk.write(offset, filled(5, MIB));
        } catch (error) {
          assert.ok(isStoreError(error, 'out-of-space'), String(error));
          return offset;
        }
      }
    };
    const end = await fillUp();
    assert.ok(end > 30 * MIB, `${end} bytes went in`);
    await disk.flush();
    assert.equal(await byteAt(store, 'disk', end - 1), 5);
    assert.equal(await byteAt(store, 'disk', end + MIB), 0);
    await disk.trim(0, end);
    await store.idle();
    await store.consistencyPoint();
    assert.equal(await fillUp(), end);
    await store.delete('disk');
    await store.close();
  });
});

describe('damage', () => {
  it('a rotten data block is corrupt, by name; writing it again mends it', async () => {
    const { device, store } = await newStore();
    const disk = await store.createVdisk('disk', MIB);
    await disk.write(0, filled(1, 3 * BLOCK_BYTES));
    await disk.write(BLOCK_BYTES, filled(0xa7));
    await store.close();
    await rot(device, filled(0xa7));
    const again = await open(device);
    const read = byteAt(again, 'disk', BLOCK_BYTES);
    await rejectsWith('corrupt', read, /^vdisk disk, block 1 \(byte 4096\)/);
    assert.equal(await byteAt(again, 'disk', 0), 1);
    await again.vdisk('disk').write(BLOCK_BYTES, filled(9));
    assert.equal(await byteAt(again, 'disk', BLOCK_BYTES), 9);
  });

  it('with both newest fsinfos gone the consistency point before is opened, and the log', async () => {
    const { device, store } = await newStore();
    const disk = await store.createVdisk('disk', MIB);
    await disk.write(0, filled(1));
    await store.consistencyPoint();
    await disk.write(0, filled(2));
    await disk.flush();
    await store.consistencyPoint();
    const slot = store.stats().cpNumber % 2;
    for (const block of [slot, DEVICE_BYTES / BLOCK_BYTES - 2 + slot]) {
      await device.write(block * BLOCK_BYTES, [filled(0)]);
    }
    assert.equal(await byteAt(await open(device), 'disk', 0), 2);
  });

  it('a device that was cut short is refused, with both lengths', async () => {
    const { device, store } = await newStore();
    await store.close();
    const first = filled(0, 48 * MIB);
    await device.read(0, [first]);
    const short = new MemoryDevice({ sizeBytes: first.length });
    await short.write(0, [first]);
    await rejectsWith('invalid', open(short), /48 MiB.*64 MiB/);
  });
});

/** Flips a bit in every block of the device with this content. */
async function rot(device: Device, content: Buffer): Promise<void> {
  const block = Buffer.alloc(BLOCK_BYTES);
  let count = 0;
  for (let at = 0; at < device.sizeBytes; at += BLOCK_BYTES) {
    await device.read(at, [block]);
    if (!block.equals(content)) continue;
    block[17] = (block[17] ?? 0) ^ 4;
    await device.write(at, [block]);
    count++;
  }
  assert.ok(count > 0, 'the content is on the device');
}
