/** The checks of Device's invariant 5, the same on every implementation. */

import { StoreError } from '../base/store-error.js';
import { BLOCK_BYTES } from '../base/units.js';

/** What is wrong with the range [offset, offset + length) of this device; undefined if nothing. */
export function rangeError(
  device: { readonly name: string; readonly sizeBytes: number },
  offset: number,
  length: number,
): StoreError | undefined {
  if (offset % BLOCK_BYTES !== 0 || length % BLOCK_BYTES !== 0) {
    const range = `offset ${offset}, length ${length}`;
    return new StoreError('invalid', `${device.name}: not multiples of 4096 bytes: ${range}`);
  }
  if (!(offset >= 0 && offset + length <= device.sizeBytes)) {
    const range = `bytes ${offset} to ${offset + length}`;
    const message = `${device.name}: ${range} are not all inside its ${device.sizeBytes} bytes`;
    return new StoreError('invalid', message);
  }
  return undefined;
}

/** Error `invalid` unless all of these blocks lie inside the device. */
export function blocksError(
  device: { readonly name: string; readonly sizeBytes: number },
  blocks: readonly number[],
): StoreError | undefined {
  for (const block of blocks) {
    const error = rangeError(device, block * BLOCK_BYTES, BLOCK_BYTES);
    if (error !== undefined) return error;
  }
  return undefined;
}
