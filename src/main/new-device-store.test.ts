import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { BLOCK_BYTES, MIB } from '../base/units.js';
import { MemoryDevice } from '../env/memory-device.js';
import { readSettings } from './config.js';
import { formatNewDevice } from './new-device-store.js';
import { formatStore, openStore } from './open-store.js';

/** Not a whole number of the 8 MiB that stores go by. */
const SIZE_BYTES = 100 * MIB + 512 * 1024;

const newDevice = (): MemoryDevice => new MemoryDevice({ name: '/dev/x', sizeBytes: SIZE_BYTES });

async function format(device: MemoryDevice, ...flags: string[]): Promise<string> {
  const [size] = flags.filter((flag) => flag !== 'erase');
  const settings = readSettings({
    flags: {
      ...(size === undefined ? {} : { 'store.size': size }),
      ...(flags.includes('erase') ? { 'store.erase-device': true } : {}),
    },
    environment: {},
    file: undefined,
  });
  let said = '';
  await formatNewDevice(device, settings, ({ message }) => {
    said += message;
  });
  return said;
}

async function storeBytes(device: MemoryDevice): Promise<number> {
  const store = await openStore({ kind: 'device', device: device.reopen() });
  const { totalBytes } = store.stats();
  await store.close();
  return totalBytes;
}

async function put(device: MemoryDevice, offset: number, text: string): Promise<void> {
  const at = offset % BLOCK_BYTES;
  const block = new Uint8Array(BLOCK_BYTES);
  await device.read(offset - at, [block]);
  block.set(Buffer.from(text), at);
  await device.write(offset - at, [block]);
}

async function bytesOf(device: MemoryDevice): Promise<Uint8Array> {
  const bytes = new Uint8Array(device.sizeBytes);
  await device.read(0, [bytes]);
  return bytes;
}

describe('a block device without a store', () => {
  it('is made one of its size, or of the size that is given', async () => {
    const [whole, part] = [newDevice(), newDevice()];
    assert.match(await format(whole), /^\/dev\/x is a new store of 96 MiB\.$/);
    assert.equal(await storeBytes(whole), 96 * MIB);
    assert.equal(await format(part, '64M'), '/dev/x is a new store of 64 MiB.');
    assert.equal(await storeBytes(part), 64 * MIB);
    await assert.rejects(format(newDevice(), '1G'), /has 101 MiB, too little .* 1 GiB/);
  });

  it('is refused, and not touched, if it is not blank', async () => {
    const blocks = SIZE_BYTES / BLOCK_BYTES;
    const sampled = Math.floor(blocks / 1000) * BLOCK_BYTES * 777;
    const ends = [0, 510, 1024, 65_536, MIB - 1, SIZE_BYTES - MIB, SIZE_BYTES - 1];
    for (const offset of [...ends, sampled]) {
      const device = newDevice();
      await put(device, offset, 'x');
      const before = await bytesOf(device);
      const message = new RegExp(`not blank: byte ${offset} is not zero; nothing was written`);
      await assert.rejects(format(device), message);
      assert.ok(Buffer.compare(await bytesOf(device), before) === 0, `byte ${offset}`);
      assert.match(await format(device, 'erase'), /new store/);
      assert.equal(await storeBytes(device), 96 * MIB);
    }
  });
});

describe('a block device with a store', () => {
  it('is never made another one, not even a damaged one, whatever is given', async () => {
    for (const sizeBytes of [SIZE_BYTES, 64 * MIB]) {
      const device = newDevice();
      await formatStore({ kind: 'device', device }, { sizeBytes });
      const sound = await bytesOf(device);
      for (const flags of [[], ['erase'], ['erase', '80M']]) {
        assert.equal(await format(device, ...flags), '');
        assert.ok(Buffer.compare(await bytesOf(device), sound) === 0, flags.join(' '));
      }
      // Both slots at its begin: their checksums.
      for (const block of [0, 1]) await put(device, block * BLOCK_BYTES + 100, 'damaged');
      const damaged = await bytesOf(device);
      assert.equal(await format(device, 'erase'), '');
      assert.ok(Buffer.compare(await bytesOf(device), damaged) === 0, 'damaged');
    }
  });

  it('nor if only its end is left', async () => {
    const device = newDevice();
    await formatStore({ kind: 'device', device });
    await device.write(0, [new Uint8Array(MIB)]);
    assert.equal(await format(device, 'erase'), '');
    assert.equal(await storeBytes(device), 96 * MIB);
  });
});
