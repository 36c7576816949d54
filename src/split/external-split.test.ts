/**
 * Splits from an external backing store: the image is taken in, and can go. Those of the fifteen
 * ways that ask for more than clones over snapshots do.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SimulatedExternals, type SimulatedImage } from '../../sim/world/simulated-externals.js';
import { diffText, overwriteFree, split } from '../../test/support/clones.js';
import {
  MEDIA,
  pattern,
  reads,
  type SimulatedStore,
  statusText,
  type TestStore,
  withSimulatedStore,
  withStore,
} from '../../test/support/stores.js';
import { BLOCK_BYTES, MIB, SECTOR_BYTES } from '../base/units.js';
import type { SplitMode } from '../layout/tree-record.js';

const MODES: readonly SplitMode[] = ['copy', 'share'];

/** Data, then 60 MiB of nothing, then an end within a block. */
function sparseImage(): Uint8Array {
  const bytes = new Uint8Array(66 * MIB + 3 * SECTOR_BYTES);
  bytes.set(pattern(2 * MIB + 300, 1), 3 * BLOCK_BYTES);
  bytes.fill(0, MIB, MIB + 5 * BLOCK_BYTES);
  bytes.set(pattern(MIB + 3 * SECTOR_BYTES, 2), 65 * MIB);
  return bytes;
}

function dataBlocks(bytes: Uint8Array): number {
  let count = 0;
  for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
    const block = bytes.subarray(at, at + BLOCK_BYTES);
    if (Buffer.compare(block, new Uint8Array(block.length)) !== 0) count++;
  }
  return count;
}

interface Scene {
  readonly externals: SimulatedExternals;
  readonly image: SimulatedImage;
  readonly bytes: Uint8Array;
}

function newScene(bytes = sparseImage(), pause?: () => Promise<void>): Scene {
  const externals = new SimulatedExternals(pause);
  return { externals, image: externals.add('/image', bytes), bytes };
}

function inEachWay(
  name: string,
  body: (test: TestStore, mode: SplitMode, scene: Scene) => Promise<void>,
): void {
  describe(name, () => {
    for (const medium of MEDIA) {
      for (const mode of MODES) {
        test(`${medium}, ${mode}`, () => {
          const scene = newScene();
          return withStore(medium, { externals: scene.externals }, async (store) => {
            await store.store.createExternal('image', '/image');
            await body(store, mode, scene);
          });
        });
      }
    }
  });
}

inEachWay('a split takes the image in, and the file can go', async (test, mode, scene) => {
  const { externals, bytes, image } = scene;
  const { store } = test;
  const clone = await store.clone('image', 'clone');
  const model = bytes.slice();
  model.set(pattern(5000, 3), 10 * BLOCK_BYTES + 5);
  await clone.write(10 * BLOCK_BYTES + 5, pattern(5000, 3));
  await split(store, 'clone', mode);
  const { backing, mappedBytes } = store.show('clone');
  assert.equal(backing, undefined);
  assert.equal(mappedBytes, dataBlocks(bytes) * BLOCK_BYTES, 'zeros take no space');
  await store.delete('image');
  externals.images.clear();
  assert.equal(image.openCount, 0);
  await store.idle();
  await overwriteFree(store);
  await reads(clone, model);
  await test.reopen();
  await reads(test.store.vdisk('clone'), model);
  assert.deepEqual(
    test.store.list().map(({ name }) => name),
    ['clone'],
  );
});

inEachWay('what was filled is no change; what a client wrote is one', async (test, mode) => {
  const { store } = test;
  const clone = await store.clone('image', 'clone');
  await store.snapshot([{ vdisk: 'clone', snapshot: 's' }]);
  await clone.write(7 * BLOCK_BYTES, pattern(BLOCK_BYTES, 1));
  await split(store, 'clone', mode);
  assert.equal(await diffText(store, 'clone@s', 'clone'), 'data 7+1');
  const status = statusText(await store.vdisk('clone@s').blockStatus(0, 6 * BLOCK_BYTES));
  assert.equal(status, 'zero 0f 1, hole 0 2, data 0f 3');
});

