/**
 * A vdisk in memory, for tests of the servers: sparse, every call done at once.
 *
 * 1. Bytes that were never written, or were trimmed or zeroed as whole pieces, take no memory.
 * 2. It checks ranges and read-only as a vdisk does, and throws the same StoreErrors.
 */
import { StoreError } from '../../src/base/store-error.js';
import type { BlockTarget, Extent, WriteOptions } from '../../src/vdisk/block-target.js';

const PIECE_BYTES = 4096;

export interface MemoryTargetOptions {
  readonly name?: string;
  readonly sizeBytes: number;
  readonly readOnly?: boolean;
  /** Pieces that may be mapped; a write that needs more fails with out-of-space. */
  readonly piecesMax?: number;
}

export class MemoryTarget implements BlockTarget {
  readonly name: string;
  sizeBytes: number;
  readOnly: boolean;
  isClosed = false;
  readonly #piecesMax: number;
  readonly #pieces = new Map<number, Uint8Array>();

  constructor(options: MemoryTargetOptions) {
    this.name = options.name ?? 'memory';
    this.sizeBytes = options.sizeBytes;
    this.readOnly = options.readOnly ?? false;
    this.#piecesMax = options.piecesMax ?? Number.POSITIVE_INFINITY;
  }

  read(offset: number, into: Uint8Array): void {
    this.#check(offset, into.length);
    let done = 0;
    while (done < into.length) {
      const start = (offset + done) % PIECE_BYTES;
      const length = Math.min(PIECE_BYTES - start, into.length - done);
      const piece = this.#pieces.get((offset + done - start) / PIECE_BYTES);
      if (piece === undefined) into.fill(0, done, done + length);
      else into.set(length === PIECE_BYTES ? piece : piece.subarray(start, start + length), done);
      done += length;
    }
  }

  write(offset: number, data: Uint8Array): void {
    this.#checkWrite(offset, data.length);
    this.#checkSpace(offset, data.length);
    let done = 0;
    while (done < data.length) {
      const start = (offset + done) % PIECE_BYTES;
      const length = Math.min(PIECE_BYTES - start, data.length - done);
      const index = (offset + done - start) / PIECE_BYTES;
      const part = length === data.length ? data : data.subarray(done, done + length);
      this.#pieceAt(index).set(part, start);
      done += length;
    }
  }

  trim(offset: number, length: number): void {
    this.writeZeroes(offset, length);
  }

  writeZeroes(offset: number, length: number): void {
    this.#checkWrite(offset, length);
    const end = offset + length;
    for (const index of this.#mappedBetween(offset, end)) {
      const start = Math.max(offset - index * PIECE_BYTES, 0);
      const stop = Math.min(end - index * PIECE_BYTES, PIECE_BYTES);
      if (stop - start === PIECE_BYTES) this.#pieces.delete(index);
      else this.#pieces.get(index)?.fill(0, start, stop);
    }
  }

  flush(): Promise<void> {
    this.#check(0, 0);
    return Promise.resolve();
  }

  /** Goes from one mapped piece to the next: terabytes of nothing cost nothing. */
  blockStatus(
    offset: number,
    length: number,
    extentsMax = Number.POSITIVE_INFINITY,
  ): Promise<Extent[]> {
    this.#check(offset, length);
    const extents: Extent[] = [];
    const end = offset + length;
    const push = (from: number, to: number, kind: 'data' | 'hole'): void => {
      const last = extents.at(-1);
      if (last?.kind === kind) extents.pop();
      const start = last?.kind === kind ? last.offset : from;
      extents.push({ offset: start, length: to - start, kind, depth: 0, filled: false });
    };
    let at = offset;
    for (const index of this.#mappedBetween(offset, end)) {
      if (extents.length >= extentsMax) return Promise.resolve(extents);
      const start = Math.max(index * PIECE_BYTES, offset);
      if (start > at) push(at, start, 'hole');
      if (extents.length >= extentsMax) return Promise.resolve(extents);
      at = Math.min((index + 1) * PIECE_BYTES, end);
      push(start, at, 'data');
    }
    if (at < end && extents.length < extentsMax) push(at, end, 'hole');
    return Promise.resolve(extents);
  }

