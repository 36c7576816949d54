/**
 * Splits as background jobs: which tree is filled, what becomes of it, and the release.
 *
 * 1. The tree that is filled is the oldest of the vdisk's own lineage, the one that hangs on a
 *    foreign backing store: that frees the vdisk and all its snapshots at once.
 * 2. `positionFbn` of a tree's split is durable with the fills before it: after a crash at most one
 *    consistency point of work is repeated. Mode, policy and phase are durable when they are set.
 * 3. Release: first a consistency point that holds the last fill, then one in which the association
 *    is gone. Never while a hole was skipped because its block could not be read, nor while its
 *    certificate is refuted: that is made in between, and kept in the step that releases.
 * 4. A backing store that is being merged into the tree is not filled from: the split waits, and
 *    goes on with what lies below it; it has ended if nothing does.
 * 5. Out of space, unreadable blocks, an external backing store that cannot be read, the wrong time
 *    of day: the job waits with the reason, keeps what it filled, and looks again by itself. That
 *    is never durable; paused is, and ends only when somebody says so.
 */
import { isStoreError, StoreError } from '../base/store-error.js';
import type { LogEntry } from '../layout/log-entry.js';
import { DEFAULT_POLICY } from '../layout/split-policy.js';
import type { SplitMode } from '../layout/tree-record.js';
import type { Tree, TreeSplit } from '../store/tree.js';
import { treeEntry } from '../vdisk/acts.js';
import type { ClientLoad } from '../vdisk/client-load.js';
import { isMerging } from '../vdisk/merge-job.js';
import type { VdiskEntry, VdiskTable } from '../vdisk/vdisk-table.js';
import { certifySplit, type SplitProof } from './certificate/make-certificate.js';
import { Governor, untilOpenMs } from './governor.js';
import { changePolicy, type PolicyChange } from './policy-change.js';
import { boundOf, countNeeds, lesser, needsOf } from './reservation.js';
import type { SplitParts } from './special-load.js';
import { Job, type SplitState, stateOf } from './split-job.js';
import { type LoopHost, type SplitCounters, SplitLoop } from './split-loop.js';
import { SplitSpeed } from './split-speed.js';
import { undoFills } from './undo.js';

/** Space comes back when somebody deletes something, a file when it is put back. */
const RETRY_MS = 1000;
const NO_SPACE = 'out of space';
/** Blocks that cannot be read are tried again after a minute, then after two, up to an hour. */
const RETRY_BAD_MS = 60_000;
const RETRY_BAD_MS_MAX = 3_600_000;

export interface SplitChange extends PolicyChange {
  readonly mode?: SplitMode;
}

export class SplitJobs {
  readonly #parts: SplitParts;
  readonly #table: VdiskTable;
  readonly #load: ClientLoad;
  readonly #governor: Governor;
  readonly #jobs = new Map<Tree, Job>();
  readonly #loops = new Map<Tree, SplitLoop>();
  readonly #undos = new Map<Tree, Promise<void>>();
  readonly #onRelease: () => void;
  readonly #host: LoopHost;
  #stopped = false;
  readonly speed = new SplitSpeed();
  readonly counters: SplitCounters = {
    completed: 0,
    blocksFilled: 0,
    backingBlocksRead: 0,
    wholeShares: 0,
    tallShares: 0,
  };

  /** `onRelease` is called when a backing store has lost a holder, or a split its hold on one. */
  constructor(parts: SplitParts, table: VdiskTable, load: ClientLoad, onRelease: () => void) {
    this.#parts = parts;
    this.#table = table;
    this.#load = load;
    this.#governor = new Governor(load, () => parts.engine.isTakingCp);
    this.#onRelease = onRelease;
    const jobs = this;
    this.#host = {
      parts,
      governor: this.#governor,
      counters: this.counters,
      speed: this.speed,
      get isStopped() {
        return jobs.#stopped;
      },
      jobsOf: (backing) => this.#jobsOf(backing),
      wait: (job, reason) => this.#wait(job, reason, RETRY_MS),
      finish: (job, backing) => this.#finish(job, backing),
      stopJob: (job, error) => this.#stopJob(job, error),
    };
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

  // -- what somebody asks for; each is durable when it resolves

