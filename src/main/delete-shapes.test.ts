/** Deleting by the shape of what hangs on the vdisk: the rows of the table in docs/DESIGN.md. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import {
  MEDIA,
  ofKind,
  pattern,
  reads,
  type TestStore,
  withStore,
} from '../../test/support/stores.js';
import { MIB } from '../base/units.js';
import { InUseError } from '../vdisk/in-use.js';
import type { Store } from './store.js';

const SIZE = 8 * MIB;
const OPTIONS = { memoryBytes: 8 * MIB };
const GOLDEN = pattern(SIZE, 1);

/** golden and its snapshot v1, and clones of that. */
async function populate(store: Store, ...clones: string[]): Promise<void> {
  const golden = await store.createVdisk('golden', SIZE);
  for (let at = 0; at < SIZE; at += MIB) await golden.write(at, GOLDEN.subarray(at, at + MIB));
  await store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
  for (const name of clones) await store.clone('golden@v1', name);
  await store.consistencyPoint();
}

const namesOf = (store: Store): string[] => store.list().map(({ name }) => name);

async function settle(store: Store): Promise<void> {
  await store.idle();
  await store.consistencyPoint();
  await store.consistencyPoint();
}

/** Nothing was copied: what it took over is all of golden, in the blocks that golden had. */
async function hasAdopted(test: TestStore, name: string, usedBefore: number): Promise<void> {
  const { store } = test;
  await settle(store);
  const { backing, mappedBytes, sharedBytes } = store.show(name);
  assert.deepEqual([backing, mappedBytes, sharedBytes], [undefined, SIZE, 0]);
  const { usedBytes } = store.stats();
  assert.ok(usedBytes < usedBefore + MIB, `${usedBefore} bytes before, ${usedBytes} after`);
  await reads(store.vdisk(name), GOLDEN);
  await test.check('when it is adopted');
}

for (const medium of MEDIA) {
  describe(`shapes of deletion, ${medium}`, () => {
    it('a vdisk with snapshots: refused; deferred, it goes with them', () =>
      withStore(medium, OPTIONS, async ({ store }) => {
        const empty = store.stats().usedBytes;
        await populate(store);
        await assert.rejects(store.delete('golden'), ofKind('in-use', 'delete golden@v1 first'));
        await store.delete('golden', { inUse: 'defer' });
        assert.deepEqual(namesOf(store), []);
        await settle(store);
        const { usedBytes } = store.stats();
        assert.ok(usedBytes < empty + MIB, `${empty} bytes when empty, ${usedBytes} now`);
      }));

    it('a snapshot that only its vdisk reads: nothing is in the way, the vdisk adopts', () =>
      withStore(medium, OPTIONS, async (test) => {
        await populate(test.store);
        const { usedBytes } = test.store.stats();
        await test.store.delete('golden@v1');
        await hasAdopted(test, 'golden', usedBytes);
      }));

    it('a snapshot with one clone, its vdisk deferred: the clone adopts', () =>
      withStore(medium, OPTIONS, async (test) => {
        const { store } = test;
        await populate(store, 'a');
        await assert.rejects(store.delete('golden@v1'), InUseError);
        const { usedBytes } = store.stats();
        await store.delete('golden', { inUse: 'defer' });
        assert.deepEqual(namesOf(store), ['a']);
        await hasAdopted(test, 'a', usedBytes);
      }));

    it('several clones: the last one adopts when the others are deleted', () =>
      withStore(medium, OPTIONS, async (test) => {
        const { store } = test;
        await populate(store, 'a', 'b', 'c');
        const { usedBytes } = store.stats();
        await store.delete('golden', { inUse: 'defer' });
        await store.delete('a');
        await store.idle();
        assert.equal(store.show('b').mappedBytes, 0, 'two still hold it');
        await store.delete('c');
        await hasAdopted(test, 'b', usedBytes);
      }));

    it('clones of clones: what is in between goes, the last of the line adopts all', () =>
      withStore(medium, OPTIONS, async (test) => {
        const { store } = test;
        await populate(store, 'a');
        await store.snapshot([{ vdisk: 'a', snapshot: 's' }]);
        await store.clone('a@s', 'x');
        const { usedBytes } = store.stats();
        await store.delete('a', { inUse: 'defer' });
        const refused = await store.delete('golden@v1').catch((error: unknown) => error);
        assert.ok(refused instanceof InUseError, String(refused));
        const found = refused.holders.map(({ name, readThroughBytes }) => [name, readThroughBytes]);
        assert.deepEqual(found, [
          ['golden', SIZE],
          ['x', SIZE],
        ]);
        await store.delete('golden', { inUse: 'defer' });
        assert.deepEqual(namesOf(store), ['x']);
        await hasAdopted(test, 'x', usedBytes);
      }));

    for (const inUse of ['defer', 'split'] as const) {
      it(`during a split of a clone, ${inUse}: the split ends, nothing is lost`, () =>
        withStore(medium, OPTIONS, async (test) => {
          const { store } = test;
          await populate(store, 'a', 'b');
          const slow = { mode: 'copy', rateBytesPerSecond: 8 * MIB } as const;
          const job = await store.split('a', slow);
          await test.clock.sleep(250);
          const refused = await store.delete('golden@v1').catch((error: unknown) => error);
          assert.ok(refused instanceof InUseError, String(refused));
          const left = refused.holders.find(({ name }) => name === 'a')?.readThroughBytes ?? 0;
          assert.ok(left > 0 && left < SIZE, `${left} bytes are left to fill`);
          await store.delete('golden', { inUse });
          assert.deepEqual(namesOf(store), ['a', 'b']);
          await job.done;
          await settle(store);
          for (const name of ['a', 'b']) {
            assert.equal(store.show(name).backing, undefined);
            await reads(store.vdisk(name), GOLDEN);
          }
          await test.check('in the end');
        }));
    }

    for (const inUse of ['defer', 'split'] as const) {
      it(`in mid-merge, ${inUse}: who adopts gets a clone of its own, and is deleted`, () =>
        withStore(medium, OPTIONS, async (test) => {
          const { store } = test;
          await populate(store, 'a');
          await store.delete('golden', { inUse: 'defer' });
          while (store.stats().background !== 'merge') await test.clock.yield();
          assert.equal(store.show('a').backing, '', 'it has not let go yet');
          await store.snapshot([{ vdisk: 'a', snapshot: 's' }]);
          const x = await store.clone('a@s', 'x');
          await assert.rejects(store.delete('a@s'), ofKind('in-use', '(a reads 8 MiB, x 8 MiB)'));
          await store.delete('a', { inUse });
          await settle(store);
          assert.equal(store.show('x').backing, undefined);
          await reads(x, GOLDEN);
          await test.check('when x has it');
          await store.delete('x');
        }));
    }
  });
}