  #mappedBetween(offset: number, end: number): number[] {
    const first = Math.floor(offset / PIECE_BYTES);
    const behind = Math.ceil(end / PIECE_BYTES);
    if (behind - first < this.#pieces.size) {
      const indexes = Array.from({ length: behind - first }, (_, index) => first + index);
      return indexes.filter((index) => this.#pieces.has(index));
    }
    const indexes = [...this.#pieces.keys()].filter((index) => index >= first && index < behind);
    return indexes.sort((a, b) => a - b);
  }

  #pieceAt(index: number): Uint8Array {
    let piece = this.#pieces.get(index);
    if (piece === undefined) {
      piece = new Uint8Array(PIECE_BYTES);
      this.#pieces.set(index, piece);
    }
    return piece;
  }

  #checkSpace(offset: number, length: number): void {
    if (this.#piecesMax === Number.POSITIVE_INFINITY) return;
    let needed = 0;
    const last = Math.floor((offset + length - 1) / PIECE_BYTES);
    for (let index = Math.floor(offset / PIECE_BYTES); index <= last; index++) {
      if (!this.#pieces.has(index)) needed++;
    }
    if (this.#pieces.size + needed > this.#piecesMax) {
      throw new StoreError('out-of-space', `'${this.name}': no space for ${length} bytes`);
    }
  }

  #checkWrite(offset: number, length: number): void {
    this.#check(offset, length);
    if (this.readOnly) throw new StoreError('read-only', `'${this.name}' is read-only`);
  }

  #check(offset: number, length: number): void {
    if (this.isClosed) throw new StoreError('closed', `'${this.name}' is closed`);
    if (offset + length > this.sizeBytes) {
      throw new StoreError('invalid', `'${this.name}': ${length} bytes at ${offset} end beyond it`);
    }
  }
}

/** Work that a DeferredTarget has been asked for and has not done. */
export interface DeferredWork {
  readonly act: string;
  /** Does it now, on the disk as it is now. */
  finish(): void;
  fail(error: Error): void;
}

/** A disk of which the test says when it does what: every call waits in `waiting`. */
export class DeferredTarget implements BlockTarget {
  readonly disk: MemoryTarget;
  readonly waiting: DeferredWork[] = [];

  constructor(disk: MemoryTarget) {
    this.disk = disk;
  }

  get name(): string {
    return this.disk.name;
  }

  get sizeBytes(): number {
    return this.disk.sizeBytes;
  }

  get readOnly(): boolean {
    return this.disk.readOnly;
  }

  read(offset: number, into: Uint8Array): Promise<void> {
    return this.#defer('read', () => this.disk.read(offset, into));
  }

  write(offset: number, data: Uint8Array, options?: WriteOptions): Promise<void> {
    return this.#defer(actOf('write', options), () => this.disk.write(offset, data));
  }

  trim(offset: number, length: number, options?: WriteOptions): Promise<void> {
    return this.#defer(actOf('trim', options), () => this.disk.trim(offset, length));
  }

  writeZeroes(offset: number, length: number, options?: WriteOptions): Promise<void> {
    return this.#defer(actOf('zeroes', options), () => this.disk.writeZeroes(offset, length));
  }

  flush(): Promise<void> {
    return this.#defer('flush', () => undefined);
  }

  async blockStatus(offset: number, length: number, extentsMax?: number): Promise<Extent[]> {
    await this.#defer('status', () => undefined);
    return this.disk.blockStatus(offset, length, extentsMax);
  }

  /** Finishes everything that waits, and what that brings about. */
  async finishAll(): Promise<void> {
    while (this.waiting.length > 0) {
      for (const work of this.waiting.splice(0)) work.finish();
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  #defer(act: string, work: () => void): Promise<void> {
    return new Promise((resolve, reject) => {
      const finish = (): void => {
        try {
          work();
          resolve();
        } catch (error) {
          reject(error instanceof Error ? error : new Error(String(error)));
        }
      };
      this.waiting.push({ act, finish, fail: reject });
    });
  }
}

function actOf(act: string, options: WriteOptions | undefined): string {
  return options?.fua === true ? `${act} fua` : act;
}
