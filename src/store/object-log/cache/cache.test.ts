/** The cache file and what stands before it: restarts, damage, a failing disk, one GET for many. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { StoreError } from '../../../base/store-error.js';
import { BLOCK_BYTES } from '../../../base/units.js';
import type { Device } from '../../../env/device.js';
import type { LogEvent } from '../../../env/log-sink.js';
import { MemoryDevice } from '../../../env/memory-device.js';
import { seededRandom } from '../../../env/seeded-random.js';
import { BlockCache } from './block-cache.js';
import { CacheFile } from './cache-file.js';
import { GROUP_BYTES, GROUP_SLOTS } from './cache-group.js';
import { SlotIndex } from './slot-index.js';

const UUID = new Uint8Array(16).fill(7);
const silent = (): void => undefined;

function blockOf(vbn: number): Uint8Array {
  const bytes = new Uint8Array(BLOCK_BYTES);
  seededRandom(vbn).fill(bytes);
  return bytes;
}

function newDevice(groups: number): MemoryDevice {
  return new MemoryDevice({ sizeBytes: groups * GROUP_BYTES });
}

/** The same bytes, on a device that is not closed. */
async function again(device: MemoryDevice): Promise<MemoryDevice> {
  const copy = new MemoryDevice({ sizeBytes: device.sizeBytes });
  const bytes = new Uint8Array(device.sizeBytes);
  await device.read(0, [bytes]);
  await copy.write(0, [bytes]);
  return copy;
}

async function settled(): Promise<void> {
  for (let turn = 0; turn < 50; turn++) await Promise.resolve();
}

async function isThere(file: CacheFile, vbn: number): Promise<boolean> {
  const into = new Uint8Array(BLOCK_BYTES);
  if (!(await file.read(vbn, into))) return false;
  assert.deepEqual(into, blockOf(vbn), `block ${vbn}`);
  return true;
}

async function fill(file: CacheFile, from: number, count: number): Promise<void> {
  for (let vbn = from; vbn < from + count; vbn++) {
    file.add(vbn, blockOf(vbn));
    await settled();
  }
}

