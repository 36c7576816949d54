/**
 * What a protocol server serves: a vdisk, or a snapshot read-only.
 *
 * read, write, trim and writeZeroes return nothing when they are done at once, and a promise only
 * when something has to be waited for: the hot path creates none.
 */

/** One extent of a vdisk's block status. */
export interface Extent {
  readonly offset: number;
  readonly length: number;
  /**
   * data: bytes of a block. zero: reads as zeros, never from the backing store. hole: nothing is
   * mapped here nor in any backing store; reads as zeros.
   */
  readonly kind: 'data' | 'zero' | 'hole';
  /** Trees between the vdisk and the one that has the block: 0 is the vdisk itself. */
  readonly depth: number;
  /** Put there by a split, not by a client. Only where depth is 0. */
  readonly filled: boolean;
}

export interface WriteOptions {
  /** Durable when done (force unit access). */
  readonly fua?: boolean;
}

export interface BlockTarget {
  readonly name: string;
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /**
   * Reads `into.length` bytes at `offset`; any alignment.
   * @throws {StoreError} invalid (beyond the end), corrupt, device, closed
   */
  read(offset: number, into: Uint8Array): void | Promise<void>;
  /**
   * Writes all bytes of `data` at `offset`; any alignment. `data` may be reused once this is done.
   * Durable: at the next flush; with `fua`, when done.
   * @throws {StoreError} out-of-space (nothing has changed), invalid, read-only, device, closed
   */
  write(offset: number, data: Uint8Array, options?: WriteOptions): void | Promise<void>;
  /** Gives the whole blocks of the range back; the range reads as zeros. */
  trim(offset: number, length: number, options?: WriteOptions): void | Promise<void>;
  /** The range reads as zeros. */
  writeZeroes(offset: number, length: number, options?: WriteOptions): void | Promise<void>;
  /** Every write that was answered before this call is durable when it resolves. */
  flush(): Promise<void>;
  /**
   * Extents that cover [offset, offset + length) in order, without gaps.
   *
   * @param extentsMax  when there are so many, no more are looked for: one at least is there
   */
  blockStatus(offset: number, length: number, extentsMax?: number): Promise<Extent[]>;
}
