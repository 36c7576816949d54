/** Counts what goes to the device beneath it. */
import { BLOCK_BYTES } from '../../src/base/units.js';
import { copyThroughMemory } from '../../src/env/copy-blocks.js';
import type { BlockCopies, Device } from '../../src/env/device.js';

function blocksOf(buffers: readonly Uint8Array[]): number {
  let bytes = 0;
  for (const buffer of buffers) bytes += buffer.length;
  return bytes / BLOCK_BYTES;
}

export class CountingDevice implements Device {
  readonly #beneath: Device;
  blocksWritten = 0;
  writes = 0;
  syncs = 0;

  constructor(beneath: Device) {
    this.#beneath = beneath;
  }

  get name(): string {
    return this.#beneath.name;
  }

  get sizeBytes(): number {
    return this.#beneath.sizeBytes;
  }

  read(offset: number, into: readonly Uint8Array[]): Promise<void> {
    return this.#beneath.read(offset, into);
  }

  write(offset: number, from: readonly Uint8Array[]): Promise<void> {
    this.writes++;
    this.blocksWritten += blocksOf(from);
    return this.#beneath.write(offset, from);
  }

  writeDurable(offset: number, from: readonly Uint8Array[]): Promise<void> {
    this.writes++;
    this.blocksWritten += blocksOf(from);
    return this.#beneath.writeDurable(offset, from);
  }

  sync(): Promise<void> {
    this.syncs++;
    return this.#beneath.sync();
  }

  copyBlocks(copies: BlockCopies): Promise<readonly number[]> {
    return copyThroughMemory(this, copies);
  }

  close(): Promise<void> {
    return this.#beneath.close();
  }
}
