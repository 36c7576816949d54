/**
 * Owns one life of a store, from an open to the next cut, close or failure: what its clients share.
 *
 * 1. Every act goes through `perform`: it is counted with the jobs that run beside it, it enters
 *    the digest when it begins and when it is answered, and an answer that nothing explains is a
 *    violation.
 * 2. Acts that would make each other's outcome a matter of luck hold locks: a vdisk with its
 *    snapshots is renamed, resized, deleted or taken a snapshot of by one act at a time.
 */
import { isStoreError, type StoreErrorKind } from '../src/base/store-error.js';
import type { Clock } from '../src/env/clock.js';
import type { Random } from '../src/env/random.js';
import type { SplitJob, SplitOptions, Store } from '../src/main/store.js';
import type { VdiskInfo } from '../src/main/store-info.js';
import type { BlockTarget } from '../src/vdisk/block-target.js';
import { ExternalError } from '../src/vdisk/external-store.js';
import type { Coverage, JobKind } from './coverage.js';
import type { Digest } from './digest.js';
import type { ModelDisk } from './model/disk.js';
import type { Model } from './model/model.js';
import { Violation } from './model/violation.js';
import type { SimulatedImage } from './world/simulated-externals.js';

export interface RunParts {
  readonly random: Random;
  readonly model: Model;
  readonly coverage: Coverage;
  readonly digest: Digest;
  /** No vdisk is larger. */
  readonly sizeBytesMax: number;
  /** What external backing stores are read from; on no medium of this machine. */
  readonly images: Map<string, SimulatedImage>;
  /** Lines for a person who replays a run. */
  readonly trace: ((line: string) => void) | undefined;
}

/** What acts ask for: the store itself, or one that a server has open. */
export interface LivingStore
  extends Pick<
    Store,
    | 'snapshot'
    | 'rename'
    | 'resize'
    | 'delete'
    | 'diff'
    | 'changeSplit'
    | 'pauseSplit'
    | 'resumeSplit'
    | 'cancelSplit'
    | 'scan'
    | 'verify'
    | 'consistencyPoint'
    | 'idle'
    | 'close'
  > {
  createVdisk(name: string, sizeBytes: number): Promise<unknown>;
  createExternal(name: string, path: string): Promise<unknown>;
  clone(snapshot: string, name: string): Promise<unknown>;
  split(name: string, options: SplitOptions): Promise<Pick<SplitJob, 'done'>>;
  list(): VdiskInfo[] | Promise<VdiskInfo[]>;
  vdisk(name: string): LivingTarget;
}

export type LivingTarget = Omit<BlockTarget, 'name' | 'sizeBytes' | 'readOnly'>;

/** What may end a life, and measures it. */
export interface LifeMachine {
  readonly clock: Clock;
  /** Faults that may make a call fail although nobody asked for it. */
  readonly faultsSeen: number;
}

export type Answer<T> =
  | { readonly kind: 'done'; readonly value: T }
  | {
      readonly kind: 'failed';
      /** external: what is read outside of the store cannot be read now. */
      readonly error: StoreErrorKind | 'external';
      readonly message: string;
    };

/** Errors after which nothing is known of what was under way. */
const STOPPED: readonly (StoreErrorKind | 'external')[] = ['device', 'fenced', 'closed'];

interface Lock {
  shared: number;
  exclusive: boolean;
}

export class Life {
  readonly store: LivingStore;
  readonly machine: LifeMachine;
  readonly parts: RunParts;
  /** Nothing new is begun. */
  isStopping = false;
  /** The store has said that it has stopped. */
  hasStopped = false;
  readonly #underWay = new Map<string, number>();
  readonly #locks = new Map<ModelDisk, Lock>();
  readonly #handles = new Map<ModelDisk, LivingTarget>();
  readonly #shrinksTo = new Map<ModelDisk, number>();
  readonly #onFailure: (error: unknown) => void;
  readonly #jobs: () => readonly JobKind[];
  readonly #faultsBefore: number;
  #actNumber = 0;

  /** @param jobs  the jobs that run in the background now */
  constructor(
    store: LivingStore,
    machine: LifeMachine,
    parts: RunParts,
    on: {
      readonly failure: (error: unknown) => void;
      readonly jobs: () => readonly JobKind[];
    },
  ) {
    this.store = store;
    this.machine = machine;
    this.parts = parts;
    this.#onFailure = on.failure;
    this.#jobs = on.jobs;
    this.#faultsBefore = machine.faultsSeen;
  }

  get model(): Model {
    return this.parts.model;
  }

  get random(): Random {
    return this.parts.random;
  }

  get nowMs(): number {
    return this.machine.clock.nowMs();
  }

  /** Acts begun in this life. */
  get actCount(): number {
    return this.#actNumber;
  }

