/** Administrative acts: names, snapshots of several vdisks, deletes; each durable when answered. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  MEDIA,
  ofKind,
  pattern,
  reads,
  type TestStore,
  withStore,
} from '../../test/support/stores.js';
import { MIB, PIB } from '../base/units.js';
import type { BlockTarget } from './block-target.js';

function onEachMedium(name: string, body: (test: TestStore) => Promise<void>): void {
  for (const medium of MEDIA) test(`${name} (${medium})`, () => withStore(medium, {}, body));
}

const names = (store: TestStore['store']): string => {
  return store
    .list()
    .map((info) => info.name)
    .join(' ');
};

describe('names and sizes', () => {
  onEachMedium('what can be a name, and what cannot', async ({ store }) => {
    const longest = 'n'.repeat(255);
    for (const name of ['a', '_', '0', 'A.b:c+d-e_f', longest]) {
      await store.createVdisk(name, 512).then(
        () => store.delete(name),
        (error: unknown) => {
          assert.equal(name, longest);
          assert.ok(ofKind('invalid')(error));
        },
      );
    }
    const bad = [
      '',
      '.',
      '-a',
      ':a',
      '+a',
      'a b',
      'a@b',
      'a/b',
      'ä',
      'a\n',
      'a\0',
      'n'.repeat(1000),
    ];
    await store.createVdisk('disk', MIB);
    await store.snapshot([{ vdisk: 'disk', snapshot: 's' }]);
    for (const name of bad) {
      await assert.rejects(store.createVdisk(name, 512), ofKind('invalid'), name);
      await assert.rejects(store.snapshot([{ vdisk: 'disk', snapshot: name }]), ofKind('invalid'));
      await assert.rejects(store.clone('disk@s', name), ofKind('invalid'), name);
      await assert.rejects(store.rename('disk', name), ofKind('invalid'), name);
      await assert.rejects(store.rename('disk@s', `disk@${name}`), ofKind('invalid'), name);
    }
    assert.equal(names(store), 'disk disk@s');
  });

  onEachMedium('a name that is taken, also by an act under way', async ({ store }) => {
    const acts = await Promise.allSettled([
      store.createVdisk('a', MIB),
      store.createVdisk('a', MIB),
      store.createVdisk('b', MIB),
    ]);
    assert.deepEqual(
      acts.map(({ status }) => status),
      ['fulfilled', 'rejected', 'fulfilled'],
    );
    await store.snapshot([{ vdisk: 'a', snapshot: 's' }]);
    const taken = ofKind('exists');
    await assert.rejects(store.createVdisk('a', MIB), taken);
    await assert.rejects(store.clone('a@s', 'b'), taken);
    await assert.rejects(store.snapshot([{ vdisk: 'a', snapshot: 's' }]), taken);
    await assert.rejects(store.rename('a', 'b'), taken);
    const twice = { vdisk: 'a', snapshot: 't' };
    await assert.rejects(store.snapshot([twice, twice]), taken);
    assert.equal(names(store), 'a a@s b');
  });

  onEachMedium('sizes are whole sectors from 512 bytes to 1 PiB', async ({ store }) => {
    for (const size of [0, -512, 511, 513, PIB + 512, Number.NaN, 1.5, 2 ** 60]) {
      await assert.rejects(store.createVdisk('a', size), ofKind('invalid'), `${size}`);
    }
    await store.createVdisk('a', 512);
    await store.createVdisk('b', PIB);
    await assert.rejects(store.resize('a', 100), ofKind('invalid'));
    await store.snapshot([{ vdisk: 'a', snapshot: 's' }]);
    await assert.rejects(store.resize('a@s', 1024), ofKind('read-only', 'a@s'));
  });

  onEachMedium('what is not there is not found', async ({ store }) => {
    const missing = ofKind('not-found', 'nobody');
    assert.throws(() => store.vdisk('nobody'), missing);
    assert.throws(() => store.show('nobody@s'), missing);
    for (const act of [
      () => store.clone('nobody@s', 'x'),
      () => store.delete('nobody'),
      () => store.rename('nobody', 'x'),
      () => store.resize('nobody', MIB),
      () => store.scan('nobody'),
      () => store.snapshot([{ vdisk: 'nobody', snapshot: 's' }]),
      () => store.split('nobody', { mode: 'copy' }),
    ]) {
      await assert.rejects(async () => act(), missing);
    }
    await store.createVdisk('a', MIB);
    await assert.rejects(store.clone('a', 'x'), ofKind('invalid', 'snapshot'));
    await assert.rejects(store.split('a', { mode: 'copy' }), ofKind('invalid', 'a'));
  });
});

describe('acts', () => {
  onEachMedium('a crash after each act finds it done', async (t) => {
    const { store } = t;
    const after = async (wanted: string): Promise<void> => {
      const other = await t.crashed();
      assert.equal(names(other.store), wanted);
      await other.store.close();
      assert.equal(names(store), wanted);
    };
    await store.createVdisk('a', MIB);
    await after('a');
    await store.createVdisk('b', MIB);
    await store.snapshot([
      { vdisk: 'a', snapshot: 's' },
      { vdisk: 'b', snapshot: 's' },
    ]);
    await after('a a@s b b@s');
    await store.clone('a@s', 'c');
    await after('a a@s b b@s c');
    await store.rename('a', 'z');
    await after('b b@s c z z@s');
    await store.rename('z@s', 'z@t');
    await after('b b@s c z z@t');
    assert.equal(store.show('c').backing, 'z@t');
    assert.deepEqual(store.show('z@t').holders, ['c', 'z']);
    await store.delete('b@s');
    await after('b c z z@t');
    await store.delete('b');
    await after('c z z@t');
    await store.resize('c', 2 * MIB);
    const other = await t.crashed();
    assert.equal(other.store.show('c').sizeBytes, 2 * MIB);
    await other.store.close();
    await t.reopen();
    assert.equal(names(t.store), 'c z z@t');
  });

  onEachMedium('snapshots of several vdisks are of one moment', async (t) => {
    const { store } = t;
    const disks: BlockTarget[] = [];
    for (const name of ['a', 'b', 'c']) disks.push(await store.createVdisk(name, MIB));
    let stamp = 0;
    const write = (): void => {
      // a first, c last: whoever cuts between two sees a newer a beside an older c.
      stamp++;
      for (const disk of disks) void disk.write(0, new Uint8Array(512).fill(stamp % 251));
    };
    for (let round = 0; round < 10; round++) {
      write();
      const items = ['a', 'b', 'c'].map((vdisk) => ({ vdisk, snapshot: `s${round}` }));
      let isDone = false;
      const done = store.snapshot(items).then(() => {
        isDone = true;
      });
      while (!isDone) {
        write();
        await undefined;
      }
      await done;
      const seen = [];
      for (const name of ['a', 'b', 'c']) {
        const bytes = new Uint8Array(512);
        await store.vdisk(`${name}@s${round}`).read(0, bytes);
        assert.ok(bytes.every((byte) => byte === bytes[0]));
        seen.push(bytes[0]);
      }
      assert.deepEqual(seen, [seen[0], seen[0], seen[0]]);
    }
    // All of them or none.
    await assert.rejects(
      store.snapshot([
        { vdisk: 'a', snapshot: 'new' },
        { vdisk: 'nobody', snapshot: 'new' },
      ]),
      ofKind('not-found'),
    );
    assert.throws(() => store.vdisk('a@new'), ofKind('not-found'));
  });

  onEachMedium(
    'a snapshot is read-only, and a deleted vdisk gone for who has it open',
    async (t) => {
      const { store } = t;
      const disk = await store.createVdisk('a', MIB);
      await disk.write(0, pattern(5000, 1));
      await store.snapshot([{ vdisk: 'a', snapshot: 's' }]);
      const snapshot = store.vdisk('a@s');
      assert.ok(snapshot.readOnly && !disk.readOnly);
      const refused = ofKind('read-only', 'a@s');
      await assert.rejects(async () => snapshot.write(0, new Uint8Array(1)), refused);
      await assert.rejects(async () => snapshot.trim(0, 4096), refused);
      await assert.rejects(async () => snapshot.writeZeroes(0, 4096), refused);
      await snapshot.flush();
      await store.delete('a@s');
      await store.delete('a');
      const gone = ofKind('not-found');
      await assert.rejects(async () => disk.read(0, new Uint8Array(1)), gone);
      await assert.rejects(async () => disk.write(0, new Uint8Array(1)), gone);
      await assert.rejects(async () => disk.flush(), gone);
      await assert.rejects(async () => snapshot.read(0, new Uint8Array(1)), gone);
      // The name is free at once, and the new disk is a new one.
      await reads(await store.createVdisk('a', MIB), new Uint8Array(MIB));
    },
  );

  onEachMedium('a delete goes on after a crash, and gives everything back', async (t) => {
    const { store } = t;
    await store.consistencyPoint();
    await store.createVdisk('keep', MIB);
    await store.consistencyPoint();
    const before = store.stats().usedBytes;
    const disk = await store.createVdisk('a', 20 * MIB);
    await disk.write(0, pattern(20 * MIB, 1));
    await store.snapshot([{ vdisk: 'a', snapshot: 's' }]);
    await disk.write(MIB, pattern(3 * MIB, 2));
    await store.consistencyPoint();
    await store.delete('a@s');
    const merging = await t.crashed();
    await store.idle();
    await store.delete('a');
    const freeing = await t.crashed();
    for (const other of [merging, freeing]) {
      const again = await other.reopen();
      if (names(again) !== 'keep') await again.delete('a');
      await again.idle();
      await again.consistencyPoint();
      await again.consistencyPoint();
      assert.equal(names(again), 'keep');
      assert.ok(
        again.stats().usedBytes <= before + 32 * 4096,
        `${again.stats().usedBytes - before}`,
      );
      await again.close();
    }
  });
});
