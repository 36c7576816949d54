/** Clones over an external backing store: what they read; what goes on when it cannot be read. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SimulatedExternals, type SimulatedImage } from '../../sim/world/simulated-externals.js';
import { diffText } from '../../test/support/clones.js';
import {
  MEDIA,
  ofKind,
  pattern,
  readAll,
  reads,
  resized,
  same,
  statusText,
  type TestStore,
  withStore,
} from '../../test/support/stores.js';
import { BLOCK_BYTES, MIB, SECTOR_BYTES } from '../base/units.js';

/** Data, zeros, data, and an end within a block. */
function imageBytes(): Uint8Array {
  const bytes = new Uint8Array(3 * MIB + 5 * SECTOR_BYTES);
  bytes.set(pattern(40 * BLOCK_BYTES + 100, 1), 10 * BLOCK_BYTES);
  bytes.set(pattern(5 * SECTOR_BYTES + BLOCK_BYTES, 2), 3 * MIB - BLOCK_BYTES);
  return bytes;
}

interface Scene {
  readonly test: TestStore;
  readonly image: SimulatedImage;
  readonly bytes: Uint8Array;
}

async function withExternal(
  medium: (typeof MEDIA)[number],
  body: (scene: Scene) => Promise<void>,
): Promise<void> {
  const externals = new SimulatedExternals();
  const bytes = imageBytes();
  const image = externals.add('/debian', bytes);
  await withStore(medium, { externals }, async (test) => {
    await test.store.createExternal('debian', '/debian');
    await body({ test, image, bytes });
  });
  assert.equal(image.openCount, 0, 'closed with the store');
}