  /** Acts that were not answered yet, with the time when they were asked for. */
  underWay(): string[] {
    return [...this.#underWay].map(([what, since]) => `${what}, since ${since.toFixed(3)} ms`);
  }

  sleep(delayMs: number): Promise<void> {
    return new Promise((resolve) => {
      this.machine.clock.setTimer(delayMs, resolve);
    });
  }

  /** Runs beside everything else; what it throws ends the run. */
  go(work: () => Promise<void>): Promise<void> {
    return work().catch((error: unknown) => this.#onFailure(error));
  }

  async perform<T>(
    kind: string,
    what: string,
    body: () => T | Promise<T>,
  ): Promise<Answer<Awaited<T>>> {
    const { coverage, digest, trace } = this.parts;
    const number = ++this.#actNumber;
    coverage.act(kind, this.#jobs());
    digest.add(what, this.nowMs * 1000);
    trace?.(`${this.nowMs.toFixed(3)} ${number} ${kind} ${what}`);
    const key = `${number} ${kind} ${what}`;
    this.#underWay.set(key, this.nowMs);
    try {
      const value = await body();
      digest.add('done', number);
      trace?.(`${this.nowMs.toFixed(3)} ${number} done`);
      return { kind: 'done', value };
    } catch (error) {
      if (!isStoreError(error)) throw error;
      digest.add(error.kind, number);
      trace?.(`${this.nowMs.toFixed(3)} ${number} ${error.kind}: ${error.message}`);
      if (error instanceof ExternalError) {
        coverage.totals.externalTroubles++;
        return { kind: 'failed', error: 'external', message: error.message };
      }
      if (error.kind === 'out-of-space') coverage.totals.outOfSpace++;
      if (error.kind === 'corrupt') throw new Violation(`${kind} ${what}: ${error.message}`);
      if (STOPPED.includes(error.kind)) this.#noteStopped(kind, what, error.message);
      return { kind: 'failed', error: error.kind, message: error.message };
    } finally {
      this.#underWay.delete(key);
    }
  }

  #noteStopped(kind: string, what: string, message: string): void {
    this.hasStopped = true;
    this.isStopping = true;
    if (this.machine.faultsSeen > this.#faultsBefore) return;
    throw new Violation(`${kind} ${what}: no fault of the medium, but: ${message}`);
  }

  /** What becomes of an act in the model. */
  outcomeOf(answer: Answer<unknown>): 'done' | 'failed' | 'lost' {
    if (answer.kind === 'done') return 'done';
    return STOPPED.includes(answer.error) ? 'lost' : 'failed';
  }

  /** An answer that is none of those an act may get. */
  unexpected(kind: string, what: string, answer: Answer<unknown>): Violation {
    const said = answer.kind === 'done' ? 'it was done' : `${answer.error}: ${answer.message}`;
    return new Violation(`${kind} ${what}: ${said}`);
  }

  // -- handles and locks

  handle(disk: ModelDisk): LivingTarget {
    let handle = this.#handles.get(disk);
    if (handle === undefined) {
      handle = this.store.vdisk(disk.name);
      this.#handles.set(disk, handle);
    }
    return handle;
  }

  /** True if a client can get hold of the disk: it has a handle, or the name does not move. */
  isReachable(disk: ModelDisk): boolean {
    if (disk.isGone) return false;
    return this.#handles.has(disk) || !this.isLocked(disk);
  }

  isLocked(disk: ModelDisk): boolean {
    return this.#locks.get(disk.of ?? disk)?.exclusive === true;
  }

  /** Locks all of these vdisks, with their snapshots, or none. */
  lock(disks: readonly ModelDisk[], kind: 'shared' | 'exclusive'): boolean {
    const roots = new Set(disks.map((disk) => disk.of ?? disk));
    for (const root of roots) {
      const lock = this.#locks.get(root);
      if (lock?.exclusive === true) return false;
      if (kind === 'exclusive' && lock !== undefined && lock.shared > 0) return false;
    }
    for (const root of roots) {
      const lock = this.#locks.get(root) ?? { shared: 0, exclusive: false };
      this.#locks.set(root, lock);
      if (kind === 'shared') lock.shared++;
      else lock.exclusive = true;
    }
    return true;
  }

  unlock(disks: readonly ModelDisk[], kind: 'shared' | 'exclusive'): void {
    for (const root of new Set(disks.map((disk) => disk.of ?? disk))) {
      const lock = this.#locks.get(root);
      if (lock === undefined) continue;
      if (kind === 'shared') lock.shared--;
      else lock.exclusive = false;
    }
  }

  /**
   * Where a vdisk ends for clients: while it is being shrunk nothing goes on behind its end to be.
   */
  endOf(disk: ModelDisk): number {
    return Math.min(disk.sizeBytes, this.#shrinksTo.get(disk) ?? disk.sizeBytes);
  }

  setShrinksTo(disk: ModelDisk, sizeBytes: number | undefined): void {
    if (sizeBytes === undefined) this.#shrinksTo.delete(disk);
    else this.#shrinksTo.set(disk, sizeBytes);
  }

  // -- choices

  pick<T>(items: readonly T[]): T | undefined {
    return items.length === 0 ? undefined : items[this.random.below(items.length)];
  }
}

/** The jobs that run in the background of a store now. */
export function jobsOf(store: Store): JobKind[] {
  const jobs: JobKind[] = [];
  const stats = store.stats();
  if (stats.splitsActive > 0) {
    const modes = new Set(
      store
        .list()
        .filter(
          ({ split }) => split !== undefined && ['filling', 'releasing'].includes(split.state),
        )
        .map(({ split }) => split?.mode),
    );
    if (store.list().some(({ split }) => split?.state === 'undoing')) jobs.push('undo');
    if (modes.has('copy')) jobs.push('copy-split');
    if (modes.has('share')) jobs.push('share-split');
  }
  if (stats.background !== undefined) jobs.push(stats.background);
  if (stats.cpInProgress) jobs.push('cp');
  return jobs;
}
