/** Clones and snapshots: what they read, and what is said of them: status, difference, sizes. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { diffText, makeClones, sparsePattern, split } from '../../test/support/clones.js';
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
import { BLOCK_BYTES, GIB, MIB } from '../base/units.js';
import { seededRandom } from '../env/seeded-random.js';

function onEachMedium(name: string, body: (test: TestStore) => Promise<void>): void {
  for (const medium of MEDIA) test(`${name} (${medium})`, () => withStore(medium, {}, body));
}

const blocks = (count: number): number => count * BLOCK_BYTES;

/** Settles what is counted by consistency points. */
async function settle(store: TestStore['store']): Promise<void> {
  await store.idle();
  await store.consistencyPoint();
  await store.consistencyPoint();
}

describe('clones', () => {
  onEachMedium('a chain of depth ten, each with its own writes and zeros', async (t) => {
    let { store } = t;
    const size = MIB + blocks(40) + 1024;
    const model = new Uint8Array(size);
    const random = seededRandom(10);
    const models: Uint8Array[] = [];
    let name = 'c0';
    let disk = await store.createVdisk(name, size);
    for (let depth = 0; depth < 10; depth++) {
      for (let count = 0; count < 12; count++) {
        const length = 1 + random.below(blocks(6));
        const offset = random.below(size - length);
        const bytes = random.chance(0.3)
          ? new Uint8Array(length)
          : pattern(length, random.nextU32());
        if (bytes.every((byte) => byte === 0)) await disk.trim(offset, length);
        else await disk.write(offset, bytes);
        model.set(bytes, offset);
      }
      models.push(model.slice());
      await store.snapshot([{ vdisk: name, snapshot: 's' }]);
      disk = await store.clone(`${name}@s`, `c${depth + 1}`);
      name = `c${depth + 1}`;
    }
    const check = async (when: string): Promise<void> => {
      for (const [depth, bytes] of models.entries()) {
        await reads(store.vdisk(`c${depth}`), bytes, `c${depth} ${when}`);
        await reads(store.vdisk(`c${depth + 1}`), models[Math.min(9, depth + 1)] as Uint8Array);
      }
    };
    await check('warm');
    store = await t.reopen();
    await check('cold');
    // Every snapshot in between has two over it; without its vdisk it merges.
    for (let depth = 0; depth < 10; depth++)
      await store.delete(`c${depth}@s`).catch(() => undefined);
    assert.equal(store.show('c3').backing, 'c3@s');
    await settle(store);
    await check('after deletes that are refused');
  });

  onEachMedium('deletes in any order give everything back', async ({ store }) => {
    for (const order of ['abc', 'acb', 'bac', 'bca', 'cab', 'cba']) {
      const base = pattern(blocks(300), 1);
      await makeClones(store, base);
      const contents = new Map<string, Uint8Array>();
      for (const name of ['a', 'b', 'c']) {
        const clone = await store.clone('golden@v1', name);
        await clone.write(blocks(name.charCodeAt(0)), pattern(5000, name.charCodeAt(0)));
        const content = base.slice();
        content.set(pattern(5000, name.charCodeAt(0)), blocks(name.charCodeAt(0)));
        contents.set(name, content);
      }
      await store.delete('golden@v1').then(
        () => assert.fail('it has four over it'),
        (error: unknown) => assert.ok(ofKind('in-use', '(a reads ')(error)),
      );
      for (const name of order) {
        await store.delete(name);
        contents.delete(name);
        await store.idle();
        for (const [left, bytes] of contents)
          await reads(store.vdisk(left), bytes, `${left} ${order}`);
        await reads(store.vdisk('golden'), base);
      }
      // One is left over it: it merges, and golden stands alone.
      await store.delete('golden@v1');
      await settle(store);
      assert.equal(store.show('golden').backing, undefined);
      assert.equal(store.show('golden').mappedBytes, base.length);
      await reads(store.vdisk('golden'), base, order);
      await store.delete('golden');
      await settle(store);
    }
    assert.deepEqual(store.list(), []);
  });

  onEachMedium('a clone outlives vdisk and snapshot: it takes over what it reads', async (t) => {
    const { store } = t;
    const base = pattern(blocks(600) + 512, 1);
    await makeClones(store, base, 'c');
    await store.resize('c', blocks(300) + 1024);
    const model = resized(base, blocks(300) + 1024);
    const clone = store.vdisk('c');
    await clone.write(blocks(3), pattern(blocks(2), 2));
    model.set(pattern(blocks(2), 2), blocks(3));
    await store.delete('golden@v1').catch(() => undefined);
    await store.snapshot([{ vdisk: 'golden', snapshot: 'v2' }]);
    await store.delete('golden@v2');
    await settle(store);
    await store.delete('golden@v1').then(
      () => assert.fail('two are over it'),
      (error: unknown) => assert.ok(ofKind('in-use')(error)),
    );
    // golden itself cannot go while it has a snapshot.
    await assert.rejects(store.delete('golden'), ofKind('in-use', 'golden@v1'));
    await split(store, 'c', 'share');
    await store.delete('golden@v1');
    await settle(store);
    await store.delete('golden');
    await settle(store);
    await reads(clone, model);
    assert.equal(store.show('c').sharedBytes, 0);
    assert.equal(store.show('c').mappedBytes, blocks(301));
    await store.resize('c', MIB * 2);
    await reads(clone, resized(model, MIB * 2));
    await t.reopen();
    await reads(t.store.vdisk('c'), resized(model, MIB * 2));
  });
});

