/**
 * How fast splits go: whose turn it is to fill, and when.
 *
 * 1. now: at once. rate: a bound. idle and balanced: at once while no client asks for anything.
 * 2. Beside busy clients idle goes at its floor; balanced at the rate that their own latency
 *    allows. Time is cut into cycles: in their first quarter nothing is filled, so that what the
 *    99th percentile would be without a split is known at any time; in the rest it is compared,
 *    and the rate goes up or down by a factor.
 * 3. Clients have consistency points of their own, and those are the worst that they feel. Nothing
 *    is filled meanwhile, so that they are no worse for a split; and what clients feel in them
 *    counts on both sides, for as much of their requests as it is.
 * 4. A floor makes each split end.
 * 5. Splits from different backing stores share what balanced allows in equal parts.
 */
import { BLOCK_BYTES, MIB } from '../base/units.js';
import type { SplitPolicy, SplitWindow } from '../layout/split-policy.js';
import { MINUTES_OF_DAY } from '../layout/split-policy.js';
import { type ClientLoad, FadingTimes, quantileMs, type Weighted } from '../vdisk/client-load.js';

/** Clients are quiet when none had anything under way for so long. */
const QUIET_MS = 200;
const CYCLE_MS = 1000;
/** Of a cycle, at its beginning: clients alone. */
const ALONE_MS = 250;
/** What latency may become, of what it is alone; a part of the quarter that is promised is kept. */
const LATENCY_RATIO_MAX = 1.2;
/** Beyond this the rate is halved at once. */
const LATENCY_RATIO_BAD = 2;
/** Too few requests say nothing about the hundredth of them. */
const REQUESTS_MIN = 300;
/** What a client feels of any request, however short. */
const SOCKET_MS = 0.1;
const FIRST_RATE = 32 * MIB;
/**
 * Up and down by equal factors: latency is noisy, and so the rate settles where every other cycle
 * is above the bound, and not where noise has pushed it.
 */
const RATE_FACTOR = 1.25;
const RATE_STEP = 2 * MIB;
const RATE_MAX = 4096 * MIB;
/** Below it steps are small: beside clients a long one may come once a second. */
const SMALL_RATE = 4 * MIB;
/** Of a rate that somebody has asked for, it is to look like one. */
const SMALL_RATE_ASKED = 32 * MIB;
/** How much of what was seen counts in the next cycle: of one second, the hundredth says little. */
const ALONE_KEPT = 0.93;
const TOGETHER_KEPT = 0.9;
const STEP_MS_MIN = 5;
/** Longer than that no consistency point is waited for: one may follow the other. */
const CP_WAIT_MS = 500;
const CP_ASK_MS = 5;
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
  /** What requests took. */
  readonly own: FadingTimes;
  /** And with what they may have waited before. */
  readonly felt: FadingTimes;
}

function newLatencies(): Latencies {
  return { own: new FadingTimes(), felt: new FadingTimes() };
}

export class Governor {
  readonly #load: ClientLoad;
  readonly #isTakingCp: () => boolean;
  readonly #alone = newLatencies();
  readonly #together = newLatencies();
  readonly #inCp = newLatencies();
  /** Of all requests, fading as those in consistency points do. */
  #requests = 0;
  /** When the consistency point that is being taken was first seen. */
  #cpMs: number | undefined;
  /** Bytes a second of all balanced splits together. */
  #rate = FIRST_RATE;
  #cycleMs = Number.NEGATIVE_INFINITY;
  #askedMs = 0;
  /** Backing stores that are being split from. */
  groups = 1;

