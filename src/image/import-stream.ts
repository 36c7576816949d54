/**
 * Copies a raw disk from a pipe into a vdisk, sparsely: bytes that come once, in order.
 *
 * 1. and 2. as import-image.ts says.
 * 3. The stream must have as many bytes as were announced: one that ends early has lost its end.
 *    Without an announcement the target grows with it (`resize`), and nothing can be missed.
 * 4. qcow2 does not come through a pipe: its tables may stand at the end.
 */
import { StoreError } from '../base/store-error.js';
import { GIB } from '../base/units.js';
import type { BlockTarget } from '../vdisk/block-target.js';
import {
  Buffers,
  type CopyOptions,
  PIECE_BYTES,
  PIECES_AT_ONCE,
  Progress,
} from './copy-options.js';
import { refusedFormat } from './foreign-formats.js';
import { type CopyReport, checkFits } from './import-image.js';
import { type InFlight, inFlight } from './in-flight.js';
import { toSectors } from './raw-image.js';
import { TargetWriter } from './target-writer.js';

export interface ImportStreamOptions extends CopyOptions {
  /** The target reads as zeros everywhere, as a new vdisk does. */
  readonly isBlank?: boolean;
  /** Bytes that will come. Default: as many as the target has, unless it is to grow. */
  readonly sizeBytes?: number;
  /** Gives the target this size; called as the stream goes on, and at its end. */
  readonly resize?: (sizeBytes: number) => Promise<void>;
  /** The bytes are the disk, whatever they look like. */
  readonly format?: 'raw';
}

export interface NamedStream {
  readonly name: string;
  readonly chunks: AsyncIterable<Uint8Array>;
}

/** By how much the target grows ahead of the stream at least. */
const GROWTH_BYTES_MIN = GIB;
/** Enough to tell the formats that are not read from a pipe. */
const MARK_BYTES = 68;

/**
 * @throws {StoreError} invalid (the stream is too short or too long), unsupported (it looks like
 * another format), device (it broke), and what the target throws
 * @throws the signal's reason
 */
export async function importStream(
  stream: NamedStream,
  target: BlockTarget,
  options: ImportStreamOptions = {},
): Promise<CopyReport> {
  const growing = options.sizeBytes === undefined ? options.resize : undefined;
  const announced = options.sizeBytes ?? (growing === undefined ? target.sizeBytes : undefined);
  if (announced !== undefined) checkFits(stream.name, announced, target);
  const writer = new TargetWriter(target, options.isBlank ?? false);
  const progress = new Progress(announced ?? 0, options);
  const buffers = new Buffers(PIECE_BYTES);
  let streamBytes = 0;
  const copy = async (flight: InFlight): Promise<void> => {
    for await (const { buffer, length } of gather(stream, buffers, options.signal)) {
      const offset = streamBytes;
      if (offset === 0 && options.format === undefined) checkMark(stream.name, buffer, length);
      streamBytes += length;
      if (announced !== undefined && streamBytes > announced) throw tooLong(stream, announced);
      const sizeBytes = toSectors(streamBytes);
      if (growing !== undefined && sizeBytes > target.sizeBytes) {
        // Nobody writes while the size changes.
        await flight.settle();
        await growing(sizeBytes + Math.max(GROWTH_BYTES_MIN, sizeBytes));
      }
      await flight.begin(async () => {
        buffer.fill(0, length, toSectors(length));
        const piece = buffer.subarray(0, toSectors(length));
        progress.add(length, await writer.write(offset, piece));
        buffers.give(buffer);
      });
    }
  };
  await inFlight(PIECES_AT_ONCE, copy);
  if (announced !== undefined && streamBytes < announced)
    throw tooShort(stream, streamBytes, announced);
  if (growing !== undefined) {
    if (streamBytes === 0) throw new StoreError('invalid', `${stream.name} ended without a byte`);
    await growing(toSectors(streamBytes));
  }
  await target.flush();
  return { sizeBytes: toSectors(streamBytes), writtenBytes: progress.writtenBytes };
}

/** The stream's bytes in full pieces, but for the last. */
async function* gather(
  stream: NamedStream,
  buffers: Buffers,
  signal: AbortSignal | undefined,
): AsyncGenerator<{ readonly buffer: Uint8Array; readonly length: number }> {
  let buffer = buffers.take();
  let filled = 0;
  for await (const chunk of untilAborted(stream.chunks, signal)) {
    for (let at = 0; at < chunk.length; ) {
      const some = chunk.subarray(at, at + PIECE_BYTES - filled);
      buffer.set(some, filled);
      filled += some.length;
      at += some.length;
      if (filled < PIECE_BYTES) continue;
      yield { buffer, length: filled };
      buffer = buffers.take();
      filled = 0;
    }
  }
  if (filled > 0) yield { buffer, length: filled };
}

/** The chunks; the signal ends the wait for one that does not come. */
async function* untilAborted(
  chunks: AsyncIterable<Uint8Array>,
  signal: AbortSignal | undefined,
): AsyncGenerator<Uint8Array> {
  let stopWaiting: () => void = () => undefined;
  const onAbort = (): void => stopWaiting();
  signal?.addEventListener('abort', onAbort);
  const iterator = chunks[Symbol.asyncIterator]();
  try {
    for (;;) {
      signal?.throwIfAborted();
      // Not Promise.race: what it leaves on a promise that lives long adds up, chunk by chunk.
      const next = await new Promise<IteratorResult<Uint8Array> | undefined>((resolve, reject) => {
        stopWaiting = () => resolve(undefined);
        iterator.next().then(resolve, reject);
      });
      signal?.throwIfAborted();
      if (next === undefined || next.done === true) return;
      yield next.value;
    }
  } finally {
    signal?.removeEventListener('abort', onAbort);
    const ended = iterator.return?.();
    // A chunk that is waited for may never come: then the stream ends when its owner closes it.
    if (signal?.aborted === true) ended?.catch(() => undefined);
    else await ended;
  }
}

function checkMark(name: string, first: Uint8Array, length: number): void {
  const mark = first.subarray(0, Math.min(length, MARK_BYTES));
  const isQcow2 = mark[0] === 0x51 && mark[1] === 0x46 && mark[2] === 0x49 && mark[3] === 0xfb;
  const format = isQcow2 ? 'qcow2' : refusedFormat(mark);
  if (format === undefined) return;
  const what = `${name}: this looks like ${format}, and from a pipe only raw disks are read`;
  const next = isQcow2 ? 'save it to a file and import that' : 'unpack or convert it first';
  throw new StoreError('unsupported', `${what}: ${next}; or say format raw`);
}

function tooShort(stream: NamedStream, streamBytes: number, announced: number): StoreError {
  const message = `${stream.name} ended after ${streamBytes} of ${announced} bytes`;
  return new StoreError('invalid', `${message}: the disk is not whole; send it again`);
}

function tooLong(stream: NamedStream, announced: number): StoreError {
  const message = `${stream.name} has more than the ${announced} bytes that were announced`;
  return new StoreError('invalid', `${message}: send it again with its right size`);
}
