import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { crc32 } from '../base/checksum.js';
import { isStoreError } from '../base/store-error.js';
import { BLOCK_BYTES, SECTOR_BYTES } from '../base/units.js';
import { MemoryDevice } from '../env/memory-device.js';
import { seededRandom } from '../env/seeded-random.js';
import type { LogEntry } from '../layout/log-entry.js';
import { groupHeaderBlocks } from '../layout/log-group.js';
import { LogRing, type RingPlace } from './log-ring.js';
import type { LogBatch } from './medium.js';

const UUID = new Uint8Array(16).fill(0x5a);
const START = 2;

interface Found {
  readonly cpNumber: number;
  readonly entries: readonly LogEntry[];
  readonly payload: readonly string[];
}

function place(blocks: number, sequence = 1, position = 0): RingPlace {
  return { start: START, blocks, uuid: UUID, epoch: 1, sequence, position, name: 'ring' };
}

/** A batch with so many blocks of data. Every byte depends on `stamp`. */
function batchOf(stamp: number, blocks: number, extra: readonly LogEntry[] = []): LogBatch {
  const random = seededRandom(stamp);
  const payload: Uint8Array[] = [];
  const entries: LogEntry[] = [...extra];
  for (let index = 0; index < blocks; index++) {
    const block = new Uint8Array(BLOCK_BYTES);
    random.fill(block);
    payload.push(block);
    entries.push({
      kind: 'data',
      treeId: 1,
      fbn: stamp * 10 + index,
      crc: crc32(block),
      payloadIndex: index,
    });
  }
  return { cpNumber: 1, units: [entries], payload };
}

function rangeEntry(fbn: number): LogEntry {
  return { kind: 'range', treeId: 1, fbn, blocks: 3, to: 'zero' };
}

function foundOf(batch: LogBatch): Found {
  const { cpNumber, units, payload } = batch;
  return { cpNumber, entries: units.flat(), payload: payload.map(text) };
}

function text(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('latin1');
}

async function recover(device: MemoryDevice, at: RingPlace): Promise<Found[]> {
  const found: Found[] = [];
  for await (const batch of new LogRing(device, at).recover()) {
    const { cpNumber, entries } = batch;
    const payload: string[] = [];
    for (const entry of entries) {
      if (entry.kind === 'data') payload.push(text(batch.payload(entry.payloadIndex)));
    }
    found.push({ cpNumber, entries, payload });
  }
  return found;
}

function newDevice(ringBlocks: number): MemoryDevice {
  return new MemoryDevice({ sizeBytes: (START + ringBlocks) * BLOCK_BYTES });
}

async function isRefused(recovering: Promise<unknown>): Promise<boolean> {
  return recovering.then(
    () => false,
    (error: unknown) => {
      assert.ok(isStoreError(error, 'corrupt'), String(error));
      return true;
    },
  );
}

