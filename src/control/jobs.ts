/**
 * Long acts: their progress, rate and end.
 *
 * 1. A job ends once, in done, failed or cancelled, and stays as it was then. The last ENDED_KEPT
 *    that ended can be looked up.
 * 2. While jobs are under way, each is told to `onChange` once a second, and at its end.
 */
import type { Clock, Timer } from '../env/clock.js';
import { toIsoTime } from '../env/wall-time.js';
import { ApiError, toProblem } from './problem.js';
import type { Job } from './schemas.js';

const ENDED_KEPT = 256;
const TICK_MS = 1000;
/** The rate is that of the last so many ticks. */
const RATE_TICKS = 5;

export interface JobState {
  readonly doneBytes: number;
  readonly totalBytes: number | undefined;
  /** It waits for something, and this is why. */
  readonly pauseReason: string | undefined;
}

export interface JobSource {
  readonly kind: Job['kind'];
  /** The vdisk's name; it may change under way. */
  vdisk(): string;
  state(): JobState;
  /** Rejects when it failed or was cancelled. */
  readonly done: Promise<unknown>;
  /** Resolves when there is nothing more to do; `done` settles then. */
  cancel(): Promise<void>;
}

interface Sample {
  readonly atMs: number;
  readonly doneBytes: number;
}

class Entry {
  readonly id: string;
  readonly source: JobSource;
  readonly startedAt: string;
  readonly samples: Sample[] = [];
  last: JobState;
  isCancelWanted = false;
  ended: Job | undefined;

  constructor(id: string, source: JobSource, startedAt: string) {
    this.id = id;
    this.source = source;
    this.startedAt = startedAt;
    this.last = source.state();
  }
}

export class Jobs {
  readonly #clock: Clock;
  readonly #onChange: (job: Job) => void;
  readonly #entries = new Map<string, Entry>();
  #lastNumber = 0;
  #timer: Timer | undefined;

  constructor(clock: Clock, onChange: (job: Job) => void) {
    this.#clock = clock;
    this.#onChange = onChange;
  }

  start(source: JobSource): Job {
    const id = `${source.kind}-${++this.#lastNumber}`;
    const entry = new Entry(id, source, toIsoTime(this.#clock.wallMs()));
    this.#sample(entry);
    this.#entries.set(id, entry);
    source.done.then(
      () => this.#end(entry, undefined),
      (error: unknown) => this.#end(entry, { error }),
    );
    this.#schedule();
    const job = this.#toJob(entry);
    this.#onChange(job);
    return job;
  }

  /** Those under way first. */
  list(): Job[] {
    const jobs = [...this.#entries.values()].map((entry) => this.#toJob(entry));
    return [
      ...jobs.filter(({ endedAt }) => endedAt === null),
      ...jobs.filter(({ endedAt }) => endedAt !== null),
    ];
  }

  /** @throws {ApiError} not-found */
  get(id: string): Job {
    return this.#toJob(this.#find(id));
  }

  /** The job of this kind that is under way for the vdisk. */
  running(kind: Job['kind'], vdisk: string): Job | undefined {
    for (const entry of this.#entries.values()) {
      const { source, ended } = entry;
      if (ended === undefined && source.kind === kind && source.vdisk() === vdisk) {
        return this.#toJob(entry);
      }
    }
    return undefined;
  }

  async cancel(id: string): Promise<Job> {
    const entry = this.#find(id);
    if (entry.ended === undefined) {
      entry.isCancelWanted = true;
      await entry.source.cancel();
      await entry.source.done.catch(() => undefined);
      // What follows `done` runs after this.
      while (entry.ended === undefined) await this.#clock.yield();
    }
    return this.#toJob(entry);
  }

  /** It is about to end because somebody cancels it. */
  willBeCancelled(id: string): void {
    this.#find(id).isCancelWanted = true;
  }

  get runningCount(): number {
    let count = 0;
    for (const { ended } of this.#entries.values()) if (ended === undefined) count++;
    return count;
  }

  close(): void {
    this.#timer?.cancel();
    this.#timer = undefined;
  }

  #find(id: string): Entry {
    const entry = this.#entries.get(id);
    if (entry !== undefined) return entry;
    throw new ApiError('not-found', `there is no job ${id}; it may have ended long ago`);
  }

  #end(entry: Entry, failure: { readonly error: unknown } | undefined): void {
    this.#sample(entry);
    const job = this.#toJob(entry);
    const { doneBytes, totalBytes } = entry.last;
    const isDone = failure === undefined;
    const state = isDone ? 'done' : entry.isCancelWanted ? 'cancelled' : 'failed';
    entry.ended = {
      ...job,
      state,
      doneBytes: isDone ? (totalBytes ?? doneBytes) : doneBytes,
      reason: null,
      progress: isDone ? 1 : job.progress,
      etaSeconds: isDone ? 0 : null,
      endedAt: toIsoTime(this.#clock.wallMs()),
      error: state === 'failed' ? toProblem(failure?.error) : null,
    };
    this.#onChange(entry.ended);
    const ended = [...this.#entries.values()].filter((each) => each.ended !== undefined);
    for (const { id } of ended.slice(0, -ENDED_KEPT)) this.#entries.delete(id);
  }

  #schedule(): void {
    this.#timer ??= this.#clock.setTimer(TICK_MS, () => {
      this.#timer = undefined;
      for (const entry of this.#entries.values()) {
        if (entry.ended !== undefined) continue;
        this.#sample(entry);
        this.#onChange(this.#toJob(entry));
      }
      if (this.runningCount > 0) this.#schedule();
    });
  }

  #sample(entry: Entry): void {
    const { samples } = entry;
    entry.last = entry.source.state();
    samples.push({ atMs: this.#clock.nowMs(), doneBytes: entry.last.doneBytes });
    if (samples.length > RATE_TICKS + 1) samples.shift();
  }

  #toJob(entry: Entry): Job {
    if (entry.ended !== undefined) return { ...entry.ended, vdisk: entry.source.vdisk() };
    entry.last = entry.source.state();
    const { doneBytes, totalBytes, pauseReason } = entry.last;
    const rate = this.#rateOf(entry);
    const restBytes = totalBytes === undefined ? undefined : Math.max(0, totalBytes - doneBytes);
    const isEtaKnown = restBytes !== undefined && rate > 0 && pauseReason === undefined;
    return {
      id: entry.id,
      kind: entry.source.kind,
      vdisk: entry.source.vdisk(),
      state: pauseReason === undefined ? 'running' : 'paused',
      reason: pauseReason ?? null,
      doneBytes,
      totalBytes: totalBytes ?? null,
      progress: totalBytes === undefined ? null : fraction(doneBytes, totalBytes),
      rateBytesPerSecond: rate,
      etaSeconds: isEtaKnown ? Math.ceil(restBytes / rate) : null,
      startedAt: entry.startedAt,
      endedAt: null,
      error: null,
    };
  }

  #rateOf({ samples, last }: Entry): number {
    const first = samples[0];
    if (first === undefined) return 0;
    const ms = this.#clock.nowMs() - first.atMs;
    return ms <= 0 ? 0 : Math.max(0, Math.round(((last.doneBytes - first.doneBytes) * 1000) / ms));
  }
}

function fraction(done: number, total: number): number {
  return total === 0 ? 1 : Math.min(1, done / total);
}
