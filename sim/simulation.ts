/**
 * One simulated run from a seed: a store lives, dies and is opened again, over and over, and is
 * compared with the model each time.
 *
 * 1. Everything follows from the seed: the same seed gives the same digest.
 * 2. A life ends by a power cut (at a random moment, or in a certain call of the medium), by a
 *    failed write or sync, or by a close. Power may fail again while the store is being opened.
 */
import { MIB } from '../src/base/units.js';
import type { Random } from '../src/env/random.js';
import type { OpenOptions } from '../src/main/open-store.js';
import type { Store } from '../src/main/store.js';
import type { CleanerOptions } from '../src/store/object-log/cleaner/cleaner.js';
import { resetNames } from './acts/admin.js';
import { createExternal } from './acts/external.js';
import { splitDisk } from './acts/jobs.js';
import type { Coverage } from './coverage.js';
import { type CutPlan, Harness } from './harness.js';
import type { Life } from './life.js';
import type { MachineOptions, MediumKind } from './machine.js';
import { Violation } from './model/violation.js';
import {
  addBallast,
  createFirst,
  drawTastes,
  fillAndEmpty,
  startClients,
  type Tastes,
} from './workload.js';
import type { ObjectFaultRates } from './world/simulated-object-store.js';
import { DeadlockError, VirtualClock } from './world/virtual-clock.js';

export interface SimulationOptions {
  readonly seed: number;
  readonly medium: MediumKind;
  readonly actsMin?: number;
  readonly cutsMin?: number;
  readonly trace?: ((line: string) => void) | undefined;
  readonly disguise?: MachineOptions['disguise'];
  /** Object log: FLUSH is answered by a local log. */
  readonly isLocal?: boolean;
}

export interface SimulationReport {
  readonly digest: string;
  readonly coverage: Coverage;
}

const ACTS_MIN = 2000;
const CUTS_MIN = 20;
/** Acts go on while a life comes to its end, so that half of the acts wanted are too many. */
const ACTS_SPREAD = 1.5;
/**
 * The medium may never be called again, as when the store is full: then power is cut all the same.
 */
const END_MS_MAX = 1500;
const END_ACTS_MAX = 2000;
/** Every so many seeds begin with a store that is nearly full. */
const BALLAST_SEEDS = 12;
/** Every so many seeds have images outside of the store. */
const EXTERNAL_SEEDS = 7;
/** Of an object store, in every fourth seed. */
const FAULTS: ObjectFaultRates = {
  lostRequest: 0.004,
  lostResponse: 0.004,
  latePut: 0.002,
  lateCopy: 0.002,
  repeatedPut: 0.002,
  failedGet: 0.005,
  corruptedGet: 0.001,
  failedList: 0.01,
  failedDelete: 0.02,
  delayed: 0.001,
};
/** The machine stands still so long at most: longer than anything that it waits for. */
const FREEZE_MS_MAX = 4000;
/** Mean of what a FLUSH takes. */
const PACE_MS: Record<MediumKind, number> = { 'in-place': 0.5, 'object-log': 12 };

/** What the object store may lack at most, with a local log. */
const LAGS_MS = [5000, 20, 200];

/** @throws {Violation} the store did what it must never do */
export async function simulate(options: SimulationOptions): Promise<SimulationReport> {
  const world = new VirtualClock();
  const simulation = new Simulation(world, options);
  try {
    return await world.run(simulation.run());
  } catch (error) {
    if (!(error instanceof DeadlockError)) throw error;
    throw new Violation(`no answer to: ${simulation.underWay().join('; ')} (${error.message})`);
  }
}

/** In two seeds of three it hardly rests; these stores are small. */
function cleanerOf(seed: number): Partial<CleanerOptions> {
  if (seed % 3 === 0) return { deadBlocksMin: 256 };
  return { liveRatioMin: 0.95, blocksPerCp: seed % 3 === 1 ? 1000 : 20, deadBlocksMin: 8 };
}

type LifeEnd = 'cut' | 'close' | 'failure';
type EndPlan = LifeEnd | 'cut-at-call';

