/**
 * A raw image: the bytes of the disk, one behind the other, in a file or block device.
 *
 * What the file system calls a hole is one; all else counts as data, and who copies it looks for
 * zeros.
 */
import { MIB, SECTOR_BYTES } from '../base/units.js';
import type { ByteRange } from '../env/file-holes.js';
import type { RandomAccessFile } from '../env/random-access-file.js';
import { rangeFault } from './image-error.js';
import type { ImageExtent, ImageReader } from './image-reader.js';

/** What is read as fast as holes are asked for. */
const ASK_BYTES_MIN = 16 * MIB;

export class RawImage implements ImageReader {
  readonly format = 'raw';
  readonly name: string;
  readonly sizeBytes: number;
  readonly notes: readonly string[];
  readonly #file: RandomAccessFile;

  constructor(file: RandomAccessFile) {
    this.name = file.name;
    this.sizeBytes = toSectors(file.sizeBytes);
    this.#file = file;
    const added = this.sizeBytes - file.sizeBytes;
    this.notes = added === 0 ? [] : [`the last sector is filled up with ${added} bytes of zeros`];
  }

  read(offset: number, into: Uint8Array): Promise<void> {
    const fault = rangeFault(this, offset, into.length);
    if (fault !== undefined) return Promise.reject(fault);
    const there = Math.min(into.length, Math.max(0, this.#file.sizeBytes - offset));
    into.fill(0, there);
    if (there === 0) return Promise.resolve();
    return this.#file.read(offset, there === into.length ? into : into.subarray(0, there));
  }

  async *extents(
    offset = 0,
    length: number = this.sizeBytes - offset,
  ): AsyncGenerator<ImageExtent> {
    const fault = rangeFault(this, offset, length);
    if (fault !== undefined) throw fault;
    const end = offset + length;
    let at = offset;
    for await (const range of this.#dataRanges(offset, length)) {
      // In whole sectors, as the last one of the file need not be.
      const start = Math.max(at, range.offset - (range.offset % SECTOR_BYTES));
      const stop = Math.min(end, toSectors(range.offset + range.length));
      if (start > at) yield { offset: at, length: start - at, kind: 'hole' };
      if (stop > start) yield { offset: start, length: stop - start, kind: 'data' };
      at = Math.max(at, stop);
    }
    if (at < end) yield { offset: at, length: end - at, kind: 'hole' };
  }

  /** Of a small range all is data: to read it takes less than to ask. */
  #dataRanges(offset: number, length: number): AsyncIterable<ByteRange> | readonly ByteRange[] {
    const there = Math.min(length, Math.max(0, this.#file.sizeBytes - offset));
    if (length >= ASK_BYTES_MIN) return this.#file.dataRanges(offset, there);
    return [{ offset, length }];
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

/** The size of a disk that holds so many bytes. */
export function toSectors(bytes: number): number {
  return Math.ceil(bytes / SECTOR_BYTES) * SECTOR_BYTES;
}
