/**
 * What settings say of a store on an object store: its local log, its cache file, its cleaner,
 * its sweep.
 *
 * A local log that cannot be opened keeps the server from starting: it may hold what was flushed.
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

type ObjectLogOptions = Pick<
  OpenOptions,
  'cache' | 'cleaner' | 'sweep' | 'localLog' | 'withoutLocalLog'
>;

/** @throws {StoreError} invalid, in-use, device: the local log cannot be opened */
export async function objectLogOptions(
  settings: Settings,
  log: LogSink,
): Promise<ObjectLogOptions> {
  const path = settings['store.cache-file'];
  const hours = settings['store.sweep-hours'];
  const cleaner = { liveRatioMin: settings['store.live-percent'] / 100 };
  const sweep = { intervalMs: hours * HOUR_MS, graceMs: SWEEP_GRACE_MS };
  const withoutLocalLog = settings['store.without-local-log'];
  const localLog = await openLocalLog(settings);
  const options = {
    cleaner,
    withoutLocalLog,
    ...(hours === 0 ? {} : { sweep }),
    ...(localLog === undefined ? {} : { localLog }),
  };
  if (path === undefined) return options;
  const cache = await openCacheDisk(path, settings['store.cache-size'], log);
  return cache === undefined ? options : { ...options, cache };
}

/** The local log as it was, or a new one, with all of its space on the disk. */
async function openLocalLog(settings: Settings): Promise<OpenOptions['localLog']> {
  const path = settings['store.local-log'];
  const isLocal = settings['store.durability'] === 'local';
  const isThere = path !== undefined && existsSync(path);
  if (isLocal && path === undefined) {
    const message = 'durability local needs a place on a local disk: give --local-log FILE';
    throw new StoreError('invalid', message);
  }
  if (path === undefined || (!isThere && !isLocal)) return undefined;
  const wanted = settings['store.local-log-size'];
  const sizeBytes = wanted - (wanted % BLOCK_BYTES);
  const device = await openFileDevice(
    path,
    isThere ? {} : { create: { sizeBytes, preallocate: true } },
  );
  const durability = isLocal ? 'local' : 'remote';
  return { device, durability, lagMsMax: settings['store.local-lag-ms'] };
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
