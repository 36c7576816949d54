/**
 * A block device as the store sees it: bytes at offsets, a volatile cache, and a sync.
 *
 * 1. `write` is volatile until a `sync` that began after it resolved has resolved. On power failure
 *    an unsynced write may be lost, or torn at 512 bytes, and unsynced writes land in any order.
 * 2. `writeDurable` is durable when it resolves, and does not wait for other unsynced writes.
 * 3. The caller keeps the buffers unchanged until the call settles.
 * 4. A failed write or sync rejects with StoreError `device`; its bytes are unknown from then on.
 * 5. Blocks that are copied are compared with their checksums before anything is written.
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
   * Copies as many blocks as there are checksums (CRC-32, at most 256), as `read` and `write`
   * would, out of the way of the program. Resolves with -1; or with the index of the first block
   * that could not be read or has another checksum, and then nothing was written.
   */
  copyBlocks(from: number, to: number, crcs: Uint32Array): Promise<number>;
  /** Waits for what is under way, then lets go of the device and its lock. */
  close(): Promise<void>;
}