describe('block status', () => {
  onEachMedium('is exact to the block, from any offset', async ({ store }) => {
    const golden = await store.createVdisk('golden', MIB * 3 + 512);
    await golden.write(blocks(2), pattern(blocks(3), 1));
    await golden.write(blocks(255), pattern(blocks(2), 2));
    await store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
    const clone = await store.clone('golden@v1', 'c');
    await clone.write(blocks(4) + 10, pattern(100, 3));
    await clone.trim(blocks(255), blocks(1));
    await clone.write(MIB * 3, pattern(512, 4));
    const all = 'hole 0 2, data 1 2, data 0 1, hole 0 250, zero 0 1, data 1 1, hole 0 511';
    assert.equal(statusText(await clone.blockStatus(0, clone.sizeBytes)), `${all}, data 0 0.125`);
    assert.equal(
      statusText(await clone.blockStatus(blocks(3) + 512, blocks(1))),
      'data 1 0.875, data 0 0.125',
    );
    assert.equal(statusText(await clone.blockStatus(blocks(256), 512)), 'data 1 0.125');
    assert.equal(statusText(await clone.blockStatus(5, 0)), '');
    await split(store, 'c', 'copy');
    assert.equal(
      statusText(await clone.blockStatus(0, clone.sizeBytes)),
      'hole 0 2, data 0f 2, data 0 1, hole 0 250, zero 0 1, data 0f 1, hole 0 511, data 0 0.125',
    );
  });

  onEachMedium('agrees with what is read, on a large vdisk too', async ({ store }) => {
    const size = 300 * GIB;
    const vdisk = await store.createVdisk('a', size);
    const random = seededRandom(3);
    const places = new Set<number>();
    for (let count = 0; count < 40; count++) {
      const block = random.below(size / BLOCK_BYTES);
      places.add(block);
      await vdisk.write(blocks(block), pattern(10, count));
    }
    await store.snapshot([{ vdisk: 'a', snapshot: 's' }]);
    const clone = await store.clone('a@s', 'c');
    for (const target of [vdisk, clone]) {
      let at = 0;
      let data = 0;
      for (const { offset, length, kind } of await target.blockStatus(0, size)) {
        assert.equal(offset, at);
        at += length;
        if (kind !== 'data') continue;
        data += length;
        for (let block = offset; block < at; block += BLOCK_BYTES) {
          assert.ok(places.has(block / BLOCK_BYTES), `block ${block / BLOCK_BYTES}`);
        }
      }
      assert.equal(at, size);
      assert.equal(data, blocks(places.size));
    }
  });
});

