/** One split under way: the tree that is filled, and what keeps it from going on. */
import type { StoreError } from '../base/store-error.js';
import { BLOCK_BYTES } from '../base/units.js';
import type { SplitPolicy } from '../layout/split-policy.js';
import type { BadRange, SplitMode, SplitPhase } from '../layout/tree-record.js';
import { BAD_RANGES_MAX } from '../layout/tree-record.js';
import type { Demand } from '../store/medium.js';
import type { Reservation } from '../store/reservation.js';
import type { Tree } from '../store/tree.js';
import { isMerging } from '../vdisk/merge-job.js';
import { Pace, type SplitLimit } from './governor.js';

const MERGED = 'its backing store was deleted, and is being merged into it';

export interface SplitState {
  readonly mode: SplitMode;
  /** waiting: see reason; it goes on by itself. paused: until somebody lets it go on. */
  readonly state: SplitPhase | 'waiting';
  /** What it waits for. */
  readonly reason: string | undefined;
  readonly policy: SplitPolicy;
  /** What bounds its rate now. */
  readonly limitedBy: SplitLimit;
  /** Bytes a second that it may go at now; undefined: no bound. */
  readonly rateBytesPerSecond: number | undefined;
  readonly positionBytes: number;
  readonly endBytes: number;
  /** Filled, or undone, since the store was opened. */
  readonly filledBytes: number;
  /** Space that is set aside for the rest of it. */
  readonly reservedBytes: number;
  readonly badRanges: readonly { readonly offset: number; readonly length: number }[];
}

export class Job {
  readonly tree: Tree;
  readonly pace: Pace;
  /** What it waits for, until a timer or somebody makes it look again. */
  waiting: string | undefined;
  /** What was said last: what goes on for hours is said once. */
  loggedReason: string | undefined;
  filledBlocks = 0;
  /** Times that unreadable blocks were tried in vain. */
  retries = 0;
  reservation: Reservation | undefined;
  /** What a walk has counted that it needs; undefined: nobody has counted. */
  needs: Demand | undefined;
  isCounting = false;
  /** A step of it is under way. */
  stepping: Promise<unknown> | undefined;
  /** The association is gone; the consistency point that says so is on its way. */
  isReleased = false;
  readonly done: Promise<void>;
  finish: () => void = () => undefined;
  abort: (error: StoreError) => void = () => undefined;

  constructor(tree: Tree, policy: SplitPolicy) {
    this.tree = tree;
    this.pace = new Pace(policy);
    this.done = new Promise((resolve, reject) => {
      this.finish = resolve;
      this.abort = reject;
    });
    // Whoever started the split may not wait for it.
    this.done.catch(() => undefined);
  }

  /** It has a step to take, if it is its turn. */
  get isReady(): boolean {
    const phase = this.tree.split?.phase;
    return this.waiting === undefined && (phase === 'filling' || phase === 'releasing');
  }

  get positionFbn(): number {
    return this.tree.split?.positionFbn ?? 0;
  }

  get isAtEnd(): boolean {
    return this.positionFbn * BLOCK_BYTES >= this.tree.readThroughLimitBytes;
  }

  letGoOfSpace(): void {
    this.reservation?.release();
    this.reservation = undefined;
  }
}

export function stateOf(tree: Tree, job: Job | undefined): SplitState | undefined {
  const { split } = tree;
  if (split === undefined) return undefined;
  const endBytes = split.phase === 'undoing' ? tree.sizeBytes : tree.readThroughLimitBytes;
  const isMerged = tree.backing !== undefined && isMerging(tree.backing);
  const waiting = job?.waiting ?? (isMerged ? MERGED : undefined);
  const isWaiting = split.phase === 'filling' && waiting !== undefined;
  return {
    mode: split.mode,
    state: isWaiting ? 'waiting' : split.phase,
    reason: isWaiting ? waiting : undefined,
    policy: split.policy,
    limitedBy: job?.pace.limit ?? 'nothing',
    rateBytesPerSecond: job?.pace.rate,
    positionBytes: Math.min(endBytes, split.positionFbn * BLOCK_BYTES),
    endBytes,
    filledBytes: (job?.filledBlocks ?? 0) * BLOCK_BYTES,
    reservedBytes: (job?.reservation?.blocks ?? 0) * BLOCK_BYTES,
    badRanges: split.bad.map(({ fbn, blocks }) => ({
      offset: fbn * BLOCK_BYTES,
      length: blocks * BLOCK_BYTES,
    })),
  };
}

/** Adds a block to the list; when the list is full, the last range grows over what lies between. */
export function addBad(bad: BadRange[], fbn: number): void {
  const last = bad.at(-1);
  if (last !== undefined && fbn < last.fbn + last.blocks) return;
  if (last !== undefined && (fbn === last.fbn + last.blocks || bad.length === BAD_RANGES_MAX)) {
    bad[bad.length - 1] = { fbn: last.fbn, blocks: fbn + 1 - last.fbn };
  } else {
    bad.push({ fbn, blocks: 1 });
  }
}
