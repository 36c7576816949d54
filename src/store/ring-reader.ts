/**
 * Reads the log ring for recovery, ahead: a log of one small group after the other must not cost
 * two waits for each of them.
 */
import { BLOCK_BYTES, MIB } from '../base/units.js';
import type { Device } from '../env/device.js';

const AHEAD_BLOCKS = MIB / BLOCK_BYTES;

export class RingReader {
  readonly #device: Device;
  readonly #start: number;
  readonly #blocks: number;
  /** What was read last: from this ring position on. */
  #position = 0;
  #ahead: Buffer = Buffer.alloc(0);

  /** @param start  first block of the ring on the device */
  constructor(device: Device, start: number, blocks: number) {
    this.#device = device;
    this.#start = start;
    this.#blocks = blocks;
  }

  /** The bytes of these blocks of the ring, which end where it ends at the latest. */
  async read(position: number, blocks: number): Promise<Uint8Array> {
    const known = this.#find(position, blocks);
    if (known !== undefined) return known;
    const more = Math.min(Math.max(blocks, AHEAD_BLOCKS), this.#blocks - position);
    try {
      this.#ahead = await this.#readDevice(position, more);
      this.#position = position;
      return this.#ahead.subarray(0, blocks * BLOCK_BYTES);
    } catch (error) {
      if (more === blocks) throw error;
      // What cannot be read may lie behind the end of the log.
      return this.#readDevice(position, blocks);
    }
  }

  #find(position: number, blocks: number): Uint8Array | undefined {
    const from = (position - this.#position) * BLOCK_BYTES;
    const to = from + blocks * BLOCK_BYTES;
    return from >= 0 && to <= this.#ahead.length ? this.#ahead.subarray(from, to) : undefined;
  }

  async #readDevice(position: number, blocks: number): Promise<Buffer> {
    const bytes = Buffer.allocUnsafeSlow(blocks * BLOCK_BYTES);
    if (blocks > 0) await this.#device.read((this.#start + position) * BLOCK_BYTES, [bytes]);
    return bytes;
  }
}
