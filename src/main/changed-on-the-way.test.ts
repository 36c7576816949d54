/**
 * Bytes that change on their way from an object store, requests that arrive twice: whoever reads
 * gets what was written, and no server takes itself for deposed.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SimulatedObjectStore } from '../../sim/world/simulated-object-store.js';
import { VirtualClock } from '../../sim/world/virtual-clock.js';
import { isStoreError } from '../base/store-error.js';
import { BLOCK_BYTES, MIB } from '../base/units.js';
import { MemoryDevice } from '../env/memory-device.js';
import { MemoryObjectStore } from '../env/memory-object-store.js';
import { AmbiguousPutError } from '../env/object-store.js';
import { seededRandom } from '../env/seeded-random.js';
import { SparseBytes } from '../env/sparse-bytes.js';
import { findChain, numberKey } from '../store/object-log/chain-walk.js';
import { RecordChain, recordKey } from '../store/object-log/record-chain.js';
import { ChainEnd, takeOver } from '../store/object-log/take-over.js';
import { formatStore, type OpenOptions, openStore } from './open-store.js';
import type { Store } from './store.js';

const PREFIX = 'p';
const BLOCKS = 512;

/** Inverts a bit of what some gets answer; the objects stay as they are. */
class NoisyWay extends MemoryObjectStore {
  gets = 0;
  /** Which gets, counted from 1. */
  isNoisy: (get: number, key: string) => boolean = () => false;
  changed = 0;

  override async get(key: string, offset?: number, length?: number) {
    const bytes = await super.get(key, offset, length);
    if (bytes === undefined || bytes.length === 0 || !this.isNoisy(++this.gets, key)) return bytes;
    const noisy = bytes.slice();
    const at = (this.changed++ * 7919) % noisy.length;
    noisy[at] = (noisy[at] as number) ^ 1;
    return noisy;
  }
}

const sourceOf = (objects: MemoryObjectStore) =>
  ({ kind: 'objects', objects, prefix: PREFIX }) as const;

function open(objects: MemoryObjectStore, more: OpenOptions = {}): Promise<Store> {
  const options = { memoryBytes: MIB, cpIntervalMs: 3_600_000, alone: true };
  return openStore(sourceOf(objects), { ...options, random: seededRandom(3), ...more });
}

/** A closed store with more data than fits into the memory. */
async function newObjects(): Promise<NoisyWay> {
  const objects = new NoisyWay();
  await formatStore(sourceOf(objects), { sizeBytes: 64 * MIB, random: seededRandom(1) });
  const store = await open(objects);
  const disk = await store.createVdisk('d', 64 * MIB);
  for (let block = 0; block < BLOCKS; block++) await disk.write(placeOf(block), bytesOf(block));
  await store.close();
  return objects;
}

/** Far apart, so that there are many indirect blocks. */
function placeOf(block: number): number {
  return ((block * 17) % (16 * BLOCKS)) * BLOCK_BYTES;
}

function bytesOf(block: number): Uint8Array {
  return new Uint8Array(BLOCK_BYTES).fill(block).fill(block >> 8, 0, 100);
}

async function readAll(store: Store): Promise<void> {
  const disk = store.vdisk('d');
  const bytes = new Uint8Array(BLOCK_BYTES);
  for (let step = 0; step < BLOCKS; step++) {
    // In no order: what is read in a stream is not kept.
    const block = (step * 389) % BLOCKS;
    await disk.read(placeOf(block), bytes);
    assert.deepEqual(bytes, bytesOf(block), `block ${block}`);
  }
}

test('every second GET changes a bit: data and metadata are what was written', async () => {
  const objects = await newObjects();
  const store = await open(objects);
  objects.isNoisy = (get) => get % 2 === 0;
  await readAll(store);
  assert.ok(objects.changed > 10, `${objects.changed} changed`);
  objects.isNoisy = () => true;
  await assert.rejects(readAll(store), (error) => isStoreError(error, 'corrupt'));
});