describe('log ring', () => {
  test('what was appended is found, in order, with its bytes', async () => {
    const device = newDevice(64);
    const ring = new LogRing(device, place(64));
    const batches = [batchOf(1, 3), batchOf(2, 0, [rangeEntry(7)]), batchOf(3, 1, [rangeEntry(8)])];
    assert.equal(await ring.append(batches.slice(0, 1)), 'durable');
    assert.equal(await ring.append(batches.slice(1)), 'durable');
    assert.deepEqual(await recover(device, place(64)), batches.map(foundOf));
    assert.equal(ring.usedBlocks, 4 + 1 + 2);
  });

  test('a batch that does not fit writes nothing; after a release it fits', async () => {
    const device = newDevice(8);
    const ring = new LogRing(device, place(8));
    assert.equal(await ring.append([batchOf(1, 5)]), 'durable');
    const { mark } = ring;
    const writes = device.stats.writes;
    assert.equal(await ring.append([batchOf(2, 2)]), 'full');
    assert.equal(await ring.append([batchOf(2, 0, [rangeEntry(1)]), batchOf(3, 1)]), 'full');
    assert.equal(device.stats.writes, writes);
    ring.release(mark);
    assert.equal(await ring.append([batchOf(2, 2)]), 'durable');
    const at = place(8, mark.sequence, ring.positionOf(mark));
    assert.deepEqual(await recover(device, at), [foundOf(batchOf(2, 2))]);
  });

  test('a ring of every size, filled by groups of every size, from every position', async () => {
    for (const blocks of [4, 5, 7]) {
      for (let position = 0; position < blocks; position++) {
        for (let size = 1; size <= blocks; size++) {
          const device = newDevice(blocks);
          const at = place(blocks, 10, position);
          const ring = new LogRing(device, at);
          const written: Found[] = [];
          for (let stamp = 1; ; stamp++) {
            const batch = batchOf(stamp, size - 1, size === 1 ? [rangeEntry(stamp)] : []);
            if ((await ring.append([batch])) === 'full') break;
            written.push(foundOf(batch));
          }
          assert.deepEqual(await recover(device, at), written);
          assert.ok(ring.usedBlocks <= blocks);
        }
      }
    }
  });

  test('the largest group of a ring of 1,022 blocks goes through every position', async () => {
    const blocks = 1022;
    const device = newDevice(blocks);
    const ring = new LogRing(device, place(blocks));
    for (let stamp = 1; stamp <= 12; stamp++) {
      const { mark } = ring;
      ring.release(mark);
      const batch = batchOf(stamp, stamp % 2 === 0 ? 600 : 211);
      const outcome = await ring.append([batch]);
      const at = place(blocks, mark.sequence, ring.positionOf(mark));
      const expected = outcome === 'durable' ? [foundOf(batch)] : [];
      assert.deepEqual(await recover(device, at), expected);
    }
  });

  test('the last group torn at every sector is none; the next takes its place', async () => {
    const before = newDevice(16);
    const ring = new LogRing(before, place(16));
    await ring.append([batchOf(1, 2)]);
    const { mark } = ring;
    const after = before.duplicate();
    const tail = new LogRing(after, place(16, mark.sequence, ring.positionOf(mark)));
    const last = batchOf(2, 2, [rangeEntry(5)]);
    await tail.append([last]);
    const sectors = (3 * BLOCK_BYTES) / SECTOR_BYTES;
    const whole = new Uint8Array(3 * BLOCK_BYTES);
    const start = (START + ring.positionOf(mark)) * BLOCK_BYTES;
    await after.read(start, [whole]);
    // Which sectors landed: all up to one, all from one on, all but one, only one.
    const patterns: ((sector: number, at: number) => boolean)[] = [
      (sector, at) => sector < at,
      (sector, at) => sector >= at,
      (sector, at) => sector !== at,
      (sector, at) => sector === at,
    ];
    let torn = 0;
    for (const landed of patterns) {
      for (let at = 0; at <= sectors; at++) {
        const device = before.duplicate();
        const bytes = new Uint8Array(3 * BLOCK_BYTES);
        for (let sector = 0; sector < sectors; sector++) {
          if (!landed(sector, at)) continue;
          const from = sector * SECTOR_BYTES;
          bytes.set(whole.subarray(from, from + SECTOR_BYTES), from);
        }
        await device.write(start, [bytes]);
        const found = await recover(device, place(16));
        const isWhole = found.length === 2;
        assert.deepEqual(found.slice(0, 1), [foundOf(batchOf(1, 2))]);
        if (isWhole) assert.deepEqual(found[1], foundOf(last));
        else torn++;
        // The ring goes on behind the last sound group.
        const again = new LogRing(device, place(16));
        const batches: unknown[] = [];
        for await (const batch of again.recover()) batches.push(batch);
        assert.equal(await again.append([batchOf(9, 1)]), 'durable');
        const all = await recover(device, place(16));
        assert.deepEqual(all.at(-1), foundOf(batchOf(9, 1)));
        assert.equal(all.length, isWhole ? 3 : 2);
      }
    }
    assert.ok(torn > sectors);
  });
});

