/**
 * A file that is read at any offset, and never written.
 *
 * 1. Any number of reads may be under way at once.
 * 2. A range that is not inside `sizeBytes` rejects with `invalid`: nobody asks by mistake.
 * 3. The caller leaves the buffer alone until the call settles.
 */
import type { ByteRange } from './file-holes.js';

/** As of one moment. */
export interface FileStamp {
  readonly sizeBytes: number;
  /** Nanoseconds since 1970: last change of its bytes, and of anything about it. */
  readonly modifiedNs: bigint;
  readonly changedNs: bigint;
}

export interface RandomAccessFile {
  /** For messages, and to find files that are named relative to this one: its path. */
  readonly name: string;
  /** As it was when the file was opened. */
  readonly sizeBytes: number;
  /** The same for every name of one file, different for any two files. */
  readonly identity: string;
  /** Fills `into` from `offset`. Rejects `device` if it cannot: the file is shorter now, say. */
  read(offset: number, into: Uint8Array): Promise<void>;
  /**
   * Ranges of [offset, offset + length), in order, of which all the rest is zeros. The whole range
   * if nobody knows. Takes milliseconds: for large ranges.
   */
  dataRanges(offset: number, length: number): AsyncIterable<ByteRange>;
  /** What tells that it was changed since; of a block device nothing does. */
  stamp(): Promise<FileStamp>;
  /** Waits for what is under way, then lets go of the file. */
  close(): Promise<void>;
}
