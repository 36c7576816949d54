/**
 * A device that remembers in full only what is not the one known data block: a store with 64 GiB of
 * data on it takes the memory of its metadata.
 *
 * 1. A block written equal to `pattern` is one bit; every other non-zero block is kept. So reads
 *    return exactly what was written, and the store on top is a real one, checksums and all.
 * 2. The second copy of a metadata block is kept by its own VBN, but shares the bytes of the first
 *    while they are equal.
 */
import { BLOCK_BYTES, SEGMENT_BLOCKS } from '../../src/base/units.js';
import type { Device } from '../../src/env/device.js';

export class MetadataDevice implements Device {
  readonly name = 'metadata-only';
  readonly sizeBytes: number;
  readonly #pattern: Uint8Array;
  readonly #isPattern: Uint8Array;
  readonly #blocks = new Map<number, Uint8Array>();

  constructor(sizeBytes: number, pattern: Uint8Array) {
    this.sizeBytes = sizeBytes;
    this.#pattern = pattern;
    this.#isPattern = new Uint8Array(Math.ceil(sizeBytes / BLOCK_BYTES / 8));
  }

  /** Memory that the device takes for what it remembers. */
  get heldBytes(): number {
    return new Set(this.#blocks.values()).size * BLOCK_BYTES + this.#isPattern.length;
  }

  /** The same device, opened again. */
  reopen(): MetadataDevice {
    return this;
  }

  read(offset: number, into: readonly Uint8Array[]): Promise<void> {
    let block = offset / BLOCK_BYTES;
    for (const buffer of into) {
      for (let at = 0; at < buffer.length; at += BLOCK_BYTES, block++) {
        const isPattern = ((this.#isPattern[block >>> 3] as number) & (1 << (block & 7))) !== 0;
        const bytes = isPattern ? this.#pattern : this.#blocks.get(block);
        if (bytes === undefined) buffer.fill(0, at, at + BLOCK_BYTES);
        else buffer.set(bytes, at);
      }
    }
    return Promise.resolve();
  }

  write(offset: number, from: readonly Uint8Array[]): Promise<void> {
    let block = offset / BLOCK_BYTES;
    for (const buffer of from) {
      for (let at = 0; at < buffer.length; at += BLOCK_BYTES, block++) {
        this.#put(block, Buffer.from(buffer.buffer, buffer.byteOffset + at, BLOCK_BYTES));
      }
    }
    return Promise.resolve();
  }

  #put(block: number, bytes: Buffer): void {
    const bit = 1 << (block & 7);
    const before = this.#isPattern[block >>> 3] as number;
    if (bytes.equals(this.#pattern)) {
      this.#isPattern[block >>> 3] = before | bit;
      this.#blocks.delete(block);
      return;
    }
    this.#isPattern[block >>> 3] = before & ~bit;
    const twin = this.#blocks.get(block - SEGMENT_BLOCKS);
    const isCopy = twin !== undefined && bytes.equals(twin);
    this.#blocks.set(block, isCopy ? twin : new Uint8Array(bytes));
  }

  writeDurable(offset: number, from: readonly Uint8Array[]): Promise<void> {
    return this.write(offset, from);
  }

  sync(): Promise<void> {
    return Promise.resolve();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
