/**
 * docs/DURABILITY.md, row by row: what is there after a kill, and after damage. A kill is a store
 * that nobody closes, opened again from its disk. The simulator has the power cuts.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { isStoreError, StoreError, type StoreErrorKind } from '../src/base/store-error.js';
import { BLOCK_BYTES, MIB } from '../src/base/units.js';
import { copyThroughMemory } from '../src/env/copy-blocks.js';
import type { Device } from '../src/env/device.js';
import { MemoryDevice } from '../src/env/memory-device.js';
import { formatStore, openStore } from '../src/main/open-store.js';
import type { Store } from '../src/main/store.js';

const DEVICE_BYTES = 64 * MIB;
/** No consistency point comes by itself. */
const NEVER_MS = 2 ** 30;

/** A machine with one disk. Who is killed never hears from the disk again, nor it from them. */
class Machine {
  readonly disk: Device;
  #kill: () => void = () => undefined;
  /** Writes and syncs fail from now on. */
  isBroken = false;

  constructor(disk: Device = new MemoryDevice({ sizeBytes: DEVICE_BYTES })) {
    this.disk = disk;
  }

  /** Kills whoever has the store open, and opens it. */
  open(): Promise<Store> {
    this.#kill();
    let isKilled = false;
    this.#kill = () => {
      isKilled = true;
    };
    const call = (isWrite: boolean, work: () => Promise<void>): Promise<void> => {
      if (isKilled) return new Promise(() => undefined);
      if (isWrite && this.isBroken) return Promise.reject(new StoreError('device', 'broken'));
      return work();
    };
    const { disk } = this;
    const device: Device = {
      name: disk.name,
      sizeBytes: disk.sizeBytes,
      read: (offset, into) => call(false, () => disk.read(offset, into)),
      write: (offset, from) => call(true, () => disk.write(offset, from)),
      writeDurable: (offset, from) => call(true, () => disk.writeDurable(offset, from)),
      copyBlocks: (copies) => copyThroughMemory(device, copies),
      sync: () => call(true, () => disk.sync()),
      close: () => Promise.resolve(),
    };
    return openStore({ kind: 'device', device }, { cpIntervalMs: NEVER_MS });
  }
}

async function newStore(): Promise<{ machine: Machine; store: Store }> {
  const machine = new Machine();
  await formatStore({ kind: 'device', device: machine.disk });
  return { machine, store: await machine.open() };
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
    const { machine, store } = await newStore();
    const disk = await store.createVdisk('disk', MIB);
    await disk.write(0, filled(1));
    await disk.write(5000, filled(2, 100));
    await disk.flush();
    await disk.trim(0, BLOCK_BYTES);
    await disk.write(9 * BLOCK_BYTES, filled(3));
    await disk.write(10 * BLOCK_BYTES, filled(4, 512), { fua: true });
    const again = await machine.open();
    assert.equal(again.stats().recovered, true);
    const found = [0, 5000, 9 * BLOCK_BYTES, 10 * BLOCK_BYTES];
    const bytes = await Promise.all(found.map((offset) => byteAt(again, 'disk', offset)));
    assert.deepEqual(bytes, [0, 2, 3, 4]);
  });

  it('every act that was answered is there', async () => {
    const { machine, store } = await newStore();
    await store.createVdisk('disk', MIB);
    await store.createVdisk('gone', MIB);
    await store.snapshot([{ vdisk: 'disk', snapshot: 'v1' }]);
    await store.clone('disk@v1', 'clone');
    await store.rename('clone', 'other');
    await store.resize('other', 2 * MIB);
    await store.delete('gone');
    const again = await machine.open();
    const names = again.list().map(({ name, sizeBytes }) => `${name} ${sizeBytes / MIB}`);
    assert.deepEqual(names.sort(), ['disk 1', 'disk@v1 1', 'other 2']);
  });

  it('a flush of a clone covers what it reads through', async () => {
    const { machine, store } = await newStore();
    const golden = await store.createVdisk('golden', MIB);
    await golden.write(0, filled(7));
    await store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
    const clone = await store.clone('golden@v1', 'clone');
    await clone.flush();
    assert.equal(await byteAt(await machine.open(), 'clone', 0), 7);
  });

  it('a split that was started goes on by itself; one that is done is done', async () => {
    const { machine, store } = await newStore();
    const golden = await store.createVdisk('golden', 8 * MIB);
    await golden.write(0, filled(7, 8 * MIB), { fua: true });
    await store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
    await store.clone('golden@v1', 'clone');
    await store.split('clone', { mode: 'copy' });
    const second = await machine.open();
    await second.idle();
    assert.equal(second.show('clone').backing, undefined);
    const third = await machine.open();
    assert.equal(third.show('clone').backing, undefined);
    assert.equal(await byteAt(third, 'clone', 8 * MIB - 1), 7);
  });

  it('a store that was closed is just as it was, and says so', async () => {
    const { machine, store } = await newStore();
    const disk = await store.createVdisk('disk', MIB);
    await disk.write(0, filled(1));
    await store.close();
    const again = await machine.open();
    assert.equal(again.stats().recovered, false);
    assert.equal(await byteAt(again, 'disk', 0), 1);
  });
});

describe('when the device fails or is full', () => {
  it('a failed write stops the store, and what had been flushed is there', async () => {
    const { machine, store } = await newStore();
    const disk = await store.createVdisk('disk', MIB);
    await disk.write(0, filled(1));
    await disk.flush();
    machine.isBroken = true;
    await disk.write(0, filled(2));
    await rejectsWith('device', disk.flush(), /open it again/);
    await rejectsWith('device', disk.flush());
    await rejectsWith('device', store.createVdisk('more', MIB));
    assert.throws(() => void disk.write(0, filled(3)), /open it again/);
    machine.isBroken = false;
    assert.equal(await byteAt(await machine.open(), 'disk', 0), 1);
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
    const { machine, store } = await newStore();
    const disk = await store.createVdisk('disk', MIB);
    await disk.write(0, filled(1, 3 * BLOCK_BYTES));
    await disk.write(BLOCK_BYTES, filled(0xa7));
    await store.close();
    await rot(machine.disk, filled(0xa7));
    const again = await machine.open();
    const read = byteAt(again, 'disk', BLOCK_BYTES);
    await rejectsWith('corrupt', read, /^vdisk disk, block 1 \(byte 4096\)/);
    assert.equal(await byteAt(again, 'disk', 0), 1);
    await again.vdisk('disk').write(BLOCK_BYTES, filled(9));
    assert.equal(await byteAt(again, 'disk', BLOCK_BYTES), 9);
  });

  it('with both newest fsinfos gone the consistency point before is opened, and the log', async () => {
    const { machine, store } = await newStore();
    const disk = await store.createVdisk('disk', MIB);
    await disk.write(0, filled(1));
    await store.consistencyPoint();
    await disk.write(0, filled(2));
    await disk.flush();
    await store.consistencyPoint();
    const slot = store.stats().cpNumber % 2;
    for (const block of [slot, DEVICE_BYTES / BLOCK_BYTES - 2 + slot]) {
      await machine.disk.write(block * BLOCK_BYTES, [filled(0)]);
    }
    assert.equal(await byteAt(await machine.open(), 'disk', 0), 2);
  });

  it('a device that was cut short is refused, with both lengths', async () => {
    const { machine, store } = await newStore();
    await store.close();
    const first = filled(0, 48 * MIB);
    await machine.disk.read(0, [first]);
    const short = new MemoryDevice({ sizeBytes: first.length });
    await short.write(0, [first]);
    await rejectsWith('invalid', new Machine(short).open(), /48 MiB.*64 MiB/);
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
