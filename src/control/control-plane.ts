/**
 * What the handlers work with: the store, who uses it, jobs, events, and what the server says of
 * itself. One for a running server.
 */
import { StoreError } from '../base/store-error.js';
import type { Clock, Timer } from '../env/clock.js';
import type { LogSink } from '../env/log-sink.js';
import type { Random } from '../env/random.js';
import type { NbdConnection } from '../target/nbd/exports.js';
import type { NbdMemory } from '../target/nbd/listener.js';
import type { NbdTls } from '../target/nbd/tls.js';
import { Attachments } from './attachments.js';
import { toCertificate } from './certificates.js';
import type { ControlStore, StoreSplit, StoreVdisk } from './control-store.js';
import type { Prices, Requests } from './costs.js';
import { EventLog } from './event-log.js';
import { Exports, isOwnName } from './exports.js';
import type { Histogram } from './histogram.js';
import { Jobs } from './jobs.js';
import type { AttachmentKeeper } from './kept-attachments.js';
import type { Address, Client, Job, Server, Vdisk } from './schemas.js';
import { toSplit } from './split-options.js';
import { statsOf } from './stats.js';

/** Times of the device under the store. */
export type DeviceTimes = Readonly<Record<'read' | 'write' | 'log' | 'sync' | 'copy', Histogram>>;

/** What was asked of the object store under the store, by verb. */
export interface ObjectMeter {
  readonly times: Histogram;
  readonly bytes: number;
  readonly errors: number;
  /** Puts whose outcome had to be read. */
  readonly unknown: number;
}

export type ObjectMeters = Readonly<Record<'put' | 'get' | 'delete' | 'list', ObjectMeter>>;

export interface ObjectCounters {
  readonly meters: ObjectMeters;
  /** Requests that were sent again, or left open. */
  retries(): number;
  /** Undefined: no price is given. */
  readonly prices: Prices | undefined;
  spent(): { readonly sinceStart: TimedRequests; readonly lastHour: TimedRequests };
}

type TimedRequests = Requests & { readonly ms: number };

export interface ControlPlaneOptions {
  readonly store: ControlStore;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: LogSink;
  /** Of all NBD servers together. */
  readonly memory: NbdMemory;
  readonly version: string;
  readonly pid: number | undefined;
  /** For people: where the store is. */
  readonly storePath: string;
  readonly socketMode: number;
  /** On TCP ports of NBD. */
  readonly nbdTls?: NbdTls | undefined;
  readonly allowInsecure: boolean;
  /** Undefined: no attachment outlives the server. */
  readonly attachmentKeeper?: AttachmentKeeper | undefined;
  readonly deviceTimes?: DeviceTimes;
  readonly objectCounters?: ObjectCounters;
}

export class ControlPlane {
  readonly options: ControlPlaneOptions;
  readonly store: ControlStore;
  readonly clock: Clock;
  readonly events: EventLog;
  readonly exports: Exports;
  readonly attachments: Attachments;
  readonly jobs: Jobs;
  readonly startedWallMs: number;
  readonly #startedMs: number;
  /** Where the server listens; filled in as it begins to. */
  readonly api: Address[] = [];
  readonly nbd: Server['nbd'][number][] = [];
  /** A write has failed: the store takes no more, and the server has to be started again. */
  hasEnded = false;
  #statsTimer: Timer | undefined;

