/**
 * Requests to an object store under way at once: reads ahead of a client that streams, FLUSHes that
 * do not wait for each other and are answered in order all the same.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BLOCK_BYTES, MIB } from '../base/units.js';
import { MemoryObjectStore } from '../env/memory-object-store.js';
import { seededRandom } from '../env/seeded-random.js';
import { formatStore, openStore } from './open-store.js';
import type { Store } from './store.js';

const STREAM_MIB = 20;

/** Requests wait in the order in which they came, once somebody holds them. */
class HeldObjects extends MemoryObjectStore {
  isHolding = false;
  readonly held: (() => void)[] = [];

  async #turn(): Promise<void> {
    if (this.isHolding) await new Promise<void>((resolve) => this.held.push(resolve));
  }

  override async putNew(key: string, chunks: readonly Uint8Array[]): Promise<'created' | 'exists'> {
    await this.#turn();
    return super.putNew(key, chunks);
  }

  override async get(
    key: string,
    offset?: number,
    length?: number,
  ): Promise<Uint8Array | undefined> {
    await this.#turn();
    return super.get(key, offset, length);
  }

  release(): void {
    this.isHolding = false;
    for (const go of this.held.splice(0)) go();
  }
}

async function newStore(): Promise<{ objects: HeldObjects; store: Store }> {
  const objects = new HeldObjects();
  const source = { kind: 'objects', objects, prefix: 'store' } as const;
  await formatStore(source, { sizeBytes: 64 * MIB, random: seededRandom(3) });
  const options = { memoryBytes: 8 * MIB, cpIntervalMs: 2 ** 30, random: seededRandom(4) };
  return { objects, store: await openStore(source, options) };
}

/** Lets everything go on that waits for no request. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
}

function megabyteOf(index: number): Buffer {
  const bytes = Buffer.alloc(MIB);
  seededRandom(100 + index).fill(bytes);
  return bytes;
}

test('a stream of single reads has many GETs under way, of a clone as of the vdisk itself', async () => {
  const { objects, store } = await newStore();
  const disk = await store.createVdisk('disk', STREAM_MIB * MIB);
  for (let index = 0; index < STREAM_MIB; index++) {
    await disk.write(index * MIB, megabyteOf(index));
  }
  await store.snapshot([{ vdisk: 'disk', snapshot: 'v1' }]);
  const clone = await store.clone('disk@v1', 'clone');
  await store.consistencyPoint();
  for (const target of [disk, clone]) {
    const getsBefore = objects.stats.gets;
    let underWay = 0;
    for (let index = 0; index < STREAM_MIB; index++) {
      const into = new Uint8Array(MIB);
      // What the second read wants the first may have brought already: it asks for what follows.
      objects.isHolding = true;
      const reading = target.read(index * MIB, into);
      await settled();
      underWay = Math.max(underWay, objects.held.length);
      objects.release();
      await reading;
      await settled();
      assert.ok(megabyteOf(index).equals(into), `${target.name}, MiB ${index}`);
    }
    assert.ok(underWay >= 3, `${target.name}: ${underWay} GETs under way`);
    const gets = objects.stats.gets - getsBefore;
    assert.ok(gets <= 25, `${target.name}: ${gets} GETs, for ${STREAM_MIB / 4} records and little`);
  }
  await store.close();
});

test('who reads here and there has nothing read ahead', async () => {
  const { objects, store } = await newStore();
  const disk = await store.createVdisk('disk', STREAM_MIB * MIB);
  for (let index = 0; index < STREAM_MIB; index++) {
    await disk.write(index * MIB, megabyteOf(index));
  }
  await store.consistencyPoint();
  const random = seededRandom(5);
  const into = new Uint8Array(BLOCK_BYTES);
  const before = objects.stats.bytesGot;
  const reads = 300;
  for (let read = 0; read < reads; read++) {
    await disk.read(random.below((STREAM_MIB * MIB) / BLOCK_BYTES) * BLOCK_BYTES, into);
  }
  await settled();
  const bytes = objects.stats.bytesGot - before;
  assert.ok(bytes <= 3 * reads * BLOCK_BYTES, `${bytes} bytes for ${reads} blocks`);
  await store.close();
});

test('FLUSHes go out together, and none is answered before those that came earlier', async () => {
  const { objects, store } = await newStore();
  const disk = await store.createVdisk('disk', MIB);
  await store.consistencyPoint();
  await settled();
  const answered: string[] = [];
  const flush = (name: string): Promise<void> => disk.flush().then(() => void answered.push(name));
  objects.isHolding = true;
  await disk.write(0, Buffer.alloc(BLOCK_BYTES, 1));
  const all = [flush('first')];
  await settled();
  await disk.write(BLOCK_BYTES, Buffer.alloc(BLOCK_BYTES, 2));
  all.push(flush('second'));
  await settled();
  assert.equal(objects.held.length, 2, 'the second does not wait for the first');
  // It covers what the first one took: nothing is left for it to put.
  all.push(flush('third, with nothing of its own'));
  await settled();
  objects.held.splice(1, 1)[0]?.();
  await settled();
  assert.deepEqual(answered, [], 'the second record is there, the first is not');
  objects.release();
  await Promise.all(all);
  assert.deepEqual(answered, ['first', 'second', 'third, with nothing of its own']);
  await store.close();
});
