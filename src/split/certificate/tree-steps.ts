/**
 * Walks over trees that change meanwhile, for a certificate: level-1 range by level-1 range, each
 * in one synchronous step; a miss loads, then the range is looked at anew.
 */
import { SPAN_BLOCKS } from '../../base/units.js';
import { alignDown, type Tree } from '../../store/tree.js';
import type { Missing } from '../../vdisk/resolution.js';
import type { SplitParts } from '../special-load.js';

/** Ranges between two yields: about a millisecond. */
const SLICE_RANGES = 32;

/** The next FBN to look at, or what has to be loaded first. */
export type Step = number | readonly Missing[];

/** What stops a walk before its end. */
export interface WalkEnd {
  readonly parts: SplitParts;
  readonly isStopped: () => boolean;
}

export async function eachStep(
  { parts, isStopped }: WalkEnd,
  tree: Tree,
  step: (fbn: number, start: number) => Step,
): Promise<void> {
  const { engine, reader } = parts;
  const start = tree.goneBelowFbn;
  let looked = 0;
  for (let fbn = start; fbn < tree.capacityFbn; ) {
    engine.assertAlive();
    if (tree.gone || isStopped()) return;
    const next = step(Math.max(fbn, tree.goneBelowFbn), start);
    if (typeof next === 'number') fbn = next;
    else await reader.loadAll(next);
    if (++looked % SLICE_RANGES === 0) await engine.options.clock.yield();
  }
}

/** First FBN behind the block of this level that covers `fbn`. */
export function endOf(fbn: number, level: number): number {
  return alignDown(fbn, level) + (SPAN_BLOCKS[level] as number);
}

/** True if a walk that began at `start` comes to the block of this level with this FBN. */
export function isFirst(fbn: number, level: number, start: number): boolean {
  return fbn === start || fbn % (SPAN_BLOCKS[level] as number) === 0;
}
