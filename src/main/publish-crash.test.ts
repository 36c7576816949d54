/**
 * Publishing, cloning, splitting, deleting and withdrawing across two stores, with a crash of who
 * does it at every call to the object store, once with its effect and once without.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VirtualClock } from '../../sim/world/virtual-clock.js';
import { CutObjectStore, type Landing } from '../../test/support/cut-object-store.js';
import { ofKind, pattern, reads } from '../../test/support/stores.js';
import { LIBRARY, TwoStores, type Which } from '../../test/support/two-stores.js';
import { BLOCK_BYTES, MIB } from '../base/units.js';
import type { Store } from './store.js';

const GOLDEN = `${LIBRARY}#golden@v1`;
const SIZE = MIB + 8 * BLOCK_BYTES;

interface Step {
  readonly who: Which;
  /** What is there before it. */
  readonly before: (two: TwoStores) => Promise<void>;
  readonly act: (store: Store) => Promise<void>;
  /** What holds when the crashed one is open again and idle. */
  readonly after: (two: TwoStores, wasAnswered: boolean) => Promise<void>;
}

function content(): Uint8Array {
  const bytes = new Uint8Array(SIZE);
  bytes.set(pattern(20 * BLOCK_BYTES, 1), 5 * BLOCK_BYTES);
  bytes.set(pattern(6 * BLOCK_BYTES, 2), MIB);
  return bytes;
}

function written(): Uint8Array {
  const bytes = content();
  bytes.set(pattern(3000, 3), 7 * BLOCK_BYTES + 11);
  return bytes;
}

async function makeGolden({ library }: TwoStores): Promise<void> {
  const golden = await library.createVdisk('golden', SIZE);
  await golden.write(5 * BLOCK_BYTES, pattern(20 * BLOCK_BYTES, 1));
  await golden.write(MIB, pattern(6 * BLOCK_BYTES, 2));
  await golden.flush();
  await library.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
  await golden.write(0, pattern(SIZE, 9), { fua: true });
}

async function publish(two: TwoStores): Promise<void> {
  await makeGolden(two);
  await two.library.publish('golden@v1');
}

async function cloneAndWrite(two: TwoStores): Promise<void> {
  await publish(two);
  const web = await two.shop.clone(GOLDEN, 'web');
  await web.write(7 * BLOCK_BYTES + 11, pattern(3000, 3), { fua: true });
}

function pins(two: TwoStores): string[] {
  return two.keys('library', 'pub/').filter((key) => key.includes('/pin/'));
}

/** Whatever happened, the publisher comes to an end of it, and nothing of it is left. */
async function withdrawn(two: TwoStores): Promise<void> {
  const { library } = two;
  if (library.show('golden@v1').published !== undefined) await library.unpublish('golden@v1');
  assert.deepEqual(two.keys('library', 'pub/'), []);
  await library.delete('golden@v1');
  await library.vdisk('golden').write(0, pattern(SIZE, 10), { fua: true });
  await library.idle();
  await reads(library.vdisk('golden'), pattern(SIZE, 10), 'the publisher goes on');
}

async function published(two: TwoStores, wasAnswered: boolean): Promise<void> {
  const { library, shop } = two;
  const isPublished = library.show('golden@v1').published !== undefined;
  assert.ok(isPublished || !wasAnswered, 'what was answered is published');
  if (isPublished) {
    await reads(await shop.clone(GOLDEN, 'web'), content(), 'a clone of it');
    await assert.rejects(library.unpublish('golden@v1'), ofKind('in-use'));
    await shop.delete('web');
    await shop.idle();
  } else {
    assert.deepEqual(two.keys('library', 'pub/'), []);
    await assert.rejects(shop.clone(GOLDEN, 'web'), ofKind('not-found'));
  }
  await withdrawn(two);
}

async function cloned(two: TwoStores, wasAnswered: boolean): Promise<void> {
  const { library, shop } = two;
  const isThere = shop.list().some(({ name }) => name === 'web');
  assert.ok(isThere || !wasAnswered, 'what was answered is there');
  if (isThere) {
    await assert.rejects(library.unpublish('golden@v1'), ofKind('in-use', 'memory/shop'));
    await reads(shop.vdisk('web'), content(), 'the clone');
    await shop.delete('web');
    await shop.idle();
  }
  assert.deepEqual(shop.list(), [], 'nothing is left of it');
  assert.deepEqual(pins(two), []);
  await withdrawn(two);
}

