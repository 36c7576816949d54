/** The cleaner on a real store: what it empties, what it leaves, and that no byte changes. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { BLOCK_BYTES, MIB } from '../base/units.js';
import { MemoryObjectStore } from '../env/memory-object-store.js';
import { seededRandom } from '../env/seeded-random.js';
import type { CleanerOptions } from '../store/object-log/cleaner/cleaner.js';
import { checkStore } from './check.js';
import { formatStore, type OpenOptions, openStore } from './open-store.js';
import type { Store } from './store.js';

const EAGER: Partial<CleanerOptions> = { liveRatioMin: 0.7, blocksPerCp: 4096, deadBlocksMin: 64 };
const OFF: Partial<CleanerOptions> = { liveRatioMin: 0 };

async function newObjects(sizeBytes = 256 * MIB): Promise<MemoryObjectStore> {
  const objects = new MemoryObjectStore();
  const source = { kind: 'objects', objects, prefix: 's' } as const;
  await formatStore(source, { sizeBytes, random: seededRandom(1) });
  return objects;
}

function open(objects: MemoryObjectStore, cleaner: Partial<CleanerOptions>): Promise<Store> {
  const options: OpenOptions = { memoryBytes: 16 * MIB, cpIntervalMs: 3_600_000, cleaner };
  return openStore(
    { kind: 'objects', objects, prefix: 's' },
    { ...options, random: seededRandom(7), alone: true },
  );
}

/** Consistency points until the cleaner has nothing more to do. */
async function clean(store: Store): Promise<void> {
  for (let before = -1; before !== store.stats().cpNumber; ) {
    before = store.stats().cpNumber;
    await store.idle();
    await store.consistencyPoint();
    await store.idle();
  }
}

function pattern(seed: number, blocks: number): Uint8Array {
  const bytes = new Uint8Array(blocks * BLOCK_BYTES);
  seededRandom(seed).fill(bytes);
  return bytes;
}

function ratioOf(store: Store): number {
  const { cleaner } = store.stats();
  assert.ok(cleaner !== undefined);
  return cleaner.liveBlocks / cleaner.keptBlocks;
}

async function assertSound(objects: MemoryObjectStore): Promise<void> {
  const report = await checkStore({ kind: 'objects', objects: objects.duplicate(), prefix: 's' });
  assert.deepEqual(report.faults, []);
}

/** Writes 16 MiB, and then every second block again, with a consistency point after each part. */
async function writeHoley(store: Store, name: string): Promise<void> {
  const vdisk = await store.createVdisk(name, 16 * MIB);
  for (let part = 0; part < 16; part++) await vdisk.write(part * MIB, pattern(part, 256));
  await vdisk.flush();
  await store.consistencyPoint();
  for (let fbn = 0; fbn < 4096; fbn += 1) {
    if (fbn % 16 < 11) await vdisk.write(fbn * BLOCK_BYTES, pattern(1000 + fbn, 1));
  }
  await vdisk.flush();
  await store.consistencyPoint();
}

async function hashOf(store: Store, name: string): Promise<string> {
  return Buffer.from(await store.contentHash(name)).toString('hex');
}

