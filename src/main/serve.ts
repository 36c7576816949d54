/**
 * `keiki serve`: one store, its servers, in this process, until a signal ends it.
 *
 * 1. SIGTERM, SIGINT, SIGHUP: what is under way is answered, everything is made durable, exit 0. A
 *    second signal ends the process at once, as a power cut does: nothing durable is lost.
 * 2. When the store ends after a failed write the process ends, too, with 1: a new start recovers.
 * 3. When another server has taken the store over it ends with 14: a new start would be refused, or
 *    would depose that one.
 * 4. A bug ends the process with 70 for the same reason.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { InvariantError } from '../base/invariant.js';
import { StoreError } from '../base/store-error.js';
import { formatBytes } from '../base/units.js';
import { describeAddress } from '../env/listen.js';
import type { LogSink } from '../env/log-sink.js';
import { seededRandom } from '../env/seeded-random.js';
import { systemClock } from '../env/system-clock.js';
import { nbdMemory } from '../target/nbd/listener.js';
import { attachmentKeeper } from './attachments-file.js';
import { type ConfigSources, readSettings } from './config.js';
import { daemonLog } from './daemon-log.js';
import { entropySeed } from './entropy.js';
import { imageExternals } from './image-externals.js';
import { openWithin } from './image-folders.js';
import { toListeners } from './listeners.js';
import { objectLogOptions } from './object-log-options.js';
import { openStore } from './open-store.js';
import { OtherStores } from './other-stores.js';
import { ownershipOf } from './owner.js';
import { Service } from './service.js';
import type { Settings } from './settings.js';
import type { Store } from './store.js';
import { openStorePlace, type StorePlace } from './store-place.js';
import { activatedSockets, notifySystemd } from './systemd.js';

export interface ServeOptions {
  /** Path of the config file. */
  readonly configPath: string | undefined;
  /** Values of flags, by setting. */
  readonly flags: ConfigSources['flags'];
  readonly environment: Readonly<Record<string, string | undefined>>;
}

const EXIT_STORE_ENDED = 1;
/** The code of the kind `fenced` (cli/failure.ts). */
const EXIT_DEPOSED = 14;
const EXIT_BUG = 70;
/** How long the servers of a store that has ended may take to close. */
const ENDED_CLOSE_MS = 3000;
const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const;

/**
 * Runs until a signal, or until the store ends. Logs to standard error.
 *
 * @returns the exit code
 * @throws {StoreError} what keeps it from starting: settings, the store, an address
 */
export async function serve(options: ServeOptions): Promise<number> {
  const { environment } = options;
  const settings = loadSettings(options);
  const log = daemonLog({
    level: settings['log.level'],
    format: settings['log.format'],
    wallMs: () => systemClock.wallMs(),
    write: (line) => process.stderr.write(line),
  });
  const end = new End(log);
  end.watch();
  try {
    const running = await start(settings, environment, end.spy(log), end);
    await notifySystemd('READY=1', environment, log);
    const reason = await end.wanted;
    await notifySystemd('STOPPING=1', environment, log);
    return await stop(running, reason, log);
  } finally {
    end.unwatch();
  }
}

/** The settings from file, environment and flags. @throws {StoreError} not-found, invalid */
function loadSettings({ configPath, flags, environment }: ServeOptions): Settings {
  const path = configPath ?? environment.KEIKI_CONFIG;
  if (path === undefined) return readSettings({ flags, environment, file: undefined });
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (cause) {
    throw new StoreError('not-found', `config file ${path}: ${String(cause)}`, { cause });
  }
  return readSettings({ flags, environment, file: { path, text } });
}

/** Version of the package. */
function packageVersion(): string {
  const path = join(import.meta.dirname, '../../package.json');
  const { version } = JSON.parse(readFileSync(path, 'utf8')) as { readonly version: string };
  return version;
}

interface Running {
  readonly service: Service;
  readonly store: Store;
  readonly place: StorePlace;
  readonly others: OtherStores;
}

async function start(
  settings: Settings,
  environment: ServeOptions['environment'],
  log: LogSink,
  end: End,
): Promise<Running> {
  // Before anything is opened: a setting that is refused has touched nothing.
  const activated = activatedSockets(environment, process.pid);
  const userId = process.getuid?.() ?? -1;
  const listeners = toListeners({ settings, activated, environment, userId });
  const startMs = systemClock.nowMs();
  const place = await openStorePlace(settings, environment, systemClock, log);
  const objects = place.source.kind === 'objects' ? place.source.objects : undefined;
  const others = new OtherStores(settings, environment, objects);
  const store = await openIn(place, settings, log, others);
  const limits = {
    connectionsMax: settings['nbd.connections'],
    totalBytesMax: settings['nbd.memory'],
    handshakeMs: settings['nbd.handshake-ms'],
  };
  try {
    const service = await Service.start({
      ...listeners,
      store,
      clock: systemClock,
      random: seededRandom(entropySeed()),
      log,
      memory: nbdMemory(limits),
      version: packageVersion(),
      pid: process.pid,
      storePath: place.name,
      socketMode: settings['nbd.socket-mode'],
      allowInsecure: settings['nbd.allow-insecure'],
      attachmentKeeper: attachmentKeeper(settings),
      ...(place.deviceTimes === undefined ? {} : { deviceTimes: place.deviceTimes }),
      ...(place.objectCounters === undefined ? {} : { objectCounters: place.objectCounters }),
      drainMs: settings['server.drain-ms'],
      onBug: (error, where) => end.bug(error, where),
    });
    end.onStoreEnd = () => {
      service.plane.hasEnded = true;
    };
    tellReady(service, store, systemClock.nowMs() - startMs, log);
    return { service, store, place, others };
  } catch (error) {
    await store.close();
    await others.close();
    await closeObjects(place);
    throw error;
  }
}

