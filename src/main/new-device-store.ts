/**
 * Makes a store of a block device that holds none.
 *
 * 1. One that bears a trace of a store is left as it is, whatever is asked for: opening it says
 *    what is wrong with it.
 * 2. Without `store.erase-device` it has to be blank: its first and last MiB, where partition
 *    tables, file systems, RAID and LVM have their marks, and 1,000 blocks between are zeros.
 * 3. Until its first fsinfo is durable it bears no trace of a store: a crash before is no harm.
 */
import { isAllZero } from '../base/checksum.js';
import { StoreError } from '../base/store-error.js';
import { BLOCK_BYTES, formatBytes, MIB } from '../base/units.js';
import type { Device } from '../env/device.js';
import type { LogSink } from '../env/log-sink.js';
import { hasFsinfoMagic } from '../layout/fsinfo.js';
import { storeBlocksFor } from '../store/in-place/fsinfo-slots.js';
import { formatStore } from './open-store.js';
import type { Settings } from './settings.js';

const SAMPLES = 1000;

/**
 * @param device  open for this process alone
 * @throws {StoreError} invalid: it is not blank, or has no room for the size; nothing was written
 * Durable: on return
 */
export async function formatNewDevice(
  device: Device,
  settings: Settings,
  log: LogSink,
): Promise<void> {
  if (await bearsStore(device)) return;
  if (!settings['store.erase-device']) await expectBlank(device);
  const wanted = settings['store.size'] ?? device.sizeBytes;
  await formatStore({ kind: 'device', device }, { sizeBytes: wanted - (wanted % BLOCK_BYTES) });
  const sizeBytes = storeBlocksFor(wanted) * BLOCK_BYTES;
  const message = `${device.name} is a new store of ${formatBytes(sizeBytes)}.`;
  const fields = { path: device.name, sizeBytes };
  log({ level: 'info', event: 'store-created', message, fields });
}

/** Where a store has its fsinfo, or would have if it took all of the device. */
async function bearsStore(device: Device): Promise<boolean> {
  for (const offset of [0, Math.max(0, device.sizeBytes - 8 * MIB)]) {
    const bytes = await readAt(device, offset, Math.min(8 * MIB, device.sizeBytes - offset));
    for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
      if (hasFsinfoMagic(bytes.subarray(at, at + BLOCK_BYTES))) return true;
    }
  }
  return false;
}

async function expectBlank(device: Device): Promise<void> {
  const { sizeBytes } = device;
  const edge = Math.min(MIB, sizeBytes);
  await expectZeros(device, 0, edge);
  await expectZeros(device, sizeBytes - edge, edge);
  const step = Math.floor(sizeBytes / BLOCK_BYTES / SAMPLES);
  for (let sample = 1; sample < SAMPLES && step > 0; sample++) {
    await expectZeros(device, sample * step * BLOCK_BYTES, BLOCK_BYTES);
  }
}

async function expectZeros(device: Device, offset: number, length: number): Promise<void> {
  const bytes = await readAt(device, offset, length);
  if (isAllZero(bytes)) return;
  const at = offset + bytes.findIndex((byte) => byte !== 0);
  throw new StoreError(
    'invalid',
    `${device.name} holds no store and is not blank: byte ${at} is not zero; nothing was ` +
      'written. If nothing on it is wanted, give --store-erase-device',
  );
}

async function readAt(device: Device, offset: number, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(length);
  await device.read(offset, [bytes]);
  return bytes;
}