test('what changed on its way does not stay in the cache file', async () => {
  const objects = await newObjects();
  const bytes = new SparseBytes(MIB);
  const disk = (): MemoryDevice => new MemoryDevice({ sizeBytes: 16 * MIB, bytes });
  let store = await open(objects, { cache: disk() });
  objects.isNoisy = (get) => get % 4 === 0;
  await readAll(store);
  await store.close();
  objects.isNoisy = () => false;
  const before = objects.changed;
  assert.ok(before > 10);
  store = await open(objects, { cache: disk() });
  await readAll(store);
  const { fileHits = 0, file } = store.stats().cache ?? {};
  assert.ok(fileHits > 100, `${fileHits} hits`);
  // But for one that had left with its group before it was found out.
  const damaged = file?.damaged ?? before;
  assert.ok(damaged <= 8 && damaged * 4 < before, `${damaged} of ${before} are kept`);
  await store.close();
});

test('a bit of any one GET of an open changes: it opens', async () => {
  const objects = await newObjects();
  const crashed = await open(objects);
  await crashed.vdisk('d').write(0, bytesOf(77), { fua: true });
  const copy = (): NoisyWay => new NoisyWay({ objects: objects.objects.clone() });
  const counting = copy();
  counting.isNoisy = () => false;
  await open(counting);
  assert.ok(counting.gets > 10, `${counting.gets} GETs`);
  for (let at = 1; at <= counting.gets; at++) {
    const noisy = copy();
    noisy.isNoisy = (get) => get === at;
    const store = await open(noisy);
    const bytes = new Uint8Array(BLOCK_BYTES);
    await store.vdisk('d').read(0, bytes);
    assert.deepEqual(bytes, bytesOf(77), `GET ${at}`);
  }
});

test('the void check does not believe a number that an index object holds', async () => {
  const objects = await newObjects();
  const owner = await open(objects);
  const nonce = (): Uint8Array => new Uint8Array(16).fill(7);
  const bid = { objects, prefix: PREFIX, nonce, owner: undefined, admit: () => undefined };
  const state = await findChain(objects, PREFIX);
  const end = new ChainEnd(bid, state);
  await end.advance();
  for (let value = 1; value <= 9; value++) {
    await owner.vdisk('d').write(0, bytesOf(value), { fua: true });
    await owner.consistencyPoint();
  }
  assert.equal(objects.objects.get(recordKey(PREFIX, end.number)), undefined, 'it was deleted');
  const { epoch, fsinfo } = await findChain(objects, PREFIX);
  const key = numberKey(PREFIX, 'cp', epoch, fsinfo.cpNumber);
  const text = Buffer.from(objects.objects.get(key) ?? []).toString();
  objects.objects.delete(key);
  objects.objects.create(key, Buffer.from(text.replace(/\d/, '0')));
  assert.equal(await takeOver(bid, state, end), undefined, 'void');
});

test('a put that arrives twice, and is told that it exists, is no other server', async () => {
  const clock = new VirtualClock();
  const objects = new SimulatedObjectStore({ clock, random: seededRandom(1) });
  objects.faultRates = { repeatedPut: 1 };
  const source = { kind: 'objects', objects, prefix: PREFIX } as const;
  await clock.run(
    (async () => {
      await formatStore(source, { sizeBytes: 64 * MIB, random: seededRandom(1), clock });
      const options = { memoryBytes: MIB, clock, random: seededRandom(2), alone: true };
      const store = await openStore(source, options);
      await (await store.createVdisk('d', MIB)).write(0, bytesOf(5), { fua: true });
      await store.close();
    })(),
  );
  assert.ok(objects.counts.repeatedPuts > 5);
});

test('a record that is read back damaged is read again before it is called theirs', async () => {
  const objects = new NoisyWay();
  let isAnswered = false;
  const put = objects.putNew.bind(objects);
  objects.putNew = async (key, chunks) => {
    await put(key, chunks);
    if (isAnswered) return 'exists';
    throw new AmbiguousPutError('no answer');
  };
  const identity = { uuid: new Uint8Array(16).fill(1), lineage: 0, epoch: 1, prefix: PREFIX };
  for (const number of [5, 6]) {
    const nonce = (): Uint8Array => new Uint8Array(16).fill(number);
    const chain = new RecordChain(objects, { ...identity, nonce }, number);
    objects.gets = 0;
    objects.isNoisy = (get) => get === 1;
    isAnswered = number === 6;
    chain.close(chain.open(), 'seal');
    await chain.acknowledged(number);
  }
});
