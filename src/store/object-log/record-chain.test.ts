import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type PutFate, SimulatedObjectStore } from '../../../sim/world/simulated-object-store.js';
import { VirtualClock } from '../../../sim/world/virtual-clock.js';
import { isStoreError } from '../../base/store-error.js';
import { BLOCK_BYTES, SEGMENT_BLOCKS } from '../../base/units.js';
import type { ObjectStore } from '../../env/object-store.js';
import { seededRandom } from '../../env/seeded-random.js';
import { decodeRecord } from '../../layout/log-record.js';
import { RecordChain, recordKey } from './record-chain.js';

const UUID = new Uint8Array(16).fill(8);
const TAG = { treeId: 1, fbn: 0, level: 0, crc: 0, kind: 'data' } as const;

class Scene {
  readonly clock = new VirtualClock();
  readonly objects: SimulatedObjectStore;

  constructor(seed = 1) {
    const random = seededRandom(seed);
    this.objects = new SimulatedObjectStore({ clock: this.clock, random, lateMsMax: 40 });
  }

  chain(objects = this.objects, next = 1): RecordChain {
    const random = seededRandom(next + objects.putsIssued + (objects === this.objects ? 0 : 99));
    const nonce = (): Uint8Array => {
      const bytes = new Uint8Array(16);
      random.fill(bytes);
      return bytes;
    };
    return new RecordChain(objects, { uuid: UUID, lineage: 0, epoch: 1, nonce, prefix: 'p' }, next);
  }

  /** Puts a record with one block of this value. */
  put(chain: RecordChain, value: number): number {
    const record = chain.open();
    chain.copyIn(record, new Uint8Array(BLOCK_BYTES).fill(value), [TAG]);
    chain.close(record, 'data');
    return record.number;
  }

  valueAt(number: number): number | undefined {
    const object = this.objects.objects.get(recordKey('p', number));
    if (object === undefined) return undefined;
    assert.ok(decodeRecord(object, UUID) !== undefined, `record ${number} is whole`);
    return object[0];
  }
}

function isFenced(error: unknown): boolean {
  return isStoreError(error, 'fenced');
}

