/**
 * Block status in units of an image's clusters: a cluster that has some data is data; one that has
 * some zeros, and else holes, is zero.
 */
import type { BlockTarget } from '../vdisk/block-target.js';
import { targetExtents } from './copy-options.js';

export interface ClusterRun {
  /** Index of the first cluster of the disk. */
  readonly first: number;
  readonly count: number;
  readonly kind: 'data' | 'zero' | 'hole';
}

const STRENGTH = { hole: 0, zero: 1, data: 2 } as const;

/** All clusters of the target, in order, each once. */
export async function* clusterRuns(
  target: BlockTarget,
  clusterBytes: number,
  signal: AbortSignal | undefined,
): AsyncGenerator<ClusterRun> {
  /** The run so far; its last cluster may still become something else. */
  let run: ClusterRun | undefined;
  for await (const { offset, length, kind } of targetExtents(target, signal)) {
    let first = Math.floor(offset / clusterBytes);
    const end = Math.ceil((offset + length) / clusterBytes);
    if (run !== undefined && first < run.first + run.count) {
      // The extent begins in the run's last cluster.
      if (STRENGTH[kind] > STRENGTH[run.kind]) {
        if (run.count > 1) yield { ...run, count: run.count - 1 };
        run = { first, count: 1, kind };
      }
      first++;
    }
    if (first >= end) continue;
    if (run?.kind === kind) {
      run = { ...run, count: end - run.first };
      continue;
    }
    if (run !== undefined) yield run;
    run = { first, count: end - first, kind };
  }
  if (run !== undefined) yield run;
}