  /**
   * Starts a split. One that is under way gets what is given, goes on if it was paused, and tries
   * again what it waits for.
   * @throws {StoreError} invalid, out-of-space: what it needs cannot be set aside
   */
  async start(entry: VdiskEntry, mode: SplitMode, change: PolicyChange = {}): Promise<Tree> {
    const { engine } = this.#parts;
    const needs = await needsOf(this.#parts, entry.name, mode, () => {
      const next = this.#targetNow(entry);
      const { isReserved } = changePolicy(next.split?.policy ?? DEFAULT_POLICY, change);
      return next.split === undefined && isReserved ? next : undefined;
    });
    const tree = this.#targetNow(entry);
    engine.admit(0, 4, 'client');
    const policy = changePolicy(tree.split?.policy ?? DEFAULT_POLICY, change);
    if (tree.split?.phase === 'undoing') {
      throw new StoreError('in-use', `${entry.name}: its last split is being undone; try later`);
    }
    engine.trees.noteDirty(tree, engine.generation);
    if (tree.split === undefined) {
      tree.split = { mode, policy, phase: 'filling', positionFbn: 0, bad: [] };
    } else {
      Object.assign(tree.split, { mode, policy });
      if (tree.split.phase === 'paused') tree.split.phase = 'filling';
    }
    // Sets its space aside. Had somebody taken that since it was looked at, the split would wait.
    this.#jobOf(tree, tree.split).needs = needs;
    this.#lookAgain(tree);
    await engine.logAct([treeEntry(tree)]);
    // It may have ended meanwhile, with a merge: as durable as any other end.
    if (tree.split === undefined && !this.#jobs.has(tree)) await engine.consistencyPoint();
    return tree;
  }

