/**
 * The objects that say where a store begins (id, epochs, the index of consistency points) have no
 * checksum: any one wrong bit in them is refused, or does no harm. Never an older store is opened.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ofKind } from '../../test/support/stores.js';
import { isStoreError } from '../base/store-error.js';
import { BLOCK_BYTES, MIB } from '../base/units.js';
import { MemoryObjectStore } from '../env/memory-object-store.js';
import { seededRandom } from '../env/seeded-random.js';
import { formatStore, openStore } from './open-store.js';
import type { Store } from './store.js';

const NEWEST = 30;

/** Nothing is ever deleted, as when each delete was cut off: old consistency points are there. */
class Hoard extends MemoryObjectStore {
  override delete(): Promise<void> {
    return Promise.resolve();
  }
}

function open(objects: MemoryObjectStore): Promise<Store> {
  const source = { kind: 'objects', objects, prefix: 'store' } as const;
  return openStore(source, {
    memoryBytes: 4 * MIB,
    cpIntervalMs: 2 ** 30,
    alone: true,
    random: seededRandom(1),
  });
}

/** What the store holds, in the first byte of each vdisk's first block; undefined: refused. */
async function valueIn(objects: MemoryObjectStore): Promise<number | undefined> {
  try {
    const store = await open(objects);
    const into = new Uint8Array(1);
    await store.vdisk('disk').read(0, into);
    return into[0];
  } catch (error) {
    assert.ok(isStoreError(error) && ofKind('corrupt')(error), String(error));
    return undefined;
  }
}

test('every bit of every small object: refused as corrupt, or the newest content', async () => {
  const all = new Hoard();
  const options = { sizeBytes: 64 * MIB, random: seededRandom(2) };
  await formatStore({ kind: 'objects', objects: all, prefix: 'store' }, options);
  const store = await open(all);
  const disk = await store.createVdisk('disk', MIB);
  // Nobody flushes: only the consistency points have it.
  for (let value = 1; value <= NEWEST; value++) {
    await disk.write(0, Buffer.alloc(BLOCK_BYTES, value));
    await store.consistencyPoint();
  }
  let refused = 0;
  for (const key of all.objects.list('store/')) {
    if (key.includes('/log/')) continue;
    const bits = (all.objects.get(key)?.length ?? 0) * 8;
    for (let bit = 0; bit < bits; bit++) {
      const copy = all.duplicate();
      copy.objects.flipBit(key, bit >>> 3, bit & 7);
      const value = await valueIn(copy);
      if (value === undefined) refused++;
      else assert.equal(value, NEWEST, `${key}, bit ${bit}: content of another time`);
    }
  }
  assert.ok(refused > 300, `${refused} refused`);
});
