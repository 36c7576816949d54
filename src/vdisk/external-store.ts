/**
 * A disk outside of the store, which clones read through. What is behind it (image files, say) is
 * the affair of who makes one.
 *
 * 1. Its content never changes. Who cannot vouch for that rejects: never zeros in place of bytes,
 *    never bytes of which some are older than others.
 * 2. `presence` may say "data" of zeros, never "nothing" of data.
 * 3. Any number of calls may be under way at once.
 */
import { StoreError } from '../base/store-error.js';
import type { LogSink } from '../env/log-sink.js';
import type { ExternalDescriptor, ImageFormat } from '../layout/external-descriptor.js';

/** Blocks that are asked about at once: 64 MiB. */
export const PIECE_BLOCKS = 16384;
export const PRESENCE_BYTES = PIECE_BLOCKS / 8;

export interface ExternalStore {
  /**
   * Fills `into`, whole blocks, from block `fbn` on; behind the end of the disk with zeros. The
   * caller leaves the buffer alone until the call settles.
   * @throws {StoreError} why nothing can be read now: what is wrong, with what, what to do next
   */
  read(fbn: number, into: Uint8Array): Promise<void>;
  /** A bit for each block from `piece` x PIECE_BLOCKS on: may it have data? Throws like `read`. */
  presence(piece: number): Promise<Uint8Array>;
  /** Why nothing can be read, as far as it is known. Every call tries again. */
  readonly trouble: StoreError | undefined;
  /** Looks whether there is trouble; does not reject. */
  look(): Promise<void>;
  /** Waits for calls under way. */
  close(): Promise<void>;
}

/** A read that failed because of an external backing store: not the store's own fault. */
export class ExternalError extends StoreError {}

/** Where external backing stores come from: files, but in tests and in the simulator. */
export interface ExternalSource {
  /**
   * Opens what is at the path, and describes it as it is now.
   * @throws {StoreError} not-found, invalid, unsupported, corrupt, device
   */
  describe(path: string, format: ImageFormat | undefined): Promise<ExternalDescriptor>;
  /** The disk that the descriptor speaks of. What is wrong with it shows when it is read. */
  open(descriptor: ExternalDescriptor, log: LogSink): ExternalStore;
}
