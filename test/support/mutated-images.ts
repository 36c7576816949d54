/**
 * Damaged and hostile qcow2 images, and what has to become of them: the image's reader and the
 * naive one of qcow2-model.ts read the same bytes, and what one refuses the other refuses.
 *
 * That nothing hangs shows in the reads that are counted: an image may not make its reader ask for
 * more than its size allows. That memory is bounded shows in the bytes of each of them.
 */
import assert from 'node:assert/strict';
import { isAllZero } from '../../src/base/checksum.js';
import { isStoreError, type StoreError } from '../../src/base/store-error.js';
import { MIB } from '../../src/base/units.js';
import type { Random } from '../../src/env/random.js';
import { seededRandom } from '../../src/env/seeded-random.js';
import type { ImageReader } from '../../src/image/image-reader.js';
import { importImage } from '../../src/image/import-image.js';
import { openImage } from '../../src/image/open-image.js';
import { MemoryFolder } from './memory-file.js';
import { MemoryTarget } from './memory-target.js';
import { type BuiltQcow2, buildQcow2, type ClusterPlan } from './qcow2-builder.js';
import { type ModelDisk, modelImage } from './qcow2-model.js';

export const IMAGES_PER_SEED = 100;
const CACHE_BYTES = 64 * 1024;
/** Disks up to here are read whole. */
const WHOLE_BYTES_MAX = 4 * MIB;

const KINDS: readonly ClusterPlan[] = ['hole', 'zero', 'data', 'packed', 'mixed'];

function somePlan(random: Random, count: number, version: 2 | 3): ClusterPlan[] {
  return Array.from({ length: count }, () => {
    const kind = KINDS[random.below(KINDS.length)] as ClusterPlan;
    return version === 2 && kind === 'zero' ? 'hole' : kind;
  });
}

/** A sound image of every sort, named after what it is. */
function soundImages(): Map<string, BuiltQcow2> {
  const images = new Map<string, BuiltQcow2>();
  const random = seededRandom(4711);
  for (const version of [2, 3] as const) {
    for (const clusterBits of [9, 10, 12, 16]) {
      const clusters = somePlan(random, clusterBits === 16 ? 5 : 150, version);
      const plan = { version, clusterBits, clusters, cutBytes: clusterBits > 9 ? 512 : 0 };
      images.set(`v${version}-${clusterBits}`, buildQcow2(plan));
      const backing = { name: `v3-${clusterBits}`, format: 'qcow2' };
      images.set(
        `v${version}-${clusterBits}-over-qcow2`,
        buildQcow2({ ...plan, backing, salt: 1 }),
      );
    }
  }
  const clusters = somePlan(random, 12, 3);
  const extended = { version: 3, clusterBits: 14, extendedL2: true, clusters } as const;
  images.set('extended', buildQcow2(extended));
  const overRaw = { name: 'raw', format: 'raw' };
  images.set('extended-over-raw', buildQcow2({ ...extended, backing: overRaw, salt: 2 }));
  images.set('over-raw', buildQcow2({ ...extended, extendedL2: false, backing: { name: 'raw' } }));
  const large = somePlan(random, 1, 3);
  images.set('large-clusters', buildQcow2({ version: 3, clusterBits: 18, clusters: large }));
  return images;
}

const SOUND = soundImages();
const NAMES = [...SOUND.keys()];
const RAW = new Uint8Array(100_000).map((_, index) => 1 + (index % 199));

/** Values that are right somewhere, nearly right, or at an edge. */
function someNumber(random: Random, image: BuiltQcow2): bigint {
  const { bytes, clusterBytes, l1Offset, l2Offsets, sizeBytes } = image;
  const edges = [0, 1, 7, 8, 72, 104, 511, 512, clusterBytes, 2 * clusterBytes, bytes.length];
  const places = [l1Offset, ...l2Offsets, sizeBytes, bytes.length - clusterBytes, bytes.length - 1];
  const large = [2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 50, 2 ** 53 - 1, 2 ** 53, 2 ** 62, 2 ** 63];
  switch (random.below(7)) {
    case 0:
      return BigInt(edges[random.below(edges.length)] as number);
    case 1:
      return BigInt(places[random.below(places.length)] as number);
    case 2:
      return BigInt(large[random.below(large.length)] as number);
    case 3:
      return BigInt(random.below(Math.ceil(bytes.length / clusterBytes) + 2) * clusterBytes);
    case 4:
      return BigInt(random.below(bytes.length + 1000));
    case 5:
      // A sector, as a rule within a cluster.
      return BigInt(random.below(Math.ceil(bytes.length / 512)) * 512);
    default:
      return (BigInt(random.nextU32()) << 32n) | BigInt(random.nextU32());
  }
}

const FIELDS_32 = [0, 4, 16, 20, 32, 36, 56, 60, 96, 100, 104];
const FIELDS_64 = [8, 24, 40, 48, 64, 72, 80, 88];

