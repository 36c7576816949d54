/**
 * Splits as background jobs: which tree is filled, how far it is, and the release.
 *
 * 1. The tree that is filled is the oldest of the vdisk's own lineage, the one that hangs on a
 *    foreign backing store: that frees the vdisk and all its snapshots at once.
 * 2. `positionFbn` of a tree's split is durable with the fills before it: after a crash at most one
 *    consistency point of work is repeated.
 * 3. Release: first a consistency point that holds the last fill, then one in which the association
 *    is gone. Never while a hole was skipped because its block could not be read, nor while its
 *    certificate is refuted: that is made in between, and kept in the step that releases.
 * 4. Clones that split from one backing store go through it together and read each block once.
 * 5. A backing store that is being merged into the tree is not filled from: the split waits, and
 *    goes on with what lies below it; it has ended if nothing does.
 * 6. Out of space, or an external backing store that cannot be read: the job pauses with the
 *    reason, keeps what it filled, and tries again later.
 */
import { isStoreError, StoreError } from '../base/store-error.js';
import { BLOCK_BYTES, FIELDS_PER_BLOCK } from '../base/units.js';
import type { LogEntry } from '../layout/log-entry.js';
import type { BadRange, SplitMode, SplitPhase } from '../layout/tree-record.js';
import { BAD_RANGES_MAX } from '../layout/tree-record.js';
import type { Tree } from '../store/tree.js';
import { treeEntry } from '../vdisk/acts.js';
import { externalUnder } from '../vdisk/externals.js';
import { isMerging } from '../vdisk/merge-job.js';
import type { VdiskEntry, VdiskTable } from '../vdisk/vdisk-table.js';
import type { BackingReads } from './backing-reads.js';
import { certifySplit, type SplitProof } from './certificate/make-certificate.js';
import { type FillOutcome, fillRange } from './fill.js';
import { ReadAhead } from './read-ahead.js';
import type { SplitParts } from './special-load.js';

/** Level-1 ranges that are filled at once: 4 MiB of reads and writes under way. */
const WINDOW_RANGES = 4;
const RETRY_MS = 1000;

export interface SplitState {
  readonly mode: SplitMode;
  readonly state: SplitPhase;
  readonly reason: string | undefined;
  readonly positionBytes: number;
  readonly endBytes: number;
  readonly filledBytes: number;
  readonly badRanges: readonly { readonly offset: number; readonly length: number }[];
}

class Job {
  readonly tree: Tree;
  reason: string | undefined;
  /** What was said last: what goes on for hours is said once. */
  loggedReason: string | undefined;
  filledBlocks = 0;
  /** The association is gone; the consistency point that says so is on its way. */
  isReleased = false;
  readonly done: Promise<void>;
  finish: () => void = () => undefined;
  abort: (error: StoreError) => void = () => undefined;

  constructor(tree: Tree) {
    this.tree = tree;
    this.done = new Promise((resolve, reject) => {
      this.finish = resolve;
      this.abort = reject;
    });
    // Whoever started the split may not wait for it.
    this.done.catch(() => undefined);
  }
}

export interface SplitCounters {
  completed: number;
  blocksFilled: number;
  backingBlocksRead: number;
}

export class SplitJobs {
  readonly #parts: SplitParts;
  readonly #table: VdiskTable;
  readonly #jobs = new Map<Tree, Job>();
  readonly #loops = new Map<Tree, Promise<void>>();
  readonly #onRelease: () => void;
  #stopped = false;
  readonly counters: SplitCounters = { completed: 0, blocksFilled: 0, backingBlocksRead: 0 };

  /** `onRelease` is called when a backing store has lost a holder. */
  constructor(parts: SplitParts, table: VdiskTable, onRelease: () => void) {
    this.#parts = parts;
    this.#table = table;
    this.#onRelease = onRelease;
  }

  /** The tree to fill for this vdisk; undefined if it stands alone. */
  targetOf(entry: VdiskEntry): Tree | undefined {
    const id = (entry.of ?? entry).record.id;
    let target = entry.head;
    for (let tree: Tree | undefined = entry.head; tree !== undefined; tree = tree.backing) {
      const owner = this.#table.byId(tree.ownerId);
      // A deleted snapshot in between belongs to nobody; the vdisk's own past may go on below it.
      if (owner === undefined) {
        if (tree.split !== undefined) target = tree;
        continue;
      }
      if ((owner.of ?? owner).record.id !== id) break;
      target = tree;
    }
    return target.backing === undefined ? undefined : target;
  }

