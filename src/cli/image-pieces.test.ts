import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MIB } from '../base/units.js';
import type { SparsePiece } from '../control/sparse-stream.js';
import { seededRandom } from '../env/seeded-random.js';
import type { ImageExtent, ImageReader } from '../image/image-reader.js';
import { imagePieces, runsOf } from './image-pieces.js';

const NEVER = new AbortController().signal;

/** An image in memory whose extents are those given. */
class MemoryImage implements ImageReader {
  readonly name = 'image';
  readonly format = 'raw';
  readonly notes: readonly string[] = [];
  readonly bytes: Uint8Array;
  readonly #extents: readonly ImageExtent[];
  readsUnderWay = 0;
  readsMost = 0;
  failAt = Number.POSITIVE_INFINITY;

  constructor(bytes: Uint8Array, extents: readonly ImageExtent[]) {
    this.bytes = bytes;
    this.#extents = extents;
  }

  get sizeBytes(): number {
    return this.bytes.length;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    this.readsMost = Math.max(this.readsMost, ++this.readsUnderWay);
    await new Promise((resolve) => setImmediate(resolve));
    this.readsUnderWay--;
    if (offset >= this.failAt) throw new Error(`read at ${offset}`);
    into.set(this.bytes.subarray(offset, offset + into.length));
  }

  async *extents(): AsyncGenerator<ImageExtent> {
    yield* this.#extents;
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

/** The disk that the pieces make; they have to ascend without gaps. */
async function diskOf(pieces: AsyncIterable<SparsePiece>, sizeBytes: number): Promise<Uint8Array> {
  const disk = new Uint8Array(sizeBytes);
  let end = 0;
  for await (const piece of pieces) {
    assert.equal(piece.offset, end);
    if (piece.kind === 'data') disk.set(piece.bytes, piece.offset);
    end += piece.kind === 'data' ? piece.bytes.length : piece.length;
  }
  assert.equal(end, sizeBytes);
  return disk;
}

function newImage(): MemoryImage {
  const bytes = new Uint8Array(24 * MIB + 512);
  const random = seededRandom(1);
  random.fill(bytes.subarray(0, 3 * MIB));
  random.fill(bytes.subarray(9 * MIB + 8192, 9 * MIB + 12_288));
  random.fill(bytes.subarray(20 * MIB));
  const extents: readonly (readonly [number, ImageExtent['kind']])[] = [
    [0, 'data'],
    [4 * MIB, 'hole'],
    [8 * MIB, 'zero'],
    [9 * MIB, 'data'],
    [bytes.length, 'data'],
  ];
  return new MemoryImage(
    bytes,
    extents.slice(0, -1).map(([offset, kind], index) => {
      return { offset, kind, length: (extents[index + 1]?.[0] ?? 0) - offset };
    }),
  );
}

test('the pieces of an image are its disk, in order, with zeros as zeros', async () => {
  const image = newImage();
  let zeroBytes = 0;
  const counted = async function* (): AsyncGenerator<SparsePiece> {
    for await (const piece of imagePieces(image, NEVER)) {
      if (piece.kind === 'zero') zeroBytes += piece.length;
      yield piece;
    }
  };
  assert.deepEqual(await diskOf(counted(), image.sizeBytes), image.bytes);
  assert.equal(zeroBytes, 17 * MIB - 4096);
  assert.ok(image.readsMost > 1 && image.readsMost <= 6, `${image.readsMost} reads at once`);
});

test('a read that fails, and an interruption, end it with nothing under way', async () => {
  const image = newImage();
  image.failAt = 10 * MIB;
  await assert.rejects(diskOf(imagePieces(image, NEVER), image.sizeBytes), /read at 10485760/);
  assert.equal(image.readsUnderWay, 0);
  image.failAt = Number.POSITIVE_INFINITY;
  const abort = new AbortController();
  const pieces = imagePieces(image, abort.signal);
  await pieces.next();
  abort.abort(new Error('ended'));
  await assert.rejects(
    diskOf(pieces, image.sizeBytes).catch((error: unknown) => {
      if (error instanceof assert.AssertionError) return pieces.next();
      throw error;
    }),
    /ended/,
  );
  assert.equal(image.readsUnderWay, 0);
});

test('runs begin and end where blocks of the vdisk do', () => {
  const bytes = new Uint8Array(4 * 4096);
  bytes.fill(1, 4096, 4097);
  bytes.fill(1, 4 * 4096 - 1);
  const runs = [...runsOf(512, bytes)].map((piece) => [piece.kind, piece.offset]);
  assert.deepEqual(runs, [
    ['zero', 512],
    ['data', 4096],
    ['zero', 8192],
    ['data', 16_384],
  ]);
  assert.deepEqual(
    [...runsOf(0, new Uint8Array(8192))],
    [{ kind: 'zero', offset: 0, length: 8192 }],
  );
});
