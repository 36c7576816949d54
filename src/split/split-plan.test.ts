/** What a plan says of the store's space, and of what deletion gives back, against what is then. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SimulatedExternals } from '../../sim/world/simulated-externals.js';
import { makeClones, split } from '../../test/support/clones.js';
import { withEngine } from '../../test/support/engines.js';
import {
  MEDIA,
  ofKind,
  pattern,
  type TestStore,
  type TestStoreOptions,
  withSimulatedStore,
  withStore,
} from '../../test/support/stores.js';
import { BLOCK_BYTES, MIB } from '../base/units.js';
import type { SplitMode } from '../layout/tree-record.js';
import { fatesOf } from './give-back.js';
import { type ModePlan, SPLIT_MODES } from './split-plan.js';

type Store = TestStore['store'];

/** Blocks of records, maps and the like that come and go with acts, not with data. */
const RECORD_BYTES = 24 * BLOCK_BYTES;
/** The reference file over what a scene has: a block for each MiB, and one above; twice. */
const REFERENCE_BYTES_MAX = 2 * 11 * BLOCK_BYTES;

/** What is taken when nothing is left to do. */
async function usedBytes(store: Store): Promise<number> {
  for (let turn = 0; turn < 2; turn++) {
    await store.idle();
    await store.consistencyPoint();
  }
  return store.stats().usedBytes;
}

/** The plan for one mode, of a scan; the estimate promises no less. */
async function planOf(store: Store, name: string, mode: SplitMode): Promise<ModePlan> {
  const scanned = await store.planSplit(name, { mode });
  const estimated = await store.planSplit(name, { mode, estimate: true });
  assert.equal(scanned.basis, 'scan');
  assert.equal(estimated.basis, 'estimate');
  const [plan] = scanned.modes;
  const [most] = estimated.modes;
  assert.ok(plan !== undefined && most !== undefined && scanned.modes.length === 1);
  const text = JSON.stringify({ plan, most });
  assert.ok(most.readBytes + most.sharedBytes >= plan.readBytes + plan.sharedBytes, text);
  assert.ok(most.usedBytesAfter + RECORD_BYTES >= plan.usedBytesAfter || mode === 'share', text);
  // From counters the deletion of the whole vdisk is known but for indirect blocks; and at least,
  // after a share split: they do not tell whose blocks it shares.
  const back = most.vdiskGivesBackBytes;
  const exact = plan.vdiskGivesBackBytes ?? Number.NaN;
  assert.ok(back === undefined || back <= exact + RECORD_BYTES, text);
  assert.ok(back === undefined || mode === 'share' || back >= exact - RECORD_BYTES, text);
  return plan;
}

interface Scene {
  readonly name: string;
  /** Makes `clone`, over a snapshot of golden. */
  make(store: Store): Promise<void>;
  readonly otherHolders: readonly string[];
  /** Blocks have several names before the split. */
  readonly hasShares?: true;
  /** What is deleted then, one by one. */
  readonly doomed: readonly string[];
  /** What the plan says of that. */
  back(plan: ModePlan): number | undefined;
  /** As deletion gives it back without a split, in blocks of 4 KiB: copy, share. */
  readonly blocks: readonly [number, number];
}

const CONTENT = pattern(6 * MIB, 1);

/** The clone has blocks of its own over 2 of the 6 MiB, and zeros over half a MiB. */
async function writeClone(store: Store): Promise<void> {
  const clone = store.vdisk('clone');
  await clone.write(MIB, pattern(2 * MIB, 2));
  await clone.trim(5 * MIB, MIB / 2);
}

const ofBacking = (plan: ModePlan): number | undefined => plan.givesBackBytes;
const ofVdisk = (plan: ModePlan): number | undefined => plan.vdiskGivesBackBytes;