class Simulation {
  readonly #options: SimulationOptions;
  readonly #world: VirtualClock;
  readonly #harness: Harness;
  readonly #random: Random;
  readonly #openOptions: OpenOptions;
  readonly #tastes: Tastes;
  readonly #canFill: boolean;
  readonly #hasBallast: boolean;
  readonly #hasExternals: boolean;
  #life: Life | undefined;

  constructor(world: VirtualClock, options: SimulationOptions) {
    resetNames();
    const { seed, medium, trace, disguise } = options;
    this.#options = options;
    this.#world = world;
    const isFaulty = seed % 4 === 0;
    this.#harness = new Harness({
      world,
      seed,
      medium,
      trace,
      disguise,
      ...(isFaulty ? { faultRates: FAULTS } : {}),
      localLagMs: options.isLocal === true ? LAGS_MS[seed % LAGS_MS.length] : undefined,
    });
    const { random } = this.#harness;
    this.#random = random;
    const memoryBytes = MIB * (2 + random.below(7));
    this.#openOptions = {
      memoryBytes,
      dirtyBytesMax: random.chance(0.5) ? memoryBytes / 2 : 512 * 4096,
      cpIntervalMs: [10, 50, 300, 2000][random.below(4)] ?? 100,
      cleaner: cleanerOf(seed),
    };
    this.#hasExternals = seed % EXTERNAL_SEEDS === 3;
    const hasExternals = this.#hasExternals;
    this.#tastes = drawTastes(random, PACE_MS[medium], { seed, hasExternals });
    this.#canFill = random.chance(0.2);
    this.#hasBallast = medium === 'in-place' && seed % BALLAST_SEEDS === 0;
  }

  /** Acts that were not answered. */
  underWay(): string[] {
    return this.#life?.underWay() ?? ['open'];
  }

  async run(): Promise<SimulationReport> {
    const { coverage, digest } = this.#harness.parts;
    const { totals } = coverage;
    const { actsMin = ACTS_MIN, cutsMin = CUTS_MIN } = this.#options;
    await this.#harness.format();
    let end: LifeEnd = 'close';
    for (let isFirst = true; totals.acts < actsMin || totals.cuts < cutsMin; isFirst = false) {
      const store = await this.#open(end, isFirst);
      end = await this.#live(store, actsMin / cutsMin, isFirst);
    }
    await this.#open(end, false);
    totals.seeds++;
    totals.virtualMs += this.#world.nowMs();
    return { digest: digest.toString(), coverage };
  }

  /** Opens the store, however often power fails meanwhile, and compares it with the model. */
  async #open(end: LifeEnd, isFirst: boolean): Promise<Store> {
    const random = this.#random;
    let after: 'cut' | 'close' = end === 'close' ? 'close' : 'cut';
    for (;;) {
      let plan: CutPlan;
      if (!isFirst && random.chance(0.2)) {
        plan = random.chance(0.7)
          ? { atCall: 1 + random.below(12) }
          : { afterMs: random.nextFraction() * 20 };
      }
      const store = await this.#harness.tryOpen(this.#openOptions, plan);
      if (store === undefined) {
        after = 'cut';
        continue;
      }
      await this.#harness.check(store, after, !random.chance(0.1));
      return store;
    }
  }

  async #live(store: Store, actsWanted: number, isFirst: boolean): Promise<LifeEnd> {
    const random = this.#random;
    const { coverage, digest, model, trace } = this.#harness.parts;
    let fail: (error: unknown) => void = () => undefined;
    const failure = new Promise<never>((_, reject) => {
      fail = reject;
    });
    failure.catch(() => undefined);
    const life = this.#harness.newLife(store, fail);
    this.#life = life;
    if (isFirst) await Promise.race([createFirst(life), failure]);
    if (isFirst && this.#hasExternals) await Promise.race([createExternal(life), failure]);
    if (isFirst && this.#hasBallast) await Promise.race([addBallast(life), failure]);
    const fibers = startClients(life, this.#tastes);
    if (this.#canFill && random.chance(0.1)) fibers.push(life.go(() => fillAndEmpty(life)));
    for (const disk of model.vdisks()) {
      const mode = disk.split?.mode;
      if (mode !== undefined) void life.go(async () => void (await splitDisk(life, disk, mode)));
    }
    if (this.#options.medium === 'object-log' && this.#options.seed % 4 === 0)
      this.#freezeSometime();
    const acts = Math.max(5, Math.floor(actsWanted * ACTS_SPREAD * random.nextFraction()));
    const end = await Promise.race([failure, this.#endOf(life, this.#drawEnd(), fibers, acts)]);
    this.#harness.noteStats(store);
    if (end === 'cut') {
      coverage.totals.cuts++;
      coverage.totals.splitsInterrupted += store.stats().splitsActive;
    }
    if (end === 'failure') coverage.totals.deviceFailures++;
    digest.add(end, this.#world.nowMs() * 1000);
    trace?.(`  the life ends: ${end}; under way: ${life.underWay().join('; ') || 'nothing'}`);
    this.#life = undefined;
    // What it still does would be done to the next life: images are not on the machine.
    life.isStopping = true;
    if (end === 'close') this.#harness.reopen();
    else this.#harness.cutPower();
    return end;
  }

  /** In one life of four the machine stands still for a while, whatever is under way. */
  #freezeSometime(): void {
    const random = this.#random;
    if (!random.chance(0.25)) return;
    const { machine } = this.#harness;
    const durationMs = random.nextFraction() * FREEZE_MS_MAX;
    this.#world.setTimer(random.nextFraction() * 300, () => machine.freeze(durationMs));
  }

  #drawEnd(): EndPlan {
    const drawn = this.#random.below(20);
    if (drawn < 9) return 'cut';
    if (drawn < 16) return 'cut-at-call';
    return drawn < 18 ? 'failure' : 'close';
  }

  /** Lets the life go on for so many acts, then ends it as planned. */
  #endOf(
    life: Life,
    plan: EndPlan,
    fibers: readonly Promise<void>[],
    acts: number,
  ): Promise<LifeEnd> {
    return new Promise((tell) => {
      let isOver = false;
      const resolve = (end: LifeEnd): void => {
        isOver = true;
        tell(end);
      };
      void life.go(async () => {
        await Promise.all(fibers);
        if (life.hasStopped) resolve('failure');
      });
      const look = (): void => {
        if (life.hasStopped) return;
        if (life.actCount < acts) this.#world.setTimer(1, look);
        else {
          this.#end(life, plan, fibers, resolve);
          const endMs = this.#world.nowMs() + END_MS_MAX;
          const actsMax = life.actCount + END_ACTS_MAX;
          const wait = (): void => {
            if (isOver) return;
            const isLong = this.#world.nowMs() >= endMs || life.actCount >= actsMax;
            if (isLong) this.#end(life, 'cut', fibers, resolve);
            else this.#world.setTimer(1, wait);
          };
          wait();
        }
      };
      look();
    });
  }

  #end(
    life: Life,
    plan: EndPlan,
    fibers: readonly Promise<void>[],
    resolve: (end: LifeEnd) => void,
  ): void {
    const { machine } = this.#harness;
    const random = this.#random;
    switch (plan) {
      case 'cut':
        machine.powerOff();
        resolve('cut');
        return;
      case 'cut-at-call':
        machine.cutAtCall(machine.callsIssued + 1 + random.below(30), () => resolve('cut'));
        return;
      case 'failure': {
        const kind = random.chance(0.5) ? 'sync' : 'write';
        if (machine.failCall(1 + random.below(20), kind)) return;
        // An object store has no such fault: it is closed instead.
        void life.go(() => this.#close(life, fibers).then(() => resolve('close')));
        return;
      }
      case 'close':
        void life.go(() => this.#close(life, fibers).then(() => resolve('close')));
    }
  }

  async #close(life: Life, fibers: readonly Promise<void>[]): Promise<void> {
    life.isStopping = true;
    await Promise.all(fibers);
    const answer = await life.perform('close', '', () => life.store.close());
    if (answer.kind === 'failed') throw life.unexpected('close', '', answer);
  }
}
