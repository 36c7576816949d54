/**
 * A device that remembers in full only what is not the one known data block: a store with 64 GiB of
 * data on it takes the memory of its metadata.
 *
 * 1. A block written equal to `pattern` is one bit; every other non-zero block is kept. So reads
 *    return exactly what was written, and the store on top is a real one, checksums and all.
 * 2. The second copy of a metadata block is kept by its own VBN, but shares the bytes of the first
 *    while they are equal.
 * 3. Blocks that are kept stand in slabs and are used again: nothing is left to the collector.
 */
import { BLOCK_BYTES, SEGMENT_BLOCKS } from '../../src/base/units.js';
import { copyThroughMemory } from '../../src/env/copy-blocks.js';
import type { BlockCopies, Device } from '../../src/env/device.js';

/** Blocks of a slab: 1 MiB. */
const SLAB_BLOCKS = 256;

export class MetadataDevice implements Device {
  readonly name = 'metadata-only';
  readonly sizeBytes: number;
  readonly #pattern: Buffer;
  readonly #isPattern: Uint8Array;
  /** Slot of each block that is kept. */
  readonly #slots = new Map<number, number>();
  readonly #slabs: Buffer[] = [];
  /** How many blocks share the slot. */
  readonly #shares: number[] = [];
  readonly #free: number[] = [];

  constructor(sizeBytes: number, pattern: Uint8Array) {
    this.sizeBytes = sizeBytes;
    this.#pattern = Buffer.from(pattern);
    this.#isPattern = new Uint8Array(Math.ceil(sizeBytes / BLOCK_BYTES / 8));
  }

  /** Memory that the device takes for what it remembers. */
  get heldBytes(): number {
    return this.#slabs.length * SLAB_BLOCKS * BLOCK_BYTES + this.#isPattern.length;
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
        const slot = this.#slots.get(block);
        if (isPattern) buffer.set(this.#pattern, at);
        else if (slot === undefined) buffer.fill(0, at, at + BLOCK_BYTES);
        else buffer.set(this.#bytesOf(slot), at);
      }
    }
    return Promise.resolve();
  }

  write(offset: number, from: readonly Uint8Array[]): Promise<void> {
    let block = offset / BLOCK_BYTES;
    for (const buffer of from) {
      for (let at = 0; at < buffer.length; at += BLOCK_BYTES, block++) this.#put(block, buffer, at);
    }
    return Promise.resolve();
  }

  #put(block: number, from: Uint8Array, at: number): void {
    const bit = 1 << (block & 7);
    const before = this.#isPattern[block >>> 3] as number;
    this.#drop(block);
    if (this.#pattern.compare(from, at, at + BLOCK_BYTES) === 0) {
      this.#isPattern[block >>> 3] = before | bit;
      return;
    }
    this.#isPattern[block >>> 3] = before & ~bit;
    const twin = this.#slots.get(block - SEGMENT_BLOCKS);
    const isCopy =
      twin !== undefined && this.#bytesOf(twin).compare(from, at, at + BLOCK_BYTES) === 0;
    const slot = isCopy ? twin : this.#newSlot();
    if (!isCopy) this.#bytesOf(slot).set(from.subarray(at, at + BLOCK_BYTES));
    this.#shares[slot] = (this.#shares[slot] as number) + 1;
    this.#slots.set(block, slot);
  }

  #bytesOf(slot: number): Buffer {
    const at = (slot % SLAB_BLOCKS) * BLOCK_BYTES;
    return (this.#slabs[Math.floor(slot / SLAB_BLOCKS)] as Buffer).subarray(at, at + BLOCK_BYTES);
  }

  #newSlot(): number {
    const free = this.#free.pop();
    if (free !== undefined) return free;
    const first = this.#slabs.length * SLAB_BLOCKS;
    this.#slabs.push(Buffer.alloc(SLAB_BLOCKS * BLOCK_BYTES));
    for (let index = SLAB_BLOCKS - 1; index >= 0; index--) {
      this.#shares[first + index] = 0;
      if (index > 0) this.#free.push(first + index);
    }
    return first;
  }

  #drop(block: number): void {
    const slot = this.#slots.get(block);
    if (slot === undefined) return;
    this.#slots.delete(block);
    const shares = (this.#shares[slot] as number) - 1;
    this.#shares[slot] = shares;
    if (shares === 0) this.#free.push(slot);
  }

  writeDurable(offset: number, from: readonly Uint8Array[]): Promise<void> {
    return this.write(offset, from);
  }

  sync(): Promise<void> {
    return Promise.resolve();
  }

  copyBlocks(copies: BlockCopies): Promise<readonly number[]> {
    return copyThroughMemory(this, copies);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}
