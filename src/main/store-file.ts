/**
 * The file or block device of a server's store: opened, or made.
 *
 * 1. A new store appears under its name whole: it is made beside it and then linked, which fails if
 *    somebody else was quicker.
 * 2. A block device is made a store only if it bears no trace of one, and is blank or may be erased
 *    (new-device-store.ts).
 */
import { existsSync, linkSync, statSync, unlinkSync } from 'node:fs';
import { StoreError } from '../base/store-error.js';
import { BLOCK_BYTES, formatBytes } from '../base/units.js';
import type { Clock } from '../env/clock.js';
import { openFileDevice } from '../env/file-device.js';
import type { LogSink } from '../env/log-sink.js';
import { randomToken } from './entropy.js';
import { formatNewDevice } from './new-device-store.js';
import { formatStore } from './open-store.js';
import type { Settings } from './settings.js';
import { TimedDevice } from './timed-device.js';

/** @throws {StoreError} invalid, not-found (no file and no size), in-use, device */
export async function openStoreFile(
  path: string,
  settings: Settings,
  clock: Clock,
  log: LogSink,
): Promise<TimedDevice> {
  if (!existsSync(path)) await createStoreFile(path, settings, log);
  const device = await openFileDevice(path);
  try {
    if (statSync(path).isBlockDevice()) await formatNewDevice(device, settings, log);
  } catch (error) {
    await device.close();
    throw error;
  }
  return new TimedDevice(device, clock);
}

async function createStoreFile(path: string, settings: Settings, log: LogSink): Promise<void> {
  const wanted = settings['store.size'];
  if (wanted === undefined) {
    const message = `${path}: there is no such file; to make a store there, give --size, as 64G`;
    throw new StoreError('not-found', message);
  }
  const sizeBytes = wanted - (wanted % BLOCK_BYTES);
  const beside = `${path}.${randomToken().slice(0, 8)}.new`;
  try {
    const create = { sizeBytes, preallocate: settings['store.preallocate'] };
    const device = await openFileDevice(beside, { create });
    try {
      await formatStore({ kind: 'device', device });
    } finally {
      await device.close();
    }
    linkSync(beside, path);
  } catch (error) {
    if (error instanceof StoreError) throw error;
    throw new StoreError('device', `cannot make ${path}: ${String(error)}`, { cause: error });
  } finally {
    if (existsSync(beside)) unlinkSync(beside);
  }
  const message = `${path} is a new store of ${formatBytes(sizeBytes)}.`;
  log({ level: 'info', event: 'store-created', message, fields: { path, sizeBytes } });
}