function setBits(view: DataView, at: number, random: Random, value: bigint): void {
  const old = view.getBigUint64(at);
  const changes = [
    BigInt.asUintN(64, value),
    old ^ (1n << BigInt(random.below(64))),
    // Another place, the same flags.
    (old & (3n << 62n)) | BigInt.asUintN(62, value),
    old ^ (1n << 62n),
    // What an entry near by says.
    view.getBigUint64(Math.max(0, at - 8 * (1 + random.below(8)))),
  ];
  view.setBigUint64(at, changes[random.below(changes.length)] as bigint);
}

/** Changes the copy in one place; may give a shorter one. */
function mutate(bytes: Uint8Array, image: BuiltQcow2, random: Random): Uint8Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const value = someNumber(random, image);
  const fits = (at: number, length: number): boolean => at + length <= bytes.length;
  switch (random.below(9)) {
    case 0: {
      const at = FIELDS_32[random.below(FIELDS_32.length)] as number;
      const small = random.chance(0.5) ? random.below(40) : Number(BigInt.asUintN(32, value));
      if (fits(at, 4)) view.setUint32(at, small);
      return bytes;
    }
    case 1: {
      const at = FIELDS_64[random.below(FIELDS_64.length)] as number;
      if (fits(at, 8)) setBits(view, at, random, value);
      return bytes;
    }
    case 2: {
      const at = image.extensionsOffset + random.below(64);
      if (fits(at, 4)) view.setUint32(at, random.chance(0.5) ? random.below(64) : random.nextU32());
      return bytes;
    }
    case 3: {
      // Two of the first entries as a rule: what is behind them need not be used.
      const at = image.l1Offset + random.below(random.chance(0.5) ? 2 : image.l1Count + 1) * 8;
      if (fits(at, 8)) setBits(view, at, random, value);
      return bytes;
    }
    case 4:
    case 5: {
      const table = image.l2Offsets[random.below(Math.max(1, image.l2Offsets.length))] ?? 0;
      const at = table + random.below(image.clusterBytes / 8) * 8;
      // Entries of clusters that the disk has, more often than not.
      const near = table + random.below(Math.min(image.clusterBytes / 8, 160)) * 8;
      const place = random.chance(0.8) ? near : at;
      if (fits(place, 8)) setBits(view, place, random, value);
      return bytes;
    }
    case 6: {
      const packed = image.packedOffsets[random.below(Math.max(1, image.packedOffsets.length))];
      const at = (packed ?? 0) + random.below(40);
      if (fits(at, 1)) bytes[at] = random.below(256);
      return bytes;
    }
    case 7: {
      const length = random.chance(0.7) ? random.below(bytes.length + 1) : random.below(600);
      return bytes.slice(0, Math.min(length, bytes.length));
    }
    default: {
      const at = random.below(bytes.length + 1);
      if (fits(at, 1)) bytes[at] = (bytes[at] as number) ^ (1 << random.below(8));
      return bytes;
    }
  }
}

export interface Outcomes {
  refused: number;
  readWhole: number;
  readInPart: number;
  imported: number;
  /** Of one image, the most that was asked of files. */
  readsMax: number;
  bytesReadMax: number;
}

export function newOutcomes(): Outcomes {
  return { refused: 0, readWhole: 0, readInPart: 0, imported: 0, readsMax: 0, bytesReadMax: 0 };
}

async function tryImage(
  folder: MemoryFolder,
  path: string,
  random: Random,
  outcomes: Outcomes,
): Promise<void> {
  const model = modelImage(folder.files, path);
  let reader: ImageReader;
  try {
    reader = await openImage(path, { format: 'qcow2', cacheBytes: CACHE_BYTES, open: folder.open });
  } catch (error) {
    isRefusal(error);
    assert.equal(model, undefined, `refused, but the model reads it: ${String(error)}`);
    assert.equal(folder.openCount, 0, 'a refused image leaves no file open');
    outcomes.refused++;
    return;
  }
  assert.ok(model !== undefined, 'it was opened, but the model refuses it');
  assert.equal(reader.sizeBytes, model.sizeBytes);
  for (let round = 0; round < 4; round++) await readSomewhere(reader, model, random);
  if (reader.sizeBytes <= WHOLE_BYTES_MAX) await readWhole(reader, model, random, outcomes);
  await reader.close();
  assert.equal(folder.openCount, 0);
  const asked = folder.opened.reduce((sum, { reads }) => sum + reads, 0);
  const bytes = folder.opened.reduce((sum, { bytesRead }) => sum + bytesRead, 0);
  outcomes.readsMax = Math.max(outcomes.readsMax, asked);
  outcomes.bytesReadMax = Math.max(outcomes.bytesReadMax, bytes);
  assert.ok(asked < 5000 && bytes < 16 * MIB, `${asked} reads of ${bytes} bytes`);
}

