import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { isStoreError } from '../../src/base/store-error.js';
import { BLOCK_BYTES, MIB, SECTOR_BYTES } from '../../src/base/units.js';
import { seededRandom } from '../../src/env/seeded-random.js';
import { SimulatedDevice } from './simulated-device.js';
import { DeadlockError, VirtualClock } from './virtual-clock.js';

const SIZE_BYTES = MIB;

interface World {
  readonly clock: VirtualClock;
  readonly device: SimulatedDevice;
}

function makeWorld(seed = 1): World {
  const clock = new VirtualClock();
  return {
    clock,
    device: new SimulatedDevice({ clock, random: seededRandom(seed), sizeBytes: SIZE_BYTES }),
  };
}

function block(value: number): Uint8Array[] {
  return [new Uint8Array(BLOCK_BYTES).fill(value)];
}

async function byteAt(clock: VirtualClock, device: SimulatedDevice, at: number): Promise<number> {
  const into = new Uint8Array(BLOCK_BYTES);
  await clock.run(device.read(at - (at % BLOCK_BYTES), [into]));
  return into[at % BLOCK_BYTES] ?? -1;
}

const isDeviceError = (error: unknown): boolean => isStoreError(error, 'device');

/** The promise does not settle, whatever happens in this world. */
async function assertNever(clock: VirtualClock, promise: Promise<unknown>): Promise<void> {
  await assert.rejects(clock.run(promise), DeadlockError);
}

describe('simulated device: power', () => {
  test('cutAtWrite: power fails in the n-th write or sync, and tells once', async () => {
    for (let number = 1; number <= 6; number++) {
      const { clock, device } = makeWorld();
      let cuts = 0;
      device.cutAtWrite(number, () => {
        cuts++;
        assert.equal(device.isOn, false);
      });
      const answered: string[] = [];
      const act = async (name: string, promise: Promise<void>): Promise<void> => {
        await promise;
        answered.push(name);
      };
      const work = (async () => {
        await act('read', device.read(0, block(0)));
        await act('write 1', device.write(0, block(1)));
        await act('sync 2', device.sync());
        await act('durable 3', device.writeDurable(0, block(2)));
        await act('write 4', device.write(BLOCK_BYTES, block(3)));
        await act('sync 5', device.sync());
      })();
      if (number === 6) await clock.run(work);
      else await assertNever(clock, work);
      const all = ['read', 'write 1', 'sync 2', 'durable 3', 'write 4', 'sync 5'];
      assert.deepEqual(answered, all.slice(0, number));
      assert.equal(cuts, number === 6 ? 0 : 1);
      assert.equal(device.writesIssued, Math.min(number, 5));
      assert.equal(device.isOn, number === 6);
    }
  });

  test('without power nothing settles: not what was in flight, not what comes later', async () => {
    const { clock, device } = makeWorld();
    const inFlight = [device.read(0, block(0)), device.write(0, block(1)), device.sync()];
    device.powerOff();
    const later = [
      device.read(0, block(0)),
      device.write(0, block(1)),
      device.writeDurable(0, block(1)),
      device.sync(),
      device.close(),
      device.write(SIZE_BYTES, block(1)),
    ];
    await assertNever(clock, Promise.race([...inFlight, ...later]));
  });

  test('a close that waits never ends without power', async () => {
    const { clock, device } = makeWorld();
    void device.write(0, block(1));
    const closed = device.close();
    device.powerOff();
    await assertNever(clock, closed);
  });

  test('what was synced or written durably is there after every cut', async () => {
    const { clock, device } = makeWorld();
    await clock.run(device.write(0, block(1)));
    await clock.run(device.sync());
    await clock.run(device.writeDurable(BLOCK_BYTES, block(2)));
    let next = device;
    for (let cut = 0; cut < 20; cut++) {
      next = next.cutPower();
      assert.equal(await byteAt(clock, next, 0), 1);
      assert.equal(await byteAt(clock, next, BLOCK_BYTES), 2);
    }
    assert.equal(device.counts.cuts, 20);
  });

  test('an older volatile write never comes back over a newer durable one', async () => {
    const { clock, device } = makeWorld();
    await clock.run(device.write(0, [...block(1), ...block(1)]));
    await clock.run(device.writeDurable(BLOCK_BYTES, block(2)));
    const seen = new Set<number>();
    for (let outcome = 0; outcome < 50; outcome++) {
      const after = device.cutPower();
      seen.add(await byteAt(clock, after, 0));
      assert.equal(await byteAt(clock, after, BLOCK_BYTES), 2);
    }
    assert.deepEqual([...seen].sort(), [0, 1]);
  });

  test('what a cut left on the device is durable', async () => {
    const { clock, device } = makeWorld();
    for (let number = 0; number < 100; number++) {
      await clock.run(device.write(number * BLOCK_BYTES, block(number + 1)));
    }
    const after = device.cutPower();
    const [first, second] = [new Uint8Array(SIZE_BYTES), new Uint8Array(SIZE_BYTES)];
    await clock.run(after.read(0, [first]));
    await clock.run(after.cutPower().read(0, [second]));
    assert.equal(Buffer.compare(first, second), 0);
  });

  test('outcomes of one cut differ and do not disturb each other', async () => {
    const { clock, device } = makeWorld();
    for (let number = 0; number < 50; number++) {
      await clock.run(device.write(number * BLOCK_BYTES, block(number + 1)));
    }
    const images = new Set<string>();
    for (let outcome = 0; outcome < 10; outcome++) {
      const after = device.cutPower();
      const all = new Uint8Array(SIZE_BYTES);
      await clock.run(after.read(0, [all]));
      images.add(Buffer.from(all).toString('latin1'));
      await clock.run(after.writeDurable(0, [new Uint8Array(SIZE_BYTES).fill(0xee)]));
    }
    assert.ok(images.size > 5);
    for (const image of images) assert.equal(image.includes('\xee'), false);
  });

  test('the same seed gives the same latencies and the same outcome', async () => {
    const runs: string[] = [];
    for (const seed of [7, 7, 8]) {
      const { clock, device } = makeWorld(seed);
      const writes = Array.from({ length: 64 }, (_, at) =>
        device.write(at * BLOCK_BYTES, block(at)),
      );
      await clock.run(Promise.all(writes));
      const after = device.cutPower();
      const all = new Uint8Array(SIZE_BYTES);
      await clock.run(after.read(0, [all]));
      runs.push(`${clock.nowMs()} ${Buffer.from(all).toString('base64')}`);
    }
    assert.equal(runs[0], runs[1]);
    assert.notEqual(runs[0], runs[2]);
  });
});

