/**
 * Writes pieces of a disk to a block target, and leaves out the blocks that are zeros.
 *
 * 1. On a target that reads as zeros everywhere (`isBlank`) nothing is done for zeros; on any other
 *    one they are written as zeroes, which for whole blocks takes no space.
 */
import { isAllZero } from '../base/checksum.js';
import { BLOCK_BYTES } from '../base/units.js';
import type { BlockTarget } from '../vdisk/block-target.js';

export class TargetWriter {
  readonly #target: BlockTarget;
  readonly #isBlank: boolean;

  constructor(target: BlockTarget, isBlank: boolean) {
    this.#target = target;
    this.#isBlank = isBlank;
  }

  /**
   * Writes the bytes, but for blocks of zeros; gives the count of bytes written.
   *
   * @param bytes  4-byte aligned in memory; offset and length are multiples of 512
   */
  async write(offset: number, bytes: Uint8Array): Promise<number> {
    let written = 0;
    for (const { start, end, isZero } of runs(offset, bytes)) {
      if (isZero) {
        await this.zero(offset + start, end - start);
      } else {
        await this.#target.write(offset + start, bytes.subarray(start, end));
        written += end - start;
      }
    }
    return written;
  }

  async zero(offset: number, length: number): Promise<void> {
    if (!this.#isBlank && length > 0) await this.#target.writeZeroes(offset, length);
  }
}

interface Run {
  readonly start: number;
  readonly end: number;
  readonly isZero: boolean;
}

/** Runs of blocks that are all zeros, or not; blocks as the target has them. */
function* runs(offset: number, bytes: Uint8Array): Generator<Run> {
  let start = 0;
  let wasZero = false;
  let end = 0;
  for (let at = 0; at < bytes.length; at = end) {
    end = Math.min(bytes.length, at + BLOCK_BYTES - ((offset + at) % BLOCK_BYTES));
    const isZero = isAllZero(bytes.subarray(at, end));
    if (isZero !== wasZero && at > start) {
      yield { start, end: at, isZero: wasZero };
      start = at;
    }
    wasZero = isZero;
  }
  if (end > start) yield { start, end, isZero: wasZero };
}