describe('log ring: rot', () => {
  test('any one bit of any group, header and payload: mended or refused, never wrong', async () => {
    const device = newDevice(16);
    const batches = [batchOf(1, 1, [rangeEntry(3)]), batchOf(2, 1), batchOf(3, 1)];
    await new LogRing(device, place(16)).append(batches);
    const expected = batches.map(foundOf);
    let mended = 0;
    for (let group = 0; group < 3; group++) {
      for (let block = 0; block < 2; block++) {
        const offset = (START + group * 2 + block) * BLOCK_BYTES;
        // Of the header all that is covered; of the payload every 101st bit.
        const bits = block === 0 ? 168 * 8 : BLOCK_BYTES * 8;
        for (let bit = group; bit < bits; bit += block === 0 ? 1 : 101) {
          device.flipBit(offset + (bit >>> 3), bit & 7);
          const refused = await isRefused(
            recover(device, place(16)).then((found) => assert.deepEqual(found, expected)),
          );
          if (!refused) mended++;
          device.flipBit(offset + (bit >>> 3), bit & 7);
        }
      }
    }
    assert.ok(mended > 4_500, `${mended} mended`);
  });

  test('a group with two wrong bits is refused if any later one is sound', async () => {
    // Sizes, and where in a ring of 4,096 blocks the first group begins.
    const scenes = [
      { sizes: [3, 1, 1], position: 0 },
      { sizes: [1, 700, 2], position: 4095 },
      { sizes: [900, 1000, 2], position: 50 },
      // The first one stands at the ring's start, as it does not fit behind what was before it.
      { sizes: [900, 2], position: 3500 },
      // The second one does not fit behind the first and stands at the ring's start.
      { sizes: [990, 1000, 2], position: 2200 },
    ];
    for (const { sizes, position } of scenes) {
      const device = newDevice(4096);
      const at = place(4096, 1, position);
      const ring = new LogRing(device, at);
      const batches = sizes.map((size, index) => batchOf(index + 1, size, [rangeEntry(1)]));
      assert.equal(await ring.append(batches), 'durable');
      const first = groupHeaderBlocks(batches[0]?.units.flat() ?? []) + (sizes[0] ?? 0);
      const block = START + (position + first <= 4096 ? position : 0);
      device.flipBit(block * BLOCK_BYTES + 30, 1);
      device.flipBit(block * BLOCK_BYTES + 41, 5);
      assert.ok(await isRefused(recover(device, at)), `sizes ${sizes.join(', ')}`);
    }
  });

  test('a long header behind a damaged group is found', async () => {
    const device = newDevice(2048);
    const ring = new LogRing(device, place(2048));
    const many = Array.from({ length: 300 }, (_, index) => rangeEntry(index));
    await ring.append([batchOf(1, 1000)]);
    await ring.append([{ cpNumber: 1, units: [many], payload: [] }]);
    device.flipBit(START * BLOCK_BYTES + 30, 1);
    device.flipBit(START * BLOCK_BYTES + 41, 5);
    assert.ok(await isRefused(recover(device, place(2048))));
  });

  test('groups of another store, and of the lap before, are not taken', async () => {
    const device = newDevice(8);
    const other = new LogRing(device, { ...place(8), uuid: new Uint8Array(16).fill(1) });
    await other.append([batchOf(1, 1), batchOf(2, 1), batchOf(3, 1)]);
    assert.deepEqual(await recover(device, place(8)), []);
    const ring = new LogRing(device, place(8));
    for (let stamp = 1; stamp <= 5; stamp++) {
      await ring.append([batchOf(stamp, 2)]);
      ring.release(ring.mark);
    }
    const { mark } = ring;
    const at = place(8, mark.sequence, ring.positionOf(mark));
    assert.deepEqual(await recover(device, at), []);
  });
});
