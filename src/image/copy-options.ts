/** What all copies have in common: progress, a way to stop, the size of their pieces. */
import { invariant } from '../base/invariant.js';
import { MIB } from '../base/units.js';
import type { BlockTarget } from '../vdisk/block-target.js';

export interface CopyProgress {
  /** Of the disk, from its start: copied, or found to be nothing. */
  readonly doneBytes: number;
  readonly totalBytes: number;
  /** Bytes that were written. */
  readonly writtenBytes: number;
}

export interface CopyOptions {
  /** Called after each piece; `doneBytes` only grows. */
  readonly onProgress?: (progress: CopyProgress) => void;
  /** Ends the copy with the signal's reason, after what is under way. */
  readonly signal?: AbortSignal;
}

/** Read, looked through and written at once. */
export const PIECE_BYTES = MIB;
/** Pieces under way: each has a buffer. */
export const PIECES_AT_ONCE = 6;

/** Counts pieces that end in any order, and tells about them. */
export class Progress {
  readonly #totalBytes: number;
  readonly #options: CopyOptions;
  #doneBytes = 0;
  #writtenBytes = 0;

  constructor(totalBytes: number, options: CopyOptions) {
    this.#totalBytes = totalBytes;
    this.#options = options;
  }

  get writtenBytes(): number {
    return this.#writtenBytes;
  }

  get doneBytes(): number {
    return this.#doneBytes;
  }

  add(doneBytes: number, writtenBytes: number): void {
    this.#doneBytes += doneBytes;
    this.#writtenBytes += writtenBytes;
    this.#options.onProgress?.({
      doneBytes: this.#doneBytes,
      totalBytes: Math.max(this.#totalBytes, this.#doneBytes),
      writtenBytes: this.#writtenBytes,
    });
  }
}

/** Buffers that are used again: as many as pieces are under way. */
export class Buffers {
  readonly #bytes: number;
  readonly #free: Uint8Array[] = [];

  constructor(bytes: number) {
    this.#bytes = bytes;
  }

  take(): Uint8Array {
    return this.#free.pop() ?? new Uint8Array(this.#bytes);
  }

  give(buffer: Uint8Array): void {
    this.#free.push(buffer);
  }
}

/** The range in pieces that end at multiples of `pieceBytes`. */
export function* pieces(
  offset: number,
  length: number,
  pieceBytes: number = PIECE_BYTES,
): Generator<{ readonly offset: number; readonly length: number }> {
  const end = offset + length;
  for (let at = offset; at < end; ) {
    const stop = Math.min(end, (Math.floor(at / pieceBytes) + 1) * pieceBytes);
    yield { offset: at, length: stop - at };
    at = stop;
  }
}

/** Block status is asked for so much of the disk at once. */
const STATUS_BYTES = 256 * MIB;

export interface TargetExtent {
  readonly offset: number;
  readonly length: number;
  readonly kind: 'data' | 'zero' | 'hole';
}

/** What the whole target is, in order, without gaps. */
export async function* targetExtents(
  target: BlockTarget,
  signal: AbortSignal | undefined,
): AsyncGenerator<TargetExtent> {
  const end = target.sizeBytes;
  for (let at = 0; at < end; ) {
    signal?.throwIfAborted();
    // An answer may end before what was asked for does.
    const extents = await target.blockStatus(at, Math.min(STATUS_BYTES, end - at));
    invariant(extents.length > 0, 'block status of a range says something');
    for (const extent of extents) {
      const { offset, length, kind } = extent;
      yield { offset, length, kind };
      at = offset + length;
    }
  }
}
