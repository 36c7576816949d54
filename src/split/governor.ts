/**
 * How fast splits go: whose turn it is to fill, and when.
 *
 * 1. now: at once. rate: a bound. idle and balanced: at once while no client asks for anything.
 * 2. Beside busy clients idle goes at its floor; balanced at the rate that their own latency
 *    allows. Time is cut into cycles: in their first quarter nothing is filled, so that what the
 *    99th percentile would be without a split is known at any time; in the rest it is compared,
 *    and the rate goes up by steps, and down by factors (additive increase, multiplicative
 *    decrease).
 * 3. Latency is a request's own time and the time for which the event loop keeps it waiting.
 * 4. A floor makes each split end.
 * 5. Splits from different backing stores share what balanced allows in equal parts.
 */
import { BLOCK_BYTES, MIB } from '../base/units.js';
import type { Timer } from '../env/clock.js';
import type { SplitPolicy, SplitWindow } from '../layout/split-policy.js';
import { MINUTES_OF_DAY } from '../layout/split-policy.js';
import { type ClientLoad, FadingTimes } from '../vdisk/client-load.js';

/** Clients are quiet when none had anything under way for so long. */
const QUIET_MS = 200;
const CYCLE_MS = 1000;
/** Of a cycle, at its beginning: clients alone. */
const ALONE_MS = 250;
/** What latency may become, of what it is alone; a part of the quarter that is promised is kept. */
const LATENCY_RATIO_MAX = 1.15;
/** Beyond this the rate is halved at once. */
const LATENCY_RATIO_BAD = 1.5;
/** Too few requests say nothing about the hundredth of them. */
const REQUESTS_MIN = 300;
const FIRST_RATE = 16 * MIB;
const RATE_STEP = 4 * MIB;
const RATE_MAX = 4096 * MIB;
/** Below it steps are small; at it a long one comes eight times a second. */
const SMALL_RATE = 32 * MIB;
const ALONE_KEPT = 0.8;
const TOGETHER_KEPT = 0.5;
const PROBE_MS = 5;
const MINUTE_MS = 60_000;

/** What holds a split back. */
export type SplitLimit = 'nothing' | 'rate' | 'clients' | 'latency' | 'floor';

/** One job's place in time. Siblings that go together have the same. */
export class Pace {
  policy: SplitPolicy;
  /** The next step may begin then, as far as its own rate goes. */
  nextMs = 0;
  limit: SplitLimit = 'nothing';
  /** Bytes a second that it may go at now; undefined: no bound. */
  rate: number | undefined;

  constructor(policy: SplitPolicy) {
    this.policy = policy;
  }
}

interface Latencies {
  readonly requests: FadingTimes;
  readonly loop: FadingTimes;
}

export class Governor {
  readonly #load: ClientLoad;
  readonly #alone: Latencies = { requests: new FadingTimes(), loop: new FadingTimes() };
  readonly #together: Latencies = { requests: new FadingTimes(), loop: new FadingTimes() };
  /** Bytes a second of all balanced splits together. */
  #rate = FIRST_RATE;
  #cycleMs = Number.NEGATIVE_INFINITY;
  #probe: Timer | undefined;
  #askedMs = 0;
  /** Backing stores that are being split from. */
  groups = 1;

  constructor(load: ClientLoad) {
    this.#load = load;
  }

  /** Milliseconds until the job may take its next step; 0: it may now. */
  waitMs(pace: Pace): number {
    const nowMs = this.#load.clock.nowMs();
    const { policy } = pace;
    const isQuiet = this.#load.quietMs >= QUIET_MS;
    if (policy.pace === 'now') return this.#free(pace);
    if (policy.pace === 'rate') {
      return this.#bound(pace, nowMs, policy.rateBytesPerSecond, 'rate');
    }
    if (isQuiet) return this.#free(pace);
    const floor = policy.floorBytesPerSecond;
    if (policy.pace === 'idle') return this.#bound(pace, nowMs, floor, 'clients');
    const aloneMs = this.#cycle(nowMs);
    const share = this.#rate / this.groups;
    const isFloor = share <= floor;
    const waitMs = this.#bound(pace, nowMs, Math.max(share, floor), isFloor ? 'floor' : 'latency');
    return Math.max(waitMs, aloneMs);
  }

