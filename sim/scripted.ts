/**
 * Runs a scripted workload with the power cut in one call of the medium after the other, and in
 * the recovery that follows, again and again.
 */
import { MIB } from '../src/base/units.js';
import type { OpenOptions } from '../src/main/open-store.js';
import type { Store } from '../src/main/store.js';
import { idle } from './acts/jobs.js';
import { Coverage } from './coverage.js';
import { Harness } from './harness.js';
import type { Life } from './life.js';
import type { MachineOptions, MediumKind } from './machine.js';
import { Violation } from './model/violation.js';
import { runScript } from './script.js';
import { runSplitScript } from './split-script.js';
import { DeadlockError, VirtualClock } from './world/virtual-clock.js';

const SCRIPTS = { acts: runScript, splits: runSplitScript };
export type ScriptName = keyof typeof SCRIPTS;
export const SCRIPT_NAMES: readonly ScriptName[] = ['acts', 'splits'];

export interface EveryWriteOptions {
  readonly medium: MediumKind;
  readonly script?: ScriptName;
  /** First call in which power fails, from 1; and the distance to the next. */
  readonly first?: number;
  readonly stride?: number;
  /** At most so many cuts. */
  readonly cutsMax?: number;
  /** If given: power fails again in call k, 2k, 3k, ... of the opens that follow. */
  readonly nested?: number | undefined;
  /** Latencies, and what each cut leaves of the writes that were under way, follow from it. */
  readonly seed?: number;
  readonly disguise?: MachineOptions['disguise'];
  readonly disguiseObjects?: MachineOptions['disguiseObjects'];
  readonly localLagMs?: MachineOptions['localLagMs'];
  readonly trace?: ((line: string) => void) | undefined;
  readonly onCut?: (call: number) => void;
}

export interface EveryWriteReport {
  readonly coverage: Coverage;
  /** Calls of the script when nothing fails. */
  readonly calls: number;
}

const OPEN_OPTIONS: OpenOptions = { memoryBytes: 4 * MIB, cpIntervalMs: 6 };

/** @throws {Violation} */
export async function cutAtEveryWrite(options: EveryWriteOptions): Promise<EveryWriteReport> {
  const { first = 1, stride = 1, cutsMax = Number.POSITIVE_INFINITY, seed = 1 } = options;
  const coverage = new Coverage();
  let cuts = 0;
  for (let call = first; ; call += stride) {
    options.onCut?.(call);
    const run = await runOnce(options, seed, call);
    coverage.add(run.coverage);
    if (run.end === 'whole') return { coverage, calls: run.calls };
    if (++cuts >= cutsMax) return { coverage, calls: call };
  }
}

interface ScriptRun {
  readonly end: 'cut' | 'whole';
  readonly calls: number;
  readonly coverage: Coverage;
}

async function runOnce(
  options: EveryWriteOptions,
  seed: number,
  cutAt: number,
): Promise<ScriptRun> {
  const world = new VirtualClock();
  const harness = new Harness({ ...options, world, seed });
  let life: Life | undefined;
  const run = async (): Promise<ScriptRun> => {
    await harness.format();
    const store = await mustOpen(harness);
    const before = harness.machine.callsIssued;
    let fail: (error: unknown) => void = () => undefined;
    const failure = new Promise<never>((_, reject) => {
      fail = reject;
    });
    failure.catch(() => undefined);
    life = harness.newLife(store, fail);
    const cut = new Promise<'cut'>((resolve) => {
      harness.machine.cutAtCall(before + cutAt, () => resolve('cut'));
    });
    const script = SCRIPTS[options.script ?? 'acts'](life).then((): 'whole' => 'whole');
    const end = await Promise.race([script, cut, failure]);
    const calls = harness.machine.callsIssued - before;
    harness.noteStats(store);
    if (end === 'cut') await recover(harness, store, options.nested);
    return { end, calls, coverage: harness.parts.coverage };
  };
  try {
    return await world.run(run());
  } catch (error) {
    if (!(error instanceof DeadlockError)) throw error;
    const waiting = life?.underWay().join('; ') ?? 'open';
    throw new Violation(`no answer to: ${waiting} (${error.message})`);
  }
}

async function mustOpen(harness: Harness): Promise<Store> {
  const store = await harness.tryOpen(OPEN_OPTIONS, undefined);
  if (store === undefined) throw new Error('nobody cut the power');
  return store;
}

/** Opens the store, with more cuts if asked for; compares it, lets it come to rest, closes it. */
async function recover(harness: Harness, old: Store, nested: number | undefined): Promise<void> {
  const { totals } = harness.parts.coverage;
  totals.cuts++;
  totals.splitsInterrupted += old.stats().splitsActive;
  harness.cutPower();
  let store: Store | undefined;
  for (let count = 1; store === undefined; count++) {
    const plan = nested === undefined ? undefined : { atCall: nested * count };
    store = await harness.tryOpen(OPEN_OPTIONS, plan);
  }
  await harness.check(store, 'cut', true);
  const life = harness.newLife(store, (error) => {
    throw error;
  });
  await idle(life);
  await store.close();
  harness.noteStats(store);
  harness.reopen();
  await harness.check(await mustOpen(harness), 'close', false);
}