async function stoodAlone(two: TwoStores): Promise<void> {
  const { shop } = two;
  assert.deepEqual(
    shop.list().map(({ name, backing }) => [name, backing]),
    [['web', undefined]],
  );
  assert.deepEqual(pins(two), []);
  await withdrawn(two);
  await reads(shop.vdisk('web'), written(), 'what was split');
}

const STEPS: Readonly<Record<string, Step>> = {
  publish: {
    who: 'library',
    before: makeGolden,
    act: (store) => store.publish('golden@v1'),
    after: published,
  },
  unpublish: {
    who: 'library',
    before: publish,
    act: (store) => store.unpublish('golden@v1'),
    after: async (two, wasAnswered) => {
      const isPublished = two.library.show('golden@v1').published !== undefined;
      assert.ok(!isPublished || !wasAnswered, 'what was answered is withdrawn');
      await published(two, false);
    },
  },
  clone: {
    who: 'shop',
    before: publish,
    act: async (store) => {
      await store.clone(GOLDEN, 'web');
    },
    after: cloned,
  },
  split: {
    who: 'shop',
    before: cloneAndWrite,
    act: async (store) => {
      await (await store.split('web', { mode: 'copy' })).done;
      await store.idle();
    },
    after: async (two) => {
      // Before the split was logged the crash has left a clone: it is split now.
      if (two.shop.show('web').backing !== undefined && two.shop.splitOf('web') === undefined) {
        await reads(two.shop.vdisk('web'), written(), 'before its split');
        await (await two.shop.split('web', { mode: 'copy' })).done;
        await two.shop.idle();
      }
      await stoodAlone(two);
    },
  },
  delete: {
    who: 'shop',
    before: cloneAndWrite,
    act: async (store) => {
      await store.delete('web');
      await store.idle();
    },
    after: async (two) => {
      if (two.shop.list().some(({ name }) => name === 'web')) {
        await reads(two.shop.vdisk('web'), written(), 'it was not deleted');
        await two.shop.delete('web');
        await two.shop.idle();
      }
      assert.deepEqual(two.shop.list(), []);
      assert.deepEqual(pins(two), []);
      await withdrawn(two);
    },
  },
};

/** Crashes at this call of the step. False if the step has fewer. */
async function crashAt(
  scene: TwoStores,
  step: Step,
  call: number,
  landing: Landing,
): Promise<boolean> {
  const two = scene.copy();
  const cut = new CutObjectStore(two.objects);
  const other = step.who === 'shop' ? 'library' : 'shop';
  two[other] = await two.open(other);
  const dying = await two.open(step.who, cut);
  await dying.idle();
  cut.cutAt(call, landing);
  // Nobody waits for the dead.
  const died = new Promise<boolean>((resolve) => {
    cut.onCut = () => {
      two.clock.setTimer(1, () => resolve(false));
    };
  });
  const acted = step.act(dying).then(
    () => true,
    () => false,
  );
  const wasAnswered = await Promise.race([acted, died]);
  const { isCut } = cut;
  // What it still had under way, after it had answered, comes to nothing.
  cut.cutAt(1, 'is-lost');
  two[step.who] = await two.open(step.who);
  await two[step.who].idle();
  await step.after(two, wasAnswered);
  await two.close();
  return isCut;
}

for (const [name, step] of Object.entries(STEPS)) {
  for (const landing of ['lands', 'is-lost'] as const) {
    test(`${name}: a crash at every call, which ${landing}`, async () => {
      const clock = new VirtualClock();
      await clock.run(
        (async () => {
          const scene = await TwoStores.make(clock);
          await step.before(scene);
          await scene.library.close();
          await scene.shop.close();
          let calls = 1;
          while (await crashAt(scene, step, calls, landing)) calls++;
          assert.ok(calls > 3, `${calls} calls`);
        })(),
      );
    });
  }
}