const SCENES: readonly Scene[] = [
  {
    name: 'golden goes on over it: what golden has overwritten comes back',
    make: async (store) => {
      await makeClones(store, CONTENT, 'clone');
      await writeClone(store);
      const golden = store.vdisk('golden');
      await golden.write(2 * MIB, pattern(2 * MIB, 3));
      await golden.trim(MIB / 2, MIB / 4);
    },
    otherHolders: ['golden'],
    doomed: ['golden@v1'],
    back: ofBacking,
    // Of the 576 blocks that golden hides, the clone hides 256.
    blocks: [576, 256],
  },
  {
    name: 'golden is smaller now, by a part of a block',
    make: async (store) => {
      await makeClones(store, CONTENT, 'clone');
      await writeClone(store);
      await store.resize('golden', 4 * MIB + 512);
    },
    otherHolders: ['golden'],
    doomed: ['golden@v1'],
    back: ofBacking,
    // The block that is cut stays: golden gets one of its own instead, in a share split as well.
    blocks: [511, 128],
  },
  {
    name: 'golden goes with all of its snapshots',
    make: async (store) => {
      const golden = await store.createVdisk('golden', 6 * MIB);
      await golden.write(0, CONTENT.subarray(0, 3 * MIB));
      await store.snapshot([{ vdisk: 'golden', snapshot: 'v0' }]);
      await golden.write(2 * MIB, CONTENT.subarray(2 * MIB));
      await store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
      await store.clone('golden@v1', 'clone');
      await writeClone(store);
      await golden.write(0, pattern(MIB, 4));
    },
    otherHolders: ['golden'],
    doomed: ['golden@v1', 'golden@v0', 'golden'],
    back: ofVdisk,
    // 3 + 4 + 1 MiB; the clone shares 3.5 of them.
    blocks: [2048, 1152],
  },
  {
    name: 'a sibling has shared its blocks already',
    make: async (store) => {
      await makeClones(store, CONTENT, 'clone', 'sibling');
      await writeClone(store);
      await store.vdisk('sibling').write(0, pattern(MIB + MIB / 2, 5));
      await split(store, 'sibling', 'share');
    },
    hasShares: true,
    otherHolders: ['golden'],
    doomed: ['golden@v1', 'golden'],
    back: ofVdisk,
    // 1.5 MiB are not the sibling's; the clone has its own over the half of one of these.
    blocks: [384, 128],
  },
  {
    name: 'a sibling still reads through it',
    make: async (store) => {
      await makeClones(store, CONTENT, 'clone', 'sibling');
      await writeClone(store);
      await store.vdisk('golden').write(2 * MIB, pattern(2 * MIB, 3));
    },
    otherHolders: ['golden', 'sibling'],
    doomed: [],
    back: ofBacking,
    blocks: [0, 0],
  },
];

for (const scene of SCENES) {
  describe(`space and what comes back: ${scene.name}`, () => {
    for (const medium of MEDIA) {
      for (const mode of SPLIT_MODES) {
        test(`${medium}, ${mode}`, () =>
          withStore(medium, {}, async ({ store }) => {
            await scene.make(store);
            const before = await usedBytes(store);
            const plan = await planOf(store, 'clone', mode);
            const { backing, otherHolders, usedBytes: now } = await store.planSplit('clone');
            assert.deepEqual([backing, otherHolders], ['golden@v1', scene.otherHolders]);
            assert.equal(now, before);
            assert.equal(plan.fits, true);
            await split(store, 'clone', mode);
            const after = await usedBytes(store);
            assert.equal(after, plan.usedBytesAfter);
            for (const name of scene.doomed) await store.delete(name);
            const back = after - (await usedBytes(store));
            const said = scene.back(plan) ?? Number.NaN;
            const blocks = scene.blocks[mode === 'copy' ? 0 : 1];
            const text = `${said} bytes said, ${back} came, ${blocks} blocks of data`;
            // What counted the names of shared blocks comes back, too, and is not promised.
            const counts = scene.hasShares === true || mode === 'share' ? REFERENCE_BYTES_MAX : 0;
            if (scene.back === ofVdisk) assert.ok(said <= back && back <= said + counts, text);
            // A merge leaves fewer indirect blocks than there were, or copies one that is shared.
            const copies = mode === 'share' ? BLOCK_BYTES : 0;
            assert.ok(said - copies <= back && back <= said + RECORD_BYTES + counts, text);
            assert.ok(said - blocks * BLOCK_BYTES <= RECORD_BYTES, text);
            assert.ok(said >= blocks * BLOCK_BYTES, text);
          }));
      }
    }
  });
}

/** Runs the body with a clone, some of it its own, of an image outside of the store. */
function withImage(
  medium: (typeof MEDIA)[number],
  body: (test: TestStore) => Promise<void>,
): Promise<void> {
  const externals = new SimulatedExternals();
  const bytes = new Uint8Array(80 * MIB + 512);
  bytes.set(pattern(MIB, 1), 0);
  bytes.set(pattern(512, 2), 80 * MIB);
  externals.add('/image', bytes);
  const options: TestStoreOptions = { externals };
  return withStore(medium, options, async (test) => {
    await test.store.createExternal('image', '/image');
    const clone = await test.store.clone('image', 'clone');
    await clone.write(MIB / 2, pattern(MIB, 3));
    await body(test);
  });
}