describe('cache file', () => {
  test('what it holds is there after a restart, but not for another store', async () => {
    const device = newDevice(4);
    const file = await CacheFile.open(device, UUID, silent);
    await fill(file, 1, 2 * GROUP_SLOTS + 5);
    const mine = await CacheFile.open(await again(device), UUID, silent);
    for (let vbn = 1; vbn <= 2 * GROUP_SLOTS; vbn++) assert.ok(await isThere(mine, vbn));
    const other = await CacheFile.open(await again(device), new Uint8Array(16), silent);
    assert.equal(other.stats.bytes, 0);
  });

  test('every flipped bit of a head or a block drops what it hit, and serves nothing', async () => {
    const device = newDevice(2);
    const file = await CacheFile.open(device, UUID, silent);
    await fill(file, 1, GROUP_SLOTS);
    const random = seededRandom(3);
    for (let round = 0; round < 400; round++) {
      const copy = await again(device);
      const at = round < 200 ? random.below(BLOCK_BYTES) : random.below(GROUP_BYTES);
      const bytes = new Uint8Array(BLOCK_BYTES);
      const start = at - (at % BLOCK_BYTES);
      await copy.read(start, [bytes]);
      bytes[at % BLOCK_BYTES] = (bytes[at % BLOCK_BYTES] as number) ^ (1 << random.below(8));
      await copy.write(start, [bytes]);
      const damaged = await CacheFile.open(copy, UUID, silent);
      let there = 0;
      for (let vbn = 1; vbn <= GROUP_SLOTS; vbn++) if (await isThere(damaged, vbn)) there++;
      assert.equal(there, at < BLOCK_BYTES ? 0 : GROUP_SLOTS - 1, `byte ${at}`);
      if (at >= BLOCK_BYTES) assert.equal(damaged.stats.damaged, 1);
    }
  });

  test('the ring keeps what is read again and again, and lets go of what is not', async () => {
    const file = await CacheFile.open(newDevice(4), UUID, silent);
    await fill(file, 1, GROUP_SLOTS);
    for (let round = 1; round < 20; round++) {
      for (let vbn = 1; vbn <= 20; vbn++) assert.ok(await isThere(file, vbn), `round ${round}`);
      await fill(file, 1000 * round, GROUP_SLOTS);
    }
    assert.equal(await isThere(file, 21), false);
    assert.ok(file.stats.bytes <= file.stats.bytesMax);
  });

  test('a failing disk switches it off, with one line and no error', async () => {
    const events: LogEvent[] = [];
    const device = newDevice(4);
    const broken: Device = {
      name: 'broken',
      sizeBytes: device.sizeBytes,
      read: (offset, into) => device.read(offset, into),
      write: () => Promise.reject(new StoreError('device', 'no space left')),
      copyBlocks: () => Promise.reject(new StoreError('device', 'no space left')),
      writeDurable: () => Promise.reject(new StoreError('device', 'no space left')),
      sync: () => Promise.resolve(),
      close: () => device.close(),
    };
    const file = await CacheFile.open(broken, UUID, (event) => events.push(event));
    await fill(file, 1, 3 * GROUP_SLOTS);
    assert.equal(await isThere(file, 1), false);
    assert.deepEqual(
      events.map(({ event }) => event),
      ['cache-file-off'],
    );
    assert.equal(file.stats.isOn, false);
    await file.close();
  });

  test('the index finds what a map finds', () => {
    const index = new SlotIndex(64);
    const model = new Map<number, number>();
    const random = seededRandom(9);
    for (let step = 0; step < 20_000; step++) {
      const vbn = 1 + random.below(200);
      const slot = random.below(64);
      const holder = index.vbnOf(slot);
      if (random.chance(0.6)) {
        if (holder !== 0) {
          index.delete(holder);
          model.delete(holder);
        }
        index.set(slot, vbn);
        model.set(vbn, slot);
      } else {
        index.delete(vbn);
        model.delete(vbn);
      }
      const asked = 1 + random.below(200);
      assert.equal(index.find(asked), model.get(asked) ?? -1);
      assert.equal(index.count, model.size);
    }
  });
});

/** A record of 1000 blocks, number 1, and how often it was asked. */
class Source {
  fetches: [number, number][] = [];
  readonly fetch = async (vbn: number, count: number): Promise<Uint8Array> => {
    this.fetches.push([vbn, count]);
    await settled();
    const end = Math.min(vbn + count, 1024 + 1000);
    const bytes = new Uint8Array((end - vbn) * BLOCK_BYTES);
    for (let at = vbn; at < end; at++) bytes.set(blockOf(at), (at - vbn) * BLOCK_BYTES);
    return bytes;
  };
}

async function readSome(cache: BlockCache, vbn: number, count: number): Promise<void> {
  const into = Array.from({ length: count }, () => new Uint8Array(BLOCK_BYTES));
  await cache.read(vbn, into);
  into.forEach((block, index) => {
    assert.deepEqual(block, blockOf(vbn + index), `block ${vbn + index}`);
  });
}

