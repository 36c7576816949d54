/** A full store, and a device that fails. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { makeClones } from '../../test/support/clones.js';
import {
  MEDIA,
  ofKind,
  pattern,
  readAll,
  reads,
  type SimulatedStore,
  same,
  type TestStore,
  withSimulatedStore,
  withStore,
} from '../../test/support/stores.js';
import { isStoreError } from '../base/store-error.js';
import { BLOCK_BYTES, KIB, MIB } from '../base/units.js';
import type { BlockTarget } from './block-target.js';

function onEachMedium(name: string, body: (test: TestStore) => Promise<void>): void {
  for (const medium of MEDIA) test(`${name} (${medium})`, () => withStore(medium, {}, body));
}

/** Writes pieces until there is no space; returns where the first one failed. */
async function fill(target: BlockTarget, from: number, pieceBytes: number): Promise<number> {
  for (let at = from; ; at += pieceBytes) {
    try {
      await target.write(at, pattern(pieceBytes, 1 + (at % 65521)));
    } catch (error) {
      assert.ok(ofKind('out-of-space')(error), String(error));
      return at;
    }
  }
}

async function isFilled(target: BlockTarget, end: number, pieceBytes: number): Promise<void> {
  for (let at = 0; at < end; at += pieceBytes) {
    const bytes = await readAll(target, at, pieceBytes);
    same(bytes, pattern(pieceBytes, 1 + (at % 65521)), `${target.name} at byte ${at}`);
  }
}

describe('a full store', () => {
  for (const pieceBytes of [MIB, 48 * KIB]) {
    onEachMedium(
      `writes of ${pieceBytes / KIB} KiB fail and change nothing; it can be emptied`,
      async (t) => {
        const { store } = t;
        const disk = await store.createVdisk('a', 128 * MIB);
        const other = await store.createVdisk('b', 128 * MIB);
        await other.write(0, pattern(64 * KIB, 7));
        const end = await fill(disk, 0, pieceBytes);
        assert.ok(end >= 40 * MIB, `${end / MIB} MiB of 64 found room`);
        // The piece that failed is zeros as before, on each side of a consistency point.
        same(
          await readAll(disk, end, pieceBytes),
          new Uint8Array(pieceBytes),
          'the piece that failed',
        );
        await store.consistencyPoint();
        same(
          await readAll(disk, end, pieceBytes),
          new Uint8Array(pieceBytes),
          'the piece that failed',
        );
        await isFilled(disk, end, pieceBytes);
        await disk.flush();
        const after = await t.crashed();
        await isFilled(after.store.vdisk('a'), end, pieceBytes);
        await after.store.close();
        // A client that writes where it has written before goes on.
        for (let at = 0; at < 64 * KIB; at += BLOCK_BYTES) {
          await other.write(at, pattern(BLOCK_BYTES, at));
          if (at % (16 * KIB) === 0) await store.consistencyPoint();
        }
        await disk.trim(0, MIB);
        await store.idle();
        await store.consistencyPoint();
        await disk.write(0, pattern(256 * KIB, 1));
        await store.delete('a');
        await store.idle();
        await store.consistencyPoint();
        const again = await store.createVdisk('a', 128 * MIB);
        assert.ok((await fill(again, 0, pieceBytes)) >= end - 2 * MIB, 'all of it came back');
        for (const name of ['a', 'b']) await store.delete(name);
        await store.idle();
      },
    );
  }

  onEachMedium('snapshots and clones of a full store can be deleted', async (t) => {
    const { store } = t;
    await makeClones(store, pattern(8 * MIB, 1), 'c');
    const clone = store.vdisk('c');
    const end = await fill(clone, 8 * MIB - 8 * MIB, BLOCK_BYTES * 12).catch(() => 0);
    await store.resize('c', 100 * MIB);
    await fill(clone, end, BLOCK_BYTES * 12);
    for (const name of ['c', 'golden@v1', 'golden']) {
      await store.delete(name);
      await store.idle();
    }
    await store.consistencyPoint();
    await store.consistencyPoint();
    assert.ok(store.stats().freeBytes > 40 * MIB);
  });
});

