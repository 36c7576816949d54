/** Whole shares: what they cost, what they leave out, and whom the blocks belong to afterwards. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { makeClones, sparsePattern, split } from '../../test/support/clones.js';
import {
  MEDIA,
  pattern,
  reads,
  resized,
  statusText,
  type TestStore,
  withStore,
} from '../../test/support/stores.js';
import { BLOCK_BYTES, MIB } from '../base/units.js';

/** 600 MiB are three levels: what stands at 0, 1 and 300 MiB has two blocks of level 2. */
const SIZE = 600 * MIB;

function onEachMedium(name: string, body: (test: TestStore) => Promise<void>): void {
  describe(name, () => {
    for (const medium of MEDIA) test(medium, () => withStore(medium, {}, body));
  });
}

async function makeGolden({ store }: TestStore, ...clones: string[]): Promise<void> {
  const golden = await store.createVdisk('golden', SIZE);
  for (const at of [0, 1, 300]) await golden.write(at * MIB, pattern(MIB, at));
  await store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
  for (const name of clones) await store.clone('golden@v1', name);
}

async function usedBytes({ store }: TestStore): Promise<number> {
  for (let turn = 0; turn < 3; turn++) {
    await store.idle();
    await store.consistencyPoint();
  }
  return store.stats().usedBytes;
}

async function readsGolden({ store }: TestStore, name: string): Promise<void> {
  const target = store.vdisk(name);
  for (const at of [0, 1, 300]) {
    const bytes = new Uint8Array(MIB);
    await target.read(at * MIB, bytes);
    assert.deepEqual(Buffer.compare(bytes, pattern(MIB, at)), 0, `${name} at ${at} MiB`);
  }
}

onEachMedium('an untouched clone: one block, named twice', async (test) => {
  const { store } = test;
  await makeGolden(test, 'clone', 'next');
  await usedBytes(test);
  // The first one makes the reference file.
  await split(store, 'next', 'share');
  const before = await usedBytes(test);
  const { cpBlocksWritten } = store.stats();
  await split(store, 'clone', 'share');
  assert.ok(store.stats().cpBlocksWritten - cpBlocksWritten <= 12, 'records and one entry');
  assert.equal(await usedBytes(test), before);
  const { splitWholeShares, splitTallShares, splitBackingBlocksRead } = store.stats();
  assert.deepEqual([splitWholeShares, splitTallShares, splitBackingBlocksRead], [2, 2, 0]);
  const { mappedBytes, sharedBytes, backing } = store.show('clone');
  assert.deepEqual([mappedBytes, sharedBytes, backing], [3 * MIB, 3 * MIB, undefined]);
  await readsGolden(test, 'clone');
});

onEachMedium('what is dirty still is placed first', async (test) => {
  await makeGolden(test, 'clone');
  await split(test.store, 'clone', 'share');
  assert.equal(test.store.stats().splitTallShares, 1);
  await test.check('right after the split');
  await readsGolden(test, 'clone');
});

onEachMedium('beside blocks of its own: as much as one pointer names', async (test) => {
  const { store } = test;
  await makeGolden(test, 'clone');
  await store.vdisk('clone').write(MIB, pattern(BLOCK_BYTES, 99));
  await split(store, 'clone', 'share');
  // The level-1 range at 0, and the level-2 block over 300 MiB.
  const { splitWholeShares, splitTallShares } = store.stats();
  assert.deepEqual([splitWholeShares, splitTallShares], [2, 1]);
  assert.equal(store.show('clone').mappedBytes, 3 * MIB);
  assert.equal(store.show('clone').sharedBytes, 3 * MIB - BLOCK_BYTES);
});

onEachMedium('it is no change of the content', async (test) => {
  const { store } = test;
  await makeClones(store, sparsePattern(4), 'clone');
  await split(store, 'clone', 'share');
  const clone = store.vdisk('clone');
  assert.equal(statusText(await clone.blockStatus(0, MIB)), 'data 0f 256');
  // Nor is a block beside one that a client writes.
  await clone.write(BLOCK_BYTES, pattern(BLOCK_BYTES, 5));
  assert.equal(statusText(await clone.blockStatus(0, MIB)), 'data 0f 1, data 0 1, data 0f 254');
});