inEachWay(
  'the image goes missing: a pause with the reason, and on by itself',
  async (test, mode, scene) => {
    const { image, bytes } = scene;
    let { store } = test;
    const clone = await store.clone('image', 'clone');
    image.isMissing = true;
    // What it needs cannot be counted, and a bound of it finds no room: it does not begin.
    await assert.rejects(store.split('clone', { mode }), /\/image is missing/);
    const job = await store.split('clone', { mode, isReserved: false });
    await store.idle();
    assert.equal(job.state()?.state, 'waiting');
    assert.match(job.state()?.reason ?? '', /\/image is missing/);
    assert.equal(store.show('clone').backing, 'image');
    // Still away after an open, and after a retry.
    store = await test.reopen();
    await test.clock.sleep(1500);
    await store.idle();
    assert.equal(store.show('clone').split?.state, 'waiting');
    await assert.rejects(async () => clone.read(3 * BLOCK_BYTES, new Uint8Array(10)));
    image.isMissing = false;
    await test.clock.sleep(1500);
    await store.idle();
    assert.equal(store.show('clone').split, undefined);
    await reads(store.vdisk('clone'), bytes);
  },
);

inEachWay('an undo that cannot read the image tries again by itself', async (test, mode, scene) => {
  const { image, bytes } = scene;
  await test.store.clone('image', 'clone');
  const slow = { pace: 'rate', rateBytesPerSecond: MIB } as const;
  await test.store.split('clone', { mode, isReserved: false, ...slow });
  await test.clock.sleep(500);
  await test.store.pauseSplit('clone');
  image.isMissing = true;
  const store = await test.reopen();
  assert.ok(store.show('clone').mappedBytes > 0, 'something was filled');
  await store.cancelSplit('clone', { undo: true });
  await store.idle();
  const { eventsRun } = test.clock;
  await test.clock.sleep(50_000);
  assert.ok(test.clock.eventsRun < eventsRun + 10, 'nothing spins');
  assert.equal(store.show('clone').split?.state, 'undoing');
  image.isMissing = false;
  await test.clock.sleep(20_000);
  await store.idle();
  assert.equal(store.show('clone').split, undefined);
  assert.equal(store.show('clone').backing, 'image');
  await reads(store.vdisk('clone'), bytes);
});

inEachWay('reads that fail now and then lose nothing', async (test, mode, scene) => {
  const { image, bytes } = scene;
  const { store } = test;
  await store.clone('image', 'clone');
  // Some of it is read before the first failure: the presence of both pieces, and a part of data.
  image.calls = 0;
  const job = await store.split('clone', { mode });
  let isDone = false;
  void job.done.then(() => {
    isDone = true;
  });
  for (let turn = 0; turn < 30 && !isDone; turn++) {
    image.failures = 1;
    await test.clock.sleep(400);
  }
  image.failures = 0;
  await job.done;
  await reads(store.vdisk('clone'), bytes);
});

inEachWay('clones that split together read each block once', async (test, mode, scene) => {
  const { store } = test;
  for (const name of ['a', 'b', 'c']) await store.clone('image', name);
  const before = store.stats().splitBackingBlocksRead;
  const jobs = await Promise.all(
    ['a', 'b', 'c'].map((name) => store.split(name, { mode, isReserved: false })),
  );
  await Promise.all(jobs.map(({ done }) => done));
  let present = 0;
  for (let fbn = 0; fbn * BLOCK_BYTES < scene.bytes.length; fbn++) {
    if (scene.image.hasData(fbn)) present++;
  }
  assert.equal(store.stats().splitBackingBlocksRead - before, present);
  for (const name of ['a', 'b', 'c']) await reads(store.vdisk(name), scene.bytes);
});

