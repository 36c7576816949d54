/**
 * Owns a simulated machine with a store on it, and the model that the store is compared with: what
 * a random run, a scripted one and their tests have in common.
 *
 * After every open: a copy of the medium is checked offline, and all sectors are compared.
 */
import { isStoreError } from '../src/base/store-error.js';
import { MIB, PIB } from '../src/base/units.js';
import type { LogSink } from '../src/env/log-sink.js';
import { MemoryDevice } from '../src/env/memory-device.js';
import type { Random } from '../src/env/random.js';
import { seededRandom } from '../src/env/seeded-random.js';
import { SparseBytes } from '../src/env/sparse-bytes.js';
import { checkStore } from '../src/main/check.js';
import { formatStore, type OpenOptions, openStore } from '../src/main/open-store.js';
import type { Store } from '../src/main/store.js';
import { Contents } from './content.js';
import { Coverage, type JobKind } from './coverage.js';
import { Digest } from './digest.js';
import { jobsOf, Life, type RunParts } from './life.js';
import { type Machine, type MachineOptions, type MediumKind, newMachine } from './machine.js';
import { Moments } from './model/disk.js';
import { Model } from './model/model.js';
import { Violation } from './model/violation.js';
import { checkRecovered } from './recovery-check.js';
import { SimulatedExternals } from './world/simulated-externals.js';
import type { VirtualClock } from './world/virtual-clock.js';

const STORE_BYTES = 64 * MIB;
/** Eight groups: far less than what is read. */
const CACHE_BYTES = 4 * MIB;
const OPENS_MAX = 4;
const STALE_READS_MS = 300;
/** What a read of an image takes. */
const EXTERNAL_MS = 0.1;

export interface HarnessOptions {
  readonly world: VirtualClock;
  readonly seed: number;
  readonly medium: MediumKind;
  readonly trace?: ((line: string) => void) | undefined;
  readonly disguise?: MachineOptions['disguise'];
  readonly disguiseObjects?: MachineOptions['disguiseObjects'];
  readonly faultRates?: MachineOptions['faultRates'];
  readonly localLagMs?: MachineOptions['localLagMs'];
}

/** When power is to fail during an open. */
export type CutPlan = { readonly atCall: number } | { readonly afterMs: number } | undefined;

export class Harness {
  readonly random: Random;
  readonly parts: RunParts;
  machine: Machine;
  readonly #options: HarnessOptions;
  /** Of the program, not of the world. */
  readonly #storeRandom: Random;
  readonly #cacheRandom: Random;
  readonly #cacheBytes = new SparseBytes(MIB);
  #opens = 0;

  constructor(options: HarnessOptions) {
    const { seed, world, medium, trace } = options;
    this.#options = options;
    this.random = seededRandom(seed);
    this.#storeRandom = seededRandom(seed + 2 ** 40);
    this.#cacheRandom = seededRandom(seed + 2 ** 42);
    this.machine = newMachine({
      world,
      medium,
      seed: seed + 2 ** 41,
      sizeBytes: STORE_BYTES,
      disguise: options.disguise,
      disguiseObjects: options.disguiseObjects,
      faultRates: options.faultRates ?? {},
      localLagMs: options.localLagMs,
    });
    const model = new Model({ contents: new Contents(), moments: new Moments() });
    const coverage = new Coverage();
    this.parts = {
      random: this.random,
      model,
      coverage,
      digest: new Digest(),
      sizeBytesMax: PIB,
      images: new Map(),
      trace,
    };
  }

  async format(): Promise<void> {
    await formatStore(this.machine.source, {
      sizeBytes: STORE_BYTES,
      random: this.#storeRandom,
      clock: this.machine.clock,
    });
  }

  /**
   * A local disk for a cache, in every second seed: it outlives the machine, and rots a little.
   * What is read through it must be what was written all the same.
   */
  #cacheDisk(): { readonly cache?: MemoryDevice } {
    const { seed, medium } = this.#options;
    if (medium !== 'object-log' || seed % 2 === 0) return {};
    const random = this.#cacheRandom;
    for (let flips = random.below(6); flips > 0; flips--) {
      this.#cacheBytes.flipBit(random.below(CACHE_BYTES), random.below(8));
    }
    const options = { sizeBytes: CACHE_BYTES, name: 'sim-cache', bytes: this.#cacheBytes };
    return { cache: new MemoryDevice(options) };
  }

  /** In two seeds of three the server looks whether it still is the owner, as a real one does. */
  #ownership(): Pick<OpenOptions, 'ownership' | 'alone'> {
    if (this.#options.seed % 3 === 0) return { alone: true };
    const owner = { machine: 'sim', program: `${this.#opens++}`, label: 'sim' };
    // Only one of them has power.
    const isGone = (): boolean => true;
    return { ownership: { owner, isGone, takeOver: false, staleReadsMsMax: STALE_READS_MS } };
  }

