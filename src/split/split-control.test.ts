/** What somebody may ask of a split under way; each survives a crash as soon as it is answered. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { deleteGolden, diffText, makeClones, overwriteFree } from '../../test/support/clones.js';
import {
  MEDIA,
  ofKind,
  pattern,
  reads,
  type TestStore,
  withStore,
} from '../../test/support/stores.js';
import { BLOCK_BYTES, MIB } from '../base/units.js';
import type { SplitMode } from '../layout/tree-record.js';

type Store = TestStore['store'];
type SplitJob = Awaited<ReturnType<Store['split']>>;

const MODES: readonly SplitMode[] = ['copy', 'share'];
const SIZE = 24 * MIB;
/** A share fills a level-1 range in a step, and is charged for it: both are slow enough. */
const SLOW = { pace: 'rate', rateBytesPerSecond: 2 * MIB } as const;

function inEachWay(
  name: string,
  body: (test: TestStore, mode: SplitMode) => Promise<void>,
  options: { readonly sizeBytes?: number } = {},
): void {
  describe(name, () => {
    for (const medium of MEDIA) {
      for (const mode of MODES) {
        test(`${medium}, ${mode}`, () => withStore(medium, options, (store) => body(store, mode)));
      }
    }
  });
}

interface Scene {
  readonly content: Uint8Array;
  readonly store: Store;
}

/** golden@v1 and a clone of it with a block of its own; a slow split of that is under way. */
async function slowSplit({ store, clock }: TestStore, mode: SplitMode): Promise<Scene> {
  const content = pattern(SIZE, 7);
  await makeClones(store, content, 'clone');
  const own = pattern(BLOCK_BYTES, 9);
  await store.vdisk('clone').write(5 * BLOCK_BYTES, own);
  content.set(own, 5 * BLOCK_BYTES);
  await store.consistencyPoint();
  await store.split('clone', { mode, ...SLOW });
  await clock.sleep(3000);
  return { content, store };
}

function filled(store: Store): number {
  return store.show('clone').mappedBytes - BLOCK_BYTES;
}

inEachWay('a bound is a bound', async (test, mode) => {
  const { store, content } = await slowSplit(test, mode);
  assert.ok(filled(store) >= 5 * MIB && filled(store) <= 7 * MIB, `${filled(store)} in 3 s`);
  assert.equal(store.show('clone').split?.limitedBy, 'rate');
  assert.equal(store.show('clone').split?.rateBytesPerSecond, 2 * MIB);
  await store.changeSplit('clone', { pace: 'now' });
  await store.idle();
  assert.equal(store.show('clone').split, undefined);
  await reads(store.vdisk('clone'), content);
});

inEachWay('paused is paused, after a crash too, until somebody resumes it', async (test, mode) => {
  const { store } = await slowSplit(test, mode);
  await store.pauseSplit('clone');
  await store.idle();
  const at = filled(store);
  await test.clock.sleep(60_000);
  assert.equal(filled(store), at);
  const { store: after, ...crashed } = await test.crashed();
  await after.idle();
  assert.equal(after.show('clone').split?.state, 'paused');
  assert.equal(after.show('clone').split?.reservedBytes, 0, 'nothing is set aside for it');
  await after.close();
  assert.ok(crashed.clock === test.clock);
  const job = store.splitOf('clone');
  await store.resumeSplit('clone');
  await test.clock.sleep(1000);
  assert.ok(filled(store) > at);
  await store.split('clone', { mode, pace: 'now' });
  await job?.done;
  assert.equal(store.show('clone').backing, undefined);
});

inEachWay('what was not durable at the end is filled again', async (test, mode) => {
  const { store, content } = await slowSplit(test, mode);
  await store.consistencyPoint();
  await store.changeSplit('clone', { pace: 'now' });
  while (store.show('clone').split?.state === 'filling') await test.clock.yield();
  assert.equal(store.show('clone').split?.state, 'releasing');
  // The log would say that it is at its end; what it filled last is in no consistency point yet.
  await store.changeSplit('clone', SLOW);
  const { store: after } = await test.crashed();
  assert.equal(after.show('clone').split?.state, 'filling');
  await after.changeSplit('clone', { pace: 'now' });
  await after.idle();
  assert.equal(after.show('clone').split, undefined);
  await reads(after.vdisk('clone'), content);
  await after.close();
});

