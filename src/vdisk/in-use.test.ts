/** What a refused delete says of those who read through the vdisk: exact, or at most. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SimulatedExternals } from '../../sim/world/simulated-externals.js';
import { MEDIA, ofKind, pattern, type TestStore, withStore } from '../../test/support/stores.js';
import { BLOCK_BYTES, MIB, SECTOR_BYTES } from '../base/units.js';
import { InUseError, type InUseHolder } from './in-use.js';

type Store = TestStore['store'];

function onEachMedium(name: string, body: (test: TestStore) => Promise<void>): void {
  for (const medium of MEDIA) test(`${name} (${medium})`, () => withStore(medium, {}, body));
}

async function refusalOf(store: Store, name: string): Promise<InUseError> {
  const error = await store.delete(name).catch((reason: unknown) => reason);
  assert.ok(error instanceof InUseError, String(error));
  assert.equal(error.kind, 'in-use');
  return error;
}

const holdersOf = async (store: Store, name: string): Promise<readonly InUseHolder[]> =>
  (await refusalOf(store, name)).holders;

/** Each as its own scan says. */
async function areAsScanned(store: Store, name: string): Promise<void> {
  const holders = await holdersOf(store, name);
  assert.deepEqual(
    holders.map((each) => each.name),
    store.show(name).holders,
  );
  for (const { name: holder, readThroughBytes, basis } of holders) {
    const scanned = (await store.scan(holder)).readThroughBytes;
    assert.deepEqual([holder, readThroughBytes, basis], [holder, scanned, 'counted']);
  }
}

const counted = (name: string, blocks: number): InUseHolder => ({
  name,
  readThroughBytes: blocks * BLOCK_BYTES,
  basis: 'counted',
});

/** golden with so many blocks of data, and clones of its snapshot v1. */
async function populate(store: Store, blocks: number, clones: readonly string[]): Promise<void> {
  const golden = await store.createVdisk('golden', 3 * MIB + 5 * SECTOR_BYTES);
  await golden.write(0, pattern(blocks * BLOCK_BYTES, 1));
  await store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
  for (const name of clones) await store.clone('golden@v1', name);
}

onEachMedium('writes, zeros, a split on its way: as the scan of each says', async (t) => {
  let { store } = t;
  await populate(store, 400, ['a', 'b', 'c']);
  // What `c` reads ends within a block.
  await store.vdisk('a').write(9 * BLOCK_BYTES + 5, pattern(3 * BLOCK_BYTES, 3));
  await store.vdisk('b').trim(0, 100 * BLOCK_BYTES);
  await store.resize('c', 10 * BLOCK_BYTES + SECTOR_BYTES);
  const expected = [counted('a', 396), counted('b', 300), counted('c', 11), counted('golden', 400)];
  assert.deepEqual(await holdersOf(store, 'golden@v1'), expected);
  await areAsScanned(store, 'golden@v1');
  store = await t.reopen();
  assert.deepEqual(await holdersOf(store, 'golden@v1'), expected, 'nothing of it in memory');
  await store.split('b', { mode: 'copy', rateBytesPerSecond: 4 * MIB });
  await t.clock.sleep(150);
  const midway = await holdersOf(store, 'golden@v1');
  const left = midway.find(({ name }) => name === 'b')?.readThroughBytes ?? 0;
  assert.ok(left > 0 && left < 300 * BLOCK_BYTES, `${left} bytes left`);
  await areAsScanned(store, 'golden@v1');
});

onEachMedium('what is behind a deleted snapshot is listed by its name', async ({ store }) => {
  await populate(store, 100, ['a', 'b']);
  await store.vdisk('a').write(0, pattern(10 * BLOCK_BYTES, 2));
  await store.snapshot([{ vdisk: 'a', snapshot: 's' }]);
  await store.vdisk('a').write(10 * BLOCK_BYTES, pattern(10 * BLOCK_BYTES, 3));
  await store.clone('a@s', 'x');
  await store.delete('a@s', { inUse: 'defer' });
  // `a` and `x` read ten blocks of what was a@s: these do not come through golden@v1.
  const expected = [counted('a', 80), counted('b', 100), counted('golden', 100), counted('x', 90)];
  assert.deepEqual(await holdersOf(store, 'golden@v1'), expected);
  assert.deepEqual(store.show('golden@v1').holders, ['a', 'b', 'golden', 'x']);
  assert.equal((await store.scan('x')).readThroughBytes, 100 * BLOCK_BYTES);
});

onEachMedium('five are named, and the number of the rest', async ({ store }) => {
  await populate(store, 2, ['a', 'b', 'c', 'd', 'e', 'f']);
  const { message, holders } = await refusalOf(store, 'golden@v1');
  const list = '(a reads 8 KiB, b 8 KiB, c 8 KiB, d 8 KiB, e 8 KiB, and 2 more)';
  assert.ok(message.startsWith(`golden@v1 is the backing store of 7 others ${list}: `), message);
  assert.equal(holders.length, 7);
});

