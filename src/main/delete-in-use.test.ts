/** Deleting what others read through: refused, deferred, or with a split of them. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  MEDIA,
  ofKind,
  pattern,
  reads,
  type SimulatedStore,
  withSimulatedStore,
  withStore,
} from '../../test/support/stores.js';
import { MIB } from '../base/units.js';
import type { Store } from './store.js';

const SIZE = 3 * MIB;
const OPTIONS = { memoryBytes: 8 * MIB };
const GOLDEN = pattern(SIZE, 1);
const CHANGED = pattern(MIB, 2);

/** golden with two snapshots; a and b are clones of the second. A MiB of `a` was written since. */
async function populate(store: Store): Promise<void> {
  const golden = await store.createVdisk('golden', SIZE);
  await golden.write(0, GOLDEN.subarray(0, MIB));
  await store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
  await golden.write(MIB, GOLDEN.subarray(MIB));
  await store.snapshot([{ vdisk: 'golden', snapshot: 'v2' }]);
  const a = await store.clone('golden@v2', 'a');
  await store.clone('golden@v2', 'b');
  await a.write(MIB, CHANGED);
  await a.flush();
}

async function readsClones(store: Store): Promise<void> {
  const expected = GOLDEN.slice();
  expected.set(CHANGED, MIB);
  await reads(store.vdisk('a'), expected);
  await reads(store.vdisk('b'), GOLDEN);
}

const namesOf = (store: Store): string[] => store.list().map(({ name }) => name);

/** Bytes that are taken when nothing is left to do. */
async function settledBytes(store: Store): Promise<number> {
  await store.idle();
  await store.consistencyPoint();
  await store.consistencyPoint();
  return store.stats().usedBytes;
}

for (const medium of MEDIA) {
  describe(`delete in use, ${medium}`, () => {
    it('is refused by default, with the holders, and changes nothing', () =>
      withStore(medium, OPTIONS, async ({ store }) => {
        await populate(store);
        const before = store.list();
        const says =
          'golden@v2 is the backing store of 3 others (a reads 2 MiB, b 3 MiB, golden 3 MiB): ' +
          'split or delete them first, or defer: it goes when the last of them lets go';
        await assert.rejects(store.delete('golden@v2'), ofKind('in-use', says));
        await assert.rejects(store.delete('golden'), ofKind('in-use', 'golden@v1, golden@v2'));
        assert.deepEqual(store.list(), before);
      }));

    it('defer: the name goes at once, the space with the last that reads through it', () =>
      withStore(medium, OPTIONS, async (test) => {
        const { store } = test;
        const empty = await settledBytes(store);
        await populate(store);
        await store.delete('golden', { inUse: 'defer' });
        assert.deepEqual(namesOf(store), ['a', 'b']);
        assert.equal(store.show('a').backing, '');
        const full = await settledBytes(store);
        await readsClones(store);
        await test.check('when both hold it');
        // The name can be given again, and has nothing to do with the old one.
        await reads(await store.createVdisk('golden', MIB), new Uint8Array(MIB));
        const job = await store.split('b', { mode: 'copy' });
        await job.done;
        assert.equal(store.show('b').backing, undefined);
        await settledBytes(store);
        await readsClones(store);
        // The last one adopts what is left: nothing is copied.
        assert.equal(store.show('a').backing, undefined);
        assert.equal(store.show('a').mappedBytes, SIZE);
        await test.check('when one has adopted it');
        for (const name of ['a', 'b', 'golden']) await store.delete(name);
        const left = await settledBytes(store);
        assert.ok(full - left >= SIZE && left - empty < MIB, `${full}, ${left}, ${empty}`);
      }));

    it('split: every clone stands alone soon, and what they read is gone', () =>
      withStore(medium, OPTIONS, async (test) => {
        const { store } = test;
        await populate(store);
        const before = await settledBytes(store);
        await store.delete('golden', { inUse: 'split' });
        assert.deepEqual(namesOf(store), ['a', 'b']);
        const after = await settledBytes(store);
        for (const name of ['a', 'b']) assert.equal(store.show(name).backing, undefined);
        await readsClones(store);
        await test.check('after the splits');
        // Shared, not copied: no more is taken than before, but for indirect blocks.
        assert.ok(after < before + MIB, `${before} bytes before, ${after} after`);
      }));

    it('of one snapshot: its vdisk and older snapshots stay as they were', () =>
      withStore(medium, OPTIONS, async (test) => {
        const { store } = test;
        await populate(store);
        await store.delete('golden@v2', { inUse: 'defer' });
        assert.deepEqual(namesOf(store), ['a', 'b', 'golden', 'golden@v1']);
        await store.idle();
        await readsClones(store);
        await reads(store.vdisk('golden'), GOLDEN);
        const old = GOLDEN.slice().fill(0, MIB);
        await reads(store.vdisk('golden@v1'), old);
        // Three read through it, and they hold what is below it only once.
        for (const name of ['golden@v1', 'golden', 'b']) await store.delete(name);
        await store.idle();
        assert.equal(store.show('a').backing, undefined);
        await test.check('in the end');
      }));

    it('power fails after the answer: all names are gone, all clones are whole', () =>
      withSimulatedStore(medium, 5, OPTIONS, async (test: SimulatedStore) => {
        await populate(test.store);
        await test.store.delete('golden', { inUse: 'defer' });
        await test.cut();
        assert.deepEqual(namesOf(test.store), ['a', 'b']);
        await readsClones(test.store);
        await (await test.store.split('a', { mode: 'share' })).done;
        await test.cut();
        await test.store.idle();
        await readsClones(test.store);
        await test.store.close();
        await test.check('in the end');
      }));
  });
}