describe('block cache', () => {
  test('many who want one block at once share one GET', async () => {
    const source = new Source();
    const cache = new BlockCache(source.fetch, 1 << 20, undefined);
    await Promise.all(Array.from({ length: 20 }, () => readSome(cache, 1024 + 40, 1)));
    assert.deepEqual(source.fetches, [[1024 + 40, 1]]);
  });

  test('a stream reads 128 KiB ahead, then the rest of the record at once', async () => {
    const source = new Source();
    const cache = new BlockCache(source.fetch, 8 << 20, undefined);
    for (let vbn = 1024; vbn < 2024; vbn += 4) await readSome(cache, vbn, 4);
    assert.ok(source.fetches.length <= 11, JSON.stringify(source.fetches));
    const [vbn, count] = source.fetches.at(-1) as [number, number];
    assert.equal(vbn + count, 2024);
    assert.ok(count > 700);
  });

  test('what was read at random is in the file; a stream only the second time', async () => {
    const source = new Source();
    const file = await CacheFile.open(newDevice(16), UUID, silent);
    const cache = new BlockCache(source.fetch, 1 << 20, file);
    await readSome(cache, 1024 + 500, 1);
    await readSome(cache, 1024 + 500, 1);
    assert.equal(source.fetches.length, 1);
    await readSome(cache, 1024, 32);
    assert.equal(file.has(1024), false);
    await readSome(cache, 1024, 32);
    assert.equal(file.has(1024), true);
    await readSome(cache, 1024, 32);
    assert.equal(source.fetches.length, 3);
    assert.equal(cache.stats.fileHits, 33);
  });

  test('a failed fetch reaches all who wait for it, and the next read asks again', async () => {
    let isBroken = true;
    const source = new Source();
    const cache = new BlockCache(
      (vbn, count) =>
        isBroken ? Promise.reject(new StoreError('device', 'no')) : source.fetch(vbn, count),
      1 << 20,
      undefined,
    );
    const outcomes = await Promise.allSettled([readSome(cache, 1030, 1), readSome(cache, 1030, 1)]);
    assert.deepEqual(
      outcomes.map(({ status }) => status),
      ['rejected', 'rejected'],
    );
    isBroken = false;
    await readSome(cache, 1030, 1);
  });

  test('a read has not ended while any of its blocks is on its way, though one has failed', async () => {
    const file = await CacheFile.open(newDevice(4), UUID, silent);
    await fill(file, 1031, 1);
    let come: (bytes: Uint8Array) => void = () => undefined;
    const cache = new BlockCache(
      (vbn) =>
        vbn === 1030
          ? Promise.reject(new StoreError('device', 'no'))
          : new Promise((resolve) => {
              come = resolve;
            }),
      1 << 20,
      file,
    );
    const blocks = [0, 1, 2].map(() => new Uint8Array(BLOCK_BYTES));
    let hasEnded = false;
    const read = cache.read(1030, blocks).finally(() => {
      hasEnded = true;
    });
    read.catch(() => undefined);
    await settled();
    assert.equal(hasEnded, false, 'the caller would use these blocks again');
    come(blockOf(1032));
    await assert.rejects(read, /no/);
  });

  test('what is read ahead is fetched once, and served to who comes early', async () => {
    const source = new Source();
    const cache = new BlockCache(source.fetch, 8 << 20, undefined);
    cache.readAhead(1024, 600);
    cache.readAhead(1524, 300);
    assert.deepEqual(source.fetches, [
      [1024, 600],
      [1624, 200],
    ]);
    await Promise.all([readSome(cache, 1024 + 590, 20), readSome(cache, 1024, 100)]);
    await readSome(cache, 1024 + 100, 490);
    await readSome(cache, 1024 + 610, 190);
    assert.equal(source.fetches.length, 2);
    assert.equal(cache.stats.memoryBytes, 0, 'what was read is not kept');
    await readSome(cache, 1024, 1);
    assert.equal(source.fetches.length, 3, 'nor served again: it may have been damaged on its way');
  });

  test("no more is read ahead than memory has room for; a failure is the reader's", async () => {
    const source = new Source();
    const cache = new BlockCache(source.fetch, 100 * BLOCK_BYTES, undefined);
    cache.readAhead(1024, 80);
    cache.readAhead(1224, 80);
    assert.equal(source.fetches.length, 1);
    const failing = new BlockCache(
      () => Promise.reject(new StoreError('device', 'no')),
      1 << 20,
      undefined,
    );
    failing.readAhead(1024, 10);
    await assert.rejects(readSome(failing, 1024, 1), /no/);
  });

  test('a block that is read again comes past what is kept of it, and is not served again', async () => {
    const source = new Source();
    const cache = new BlockCache(source.fetch, 1 << 20, undefined);
    cache.readAhead(1024, 10);
    await readSome(cache, 1030, 1);
    const into = new Uint8Array(BLOCK_BYTES);
    await cache.readAgain(1024, into);
    assert.deepEqual(into, blockOf(1024));
    await readSome(cache, 1025, 5);
    assert.equal(source.fetches.length, 2, 'what stands beside it is kept');
    await readSome(cache, 1024, 1);
    assert.deepEqual(source.fetches.slice(1), [
      [1024, 1],
      [1024, 1],
    ]);
  });
});