  /**
   * True if it goes in small steps. Each step is in the way of the requests that are there at the
   * time, so many short ones disturb more requests than few long ones do. Only below this rate
   * would the pauses between long ones become so long that it does not look like a rate any more.
   */
  isSmall({ rate }: Pace): boolean {
    return rate !== undefined && rate < SMALL_RATE;
  }

  /** What the jobs have done together counts as the most that one of them did. */
  charge(paces: readonly Pace[], blocks: number): void {
    const nowMs = this.#load.clock.nowMs();
    let nextMs = 0;
    for (const { rate, nextMs: ownMs } of paces) {
      if (rate === undefined) continue;
      // What was not used of the past is gone: a split does not catch up in a rush.
      const fromMs = Math.max(ownMs, nowMs - PROBE_MS);
      nextMs = Math.max(nextMs, fromMs + (blocks * BLOCK_BYTES * 1000) / Math.max(1, rate));
    }
    for (const pace of paces) pace.nextMs = nextMs;
  }

  close(): void {
    this.#probe?.cancel();
    this.#probe = undefined;
    this.#load.times = undefined;
  }

  #free(pace: Pace): number {
    pace.rate = undefined;
    pace.limit = 'nothing';
    return 0;
  }

  #bound(pace: Pace, nowMs: number, rate: number, limit: SplitLimit): number {
    pace.rate = rate;
    pace.limit = limit;
    if (rate === 0) return CYCLE_MS;
    return Math.max(0, pace.nextMs - nowMs);
  }

  /** Goes on with the cycles; milliseconds for which clients are still left alone. */
  #cycle(nowMs: number): number {
    this.#askedMs = nowMs;
    this.#startProbe();
    if (nowMs >= this.#cycleMs + CYCLE_MS) {
      // After a rest there is nothing to compare.
      if (nowMs < this.#cycleMs + 2 * CYCLE_MS) this.#decide();
      this.#cycleMs = nowMs;
      fade(this.#alone, ALONE_KEPT);
      fade(this.#together, TOGETHER_KEPT);
    }
    const aloneMs = this.#cycleMs + ALONE_MS - nowMs;
    this.#load.times = (aloneMs > 0 ? this.#alone : this.#together).requests;
    return Math.max(0, aloneMs);
  }

  #decide(): void {
    const { requests } = this.#together;
    if (requests.count < REQUESTS_MIN || this.#alone.requests.count < REQUESTS_MIN) return;
    const ratio = latencyMs(this.#together) / latencyMs(this.#alone);
    if (ratio > LATENCY_RATIO_BAD) this.#rate *= 0.5;
    else if (ratio > LATENCY_RATIO_MAX) this.#rate *= 0.8;
    else this.#rate = Math.min(RATE_MAX, this.#rate * 1.1 + RATE_STEP);
    this.#rate = Math.max(this.#rate, MIB);
  }

  /** While somebody asks, looks how late the event loop is. */
  #startProbe(): void {
    if (this.#probe !== undefined) return;
    const { clock } = this.#load;
    const dueMs = clock.nowMs() + PROBE_MS;
    this.#probe = clock.setTimer(PROBE_MS, () => {
      this.#probe = undefined;
      const nowMs = clock.nowMs();
      const isAlone = nowMs < this.#cycleMs + ALONE_MS;
      (isAlone ? this.#alone : this.#together).loop.add(Math.max(0, nowMs - dueMs));
      if (nowMs < this.#askedMs + CYCLE_MS) this.#startProbe();
      else this.#load.times = undefined;
    });
  }
}

function fade({ requests, loop }: Latencies, factor: number): void {
  requests.fade(factor);
  loop.fade(factor);
}

function latencyMs({ requests, loop }: Latencies): number {
  return requests.quantileMs(0.99) + loop.quantileMs(0.99);
}

/** Milliseconds until the window opens; 0: it is open. */
export function untilOpenMs(window: SplitWindow | undefined, wallMs: number): number {
  if (window === undefined) return 0;
  const dayMs = MINUTES_OF_DAY * MINUTE_MS;
  const ofDayMs = ((wallMs % dayMs) + dayMs) % dayMs;
  const fromMs = window.fromMinute * MINUTE_MS;
  const length = (window.toMinute - window.fromMinute + MINUTES_OF_DAY) % MINUTES_OF_DAY;
  const sinceMs = (ofDayMs - fromMs + dayMs) % dayMs;
  return sinceMs < length * MINUTE_MS ? 0 : dayMs - sinceMs;
}
