/** Orphans of an object log: found by a check, deleted by a server, and nothing else is. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { VirtualClock } from '../../sim/world/virtual-clock.js';
import { BLOCK_BYTES, MIB } from '../base/units.js';
import { MemoryObjectStore } from '../env/memory-object-store.js';
import { seededRandom } from '../env/seeded-random.js';
import { decodeRecord } from '../layout/log-record.js';
import type { CheckReport } from '../store/check/check-report.js';
import { findChain, numberKey } from '../store/object-log/chain-walk.js';
import type { SweepOptions } from '../store/object-log/orphan-sweep.js';
import { recordKey } from '../store/object-log/record-chain.js';
import { checkStore } from './check.js';
import { formatStore, openStore } from './open-store.js';
import type { Store } from './store.js';

const PREFIX = 'p';
const GRACE_MS = 60_000;
const HOUR_MS = 3_600_000;
const SWEEP: SweepOptions = { intervalMs: HOUR_MS, graceMs: GRACE_MS };

class Scene {
  readonly world = new VirtualClock();
  readonly objects = new MemoryObjectStore();
  readonly log: string[] = [];

  run<T>(work: () => Promise<T>): Promise<T> {
    return this.world.run(work());
  }

  get source() {
    return { kind: 'objects', objects: this.objects, prefix: PREFIX } as const;
  }

  open(sweep?: SweepOptions): Promise<Store> {
    return openStore(this.source, {
      memoryBytes: 2 * MIB,
      clock: this.world,
      random: seededRandom(this.objects.stats.puts),
      cleaner: { liveRatioMin: 0 },
      alone: true,
      log: ({ event, message }) => this.log.push(`${event} ${message}`),
      ...(sweep === undefined ? {} : { sweep }),
    });
  }

  /** A store whose deletes have all been lost; its content. */
  async makeOrphans(): Promise<void> {
    await formatStore(this.source, { sizeBytes: 64 * MIB, random: seededRandom(2) });
    const store = await this.open();
    const kept = this.objects.delete.bind(this.objects);
    this.objects.delete = () => Promise.resolve();
    const disk = await store.createVdisk('d', MIB);
    for (let round = 1; round <= 6; round++) {
      for (let fbn = 0; fbn < 256; fbn += round) {
        await disk.write(fbn * BLOCK_BYTES, blockOf(round, fbn), { fua: fbn % 7 === 0 });
      }
      await store.consistencyPoint();
    }
    await store.close();
    this.objects.delete = kept;
  }

  keys(): Promise<string[]> {
    return this.objects.list(`${PREFIX}/`);
  }

  async check(): Promise<CheckReport> {
    const copy = this.objects.duplicate();
    return checkStore({ kind: 'objects', objects: copy, prefix: PREFIX });
  }
}

function blockOf(round: number, fbn: number): Uint8Array {
  const bytes = new Uint8Array(BLOCK_BYTES);
  seededRandom(round * 1000 + fbn).fill(bytes);
  return bytes;
}

async function hashOf(store: Store): Promise<string> {
  return Buffer.from(await store.contentHash('d')).toString('hex');
}

function withKeys(report: CheckReport): Set<string> {
  return new Set(report.orphans.keys);
}

async function sealKeys(objects: MemoryObjectStore): Promise<string[]> {
  const { uuid } = await findChain(objects, PREFIX);
  const seals: string[] = [];
  for (const key of await objects.list(`${PREFIX}/log/`)) {
    const record = decodeRecord((await objects.get(key)) ?? new Uint8Array(), uuid);
    if (record?.kind === 'seal') seals.push(key);
  }
  return seals;
}

