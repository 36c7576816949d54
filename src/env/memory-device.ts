/**
 * Owns a device whose bytes live in memory and end with the process.
 *
 * 1. Every call is done, seen by later reads and "durable" before its promise is returned.
 * 2. Only the touched MiB take memory, so that a device of any size can be made.
 */
import { StoreError } from '../base/store-error.js';
import { BLOCK_BYTES, MIB } from '../base/units.js';
import { totalBytes } from './buffers.js';
import { copyThroughMemory } from './copy-blocks.js';
import type { BlockCopies, Device } from './device.js';
import { rangeError } from './device-range.js';
import { SparseBytes } from './sparse-bytes.js';

/** What was asked of a device since it was opened. */
export interface DeviceStats {
  reads: number;
  blocksRead: number;
  /** Calls of `write` and of `writeDurable`. */
  writes: number;
  durableWrites: number;
  /** Blocks of both kinds of write. */
  blocksWritten: number;
  syncs: number;
}

/** Counters that start at zero. */
export function newDeviceStats(): DeviceStats {
  return { reads: 0, blocksRead: 0, writes: 0, durableWrites: 0, blocksWritten: 0, syncs: 0 };
}

export interface MemoryDeviceOptions {
  readonly sizeBytes: number;
  readonly name?: string;
  /** Content to start from, shared with whoever made it; zeros if absent. */
  readonly bytes?: SparseBytes;
}

/** Shared by all calls: a settled promise has no state that one caller could change for another. */
const DONE: Promise<void> = Promise.resolve();

export class MemoryDevice implements Device {
  readonly name: string;
  readonly sizeBytes: number;
  readonly stats: DeviceStats = newDeviceStats();
  readonly #bytes: SparseBytes;
  #isClosed = false;

  constructor(options: MemoryDeviceOptions) {
    this.name = options.name ?? 'memory';
    this.sizeBytes = options.sizeBytes;
    this.#bytes = options.bytes ?? new SparseBytes(MIB);
  }

  read(offset: number, into: readonly Uint8Array[]): Promise<void> {
    const length = totalBytes(into);
    const error = this.#refusal(offset, length);
    if (error !== undefined) return Promise.reject(error);
    this.stats.reads++;
    this.stats.blocksRead += length / BLOCK_BYTES;
    let position = offset;
    for (const buffer of into) {
      this.#bytes.read(position, buffer);
      position += buffer.length;
    }
    return DONE;
  }

  write(offset: number, from: readonly Uint8Array[]): Promise<void> {
    const length = totalBytes(from);
    const error = this.#refusal(offset, length);
    if (error !== undefined) return Promise.reject(error);
    this.stats.writes++;
    this.stats.blocksWritten += length / BLOCK_BYTES;
    let position = offset;
    for (const buffer of from) {
      this.#bytes.write(position, buffer);
      position += buffer.length;
    }
    return DONE;
  }

  writeDurable(offset: number, from: readonly Uint8Array[]): Promise<void> {
    const written = this.write(offset, from);
    if (written === DONE) this.stats.durableWrites++;
    return written;
  }

  sync(): Promise<void> {
    if (this.#isClosed) return Promise.reject(this.#closedError());
    this.stats.syncs++;
    return DONE;
  }

  copyBlocks(copies: BlockCopies): Promise<readonly number[]> {
    return copyThroughMemory(this, copies);
  }

  close(): Promise<void> {
    this.#isClosed = true;
    return DONE;
  }

  /** The same bytes, opened again: what a path is to a file. Counters start at zero. */
  reopen(): MemoryDevice {
    return new MemoryDevice({ name: this.name, sizeBytes: this.sizeBytes, bytes: this.#bytes });
  }

  /** A device with a copy of the bytes; the copy is made as either side writes. */
  duplicate(): MemoryDevice {
    const bytes = this.#bytes.clone();
    return new MemoryDevice({ name: this.name, sizeBytes: this.sizeBytes, bytes });
  }

  /** Inverts one bit, as rot does: for tests of checksums. */
  flipBit(offset: number, bit: number): void {
    this.#bytes.flipBit(offset, bit);
  }

  #refusal(offset: number, length: number): StoreError | undefined {
    if (this.#isClosed) return this.#closedError();
    return rangeError(this, offset, length);
  }

  #closedError(): StoreError {
    return new StoreError('closed', `${this.name}: the device is closed`);
  }
}