/** A device is closed with its store. */
async function closeObjects(place: StorePlace): Promise<void> {
  if (place.source.kind === 'objects') await place.close();
}

async function openIn(
  place: StorePlace,
  settings: Settings,
  log: LogSink,
  others: OtherStores,
): Promise<Store> {
  const dirtyBytesMax = settings['store.dirty-memory'];
  try {
    return await openStore(place.source, {
      memoryBytes: settings['store.memory'],
      ...(dirtyBytesMax === undefined ? {} : { dirtyBytesMax }),
      cpIntervalMs: settings['store.cp-interval-ms'],
      externals: imageExternals(openWithin(settings['images.folders'])),
      reach: (address) => others.reach(address),
      ownership: ownershipOf(settings),
      ...(await objectLogOptions(settings, log)),
      log,
    });
  } catch (error) {
    await place.close();
    throw error;
  }
}

function tellReady(service: Service, store: Store, tookMs: number, log: LogSink): void {
  const { plane } = service;
  const { totalBytes, freeBytes } = store.stats();
  const api = plane.api.map((address) => describeAddress(address)).join(', ');
  const nbd = plane.nbd.map(({ uri }) => uri).join(', ');
  const vdisks = plane.exports.list().length;
  log({
    level: 'info',
    event: 'ready',
    message:
      `${plane.options.storePath}: ${vdisks} vdisks and snapshots, ${formatBytes(freeBytes)} of ` +
      `${formatBytes(totalBytes)} free; API at ${api}; NBD at ${nbd} (${Math.round(tookMs)} ms)`,
    fields: { api, nbd, vdisks, totalBytes, freeBytes, startMs: Math.round(tookMs) },
  });
}

type EndReason =
  | { readonly kind: 'signal'; readonly name: string }
  | { readonly kind: 'store' }
  | { readonly kind: 'deposed' };

const WHY = {
  store: 'the store has ended',
  deposed: 'another server has taken the store over',
} as const;

async function stop(
  { service, store, place, others }: Running,
  reason: EndReason,
  log: LogSink,
): Promise<number> {
  const why = reason.kind === 'signal' ? reason.name : WHY[reason.kind];
  log({ level: 'info', event: 'stopping', message: `Stopping: ${why}.` });
  if (reason.kind !== 'signal') {
    const code = reason.kind === 'deposed' ? EXIT_DEPOSED : EXIT_STORE_ENDED;
    const late = new Promise((resolve) => systemClock.setTimer(ENDED_CLOSE_MS, () => resolve(0)));
    await Promise.race([service.close(), late]);
    // Should a client still be there: nothing keeps this process.
    systemClock.setTimer(ENDED_CLOSE_MS, () => process.exit(code));
    return code;
  }
  await service.close();
  await store.close();
  await others.close();
  await closeObjects(place);
  log({ level: 'info', event: 'stopped', message: 'Everything is durable, and the store closed.' });
  return 0;
}

/** What ends the process, and how. */
class End {
  readonly wanted: Promise<EndReason>;
  readonly #log: LogSink;
  #want: (reason: EndReason) => void = () => undefined;
  #signalCount = 0;
  onStoreEnd: () => void = () => undefined;

  constructor(log: LogSink) {
    this.#log = log;
    this.wanted = new Promise((resolve) => {
      this.#want = resolve;
    });
  }

  watch(): void {
    for (const signal of SIGNALS) process.on(signal, this.#onSignal);
    process.on('uncaughtException', this.#onUncaught);
    // Whoever read the log has gone.
    process.stderr.on('error', ignore);
  }

  unwatch(): void {
    for (const signal of SIGNALS) process.off(signal, this.#onSignal);
    process.off('uncaughtException', this.#onUncaught);
    process.stderr.off('error', ignore);
  }

  /** A sink that sees the store end. */
  spy(log: LogSink): LogSink {
    return (event) => {
      log(event);
      if (event.event !== 'store-stopped') return;
      this.onStoreEnd();
      this.#want({ kind: event.fields?.kind === 'fenced' ? 'deposed' : 'store' });
    };
  }

  /** A request met a bug. What no longer holds for the whole process ends it. */
  bug(error: unknown, where: string): void {
    this.#log({ level: 'error', event: 'bug', message: `${where}: ${textOf(error)}` });
    if (error instanceof InvariantError) process.exit(EXIT_BUG);
  }

  readonly #onSignal = (name: string, number: number): void => {
    this.#signalCount++;
    if (this.#signalCount > 1) process.exit(128 + number);
    this.#want({ kind: 'signal', name });
  };

  readonly #onUncaught = (error: unknown): void => {
    this.#log({ level: 'error', event: 'bug', message: `The server ends: ${textOf(error)}` });
    process.exit(EXIT_BUG);
  };
}

function ignore(): void {}

function textOf(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error);
}
