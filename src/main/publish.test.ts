/** Snapshots that one store publishes and another clones, reads, splits; and their end. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ofKind, pattern, readAll, reads, same } from '../../test/support/stores.js';
import { LIBRARY, type TwoStores, withTwoStores } from '../../test/support/two-stores.js';
import { BLOCK_BYTES, MIB } from '../base/units.js';
import { toHex } from '../layout/bytes.js';
import { checkStore } from './check.js';
import type { Store } from './store.js';

const GOLDEN = `${LIBRARY}#golden@v2`;
const SIZE = 5 * MIB + 512;

/** golden@v2 over golden@v1: data, holes, zeros, an end within a block, a limit within a block. */
async function makeGolden(library: Store): Promise<Uint8Array> {
  const golden = await library.createVdisk('golden', 7 * MIB);
  const model = new Uint8Array(7 * MIB);
  const write = async (offset: number, length: number, seed: number): Promise<void> => {
    const bytes = pattern(length, seed);
    await golden.write(offset, bytes);
    model.set(bytes, offset);
  };
  await write(0, 2 * MIB + 100, 1);
  await write(4 * MIB + 300, 3 * MIB - 300, 2);
  await library.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
  // Cut within a block, and grown again: what was behind must not come back.
  await library.resize('golden', 4 * MIB + 10 * BLOCK_BYTES + 512);
  model.fill(0, 4 * MIB + 10 * BLOCK_BYTES + 512);
  await library.resize('golden', SIZE);
  await golden.trim(MIB, 20 * BLOCK_BYTES);
  model.fill(0, MIB, MIB + 20 * BLOCK_BYTES);
  await write(3 * MIB + 17, 5000, 3);
  await library.snapshot([{ vdisk: 'golden', snapshot: 'v2' }]);
  await golden.write(0, pattern(MIB, 4), { fua: true });
  const bytes = model.slice(0, SIZE);
  await reads(library.vdisk('golden@v2'), bytes);
  return bytes;
}

async function published({ library }: TwoStores): Promise<Uint8Array> {
  const bytes = await makeGolden(library);
  await library.publish('golden@v2');
  return bytes;
}

test('a clone of what another store has published reads as it, and is written apart', async () => {
  await withTwoStores(async (two) => {
    const bytes = await published(two);
    const { library, shop } = two;
    const clone = await shop.clone(GOLDEN, 'web');
    await reads(clone, bytes);
    const odd = new Uint8Array(30_001).fill(0xaa);
    await clone.read(4 * MIB + 1001, odd);
    same(odd, bytes.subarray(4 * MIB + 1001).subarray(0, odd.length), 'at any alignment');
    const own = bytes.slice();
    await clone.write(3 * MIB - 5, pattern(9000, 9));
    own.set(pattern(9000, 9), 3 * MIB - 5);
    await clone.trim(8192, 8192);
    own.fill(0, 8192, 16384);
    await reads(clone, own);
    await reads(library.vdisk('golden@v2'), bytes, 'the published snapshot');
    const backing = shop.show('web').backing ?? '';
    assert.match(backing, /^golden-v2-[0-9a-f]{8}$/);
    const info = shop.show(backing);
    assert.deepEqual([info.kind, info.external?.format], ['external', 'published']);
    assert.equal(library.show('golden@v2').published, 'golden@v2');
    const hash = toHex(await shop.contentHash(backing));
    assert.equal(hash, toHex(await library.contentHash('golden@v2')), 'by their content hashes');
    two.shop = await reopened(two, 'shop');
    await reads(two.shop.vdisk('web'), own, 'after a restart');
  });
});

async function reopened(two: TwoStores, which: 'library' | 'shop'): Promise<Store> {
  await two[which].close();
  return two.open(which);
}

test('the store that published may be closed, changed, merged and cleaned', async () => {
  await withTwoStores(
    async (two) => {
      const bytes = await published(two);
      const clone = await two.shop.clone(GOLDEN, 'web');
      await reads(clone, bytes);
      await two.library.close();
      await reads(await two.shop.clone(GOLDEN, 'web2'), bytes, 'without its server');
      two.library = await two.open('library');
      const { library } = two;
      // What is behind it is merged into it, and everything is placed anew and let go of.
      await library.delete('golden@v1');
      for (let round = 0; round < 6; round++) {
        await library.vdisk('golden').write(0, pattern(4 * MIB, 50 + round), { fua: true });
        await library.consistencyPoint();
        await library.idle();
      }
      await library.consistencyPoint();
      two.shop = await reopened(two, 'shop');
      await reads(two.shop.vdisk('web'), bytes, 'from the records as they were');
      two.library = await reopened(two, 'library');
      await two.library.vdisk('golden').write(0, pattern(4 * MIB, 99), { fua: true });
      await two.library.consistencyPoint();
      await two.library.idle();
      two.shop = await reopened(two, 'shop');
      await reads(two.shop.vdisk('web'), bytes, 'after the publisher has opened again');
    },
    { cleaner: { liveRatioMin: 0.9, deadBlocksMin: 16, blocksPerCp: 4096 } },
  );
});