inEachWay(
  'a chain of trees between: some is shared, some is taken in',
  async (test, mode, scene) => {
    const { store } = test;
    const model = scene.bytes.slice();
    const between = await store.clone('image', 'between');
    for (let block = 0; block < 512; block += 3) {
      const bytes = pattern(BLOCK_BYTES, block);
      await between.write(block * BLOCK_BYTES, bytes);
      model.set(bytes, block * BLOCK_BYTES);
    }
    await store.snapshot([{ vdisk: 'between', snapshot: 's' }]);
    const clone = await store.clone('between@s', 'clone');
    await split(store, 'clone', mode);
    await reads(clone, model);
    await store.delete('between@s').catch(() => undefined);
    await split(store, 'between', mode);
    await store.idle();
    await store.delete('image');
    scene.externals.images.clear();
    await reads(clone, model);
    await reads(between, model);
  },
);

/** A small image, calls that take time, power that fails. */
function inEachWorld(
  name: string,
  seeds: readonly number[],
  body: (sim: SimulatedStore, mode: SplitMode, scene: Scene, seed: number) => Promise<void>,
): void {
  describe(name, () => {
    for (const medium of MEDIA) {
      for (const mode of MODES) {
        test(`${medium}, ${mode}`, async () => {
          for (const seed of seeds) {
            let pause = (): Promise<void> => Promise.resolve();
            const scene = newScene(pattern(2 * MIB, seed), () => pause());
            const { externals } = scene;
            await withSimulatedStore(medium, seed, { externals }, async (sim) => {
              let turn = seed;
              pause = () => sim.world.sleep((turn++ % 7) * 0.05);
              await sim.store.createExternal('image', '/image');
              await sim.store.clone('image', 'clone');
              await body(sim, mode, scene, seed);
            });
          }
        });
      }
    }
  });
}

inEachWorld(
  '1 and 2. client writes while blocks are on their way win',
  [1, 2],
  async (sim, mode, scene) => {
    const { store } = sim;
    const clone = store.vdisk('clone');
    const model = scene.bytes.slice();
    const job = await store.split('clone', { mode });
    const writes: (void | Promise<void>)[] = [];
    for (let block = 1; block < 511; block += 4) {
      // A whole block, a part of two, or zeros.
      const at = block * BLOCK_BYTES + (block % 3 === 0 ? 0 : 3000);
      const bytes = pattern(block % 3 === 0 ? BLOCK_BYTES : 2000, block);
      if (block % 5 === 0) {
        writes.push(clone.trim(at, bytes.length));
        model.fill(0, at, at + bytes.length);
      } else {
        writes.push(clone.write(at, bytes));
        model.set(bytes, at);
      }
      if (block % 3 === 0) await sim.world.sleep(0.03);
    }
    await Promise.all(writes);
    await job.done;
    await reads(clone, model);
    await sim.reopen();
    await reads(sim.store.vdisk('clone'), model);
  },
);

inEachWorld(
  '8 and 9. a cut at any moment, and on after it',
  [1, 2, 3],
  async (sim, mode, scene, seed) => {
    const model = scene.bytes.slice();
    await sim.store.split('clone', { mode });
    for (let cut = 0; cut < 6; cut++) {
      const clone = sim.store.vdisk('clone');
      const at = (cut * 80 + seed) * BLOCK_BYTES + 100;
      await clone.write(at, pattern(700, cut), { fua: true });
      model.set(pattern(700, cut), at);
      if (cut % 2 === 0) void sim.store.consistencyPoint().catch(() => undefined);
      await sim.world.sleep(0.3 + cut * seed * 0.4);
      await sim.cut(cut % 3);
      await reads(sim.store.vdisk('clone'), model);
    }
    await sim.store.idle();
    assert.equal(sim.store.show('clone').backing, undefined);
    await sim.store.delete('image');
    scene.externals.images.clear();
    await reads(sim.store.vdisk('clone'), model);
    await sim.store.close();
    await sim.check('at the end');
  },
);