onEachMedium('what the limit hides stays hidden', async ({ store }) => {
  const content = pattern(3 * MIB, 6);
  await makeClones(store, content, 'inside', 'between', 'odd');
  for (const [name, limit, sizeBytes] of [
    ['inside', MIB + 5 * BLOCK_BYTES, 4 * MIB],
    ['between', 2 * MIB, 4 * MIB],
    ['odd', 3 * MIB - 512, 3 * MIB - 512],
  ] as const) {
    await store.resize(name, limit);
    await store.resize(name, sizeBytes);
    await split(store, name, 'share');
    await store.resize(name, 5 * MIB);
    await reads(store.vdisk(name), resized(resized(content, limit), 5 * MIB), name);
  }
});

const ORDERS = [
  ['golden@v1', 'a', 'b'],
  ['a', 'golden@v1', 'b'],
  ['b', 'a', 'golden@v1'],
];

for (const order of ORDERS) {
  onEachMedium(`three names, and they go: ${order.join(', ')}`, async (test) => {
    const { store } = test;
    const before = await usedBytes(test);
    await makeGolden(test, 'a');
    await split(store, 'a', 'share');
    await store.snapshot([{ vdisk: 'a', snapshot: 's' }]);
    await store.clone('a@s', 'b');
    await split(store, 'b', 'share');
    assert.equal(store.stats().splitTallShares, 2);
    await store.delete('a@s');
    await store.vdisk('b').write(300 * MIB, pattern(BLOCK_BYTES, 8));
    await store.vdisk('b').write(300 * MIB, pattern(BLOCK_BYTES, 300));
    const left = new Set(['golden', ...order]);
    for (const name of order) {
      await store.delete(name);
      left.delete(name);
      await usedBytes(test);
      await test.check(`without ${name}`);
    }
    await store.delete('golden');
    const more = (await usedBytes(test)) - before;
    assert.ok(more <= 32 * BLOCK_BYTES, `${more} bytes are left`);
  });
}

onEachMedium('who learnt whose a block is before it was shared whole', async (test) => {
  const { store } = test;
  await makeGolden(test, 'middle', 'other');
  await store.vdisk('middle').write(MIB, pattern(BLOCK_BYTES, 3));
  await store.snapshot([{ vdisk: 'middle', snapshot: 's' }]);
  await store.clone('middle@s', 'top');
  await store.consistencyPoint();
  await readsGoldenBut(test, 'top');
  await split(store, 'other', 'share');
  await split(store, 'top', 'share');
  await readsGoldenBut(test, 'top');
  await test.check('both are split');
});

async function readsGoldenBut({ store }: TestStore, name: string): Promise<void> {
  const expected = pattern(MIB, 1);
  expected.set(pattern(BLOCK_BYTES, 3));
  const bytes = new Uint8Array(MIB);
  await store.vdisk(name).read(MIB, bytes);
  assert.equal(Buffer.compare(bytes, expected), 0);
}

/** `clone` counts nothing as shared, and names a shared level-1 block without data. */
async function makeEmptyShared(test: TestStore): Promise<void> {
  const { store } = test;
  // As large as its root block, which a merge could move as a whole.
  const golden = await store.createVdisk('golden', 256 * MIB);
  await golden.write(0, pattern(MIB, 1));
  await golden.write(5 * MIB, pattern(BLOCK_BYTES, 2));
  await golden.trim(5 * MIB, BLOCK_BYTES);
  await store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
  await store.clone('golden@v1', 'clone');
  await split(store, 'clone', 'share');
  const clone = store.vdisk('clone');
  await clone.write(100 * MIB, pattern(MIB, 3));
  await clone.write(0, pattern(MIB, 4));
  await usedBytes(test);
  assert.equal(store.show('clone').sharedBytes, 0);
  await store.snapshot([{ vdisk: 'clone', snapshot: 's' }]);
  await usedBytes(test);
}

onEachMedium('a shared block without data is shared again', async (test) => {
  const { store } = test;
  await makeEmptyShared(test);
  await store.clone('clone@s', 'next');
  await split(store, 'next', 'share');
  await test.check('it has been split');
});

onEachMedium('a shared block without data is merged', async (test) => {
  const { store } = test;
  await makeEmptyShared(test);
  await store.delete('clone@s');
  await usedBytes(test);
  await test.check('it has been merged');
});