describe('record chain', () => {
  test('records land in any order and are acknowledged in theirs', async () => {
    const scene = new Scene(5);
    const chain = scene.chain();
    const order: number[] = [];
    const all: Promise<unknown>[] = [];
    for (let value = 1; value <= 12; value++) {
      const number = scene.put(chain, value);
      all.push(
        chain.acknowledged(number).then(() => {
          order.push(number);
          for (let before = 1; before <= number; before++) {
            assert.equal(scene.valueAt(before), before, 'every one before it is there');
          }
        }),
      );
    }
    await scene.clock.run(Promise.all(all));
    assert.deepEqual(
      order.toSorted((a, b) => a - b),
      Array.from({ length: 12 }, (_, index) => index + 1),
    );
  });

  test('a block is read from memory until its record is acknowledged', async () => {
    const scene = new Scene();
    const chain = scene.chain();
    const number = scene.put(chain, 3);
    assert.equal(chain.blockInMemory(number * SEGMENT_BLOCKS)?.[0], 3);
    await scene.clock.run(chain.acknowledged(number));
    assert.equal(chain.blockInMemory(number * SEGMENT_BLOCKS), undefined);
  });

  test('every sequence of three fates of a put: it lands once, and is acknowledged', async () => {
    const fates: PutFate[] = ['lands', 'lost-request', 'lost-response', 'late'];
    for (let code = 0; code < fates.length ** 3; code++) {
      const scene = new Scene(code + 1);
      for (let at = 0; at < 3; at++) {
        scene.objects.fatePutAt(
          at + 1,
          fates[Math.floor(code / fates.length ** at) % 4] as PutFate,
        );
      }
      const chain = scene.chain();
      const first = scene.put(chain, 1);
      await scene.clock.run(chain.acknowledged(first));
      const second = scene.put(chain, 2);
      await scene.clock.run(chain.acknowledged(second));
      // What is still under way lands late, and finds its key taken by itself.
      await scene.clock.run(scene.clock.sleep(100));
      assert.equal(scene.valueAt(first), 1);
      assert.equal(scene.valueAt(second), 2);
    }
  });

  test('a key that somebody else created fences, whatever the fate of the put', async () => {
    for (const fate of ['lands', 'lost-request', 'lost-response', 'late'] as const) {
      const scene = new Scene(3);
      const other = scene.chain(scene.objects.anotherClient());
      await scene.clock.run(other.acknowledged(scene.put(other, 9)));
      scene.objects.fatePutAt(1, fate);
      const chain = scene.chain();
      const number = scene.put(chain, 1);
      await assert.rejects(scene.clock.run(chain.acknowledged(number)), isFenced);
      assert.equal(scene.valueAt(number), 9, 'what is there stays');
      // From then on the chain says nothing else.
      await assert.rejects(chain.acknowledged(number + 5), isFenced);
      await assert.rejects(chain.throttle(), isFenced);
    }
  });

  test('two chains from one number: each record has one winner', async () => {
    for (let seed = 1; seed <= 40; seed++) {
      const scene = new Scene(seed);
      const chains = [scene.chain(), scene.chain(scene.objects.anotherClient())];
      const outcomes = await scene.clock.run(
        Promise.allSettled(
          chains.map(async (chain, index) => {
            for (let count = 0; count < 4; count++) {
              await chain.acknowledged(scene.put(chain, 10 * index + count));
            }
          }),
        ),
      );
      assert.ok(outcomes.some(({ status }) => status === 'rejected'));
      for (const [index, { status }] of outcomes.entries()) {
        if (status !== 'fulfilled') continue;
        for (let count = 0; count < 4; count++) {
          assert.equal(scene.valueAt(1 + count), 10 * index + count);
        }
      }
    }
  });

  test('whoever places waits while too many puts are under way', async () => {
    const scene = new Scene();
    const chain = scene.chain();
    for (let value = 0; value < 30; value++) scene.put(chain, value);
    let isThrottled = true;
    const throttled = chain.throttle().then(() => {
      isThrottled = false;
    });
    await Promise.resolve();
    assert.ok(isThrottled);
    await scene.clock.run(throttled);
    assert.ok(scene.objects.objects.count >= 22);
  });

  test('a put that never goes through is an error of the device, not a fence', async () => {
    const scene = new Scene();
    scene.objects.faultRates = { lostRequest: 1 };
    const chain = scene.chain();
    const number = scene.put(chain, 1);
    await assert.rejects(scene.clock.run(chain.acknowledged(number)), (error) =>
      isStoreError(error, 'device'),
    );
  });

  test('nothing is put 512 records ahead of one that has not landed', async () => {
    const scene = new Scene(7);
    const chain = scene.chain();
    scene.objects.fatePutAt(1, 'lost-request');
    for (let value = 1; value <= 700; value++) scene.put(chain, value % 256);
    let isDone = false;
    let windowMax = 0;
    const all = chain.acknowledged(700).then(() => {
      isDone = true;
    });
    await scene.clock.run(
      (async () => {
        while (!isDone) {
          const keys = scene.objects.objects.list('p/log/');
          const last = Number.parseInt(keys.at(-1)?.slice(-16) ?? '0', 16);
          windowMax = Math.max(windowMax, last - chain.firstOpen);
          await scene.clock.sleep(1);
        }
        await all;
      })(),
    );
    assert.ok(windowMax > 100 && windowMax < 512, `${windowMax} ahead`);
    assert.equal(scene.valueAt(700), 700 % 256);
  });

  test('the memory of a record is used again only when nobody sends it any more', async () => {
    const scene = new Scene();
    // Sends what it was given as late as it can, each put of four later than the one before.
    let puts = 0;
    const sendsLate: ObjectStore = {
      name: 'late',
      get: (key) => scene.objects.get(key),
      delete: (keys) => scene.objects.delete(keys),
      list: (prefix) => scene.objects.list(prefix),
      putNew: async (key, chunks) => {
        await scene.clock.sleep(200 * (puts++ % 4));
        return scene.objects.putNew(key, chunks);
      },
    };
    const nonce = (): Uint8Array => new Uint8Array(16);
    const identity = { uuid: UUID, lineage: 0, epoch: 1, nonce, prefix: 'p' };
    const chain = new RecordChain(sendsLate, identity, 1);
    const blocks = 100;
    const tags = Array.from({ length: blocks }, () => TAG);
    for (let value = 1; value <= 20; value++) {
      const record = chain.open();
      chain.copyIn(record, new Uint8Array(blocks * BLOCK_BYTES).fill(value), tags);
      chain.close(record, 'data');
      if (value % 4 === 0) await scene.clock.run(chain.acknowledged(value - 2));
    }
    await scene.clock.run(chain.acknowledged(20));
    for (let value = 1; value <= 20; value++) {
      const object = scene.objects.objects.get(recordKey('p', value));
      const isWhole = object?.subarray(0, blocks * BLOCK_BYTES).every((byte) => byte === value);
      assert.equal(isWhole, true, `record ${value}`);
      assert.equal(scene.valueAt(value), value);
    }
  });
});