  /** Another mode or policy from here on. @throws {StoreError} invalid: it is not being split */
  async change(entry: VdiskEntry, { mode, ...change }: SplitChange): Promise<void> {
    await this.#act(entry, (split, tree) => {
      split.policy = changePolicy(split.policy, change);
      if (mode === undefined || mode === split.mode) return;
      split.mode = mode;
      // The other mode needs other space.
      const job = this.#jobs.get(tree);
      job?.letGoOfSpace();
      if (job !== undefined) job.needs = undefined;
    });
  }

  /** @throws {StoreError} invalid: it is not being split, or is being undone */
  async pause(entry: VdiskEntry): Promise<void> {
    await this.#act(entry, (split, tree) => {
      split.phase = 'paused';
      this.#jobs.get(tree)?.letGoOfSpace();
    });
  }

  /** Goes on after a pause. @throws {StoreError} invalid: it is not being split */
  async goOn(entry: VdiskEntry): Promise<void> {
    await this.#act(entry, (split) => {
      if (split.phase === 'paused') split.phase = 'filling';
    });
  }

  async #act(
    entry: VdiskEntry,
    change: (split: NonNullable<Tree['split']>, tree: Tree) => void,
  ): Promise<void> {
    const { engine } = this.#parts;
    const tree = this.#splitting(entry);
    const { split } = tree;
    if (split === undefined || split.phase === 'undoing') {
      throw new StoreError('invalid', `${entry.name}: its split is being undone`);
    }
    engine.admit(0, 2, 'release');
    engine.trees.noteDirty(tree, engine.generation);
    change(split, tree);
    this.#lookAgain(tree);
    await engine.logAct([treeEntry(tree)]);
  }

  /**
   * Ends the split of this vdisk; the association stays. What it filled stays, too, or becomes
   * holes again in the background.
   * @throws {StoreError} invalid; in-use: nothing can be undone in the middle of a merge
   */
  async cancel(entry: VdiskEntry, options: { readonly undo?: boolean } = {}): Promise<void> {
    const { engine } = this.#parts;
    const tree = this.#splitting(entry);
    const { split } = tree;
    if (split?.phase === 'undoing' && options.undo === true) return;
    if (options.undo === true && tree.backing !== undefined && isMerging(tree.backing)) {
      throw new StoreError(
        'in-use',
        `${entry.name}: its backing store was deleted and is being merged into it; ` +
          'cancel the split without undoing it',
      );
    }
    engine.admit(0, 2, 'release');
    engine.trees.noteDirty(tree, engine.generation);
    const job = this.#jobs.get(tree);
    job?.letGoOfSpace();
    job?.abort(new StoreError('not-found', `the split of ${entry.name} was cancelled`));
    if (options.undo === true && split !== undefined) {
      Object.assign(split, { phase: 'undoing', positionFbn: 0, bad: [] });
      this.#undo(tree);
    } else {
      tree.split = undefined;
      this.#jobs.delete(tree);
    }
    this.#wakeLoops();
    await engine.logAct([treeEntry(tree)]);
  }

  #targetNow(entry: VdiskEntry): Tree {
    if (entry.gone) throw new StoreError('not-found', `${entry.name} has been deleted`);
    const tree = this.targetOf(entry);
    if (tree !== undefined) return tree;
    throw new StoreError(
      'invalid',
      `${entry.name} has no backing store: there is nothing to split`,
    );
  }

  #splitting(entry: VdiskEntry): Tree {
    this.#parts.engine.assertAlive();
    const tree = this.targetOf(entry);
    if (tree?.split !== undefined) return tree;
    throw new StoreError('invalid', `${entry.name} is not being split`);
  }

  // -- jobs

  /** Goes on with the split of this tree, after an open or a wait. */
  resume(tree: Tree): void {
    const { split, backing } = tree;
    if (this.#stopped || split === undefined || backing === undefined) return;
    const job = this.#jobOf(tree, split);
    job.pace.policy = split.policy;
    if (split.phase === 'undoing') this.#undo(tree);
    if (job.isReady && this.#setAside(job)) this.#startLoop(backing);
  }

  #jobOf(tree: Tree, { policy }: TreeSplit): Job {
    let job = this.#jobs.get(tree);
    if (job === undefined) {
      job = new Job(tree, policy);
      this.#jobs.set(tree, job);
    }
    return job;
  }

  #startLoop(backing: Tree): void {
    // Who merges it takes the split up when it is done (`takeUp`).
    if (isMerging(backing)) return;
    const known = this.#loops.get(backing);
    if (known !== undefined) {
      known.wake();
      return;
    }
    this.#load.isWatched = true;
    const loop = new SplitLoop(this.#host, backing, () => {
      this.#loops.delete(backing);
      this.#governor.groups = Math.max(1, this.#loops.size);
      this.#load.isWatched = this.#loops.size > 0;
      // Who came in the very moment in which it ended.
      for (const job of this.#jobs.values()) if (job.isReady) this.resume(job.tree);
    });
    this.#loops.set(backing, loop);
    this.#governor.groups = this.#loops.size;
  }

  /** Goes on with the tree's split after its backing store was merged into it. */
  takeUp(tree: Tree): void {
    const job = this.#jobs.get(tree);
    if (job === undefined || tree.split !== undefined) {
      this.resume(tree);
      return;
    }
    job.isReleased = true;
    job.letGoOfSpace();
    this.#endMerged(job).catch((error: unknown) => this.#stopJob(job, error));
  }

  /** Every tree that has an unfinished split goes on. */
  resumeAll(): void {
    for (const tree of this.#parts.engine.table.all()) this.resume(tree);
  }

  doneOf(tree: Tree): Promise<void> {
    return this.#jobs.get(tree)?.done ?? Promise.resolve();
  }

  stateOf(tree: Tree): SplitState | undefined {
    return stateOf(tree, this.#jobs.get(tree));
  }

  get activeCount(): number {
    return this.#loops.size + this.#undos.size;
  }

  /** Resolves when no split is at work; those that wait or are paused do not count. */
  async idle(): Promise<void> {
    while (this.activeCount > 0) await Promise.all(this.#working());
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#wakeLoops();
    await Promise.all(this.#working());
    this.#governor.close();
  }

  #working(): Promise<void>[] {
    return [...[...this.#loops.values()].map(({ done }) => done), ...this.#undos.values()];
  }

  #wakeLoops(): void {
    for (const loop of this.#loops.values()) loop.wake();
  }

  /** Jobs of the backing store that have something to do; those whose tree left it end here. */
  #jobsOf(backing: Tree): Job[] {
    const jobs: Job[] = [];
    for (const job of this.#jobs.values()) {
      const { tree } = job;
      if (job.isReleased) continue;
      if (tree.gone || tree.split === undefined || tree.state === 'dying') {
        this.#jobs.delete(tree);
        job.letGoOfSpace();
        job.abort(new StoreError('not-found', 'the vdisk was deleted during its split'));
      } else if (tree.backing === backing && job.isReady && this.#isOpen(job)) {
        jobs.push(job);
      }
    }
    return jobs;
  }

  // -- space

  /** Sets aside what the rest of the split may take; false if it has to wait for that. */
  #setAside(job: Job): boolean {
    const { split } = job.tree;
    if (split === undefined || job.reservation !== undefined || !split.policy.isReserved) {
      return true;
    }
    const demand = lesser(boundOf(job.tree, split.mode), job.needs);
    job.reservation = this.#parts.engine.reserve(demand);
    if (job.reservation !== undefined) return true;
    if (this.#parts.engine.hasPendingFrees) this.#parts.engine.wantConsistencyPoint();
    this.#wait(job, NO_SPACE, RETRY_MS);
    if (job.needs === undefined && !job.isCounting) void this.#count(job, split.mode);
    return false;
  }

  /** Counts what it really needs, and looks again whether that is there. */
  async #count(job: Job, mode: SplitMode): Promise<void> {
    job.isCounting = true;
    try {
      job.needs = await countNeeds(this.#parts, job.tree, mode);
      if (job.waiting === NO_SPACE) this.#lookAgain(job.tree);
    } catch (error) {
      // It was deleted, or meets the same damage when it goes on.
      if (!isStoreError(error)) this.#parts.engine.fail(error);
    } finally {
      job.isCounting = false;
    }
  }

  // -- waiting, release, end

  /** It goes on by itself after so many milliseconds. */
  #wait(job: Job, reason: string, ms: number, before: () => void = () => undefined): void {
    const { engine } = this.#parts;
    job.waiting = reason;
    job.letGoOfSpace();
    if (job.loggedReason !== reason) {
      job.loggedReason = reason;
      engine.options.log({
        level: 'warn',
        event: 'split-waits',
        message: `The split of tree ${job.tree.id} waits: ${reason}.`,
      });
    }
    engine.options.clock.setTimer(ms, () => {
      if (this.#stopped || job.waiting !== reason || this.#jobs.get(job.tree) !== job) return;
      before();
      job.waiting = undefined;
      this.resume(job.tree);
    });
  }

  /** Somebody has changed something: what it waits for may be there. */
  #lookAgain(tree: Tree): void {
    const job = this.#jobs.get(tree);
    if (job?.waiting !== undefined) {
      job.waiting = undefined;
      this.#tryBadAgain(job);
    }
    this.resume(tree);
    this.#wakeLoops();
  }

  /** False if this is not the time of day; then it waits for it. */
  #isOpen(job: Job): boolean {
    const { clock } = this.#parts.engine.options;
    const waitMs = untilOpenMs(job.tree.split?.policy.window, clock.wallMs());
    if (waitMs === 0) return true;
    this.#wait(job, 'it is outside of its time of day', waitMs);
    return false;
  }

  #waitForBad(job: Job): void {
    const { split } = job.tree;
    const blocks = (split?.bad ?? []).reduce((sum, range) => sum + range.blocks, 0);
    const reason = `${blocks} blocks of the backing store cannot be read`;
    this.#wait(job, reason, this.#patienceMs(job), () => this.#tryBadAgain(job));
  }

  #patienceMs(job: Job): number {
    return Math.min(RETRY_BAD_MS_MAX, RETRY_BAD_MS * 2 ** Math.min(16, job.retries++));
  }

  #tryBadAgain(job: Job): void {
    const { engine } = this.#parts;
    const { split } = job.tree;
    const first = split?.bad[0];
    if (split === undefined || first === undefined) return;
    engine.trees.noteDirty(job.tree, engine.generation);
    split.positionFbn = Math.min(split.positionFbn, first.fbn);
    split.bad = [];
  }

  async #finish(job: Job, backing: Tree): Promise<void> {
    const { engine, resolver } = this.#parts;
    const { tree } = job;
    const { split } = tree;
    if (split === undefined) return;
    if (split.bad.length > 0) {
      this.#waitForBad(job);
      return;
    }
    engine.trees.noteDirty(tree, engine.generation);
    split.phase = 'releasing';
    // Every fill must be durable before the association can be gone.
    await engine.consistencyPoint();
    engine.assertAlive();
    // Somebody may pause or change it meanwhile.
    const isOver = (): boolean =>
      this.#stopped ||
      tree.gone ||
      tree.split !== split ||
      tree.backing !== backing ||
      split.phase !== 'releasing';
    if (isOver()) return;
    const proof = await this.#certify(job, backing, isOver);
    if (proof === undefined || isOver()) return;
    engine.trees.noteDirty(tree, engine.generation);
    tree.backing = undefined;
    tree.split = undefined;
    tree.isReleasePending = true;
    job.isReleased = true;
    job.letGoOfSpace();
    // An act after this may rely on it, such as the deletion of the backing store: the log says it
    // first. It may, since every fill is durable.
    engine.generation.units.push([treeEntry(tree), ...certificateOf(proof)]);
    resolver.clear();
    // The release, in a consistency point of its own.
    await this.#end(job);
  }

  /** Undefined: it must not be released now, and waits. */
  async #certify(job: Job, former: Tree, isOver: () => boolean): Promise<SplitProof | undefined> {
    const proof = await certifySplit(this.#parts, this.#table, job.tree, former, isOver);
    if (proof.kind === 'proven' || proof.kind === 'none') return proof;
    if (isOver() || job.tree.split === undefined) return undefined;
    // It begins anew, after a crash too: whatever it has left out is found then.
    this.#parts.engine.trees.noteDirty(job.tree, this.#parts.engine.generation);
    Object.assign(job.tree.split, { phase: 'filling', positionFbn: 0 });
    this.#wait(job, proof.reason, this.#patienceMs(job));
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
    const isDamage = isStoreError(error, 'corrupt') || isStoreError(error, 'device');
    const goesOn = job.tree.split !== undefined && this.#parts.engine.failure === undefined;
    if (isDamage && goesOn) {
      // An indirect block that cannot be read: the rest of the store goes on.
      this.#wait(job, error.message, this.#patienceMs(job));
      return;
    }
    this.#jobs.delete(job.tree);
    job.letGoOfSpace();
    job.abort(
      isStoreError(error)
        ? error
        : new StoreError('device', `the split has stopped: ${String(error)}`),
    );
  }

  // -- undo

  #undo(tree: Tree): void {
    if (this.#undos.has(tree) || this.#stopped) return;
    const work = this.#runUndo(tree).then((hasEnded) => {
      this.#undos.delete(tree);
      // Another one may have been asked for while this one ended.
      if (hasEnded) this.resume(tree);
      else this.#undoLater(tree);
      this.#onRelease();
    });
    this.#undos.set(tree, work);
  }

  /** What it met may be mended meanwhile; a store that has stopped has to be opened again. */
  #undoLater(tree: Tree): void {
    const { engine } = this.#parts;
    if (this.#stopped || engine.failure !== undefined) return;
    engine.options.clock.setTimer(RETRY_BAD_MS, () => this.resume(tree));
  }

  /** @returns false if something could not be read or written; the log says what */
  async #runUndo(tree: Tree): Promise<boolean> {
    const { engine } = this.#parts;
    const job = this.#jobs.get(tree);
    try {
      // A step that is under way may still fill something.
      await job?.stepping?.catch(() => undefined);
      await undoFills(
        this.#parts,
        tree,
        () => this.#stopped,
        (blocks) => {
          if (job !== undefined) job.filledBlocks += blocks;
        },
      );
      if (this.#stopped) return true;
      if (tree.split?.phase !== 'undoing' || tree.gone) {
        // Deleted meanwhile, or cancelled without undoing the rest.
        if (this.#jobs.get(tree) === job) this.#jobs.delete(tree);
        return true;
      }
      engine.trees.noteDirty(tree, engine.generation);
      tree.split = undefined;
      // Before anything is awaited: the next split of the tree has a job of its own.
      this.#jobs.delete(tree);
      await engine.logAct([treeEntry(tree)]);
      return true;
    } catch (error) {
      if (!isStoreError(error)) engine.fail(error);
      engine.options.log({
        level: 'error',
        event: 'split-undo-stopped',
        message: `Undoing the split of tree ${tree.id} has stopped: ${String(error)}`,
      });
      return false;
    }
  }
}

/** Makes it the vdisk's; what the log is to say of it. */
function certificateOf(proof: SplitProof): LogEntry[] {
  return proof.kind === 'proven' ? proof.put() : [];
}
