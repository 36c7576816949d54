/**
 * The object store under a server's store: reached, probed, and the store in it made if it is new.
 */
import { mkdir } from 'node:fs/promises';
import { isStoreError, StoreError } from '../base/store-error.js';
import { BLOCK_BYTES, formatBytes } from '../base/units.js';
import { openDirectory } from '../env/directory-object-store.js';
import type { LogSink } from '../env/log-sink.js';
import type { ObjectStore } from '../env/object-store.js';
import { seededRandom } from '../env/seeded-random.js';
import { systemClock } from '../env/system-clock.js';
import { hasObjectLog } from '../store/object-log/open.js';
import { entropySeed } from './entropy.js';
import { formatStore } from './open-store.js';
import type { Settings } from './settings.js';
import type { ObjectAddress } from './store-address.js';

export type ObjectSettings = Pick<
  Settings,
  's3.endpoint' | 's3.region' | 's3.addressing' | 's3.requests' | 's3.timeout-ms' | 's3.patience-ms'
>;

type Environment = Readonly<Record<string, string | undefined>>;

/** An object store, and the ways to it. */
export interface ObjectPlace {
  readonly objects: ObjectStore;
  readonly prefix: string;
  /** Requests that were sent again. */
  retries(): number;
  /** @throws {StoreError} unsupported: it cannot hold a store; others: it cannot be asked */
  probe(log: LogSink): Promise<void>;
  close(): void;
}

/** How long an endpoint may be silent before the probe leaves it out. */
const PROBE_PATIENCE_MS = 3000;

/**
 * Nothing is asked of it yet. The packages for S3 are loaded only if it is one.
 * @throws {StoreError} invalid, not-found
 */
export async function openObjects(
  address: ObjectAddress,
  settings: ObjectSettings,
  environment: Environment,
): Promise<ObjectPlace> {
  const { prefix } = address;
  const random = seededRandom(entropySeed());
  const { probeObjectStore, waysThatAnswer } = await import('../objects/probe.js');
  if (address.kind === 'directory') {
    const objects = await openDirectory({ path: address.path, random });
    const probe = (): Promise<void> => probeObjectStore({ prefix, random, ways: [objects] });
    return { objects, prefix, probe, retries: () => 0, close: () => undefined };
  }
  const { openS3 } = await import('../objects/open-s3.js');
  const { bucketTrouble } = await import('../objects/bucket-rules.js');
  const objects = openS3({
    bucket: address.bucket,
    endpoints: endpointsOf(settings, environment),
    region: settings['s3.region'] ?? environment.AWS_REGION ?? environment.AWS_DEFAULT_REGION,
    addressing: settings['s3.addressing'],
    requests: settings['s3.requests'],
    deadlineMs: settings['s3.timeout-ms'],
    patienceMs: settings['s3.patience-ms'],
    clock: systemClock,
    random,
  });
  const probe = async (log: LogSink): Promise<void> => {
    const all = objects.throughEach({ patienceMs: PROBE_PATIENCE_MS });
    const ways = await waysThatAnswer(all, (way, error) => {
      const message = `An endpoint does not answer, and is not used: ${error.message}`;
      log({ level: 'warn', event: 'endpoint-left-out', message });
      objects.leaveOut(way);
    });
    const trouble = await bucketTrouble(objects, prefix);
    if (trouble !== undefined) {
      throw new StoreError('unsupported', `${objects.name} cannot hold a store: ${trouble}`);
    }
    await probeObjectStore({ prefix, random, ways });
  };
  return { objects, prefix, probe, retries: () => objects.retries, close: () => objects.close() };
}

function endpointsOf(settings: ObjectSettings, environment: Environment): readonly string[] {
  if (settings['s3.endpoint'].length > 0) return settings['s3.endpoint'];
  const found = environment.AWS_ENDPOINT_URL_S3 ?? environment.AWS_ENDPOINT_URL;
  return found === undefined || found === '' ? [] : [found];
}

/**
 * Proves the object store, and makes the store if there is none and a size is given.
 * @throws {StoreError} not-found (no store and no size), unsupported, invalid, device
 */
export async function prepareObjects(
  place: ObjectPlace,
  settings: Pick<Settings, 'store.size'>,
  log: LogSink,
): Promise<void> {
  const { objects, prefix } = place;
  const name = `${objects.name}/${prefix}`;
  const isThere = await hasObjectLog(objects, prefix);
  const wanted = settings['store.size'];
  if (!isThere && wanted === undefined) {
    const message = `${name}: there is no store; to make one there, give --size, as 64G`;
    throw new StoreError('not-found', message);
  }
  await place.probe(log);
  if (isThere || wanted === undefined) return;
  const sizeBytes = wanted - (wanted % BLOCK_BYTES);
  try {
    await formatStore({ kind: 'objects', objects, prefix }, { sizeBytes });
  } catch (error) {
    // Somebody else was quicker: it is there.
    if (!isStoreError(error, 'exists')) throw error;
    return;
  }
  const message = `${name} is a new store of ${formatBytes(sizeBytes)}.`;
  log({ level: 'info', event: 'store-created', message, fields: { path: name, sizeBytes } });
}

/** The directory of a new store. @throws {StoreError} device */
export async function makeDirectory(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true });
  } catch (cause) {
    throw new StoreError('device', `cannot make the directory ${path}: ${String(cause)}`, {
      cause,
    });
  }
}