describe('orphans', () => {
  test('a check names them with their bytes, and they are no fault', async () => {
    const scene = new Scene();
    await scene.run(async () => {
      await scene.makeOrphans();
      const report = await scene.check();
      assert.equal(report.ok, true);
      const { objects, bytes, keys } = report.orphans;
      assert.ok(objects > 20, `${objects} orphans`);
      assert.equal(keys.length, objects);
      let sum = 0;
      for (const key of keys) sum += (await scene.objects.get(key))?.length ?? 0;
      assert.equal(bytes, sum);
      // Without what is named so, the store is the same: to the check, and to whoever opens it.
      const without = scene.objects.duplicate();
      const source = { kind: 'objects', objects: without, prefix: PREFIX } as const;
      await without.delete(keys);
      const again = await checkStore(source);
      assert.equal(again.ok, true);
      assert.deepEqual(again.orphans, { objects: 0, bytes: 0, keys: [] });
      assert.deepEqual(again.counts, report.counts);
    });
  });

  test('a server deletes them at its start, after the grace, and not one object more', async () => {
    const scene = new Scene();
    await scene.run(async () => {
      await scene.makeOrphans();
      let store = await scene.open();
      const hash = await hashOf(store);
      await store.close();
      const orphans = withKeys(await scene.check());
      const before = await scene.keys();
      const seals = await sealKeys(scene.objects);
      assert.ok(seals.length >= 2, `${seals.length} SEALs`);
      store = await scene.open(SWEEP);
      await scene.world.sleep(GRACE_MS);
      const gone = async (): Promise<string[]> => {
        const now = new Set(await scene.keys());
        return before.filter((key) => !now.has(key) && orphans.has(key));
      };
      assert.equal((await gone()).length, 0, 'within the grace');
      await scene.world.sleep(2000);
      assert.equal((await gone()).length, orphans.size);
      assert.deepEqual(await sealKeys(scene.objects).then((keys) => keys.slice(0, -1)), seals);
      assert.equal(await hashOf(store), hash);
      await store.close();
      const report = await scene.check();
      assert.deepEqual(report.faults, []);
      assert.equal(report.orphans.objects, 0);
      store = await scene.open();
      assert.equal(await hashOf(store), hash);
      await store.close();
    });
  });

  test('a put that lands late is found by the next sweep', async () => {
    const scene = new Scene();
    await scene.run(async () => {
      await scene.makeOrphans();
      const [orphan = ''] = (await scene.check()).orphans.keys.filter((key) => /log/.test(key));
      const body = await scene.objects.get(orphan);
      assert.ok(body !== undefined);
      const store = await scene.open(SWEEP);
      await scene.world.sleep(2 * GRACE_MS);
      assert.equal(await scene.objects.get(orphan), undefined);
      await scene.objects.putNew(orphan, [body]);
      await scene.world.sleep(HOUR_MS + GRACE_MS);
      assert.equal(await scene.objects.get(orphan), undefined);
      await store.close();
    });
  });

  test('what was put behind the SEAL, into the gap before the next epoch, goes, too', async () => {
    const scene = new Scene();
    await scene.run(async () => {
      await scene.makeOrphans();
      const first = await scene.open();
      const disk = first.vdisk('d');
      await disk.write(0, blockOf(9, 9), { fua: true });
      const records = await scene.objects.list(`${PREFIX}/log/`);
      const body = await scene.objects.get(records.at(-1) ?? '');
      assert.ok(body !== undefined);
      // It takes the store over; a record of the first one is still on its way.
      const second = await scene.open(SWEEP);
      const seals = await sealKeys(scene.objects);
      const seal = Number.parseInt((seals.at(-1) ?? '').slice(-16), 16);
      const late = recordKey(PREFIX, seal + 3);
      await scene.objects.putNew(late, [body]);
      await scene.world.sleep(2 * HOUR_MS);
      assert.equal(await scene.objects.get(late), undefined);
      assert.notEqual(await scene.objects.get(seals.at(-1) ?? ''), undefined, 'the SEAL stays');
      await second.close();
      assert.equal((await scene.check()).ok, true);
    });
  });

  test('knocks and index objects of old epochs and probes go; ids, epochs, strangers stay', async () => {
    const scene = new Scene();
    await scene.run(async () => {
      await scene.makeOrphans();
      const put = (key: string): Promise<unknown> =>
        scene.objects.putNew(key, [new Uint8Array(BLOCK_BYTES)]);
      const strangers = [`${PREFIX}/readme`, `${PREFIX}/pub/x/ready`, recordKey(PREFIX, 2)];
      const dead = [numberKey(PREFIX, 'knock', 1), `${PREFIX}/probe/0011/0001`];
      await scene.objects.delete([recordKey(PREFIX, 2)]);
      for (const key of [...strangers, ...dead]) await put(key);
      const store = await scene.open(SWEEP);
      const { epoch } = await findChain(scene.objects, PREFIX);
      const knock = numberKey(PREFIX, 'knock', epoch);
      await put(knock);
      await scene.world.sleep(2 * GRACE_MS);
      const keys = new Set(await scene.keys());
      for (const key of [...strangers, knock, `${PREFIX}/id`]) assert.ok(keys.has(key), key);
      for (const key of dead) assert.ok(!keys.has(key), key);
      for (let each = 1; each <= epoch; each++) {
        assert.ok(keys.has(numberKey(PREFIX, 'epoch', each)));
        const indexed = await scene.objects.list(`${numberKey(PREFIX, 'cp', each)}/`);
        assert.ok(indexed.length <= (each < epoch ? 1 : 2), `${indexed.length} of epoch ${each}`);
      }
      assert.equal(store.stats().sweep?.strangers, 1);
      await store.close();
    });
  });

  test('a busy store is swept between its consistency points, and loses nothing', async () => {
    const scene = new Scene();
    await scene.run(async () => {
      await scene.makeOrphans();
      const store = await scene.open({ intervalMs: 500, graceMs: 200 });
      const disk = store.vdisk('d');
      const random = seededRandom(5);
      const content = new Map<number, number>();
      for (let round = 0; round < 400; round++) {
        const fbn = random.below(256);
        content.set(fbn, 10_000 + round);
        await disk.write(fbn * BLOCK_BYTES, blockOf(10_000 + round, fbn), { fua: round % 3 === 0 });
        if (round % 10 === 0) void store.consistencyPoint();
        await scene.world.sleep(random.below(60));
      }
      const { sweep } = store.stats();
      assert.ok(sweep !== undefined && sweep.sweeps > 5 && sweep.orphansDeleted > 20);
      for (const [fbn, round] of content) {
        const bytes = new Uint8Array(BLOCK_BYTES);
        await disk.read(fbn * BLOCK_BYTES, bytes);
        assert.deepEqual(bytes, blockOf(round, fbn), `block ${fbn}`);
      }
      await store.close();
      const report = await scene.check();
      assert.deepEqual(report.faults, []);
    });
  });

  test('a sweep that was deposed in mid-look deletes nothing that its successor needs', async () => {
    const scene = new Scene();
    await scene.run(async () => {
      await scene.makeOrphans();
      const first = await scene.open(SWEEP);
      await scene.world.sleep(2000);
      const second = await scene.open();
      const disk = second.vdisk('d');
      for (let round = 50; round < 60; round++) {
        await disk.write(round * BLOCK_BYTES, blockOf(round, round), { fua: true });
        await second.consistencyPoint();
      }
      const hash = await hashOf(second);
      // Nobody has told the first one: its second look comes, and deletes what it found.
      const before = (await scene.check()).orphans.objects;
      await scene.world.sleep(2 * GRACE_MS);
      assert.ok((await scene.check()).orphans.objects < before);
      assert.equal(await hashOf(second), hash);
      await second.close();
      const third = await scene.open();
      assert.equal(await hashOf(third), hash);
      await third.close();
      assert.deepEqual((await scene.check()).faults, []);
      await first.close().catch(() => undefined);
    });
  });
});
