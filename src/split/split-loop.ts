/**
 * The loop of one backing store: fills for all clones that split from it, window by window.
 *
 * 1. Clones that split together go together, and read each block once. Whoever is least far goes
 *    first, until the others are reached.
 * 2. A step takes the jobs whose turn it is (governor.ts); at a low rate it is small.
 * 3. Fills that no consistency point has written yet are bounded.
 * 4. The loop ends when nobody has anything to do. What is being merged into a tree is not filled
 *    from: who merged it starts the loop again.
 */
import { isStoreError } from '../base/store-error.js';
import { BLOCK_BYTES, FIELDS_PER_BLOCK, MIB } from '../base/units.js';
import type { Tree, TreeSplit } from '../store/tree.js';
import { isMerging } from '../vdisk/merge-job.js';
import { type FillOutcome, type FillTask, fillFields } from './fill.js';
import type { Governor } from './governor.js';
import { ReadAhead } from './read-ahead.js';
import { boundOf } from './reservation.js';
import { mayShareWhole, shareWhole } from './share-whole.js';
import type { SplitParts } from './special-load.js';
import { fieldsOf } from './special-load.js';
import { addBad, type Job } from './split-job.js';
import type { SplitSpeed } from './split-speed.js';

/** Filled at once while nobody else is there: 4 MiB of reads and writes under way. */
const WINDOW_BLOCKS = 4 * FIELDS_PER_BLOCK;
/** At a low rate: 256 KiB, so that it goes evenly. */
const SMALL_WINDOW_BLOCKS = 64;
/** Filled since the last consistency point: from here on another is due. */
const FILLED_BYTES_MAX = 256 * MIB;
/** The governor is asked again at least so often. */
const ASK_MS = 50;

export interface SplitCounters {
  completed: number;
  blocksFilled: number;
  backingBlocksRead: number;
  /** Indirect blocks shared whole, and of these the ones of level 2 and more. */
  wholeShares: number;
  tallShares: number;
}

/** What the loop needs of who runs it. */
export interface LoopHost {
  readonly parts: SplitParts;
  readonly governor: Governor;
  readonly counters: SplitCounters;
  readonly speed: SplitSpeed;
  readonly isStopped: boolean;
  /** Jobs of the backing store that have something to do. */
  jobsOf(backing: Tree): Job[];
  wait(job: Job, reason: string): void;
  /** Every hole below the limit has been looked at. */
  finish(job: Job, backing: Tree): Promise<void>;
  stopJob(job: Job, error: unknown): void;
}

export class SplitLoop {
  readonly #host: LoopHost;
  readonly #backing: Tree;
  readonly #ahead: ReadAhead;
  readonly done: Promise<void>;
  #wake: () => void = () => undefined;
  #filledBytes = 0;
  #cpNumber = 0;

  /** `onEnd` is called in the step in which it ends. */
  constructor(host: LoopHost, backing: Tree, onEnd: () => void) {
    this.#host = host;
    this.#backing = backing;
    this.#ahead = new ReadAhead(host.parts);
    this.done = this.#run(onEnd);
  }

  /** Something has changed that its sleep may depend on. */
  wake(): void {
    this.#wake();
  }

