/**
 * A disk image as its users see it: a disk of `sizeBytes`, whatever the file's format.
 *
 * 1. Any number of reads may be under way at once. A read has changed nothing but its buffer.
 * 2. Bytes are the right ones, or the call rejects: never a guess, never zeros in place of them.
 */

export type ImageFormat = 'raw' | 'qcow2';

/** hole: nothing there, in no backing file either. zero: said to be zeros. Both read as zeros. */
export type ImageExtentKind = 'data' | 'zero' | 'hole';

export interface ImageExtent {
  readonly offset: number;
  readonly length: number;
  readonly kind: ImageExtentKind;
}

export interface ImageReader {
  /** For messages: the path. */
  readonly name: string;
  readonly format: ImageFormat;
  /** A multiple of 512; a raw file's last sector is filled up with zeros. */
  readonly sizeBytes: number;
  /** What a person should know: snapshots in the image that are not read, say. */
  readonly notes: readonly string[];
  /**
   * Fills `into` from `offset`; any alignment.
   * @throws {StoreError} invalid (beyond the end), corrupt, unsupported, device, closed
   */
  read(offset: number, into: Uint8Array): Promise<void>;
  /**
   * What [offset, offset + length) is, in order, without gaps; the whole disk if not given. Two
   * neighbours may be of one kind.
   */
  extents(offset?: number, length?: number): AsyncIterable<ImageExtent>;
  /** Waits for reads under way; closes the backing files, too. */
  close(): Promise<void>;
}
