/** Copying blocks of a device for who has no better way: through the memory of the program. */
import { crc32 } from '../base/checksum.js';
import { isStoreError } from '../base/store-error.js';
import { BLOCK_BYTES } from '../base/units.js';
import type { Device } from './device.js';

/** What `Device.copyBlocks` promises, by the device's own `read` and `write`. */
export async function copyThroughMemory(
  device: Pick<Device, 'read' | 'write'>,
  from: number,
  to: number,
  crcs: Uint32Array,
): Promise<number> {
  const bytes = new Uint8Array(crcs.length * BLOCK_BYTES);
  try {
    await device.read(from, [bytes]);
  } catch (error) {
    if (isStoreError(error, 'device')) return 0;
    throw error;
  }
  const bad = crcs.findIndex((crc, index) => {
    return crc32(bytes.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES)) !== crc;
  });
  if (bad < 0) await device.write(to, [bytes]);
  return bad;
}
