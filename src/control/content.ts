/**
 * Content of a vdisk as streams: extents, pieces, raw bytes, and the way back.
 *
 * 1. Memory is bounded: one buffer of COPY_BYTES read, or WRITES_IN_FLIGHT of them on their way.
 * 2. Blocks of zeros take no space: they are written as zeros, and into a new vdisk not at all.
 */
import { isAllZero } from '../base/checksum.js';
import { StoreError } from '../base/store-error.js';
import { BLOCK_BYTES, GIB, MIB, VDISK_BYTES_MAX } from '../base/units.js';
import type { BlockTarget, Extent } from '../vdisk/block-target.js';
import type { SparsePiece } from './sparse-stream.js';

const COPY_BYTES = MIB;
const WRITES_IN_FLIGHT = 4;
/** Asked of block status at once; more where it found one extent only. */
const WINDOW_BYTES_MIN = 64 * MIB;
const WINDOW_BYTES_MAX = 64 * GIB;

/** Extents of [offset, offset + length), without gaps; neighbours of one kind are one. */
export async function* extentsOf(
  target: BlockTarget,
  offset: number,
  length: number,
): AsyncGenerator<Extent> {
  const end = offset + length;
  let windowBytes = WINDOW_BYTES_MIN;
  let last: Extent | undefined;
  for (let at = offset; at < end; ) {
    const extents = await target.blockStatus(at, Math.min(windowBytes, end - at));
    for (const extent of extents) {
      if (last !== undefined && isAlike(last, extent)) {
        last = { ...last, length: last.length + extent.length };
      } else {
        if (last !== undefined) yield last;
        last = extent;
      }
      at = extent.offset + extent.length;
    }
    if (extents.length === 0) break;
    windowBytes =
      extents.length === 1 ? Math.min(windowBytes * 8, WINDOW_BYTES_MAX) : WINDOW_BYTES_MIN;
  }
  if (last !== undefined) yield last;
}

function isAlike(a: Extent, b: Extent): boolean {
  return a.kind === b.kind && a.depth === b.depth && a.filled === b.filled;
}

/** The range as data and zeros. Bytes of a piece are of no use after the next one was taken. */
export async function* readPieces(
  target: BlockTarget,
  offset: number,
  length: number,
): AsyncGenerator<SparsePiece> {
  const buffer = new Uint8Array(COPY_BYTES);
  for await (const extent of extentsOf(target, offset, length)) {
    if (extent.kind !== 'data') {
      yield { kind: 'zero', offset: extent.offset, length: extent.length };
      continue;
    }
    const end = extent.offset + extent.length;
    for (let at = extent.offset; at < end; at += buffer.length) {
      const bytes = buffer.subarray(0, Math.min(buffer.length, end - at));
      await target.read(at, bytes);
      yield { kind: 'data', offset: at, bytes };
    }
  }
}

/** The pieces byte by byte. */
export async function* rawBytes(pieces: AsyncIterable<SparsePiece>): AsyncGenerator<Uint8Array> {
  const zeros = new Uint8Array(COPY_BYTES);
  for await (const piece of pieces) {
    if (piece.kind === 'data') {
      // The socket may hold it while the next piece is read.
      yield piece.bytes.slice();
      continue;
    }
    for (let rest = piece.length; rest > 0; rest -= zeros.length) {
      yield rest < zeros.length ? zeros.subarray(0, rest) : zeros;
    }
  }
}

export async function* copied(pieces: AsyncIterable<SparsePiece>): AsyncGenerator<SparsePiece> {
  for await (const piece of pieces) {
    yield piece.kind === 'data' ? { ...piece, bytes: piece.bytes.slice() } : piece;
  }
}

/** Raw bytes as pieces, from `offset` on. */
export async function* rawPieces(
  chunks: AsyncIterable<Uint8Array>,
  offset: number,
): AsyncGenerator<SparsePiece> {
  let at = offset;
  for await (const bytes of chunks) {
    yield { kind: 'data', offset: at, bytes };
    at += bytes.length;
  }
}

/** What a vdisk that grows with its stream begins with. */
export const GROWTH_BYTES_MIN = 64 * MIB;

/**
 * The size that such a vdisk gets to hold this byte's neighbours: a power of two, as the borders
 * between the heights of trees are, so that no tree is higher than its content.
 */
function grownSize(endOffset: number): number {
  let sizeBytes = GROWTH_BYTES_MIN;
  while (sizeBytes < endOffset) sizeBytes *= 2;
  return sizeBytes;
}

export interface PieceWriterOptions {
  /** It reads as zeros: none are written. */
  readonly isNew: boolean;
  /** Gives the target this size; without it, what goes beyond the end is refused. */
  readonly grow?: ((sizeBytes: number) => Promise<void>) | undefined;
}

export interface WriteProgress {
  dataBytes: number;
  zeroBytes: number;
  /** Everything before it has been taken. */
  position: number;
}

/** Writes pieces, which ascend, to a vdisk. */
export class PieceWriter {
  readonly #target: BlockTarget;
  readonly #isNew: boolean;
  readonly #grow: PieceWriterOptions['grow'];
  readonly progress: WriteProgress = { dataBytes: 0, zeroBytes: 0, position: 0 };
  readonly #free: Uint8Array[] = [];
  readonly #writes = new Set<Promise<void>>();
  #failure: { readonly error: unknown } | undefined;
  #buffer: Uint8Array = new Uint8Array(COPY_BYTES);
  #start = 0;
  #filled = 0;