for (const medium of MEDIA) {
  describe(`plans of a store, ${medium}`, () => {
    for (const mode of SPLIT_MODES) {
      test(`an image outside of the store is copied, and gives nothing back: ${mode}`, () =>
        withImage(medium, async ({ store }) => {
          const before = await usedBytes(store);
          const plan = await planOf(store, 'clone', mode);
          assert.deepEqual([plan.writeBytesMin, plan.sharedBytes], [0, 0]);
          assert.deepEqual([plan.givesBackBytes, plan.vdiskGivesBackBytes], [0, 0]);
          // The files do not say which of the blocks that they have are zeros.
          assert.equal(plan.writeBytes, plan.readBytes);
          const { splitBackingBlocksRead } = store.stats();
          await split(store, 'clone', mode);
          const blocksRead = store.stats().splitBackingBlocksRead - splitBackingBlocksRead;
          assert.equal(blocksRead, plan.readBytes / BLOCK_BYTES);
          const after = await usedBytes(store);
          assert.ok(after <= plan.usedBytesAfter, `${after} bytes, ${plan.usedBytesAfter} said`);
          assert.ok(after >= before + 129 * BLOCK_BYTES);
        }));
    }

    test('a split that pauses: what is left, and what comes back at its end', () =>
      withStore(medium, {}, async (test) => {
        const { store } = test;
        await makeClones(store, CONTENT, 'clone');
        await test.reopen();
        const damaged = CONTENT.subarray(700 * BLOCK_BYTES, 701 * BLOCK_BYTES);
        test.rot(damaged);
        const job = await test.store.split('clone', { mode: 'copy' });
        await test.store.idle();
        assert.equal(job.state()?.state, 'waiting');
        await test.store.delete('golden', { inUse: 'defer' });
        await usedBytes(test.store);
        const plan = await planOf(test.store, 'clone', 'copy');
        const { backing, otherHolders } = await test.store.planSplit('clone');
        assert.deepEqual([backing, otherHolders], ['', []]);
        assert.equal(plan.readBytes, BLOCK_BYTES);
        test.rot(damaged);
        const before = await usedBytes(test.store);
        await (await test.store.split('clone', { mode: 'copy' })).done;
        const after = await usedBytes(test.store);
        const back = plan.usedBytesAfter - after;
        const text = `${before}, ${after}, ${JSON.stringify(plan)}`;
        assert.ok(Math.abs(back - (plan.givesBackBytes ?? Number.NaN)) <= RECORD_BYTES, text);
        assert.ok(back >= CONTENT.length, text);
      }));

    test('what a deleted snapshot held alone goes with it, merged or not', () =>
      withEngine(medium, async ({ acts, head }) => {
        await acts.create('golden', MIB);
        await acts.snapshot([{ vdisk: 'golden', snapshot: 'v0' }]);
        await acts.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
        await acts.clone('golden@v1', 'clone');
        const [older, newer] = [head('golden@v0'), head('golden@v1')];
        assert.deepEqual(fatesOf(head('clone'), [newer]).get(newer)?.kind, 'merges');
        await acts.delete('golden', 'defer');
        const fates = fatesOf(head('clone'), [newer]);
        assert.deepEqual([...fates.keys()], [newer, older]);
        assert.deepEqual([fates.get(older)?.kind, fates.get(newer)?.kind], ['dies', 'dies']);
      }));

    test('what was written a moment ago can be shared', () =>
      withStore(medium, {}, async ({ store }) => {
        const golden = await store.createVdisk('golden', MIB);
        for (let at = 0; at < MIB; at += BLOCK_BYTES) {
          await golden.write(at, pattern(BLOCK_BYTES, 1 + at));
        }
        await store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
        await store.clone('golden@v1', 'clone');
        const [plan] = (await store.planSplit('clone', { mode: 'share' })).modes;
        assert.deepEqual([plan?.sharedBytes, plan?.writeBytes], [MIB, 0]);
      }));

    test('there is nothing to plan for what stands alone or does not exist', () =>
      withStore(medium, {}, async ({ store }) => {
        await makeClones(store, CONTENT);
        await assert.rejects(store.planSplit('golden'), ofKind('invalid', 'no backing store'));
        await assert.rejects(store.planSplit('golden@v1'), ofKind('invalid', 'no backing store'));
        await assert.rejects(store.planSplit('none'), ofKind('not-found', 'none'));
      }));

    test('it says so when there is no room', () =>
      withStore(medium, { sizeBytes: 64 * MIB }, async ({ store }) => {
        await makeClones(store, pattern(36 * MIB, 1), 'clone');
        const { modes } = await store.planSplit('clone');
        assert.deepEqual(
          modes.map(({ mode, fits }) => [mode, fits]),
          [
            ['copy', false],
            ['share', true],
          ],
        );
      }));

    test('the time is that of the splits before it, and unknown before the first', () =>
      withSimulatedStore(medium, 3, {}, async ({ store }) => {
        await makeClones(store, CONTENT, 'one', 'two');
        const [before] = (await store.planSplit('two', { mode: 'copy' })).modes;
        assert.deepEqual([before?.bytesPerSecond, before?.seconds], [undefined, undefined]);
        await split(store, 'one', 'copy');
        const [copy, share] = (await store.planSplit('two')).modes;
        assert.ok(copy !== undefined && (copy.bytesPerSecond ?? 0) > 0);
        assert.equal(copy.seconds, CONTENT.length / (copy.bytesPerSecond ?? 0));
        assert.equal(share?.seconds, undefined);
      }));
  });
}
