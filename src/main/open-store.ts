/** Formatting and opening stores: from a path, a device or an object store to a running Store. */
import { StoreError } from '../base/store-error.js';
import { GIB, MIB, TIB } from '../base/units.js';
import type { Clock } from '../env/clock.js';
import type { Device } from '../env/device.js';
import { openFileDevice } from '../env/file-device.js';
import { type LogSink, silentLog } from '../env/log-sink.js';
import type { ObjectStore } from '../env/object-store.js';
import type { Random } from '../env/random.js';
import { seededRandom } from '../env/seeded-random.js';
import { systemClock } from '../env/system-clock.js';
import { fromHex } from '../layout/bytes.js';
import { Engine } from '../store/engine.js';
import { formatDevice, openDevice } from '../store/in-place/format.js';
import type { Medium } from '../store/medium.js';
import { CacheFile } from '../store/object-log/cache/cache-file.js';
import type { OwnershipOptions } from '../store/object-log/claimant.js';
import { CLEANER_DEFAULTS, type CleanerOptions } from '../store/object-log/cleaner/cleaner.js';
import { LocalLog } from '../store/object-log/local-log/local-log.js';
import { ObjectLogMedium } from '../store/object-log/object-log-medium.js';
import { formatObjectLog, openObjectLog } from '../store/object-log/open.js';
import type { SweepOptions } from '../store/object-log/orphan-sweep.js';
import { loadRecords, replayLog } from '../store/recovery.js';
import type { ExternalSource } from '../vdisk/external-store.js';
import { Externals } from '../vdisk/externals.js';
import { RecordCollector } from '../vdisk/vdisk-table.js';
import { entropySeed } from './entropy.js';
import { ExternalCatalog } from './external-catalog.js';
import { imageExternals } from './image-externals.js';
import { ownershipHere } from './owner.js';
import type { ReachStore } from './published-store.js';
import { Publisher } from './publisher.js';
import { Store } from './store.js';

export type StoreSource =
  | { readonly kind: 'device'; readonly device: Device }
  | { readonly kind: 'objects'; readonly objects: ObjectStore; readonly prefix: string };

export interface FormatOptions {
  /** Size of the store; default: the whole device, or 1 TiB in an object store. */
  readonly sizeBytes?: number;
  /** In place: size of the log ring; default 1/64 of the store, from 4 MiB to 256 MiB. */
  readonly logBytes?: number;
  /** 32 hexadecimal digits; default random. */
  readonly uuid?: string;
  readonly random?: Random;
  readonly clock?: Clock;
}

export interface OpenOptions {
  /** Memory for buffers; default 256 MiB. */
  readonly memoryBytes?: number;
  /** Of these, dirty at most; default half. */
  readonly dirtyBytesMax?: number;
  /** Milliseconds from a change to the consistency point that holds it; default 5000. */
  readonly cpIntervalMs?: number;
  readonly clock?: Clock;
  readonly random?: Random;
  readonly log?: LogSink;
  /** Where external backing stores come from; default: disk-image files, raw and qcow2. */
  readonly externals?: ExternalSource;
  /** Finds other stores by their address, for clones of what these have published. */
  readonly reach?: ReachStore;
  /**
   * On an object store: depose somebody who has it open, whether it lives or not. Default: the open
   * is refused (`in-use`) while another seems to live; the next one after a crash of this process
   * is not, nor one after a close.
   */
  readonly takeOver?: boolean;
  /** On an object store: who opens it; default: this process. With its own word on `takeOver`. */
  readonly ownership?: Omit<OwnershipOptions, 'clock'>;
  /**
   * On an object store: the caller knows that nobody else has it open, and asks nobody. Whoever has
   * is deposed at once, and may go on to answer reads until it writes.
   */
  readonly alone?: boolean;
  /**
   * Object store: keeps blocks that were read, across restarts. The store closes it. One that fails
   * is not used any more, and nothing else happens.
   */
  readonly cache?: Device;
  /** Object store: when and how much the cleaner works. */
  readonly cleaner?: Partial<CleanerOptions>;
  /** Object store: what a FLUSH waits for; default: the object store. */
  readonly localLog?: LocalLogChoice;
  /**
   * Object store: open it although the local log that has its end is not here. What was flushed
   * since the last consistency point in the object store is gone then.
   */
  readonly withoutLocalLog?: boolean;
  /** Object store: when it is swept for objects that nothing names. Default: never. */
  readonly sweep?: SweepOptions;
}

/** A local log. The store closes its device, however an open ends. */
export interface LocalLogChoice {
  /** A file or block device of this machine, blank or what an earlier open left in it. */
  readonly device: Device;
  /**
   * local (default): a FLUSH is answered when it is durable on the device, and in the object store
   * within `lagMsMax`, or it waits. remote: what the device holds is recovered, and it is not used.
   */
  readonly durability?: 'local' | 'remote';
  /** Milliseconds that the object store may lack what was flushed; default 5000. */
  readonly lagMsMax?: number;
}

const LAG_MS_MAX = 5000;

/**
 * Makes a new, empty store. What was on the device is lost.
 * @throws {StoreError} invalid (too small, too large), exists (object store), device
 * Durable: on return
 */
export async function formatStore(source: StoreSource, options: FormatOptions = {}): Promise<void> {
  const random = options.random ?? seededRandom(entropySeed());
  const uuid = options.uuid === undefined ? nonceFrom(random)() : fromHex(options.uuid);
  if (uuid === undefined) {
    throw new StoreError('invalid', `"${options.uuid}" is no uuid: give 32 hexadecimal digits`);
  }
  const clock = options.clock ?? systemClock;
  if (source.kind === 'device') {
    const sizeBytes = options.sizeBytes ?? source.device.sizeBytes;
    await formatDevice(source.device, { sizeBytes, logBytes: options.logBytes, uuid, clock });
    return;
  }
  const sizeBytes = options.sizeBytes ?? TIB;
  await formatObjectLog(source.objects, source.prefix, {
    sizeBytes,
    uuid,
    nonce: nonceFrom(random),
  });
}

