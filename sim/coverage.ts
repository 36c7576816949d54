/**
 * Owns what runs were put through: acts by the background job that was under way, and totals. Runs
 * add up.
 */

export const JOB_KINDS = [
  'none',
  'copy-split',
  'share-split',
  'undo',
  'free',
  'merge',
  'cp',
] as const;
export type JobKind = (typeof JOB_KINDS)[number];

export interface Totals {
  seeds: number;
  acts: number;
  consistencyPoints: number;
  cuts: number;
  /** Of these, the ones that came before the store was open again. */
  nestedCuts: number;
  recoveries: number;
  cleanOpens: number;
  deviceFailures: number;
  splitsStarted: number;
  splitsCompleted: number;
  splitsCancelled: number;
  /** Under way when the power was cut. */
  splitsInterrupted: number;
  /** Indirect blocks that splits shared, and of these the ones of level 2 and more. */
  /** Blocks served from the cache file, and those that were found damaged there. */
  cacheHits: number;
  cacheDamaged: number;
  /** Records that the cleaner emptied, what it placed again for that, and records it left. */
  recordsEmptied: number;
  dataCleaned: number;
  metaCleaned: number;
  recordsLeft: number;
  /** Groups of local logs, and FLUSHes that waited for the object store all the same. */
  localGroups: number;
  localWaits: number;
  wholeShares: number;
  tallShares: number;
  blocksHealed: number;
  outOfSpace: number;
  /** Requests that an external backing store failed. */
  externalTroubles: number;
  sectorsCompared: number;
  storeChecks: number;
  virtualMs: number;
}

function newTotals(): Totals {
  return {
    seeds: 0,
    acts: 0,
    consistencyPoints: 0,
    cuts: 0,
    nestedCuts: 0,
    recoveries: 0,
    cleanOpens: 0,
    deviceFailures: 0,
    splitsStarted: 0,
    splitsCompleted: 0,
    splitsCancelled: 0,
    splitsInterrupted: 0,
    cacheHits: 0,
    cacheDamaged: 0,
    recordsEmptied: 0,
    dataCleaned: 0,
    metaCleaned: 0,
    recordsLeft: 0,
    localGroups: 0,
    localWaits: 0,
    wholeShares: 0,
    tallShares: 0,
    blocksHealed: 0,
    outOfSpace: 0,
    externalTroubles: 0,
    sectorsCompared: 0,
    storeChecks: 0,
    virtualMs: 0,
  };
}

export class Coverage {
  readonly totals = newTotals();
  readonly #acts = new Map<string, number>();
  readonly #pairs = new Map<string, Map<JobKind, number>>();

  /** An act begins while these jobs are under way. */
  act(kind: string, jobs: readonly JobKind[]): void {
    this.totals.acts++;
    this.#acts.set(kind, this.countOf(kind) + 1);
    for (const job of jobs.length === 0 ? (['none'] as const) : jobs) this.#count(kind, job, 1);
  }

  count(kind: string, job: JobKind): number {
    return this.#pairs.get(kind)?.get(job) ?? 0;
  }

  /** Kinds of acts that were asked for. */
  kinds(): string[] {
    return [...this.#acts.keys()].sort();
  }

  countOf(kind: string): number {
    return this.#acts.get(kind) ?? 0;
  }

  add(other: Coverage): void {
    for (const key of Object.keys(other.totals) as (keyof Totals)[]) {
      this.totals[key] += other.totals[key];
    }
    for (const [kind, count] of other.#acts) this.#acts.set(kind, this.countOf(kind) + count);
    for (const [kind, row] of other.#pairs) {
      for (const [job, count] of row) this.#count(kind, job, count);
    }
  }

  /** Acts down, jobs across. */
  matrix(): string {
    const kinds = this.kinds();
    const width = Math.max(...kinds.map((kind) => kind.length), 3);
    const cell = (text: string): string => text.padStart(12);
    const lines = [['act'.padEnd(width), ...JOB_KINDS.map(cell)].join('')];
    for (const kind of kinds) {
      const counts = JOB_KINDS.map((job) => cell(String(this.count(kind, job))));
      lines.push([kind.padEnd(width), ...counts].join(''));
    }
    return lines.join('\n');
  }

  #count(kind: string, job: JobKind, count: number): void {
    let row = this.#pairs.get(kind);
    if (row === undefined) {
      row = new Map();
      this.#pairs.set(kind, row);
    }
    row.set(job, (row.get(job) ?? 0) + count);
  }
}