describe('difference', () => {
  onEachMedium(
    'of snapshots and the present, across resizes, trims and a merge',
    async ({ store }) => {
      const vdisk = await store.createVdisk('a', MIB * 2);
      const snapshot = (name: string): Promise<void> =>
        store.snapshot([{ vdisk: 'a', snapshot: name }]);
      await vdisk.write(blocks(1), pattern(blocks(2), 1));
      await snapshot('s1');
      await vdisk.write(blocks(2) + 5, pattern(10, 2));
      await vdisk.write(blocks(300), pattern(blocks(1), 3));
      await snapshot('s2');
      await vdisk.trim(blocks(1), blocks(1));
      await store.resize('a', MIB + 512);
      await snapshot('s3');
      await store.resize('a', MIB * 2);
      await vdisk.write(blocks(400), pattern(blocks(1), 4));
      assert.equal(await diffText(store, undefined, 'a@s1'), 'data 1+2');
      assert.equal(await diffText(store, 'a@s1', 'a@s1'), '');
      assert.equal(await diffText(store, 'a@s1', 'a@s2'), 'data 2+1, data 300+1');
      assert.equal(await diffText(store, 'a@s2', 'a@s3'), 'zero 1+1');
      await checkDiffs(store, ['a@s1', 'a@s2', 'a@s3', 'a']);
      await store.delete('a@s2');
      await settle(store);
      assert.equal(await diffText(store, 'a@s1', 'a@s3'), 'zero 1+1, data 2+1');
      await checkDiffs(store, ['a@s1', 'a@s3', 'a']);
      await assert.rejects(diffText(store, 'a@s3', 'a@s1'), ofKind('invalid', 'a@s3'));
      await assert.rejects(diffText(store, 'a@s2', 'a'), ofKind('not-found', 'a@s2'));
    },
  );

  onEachMedium('from the beginning is all there is, in mid-split and after it too', async (t) => {
    for (const mode of ['copy', 'share'] as const) {
      const { store } = t;
      const all = 'data 0+1024, data 8704+512';
      await makeClones(store, sparsePattern(1));
      const golden = store.vdisk('golden');
      await golden.write(blocks(700), pattern(blocks(3), 2));
      await store.snapshot([{ vdisk: 'golden', snapshot: 'v2' }]);
      const clone = await store.clone('golden@v2', 'c');
      await clone.write(blocks(10), pattern(blocks(1), 3));
      const older = 'data 10+1, data 700+3';
      assert.equal(await diffText(store, undefined, 'c'), all);
      assert.equal(await diffText(store, 'golden@v1', 'c'), older);
      const job = await store.split('c', { mode });
      while (job.state()?.filledBytes === 0) await t.clock.yield();
      assert.ok((job.state()?.filledBytes ?? 0) > blocks(703), 'the split is half way');
      assert.equal(await diffText(store, undefined, 'c'), all, 'mid-split');
      assert.equal(await diffText(store, 'golden@v1', 'c'), older, 'mid-split');
      await job.done;
      assert.equal(await diffText(store, undefined, 'c'), all, 'split');
      for (const name of ['c', 'golden@v2', 'golden@v1', 'golden']) {
        await store.delete(name);
        await settle(store);
      }
    }
  });
});

/** What a difference does not name is the same in both; what it calls zero is zero. */
async function checkDiffs(store: TestStore['store'], names: readonly string[]): Promise<void> {
  for (const [index, from] of names.entries()) {
    for (const to of names.slice(index + 1)) {
      const target = store.vdisk(to);
      const there = await readAll(target);
      const model = resized(await readAll(store.vdisk(from)), there.length);
      for await (const { offset, length, kind } of store.diff(from, to)) {
        assert.ok(offset + length <= there.length, `${from} to ${to}: within the vdisk`);
        const bytes = there.subarray(offset, offset + length);
        if (kind === 'zero') same(bytes, new Uint8Array(length), `${from} to ${to}: zeros`);
        model.set(bytes, offset);
      }
      same(model, there, `${from} with the difference to ${to}`);
    }
  }
}

