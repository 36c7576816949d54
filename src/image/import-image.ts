/**
 * Copies an image into a vdisk, sparsely.
 *
 * 1. When it resolves, every byte of the image is in the target, durably (one FLUSH at the end).
 * 2. When it rejects, nothing is under way any more. What was copied by then stays: whoever has
 *    made the target for this deletes it.
 * 3. Memory: PIECES_AT_ONCE buffers of PIECE_BYTES, whatever the image.
 */
import { StoreError } from '../base/store-error.js';
import { formatBytes } from '../base/units.js';
import type { BlockTarget } from '../vdisk/block-target.js';
import {
  Buffers,
  type CopyOptions,
  PIECE_BYTES,
  PIECES_AT_ONCE,
  Progress,
  pieces,
} from './copy-options.js';
import type { ImageReader } from './image-reader.js';
import { inFlight } from './in-flight.js';
import { TargetWriter } from './target-writer.js';

export interface ImportOptions extends CopyOptions {
  /** The target reads as zeros everywhere, as a new vdisk does: zeros need not be written. */
  readonly isBlank?: boolean;
}

export interface CopyReport {
  /** Of the disk. */
  readonly sizeBytes: number;
  readonly writtenBytes: number;
}

/**
 * Copies the whole image to the start of the target; bytes of the target behind it stay.
 *
 * @throws {StoreError} invalid (the target is smaller), and what reader and target throw
 * @throws the signal's reason
 */
export async function importImage(
  reader: ImageReader,
  target: BlockTarget,
  options: ImportOptions = {},
): Promise<CopyReport> {
  const { sizeBytes } = reader;
  checkFits(reader.name, sizeBytes, target);
  const { signal } = options;
  const isBlank = options.isBlank ?? false;
  const writer = new TargetWriter(target, isBlank);
  const progress = new Progress(sizeBytes, options);
  const buffers = new Buffers(PIECE_BYTES);
  await inFlight(PIECES_AT_ONCE, async (flight) => {
    for await (const extent of reader.extents()) {
      signal?.throwIfAborted();
      if (extent.kind !== 'data') {
        if (!isBlank) await flight.begin(() => writer.zero(extent.offset, extent.length));
        progress.add(extent.length, 0);
        continue;
      }
      for (const { offset, length } of pieces(extent.offset, extent.length)) {
        signal?.throwIfAborted();
        await flight.begin(async () => {
          const buffer = buffers.take();
          const piece = buffer.subarray(0, length);
          await reader.read(offset, piece);
          progress.add(length, await writer.write(offset, piece));
          buffers.give(buffer);
        });
      }
    }
  });
  await target.flush();
  return { sizeBytes, writtenBytes: progress.writtenBytes };
}

/** @throws {StoreError} invalid */
export function checkFits(name: string, sizeBytes: number, target: BlockTarget): void {
  if (sizeBytes <= target.sizeBytes) return;
  const message = `${name} has ${sizeBytes} bytes (${formatBytes(sizeBytes)}), ${target.name} only`;
  throw new StoreError('invalid', `${message} ${target.sizeBytes}: make it larger`);
}