describe('simulated device: faults', () => {
  test('failWriteAt: that write fails, some of its sectors are there', async () => {
    const { clock, device } = makeWorld();
    const big = [new Uint8Array(16 * BLOCK_BYTES).fill(9)];
    device.failWriteAt(2);
    await clock.run(device.write(0, big));
    await clock.run(device.sync());
    await assert.rejects(clock.run(device.writeDurable(big[0]?.length ?? 0, big)), isDeviceError);
    assert.equal(device.counts.failedWrites, 1);
    assert.equal(device.dataWritesIssued, 2);
    const after = new Uint8Array(16 * BLOCK_BYTES);
    await clock.run(device.read(after.length, [after]));
    const kept = after.filter((byte) => byte === 9).length;
    assert.ok(kept > 0 && kept < after.length && kept % SECTOR_BYTES === 0, `${kept} bytes kept`);
    await clock.run(device.write(0, big));
  });

  test('failSyncAt: the writes may be lost although a later sync succeeds', async () => {
    const { clock, device } = makeWorld();
    device.failSyncAt(1);
    await clock.run(device.write(0, block(1)));
    await assert.rejects(clock.run(device.sync()), isDeviceError);
    await clock.run(device.sync());
    assert.equal(device.syncsIssued, 2);
    assert.equal(device.counts.failedSyncs, 1);
    assert.equal(await byteAt(clock, device, 0), 1);
    const seen = new Set<number>();
    for (let outcome = 0; outcome < 50; outcome++) {
      seen.add(await byteAt(clock, device.cutPower(), 0));
    }
    assert.deepEqual([...seen].sort(), [0, 1]);
  });

  test('failSyncAt: written and synced once more it is safe', async () => {
    for (const isDurable of [false, true]) {
      const { clock, device } = makeWorld();
      device.failSyncAt(1);
      await clock.run(device.write(0, block(1)));
      await assert.rejects(clock.run(device.sync()), isDeviceError);
      await clock.run(isDurable ? device.writeDurable(0, block(2)) : device.write(0, block(2)));
      if (!isDurable) await clock.run(device.sync());
      for (let outcome = 0; outcome < 50; outcome++) {
        assert.equal(await byteAt(clock, device.cutPower(), 0), 2);
      }
    }
  });

  test('failReads: the range cannot be read until it is written, also after a cut', async () => {
    const { clock, device } = makeWorld();
    await clock.run(device.writeDurable(0, [new Uint8Array(4 * BLOCK_BYTES).fill(5)]));
    device.failReads(BLOCK_BYTES + 512, BLOCK_BYTES);
    const bad = async (from: SimulatedDevice): Promise<number[]> => {
      const found: number[] = [];
      for (let at = 0; at < 4; at++) {
        await clock.run(from.read(at * BLOCK_BYTES, block(0))).catch(() => found.push(at));
      }
      return found;
    };
    assert.deepEqual(await bad(device), [1, 2]);
    const next = device.cutPower();
    assert.deepEqual(await bad(next), [1, 2]);
    await assert.rejects(clock.run(next.read(0, [new Uint8Array(SIZE_BYTES)])), isDeviceError);
    await clock.run(next.write(BLOCK_BYTES, block(6)));
    assert.deepEqual(await bad(next), [2]);
    await clock.run(next.writeDurable(2 * BLOCK_BYTES, block(6)));
    assert.deepEqual(await bad(next), []);
    assert.ok(device.counts.failedReads >= 5);
  });

  test('flipBit: in what is read and in what is durable', async () => {
    const { clock, device } = makeWorld();
    await clock.run(device.writeDurable(0, block(0b1000)));
    device.flipBit(17, 3);
    device.flipBit(18, 0);
    const check = async (next: SimulatedDevice): Promise<void> => {
      assert.equal(await byteAt(clock, next, 17), 0);
      assert.equal(await byteAt(clock, next, 18), 0b1001);
      assert.equal(await byteAt(clock, next, 19), 0b1000);
    };
    await check(device);
    await check(device.cutPower());
    assert.equal(device.counts.flippedBits, 2);
  });

  test('a buffer that changes in flight is a bug of the caller', async () => {
    const { clock, device } = makeWorld();
    const from = block(1);
    const write = device.write(0, from);
    from[0]?.fill(2, 100, 101);
    await assert.rejects(clock.run(write), /stays as it is/);
  });
});