describe('sizes', () => {
  onEachMedium(
    'own and shared bytes after share splits, in every order of deletes',
    async ({ store }) => {
      for (const order of [
        ['a', 'b', 'golden'],
        ['golden', 'a', 'b'],
        ['b', 'golden', 'a'],
      ]) {
        await makeClones(store, pattern(blocks(300), 1), 'a', 'b');
        await store.vdisk('a').write(0, pattern(blocks(20), 2));
        const sizes = (name: string): number[] => {
          const { mappedBytes, sharedBytes, ownBytes } = store.show(name);
          assert.equal(mappedBytes, sharedBytes + ownBytes);
          return [mappedBytes / BLOCK_BYTES, sharedBytes / BLOCK_BYTES];
        };
        await store.consistencyPoint();
        assert.deepEqual(sizes('a'), [20, 0]);
        await split(store, 'a', 'share');
        assert.deepEqual(
          [sizes('a'), sizes('b'), sizes('golden@v1')],
          [
            [300, 280],
            [0, 0],
            [300, 280],
          ],
        );
        await split(store, 'b', 'share');
        assert.deepEqual(
          [sizes('a'), sizes('b'), sizes('golden@v1')],
          [
            [300, 280],
            [300, 300],
            [300, 300],
          ],
        );
        await store.vdisk('b').write(blocks(100), pattern(blocks(50), 3));
        await settle(store);
        assert.deepEqual(
          [sizes('a'), sizes('b'), sizes('golden@v1')],
          [
            [300, 280],
            [300, 250],
            [300, 300],
          ],
        );
        await store.delete('golden@v1');
        await settle(store);
        assert.deepEqual(sizes('golden'), [300, 300]);
        const contents = new Map<string, Uint8Array>();
        for (const name of order) contents.set(name, await readAll(store.vdisk(name)));
        for (const name of order) {
          const { givesBackBytes } = await store.scan(name);
          const before = store.show(name);
          assert.equal(givesBackBytes, before.ownBytes, `${name} of ${order.join()}`);
          await store.delete(name);
          contents.delete(name);
          await settle(store);
          for (const [left, bytes] of contents) await reads(store.vdisk(left), bytes, left);
        }
      }
    },
  );

  onEachMedium(
    'a scan says what a delete gives back, and what is read through',
    async ({ store }) => {
      // So that deletes change nothing but data blocks, as far as blocks of metadata allow.
      await makeClones(store, pattern(blocks(2000), 1), 'a', 'b');
      const a = store.vdisk('a');
      await a.write(0, pattern(blocks(700), 2));
      await a.trim(blocks(1000), blocks(300));
      await store.resize('b', blocks(500) + 512);
      await settle(store);
      assert.deepEqual(await store.scan('a'), {
        readThroughBytes: blocks(1000),
        givesBackBytes: blocks(700),
      });
      assert.deepEqual(await store.scan('b'), { readThroughBytes: blocks(501), givesBackBytes: 0 });
      await split(store, 'b', 'share');
      // Its last block, of which it has a part, is a copy.
      assert.deepEqual(await store.scan('b'), { readThroughBytes: 0, givesBackBytes: blocks(1) });
      await split(store, 'a', 'copy');
      assert.deepEqual(await store.scan('a'), {
        readThroughBytes: 0,
        givesBackBytes: blocks(1700),
      });
      for (const name of ['a', 'b']) {
        await settle(store);
        const { givesBackBytes } = await store.scan(name);
        const before = store.stats().usedBytes;
        await store.delete(name);
        await settle(store);
        const metadata = before - store.stats().usedBytes - givesBackBytes;
        assert.ok(
          metadata >= 0 && metadata < blocks(64),
          `${name}: ${metadata} bytes beside the data`,
        );
      }
    },
  );
});