const ROOMY = { sizeBytes: 160 * MIB };

inEachWay(
  'an undo takes no zeros away from the split of a clone',
  async ({ store, clock }, mode) => {
    const content = pattern(SIZE, 7);
    content.fill(0, 5 * BLOCK_BYTES, 6 * BLOCK_BYTES);
    await makeClones(store, content, 'clone');
    await store.snapshot([{ vdisk: 'clone', snapshot: 's' }]);
    await store.clone('clone@s', 'other');
    await store.split('clone', { mode: 'copy', ...SLOW });
    await clock.sleep(3000);
    await store.split('other', { mode: 'copy', ...SLOW });
    await clock.sleep(3000);
    assert.ok((store.show('other').split?.positionBytes ?? 0) > MIB);
    await store.cancelSplit('clone', { undo: true });
    await store.changeSplit('other', { mode, pace: 'now' });
    await clock.sleep(50_000);
    assert.equal(store.show('other').split, undefined);
    await reads(store.vdisk('other'), content);
  },
  ROOMY,
);

inEachWay('mode and policy change on the way, durably', async (test, mode) => {
  const { store, content } = await slowSplit(test, mode);
  const other = mode === 'copy' ? 'share' : 'copy';
  const window = { fromMinute: 60, toMinute: 120 };
  const before = filled(store);
  await store.changeSplit('clone', { mode: other, pace: 'idle', window });
  await assert.rejects(
    store.changeSplit('clone', { pace: 'rate' }),
    ofKind('invalid', 'needs a rate'),
  );
  await assert.rejects(
    store.changeSplit('clone', { window: { fromMinute: 1, toMinute: 1 } }),
    ofKind('invalid', 'two different minutes'),
  );
  const crashed = await test.crashed();
  const split = crashed.store.show('clone').split;
  assert.equal(split?.mode, other);
  assert.deepEqual(split.policy, {
    pace: 'idle',
    rateBytesPerSecond: 0,
    floorBytesPerSecond: MIB,
    window,
    isReserved: true,
  });
  await crashed.store.close();
  // The clock of the test begins at midnight: it waits for one o'clock.
  await test.clock.sleep(1000);
  assert.equal(store.show('clone').split?.state, 'waiting');
  assert.ok(filled(store) <= before + MIB);
  await test.clock.sleep(3_600_000);
  await store.idle();
  assert.equal(store.show('clone').split, undefined);
  const { mappedBytes, sharedBytes } = store.show('clone');
  assert.equal(mappedBytes, SIZE);
  assert.ok(sharedBytes > 0 && sharedBytes < SIZE, 'some of it copied, some shared');
  await reads(store.vdisk('clone'), content);
});

inEachWay(
  'undo: what was filled becomes holes again, and the space is back',
  async (test, mode) => {
    const { store, content } = await slowSplit(test, mode);
    const clone = store.vdisk('clone');
    // Over what was filled: that is the client's now.
    const own = pattern(BLOCK_BYTES, 11);
    await clone.write(100 * BLOCK_BYTES, own);
    content.set(own, 100 * BLOCK_BYTES);
    await clone.trim(101 * BLOCK_BYTES, BLOCK_BYTES);
    content.fill(0, 101 * BLOCK_BYTES, 102 * BLOCK_BYTES);
    await clone.flush();
    const job = store.splitOf('clone');
    const cancelled = assert.rejects(job?.done ?? Promise.resolve(), /cancelled/);
    await store.cancelSplit('clone', { undo: true });
    await cancelled;
    // Right after the answer: it goes on after a crash.
    const crashed = await test.crashed();
    for (const each of [store, crashed.store]) {
      await reads(each.vdisk('clone'), content, 'while it is undone');
      await each.idle();
      await each.consistencyPoint();
      const { split, backing, mappedBytes, sharedBytes } = each.show('clone');
      assert.equal(split, undefined);
      assert.equal(backing, 'golden@v1');
      assert.equal(mappedBytes, 2 * BLOCK_BYTES);
      assert.equal(sharedBytes, 0);
      assert.equal(await diffText(each, 'golden@v1', 'clone'), 'data 5+1, data 100+1, zero 101+1');
      // What was freed is written over, often.
      await overwriteFree(each);
      await reads(each.vdisk('clone'), content, 'undone');
    }
    await crashed.store.close();
    await store.split('clone', { mode });
    await store.idle();
    await deleteGolden(store);
    await reads(clone, content, 'split after all');
  },
);

