/**
 * A clone and a withdrawal at the same time: at every call of the one the other comes in between,
 * whole. Either there is a clone, which reads what was published for as long as it needs; or it was
 * withdrawn. Never both.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VirtualClock } from '../../sim/world/virtual-clock.js';
import { CutObjectStore } from '../../test/support/cut-object-store.js';
import { pattern, reads } from '../../test/support/stores.js';
import { LIBRARY, TwoStores, type Which } from '../../test/support/two-stores.js';
import { isStoreError } from '../base/store-error.js';
import { BLOCK_BYTES } from '../base/units.js';
import type { Store } from './store.js';

const GOLDEN = `${LIBRARY}#golden@v1`;
const SIZE = 40 * BLOCK_BYTES;

const ACTS: Readonly<Record<Which, (store: Store) => Promise<unknown>>> = {
  library: (store) => store.unpublish('golden@v1'),
  shop: (store) => store.clone(GOLDEN, 'web'),
};

/** Undefined: it was done. */
async function refusalOf(act: Promise<unknown>): Promise<string | undefined> {
  try {
    await act;
    return undefined;
  } catch (error) {
    if (!isStoreError(error)) throw error;
    return error.kind;
  }
}

/** True if the interrupted one has made so many calls. */
async function raceAt(scene: TwoStores, first: Which, call: number): Promise<boolean> {
  const second = first === 'shop' ? 'library' : 'shop';
  const two = scene.copy();
  const slow = new CutObjectStore(two.objects);
  two[second] = await two.open(second);
  two[first] = await two.open(first, slow);
  await two[first].idle();
  slow.cutAt(call, 'goes-on');
  let other: Promise<string | undefined> | undefined;
  slow.onCut = async () => {
    other = refusalOf(ACTS[second](two[second]));
    await other;
  };
  const refusals = { [first]: await refusalOf(ACTS[first](two[first])), [second]: await other };
  if (!slow.isCut) {
    await two.close();
    return false;
  }
  const isCloned = refusals.shop === undefined;
  const isWithdrawn = refusals.library === undefined;
  assert.ok(!(isCloned && isWithdrawn), `call ${call} of ${first}: cloned, and withdrawn`);
  if (!isCloned) assert.equal(refusals.shop, 'not-found');
  if (!isWithdrawn) assert.equal(refusals.library, 'in-use');
  await afterRace(two, isCloned);
  return true;
}

async function afterRace(two: TwoStores, isCloned: boolean): Promise<void> {
  const { library, shop } = two;
  // Everything that may be deleted is.
  if (!isCloned && library.show('golden@v1').published !== undefined) {
    await shop.idle();
    await library.unpublish('golden@v1');
  }
  await library.vdisk('golden').write(0, pattern(SIZE, 2), { fua: true });
  if (!isCloned) await library.delete('golden@v1');
  await library.idle();
  await library.consistencyPoint();
  await library.consistencyPoint();
  if (isCloned) await reads(shop.vdisk('web'), pattern(SIZE, 1), 'the clone');
  else assert.deepEqual(shop.list(), []);
  await two.close();
}

for (const first of ['shop', 'library'] as const) {
  const name =
    first === 'shop'
      ? 'a withdrawal in every moment of a clone'
      : 'a clone in every moment of a withdrawal';
  test(name, async () => {
    const clock = new VirtualClock();
    await clock.run(
      (async () => {
        const scene = await TwoStores.make(clock);
        const golden = await scene.library.createVdisk('golden', SIZE);
        await golden.write(0, pattern(SIZE, 1), { fua: true });
        await scene.library.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
        await scene.library.publish('golden@v1');
        await scene.library.close();
        await scene.shop.close();
        let calls = 1;
        while (await raceAt(scene, first, calls)) calls++;
        assert.ok(calls > 5, `${calls} calls`);
      })(),
    );
  });
}
