/**
 * An image as the pieces of a sparse stream: data, and zeros that take no space.
 *
 * 1. Pieces ascend and cover the whole disk, zeros too, so that the server never waits long.
 * 2. READS_AHEAD pieces are read at once; memory is bounded by them.
 */
import { isAllZero } from '../base/checksum.js';
import { BLOCK_BYTES } from '../base/units.js';
import type { SparsePiece } from '../control/sparse-stream.js';
import { PIECE_BYTES, pieces } from '../image/copy-options.js';
import type { ImageExtent, ImageReader } from '../image/image-reader.js';

const READS_AHEAD = 6;
const ZEROS = new Uint8Array(PIECE_BYTES);

export async function* imagePieces(
  reader: ImageReader,
  signal: AbortSignal,
): AsyncGenerator<SparsePiece> {
  const ahead: Promise<SparsePiece[]>[] = [];
  const free: Uint8Array[] = [];
  try {
    for await (const part of partsOf(reader)) {
      signal.throwIfAborted();
      const loading = load(reader, part, free);
      // It is awaited later, or not at all: its failure must not end the process.
      loading.catch(() => undefined);
      ahead.push(loading);
      if (ahead.length >= READS_AHEAD) yield* (await ahead.shift()) ?? [];
    }
    for (const loading of ahead) yield* await loading;
  } finally {
    // The reader is closed behind this.
    await Promise.allSettled(ahead);
  }
}

/** Extents, those of data in pieces that are read at once. */
async function* partsOf(reader: ImageReader): AsyncGenerator<ImageExtent> {
  for await (const extent of reader.extents()) {
    if (extent.kind !== 'data') yield extent;
    else for (const piece of pieces(extent.offset, extent.length)) yield { ...piece, kind: 'data' };
  }
}

async function load(
  reader: ImageReader,
  { offset, length, kind }: ImageExtent,
  free: Uint8Array[],
): Promise<SparsePiece[]> {
  if (kind !== 'data') return [{ kind: 'zero', offset, length }];
  const buffer = free.pop() ?? new Uint8Array(PIECE_BYTES);
  const bytes = buffer.subarray(0, length);
  await reader.read(offset, bytes);
  // Most of a sparse raw file: the comparison with zeros is ten times as fast as a look at each.
  if (Buffer.compare(bytes, ZEROS.subarray(0, length)) === 0) {
    free.push(buffer);
    return [{ kind: 'zero', offset, length }];
  }
  // With data the buffer is not used again: the socket may hold it while the next one is read.
  return [...runsOf(offset, bytes)];
}

/** Runs of blocks that are zeros, or not. @param bytes  a multiple of 512 */
export function* runsOf(offset: number, bytes: Uint8Array): Generator<SparsePiece> {
  let start = 0;
  let wasZero = false;
  const run = (end: number): SparsePiece =>
    wasZero
      ? { kind: 'zero', offset: offset + start, length: end - start }
      : { kind: 'data', offset: offset + start, bytes: bytes.subarray(start, end) };
  for (let at = 0; at < bytes.length; ) {
    const end = Math.min(bytes.length, at + BLOCK_BYTES - ((offset + at) % BLOCK_BYTES));
    const isZero = isAllZero(bytes.subarray(at, end));
    if (isZero !== wasZero) {
      if (at > start) yield run(at);
      start = at;
      wasZero = isZero;
    }
    at = end;
  }
  if (bytes.length > start) yield run(bytes.length);
}