for (const medium of MEDIA) {
  test(`it reads as its image, and so does a clone (${medium})`, async () => {
    await withExternal(medium, async ({ test, bytes }) => {
      const { store } = test;
      await reads(store.vdisk('debian'), bytes);
      await reads(await store.clone('debian', 'a'), bytes);
      const odd = new Uint8Array(30_001).fill(0xaa);
      await store.vdisk('a').read(9 * BLOCK_BYTES + 7, odd);
      same(odd, bytes.subarray(9 * BLOCK_BYTES + 7).subarray(0, odd.length), 'at any alignment');
      const { kind, external, sizeBytes, holders } = store.show('debian');
      assert.deepEqual([kind, sizeBytes, holders], ['external', bytes.length, ['a']]);
      assert.deepEqual(external, { format: 'raw', files: ['/debian'], trouble: undefined });
      assert.equal(store.show('a').backing, 'debian');
    });
  });

  test(`clones, their snapshots and clones of these are apart (${medium})`, async () => {
    await withExternal(medium, async ({ test, bytes }) => {
      const { store } = test;
      const a = await store.clone('debian', 'a');
      const model = bytes.slice();
      const write = async (offset: number, length: number): Promise<void> => {
        const data = pattern(length, offset);
        await a.write(offset, data);
        model.set(data, offset);
      };
      await write(12 * BLOCK_BYTES + 9, 100); // a part of a block of the file
      await write(20 * BLOCK_BYTES - 5, BLOCK_BYTES + 10); // parts at both ends
      await write(2 * MIB + 17, 5); // a part of a block of zeros
      await write(MIB - 100, 300_000);
      await a.trim(30 * BLOCK_BYTES + 1, 3 * BLOCK_BYTES);
      model.fill(0, 30 * BLOCK_BYTES + 1, 33 * BLOCK_BYTES + 1);
      await reads(a, model);
      await store.snapshot([{ vdisk: 'a', snapshot: 's' }]);
      const b = await store.clone('a@s', 'b');
      await b.write(40 * BLOCK_BYTES + 50, pattern(70, 9));
      await reads(store.vdisk('a@s'), model);
      await reads(a, model);
      model.set(pattern(70, 9), 40 * BLOCK_BYTES + 50);
      await reads(b, model);
      await reads(await store.clone('debian', 'c'), bytes);
      await test.reopen();
      await reads(test.store.vdisk('b'), model);
      await reads(test.store.vdisk('c'), bytes);
      // A tree in between goes: what it did not have is still read from the file.
      const again = test.store.vdisk('b');
      await test.store.snapshot([{ vdisk: 'b', snapshot: 't' }]);
      await again.write(15 * BLOCK_BYTES + 1, pattern(40, 8));
      model.set(pattern(40, 8), 15 * BLOCK_BYTES + 1);
      await test.store.delete('b@t');
      await test.store.idle();
      assert.equal(test.store.show('b').backing, 'a@s');
      await reads(again, model);
    });
  });

  test(`a crash at once leaves it whole, with its clone (${medium})`, async () => {
    await withExternal(medium, async ({ test, bytes }) => {
      const clone = await test.store.clone('debian', 'a');
      await clone.write(11 * BLOCK_BYTES + 3, pattern(10, 3), { fua: true });
      const other = await test.crashed();
      const model = bytes.slice();
      model.set(pattern(10, 3), 11 * BLOCK_BYTES + 3);
      await reads(other.store.vdisk('a'), model);
      await reads(other.store.vdisk('debian'), bytes);
      await other.store.close();
      await other.check('after the crash');
    });
  });

  test(`what cannot be read fails; what need not be read goes on (${medium})`, async () => {
    await withExternal(medium, async ({ test, image, bytes }) => {
      let { store } = test;
      const model = bytes.slice();
      const own = pattern(BLOCK_BYTES, 4);
      await (await store.clone('debian', 'a')).write(12 * BLOCK_BYTES, own);
      model.set(own, 12 * BLOCK_BYTES);
      image.isMissing = true;
      store = await test.reopen();
      const a = store.vdisk('a');
      const missing = ofKind('device', '/debian is missing');
      const into = new Uint8Array(BLOCK_BYTES);
      await assert.rejects(async () => a.read(11 * BLOCK_BYTES, into), missing);
      await assert.rejects(async () => a.read(0, into), missing, 'nobody knows what is a hole');
      await assert.rejects(async () => a.write(11 * BLOCK_BYTES + 1, into), missing);
      await assert.rejects(async () => a.trim(11 * BLOCK_BYTES + 1, 10), missing);
      await a.read(12 * BLOCK_BYTES, into);
      same(into, own, 'a block of its own');
      const whole = pattern(20 * BLOCK_BYTES, 5);
      await a.write(60 * BLOCK_BYTES, whole);
      model.set(whole, 60 * BLOCK_BYTES);
      await a.trim(20 * BLOCK_BYTES, 2 * BLOCK_BYTES);
      model.fill(0, 20 * BLOCK_BYTES, 22 * BLOCK_BYTES);
      assert.match(store.show('debian').external?.trouble ?? '', /is missing/);
      await store.snapshot([{ vdisk: 'a', snapshot: 's' }]);
      await store.clone('debian', 'b');
      await store.delete('b');
      image.isMissing = false;
      await reads(a, model, 'when it is back');
      assert.equal(store.show('debian').external?.trouble, undefined);
      image.version++;
      await assert.rejects(
        async () => a.read(11 * BLOCK_BYTES, into),
        ofKind('corrupt', 'changed'),
      );
    });
  });

  test(`status, diff and scan know what the image has (${medium})`, async () => {
    await withExternal(medium, async ({ test, image, bytes }) => {
      const { store } = test;
      const a = await store.clone('debian', 'a');
      const status = statusText(await a.blockStatus(9 * BLOCK_BYTES, 46 * BLOCK_BYTES));
      // Block 9 and 51 and 54 are zeros that the image says to have data.
      assert.equal(status, 'data 1 43, hole 0 2, data 1 1');
      const direct = statusText(await store.vdisk('debian').blockStatus(0, 10 * BLOCK_BYTES));
      assert.equal(direct.slice(0, 30), 'data 0 1, hole 0 2, data 0 1, ');
      assert.match(await diffText(store, undefined, 'a'), /^data 0\+1, data 3\+1, .* data 9\+43, /);
      await store.snapshot([{ vdisk: 'a', snapshot: 's' }]);
      await a.write(700 * BLOCK_BYTES, pattern(BLOCK_BYTES, 1));
      assert.equal(await diffText(store, 'a@s', 'a'), 'data 700+1');
      let count = 0;
      for (let fbn = 0; fbn * BLOCK_BYTES < bytes.length; fbn++) if (image.hasData(fbn)) count++;
      const { readThroughBytes } = await store.scan('a');
      assert.equal(readThroughBytes, count * BLOCK_BYTES);
    });
  });

  test(`what it refuses, and what holds it (${medium})`, async () => {
    await withExternal(medium, async ({ test, image, bytes }) => {
      const { store } = test;
      const it = store.vdisk('debian');
      const sector = new Uint8Array(SECTOR_BYTES);
      await assert.rejects(async () => it.write(0, sector), ofKind('read-only', 'external'));
      await assert.rejects(async () => it.trim(0, 512), ofKind('read-only', 'external'));
      await assert.rejects(store.resize('debian', MIB), ofKind('read-only', 'external'));
      const snapshot = store.snapshot([{ vdisk: 'debian', snapshot: 's' }]);
      await assert.rejects(snapshot, ofKind('invalid', 'debian is external: clone it'));
      await assert.rejects(store.split('debian', { mode: 'copy' }), ofKind('invalid'));
      await assert.rejects(store.createExternal('debian', '/debian'), ofKind('exists'));
      await assert.rejects(store.createExternal('other', '/other'), ofKind('not-found'));
      const a = await store.clone('debian', 'a');
      await assert.rejects(store.delete('debian'), ofKind('in-use', 'another (a reads'));
      await store.rename('debian', 'sid');
      await reads(a, bytes);
      await test.reopen();
      assert.equal(test.store.show('a').backing, 'sid');
      await test.store.delete('a');
      await test.store.delete('sid');
      assert.equal(image.openCount, 0);
      await test.store.idle();
      assert.deepEqual(test.store.list(), []);
    });
  });

  test(`grown and cut clones: zeros behind what they ever read (${medium})`, async () => {
    await withExternal(medium, async ({ test, bytes }) => {
      const { store } = test;
      const a = await store.clone('debian', 'a');
      await store.resize('a', 4 * MIB);
      await reads(a, resized(bytes, 4 * MIB));
      const cut = 14 * BLOCK_BYTES + 3 * SECTOR_BYTES;
      await store.resize('a', cut);
      await store.resize('a', 2 * MIB);
      await reads(a, resized(bytes.subarray(0, cut), 2 * MIB));
      assert.equal((await readAll(store.vdisk('debian'))).length, bytes.length);
    });
  });
}