onEachMedium('beyond 1 GiB of looks it is told from counters, at most', async ({ store }) => {
  // A block in each MiB: every field of 600 level-1 buffers has to be looked at.
  const golden = await store.createVdisk('golden', 600 * MIB);
  for (let mib = 0; mib < 600; mib++) await golden.write(mib * MIB, pattern(BLOCK_BYTES, mib));
  await store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
  for (const name of ['a', 'b', 'c']) await store.clone('golden@v1', name);
  await store.vdisk('a').write(0, pattern(BLOCK_BYTES, 1));
  await store.resize('c', 50 * MIB + SECTOR_BYTES);
  const atMost = { readThroughBytes: 600 * BLOCK_BYTES, basis: 'at-most' } as const;
  const { message, holders } = await refusalOf(store, 'golden@v1');
  // The cheapest come first: `c` and one of the others have room.
  assert.deepEqual(holders, [
    { name: 'a', ...atMost },
    counted('b', 600),
    counted('c', 51),
    { name: 'golden', ...atMost },
  ]);
  assert.match(message, /\(a reads at most 2.34 MiB, b 2.34 MiB, c 204 KiB, golden at most 2.34 /);
});

for (const medium of MEDIA) {
  test(`an external one: counted, and at most while its file is away (${medium})`, async () => {
    const externals = new SimulatedExternals();
    const image = externals.add('/debian', pattern(100 * BLOCK_BYTES + SECTOR_BYTES, 1));
    await withStore(medium, { externals }, async (t) => {
      await t.store.createExternal('debian', '/debian');
      const a = await t.store.clone('debian', 'a');
      await a.write(0, pattern(5 * BLOCK_BYTES, 2));
      await areAsScanned(t.store, 'debian');
      for (const inUse of ['defer', 'split'] as const) {
        await assert.rejects(t.store.delete('debian', { inUse }), InUseError);
      }
      assert.equal(t.store.show('a').split, undefined);
      await t.store.clone('debian', 'b');
      await t.store.resize('b', 50 * BLOCK_BYTES + SECTOR_BYTES);
      image.isMissing = true;
      const store = await t.reopen();
      const { message, holders } = await refusalOf(store, 'debian');
      assert.deepEqual(holders, [
        { name: 'a', readThroughBytes: 101 * BLOCK_BYTES, basis: 'at-most' },
        { name: 'b', readThroughBytes: 51 * BLOCK_BYTES, basis: 'at-most' },
      ]);
      assert.match(message, /^debian .* 2 others \(a reads at most 404 KiB, b at most 204 KiB\): /);
      assert.doesNotMatch(message, /defer/);
      image.isMissing = false;
    });
  });
}

/** A store none of whose level-1 buffers is in memory: the count has to wait for each. */
async function cold(t: TestStore, clones: readonly string[]): Promise<Store> {
  await populate(t.store, 400, clones);
  return t.reopen();
}

onEachMedium('a holder that goes while it is counted is not named', async (t) => {
  const store = await cold(t, ['a', 'b', 'c']);
  const refused = refusalOf(store, 'golden@v1');
  await store.delete('b');
  const { holders } = await refused;
  assert.deepEqual(holders, [counted('a', 400), counted('c', 400), counted('golden', 400)]);
  await store.idle();
});

onEachMedium('a deleted snapshot is merged away meanwhile: still counted', async (t) => {
  // A block in each MiB: the count takes many loads, and `a` comes first.
  const golden = await t.store.createVdisk('golden', 400 * MIB);
  for (let mib = 0; mib < 400; mib++) await golden.write(mib * MIB, pattern(BLOCK_BYTES, mib));
  await t.store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
  await golden.write(0, pattern(BLOCK_BYTES, 98));
  await golden.write(MIB, pattern(BLOCK_BYTES, 97));
  const a = await t.store.clone('golden@v1', 'a');
  await a.write(0, pattern(BLOCK_BYTES, 99));
  await t.store.snapshot([{ vdisk: 'a', snapshot: 's' }]);
  await t.store.clone('a@s', 'x');
  await t.store.delete('a@s', { inUse: 'defer' });
  const store = await t.reopen();
  const refused = refusalOf(store, 'golden@v1');
  await store.delete('x');
  const { holders } = await refused;
  assert.deepEqual(holders, [counted('a', 399), counted('golden', 398)]);
  assert.equal(store.show('a').backing, 'golden@v1', 'it was merged before the answer');
});

onEachMedium('one that comes meanwhile is named, from the counters', async (t) => {
  const store = await cold(t, ['a']);
  const refused = refusalOf(store, 'golden@v1');
  await store.clone('golden@v1', 'late');
  const { holders } = await refused;
  const late = { name: 'late', readThroughBytes: 400 * BLOCK_BYTES, basis: 'at-most' };
  assert.deepEqual(holders, [counted('a', 400), counted('golden', 400), late]);
});

onEachMedium('if all but one have gone meanwhile, it is deleted', async (t) => {
  const store = await cold(t, ['a']);
  const deleted = store.delete('golden@v1');
  await store.delete('a');
  await deleted;
  await store.idle();
  assert.deepEqual(
    store.list().map(({ name }) => name),
    ['golden'],
  );
  assert.equal(store.show('golden').backing, undefined);
});

onEachMedium('if it has gone itself meanwhile, it is not found', async (t) => {
  const store = await cold(t, ['a', 'b']);
  const refused = store.delete('golden@v1');
  refused.catch(() => undefined);
  await store.delete('golden@v1', { inUse: 'defer' });
  await assert.rejects(refused, ofKind('not-found', 'golden@v1'));
});
