/**
 * The orphan sweep: now and then, lists the objects of the store, and deletes those that nothing
 * names (orphans.ts says which may be). Late puts are found by the next one.
 *
 * 1. What is deleted was found an orphan twice, `graceMs` apart: reads that began before, and
 *    probes of others, have ended by then. That nothing is lost does not depend on it: an orphan
 *    stays one, even if this server is deposed between its look and its DELETE.
 * 2. A record is judged by the usage file in a synchronous step outside of consistency points:
 *    what it says is then what the last indexed one says.
 * 3. Of a record that is to be deleted the first blocks are read: a SEAL stays for ever, and so
 *    does what is no record of this store.
 * 4. Bounded: so many orphans in one round, the next round at once if there were more.
 */
import { isStoreError } from '../../base/store-error.js';
import { BLOCK_BYTES } from '../../base/units.js';
import type { Timer } from '../../env/clock.js';
import { decodeRecord } from '../../layout/log-record.js';
import { USAGE_ENTRIES_PER_BLOCK, usageLive } from '../../layout/usage-entry.js';
import type { Engine } from '../engine.js';
import { getPatiently } from './chain-walk.js';
import type { ObjectLogMedium } from './object-log-medium.js';
import { findSuspects, type Suspect } from './orphans.js';

export interface SweepOptions {
  /** From one sweep to the next. */
  readonly intervalMs: number;
  /** From the look that finds an orphan to the one that deletes it. */
  readonly graceMs: number;
}

export const SWEEP_GRACE_MS = 10 * 60_000;

export interface SweepStats {
  sweeps: number;
  orphansFound: number;
  orphansDeleted: number;
  /** As of the last sweep: objects that look like orphans and stay, since they are no record. */
  strangers: number;
}

/** The first look, after the store was opened: what is opened for a moment lists nothing. */
const FIRST_LOOK_MS = 1000;
/** Orphans of one round. */
const ROUND_MAX = 10_000;
const KEYS_PER_DELETE = 1000;

export class OrphanSweep {
  readonly #engine: Engine;
  readonly #medium: ObjectLogMedium;
  readonly #options: SweepOptions;
  /** Numbers of records that are known to be SEALs. */
  readonly #seals = new Set<number>();
  readonly #strangers = new Set<number>();
  #timer: Timer | undefined;
  #cpWaiters: (() => void)[] = [];
  #running: Promise<void> | undefined;
  #stopped = false;
  readonly stats: SweepStats = { sweeps: 0, orphansFound: 0, orphansDeleted: 0, strangers: 0 };

  constructor(engine: Engine, medium: ObjectLogMedium, options: SweepOptions) {
    this.#engine = engine;
    this.#medium = medium;
    this.#options = options;
    this.#after(FIRST_LOOK_MS, () => this.#look());
  }

  /** A consistency point has ended. */
  wake(): void {
    const waiters = this.#cpWaiters;
    this.#cpWaiters = [];
    for (const resolve of waiters) resolve();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#timer?.cancel();
    this.wake();
    await this.#running;
  }

  #after(delayMs: number, step: () => Promise<void>): void {
    if (this.#stopped) return;
    this.#timer = this.#engine.options.clock.setTimer(delayMs, () => {
      this.#running = this.#run(step).finally(() => {
        this.#running = undefined;
      });
    });
  }

  async #run(step: () => Promise<void>): Promise<void> {
    try {
      await step();
    } catch (error) {
      if (!isStoreError(error)) this.#engine.fail(error);
      if (this.#stopped || this.#engine.failure !== undefined) return;
      this.#engine.options.log({
        level: 'warn',
        event: 'orphan-sweep-ended',
        message: `A sweep for orphans has ended early: ${String(error)}`,
      });
      this.#after(this.#options.intervalMs, () => this.#look());
    }
  }

  get #isOver(): boolean {
    return this.#stopped || this.#engine.failure !== undefined;
  }

  /** The first look of a round. */
  async #look(): Promise<void> {
    this.stats.sweeps++;
    this.#strangers.clear();
    const found: Suspect[] = [];
    const { epoch, fsinfo, where } = this.#medium;
    for await (const suspect of findSuspects(where, { epoch, replayFrom: fsinfo.replayFrom })) {
      if (this.#isOver) return;
      if (await this.#isOrphan(suspect)) found.push(suspect);
      if (found.length >= ROUND_MAX) break;
    }
    this.stats.orphansFound += found.length;
    if (found.length === 0) this.#after(this.#options.intervalMs, () => this.#look());
    else this.#after(this.#options.graceMs, () => this.#delete(found));
  }

  /** The second look, after the grace. */
  async #delete(found: readonly Suspect[]): Promise<void> {
    let keys: string[] = [];
    for (const suspect of found) {
      if (this.#isOver) return;
      if (!(await this.#isOrphan(suspect)) || !(await this.#mayGo(suspect))) continue;
      keys.push(suspect.key);
      if (keys.length < KEYS_PER_DELETE) continue;
      await this.#deleteKeys(keys);
      keys = [];
    }
    if (keys.length > 0) await this.#deleteKeys(keys);
    this.stats.strangers = this.#strangers.size;
    const isMore = found.length >= ROUND_MAX;
    this.#after(isMore ? FIRST_LOOK_MS : this.#options.intervalMs, () => this.#look());
  }

  async #deleteKeys(keys: readonly string[]): Promise<void> {
    if (this.#isOver) return;
    await this.#medium.where.objects.delete(keys);
    this.stats.orphansDeleted += keys.length;
    this.#engine.options.log({
      level: 'info',
      event: 'orphans-deleted',
      message: `${keys.length} objects that nothing named were deleted, the first ${keys[0]}.`,
      fields: { count: keys.length },
    });
  }

  async #isOrphan(suspect: Suspect): Promise<boolean> {
    if (suspect.kind !== 'record') return true;
    const { number } = suspect;
    const { editor, metafiles, loader, trees, pool } = this.#engine;
    const { usage } = metafiles;
    const fbn = Math.floor(number / USAGE_ENTRIES_PER_BLOCK);
    for (;;) {
      if (this.#isOver || this.#seals.has(number)) return false;
      if (this.#engine.isTakingCp) {
        await new Promise<void>((resolve) => this.#cpWaiters.push(resolve));
        continue;
      }
      const buffer = fbn >= usage.capacityFbn ? -1 : trees.findMetaBlock(usage, fbn);
      if (buffer === -2) {
        await loader.loadMeta(editor.trees.missVbn, editor.trees.missCrc);
        continue;
      }
      if (buffer >= 0) {
        const at = pool.wordStart(buffer) + (number % USAGE_ENTRIES_PER_BLOCK) * 2;
        if (usageLive(pool.wordsOf(buffer)[at] as number) > 0) return false;
      }
      return this.#medium.isForgotten(number);
    }
  }

  /** A SEAL has no blocks: whatever is longer than a trailer without any is none. */
  async #mayGo(suspect: Suspect): Promise<boolean> {
    if (suspect.kind !== 'record') return true;
    const { objects } = this.#medium.where;
    const bytes = await getPatiently(objects, suspect.key, 0, 2 * BLOCK_BYTES);
    if (bytes === undefined) return false;
    if (bytes.length > BLOCK_BYTES) return true;
    const record = decodeRecord(bytes, this.#medium.fsinfo.uuid);
    if (record?.kind === 'seal') this.#seals.add(suspect.number);
    else if (record === undefined) this.#strangers.add(suspect.number);
    return record !== undefined && record.kind !== 'seal';
  }
}