test('records in which only others read stay until it is withdrawn: they are no orphans', async () => {
  const sweep = { intervalMs: 60_000, graceMs: 1000 };
  const body = async (two: TwoStores): Promise<void> => {
    const { library, shop } = two;
    const golden = await library.createVdisk('golden', 7 * MIB);
    const bytes = new Uint8Array(7 * MIB);
    for (const snapshot of ['v1', 'v2']) {
      const at = snapshot === 'v1' ? 0 : MIB;
      const data = pattern(2 * MIB - at, at);
      // A record for each MiB: all of the second one dies with v1.
      for (let done = 0; done < data.length; done += MIB) {
        await golden.write(at + done, data.subarray(done, done + MIB), { fua: true });
      }
      bytes.set(data, at);
      await library.snapshot([{ vdisk: 'golden', snapshot }]);
    }
    await library.publish('golden@v2');
    // Takes in what is behind it: the indirect blocks that others read are its own no more.
    await library.delete('golden@v1');
    for (let round = 0; round < 4; round++) {
      await golden.write(0, pattern(4 * MIB, 50 + round), { fua: true });
      await library.consistencyPoint();
      await library.idle();
    }
    await library.consistencyPoint();
    await two.clock.sleep(4 * sweep.intervalMs);
    assert.ok(library.stats().sweep !== undefined && library.stats().sweep?.sweeps !== 0);
    const { orphans } = await checkStore({
      kind: 'objects',
      objects: two.objects,
      prefix: 'library',
    });
    assert.deepEqual(orphans.keys, []);
    await two.check('after sweeps');
    await reads(await shop.clone(GOLDEN, 'web'), bytes);
    await shop.delete('web');
    await shop.idle();
    const before = two.keys('library', 'log/');
    await library.unpublish('golden@v2');
    const after = new Set(two.keys('library', 'log/'));
    assert.ok(
      before.some((key) => !after.has(key)),
      'then what is dead is deleted',
    );
  };
  await withTwoStores(body, { sweep });
});

test('a split ends the reading, gives the pin back, and then it can be withdrawn', async () => {
  await withTwoStores(async (two) => {
    const bytes = await published(two);
    const { library, shop } = two;
    const clone = await shop.clone(GOLDEN, 'web');
    await clone.write(MIB + 5, pattern(100, 5));
    bytes.set(pattern(100, 5), MIB + 5);
    assert.equal(two.keys('library', 'pub/golden@v2/').length, 4, 'two lists, ready, one pin');
    const backing = shop.show('web').backing ?? '';
    await assert.rejects(library.unpublish('golden@v2'), (error) => {
      return ofKind('in-use', 'memory/shop as golden-v2-')(error);
    });
    await assert.rejects(library.delete('golden@v2'), ofKind('in-use', 'unpublish it first'));
    await assert.rejects(shop.split('web', { mode: 'share' }), ofKind('invalid', 'across stores'));
    await assert.rejects(shop.delete(backing), ofKind('in-use', 'web'));
    await (await shop.split('web', { mode: 'copy' })).done;
    await shop.idle();
    assert.equal(shop.show('web').backing, undefined);
    assert.deepEqual(
      shop.list().map(({ name }) => name),
      ['web'],
      'its backing store has gone',
    );
    assert.deepEqual(two.keys('library', 'pub/golden@v2/').filter(isPin), []);
    const logBefore = two.keys('library', 'log/').length;
    await library.delete('golden@v1');
    await library.unpublish('golden@v2');
    assert.deepEqual(two.keys('library', 'pub/'), []);
    await library.delete('golden@v2');
    await library.idle();
    await library.delete('golden');
    await library.idle();
    await library.consistencyPoint();
    await library.consistencyPoint();
    assert.ok(two.keys('library', 'log/').length < logBefore, 'its records are deleted');
    await reads(shop.vdisk('web'), bytes, 'it stands alone');
    const { refutations } = (await shop.verify('web')).certificate;
    assert.equal(refutations, 0);
    await assert.rejects(shop.clone(GOLDEN, 'late'), ofKind('not-found', 'has not published'));
  });
});

function isPin(key: string): boolean {
  return key.includes('/pin/');
}