  constructor(target: BlockTarget, { isNew, grow }: PieceWriterOptions) {
    this.#target = target;
    this.#isNew = isNew;
    this.#grow = grow;
  }

  /** Everything is written, and durable, when it resolves. What `pieces` throws is thrown. */
  async run(pieces: AsyncIterable<SparsePiece>): Promise<void> {
    try {
      for await (const piece of pieces) {
        if (piece.kind === 'zero') await this.#zero(piece.offset, piece.length);
        else await this.#data(piece.offset, piece.bytes);
      }
      await this.#flushBuffer();
    } finally {
      await Promise.all(this.#writes);
    }
    this.#throwFailure();
    await this.#target.flush();
  }

  /** @throws {StoreError} invalid */
  async #makeRoom(endOffset: number): Promise<void> {
    const { name, sizeBytes } = this.#target;
    if (this.#grow === undefined) {
      const message = `${name} has ${sizeBytes} bytes, and the stream goes on beyond them`;
      throw new StoreError('invalid', message);
    }
    if (endOffset > VDISK_BYTES_MAX) {
      const message = `the stream goes on beyond ${VDISK_BYTES_MAX} bytes, as no vdisk does`;
      throw new StoreError('invalid', message);
    }
    // Nobody writes while the size changes.
    await Promise.all(this.#writes);
    this.#throwFailure();
    await this.#grow(grownSize(endOffset));
  }

  async #data(offset: number, bytes: Uint8Array): Promise<void> {
    const end = offset + bytes.length;
    if (end > this.#target.sizeBytes) await this.#makeRoom(end);
    for (let taken = 0; taken < bytes.length; ) {
      const at = offset + taken;
      if (this.#filled > 0 && at !== this.#start + this.#filled) await this.#flushBuffer();
      if (this.#filled === 0) this.#start = at;
      // A buffer ends where blocks end, so that the next one begins with one.
      const room = COPY_BYTES - (this.#start % BLOCK_BYTES) - this.#filled;
      const part = bytes.subarray(taken, taken + room);
      this.#buffer.set(part, this.#filled);
      this.#filled += part.length;
      taken += part.length;
      if (part.length === room) await this.#flushBuffer();
    }
  }

  async #zero(offset: number, length: number): Promise<void> {
    const end = offset + length;
    if (end > this.#target.sizeBytes) await this.#makeRoom(end);
    await this.#flushBuffer();
    this.progress.zeroBytes += length;
    this.progress.position = end;
    if (!this.#isNew) await this.#begin(() => this.#target.writeZeroes(offset, length));
  }

  /** Hands the buffer over, as runs of data and of zeros. */
  async #flushBuffer(): Promise<void> {
    const length = this.#filled;
    if (length === 0) return;
    const buffer = this.#buffer;
    const start = this.#start;
    this.#filled = 0;
    this.#buffer = this.#free.pop() ?? new Uint8Array(COPY_BYTES);
    await this.#begin(async () => {
      for (const run of runsOf(buffer.subarray(0, length), start)) {
        const bytes = buffer.subarray(run.from, run.to);
        if (!run.isZero) await this.#target.write(start + run.from, bytes);
        else if (!this.#isNew) await this.#target.writeZeroes(start + run.from, bytes.length);
        if (run.isZero) this.progress.zeroBytes += bytes.length;
        else this.progress.dataBytes += bytes.length;
      }
      this.#free.push(buffer);
    });
    this.progress.position = start + length;
  }

  /** Begins a write when one of those under way has ended. */
  async #begin(write: () => void | Promise<void>): Promise<void> {
    while (this.#writes.size >= WRITES_IN_FLIGHT) await Promise.race(this.#writes);
    this.#throwFailure();
    const done: Promise<void> = this.#run(write).finally(() => this.#writes.delete(done));
    this.#writes.add(done);
  }

  async #run(write: () => void | Promise<void>): Promise<void> {
    try {
      await write();
    } catch (error) {
      this.#failure ??= { error };
    }
  }

  #throwFailure(): void {
    if (this.#failure !== undefined) throw this.#failure.error;
  }
}

interface Run {
  readonly from: number;
  readonly to: number;
  readonly isZero: boolean;
}

/** Cuts the bytes at blocks of the vdisk into runs of zeros and of anything else. */
function* runsOf(bytes: Uint8Array, offset: number): Generator<Run> {
  let run: Run | undefined;
  for (let from = 0; from < bytes.length; ) {
    const to = Math.min(bytes.length, from + BLOCK_BYTES - ((offset + from) % BLOCK_BYTES));
    const isWhole = to - from === BLOCK_BYTES && (bytes.byteOffset + from) % 4 === 0;
    const isZero = isWhole && isAllZero(bytes.subarray(from, to));
    if (run?.isZero === isZero) {
      run = { ...run, to };
    } else {
      if (run !== undefined) yield run;
      run = { from, to, isZero };
    }
    from = to;
  }
  if (run !== undefined) yield run;
}