  async #run(onEnd: () => void): Promise<void> {
    const host = this.#host;
    // Splits that are asked for together begin together.
    await host.parts.engine.options.clock.yield();
    try {
      for (;;) {
        const jobs = host.jobsOf(this.#backing);
        if (host.isStopped || jobs.length === 0 || isMerging(this.#backing)) return;
        const waits = jobs.map(({ pace }) => host.governor.waitMs(pace));
        const ready = jobs.filter((_, index) => waits[index] === 0);
        if (ready.length === 0) await this.#sleep(Math.min(ASK_MS, ...waits));
        else await this.#step(ready);
      }
    } catch (error) {
      for (const job of host.jobsOf(this.#backing)) host.stopJob(job, error);
      if (!isStoreError(error)) host.parts.engine.fail(error);
    } finally {
      await this.#ahead.ended();
      onEnd();
    }
  }

  #sleep(ms: number): Promise<void> {
    const { clock } = this.#host.parts.engine.options;
    return new Promise((resolve) => {
      // A split that makes way for clients is at work: a program that waits for it goes on.
      const timer = clock.setTimer(ms, resolve, { keepsAlive: true });
      this.#wake = () => {
        timer.cancel();
        resolve();
      };
    });
  }

  /** Fills the next window for the jobs that are least far. */
  async #step(jobs: readonly Job[]): Promise<void> {
    const { parts, governor, counters } = this.#host;
    const from = Math.min(...jobs.map((job) => job.positionFbn));
    const members = jobs.filter((job) => job.positionFbn === from);
    const further = jobs.filter((job) => job.positionFbn > from).map((job) => job.positionFbn);
    const isSmall = members.some(({ pace }) => governor.isSmall(pace));
    const blocks = isSmall ? SMALL_WINDOW_BLOCKS : WINDOW_BLOCKS;
    const end = Math.min(from + blocks - (from % blocks), ...further);
    const reads = this.#ahead.take(from);
    const isShared = members.length > 1;
    const fills = members.map((job) => this.#fillWindow(job, from, end, { reads, isShared }));
    const all = settleAll(fills);
    for (const job of members) job.stepping = all;
    // The next window, if all go on to it together.
    const isCopied = parts.engine.medium.copiesBlocks && !isShared;
    if (further.length === 0 && !isCopied) this.#readNext(members, end, blocks);
    const filled = await all;
    for (const job of members) job.stepping = undefined;
    counters.backingBlocksRead += reads.blocksRead;
    await reads.release();
    governor.charge(
      members.map(({ pace }) => pace),
      Math.max(...filled),
    );
    for (const job of members) {
      if (job.isReady && job.isAtEnd) await this.#host.finish(job, this.#backing);
    }
    await this.#bound(filled.reduce((sum, each) => sum + each, 0) * BLOCK_BYTES);
    await parts.engine.options.clock.yield();
  }

  /** @returns how many blocks were filled one by one */
  async #fillWindow(
    job: Job,
    from: number,
    end: number,
    source: Pick<FillTask, 'reads' | 'isShared'>,
  ): Promise<number> {
    const { parts, speed } = this.#host;
    const { clock } = parts.engine.options;
    const { tree, reservation } = job;
    const beganMs = clock.nowMs();
    const { split } = tree;
    if (split === undefined || job.isAtEnd) return 0;
    if (split.mode === 'share' && (await this.#shareWhole(job, split, from))) return 0;
    // Behind this range the next one may be part of a whole share.
    const to = split.mode === 'share' && mayShareWhole(tree) ? endOfRange(from, end) : end;
    const fills: Promise<FillOutcome>[] = [];
    for (const fields of fieldsOf(from, to)) {
      const isBeyond = (fields.base + fields.first) * BLOCK_BYTES >= tree.readThroughLimitBytes;
      if (isBeyond) break;
      const task = { clone: tree, mode: split.mode, fields, reservation, ...source };
      // One range a turn: clients wait for as much at most.
      if (fills.length > 0) await clock.yield();
      const fill = fillFields(parts, task);
      // It may fail before all have begun: settleAll tells of it.
      fill.catch(() => undefined);
      fills.push(fill);
    }
    const outcomes = await settleAll(fills);
    const endedMs = clock.nowMs();
    let position = from;
    let blocks = 0;
    let trouble: string | undefined;
    for (const outcome of outcomes) {
      if (outcome.kind !== 'filled') {
        trouble = outcome.kind === 'no-space' ? 'out of space' : outcome.reason;
        break;
      }
      blocks += outcome.blocks;
      for (const fbn of outcome.bad) addBad(split.bad, fbn);
      position = Math.max(position, outcome.nextFbn);
    }
    speed.note(split.mode, { beganMs, endedMs, blocks });
    const isThere = this.#noteFilled(job, split, blocks, position);
    if (isThere && trouble !== undefined) this.#host.wait(job, trouble);
    return blocks;
  }

  /** @returns true if something that begins there was shared whole */
  async #shareWhole(job: Job, split: TreeSplit, from: number): Promise<boolean> {
    const { parts, counters } = this.#host;
    const { tree, reservation } = job;
    const isOver = (): boolean => this.#host.isStopped || tree.split !== split || !job.isReady;
    const whole = await shareWhole(parts, { clone: tree, fbn: from, reservation, isOver });
    if (whole === undefined) return false;
    const isTall = whole.nextFbn - from > FIELDS_PER_BLOCK;
    if (whole.isNew) counters.wholeShares++;
    if (whole.isNew && isTall) counters.tallShares++;
    this.#noteFilled(job, split, whole.blocks, whole.nextFbn);
    return true;
  }

  /** The split has come to this FBN. @returns false if there is none any more */
  #noteFilled(job: Job, split: TreeSplit, blocks: number, position: number): boolean {
    const { parts, counters } = this.#host;
    const { tree, reservation } = job;
    job.filledBlocks += blocks;
    counters.blocksFilled += blocks;
    if (tree.split !== split || tree.gone || split.phase === 'undoing') return false;
    parts.engine.trees.noteDirty(tree, parts.engine.generation);
    split.positionFbn = Math.min(position, Math.ceil(tree.sizeBytes / BLOCK_BYTES));
    reservation?.keep(boundOf(tree, split.mode));
    parts.engine.changed();
    return true;
  }

  /** Begins to read for the window from `from` on, if one of the jobs copies. */
  #readNext(jobs: readonly Job[], from: number, blocks: number): void {
    const job = jobs.find(({ tree }) => tree.split?.mode === 'copy');
    if (job === undefined) return;
    const limit = Math.ceil(job.tree.readThroughLimitBytes / BLOCK_BYTES);
    this.#ahead.begin(job.tree, from, Math.min(from + blocks, limit));
  }

  /** Sees to it that a consistency point never has to make more than so much durable. */
  async #bound(filledBytes: number): Promise<void> {
    const { engine } = this.#host.parts;
    const { cpNumber } = engine.medium.fsinfo;
    if (cpNumber !== this.#cpNumber) {
      this.#cpNumber = cpNumber;
      this.#filledBytes = 0;
    }
    this.#filledBytes += filledBytes;
    if (this.#filledBytes > FILLED_BYTES_MAX) await engine.consistencyPoint();
    else if (this.#filledBytes * 2 > FILLED_BYTES_MAX) engine.wantConsistencyPoint();
  }
}

function endOfRange(from: number, end: number): number {
  return Math.min(end, (Math.floor(from / FIELDS_PER_BLOCK) + 1) * FIELDS_PER_BLOCK);
}

/** Waits for all, so that none is left running, then throws what the first failure was. */
async function settleAll<T>(promises: readonly Promise<T>[]): Promise<T[]> {
  const outcomes = await Promise.allSettled(promises);
  return outcomes.map((outcome) => {
    if (outcome.status === 'rejected') throw outcome.reason;
    return outcome.value;
  });
}
