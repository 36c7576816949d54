/** Where the store of a server is: a device or an object store, opened, with its counters. */
import { StoreError } from '../base/store-error.js';
import type { DeviceTimes, ObjectCounters } from '../control/control-plane.js';
import type { Prices } from '../control/costs.js';
import type { Clock } from '../env/clock.js';
import type { LogSink } from '../env/log-sink.js';
import { makeDirectory, openObjects, prepareObjects } from './object-place.js';
import type { StoreSource } from './open-store.js';
import type { Settings } from './settings.js';
import { parseStoreAddress } from './store-address.js';
import { openStoreFile } from './store-file.js';
import { TimedObjectStore } from './timed-object-store.js';

export interface StorePlace {
  /** For people. */
  readonly name: string;
  readonly source: StoreSource;
  readonly deviceTimes?: DeviceTimes;
  readonly objectCounters?: ObjectCounters;
  /** When no store has it open any more. */
  close(): Promise<void>;
}

/** Undefined if none is given; of those that are, the others cost nothing. */
function pricesOf(settings: Settings): Prices | undefined {
  const given = {
    puts: settings['price.put-1000'],
    gets: settings['price.get-1000'],
    storage: settings['price.gb-month'],
    egress: settings['price.egress-gb'],
  };
  if (Object.values(given).every((price) => price === undefined)) return undefined;
  const { puts = 0, gets = 0, storage = 0, egress = 0 } = given;
  return { puts, gets, storage, egress };
}

/**
 * Opened, and the store made if there is none and a size is given.
 * @throws {StoreError} invalid, not-found (nothing there and no size), in-use, unsupported, device
 */
export async function openStorePlace(
  settings: Settings,
  environment: Readonly<Record<string, string | undefined>>,
  clock: Clock,
  log: LogSink,
): Promise<StorePlace> {
  const text = settings['store.path'];
  if (text === undefined) {
    throw new StoreError('invalid', 'which store? give --store FILE, or store.path in the config');
  }
  const address = parseStoreAddress(text);
  if (address.kind === 'file') {
    if (settings['store.durability'] === 'local') {
      const message = `${address.path} is a device of this machine: durability local is for s3://`;
      throw new StoreError('invalid', message);
    }
    const device = await openStoreFile(address.path, settings, clock, log);
    return {
      name: device.name,
      source: { kind: 'device', device },
      deviceTimes: device.times,
      close: () => device.close(),
    };
  }
  if (address.kind === 'directory' && settings['store.size'] !== undefined) {
    await makeDirectory(address.path);
  }
  const place = await openObjects(address, settings, environment);
  try {
    await prepareObjects(place, settings, log);
  } catch (error) {
    place.close();
    throw error;
  }
  const objects = new TimedObjectStore(place.objects, clock);
  return {
    name: text,
    source: { kind: 'objects', objects, prefix: place.prefix },
    objectCounters: {
      meters: objects.meters,
      retries: () => place.retries(),
      prices: pricesOf(settings),
      spent: () => objects.spent(),
    },
    close: () => Promise.resolve(place.close()),
  };
}
