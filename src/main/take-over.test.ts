/** Taking over: stalled candidates, unindexed consistency points, who may, and when. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SimulatedObjectStore } from '../../sim/world/simulated-object-store.js';
import { VirtualClock } from '../../sim/world/virtual-clock.js';
import { isStoreError } from '../base/store-error.js';
import { BLOCK_BYTES, MIB } from '../base/units.js';
import type { Clock } from '../env/clock.js';
import { MemoryDevice } from '../env/memory-device.js';
import { MemoryObjectStore } from '../env/memory-object-store.js';
import type { ObjectStore } from '../env/object-store.js';
import { seededRandom } from '../env/seeded-random.js';
import { findChain, numberKey } from '../store/object-log/chain-walk.js';
import { epochText, parseEpoch } from '../store/object-log/epoch-object.js';
import { recordKey } from '../store/object-log/record-chain.js';
import { ChainEnd, takeOver } from '../store/object-log/take-over.js';
import { formatStore, type OpenOptions, openStore } from './open-store.js';
import type { Store } from './store.js';

const PREFIX = 'p';
const STALE_MS = 3000;
const NONCE = new Uint8Array(16).fill(7);

type Ownership = NonNullable<OpenOptions['ownership']>;

class Scene {
  readonly world = new VirtualClock();
  readonly objects = new SimulatedObjectStore({ clock: this.world, random: seededRandom(1) });
  readonly gone = new Set<string>();
  readonly events: string[] = [];
  #seed = 10;

  run<T>(work: () => Promise<T>): Promise<T> {
    return this.world.run(work());
  }

  async format(): Promise<void> {
    const source = { kind: 'objects', objects: this.objects, prefix: PREFIX } as const;
    await formatStore(source, { sizeBytes: 64 * MIB, random: seededRandom(2) });
  }

  open(
    name: string,
    more: Partial<Ownership> & { machine?: string } = {},
    clock: Clock = this.world,
  ): Promise<Store> {
    const { machine = name, ...rest } = more;
    return openStore(
      { kind: 'objects', objects: this.objects, prefix: PREFIX },
      {
        memoryBytes: MIB,
        clock,
        random: seededRandom(this.#seed++),
        log: ({ event, message }) => this.events.push(`${name} ${event} ${message}`),
        ownership: {
          owner: { machine, program: name, label: name },
          isGone: (program) => this.gone.has(program),
          takeOver: false,
          staleReadsMsMax: STALE_MS,
          ...rest,
        },
      },
    );
  }
}

function bidOf(objects: ObjectStore, nonce = NONCE) {
  return { objects, prefix: PREFIX, nonce: () => nonce, owner: undefined, admit: () => undefined };
}

/** Writes block 0 full of the value, durably. */
async function put(store: Store, value: number): Promise<void> {
  const disk = store.vdisk('d');
  await disk.write(0, new Uint8Array(BLOCK_BYTES).fill(value), { fua: true });
}

async function get(store: Store): Promise<number> {
  const bytes = new Uint8Array(BLOCK_BYTES);
  await store.vdisk('d').read(0, bytes);
  return bytes[0] as number;
}

