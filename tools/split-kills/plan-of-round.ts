/** What a round is like: what splits, how, how fast, and when the server is killed. */
import type { Random } from '../../src/env/random.js';

export const MOMENTS = ['begin', 'filling', 'release', 'after'] as const;
const SHARES = ['copy', 'share', 'share-whole'] as const;
const SHAPES = ['writers', 'fio', 'siblings', 'deferred'] as const;
const PACES = ['now', 'rate', 'balanced'] as const;
/** Consistency points come often, seldom, or hardly ever. */
const INTERVALS_MS = [40, 200, 1000] as const;

export interface RoundPlan {
  readonly how: (typeof SHARES)[number];
  /** deferred: its snapshot is deleted meanwhile, with `defer`; two of them split. */
  readonly shape: (typeof SHAPES)[number];
  readonly pace: (typeof PACES)[number];
  readonly moment: (typeof MOMENTS)[number];
  readonly cpIntervalMs: number;
}

/** Every mode meets every shape in 12 rounds; pace, moment and interval are drawn. */
export function planOf(round: number, random: Random): RoundPlan {
  const pick = <T>(items: readonly T[]): T => items[random.below(items.length)] as T;
  return {
    how: SHARES[round % SHARES.length] as RoundPlan['how'],
    shape: SHAPES[round % SHAPES.length] as RoundPlan['shape'],
    pace: pick(PACES),
    moment: pick([...MOMENTS, 'filling']),
    cpIntervalMs: pick(INTERVALS_MS),
  };
}
