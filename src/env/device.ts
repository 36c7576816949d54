/**
 * A block device as the store sees it: bytes at offsets, a volatile cache, and a sync.
 *
 * 1. `write` is volatile until a `sync` that began after it resolved has resolved. On power failure
 *    an unsynced write may be lost, or torn at 512 bytes, and unsynced writes land in any order.
 * 2. `writeDurable` is durable when it resolves, and does not wait for other unsynced writes.
 * 3. The caller keeps the buffers unchanged until the call settles.
 * 4. A failed write or sync rejects with StoreError `device`; its bytes are unknown from then on.
 * 5. A block that is copied is compared with its checksum before it is written.
 * 6. Offsets and lengths are multiples of 4096; a range outside the device rejects with `invalid`.
 */
export interface Device {
  /** For messages: a path, or what else tells the person which device it is. */
  readonly name: string;
  readonly sizeBytes: number;
  /** Fills all buffers, one after the other, from `offset`. Rejects `device` if it cannot. */
  read(offset: number, into: readonly Uint8Array[]): Promise<void>;
  write(offset: number, from: readonly Uint8Array[]): Promise<void>;
  writeDurable(offset: number, from: readonly Uint8Array[]): Promise<void>;
  sync(): Promise<void>;
  /**
   * Copies blocks as `read` and `write` would, out of the way of the program. Resolves with the
   * indexes, in order, of those that could not be read or have another checksum: they are not
   * written.
   */
  copyBlocks(copies: BlockCopies): Promise<readonly number[]>;
  /** Waits for what is under way, then lets go of the device and its lock. */
  close(): Promise<void>;
}

/** Blocks that are copied within a device: at most 256, and one number in each list for each. */
export interface BlockCopies {
  /** Where it stands: its offset by 4096. */
  readonly from: readonly number[];
  /** Where it is to stand. No block is among both. */
  readonly to: readonly number[];
  /** What its CRC-32 must be. */
  readonly crcs: readonly number[];
}