  /** Undefined if power failed before the store was open. */
  async tryOpen(options: OpenOptions, plan: CutPlan): Promise<Store | undefined> {
    const { machine } = this;
    let isOpen = false;
    const cut = new Promise<undefined>((resolve) => {
      const onCut = (): void => resolve(undefined);
      if (plan === undefined) return;
      if ('atCall' in plan) {
        machine.cutAtCall(machine.callsIssued + plan.atCall, onCut);
      } else {
        this.#options.world.setTimer(plan.afterMs, () => {
          if (isOpen) return;
          machine.powerOff();
          onCut();
        });
      }
    });
    const random = this.#storeRandom;
    const { clock } = machine;
    // Whatever was wrong with an image, it has come back by the time of the comparison.
    for (const image of this.parts.images.values()) {
      image.isMissing = false;
      image.failures = 0;
    }
    const externals = new SimulatedExternals(
      () => new Promise((resolve) => clock.setTimer(EXTERNAL_MS, resolve)),
      this.parts.images,
    );
    const { trace } = this.parts;
    const log: LogSink = ({ event, message }) => trace?.(`  log: ${event}: ${message}`);
    // Each attempt has its cache: an open that is refused closes it.
    const opened = openPatiently(machine, () => ({
      ...options,
      ...this.#ownership(),
      ...this.#cacheDisk(),
      random,
      clock,
      externals,
      log,
    }));
    const store = await Promise.race([opened, cut]);
    isOpen = true;
    machine.cutAtCall(0, () => undefined);
    if (store === undefined) this.#noteNestedCut();
    return store;
  }

  #noteNestedCut(): void {
    const { totals } = this.parts.coverage;
    totals.cuts++;
    totals.nestedCuts++;
    this.parts.digest.add('nested cut');
    this.parts.trace?.('  power fails during the open');
    this.cutPower();
  }

  newLife(store: Store, onFailure: (error: unknown) => void): Life {
    const jobs = (): readonly JobKind[] => jobsOf(store);
    return new Life(store, this.machine, this.parts, { failure: onFailure, jobs });
  }

  /** Cuts the power, if that has not happened, and gives it back. */
  cutPower(): void {
    this.machine.powerOff();
    this.machine = this.machine.next();
  }

  /** The store was closed: the medium may be opened again. */
  reopen(): void {
    this.machine = this.machine.next();
  }

  /** Compares a store that was just opened with the model. @throws {Violation} */
  async check(store: Store, after: 'cut' | 'close', skipData: boolean): Promise<void> {
    const { totals } = this.parts.coverage;
    if (after === 'close') totals.cleanOpens++;
    else totals.recoveries++;
    await this.checkOffline(skipData);
    await checkRecovered(store, store.list(), this.parts, after);
  }

  /** @throws {Violation} the offline check finds a fault in what is durable now */
  async checkOffline(skipData: boolean): Promise<void> {
    const report = await checkStore(this.machine.duplicate(), { skipData });
    this.parts.coverage.totals.storeChecks++;
    const [fault] = report.faults;
    if (fault === undefined) return;
    const more = report.faults.length - 1;
    throw new Violation(`store check: ${fault.kind}: ${fault.message} (and ${more} more faults)`);
  }

  /**
   * Adds up what a store did, before it is lost.
   * @throws {Violation} it healed a block, but nothing rots in this world
   */
  noteStats(store: Store): void {
    const { totals } = this.parts.coverage;
    const stats = store.stats();
    if (stats.blocksHealed > 0) {
      throw new Violation(`${stats.blocksHealed} metadata blocks were not what was written`);
    }
    totals.splitsCompleted += stats.splitsCompleted;
    totals.cacheHits += stats.cache?.fileHits ?? 0;
    totals.cacheDamaged += stats.cache?.file?.damaged ?? 0;
    totals.recordsEmptied += stats.cleaner?.recordsEmptied ?? 0;
    totals.dataCleaned += stats.cleaner?.dataBlocksMoved ?? 0;
    totals.metaCleaned += stats.cleaner?.metaBlocksMoved ?? 0;
    totals.recordsLeft += stats.cleaner?.recordsLeft ?? 0;
    totals.localGroups += stats.localLog?.groups ?? 0;
    totals.localWaits += stats.localLog?.waits ?? 0;
    totals.wholeShares += stats.splitWholeShares;
    totals.tallShares += stats.splitTallShares;
    totals.consistencyPoints += stats.cpCount;
    totals.blocksHealed += stats.blocksHealed;
  }
}

/**
 * On an object store the claim of an opener that lost its power may land late, between the next
 * one's look and its own claim: that one is told that it was fenced, and starts again.
 */
async function openPatiently(machine: Machine, optionsOf: () => OpenOptions): Promise<Store> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await openStore(machine.source, { ...optionsOf(), ...machine.openOptions() });
    } catch (error) {
      if (attempt === OPENS_MAX || !isStoreError(error, 'fenced')) throw error;
    }
  }
}
