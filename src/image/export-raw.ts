/**
 * Copies a vdisk or snapshot out, as a raw image.
 *
 * 1. To a file only what is not zeros is written: the rest are the file's own holes. To a block
 *    device zeros are written, as it has old bytes. To a pipe every byte goes, in order.
 * 2. When it resolves, a file or device is synced. When it rejects, nothing is under way any more;
 *    the caller closes the sink, or discards what was begun.
 * 3. A target that is written meanwhile gives a mixture of old and new: export a snapshot.
 */
import { isAllZero } from '../base/checksum.js';
import { StoreError } from '../base/store-error.js';
import { BLOCK_BYTES } from '../base/units.js';
import type { FileSink, StreamSink } from '../env/file-sink.js';
import type { BlockTarget } from '../vdisk/block-target.js';
import {
  Buffers,
  type CopyOptions,
  PIECE_BYTES,
  PIECES_AT_ONCE,
  Progress,
  pieces,
  targetExtents,
} from './copy-options.js';
import type { CopyReport } from './import-image.js';
import { inFlight, inOrder } from './in-flight.js';

/**
 * @throws {StoreError} invalid (a block device is too small), device, and what the target throws
 * @throws the signal's reason
 */
export async function exportRaw(
  target: BlockTarget,
  sink: FileSink | StreamSink,
  options: CopyOptions = {},
): Promise<CopyReport> {
  const progress = new Progress(target.sizeBytes, options);
  const { sizeBytes } = target;
  if (sink.kind === 'stream') await toStream(target, sink, progress, options.signal);
  else await toFile(target, sink, progress, options.signal);
  return { sizeBytes, writtenBytes: progress.writtenBytes };
}

async function toFile(
  target: BlockTarget,
  sink: FileSink,
  progress: Progress,
  signal: AbortSignal | undefined,
): Promise<void> {
  const { sizeBytes } = target;
  if (sink.capacityBytes !== undefined && sink.capacityBytes < sizeBytes) {
    const message = `${sink.name} has ${sink.capacityBytes} bytes, ${target.name} ${sizeBytes}`;
    throw new StoreError('invalid', `${message}: it does not fit`);
  }
  await sink.setSize(sizeBytes);
  const buffers = new Buffers(PIECE_BYTES);
  await inFlight(PIECES_AT_ONCE, async (flight) => {
    for await (const { offset, length, kind } of targetExtents(target, signal)) {
      if (kind !== 'data' && sink.isBlank) {
        progress.add(length, 0);
        continue;
      }
      for (const piece of pieces(offset, length)) {
        signal?.throwIfAborted();
        await flight.begin(async () => {
          const buffer = buffers.take();
          const bytes = buffer.subarray(0, piece.length);
          if (kind === 'data') await target.read(piece.offset, bytes);
          else bytes.fill(0);
          progress.add(piece.length, await writePiece(sink, piece.offset, bytes));
          buffers.give(buffer);
        });
      }
    }
  });
  await sink.sync();
}

/** Leaves blocks of zeros out, if the sink has them already; gives the count of bytes written. */
async function writePiece(sink: FileSink, offset: number, bytes: Uint8Array): Promise<number> {
  if (!sink.isBlank) {
    await sink.write(offset, bytes);
    return bytes.length;
  }
  let written = 0;
  for (let at = 0; at < bytes.length; ) {
    let end = at;
    while (end < bytes.length && !isZeroBlock(bytes, end)) end += BLOCK_BYTES;
    end = Math.min(end, bytes.length);
    if (end > at) {
      await sink.write(offset + at, bytes.subarray(at, end));
      written += end - at;
    }
    at = end;
    while (at < bytes.length && isZeroBlock(bytes, at)) at += BLOCK_BYTES;
  }
  return written;
}

function isZeroBlock(bytes: Uint8Array, at: number): boolean {
  return isAllZero(bytes.subarray(at, at + BLOCK_BYTES));
}

interface Piece {
  readonly offset: number;
  readonly length: number;
  readonly isData: boolean;
}

async function* piecesOf(
  target: BlockTarget,
  signal: AbortSignal | undefined,
): AsyncGenerator<Piece> {
  for await (const { offset, length, kind } of targetExtents(target, signal)) {
    for (const piece of pieces(offset, length)) yield { ...piece, isData: kind === 'data' };
  }
}

async function toStream(
  target: BlockTarget,
  sink: StreamSink,
  progress: Progress,
  signal: AbortSignal | undefined,
): Promise<void> {
  const buffers = new Buffers(PIECE_BYTES);
  const zeros = new Uint8Array(PIECE_BYTES);
  const load = async ({ offset, length, isData }: Piece): Promise<Uint8Array> => {
    if (!isData) return zeros.subarray(0, length);
    const buffer = buffers.take();
    await target.read(offset, buffer.subarray(0, length));
    return buffer.subarray(0, length);
  };
  await inOrder(PIECES_AT_ONCE, piecesOf(target, signal), load, async (bytes) => {
    signal?.throwIfAborted();
    await sink.write(bytes);
    progress.add(bytes.length, bytes.length);
    if (bytes.buffer !== zeros.buffer) buffers.give(new Uint8Array(bytes.buffer));
  });
}
