/** What every Device does. Run on each implementation by device.test.ts. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { crc32, ZERO_BLOCK_CRC } from '../../src/base/checksum.js';
import { isStoreError, type StoreErrorKind } from '../../src/base/store-error.js';
import { BLOCK_BYTES, MIB } from '../../src/base/units.js';
import type { BlockCopies, Device } from '../../src/env/device.js';
import { seededRandom } from '../../src/env/seeded-random.js';

/** One implementation, made ready for one test. */
export interface DeviceFixture {
  /** A fresh device full of zeros. */
  readonly device: Device;
  /** The same device, after a close. */
  reopen(): Promise<Device>;
  /** Waits; a simulated device has its time moved. */
  settle<T>(promise: Promise<T>): Promise<T>;
  /** Lets go of everything. Devices are closed already, or may be closed by this. */
  end(): Promise<void>;
}

const SIZE_BYTES = 8 * MIB;

/** An area with different bytes in every block and at every offset. */
function pattern(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  seededRandom(seed).fill(bytes);
  return bytes;
}

function same(actual: Uint8Array, expected: Uint8Array, what: string): void {
  assert.equal(Buffer.compare(actual, expected), 0, what);
}

function crcsOf(bytes: Uint8Array): Uint32Array {
  return Uint32Array.from({ length: bytes.length / BLOCK_BYTES }, (_, index) =>
    crc32(bytes.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES)),
  );
}

function ofKind(kind: StoreErrorKind, mentions: string): (error: unknown) => boolean {
  return (error) => isStoreError(error, kind) && error.message.includes(mentions);
}