test('deleting the last clone gives the pin back; the others share one', async () => {
  await withTwoStores(async (two) => {
    await published(two);
    const { library, shop } = two;
    await shop.clone(GOLDEN, 'a');
    await shop.clone(GOLDEN, 'b');
    const backing = shop.show('a').backing ?? '';
    await shop.clone(backing, 'c');
    assert.equal(two.keys('library', 'pub/').filter(isPin).length, 1);
    const [info] = await library.publications();
    assert.deepEqual(info?.holders, [{ store: 'memory/shop', name: backing }]);
    await shop.delete('a');
    await shop.snapshot([{ vdisk: 'b', snapshot: 's' }]);
    await shop.delete('c');
    await shop.idle();
    await assert.rejects(library.unpublish('golden@v2'), ofKind('in-use'));
    await shop.delete('b', { inUse: 'defer' });
    await shop.idle();
    assert.equal(two.keys('library', 'pub/').filter(isPin).length, 0);
    await library.unpublish('golden@v2');
    assert.deepEqual(await library.publications(), []);
  });
});

test('what cannot be published or cloned is refused with the reason', async () => {
  await withTwoStores(async (two) => {
    await published(two);
    const { library, shop } = two;
    await assert.rejects(library.publish('golden'), ofKind('invalid', 'no snapshot'));
    await assert.rejects(library.publish('golden@v2'), ofKind('exists', 'already'));
    await assert.rejects(library.unpublish('golden@v1'), ofKind('invalid', 'not published'));
    await assert.rejects(library.clone(GOLDEN, 'x'), ofKind('invalid', 'this store itself'));
    await assert.rejects(shop.clone(`${LIBRARY}#golden@v1`, 'x'), ofKind('not-found'));
    await assert.rejects(shop.clone(`${LIBRARY}#golden`, 'x'), ofKind('invalid', 'STORE#VDISK'));
    await shop.clone(GOLDEN, 'web');
    await shop.snapshot([{ vdisk: 'web', snapshot: 's' }]);
    await assert.rejects(shop.publish('web@s'), ofKind('invalid', 'outside of this store'));
    await assert.rejects(shop.relocate(shop.show('web').backing ?? '', '/x'), ofKind('invalid'));
    await library.delete('golden', { inUse: 'defer' }).then(
      () => assert.fail('a vdisk with a published snapshot was deleted'),
      (error: unknown) => assert.ok(ofKind('in-use', 'unpublish')(error)),
    );
    await library.rename('golden', 'silver');
    assert.equal(library.show('silver@v2').published, 'golden@v2', 'the name that others know');
    await shop.clone(GOLDEN, 'web2');
  });
});

test('pins of a store that is gone for good can be taken away', async () => {
  await withTwoStores(async (two) => {
    const bytes = await published(two);
    const { library, shop } = two;
    const clone = await shop.clone(GOLDEN, 'web');
    await reads(clone, bytes);
    await library.unpublish('golden@v2', { dropHolders: true });
    assert.deepEqual(two.keys('library', 'pub/'), []);
    two.shop = await reopened(two, 'shop');
    // Never zeros in place of what was lost.
    await assert.rejects(readAll(two.shop.vdisk('web')), ofKind('device', 'withdrawn'));
    await two.shop.delete('web');
    await two.shop.idle();
    assert.deepEqual(two.shop.list(), []);
  });
});

function indexOf(bytes: Uint8Array | undefined, needle: Uint8Array): number {
  return bytes === undefined ? -1 : Buffer.from(bytes).indexOf(Buffer.from(needle));
}

test('the check names what others would miss', async () => {
  await withTwoStores(async (two) => {
    await published(two);
    await two.library.close();
    const at = { kind: 'objects', objects: two.objects, prefix: 'library' } as const;
    assert.deepEqual((await checkStore(at)).faults, []);
    for (const part of ['manifest', 'records']) {
      const key = two.keys('library', 'pub/').find((each) => each.endsWith(part)) ?? '';
      two.objects.objects.flipBit(key, 20, 3);
      const [fault, ...others] = (await checkStore(at)).faults;
      assert.deepEqual([fault?.kind, others], ['record', []]);
      assert.match(fault?.message ?? '', /publication [0-9a-f]{8} of golden@v2: .*damaged/);
      two.objects.objects.flipBit(key, 20, 3);
    }
    two.library = await two.open('library');
  });
});

test('a damaged record is found by its checksums', async () => {
  await withTwoStores(async (two) => {
    await published(two);
    const clone = await two.shop.clone(GOLDEN, 'web');
    const needle = pattern(2 * MIB, 1).subarray(100 * BLOCK_BYTES, 101 * BLOCK_BYTES);
    const flip = (): void => {
      for (const key of two.keys('library', 'log/')) {
        const at = indexOf(two.objects.objects.get(key), needle.subarray(8));
        if (at >= 0) two.objects.objects.flipBit(key, at - 8, 0);
      }
    };
    flip();
    const into = new Uint8Array(BLOCK_BYTES);
    const read = async (): Promise<void> => clone.read(100 * BLOCK_BYTES, into);
    await assert.rejects(read, ofKind('corrupt', 'damaged'));
    flip();
    await clone.read(100 * BLOCK_BYTES, into);
    same(into, needle, 'and read when it is sound again');
  });
});