inEachWay('a split that begins in the moment an undo ends is a split', async (test, mode) => {
  const { store, content } = await slowSplit(test, mode);
  await store.cancelSplit('clone', { undo: true });
  const begin = async (): Promise<SplitJob> => {
    for (let turn = 1; ; turn++) {
      try {
        return await store.split('clone', { mode });
      } catch (error) {
        assert.ok(ofKind('in-use', 'being undone')(error), String(error));
        // As often as promises turn, so that no moment is missed.
        if (turn % 20 === 0) await test.clock.yield();
      }
    }
  };
  await (await begin()).done;
  assert.equal(store.show('clone').backing, undefined);
  await deleteGolden(store);
  await reads(store.vdisk('clone'), content);
});

inEachWay('clones of a clone whose split is undone read what they read', async (test, mode) => {
  const { store, content } = await slowSplit(test, mode);
  await store.snapshot([{ vdisk: 'clone', snapshot: 's' }]);
  const above = await store.clone('clone@s', 'above');
  // It has learnt where the blocks that were filled are.
  await reads(above, content);
  await store.cancelSplit('clone', { undo: true });
  await store.idle();
  await overwriteFree(store);
  await reads(above, content, 'above what was undone');
  await reads(store.vdisk('clone'), content);
});

inEachWay('what a merge has taken away below is not undone', async (test, mode) => {
  const { store, content } = await slowSplit(test, mode);
  await store.pauseSplit('clone');
  // The split holds the merge back; its end lets it begin.
  await store.delete('golden', { inUse: 'defer' });
  await store.cancelSplit('clone', { undo: true });
  await store.idle();
  await overwriteFree(store);
  await reads(store.vdisk('clone'), content, 'adopted');
  assert.equal(store.show('clone').backing, undefined);
});

describe('space is set aside before the first fill', () => {
  for (const medium of MEDIA) {
    test(medium, () => withStore(medium, {}, refusedWithoutRoom));
    test(`${medium}, and nobody else gets it`, () => withStore(medium, {}, othersFindNoRoom));
  }
});

async function refusedWithoutRoom({ store }: TestStore): Promise<void> {
  const content = pattern(12 * MIB, 11);
  await makeClones(store, content, 'clone');
  const ballast = await store.createVdisk('ballast', 64 * MIB);
  for (let at = 0; store.stats().freeBytes > 6 * MIB; at += MIB) {
    await ballast.write(at, pattern(MIB, at));
  }
  await store.consistencyPoint();
  const before = store.stats().freeBytes;
  await assert.rejects(
    store.split('clone', { mode: 'copy' }),
    ofKind('out-of-space', 'takes up to 12'),
  );
  assert.equal(store.show('clone').split, undefined, 'it does not begin');
  assert.equal(store.stats().freeBytes, before, 'and sets nothing aside');
}

async function othersFindNoRoom({ store, clock }: TestStore): Promise<void> {
  const content = pattern(12 * MIB, 11);
  await makeClones(store, content, 'clone');
  const job = await store.split('clone', { mode: 'copy', ...SLOW });
  await clock.sleep(500);
  assert.ok((job.state()?.reservedBytes ?? 0) > 10 * MIB);
  const ballast = await store.createVdisk('ballast', 64 * MIB);
  await assert.rejects(async () => {
    for (let at = 0; ; at += MIB) await ballast.write(at, pattern(MIB, at));
  }, ofKind('out-of-space'));
  // What is full for others is not for the split.
  await job.done;
  await reads(store.vdisk('clone'), content);
  await assert.rejects(async () => {
    for (let at = 32 * MIB; ; at += MIB) await ballast.write(at, pattern(MIB, at));
  }, ofKind('out-of-space'));
}