function isRefusal(error: unknown): asserts error is StoreError {
  if (!isStoreError(error)) throw error;
  assert.ok(error.message.length < 1500, error.message);
}

async function readSomewhere(reader: ImageReader, model: ModelDisk, random: Random): Promise<void> {
  if (reader.sizeBytes === 0) return;
  const isAligned = random.chance(0.5);
  const at = random.below(reader.sizeBytes);
  const offset = isAligned ? at - (at % 4096) : at;
  const length = Math.min(isAligned ? 4096 : random.below(70_000), reader.sizeBytes - offset);
  await compare(reader, model, offset, length);
}

/** True if the range could be read. */
async function compare(
  reader: ImageReader,
  model: ModelDisk,
  offset: number,
  length: number,
): Promise<boolean> {
  const expected = model.read(offset, length);
  const bytes = new Uint8Array(length).fill(0xee);
  try {
    await reader.read(offset, bytes);
  } catch (error) {
    isRefusal(error);
    assert.equal(expected, undefined, `the model reads ${length} at ${offset}: ${error.message}`);
    return false;
  }
  assert.ok(expected !== undefined, `${length} bytes at ${offset} were read, the model refuses`);
  assert.ok(Buffer.compare(bytes, expected) === 0, `${length} bytes at ${offset} differ`);
  return true;
}

async function readWhole(
  reader: ImageReader,
  model: ModelDisk,
  random: Random,
  outcomes: Outcomes,
): Promise<void> {
  const isReadable = await compare(reader, model, 0, reader.sizeBytes);
  if (isReadable) outcomes.readWhole++;
  else outcomes.readInPart++;
  try {
    await walk(reader, model);
    // A fifth of them: it takes as long as all the rest.
    if (!random.chance(0.2)) return;
    await importWhole(reader, model);
    outcomes.imported++;
  } catch (error) {
    isRefusal(error);
    // Read one by one, clusters that overlap are no fault; as a whole they are.
    assert.ok(!isReadable || error.message.includes('overlap'), error.message);
  }
}

async function walk(reader: ImageReader, model: ModelDisk): Promise<void> {
  let at = 0;
  for await (const { offset, length, kind } of reader.extents()) {
    assert.ok(offset === at && length > 0);
    at += length;
    if (kind !== 'data')
      assert.ok(isAllZero(model.read(offset, length) ?? new Uint8Array(4).fill(1)));
  }
  assert.equal(at, reader.sizeBytes);
}

async function importWhole(reader: ImageReader, model: ModelDisk): Promise<void> {
  const target = new MemoryTarget({ sizeBytes: reader.sizeBytes });
  await importImage(reader, target, { isBlank: true });
  const bytes = new Uint8Array(reader.sizeBytes);
  target.read(0, bytes);
  const expected = model.read(0, reader.sizeBytes);
  assert.ok(expected !== undefined, 'what cannot be read cannot be imported');
  assert.ok(Buffer.compare(bytes, expected) === 0, 'the imported disk differs');
}

/** Every sound image is read as the model reads it. */
export async function trySoundImages(): Promise<void> {
  for (const name of NAMES) {
    const folder = newFolder();
    const model = modelImage(folder.files, `/${name}`);
    const reader = await openImage(`/${name}`, { open: folder.open });
    assert.ok(model !== undefined, name);
    assert.ok(await compare(reader, model, 0, reader.sizeBytes), name);
    await reader.close();
  }
}

/** All sound images, and the raw file that some of them are over. */
export function newFolder(): MemoryFolder {
  const folder = new MemoryFolder();
  folder.files.set('/raw', RAW);
  for (const [name, { bytes }] of SOUND) folder.files.set(`/${name}`, bytes);
  return folder;
}

export interface MutatedImage {
  readonly name: string;
  readonly bytes: Uint8Array;
}

/** IMAGES_PER_SEED images, each changed in up to three places. */
export function* mutatedImages(random: Random): Generator<MutatedImage> {
  for (let index = 0; index < IMAGES_PER_SEED; index++) {
    const name = NAMES[random.below(NAMES.length)] as string;
    const sound = SOUND.get(name) as BuiltQcow2;
    let bytes: Uint8Array = sound.bytes.slice();
    for (let count = 1 + random.below(3); count > 0; count--) bytes = mutate(bytes, sound, random);
    yield { name, bytes };
  }
}

export async function tryMutatedImages(seed: number, outcomes: Outcomes): Promise<void> {
  const random = seededRandom(seed);
  let index = 0;
  for (const { name, bytes } of mutatedImages(random)) {
    const folder = newFolder();
    folder.files.set(`/${name}`, bytes);
    try {
      await tryImage(folder, `/${name}`, random, outcomes);
    } catch (error) {
      throw new Error(`seed ${seed}, image ${index} (${name})`, { cause: error });
    }
    index++;
  }
}
