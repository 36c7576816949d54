/**
 * One simulated run from a seed: a store lives, dies and is opened again, over and over, and is
 * compared with the model each time.
 *
 * 1. Everything follows from the seed: the same seed gives the same digest.
 * 2. A life ends by a power cut (at a random moment, or in a certain call of the medium), by a
 *    failed write or sync, or by a close. Power may fail again while the store is being opened.
 * 3. After every open: all sectors are compared, and a copy of the medium is checked offline.
 */

import { MIB } from '../src/base/units.js';
import type { Random } from '../src/env/random.js';
import { seededRandom } from '../src/env/seeded-random.js';
import { checkStore } from '../src/main/check.js';
import { formatStore, type OpenOptions, openStore } from '../src/main/open-store.js';
import type { Store } from '../src/main/store.js';
import { resetNames } from './acts/admin.js';
import { splitDisk } from './acts/jobs.js';
import { Contents } from './content.js';
import { Coverage } from './coverage.js';
import { Digest } from './digest.js';
import { Life, type RunParts } from './life.js';
import { type Machine, type MachineOptions, type MediumKind, newMachine } from './machine.js';
import { Moments } from './model/disk.js';
import { Model } from './model/model.js';
import { Violation } from './model/violation.js';
import { checkRecovered } from './recovery-check.js';
import { createFirst, drawTastes, fillAndEmpty, startClients, type Tastes } from './workload.js';
import { DeadlockError, VirtualClock } from './world/virtual-clock.js';

export interface SimulationOptions {
  readonly seed: number;
  readonly medium: MediumKind;
  readonly actsMin?: number;
  readonly cutsMin?: number;
  readonly trace?: (line: string) => void;
  readonly disguise?: MachineOptions['disguise'];
}

export interface SimulationReport {
  readonly digest: string;
  readonly coverage: Coverage;
}

const ACTS_MIN = 2000;
const CUTS_MIN = 20;
/** Mean of what a FLUSH takes. */
const PACE_MS: Record<MediumKind, number> = { 'in-place': 0.5, 'object-log': 12 };

/** @throws {Violation} */
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

type LifeEnd = 'cut' | 'close' | 'failure';

class Simulation {
  readonly #options: SimulationOptions;
  readonly #world: VirtualClock;
  readonly #random: Random;
  readonly #parts: RunParts;
  readonly #openOptions: OpenOptions;
  readonly #tastes: Tastes;
  readonly #canFill: boolean;
  #machine: Machine;
  #life: Life | undefined;