describe('cleaner', () => {
  test('empties records until the live ratio is at the bound, and no byte changes', async () => {
    const objects = await newObjects();
    let store = await open(objects, OFF);
    await writeHoley(store, 'a');
    const hash = await hashOf(store, 'a');
    await store.close();
    store = await open(objects, EAGER);
    await clean(store);
    const { cleaner } = store.stats();
    assert.ok(cleaner !== undefined && cleaner.dataBlocksMoved > 100, JSON.stringify(cleaner));
    assert.ok(ratioOf(store) >= 0.7, `live ratio ${ratioOf(store)}`);
    assert.equal(await hashOf(store, 'a'), hash);
    await store.close();
    await assertSound(objects);
    store = await open(objects, OFF);
    assert.equal(await hashOf(store, 'a'), hash);
    await store.close();
  });

  test('snapshots, clones and shares: read the same, and a diff across it is the same', async () => {
    const objects = await newObjects();
    let store = await open(objects, OFF);
    await writeHoley(store, 'a');
    await store.snapshot([{ vdisk: 'a', snapshot: 's' }]);
    await store.vdisk('a').write(5 * MIB, pattern(77, 300));
    for (const [name, isSplit] of [
      ['copied', true],
      ['over', false],
    ] as const) {
      const clone = await store.clone('a@s', name);
      await clone.write(3 * MIB + 4096, pattern(name.length, 20));
      if (isSplit) await (await store.split(name, { mode: 'copy' })).done;
    }
    const names = ['a', 'a@s', 'copied', 'over'];
    const look = async (): Promise<unknown> => {
      const hashes: string[] = [];
      for (const name of names) hashes.push(await hashOf(store, name));
      const diff: unknown[] = [];
      for await (const extent of store.diff('a@s', 'a')) diff.push(extent);
      const sizes = names.map((name) => {
        const { mappedBytes, sharedBytes } = store.show(name);
        return { name, mappedBytes, sharedBytes };
      });
      return { hashes, diff, sizes };
    };
    await store.consistencyPoint();
    const before = await look();
    await store.close();
    store = await open(objects, { ...EAGER, liveRatioMin: 0.95 });
    await clean(store);
    assert.ok((store.stats().cleaner?.dataBlocksMoved ?? 0) > 100);
    assert.deepEqual(await look(), before);
    await store.close();
    await assertSound(objects);
  });

  test('what stands beneath a shared pointer stays until the last name but one is gone', async () => {
    const objects = await newObjects();
    let store = await open(objects, OFF);
    await writeHoley(store, 'a');
    await store.snapshot([{ vdisk: 'a', snapshot: 's' }]);
    await store.clone('a@s', 'b');
    await (await store.split('b', { mode: 'share' })).done;
    const hash = await hashOf(store, 'b');
    await store.close();
    store = await open(objects, EAGER);
    await clean(store);
    const { cleaner } = store.stats();
    assert.ok(cleaner !== undefined && cleaner.recordsLeft > 0, JSON.stringify(cleaner));
    assert.ok(ratioOf(store) < 0.65, `live ratio ${ratioOf(store)}`);
    assert.equal(await hashOf(store, 'b'), hash);
    await store.delete('b');
    await clean(store);
    assert.ok(ratioOf(store) >= 0.7, `live ratio ${ratioOf(store)}`);
    assert.equal(await hashOf(store, 'a@s'), hash);
    await store.close();
    await assertSound(objects);
  });

  test('blocks that several trees name one by one move together, and stay shared', async () => {
    const objects = await newObjects();
    let store = await open(objects, OFF);
    await writeHoley(store, 'a');
    await store.snapshot([{ vdisk: 'a', snapshot: 's' }]);
    const clone = await store.clone('a@s', 'b');
    // Something of its own in every level-1 range: nothing can be shared whole.
    for (let range = 0; range < 16; range++) await clone.write(range * MIB, pattern(range, 1));
    await (await store.split('b', { mode: 'share' })).done;
    await store.consistencyPoint();
    const before = { shared: store.show('b').sharedBytes, hash: await hashOf(store, 'b') };
    assert.ok(before.shared > 8 * MIB);
    const used = store.stats().usedBytes;
    await store.close();
    store = await open(objects, EAGER);
    await clean(store);
    const { cleaner, usedBytes } = store.stats();
    assert.ok((cleaner?.dataBlocksMoved ?? 0) > 100, JSON.stringify(cleaner));
    assert.equal(store.show('b').sharedBytes, before.shared);
    assert.equal(await hashOf(store, 'b'), before.hash);
    assert.ok(usedBytes < used + MIB, `${usedBytes} bytes used, ${used} before`);
    await store.close();
    await assertSound(objects);
  });

  test('what a client writes while its block is moved stands', async () => {
    const objects = await newObjects();
    let store = await open(objects, OFF);
    await writeHoley(store, 'a');
    await store.close();
    store = await open(objects, EAGER);
    const vdisk = store.vdisk('a');
    const expected = new Uint8Array(16 * MIB);
    await vdisk.read(0, expected);
    const point = store.consistencyPoint();
    const random = seededRandom(5);
    for (let round = 0; round < 2000; round++) {
      const bytes = pattern(5000 + round, 1);
      const fbn = random.below(4096);
      expected.set(bytes, fbn * BLOCK_BYTES);
      await vdisk.write(fbn * BLOCK_BYTES, bytes);
      if (round % 100 === 0) await store.consistencyPoint();
    }
    await point;
    await clean(store);
    assert.ok((store.stats().cleaner?.dataBlocksMoved ?? 0) > 0);
    const found = new Uint8Array(16 * MIB);
    await vdisk.read(0, found);
    assert.deepEqual(Buffer.from(found), Buffer.from(expected));
    await store.close();
    await assertSound(objects);
  });

  test('an end before the consistency point loses nothing but its work', async () => {
    const objects = await newObjects();
    let store = await open(objects, OFF);
    await writeHoley(store, 'a');
    const hash = await hashOf(store, 'a');
    await store.close();
    store = await open(objects, EAGER);
    await store.idle();
    assert.ok((store.stats().cleaner?.dataBlocksMoved ?? 0) > 0);
    // Left as it is, without a close: another server takes over.
    const next = await open(objects, EAGER);
    assert.equal(await hashOf(next, 'a'), hash);
    await clean(next);
    assert.equal(await hashOf(next, 'a'), hash);
    await next.close();
    await assertSound(objects);
  });

  test('where there is no room it does nothing, and clients have all of it', async () => {
    const objects = await newObjects(64 * MIB);
    const store = await open(objects, EAGER);
    const vdisk = await store.createVdisk('a', 256 * MIB);
    let part = 0;
    for (;;) {
      try {
        await vdisk.write(part * MIB, pattern(part, 256));
        if (part % 4 === 3) await store.consistencyPoint();
      } catch (error) {
        assert.match(String(error), /is full/);
        break;
      }
      part++;
    }
    assert.ok(part > 55, `${part} MiB fit into 64`);
    // Overwrites find room all the same, and leave holes in the records that cannot be mended.
    for (let fbn = 0; fbn < part * 256; fbn += 3) {
      await vdisk.write(fbn * BLOCK_BYTES, pattern(fbn, 1));
      if (fbn % 768 === 0) await store.consistencyPoint();
    }
    await vdisk.flush();
    await clean(store);
    await store.close();
    await assertSound(objects);
  });

  test('comes to an end: an idle store puts nothing', async () => {
    const objects = await newObjects();
    const store = await open(objects, { ...EAGER, liveRatioMin: 1, deadBlocksMin: 0 });
    await writeHoley(store, 'a');
    await clean(store);
    await clean(store);
    const { puts } = objects.stats;
    await clean(store);
    assert.equal(objects.stats.puts, puts);
    await store.close();
  });

  test('damaged bytes are not copied: the record stays, and the damage where it was', async () => {
    const objects = await newObjects();
    let store = await open(objects, OFF);
    await writeHoley(store, 'a');
    await store.close();
    // Block 11 was not written again: it lives in the first records.
    const bytes = pattern(0, 256).subarray(11 * BLOCK_BYTES, 12 * BLOCK_BYTES);
    for (const key of await objects.list('s/log/')) {
      const at = Buffer.from((await objects.get(key)) ?? new Uint8Array()).indexOf(bytes);
      if (at >= 0) objects.objects.flipBit(key, at + 100, 2);
    }
    store = await open(objects, EAGER);
    await clean(store);
    assert.ok((store.stats().cleaner?.recordsLeft ?? 0) > 0);
    await assert.rejects(
      Promise.resolve(store.vdisk('a').read(11 * BLOCK_BYTES, new Uint8Array(BLOCK_BYTES))),
      /does not have the checksum of its pointer/,
    );
    await store.close();
  });
});