  constructor(options: ControlPlaneOptions) {
    const { store, clock } = options;
    this.options = options;
    this.store = store;
    this.clock = clock;
    this.startedWallMs = clock.wallMs();
    this.#startedMs = clock.nowMs();
    this.events = new EventLog(clock);
    this.exports = new Exports({
      store,
      clock,
      onClient: ({ id, peer, target }, isThere) => {
        const type = isThere ? 'client-connected' : 'client-disconnected';
        this.events.add(type, { id, peer, name: target.name });
      },
    });
    const { exports } = this;
    this.attachments = new Attachments({ ...options, exports, keeper: options.attachmentKeeper });
    this.jobs = new Jobs(clock, (job) => this.#tellJob(job));
  }

  /** Takes up what an earlier server left: splits go on as jobs, half imports are deleted. */
  async resume(): Promise<void> {
    for (const { name } of this.store.list()) if (isOwnName(name)) await this.store.delete(name);
    this.resumeSplits();
  }

  /** Splits that the store knows of are jobs. */
  resumeSplits(): void {
    for (const { name, kind, split } of this.store.list()) {
      if (kind !== 'vdisk' || split === undefined) continue;
      if (this.jobs.running('split', name) !== undefined) continue;
      const known = this.store.splitOf(name);
      if (known !== undefined && split.state !== 'undoing') this.#toJob(name, known);
    }
  }

  /** @throws {StoreError} not-found, invalid, out-of-space */
  async startSplit(name: string, options: Parameters<ControlStore['split']>[1]): Promise<Job> {
    return this.#toJob(name, await this.store.split(name, options));
  }

  /** @throws {StoreError} not-found, invalid, in-use */
  async cancelSplit(name: string, undo: boolean): Promise<Vdisk> {
    const job = this.jobs.running('split', name);
    if (job !== undefined) this.jobs.willBeCancelled(job.id);
    await this.store.cancelSplit(name, { undo });
    const vdisk = this.show(name);
    this.events.add('vdisk-changed', { ...vdisk, formerName: name });
    return vdisk;
  }

  #toJob(name: string, split: StoreSplit): Job {
    const { jobs, store, exports } = this;
    const running = jobs.running('split', name);
    if (running !== undefined) return running;
    const target = exports.target(name);
    if (target === undefined) throw new StoreError('not-found', `there is no vdisk ${name}`);
    let last = split.state();
    return jobs.start({
      kind: 'split',
      vdisk: () => target.name,
      state: () => {
        last = split.state() ?? last;
        return {
          doneBytes: last?.positionBytes ?? 0,
          totalBytes: last?.endBytes ?? 0,
          pauseReason: pauseOf(last),
        };
      },
      done: split.done,
      cancel: () => store.cancelSplit(target.name),
    });
  }

  get uptimeSeconds(): number {
    return Math.round((this.clock.nowMs() - this.#startedMs) / 1000);
  }

  /** @throws {StoreError} not-found */
  show(name: string): Vdisk {
    if (isOwnName(name)) throw new StoreError('not-found', `there is no vdisk ${name}`);
    return this.toVdisk(this.store.show(name));
  }

  toVdisk(info: StoreVdisk): Vdisk {
    const { name, split } = info;
    const job = split === undefined ? undefined : this.jobs.running('split', name);
    const clients = this.exports.clientsOf(name);
    return {
      name,
      kind: info.kind,
      sizeBytes: info.sizeBytes,
      backing: info.backing === undefined || info.backing === '' ? null : info.backing,
      isMerging: info.backing === '',
      mappedBytes: info.mappedBytes,
      sharedBytes: info.sharedBytes,
      ownBytes: info.ownBytes,
      holders: info.holders.filter((holder) => !isOwnName(holder)),
      split: split === undefined ? null : toSplit(split, job?.id),
      external: toExternal(info.external),
      published: info.published ?? null,
      certificate: toCertificate(info.certificate),
      durability: info.durability,
      clientCount: clients.length,
      clients: clients.map(toClient),
    };
  }

  /** Tells statistics as events for as long as somebody listens. */
  tellStats(everyMs: number): void {
    this.#statsTimer ??= this.clock.setTimer(everyMs, () => {
      this.#statsTimer = undefined;
      if (this.events.listenerCount === 0) return;
      this.events.tell('stats', statsOf(this));
      this.tellStats(everyMs);
    });
  }

  async close(): Promise<void> {
    this.#statsTimer?.cancel();
    this.jobs.close();
    this.events.close();
    await this.attachments.close();
  }

  #tellJob(job: Job): void {
    const isProgress = job.endedAt === null && job.rateBytesPerSecond > 0;
    if (isProgress) this.events.tell('job', job);
    else this.events.add('job', job);
  }
}

function toClient({ id, peer, target, requestsInFlight, heldBytes }: NbdConnection): Client {
  return { id, peer, name: target.name, requestsInFlight, heldBytes };
}

/** Why the split does not go on now. */
function pauseOf(split: StoreVdisk['split']): string | undefined {
  if (split?.state === 'paused') return 'paused';
  return split?.state === 'waiting' ? split.reason : undefined;
}

function toExternal(external: StoreVdisk['external']): Vdisk['external'] {
  if (external === undefined) return null;
  const { format, files, trouble } = external;
  return { format: format ?? null, files: [...files], trouble: trouble ?? null };
}
