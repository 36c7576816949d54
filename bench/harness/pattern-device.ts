/**
 * A device over a sparse one that keeps one known data block as a bit for each place, and all else
 * on the device beneath: a store with 64 GiB of data takes the room of its metadata. It is written,
 * synced and read as on any file, but that what is written with that block costs nothing.
 */
import { BLOCK_BYTES } from '../../src/base/units.js';
import { copyThroughMemory } from '../../src/env/copy-blocks.js';
import type { BlockCopies, Device } from '../../src/env/device.js';

export class PatternDevice implements Device {
  readonly #beneath: Device;
  readonly #pattern: Buffer;
  readonly #isPattern: Uint8Array;

  constructor(beneath: Device, pattern: Uint8Array) {
    this.#beneath = beneath;
    this.#pattern = Buffer.from(pattern);
    this.#isPattern = new Uint8Array(Math.ceil(beneath.sizeBytes / BLOCK_BYTES / 8));
  }

  get name(): string {
    return this.#beneath.name;
  }

  get sizeBytes(): number {
    return this.#beneath.sizeBytes;
  }

  async read(offset: number, into: readonly Uint8Array[]): Promise<void> {
    await this.#beneath.read(offset, into);
    let block = offset / BLOCK_BYTES;
    for (const buffer of into) {
      for (let at = 0; at < buffer.length; at += BLOCK_BYTES, block++) {
        const bit = 1 << (block & 7);
        if (((this.#isPattern[block >>> 3] as number) & bit) !== 0) buffer.set(this.#pattern, at);
      }
    }
  }

  async write(offset: number, from: readonly Uint8Array[]): Promise<void> {
    for (const run of this.#others(offset, from)) await this.#beneath.write(run.offset, run.from);
  }

  async writeDurable(offset: number, from: readonly Uint8Array[]): Promise<void> {
    for (const run of this.#others(offset, from)) {
      await this.#beneath.writeDurable(run.offset, run.from);
    }
  }

  /** Notes which blocks are the known one; the others, in runs. */
  #others(offset: number, from: readonly Uint8Array[]): { offset: number; from: Uint8Array[] }[] {
    const runs: { offset: number; from: Uint8Array[] }[] = [];
    let end = -1;
    let place = offset;
    for (const buffer of from) {
      for (let at = 0; at < buffer.length; at += BLOCK_BYTES, place += BLOCK_BYTES) {
        const bytes = buffer.subarray(at, at + BLOCK_BYTES);
        const isPattern = this.#pattern.equals(bytes);
        this.#note(place / BLOCK_BYTES, isPattern);
        if (isPattern) continue;
        if (place === end) runs.at(-1)?.from.push(bytes);
        else runs.push({ offset: place, from: [bytes] });
        end = place + BLOCK_BYTES;
      }
    }
    return runs;
  }

  #note(block: number, isPattern: boolean): void {
    const before = this.#isPattern[block >>> 3] as number;
    const bit = 1 << (block & 7);
    this.#isPattern[block >>> 3] = isPattern ? before | bit : before & ~bit;
  }

  sync(): Promise<void> {
    return this.#beneath.sync();
  }

  copyBlocks(copies: BlockCopies): Promise<readonly number[]> {
    return copyThroughMemory(this, copies);
  }

  close(): Promise<void> {
    return this.#beneath.close();
  }
}
