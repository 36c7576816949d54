import assert from 'node:assert/strict';
import { MEDIUM_KINDS, type MediumKind } from '../../sim/machine.js';
import { SimulatedExternals } from '../../sim/world/simulated-externals.js';
import { BLOCK_BYTES } from '../../src/base/units.js';
import { MeteredTarget, newVdiskMeter } from '../../src/control/metered-target.js';
import type { Clock } from '../../src/env/clock.js';
import { systemClock } from '../../src/env/system-clock.js';
import type { SplitMode } from '../../src/layout/tree-record.js';
import type { BlockTarget } from '../../src/vdisk/block-target.js';
import { openTestStore, pattern, resized, type TestStore } from '../support/stores.js';
import { blockTargetContract, TARGET_BYTES, type TargetFixture } from './block-target.js';

type Store = TestStore['store'];

type Make = (
  store: Store,
  content: Uint8Array,
  test: TestStore<Clock>,
  externals: SimulatedExternals,
) => Promise<string>;

async function fixtureOf(medium: MediumKind, make: Make): Promise<TargetFixture> {
  const externals = new SimulatedExternals(() => systemClock.yield());
  const test = await openTestStore(medium, systemClock, { externals });
  const others: TestStore<Clock>[] = [];
  const content = pattern(TARGET_BYTES, 5);
  const name = await make(test.store, content, test, externals);
  return {
    target: test.store.vdisk(name),
    content,
    settle: (promise) => promise,
    crashed: async () => {
      const other = await test.crashed();
      others.push(other);
      return other.store.vdisk(name);
    },
    pause: () => systemClock.yield(),
    end: async () => {
      for (const each of [...others, test]) {
        await each.store.idle();
        await each.store.close();
      }
      await test.check('at the end');
    },
  };
}

/** golden, larger than the targets, and a clone of it with their size. */
async function cloneOf(store: Store, content: Uint8Array): Promise<string> {
  const golden = await store.createVdisk('golden', content.length + 5000 * 512);
  await golden.write(0, resized(content, golden.sizeBytes).fill(0x11, content.length));
  await golden.write(0, content.subarray(0, 100_000));
  await store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
  await store.clone('golden@v1', 'clone');
  await store.resize('clone', content.length);
  return 'clone';
}

/** The same target as the server's clients see it. */
async function metered(making: Promise<TargetFixture>): Promise<TargetFixture> {
  const fixture = await making;
  const { crashed } = fixture;
  const wrap = (target: BlockTarget): BlockTarget =>
    new MeteredTarget(target, newVdiskMeter(), systemClock);
  return {
    ...fixture,
    target: wrap(fixture.target),
    ...(crashed === undefined ? {} : { crashed: async () => wrap(await crashed()) }),
  };
}

/** A clone of an image that is larger, with blocks of its own and of the snapshot between. */
async function cloneOfExternal(
  store: Store,
  content: Uint8Array,
  externals: SimulatedExternals,
): Promise<string> {
  const bytes = resized(content, content.length + 5000 * 512).fill(0x11, content.length);
  bytes.fill(0x22, 600_000, 700_000);
  externals.add('/image', bytes);
  await store.createExternal('image', '/image');
  const between = await store.clone('image', 'between');
  await between.write(600_000, content.subarray(600_000, 700_000));
  await between.trim(content.length, 20_000);
  await store.snapshot([{ vdisk: 'between', snapshot: 's' }]);
  const clone = await store.clone('between@s', 'clone');
  await clone.write(0, content.subarray(0, 100_000));
  await store.resize('clone', content.length);
  return 'clone';
}

for (const medium of MEDIUM_KINDS) {
  blockTargetContract(`vdisk (${medium})`, () =>
    fixtureOf(medium, async (store, content) => {
      const vdisk = await store.createVdisk('plain', content.length);
      await vdisk.write(0, content);
      return 'plain';
    }),
  );

  blockTargetContract(`metered clone in mid-split (${medium})`, () =>
    metered(
      fixtureOf(medium, async (store, content) => {
        const name = await cloneOf(store, content);
        await store.split(name, { mode: 'copy' });
        return name;
      }),
    ),
  );

  blockTargetContract(`clone (${medium})`, () => fixtureOf(medium, cloneOf));

  blockTargetContract(`clone whose split pauses (${medium})`, () =>
    fixtureOf(medium, async (store, content, test) => {
      const name = await cloneOf(store, content);
      // Three blocks cannot be read for a while: the split stays as it is, holes between fills.
      const rot = (): void => {
        for (const block of [1, 255, 513]) {
          test.rot(content.subarray(block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES));
        }
      };
      rot();
      const job = await store.split(name, { mode: 'copy' });
      await store.idle();
      assert.equal(job.state()?.state, 'waiting');
      await store.pauseSplit(name);
      rot();
      return name;
    }),
  );

  blockTargetContract(`clone of an external image (${medium})`, () =>
    fixtureOf(medium, (store, content, _, externals) => {
      return cloneOfExternal(store, content, externals);
    }),
  );

  for (const mode of ['copy', 'share'] satisfies SplitMode[]) {
    blockTargetContract(`clone of an external image in mid-split (${medium}, ${mode})`, () =>
      fixtureOf(medium, async (store, content, _, externals) => {
        const name = await cloneOfExternal(store, content, externals);
        await store.split(name, { mode });
        return name;
      }),
    );

    blockTargetContract(`split clone of an external image (${medium}, ${mode})`, () =>
      fixtureOf(medium, async (store, content, _, externals) => {
        const name = await cloneOfExternal(store, content, externals);
        await (await store.split(name, { mode })).done;
        assert.equal(store.show(name).backing, undefined);
        return name;
      }),
    );

    blockTargetContract(`clone in mid-split (${medium}, ${mode})`, () =>
      fixtureOf(medium, async (store, content) => {
        const name = await cloneOf(store, content);
        await store.split(name, { mode });
        return name;
      }),
    );

    blockTargetContract(`split clone (${medium}, ${mode})`, () =>
      fixtureOf(medium, async (store, content) => {
        const name = await cloneOf(store, content);
        await (await store.split(name, { mode })).done;
        return name;
      }),
    );
  }
}