describe('simulated device: opening again', () => {
  test('reopen: a close makes nothing durable and loses nothing', async () => {
    const { clock, device } = makeWorld();
    await clock.run(device.write(0, block(1)));
    assert.throws(() => device.reopen(), /closed, then reopened/);
    await clock.run(device.close());
    const again = device.reopen();
    assert.equal(await byteAt(clock, again, 0), 1);
    const seen = new Set<number>();
    for (let outcome = 0; outcome < 50; outcome++) {
      seen.add(await byteAt(clock, again.cutPower(), 0));
    }
    assert.deepEqual([...seen].sort(), [0, 1]);
    assert.equal(again.counts, device.counts);
  });

  test('durableImage: another device starts from what is durable now', async () => {
    const { clock, device } = makeWorld();
    await clock.run(device.writeDurable(0, block(1)));
    await clock.run(device.write(BLOCK_BYTES, block(2)));
    const image = device.durableImage();
    await clock.run(device.writeDurable(0, block(3)));
    const options = { clock, random: seededRandom(2), sizeBytes: SIZE_BYTES, image };
    const other = new SimulatedDevice(options);
    assert.equal(await byteAt(clock, other, 0), 1);
    assert.equal(await byteAt(clock, other, BLOCK_BYTES), 0);
    await clock.run(other.writeDurable(0, block(4)));
    assert.equal(await byteAt(clock, device, 0), 3);
  });

  test('stats count calls and blocks', async () => {
    const { clock, device } = makeWorld();
    await clock.run(device.write(0, [...block(1), ...block(1)]));
    await clock.run(device.writeDurable(0, block(1)));
    await clock.run(device.sync());
    await clock.run(device.read(0, [new Uint8Array(3 * BLOCK_BYTES)]));
    assert.deepEqual(device.stats, {
      reads: 1,
      blocksRead: 3,
      writes: 2,
      durableWrites: 1,
      blocksWritten: 3,
      syncs: 1,
    });
  });
});