/**
 * Opens a store; after a crash everything that was flushed is there again.
 *
 * @param source  a device, an object store, or the path of a store file or block device
 * @throws {StoreError} invalid (no store there), in-use (somebody has it open), fenced (others were
 *   quicker), corrupt, device
 */
export async function openStore(
  source: StoreSource | string,
  options: OpenOptions = {},
): Promise<Store> {
  if (typeof source !== 'string') return openSource(source, options);
  const device = await openFileDevice(source);
  try {
    return await openSource({ kind: 'device', device }, options);
  } catch (error) {
    await device.close();
    throw error;
  }
}

async function openSource(source: StoreSource, options: OpenOptions): Promise<Store> {
  const random = options.random ?? seededRandom(entropySeed());
  if (source.kind === 'device') {
    await options.cache?.close();
    await options.localLog?.device.close();
    const medium = await openDevice(source.device, options.log ?? silentLog);
    return openMedium(medium, options, random, () => Promise.resolve());
  }
  const medium = await openObjectMedium(source, options, random);
  const { localLog } = options;
  const isLocal = localLog !== undefined && localLog.durability !== 'remote';
  const lagMsMax = isLocal ? (localLog.lagMsMax ?? LAG_MS_MAX) : Infinity;
  // Half of it passes before a consistency point begins, which takes a while itself.
  const cpIntervalMs = Math.min(options.cpIntervalMs ?? 5000, lagMsMax / 2);
  try {
    if (options.cache !== undefined) {
      const { uuid } = medium.fsinfo;
      medium.useCacheFile(await CacheFile.open(options.cache, uuid, options.log ?? silentLog));
    }
    const limited = { ...options, cpIntervalMs };
    return await openMedium(medium, limited, random, () => medium.predecessorSilent());
  } catch (error) {
    // Else it would go on to own what it does not serve.
    await medium.close();
    throw error;
  }
}

/** The medium of a store on an object store, claimed. */
async function openObjectMedium(
  { objects, prefix }: StoreSource & { readonly kind: 'objects' },
  options: OpenOptions,
  random: Random,
): Promise<ObjectLogMedium> {
  const clock = options.clock ?? systemClock;
  const { localLog } = options;
  const isGivenUp = options.withoutLocalLog === true;
  try {
    let log: LocalLog | undefined;
    if (localLog !== undefined) {
      const { device, durability = 'local', lagMsMax = LAG_MS_MAX } = localLog;
      log = await LocalLog.open({ device, clock, isUsed: durability === 'local', lagMsMax });
    }
    const who = options.ownership ?? ownershipHere({ takeOver: options.takeOver ?? false });
    const ownership = options.alone === true ? undefined : { ...who, clock };
    const access = { log, isGivenUp };
    return await openObjectLog(objects, prefix, nonceFrom(random), { ownership, access });
  } catch (error) {
    await options.cache?.close();
    await localLog?.device.close();
    throw error;
  }
}

async function openMedium(
  medium: Medium,
  options: OpenOptions,
  random: Random,
  predecessorSilent: () => Promise<void>,
): Promise<Store> {
  const log = options.log ?? silentLog;
  const memoryBytes = Math.max(MIB, Math.min(options.memoryBytes ?? 256 * MIB, 64 * GIB));
  const wasClean = medium.fsinfo.clean;
  const engine = new Engine(medium, {
    memoryBytes,
    dirtyBytesMax: Math.min(options.dirtyBytesMax ?? memoryBytes / 2, memoryBytes),
    cpIntervalMs: options.cpIntervalMs ?? 5000,
    clock: options.clock ?? systemClock,
    log,
  });
  const records = new RecordCollector(engine);
  await loadRecords(engine, records);
  const report = await replayLog(engine, records);
  if (!wasClean || report.batches > 0) {
    log({
      level: 'info',
      event: 'store-recovered',
      message: `${medium.name} was not closed: ${report.entries} log entries applied.`,
      fields: { batches: report.batches, entries: report.entries, blocks: report.blocks },
    });
  }
  const table = records.toTable();
  const publisher =
    medium instanceof ObjectLogMedium ? new Publisher(engine, medium, table, random) : undefined;
  // Before the first consistency point, which deletes what is dead.
  await publisher?.pinAll();
  // Before it, too: it says that this one has waited.
  await predecessorSilent();
  // From here on the store is in use, and what recovery applied is in the tree.
  await engine.consistencyPoint();
  const externals = new Externals();
  const reach = options.reach ?? reachNothing;
  const catalog = new ExternalCatalog(
    engine,
    externals,
    options.externals ?? imageExternals(),
    reach,
  );
  await catalog.openAll();
  const recovered = !wasClean;
  const cleaning =
    medium instanceof ObjectLogMedium
      ? {
          medium,
          options: { ...CLEANER_DEFAULTS, ...options.cleaner },
          sweep: options.sweep,
        }
      : undefined;
  return new Store(engine, table, random, {
    recovered,
    externals,
    catalog,
    cleaning,
    publisher,
    reach,
  });
}

function reachNothing(address: string): Promise<never> {
  const next = 'open the store with the option `reach`';
  return Promise.reject(
    new StoreError('unsupported', `this program was not told how to reach ${address}: ${next}`),
  );
}

function nonceFrom(random: Random): () => Uint8Array {
  return () => {
    const bytes = new Uint8Array(16);
    random.fill(bytes);
    return bytes;
  };
}