// -- a device that fails

/** Writes and flushes until the store stops; returns what was flushed, and what may be there. */
async function workUntilStopped(
  sim: SimulatedStore,
): Promise<{ flushed: Uint8Array; tried: Uint8Array[] }> {
  const disk = sim.store.vdisk('a');
  let flushed: Uint8Array = await readAll(disk);
  const current = flushed.slice();
  const tried: Uint8Array[] = [];
  try {
    for (let turn = 0; turn < 200; turn++) {
      const at = (turn * 37 * KIB) % (2 * MIB - 200 * KIB);
      const bytes = pattern(turn % 4 === 0 ? 150 * KIB : 3000, turn + 10);
      current.set(bytes, at);
      tried.push(current.slice());
      await disk.write(at, bytes);
      if (turn % 5 === 0) await sim.store.consistencyPoint();
      await disk.flush();
      flushed = current.slice();
      tried.length = 0;
    }
    assert.fail('nothing failed');
  } catch (error) {
    assert.ok(isStoreError(error, 'device'), String(error));
  }
  return { flushed, tried };
}

describe('a failed write or sync', () => {
  for (const kind of ['write', 'sync'] as const) {
    test(`${kind}: the store stops, and opened again it has all that was flushed`, async () => {
      for (const ahead of [1, 2, 3, 4, 5, 7, 10, 15, 24]) {
        await withSimulatedStore('in-place', ahead, {}, async (sim) => {
          await sim.store.createVdisk('a', 2 * MIB);
          await sim.store.consistencyPoint();
          assert.ok(sim.machine.failCall(ahead, kind));
          const { flushed, tried } = await workUntilStopped(sim);
          const { store } = sim;
          const disk = store.vdisk('a');
          // Nothing more is acknowledged.
          await assert.rejects(async () => disk.write(0, new Uint8Array(1)), ofKind('device'));
          await assert.rejects(async () => disk.flush(), ofKind('device'));
          await assert.rejects(async () => disk.read(0, new Uint8Array(1)), ofKind('device'));
          await assert.rejects(async () => store.createVdisk('b', MIB), ofKind('device'));
          await assert.rejects(async () => store.consistencyPoint(), ofKind('device'));
          await store.close().catch(() => undefined);
          await sim.cut();
          const there = await readAll(sim.store.vdisk('a'));
          // What was under way may be there, sector by sector.
          const candidates = [flushed, ...tried];
          for (let at = 0; at < there.length; at += 512) {
            const sector = there.subarray(at, at + 512);
            const isKnown = candidates.some((each) => {
              return Buffer.compare(each.subarray(at, at + 512), sector) === 0;
            });
            assert.ok(isKnown, `${kind} ${ahead}: sector at byte ${at}`);
          }
          await sim.store.close();
          await sim.check(`${kind} ${ahead}`);
        });
      }
    });
  }

  test('a read that fails is an error for its reader alone', async () => {
    for (const medium of MEDIA) {
      await withStore(medium, {}, async (t) => {
        const content = pattern(MIB, 1);
        const made = await t.store.createVdisk('a', MIB);
        await made.write(0, content);
        const store = await t.reopen();
        const disk = store.vdisk('a');
        const block = content.subarray(20 * BLOCK_BYTES, 21 * BLOCK_BYTES);
        assert.equal(t.rot(block), 1);
        const corrupt = ofKind('corrupt', 'vdisk a, block 20 (byte 81920)');
        await assert.rejects(
          async () => disk.read(20 * BLOCK_BYTES + 7, new Uint8Array(1)),
          corrupt,
        );
        await assert.rejects(async () => disk.read(0, new Uint8Array(MIB)), corrupt);
        await assert.rejects(async () => disk.write(20 * BLOCK_BYTES, new Uint8Array(5)), corrupt);
        same(
          await readAll(disk, 0, 20 * BLOCK_BYTES),
          content.subarray(0, 20 * BLOCK_BYTES),
          'before',
        );
        // Written as a whole it is sound again.
        await disk.write(20 * BLOCK_BYTES, block);
        await reads(disk, content);
      });
    }
  });
});
