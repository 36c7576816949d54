/**
 * What an object store costs, by prices that somebody has given: providers differ, and change them.
 *
 * 1. A PUT price is also that of a LIST; DELETE is free, as at all known providers.
 * 2. What is stored is taken as it is now, for the whole time since the start.
 * 3. Requests that were sent again are not known by verb, and not counted.
 */

/** In any currency; the same for all. */
export interface Prices {
  /** For 1,000 PUTs or LISTs. */
  readonly puts: number;
  /** For 1,000 GETs. */
  readonly gets: number;
  /** For 10^9 bytes kept for a month. */
  readonly storage: number;
  /** For 10^9 bytes that are read. */
  readonly egress: number;
}

/** What was asked for, since some time. */
export interface Requests {
  readonly puts: number;
  readonly gets: number;
  readonly egressBytes: number;
}

export interface Cost {
  readonly requests: number;
  readonly egress: number;
  readonly storage: number;
  readonly total: number;
}

const GB = 1e9;
/** 730 hours. */
export const MONTH_MS = 730 * 3_600_000;

export interface Spent extends Requests {
  readonly ms: number;
  readonly keptBytes: number;
}

export function costOf({ ms, keptBytes, puts, gets, egressBytes }: Spent, prices: Prices): Cost {
  const requests = (puts * prices.puts + gets * prices.gets) / 1000;
  const egress = (egressBytes / GB) * prices.egress;
  const storage = (keptBytes / GB) * (ms / MONTH_MS) * prices.storage;
  return { requests, egress, storage, total: requests + egress + storage };
}

/** The cost of a month in which all goes on as in this time. */
export function costOfMonth(spent: Spent, prices: Prices): Cost {
  const factor = spent.ms > 0 ? MONTH_MS / spent.ms : 0;
  return costOf(
    {
      ms: MONTH_MS,
      keptBytes: spent.keptBytes,
      puts: spent.puts * factor,
      gets: spent.gets * factor,
      egressBytes: spent.egressBytes * factor,
    },
    prices,
  );
}

const SAMPLE_MS = 60_000;
/** An hour. */
const SAMPLES_MAX = 60;

interface Sample extends Requests {
  readonly atMs: number;
}

/** What was asked for in the last hour: a sample each minute in which something is asked. */
export class RequestPace {
  readonly #samples: Sample[];

  constructor(nowMs: number) {
    this.#samples = [{ atMs: nowMs, puts: 0, gets: 0, egressBytes: 0 }];
  }

  /** To be called at each request, with the sums so far. */
  note(nowMs: number, sums: () => Requests): void {
    const last = this.#samples.at(-1);
    if (last !== undefined && nowMs - last.atMs < SAMPLE_MS) return;
    this.#samples.push({ atMs: nowMs, ...sums() });
    this.#forget(nowMs);
  }

  /** One sample that is older stays: what came after it is the pace. */
  #forget(nowMs: number): void {
    const from = nowMs - SAMPLES_MAX * SAMPLE_MS;
    while ((this.#samples[1]?.atMs ?? Infinity) <= from) this.#samples.shift();
  }

  since(nowMs: number, sums: Requests): Requests & { readonly ms: number } {
    this.#forget(nowMs);
    const [first] = this.#samples;
    const { atMs, puts, gets, egressBytes } = first ?? { atMs: nowMs, ...sums };
    return {
      ms: nowMs - atMs,
      puts: sums.puts - puts,
      gets: sums.gets - gets,
      egressBytes: sums.egressBytes - egressBytes,
    };
  }
}
