/**
 * What settings say of a store on an object store: its cache file, its cleaner, its sweep.
 *
 * A cache file that cannot be opened or made keeps nobody from starting: one line in the log.
 */
import { existsSync } from 'node:fs';
import { StoreError } from '../base/store-error.js';
import { BLOCK_BYTES, formatBytes } from '../base/units.js';
import type { Device } from '../env/device.js';
import { openFileDevice } from '../env/file-device.js';
import type { LogSink } from '../env/log-sink.js';
import { isCacheDevice } from '../store/object-log/cache/cache-file.js';
import { SWEEP_GRACE_MS } from '../store/object-log/orphan-sweep.js';
import type { OpenOptions } from './open-store.js';
import type { Settings } from './settings.js';

const HOUR_MS = 3_600_000;

export async function objectLogOptions(
  settings: Settings,
  log: LogSink,
): Promise<Pick<OpenOptions, 'cache' | 'cleaner' | 'sweep'>> {
  const path = settings['store.cache-file'];
  const hours = settings['store.sweep-hours'];
  const options = {
    cleaner: { liveRatioMin: settings['store.live-percent'] / 100 },
    ...(hours === 0 ? {} : { sweep: { intervalMs: hours * HOUR_MS, graceMs: SWEEP_GRACE_MS } }),
  };
  if (path === undefined) return options;
  const cache = await openCacheDisk(path, settings['store.cache-size'], log);
  return cache === undefined ? options : { cache, ...options };
}

/** The file as it was, or a new one. What is there and is no cache is left alone. */
async function openCacheDisk(
  path: string,
  wanted: number,
  log: LogSink,
): Promise<Device | undefined> {
  const sizeBytes = wanted - (wanted % BLOCK_BYTES);
  try {
    if (!existsSync(path)) {
      return await openFileDevice(path, { create: { sizeBytes, preallocate: false } });
    }
    const device = await openFileDevice(path);
    if (device.sizeBytes === sizeBytes && (await isCacheDevice(device))) return device;
    await device.close();
    throw new StoreError(
      'invalid',
      `it is no cache of ${formatBytes(sizeBytes)}: delete it, or give another path or size`,
    );
  } catch (error) {
    log({
      level: 'warn',
      event: 'cache-file-off',
      message: `The cache file ${path} is not used: ${String(error)}`,
    });
    return undefined;
  }
}