  constructor(world: VirtualClock, options: SimulationOptions) {
    resetNames();
    this.#options = options;
    this.#world = world;
    this.#random = seededRandom(options.seed);
    const random = this.#random;
    const isFaulty = random.chance(0.25);
    this.#machine = newMachine({
      world,
      medium: options.medium,
      seed: options.seed + 1,
      sizeBytes: 64 * MIB,
      disguise: options.disguise,
      faultRates: isFaulty ? { lostRequest: 0.004, lostResponse: 0.004, latePut: 0.002 } : {},
    });
    const model = new Model({ contents: new Contents(), moments: new Moments() });
    const coverage = new Coverage();
    this.#parts = { random, model, coverage, digest: new Digest(), trace: options.trace };
    const memoryBytes = MIB * (2 + random.below(7));
    this.#openOptions = {
      memoryBytes,
      dirtyBytesMax: random.chance(0.5) ? memoryBytes / 2 : 512 * 4096,
      cpIntervalMs: [10, 50, 300, 2000][random.below(4)] ?? 100,
      random: seededRandom(options.seed + 2),
    };
    this.#tastes = drawTastes(random, PACE_MS[options.medium]);
    this.#canFill = random.chance(0.2);
  }

  underWay(): string[] {
    return this.#life?.underWay() ?? ['open'];
  }

  async run(): Promise<SimulationReport> {
    const { totals } = this.#parts.coverage;
    const { actsMin = ACTS_MIN, cutsMin = CUTS_MIN } = this.#options;
    await formatStore(this.#machine.source, {
      sizeBytes: 64 * MIB,
      random: seededRandom(this.#options.seed + 3),
      clock: this.#machine.clock,
    });
    let end: LifeEnd = 'close';
    for (let isFirst = true; totals.acts < actsMin || totals.cuts < cutsMin; isFirst = false) {
      const store = await this.#open(end, isFirst);
      end = await this.#live(store, actsMin / cutsMin, isFirst);
    }
    await this.#open(end, false);
    totals.seeds++;
    totals.virtualMs += this.#world.nowMs();
    return { digest: this.#parts.digest.toString(), coverage: this.#parts.coverage };
  }

  // -- opening

  /** Opens the store, however often power fails meanwhile, and compares it with the model. */
  async #open(after: LifeEnd, isFirst: boolean): Promise<Store> {
    const { coverage, digest } = this.#parts;
    for (let end = after; ; end = 'cut') {
      const nested = !isFirst && this.#random.chance(0.2);
      const store = await this.#tryOpen(nested);
      if (store === undefined) {
        coverage.totals.cuts++;
        coverage.totals.nestedCuts++;
        digest.add('nested cut');
        this.#trace('  power fails during the open');
        this.#machine.powerOff();
        this.#machine = this.#machine.next();
        after = 'cut';
        continue;
      }
      if (end === 'close' && after === 'close') coverage.totals.cleanOpens++;
      else coverage.totals.recoveries++;
      await this.#check(store, after);
      return store;
    }
  }

  /** Undefined if power failed. */
  async #tryOpen(isCut: boolean): Promise<Store | undefined> {
    const machine = this.#machine;
    const random = this.#random;
    let isOpen = false;
    const cut = new Promise<undefined>((resolve) => {
      const onCut = (): void => resolve(undefined);
      if (isCut && random.chance(0.7)) {
        machine.cutAtCall(machine.callsIssued + 1 + random.below(12), onCut);
      } else if (isCut) {
        this.#world.setTimer(random.nextFraction() * 20, () => {
          if (isOpen) return;
          machine.powerOff();
          onCut();
        });
      }
    });
    const opened = openStore(machine.source, { ...this.#openOptions, clock: machine.clock });
    const store = await Promise.race([opened, cut]);
    isOpen = true;
    machine.cutAtCall(0, () => undefined);
    return store;
  }

  async #check(store: Store, after: LifeEnd): Promise<void> {
    const { coverage } = this.#parts;
    const skipData = !this.#random.chance(0.1);
    const report = await checkStore(this.#machine.duplicate(), { skipData });
    coverage.totals.storeChecks++;
    const [fault] = report.faults;
    if (fault !== undefined) {
      const more = report.faults.length - 1;
      throw new Violation(`store check: ${fault.kind}: ${fault.message} (and ${more} more faults)`);
    }
    await checkRecovered(store, this.#parts, after === 'close' ? 'close' : 'cut');
  }

  // -- a life

  async #live(store: Store, actsWanted: number, isFirst: boolean): Promise<LifeEnd> {
    const random = this.#random;
    const { coverage, digest } = this.#parts;
    let fail: (error: unknown) => void = () => undefined;
    const failure = new Promise<never>((_, reject) => {
      fail = reject;
    });
    failure.catch(() => undefined);
    const life = new Life(store, this.#machine, this.#parts, fail);
    this.#life = life;
    if (isFirst) await Promise.race([createFirst(life), failure]);
    const fibers = startClients(life, this.#tastes);
    if (this.#canFill && random.chance(0.1)) fibers.push(life.go(() => fillAndEmpty(life)));
    for (const disk of this.#parts.model.vdisks()) {
      const mode = disk.split?.mode;
      if (mode !== undefined) void life.go(async () => void (await splitDisk(life, disk, mode)));
    }
    const plan = this.#drawEnd();
    const end = await Promise.race([failure, this.#endOf(life, plan, fibers, actsWanted)]);
    const splits = store.stats();
    coverage.totals.splitsCompleted += splits.splitsCompleted;
    coverage.totals.consistencyPoints += splits.cpCount;
    coverage.totals.blocksHealed += splits.blocksHealed;
    if (end === 'cut') {
      coverage.totals.cuts++;
      coverage.totals.splitsInterrupted += splits.splitsActive;
    }
    if (end === 'failure') coverage.totals.deviceFailures++;
    digest.add(end, this.#world.nowMs() * 1000);
    this.#trace(`  the life ends: ${end}; under way: ${life.underWay().join('; ') || 'nothing'}`);
    this.#life = undefined;
    if (end !== 'close') this.#machine.powerOff();
    this.#machine = this.#machine.next();
    return end;
  }

  #drawEnd(): 'cut' | 'cut-at-call' | 'failure' | 'close' {
    const drawn = this.#random.below(20);
    if (drawn < 9) return 'cut';
    if (drawn < 16) return 'cut-at-call';
    return drawn < 18 ? 'failure' : 'close';
  }

  /** Lets the life go on for about so many acts, then ends it as planned. */
  #endOf(
    life: Life,
    plan: 'cut' | 'cut-at-call' | 'failure' | 'close',
    fibers: readonly Promise<void>[],
    actsWanted: number,
  ): Promise<LifeEnd> {
    const acts = Math.max(5, Math.floor(actsWanted * 2 * this.#random.nextFraction()));
    const machine = this.#machine;
    return new Promise((resolve) => {
      const stopped = async (): Promise<void> => {
        await Promise.all(fibers);
        if (life.hasStopped) resolve('failure');
      };
      void life.go(stopped);
      const look = (): void => {
        if (life.hasStopped) return;
        if (life.actCount < acts) {
          this.#world.setTimer(1, look);
        } else if (plan === 'cut') {
          machine.powerOff();
          resolve('cut');
        } else if (plan === 'close' || (plan === 'failure' && machine.medium === 'object-log')) {
          void life.go(() => this.#close(life, fibers).then(() => resolve('close')));
        } else if (plan === 'failure') {
          machine.failCall(1 + this.#random.below(20), this.#random.chance(0.5) ? 'sync' : 'write');
        } else {
          machine.cutAtCall(machine.callsIssued + 1 + this.#random.below(30), () => resolve('cut'));
        }
      };
      look();
    });
  }

  async #close(life: Life, fibers: readonly Promise<void>[]): Promise<void> {
    life.isStopping = true;
    await Promise.all(fibers);
    const answer = await life.perform('close', '', () => life.store.close());
    if (answer.kind === 'failed') throw life.unexpected('close', '', answer);
  }

  #trace(line: string): void {
    this.#options.trace?.(line);
  }
}