describe('take-over', () => {
  test('a SEAL in the place of a deleted record is void, and fences nobody', async () => {
    const objects = new MemoryObjectStore();
    const source = { kind: 'objects', objects, prefix: PREFIX } as const;
    await formatStore(source, { sizeBytes: 64 * MIB });
    const owner = await openStore(source, { alone: true });
    await owner.createVdisk('d', MIB);
    const bid = bidOf(objects);
    const state = await findChain(objects, PREFIX);
    const end = new ChainEnd(bid, state);
    await end.advance();
    const gap = end.number;
    for (let value = 1; value <= 9; value++) {
      await put(owner, value);
      await owner.consistencyPoint();
    }
    assert.equal(objects.objects.get(recordKey(PREFIX, gap)), undefined, 'it was deleted');
    assert.equal(await takeOver(bid, state, end), undefined);
    assert.notEqual(objects.objects.get(recordKey(PREFIX, gap)), undefined, 'the SEAL is there');
    await put(owner, 77);
    // Looking again deposes it.
    const now = await findChain(objects, PREFIX);
    const claim = await takeOver(bid, now, new ChainEnd(bid, now));
    assert.equal(claim?.epoch, now.epoch + 1);
    await assert.rejects(put(owner, 78), (error) => isStoreError(error, 'fenced'));
    assert.equal(await get(await openStore(source, { alone: true })), 77);
  });

  test('a consistency point that is not indexed yet is the one that counts', async () => {
    const objects = new MemoryObjectStore();
    // The owner is stopped before it deletes what its last consistency point has freed.
    const freed: string[] = [];
    objects.delete = (keys) => {
      freed.push(...keys);
      return Promise.resolve();
    };
    const source = { kind: 'objects', objects, prefix: PREFIX } as const;
    await formatStore(source, { sizeBytes: 64 * MIB });
    const owner = await openStore(source, { alone: true });
    await owner.createVdisk('d', MIB);
    await put(owner, 5);
    await owner.consistencyPoint();
    const before = await findChain(objects, PREFIX);
    await put(owner, 6);
    await owner.consistencyPoint();
    const after = await findChain(objects, PREFIX);
    assert.ok(after.cpRecord > before.cpRecord);
    const index = numberKey(PREFIX, 'cp', after.epoch, after.fsinfo.cpNumber);
    const text = objects.objects.get(index);
    assert.ok(text !== undefined);
    objects.objects.delete(index);
    const bid = bidOf(objects);
    const claim = await takeOver(bid, before, new ChainEnd(bid, before));
    assert.equal(claim?.fsinfo.cpNumber, after.fsinfo.cpNumber);
    // It lands late, and the old owner goes on to delete what it was waiting to delete.
    objects.objects.create(index, text);
    assert.ok(freed.includes(recordKey(PREFIX, before.cpRecord)));
    for (const key of freed) objects.objects.delete(key);
    assert.equal(await get(await openStore(source, { alone: true })), 6);
  });

  test('of two claims with the same numbers one is lost', async () => {
    const objects = new MemoryObjectStore();
    await formatStore({ kind: 'objects', objects, prefix: PREFIX }, { sizeBytes: 64 * MIB });
    const state = await findChain(objects, PREFIX);
    const bids = [1, 2].map((byte) => bidOf(objects, new Uint8Array(16).fill(byte)));
    const claims = await Promise.all(
      bids.map((bid) => takeOver(bid, state, new ChainEnd(bid, state))),
    );
    assert.equal(claims.filter((claim) => claim !== undefined).length, 1);
  });
});

describe('a program that uses the library', () => {
  test('is refused while the store is open, unless it says takeOver', async () => {
    const scene = new Scene();
    await scene.run(async () => {
      await scene.format();
      const source = { kind: 'objects', objects: scene.objects, prefix: PREFIX } as const;
      const options = { memoryBytes: MIB, clock: scene.world };
      const first = await openStore(source, options);
      await first.createVdisk('d', MIB);
      await put(first, 4);
      // This process lives, and has not closed it.
      await assert.rejects(
        openStore(source, options),
        (error) => isStoreError(error, 'in-use') && error.message.includes(`${process.pid}`),
      );
      await put(first, 5);
      const startMs = scene.world.nowMs();
      const second = await openStore(source, { ...options, takeOver: true });
      assert.ok(scene.world.nowMs() - startMs >= 2 * STALE_MS, 'its answers may still be due');
      await assert.rejects(get(first), (error) => isStoreError(error, 'fenced'));
      assert.equal(await get(second), 5);
      await second.close();
      // A store that was closed is nobody's.
      const third = await openStore(source, options);
      assert.equal(await get(third), 5);
      await third.close();
    });
  });

  test('whose open is refused gives its cache back', async () => {
    const scene = new Scene();
    await scene.run(async () => {
      await scene.format();
      await scene.open('a');
      const source = { kind: 'objects', objects: scene.objects, prefix: PREFIX } as const;
      const cache = new MemoryDevice({ sizeBytes: 4 * MIB });
      await assert.rejects(openStore(source, { clock: scene.world, cache }), (error) =>
        isStoreError(error, 'in-use'),
      );
      await assert.rejects(cache.read(0, [new Uint8Array(BLOCK_BYTES)]), /closed/);
    });
  });
});