  /** Starts a split, or takes up one that is paused. Durable when it resolves. */
  async start(entry: VdiskEntry, mode: SplitMode): Promise<Tree> {
    const { engine } = this.#parts;
    const tree = this.targetOf(entry);
    if (tree === undefined) {
      throw new StoreError(
        'invalid',
        `${entry.name} has no backing store: there is nothing to split`,
      );
    }
    engine.admit(0, 4, 'client');
    engine.trees.noteDirty(tree, engine.generation);
    const split = tree.split;
    if (split === undefined) {
      tree.split = { mode, phase: 'filling', positionFbn: 0, bad: [] };
    } else {
      split.phase = 'filling';
      const [first] = split.bad;
      if (first !== undefined) split.positionFbn = Math.min(split.positionFbn, rangeOf(first.fbn));
      split.bad = [];
    }
    await engine.logAct([treeEntry(tree)]);
    this.resume(tree);
    // It may have ended meanwhile, with a merge: as durable as any other end.
    if (tree.split === undefined && !this.#jobs.has(tree)) await engine.consistencyPoint();
    return tree;
  }

  /**
   * Ends the split of this vdisk; what it filled stays, and so does the association. Durable when
   * it resolves.
   */
  async cancel(entry: VdiskEntry): Promise<void> {
    const { engine } = this.#parts;
    engine.assertAlive();
    const tree = this.targetOf(entry);
    if (tree?.split === undefined) {
      throw new StoreError('invalid', `${entry.name} is not being split`);
    }
    engine.admit(0, 2, 'release');
    engine.trees.noteDirty(tree, engine.generation);
    tree.split = undefined;
    const job = this.#jobs.get(tree);
    this.#jobs.delete(tree);
    job?.abort(new StoreError('closed', `the split of ${entry.name} was cancelled`));
    await engine.logAct([treeEntry(tree)]);
  }

  /** Goes on with the split of this tree, after an open or a pause. */
  resume(tree: Tree): void {
    if (this.#stopped || tree.split === undefined || tree.backing === undefined) return;
    if (!this.#jobs.has(tree)) this.#jobs.set(tree, new Job(tree));
    const backing = tree.backing;
    if (!this.#loops.has(backing)) this.#loops.set(backing, this.#loop(backing));
  }

  /** Goes on with the tree's split after its backing store was merged into it. */
  takeUp(tree: Tree): void {
    const job = this.#jobs.get(tree);
    if (job === undefined || tree.split !== undefined) {
      this.resume(tree);
      return;
    }
    job.isReleased = true;
    this.#endMerged(job).catch((error: unknown) => this.#stopJob(job, error));
  }

  /** Every tree that has an unfinished split goes on. */
  resumeAll(): void {
    for (const tree of this.#parts.engine.table.all()) {
      // What could not be read outside of the store may be back.
      if (tree.split?.phase === 'paused' && externalUnder(tree) !== undefined) {
        tree.split.phase = 'filling';
      }
      this.resume(tree);
    }
  }

  doneOf(tree: Tree): Promise<void> {
    return this.#jobs.get(tree)?.done ?? Promise.resolve();
  }

  stateOf(tree: Tree): SplitState | undefined {
    const split = tree.split;
    if (split === undefined) return undefined;
    const job = this.#jobs.get(tree);
    const endBytes = tree.readThroughLimitBytes;
    return {
      mode: split.mode,
      state: split.phase,
      reason: job?.reason,
      positionBytes: Math.min(endBytes, split.positionFbn * BLOCK_BYTES),
      endBytes,
      filledBytes: (job?.filledBlocks ?? 0) * BLOCK_BYTES,
      badRanges: split.bad.map(({ fbn, blocks }) => ({
        offset: fbn * BLOCK_BYTES,
        length: blocks * BLOCK_BYTES,
      })),
    };
  }

  get activeCount(): number {
    return this.#loops.size;
  }

  /** Resolves when no split is at work; paused ones do not count. */
  async idle(): Promise<void> {
    while (this.#loops.size > 0) await Promise.all(this.#loops.values());
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await Promise.all(this.#loops.values());
  }

  // -- the loop of one backing store

  async #loop(backing: Tree): Promise<void> {
    // Splits that are asked for together begin together, and read each backing block once.
    await this.#parts.engine.options.clock.yield();
    const ahead = new ReadAhead(this.#parts);
    try {
      for (;;) {
        const jobs = this.#jobsOf(backing);
        // What is being merged into a tree wakes its split when it is done (`takeUp`).
        if (this.#stopped || jobs.length === 0 || isMerging(backing)) return;
        await this.#step(backing, jobs, ahead);
      }
    } catch (error) {
      for (const job of this.#jobsOf(backing)) this.#stopJob(job, error);
      if (!isStoreError(error)) this.#parts.engine.fail(error);
    } finally {
      await ahead.ended();
      this.#loops.delete(backing);
    }
  }

  /** Jobs of the backing store that have something to do; those whose tree left it end here. */
  #jobsOf(backing: Tree): Job[] {
    const jobs: Job[] = [];
    for (const job of this.#jobs.values()) {
      const { tree } = job;
      if (job.isReleased) continue;
      if (tree.gone || tree.split === undefined || tree.state === 'dying') {
        this.#jobs.delete(tree);
        job.abort(new StoreError('not-found', 'the vdisk was deleted during its split'));
      } else if (tree.backing === backing && tree.split.phase !== 'paused') {
        jobs.push(job);
      }
    }
    return jobs;
  }

  /** Fills the next window for the jobs that are least far. */
  async #step(backing: Tree, jobs: readonly Job[], ahead: ReadAhead): Promise<void> {
    const positions = jobs.map((job) => positionOf(job.tree));
    const from = Math.min(...positions);
    const further = positions.filter((position) => position > from);
    const windowEnd = Math.min(from + WINDOW_RANGES * FIELDS_PER_BLOCK, ...further);
    const members = jobs.filter((job) => positionOf(job.tree) === from);
    const reads = ahead.take(from);
    const fills = members.map((job) => this.#fillWindow(job, from, windowEnd, reads));
    // The next window, if all go on to it together.
    if (further.length === 0) readNext(members, windowEnd, ahead);
    await settleAll(fills);
    this.counters.backingBlocksRead += reads.blocksRead;
    await reads.release();
    for (const job of members) {
      const { split } = job.tree;
      if (split === undefined || split.phase === 'paused') continue;
      if (split.positionFbn * BLOCK_BYTES >= job.tree.readThroughLimitBytes) {
        await this.#finish(job, backing);
      }
    }
    await this.#parts.engine.options.clock.yield();
  }

  async #fillWindow(job: Job, from: number, end: number, reads: BackingReads): Promise<void> {
    const { tree } = job;
    const { split } = tree;
    if (split === undefined || from * BLOCK_BYTES >= tree.readThroughLimitBytes) return;
    const fills: Promise<FillOutcome>[] = [];
    for (let fbn = from; fbn < end; fbn += FIELDS_PER_BLOCK) {
      if (fbn * BLOCK_BYTES >= tree.readThroughLimitBytes) break;
      fills.push(fillRange(this.#parts, tree, fbn, split.mode, reads));
    }
    const outcomes = await settleAll(fills);
    let position = from;
    for (const outcome of outcomes) {
      if (outcome.kind !== 'filled') {
        this.#pause(job, outcome.kind === 'no-space' ? 'out of space' : outcome.reason, 'retry');
        break;
      }
      job.filledBlocks += outcome.blocks;
      this.counters.blocksFilled += outcome.blocks;
      for (const fbn of outcome.bad) addBad(split.bad, fbn);
      position = Math.max(position, outcome.nextFbn);
    }
    if (tree.split !== split || tree.gone) return;
    this.#parts.engine.trees.noteDirty(tree, this.#parts.engine.generation);
    split.positionFbn = Math.min(position, Math.ceil(tree.sizeBytes / BLOCK_BYTES));
    this.#parts.engine.changed();
  }

  // -- pause, release, end

  #pause(job: Job, reason: string, then: 'retry' | 'wait'): void {
    const { split } = job.tree;
    if (split === undefined) return;
    split.phase = 'paused';
    job.reason = reason;
    const { engine } = this.#parts;
    if (job.loggedReason !== reason) {
      job.loggedReason = reason;
      engine.options.log({
        level: 'warn',
        event: 'split-paused',
        message: `The split of tree ${job.tree.id} pauses: ${reason}.`,
      });
    }
    if (then === 'wait') return;
    // Space comes back when somebody deletes something, a file when it is put back: look again.
    engine.options.clock.setTimer(RETRY_MS, () => {
      if (this.#stopped || job.tree.split?.phase !== 'paused') return;
      job.tree.split.phase = 'filling';
      job.reason = undefined;
      this.resume(job.tree);
    });
  }

  async #finish(job: Job, backing: Tree): Promise<void> {
    const { engine, resolver } = this.#parts;
    const { tree } = job;
    const { split } = tree;
    if (split === undefined) return;
    if (split.bad.length > 0) {
      const blocks = split.bad.reduce((sum, range) => sum + range.blocks, 0);
      this.#pause(job, `${blocks} blocks of the backing store cannot be read`, 'wait');
      return;
    }
    engine.trees.noteDirty(tree, engine.generation);
    split.phase = 'releasing';
    // Every fill must be durable before the association can be gone.
    await engine.consistencyPoint();
    engine.assertAlive();
    const isOver = (): boolean =>
      this.#stopped || tree.gone || tree.split !== split || tree.backing !== backing;
    const proof = await this.#certify(job, backing, isOver);
    if (proof === undefined || isOver()) return;
    engine.trees.noteDirty(tree, engine.generation);
    tree.backing = undefined;
    tree.split = undefined;
    tree.isReleasePending = true;
    job.isReleased = true;
    // An act after this may rely on it, such as the deletion of the backing store: the log says it
    // first. It may, since every fill is durable.
    engine.generation.units.push([treeEntry(tree), ...certificateOf(proof)]);
    resolver.clear();
    // The release, in a consistency point of its own.
    await this.#end(job);
  }

  /** Undefined: it must not be released now, and pauses. */
  async #certify(job: Job, former: Tree, isOver: () => boolean): Promise<SplitProof | undefined> {
    const proof = await certifySplit(this.#parts, this.#table, job.tree, former, isOver);
    if (proof.kind === 'proven' || proof.kind === 'none') return proof;
    if (!isOver()) this.#pause(job, proof.reason, proof.kind === 'refuted' ? 'wait' : 'retry');
    return undefined;
  }

  /** What it read from was merged into it: there is no association to release. */
  async #endMerged(job: Job): Promise<void> {
    const isOver = (): boolean => this.#stopped || job.tree.gone;
    const proof = await certifySplit(this.#parts, this.#table, job.tree, undefined, isOver);
    const certificate = isOver() ? [] : certificateOf(proof);
    if (certificate.length > 0) this.#parts.engine.generation.units.push(certificate);
    await this.#end(job);
  }

  async #end(job: Job): Promise<void> {
    await this.#parts.engine.consistencyPoint();
    job.tree.isReleasePending = false;
    this.#jobs.delete(job.tree);
    this.counters.completed++;
    job.finish();
    this.#onRelease();
  }

  #stopJob(job: Job, error: unknown): void {
    this.#jobs.delete(job.tree);
    job.abort(
      isStoreError(error)
        ? error
        : new StoreError('device', `the split has stopped: ${String(error)}`),
    );
  }
}

/** Makes it the vdisk's; what the log is to say of it. */
function certificateOf(proof: SplitProof): LogEntry[] {
  return proof.kind === 'proven' ? proof.put() : [];
}

function positionOf(tree: Tree): number {
  return rangeOf(tree.split?.positionFbn ?? 0);
}

function rangeOf(fbn: number): number {
  return fbn - (fbn % FIELDS_PER_BLOCK);
}

/** Begins to read for the window from `from` on, if one of the jobs copies. */
function readNext(jobs: readonly Job[], from: number, ahead: ReadAhead): void {
  const job = jobs.find(({ tree }) => tree.split?.mode === 'copy');
  if (job === undefined) return;
  const limit = job.tree.readThroughLimitBytes / BLOCK_BYTES;
  const end = Math.min(from + WINDOW_RANGES * FIELDS_PER_BLOCK, limit);
  ahead.begin(job.tree, from, end);
}

/** Waits for all, so that none is left running, then throws what the first failure was. */
async function settleAll<T>(promises: readonly Promise<T>[]): Promise<T[]> {
  const outcomes = await Promise.allSettled(promises);
  return outcomes.map((outcome) => {
    if (outcome.status === 'rejected') throw outcome.reason;
    return outcome.value;
  });
}

/** Adds a block to the list; when the list is full, the last range grows over what lies between. */
function addBad(bad: BadRange[], fbn: number): void {
  const last = bad.at(-1);
  if (last !== undefined && fbn < last.fbn + last.blocks) return;
  if (last !== undefined && (fbn === last.fbn + last.blocks || bad.length === BAD_RANGES_MAX)) {
    bad[bad.length - 1] = { fbn: last.fbn, blocks: fbn + 1 - last.fbn };
  } else {
    bad.push({ fbn, blocks: 1 });
  }
}