  constructor(load: ClientLoad, isTakingCp: () => boolean) {
    this.#load = load;
    this.#isTakingCp = isTakingCp;
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
    return Math.max(waitMs, aloneMs, this.#untilCpEndMs(nowMs));
  }

  /**
   * True if it goes in small steps. Each step is in the way of the requests that are there at the
   * time, so many short ones disturb more requests than few long ones do. Only below this rate
   * would the pauses between long ones become so long that it does not look like a rate any more.
   */
  isSmall({ rate, policy }: Pace): boolean {
    const small = policy.pace === 'rate' ? SMALL_RATE_ASKED : SMALL_RATE;
    return rate !== undefined && rate < small;
  }

  /** What the jobs have done together counts as the most that one of them did. */
  charge(paces: readonly Pace[], blocks: number): void {
    const nowMs = this.#load.clock.nowMs();
    let nextMs = 0;
    for (const { rate, nextMs: ownMs } of paces) {
      if (rate === undefined) continue;
      // What was not used of the past is gone: a split does not catch up in a rush.
      const fromMs = Math.max(ownMs, nowMs - STEP_MS_MIN);
      nextMs = Math.max(nextMs, fromMs + (blocks * BLOCK_BYTES * 1000) / Math.max(1, rate));
    }
    for (const pace of paces) pace.nextMs = nextMs;
  }

  close(): void {
    this.#load.onRequest = undefined;
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

  /** Milliseconds until it is asked again whether the consistency point has ended. */
  #untilCpEndMs(nowMs: number): number {
    if (!this.#isTakingCp()) this.#cpMs = undefined;
    else if (nowMs - (this.#cpMs ??= nowMs) < CP_WAIT_MS) return CP_ASK_MS;
    return 0;
  }

  /** Goes on with the cycles; milliseconds for which clients are still left alone. */
  #cycle(nowMs: number): number {
    this.#askedMs = nowMs;
    this.#load.onRequest = this.#take;
    if (nowMs >= this.#cycleMs + CYCLE_MS) {
      // After a rest there is nothing to compare.
      if (nowMs < this.#cycleMs + 2 * CYCLE_MS) this.#decide();
      this.#cycleMs = nowMs;
      fade(this.#alone, ALONE_KEPT);
      fade(this.#inCp, ALONE_KEPT);
      this.#requests *= ALONE_KEPT;
      fade(this.#together, TOGETHER_KEPT);
    }
    return Math.max(0, this.#cycleMs + ALONE_MS - nowMs);
  }

  #decide(): void {
    const [alone, together] = [this.#alone, this.#together];
    if (together.own.count < REQUESTS_MIN || alone.own.count < REQUESTS_MIN) return;
    // A client that thinks in between waits less than it seems: its own time tells more.
    const ratio = Math.max(
      (this.#p99Ms(together, 'own') + SOCKET_MS) / (this.#p99Ms(alone, 'own') + SOCKET_MS),
      this.#p99Ms(together, 'felt') / this.#p99Ms(alone, 'felt'),
    );
    if (ratio > LATENCY_RATIO_BAD) this.#rate /= 2;
    else if (ratio > LATENCY_RATIO_MAX) this.#rate /= RATE_FACTOR;
    else this.#rate = Math.min(RATE_MAX, this.#rate * RATE_FACTOR + RATE_STEP);
    this.#rate = Math.max(this.#rate, MIB);
  }

  /** Of what is alone, or together, with its part of requests in consistency points. */
  #p99Ms(latencies: Latencies, kind: keyof Latencies): number {
    const cpPart = this.#inCp.own.count / Math.max(1, this.#requests);
    const parts: Weighted[] = [
      { times: this.#inCp[kind], weight: cpPart },
      { times: latencies[kind], weight: 1 - cpPart },
    ];
    return quantileMs(parts, 0.99);
  }

  readonly #take = (tookMs: number, waitedMs: number): void => {
    const nowMs = this.#load.clock.nowMs();
    this.#requests++;
    if (this.#isTakingCp()) add(this.#inCp, tookMs, waitedMs);
    else if (nowMs < this.#cycleMs + ALONE_MS) add(this.#alone, tookMs, waitedMs);
    else add(this.#together, tookMs, waitedMs);
    // Nobody is waiting for a turn any more.
    if (nowMs > this.#askedMs + CYCLE_MS) this.#load.onRequest = undefined;
  };
}

function add({ own, felt }: Latencies, tookMs: number, waitedMs: number): void {
  own.add(tookMs);
  felt.add(tookMs + waitedMs);
}

function fade({ own, felt }: Latencies, factor: number): void {
  own.fade(factor);
  felt.fade(factor);
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