describe('epoch objects', () => {
  const owner = { machine: 'boot/pid:[1]', program: '12.345', label: 'höst, process 12' };
  const staleReads = { ownMs: 3000, dueMs: 12_000 };
  const body = { base: 12, first: 1100, sealed: 76, owner, staleReads };

  test('what is written is read again; no bit of it may change', () => {
    const text = epochText(body, NONCE);
    assert.deepEqual(parseEpoch(text, 'epoch'), body);
    const bytes = new TextEncoder().encode(text);
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const wrong = bytes.slice();
      wrong[bit >> 3] = (wrong[bit >> 3] as number) ^ (1 << (bit & 7));
      const read = (): unknown => parseEpoch(new TextDecoder().decode(wrong), 'epoch');
      assert.throws(read, (error) => isStoreError(error, 'corrupt'), `bit ${bit}`);
    }
  });

  test('one of the first version has numbers only', () => {
    const bare = parseEpoch('base 1\nfirst 2\nsealed 0\n', 'epoch');
    assert.deepEqual(bare, { base: 1, first: 2, sealed: 0 });
    assert.throws(() => parseEpoch('base 1\nfirst 2\n', 'epoch'));
  });
});

describe('who may take a store over', () => {
  test('a living owner is not deposed without a word, busy or idle', async () => {
    const scene = new Scene();
    await scene.run(async () => {
      await scene.format();
      const owner = await scene.open('a');
      await owner.createVdisk('d', MIB);
      await scene.world.sleep(60_000);
      await assert.rejects(scene.open('b'), (error) => isStoreError(error, 'in-use'));
      await assert.rejects(scene.open('c', { machine: 'a' }), (error) =>
        isStoreError(error, 'in-use'),
      );
      await put(owner, 3);
      assert.equal(await get(owner), 3);
      const forced = await scene.open('b', { takeOver: true });
      await assert.rejects(get(owner), (error) => isStoreError(error, 'fenced'));
      assert.equal(await get(forced), 3);
      await forced.close();
    });
  });

  test('an owner that is silent is deposed; one that was killed here at once', async () => {
    const scene = new Scene();
    await scene.run(async () => {
      await scene.format();
      const life = scene.world.machine();
      const silent = openStore(
        { kind: 'objects', objects: scene.objects.anotherClient(), prefix: PREFIX },
        {
          memoryBytes: MIB,
          clock: life,
          random: seededRandom(5),
          ownership: {
            owner: { machine: 'm', program: 'a', label: 'a' },
            isGone: () => false,
            takeOver: false,
            staleReadsMsMax: STALE_MS,
          },
        },
      );
      await (await silent).createVdisk('d', MIB);
      life.powerOff();
      let startMs = scene.world.nowMs();
      const second = await scene.open('b', { machine: 'm2' });
      const tookMs = scene.world.nowMs() - startMs;
      assert.ok(tookMs >= 4 * STALE_MS, `two waits: ${tookMs} ms`);
      await put(second, 9);
      scene.gone.add('b');
      startMs = scene.world.nowMs();
      const third = await scene.open('c', { machine: 'm2' });
      assert.ok(scene.world.nowMs() - startMs < STALE_MS, 'no wait');
      assert.equal(await get(third), 9);
      await third.close();
      await assert.rejects(put(second, 10), (error) => isStoreError(error, 'fenced'));
    });
  });

  test('who deposes waits for the longest answer that may be due, whatever its own bound is', async () => {
    const scene = new Scene();
    await scene.run(async () => {
      await scene.format();
      const timed = async (name: string, more: Partial<Ownership>): Promise<[Store, number]> => {
        const startMs = scene.world.nowMs();
        const opened = await scene.open(name, { takeOver: true, ...more });
        return [opened, scene.world.nowMs() - startMs];
      };
      const [first] = await timed('a', { staleReadsMsMax: 20_000 });
      await first.createVdisk('d', MIB);
      // It does not come to its first consistency point: those after it wait for the first, too.
      const life = scene.world.machine();
      void scene.open('b', { takeOver: true, staleReadsMsMax: 500 }, life).catch(() => undefined);
      await scene.world.sleep(1000);
      life.powerOff();
      const [third, thirdMs] = await timed('c', { staleReadsMsMax: 500 });
      assert.ok(thirdMs >= 40_000, `${thirdMs} ms`);
      await put(third, 5);
      const [fourth, fourthMs] = await timed('d', { staleReadsMsMax: 1000 });
      assert.ok(fourthMs >= 2000 && fourthMs < 3000, `${fourthMs} ms`);
      assert.equal(await get(fourth), 5);
      await assert.rejects(get(first), (error) => isStoreError(error, 'fenced'));
      await fourth.close();
    });
  });

  test('a store that was closed is opened at once', async () => {
    const scene = new Scene();
    await scene.run(async () => {
      await scene.format();
      const first = await scene.open('a');
      await first.close();
      const startMs = scene.world.nowMs();
      const second = await scene.open('b');
      assert.ok(scene.world.nowMs() - startMs < STALE_MS);
      await second.close();
    });
  });

  test('a deposed server that nobody asks anything finds out, and says which key', async () => {
    const scene = new Scene();
    await scene.run(async () => {
      await scene.format();
      await scene.open('a');
      const second = await scene.open('b', { takeOver: true });
      await scene.world.sleep(2 * STALE_MS);
      const lines = scene.events.filter((line) => line.startsWith('a store-stopped'));
      assert.equal(lines.length, 1, scene.events.join('\n'));
      assert.match(lines[0] as string, /p\/log\/[0-9a-f]{16} .*epoch 2/);
      await second.close();
    });
  });

  for (const blocks of [1, 64]) {
    const what = blocks === 1 ? 'shorter' : 'other';
    test(`a deposed server that meets ${what} bytes where a record was is fenced`, async () => {
      const scene = new Scene();
      await scene.run(async () => {
        await scene.format();
        const first = await scene.open('a');
        await first.createVdisk('d', MIB);
        await put(first, 1);
        await first.close();
        const life = scene.world.machine();
        const second = await scene.open('b', {}, life);
        // It stands still: nothing tells it that it is deposed.
        life.freeze(10 * STALE_MS);
        const { objects } = scene.objects;
        await (await scene.open('c', { takeOver: true })).close();
        // A new owner deletes what was there; who came too late puts a SEAL there, of no effect.
        for (const key of objects.list(`${PREFIX}/log/`)) {
          objects.delete(key);
          objects.create(key, new Uint8Array(blocks * BLOCK_BYTES).fill(3));
        }
        await assert.rejects(get(second), (error) => isStoreError(error, 'fenced'));
      });
    });
  }

  test('an idle store that is not read puts nothing', async () => {
    const scene = new Scene();
    await scene.run(async () => {
      await scene.format();
      const store = await scene.open('a');
      await scene.world.sleep(10_000);
      const { puts, gets } = scene.objects.stats;
      await scene.world.sleep(300_000);
      assert.equal(scene.objects.stats.puts, puts);
      const looks = scene.objects.stats.gets - gets;
      assert.ok(looks <= 2 * (300_000 / STALE_MS), `${looks} gets in five minutes`);
      await store.close();
    });
  });
});