export function deviceContract(
  name: string,
  make: (sizeBytes: number) => Promise<DeviceFixture>,
): void {
  describe(`device contract: ${name}`, () => {
    let fixture: DeviceFixture;
    let device: Device;
    const settle = <T>(promise: Promise<T>): Promise<T> => fixture.settle(promise);
    const readAt = async (offset: number, length: number): Promise<Uint8Array> => {
      // Not zeros: what is not filled must show.
      const into = new Uint8Array(length).fill(0xaa);
      await settle(device.read(offset, [into]));
      return into;
    };
    beforeEach(async () => {
      fixture = await make(SIZE_BYTES);
      device = fixture.device;
    });
    afterEach(() => fixture.end());

    test('has a name and the size it was made with', () => {
      assert.ok(device.name.length > 0);
      assert.equal(device.sizeBytes, SIZE_BYTES);
    });

    test('a new device is zeros to its last byte', async () => {
      for (const offset of [0, MIB - BLOCK_BYTES, SIZE_BYTES - BLOCK_BYTES]) {
        same(await readAt(offset, BLOCK_BYTES), new Uint8Array(BLOCK_BYTES), `at ${offset}`);
      }
    });

    for (const kind of ['write', 'writeDurable'] as const) {
      test(`${kind}: reads see the bytes, neighbours stay`, async () => {
        const bytes = pattern(3 * BLOCK_BYTES, 1);
        for (const offset of [0, BLOCK_BYTES, MIB - BLOCK_BYTES, SIZE_BYTES - bytes.length]) {
          const around = await readAt(0, SIZE_BYTES);
          around.set(bytes, offset);
          await settle(device[kind](offset, [bytes]));
          same(await readAt(offset, bytes.length), bytes, `the bytes at ${offset}`);
          same(await readAt(0, SIZE_BYTES), around, `all with the bytes at ${offset}`);
        }
      });

      test(`${kind}: does not change its buffers, and copies them`, async () => {
        const bytes = pattern(BLOCK_BYTES, 2);
        await settle(device[kind](0, [bytes]));
        same(bytes, pattern(BLOCK_BYTES, 2), 'the buffer afterwards');
        bytes.fill(0);
        same(await readAt(0, BLOCK_BYTES), pattern(BLOCK_BYTES, 2), 'after the buffer changed');
      });

      test(`${kind}: many buffers of many sizes, more than one system call takes`, async () => {
        const bytes = pattern(6 * MIB, 3);
        for (const size of [512, 4096, 12_288, MIB + 512]) {
          const from: Uint8Array[] = [new Uint8Array(0)];
          for (let at = 0; at < bytes.length; at += size) from.push(bytes.subarray(at, at + size));
          await settle(device.write(BLOCK_BYTES, [new Uint8Array(bytes.length)]));
          await settle(device[kind](BLOCK_BYTES, from));
          same(await readAt(BLOCK_BYTES, bytes.length), bytes, `written in pieces of ${size}`);
        }
      });

      test(`${kind}: the last of two writes, one after the other, counts`, async () => {
        for (const other of ['write', 'writeDurable'] as const) {
          await settle(device[other](0, [pattern(2 * BLOCK_BYTES, 4)]));
          await settle(device[kind](BLOCK_BYTES, [pattern(BLOCK_BYTES, 5)]));
          const first = pattern(2 * BLOCK_BYTES, 4).subarray(0, BLOCK_BYTES);
          same(await readAt(0, BLOCK_BYTES), first, `first block after ${other}`);
          same(await readAt(BLOCK_BYTES, BLOCK_BYTES), pattern(BLOCK_BYTES, 5), 'second block');
        }
      });

      test(`${kind}: a bad range is refused and nothing changes`, async () => {
        const block = [pattern(BLOCK_BYTES, 6)];
        const refused = ofKind('invalid', device.name);
        const at = (offset: number, from: Uint8Array[]): Promise<void> =>
          settle(device[kind](offset, from));
        await assert.rejects(at(SIZE_BYTES, block), refused);
        await assert.rejects(at(SIZE_BYTES - BLOCK_BYTES, [...block, ...block]), refused);
        await assert.rejects(at(-BLOCK_BYTES, block), refused);
        await assert.rejects(at(512, block), refused);
        await assert.rejects(at(Number.NaN, block), refused);
        await assert.rejects(at(2 ** 53, block), refused);
        await assert.rejects(at(0, [new Uint8Array(BLOCK_BYTES - 1)]), refused);
        same(await readAt(0, SIZE_BYTES), new Uint8Array(SIZE_BYTES), 'the whole device');
      });
    }

    test('read: many buffers of many sizes, more than one system call takes', async () => {
      const bytes = pattern(6 * MIB, 7);
      await settle(device.write(BLOCK_BYTES, [bytes]));
      for (const size of [512, 4096, 12_288, MIB + 512]) {
        const all = new Uint8Array(bytes.length);
        const into: Uint8Array[] = [new Uint8Array(0)];
        for (let at = 0; at < all.length; at += size) into.push(all.subarray(at, at + size));
        await settle(device.read(BLOCK_BYTES, into));
        same(all, bytes, `read in pieces of ${size}`);
      }
    });

    test('read: a bad range is refused', async () => {
      const block = [new Uint8Array(BLOCK_BYTES)];
      const refused = ofKind('invalid', device.name);
      await assert.rejects(settle(device.read(SIZE_BYTES, block)), refused);
      await assert.rejects(settle(device.read(-BLOCK_BYTES, block)), refused);
      await assert.rejects(settle(device.read(1, block)), refused);
      await assert.rejects(settle(device.read(0, [new Uint8Array(100)])), refused);
    });

    test('nothing to read or write is no error', async () => {
      await settle(device.write(0, []));
      await settle(device.writeDurable(SIZE_BYTES, []));
      await settle(device.read(0, [new Uint8Array(0)]));
    });

    test('many calls side by side: each does its part', async () => {
      const calls: Promise<void>[] = [];
      const all = pattern(256 * BLOCK_BYTES, 8);
      for (let block = 0; block < 256; block++) {
        const from = [all.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES)];
        const write = block % 3 === 0 ? device.writeDurable : device.write;
        calls.push(write.call(device, block * BLOCK_BYTES, from));
        if (block % 16 === 0) calls.push(device.sync());
      }
      await settle(Promise.all(calls));
      same(await readAt(0, all.length), all, 'all parts');
    });

    test('a read side by side with writes elsewhere is not disturbed', async () => {
      const bytes = pattern(BLOCK_BYTES, 9);
      await settle(device.write(0, [bytes]));
      const into = new Uint8Array(BLOCK_BYTES);
      const writes = [1, 2, 3].map((block) =>
        device.write(block * BLOCK_BYTES, [pattern(BLOCK_BYTES, 10)]),
      );
      await settle(Promise.all([device.read(0, [into]), ...writes]));
      same(into, bytes, 'what was read');
    });

    test('sync: alone, many at once, and after writes', async () => {
      await settle(device.sync());
      await settle(Promise.all([device.sync(), device.sync(), device.sync(), device.sync()]));
      await settle(device.write(0, [pattern(BLOCK_BYTES, 11)]));
      await settle(device.sync());
      same(await readAt(0, BLOCK_BYTES), pattern(BLOCK_BYTES, 11), 'after the sync');
    });

    const copy = (from: number, to: number, crcs: Iterable<number>): BlockCopies => {
      const list = [...crcs];
      const blocksFrom = (offset: number): number[] =>
        list.map((_, index) => offset / BLOCK_BYTES + index);
      return { from: blocksFrom(from), to: blocksFrom(to), crcs: list };
    };

    test('copyBlocks: the blocks stand there, too, and nothing else has changed', async () => {
      const bytes = pattern(256 * BLOCK_BYTES, 14);
      const crcs = crcsOf(bytes);
      await settle(device.write(0, [bytes]));
      const around = await readAt(0, SIZE_BYTES);
      for (const [from, to, blocks] of [
        [0, 2 * MIB, 256],
        [3 * BLOCK_BYTES, SIZE_BYTES - BLOCK_BYTES, 1],
        [2 * MIB, 5 * MIB + BLOCK_BYTES, 17],
      ] as const) {
        const first = (from % MIB) / BLOCK_BYTES;
        const some = crcs.slice(first, first + blocks);
        assert.deepEqual(await settle(device.copyBlocks(copy(from, to, some))), []);
        around.copyWithin(to, from, from + blocks * BLOCK_BYTES);
        same(await readAt(0, SIZE_BYTES), around, `all with ${blocks} blocks at ${to}`);
      }
      assert.deepEqual(await settle(device.copyBlocks({ from: [], to: [], crcs: [] })), []);
    });

    test('copyBlocks: each block where it is to stand, however they lie', async () => {
      const bytes = pattern(256 * BLOCK_BYTES, 17);
      const all = crcsOf(bytes);
      await settle(device.write(0, [bytes]));
      const around = await readAt(0, SIZE_BYTES);
      // Gaps of 0 to 15 blocks, some backwards; places that are neighbours, and that are not.
      const from: number[] = [];
      for (let block = 0, step = 0; block < 256; block += 1 + ((step++ * 7) % 16)) from.push(block);
      from.push(from.shift() as number);
      const to = from.map((_, index) => 400 + index + (index % 5 === 0 ? 300 : 0));
      const crcs = from.map((block) => all[block] as number);
      const bad = [3, 4, from.length - 1];
      for (const index of bad) crcs[index] = ((crcs[index] as number) ^ 1) >>> 0;
      assert.deepEqual(await settle(device.copyBlocks({ from, to, crcs })), bad);
      for (const [index, block] of to.entries()) {
        if (bad.includes(index)) continue;
        const start = (from[index] as number) * BLOCK_BYTES;
        around.copyWithin(block * BLOCK_BYTES, start, start + BLOCK_BYTES);
      }
      same(await readAt(0, SIZE_BYTES), around, 'all');
    });

    test('copyBlocks: a block that has another checksum is named, and not written', async () => {
      const bytes = pattern(20 * BLOCK_BYTES, 15);
      await settle(device.write(MIB, [bytes]));
      for (const bad of [[0], [7, 8, 12], [19], crcsOf(bytes).keys()]) {
        const wrong = [...bad];
        const zeros = new Uint8Array(bytes.length);
        await settle(device.write(4 * MIB, [zeros]));
        const around = await readAt(0, SIZE_BYTES);
        const crcs = crcsOf(bytes);
        for (const index of wrong) crcs[index] = ((crcs[index] ?? 0) ^ 1) >>> 0;
        assert.deepEqual(await settle(device.copyBlocks(copy(MIB, 4 * MIB, crcs))), wrong);
        for (const index of crcs.keys()) {
          if (wrong.includes(index)) continue;
          const at = index * BLOCK_BYTES;
          around.copyWithin(4 * MIB + at, MIB + at, MIB + at + BLOCK_BYTES);
        }
        same(await readAt(0, SIZE_BYTES), around, 'all');
      }
    });

    test('copyBlocks: many at once', async () => {
      const bytes = pattern(2 * MIB, 16);
      await settle(device.write(0, [bytes]));
      const copies = Array.from({ length: 32 }, (_, index) => {
        const from = index * 16 * BLOCK_BYTES;
        const some = crcsOf(bytes.subarray(from, from + 16 * BLOCK_BYTES));
        return device.copyBlocks(copy(from, 4 * MIB + from, some));
      });
      assert.deepEqual((await settle(Promise.all(copies))).flat(), []);
      same(await readAt(4 * MIB, bytes.length), bytes, 'the copies');
    });

    test('copyBlocks: refused beyond the end of the device', async () => {
      const refused = ofKind('invalid', '');
      const [zero, end] = [[ZERO_BLOCK_CRC], [SIZE_BYTES / BLOCK_BYTES]];
      for (const wrong of [end, [-1], [0.5]]) {
        const [from, to] = [
          { from: wrong, to: [1] },
          { from: [1], to: wrong },
        ];
        await assert.rejects(settle(device.copyBlocks({ ...from, crcs: zero })), refused);
        await assert.rejects(settle(device.copyBlocks({ ...to, crcs: zero })), refused);
      }
    });

    test('close: waits for what is under way, then refuses; reopen finds all', async () => {
      const bytes = pattern(2 * MIB, 12);
      let done = 0;
      const calls = [
        device.write(0, [bytes]),
        device.sync(),
        device.writeDurable(4 * MIB, [bytes]),
        device.sync(),
        device.sync(),
      ].map((call) => call.then(() => done++));
      await settle(device.close());
      assert.equal(done, calls.length);
      const refused = ofKind('closed', device.name);
      await assert.rejects(settle(device.read(0, [bytes])), refused);
      await assert.rejects(settle(device.write(0, [bytes])), refused);
      await assert.rejects(settle(device.writeDurable(0, [bytes])), refused);
      await assert.rejects(settle(device.sync()), refused);
      await assert.rejects(settle(device.copyBlocks(copy(0, MIB, [0]))), refused);
      device = await fixture.reopen();
      assert.equal(device.sizeBytes, SIZE_BYTES);
      same(await readAt(0, bytes.length), bytes, 'what was written');
      same(await readAt(4 * MIB, bytes.length), bytes, 'what was written durably');
      await settle(device.close());
    });

    test('random writes and reads beside a plain array', async () => {
      const random = seededRandom(13);
      const model = new Uint8Array(SIZE_BYTES);
      for (let turn = 0; turn < 300; turn++) {
        const blocks = 1 + random.below(random.chance(0.1) ? 300 : 8);
        const offset = random.below(SIZE_BYTES / BLOCK_BYTES - blocks) * BLOCK_BYTES;
        const bytes = pattern(blocks * BLOCK_BYTES, random.nextU32());
        if (random.chance(0.5)) {
          await settle(
            random.chance(0.5)
              ? device.write(offset, [bytes])
              : device.writeDurable(offset, [bytes]),
          );
          model.set(bytes, offset);
        } else {
          const expected = model.subarray(offset, offset + bytes.length);
          same(await readAt(offset, bytes.length), expected, `turn ${turn}`);
        }
      }
    });
  });
}
