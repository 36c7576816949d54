/**
 * The plan of a split, as people ask for it: what is read and written, what space it takes, what
 * comes back afterwards, and how long it takes at the speed of the splits before it.
 *
 * From a scan it is exact as plan.ts and give-back.ts say; what only a look at the bytes would tell
 * (blocks of zeros take no space) is told as "at most". An estimate comes from counters.
 */
import { BLOCK_BYTES } from '../base/units.js';
import type { SplitMode } from '../layout/tree-record.js';
import type { Medium } from '../store/medium.js';
import type { Tree } from '../store/tree.js';
import { estimateGiveBack, estimateHoles } from './estimate.js';
import { type GiveBack, giveBackOf } from './give-back.js';
import { countHoles, type HoleCount, type PlanOptions, type SplitWork, workOf } from './plan.js';
import type { SplitParts } from './special-load.js';
import type { SplitSpeed } from './split-speed.js';

export const SPLIT_MODES: readonly SplitMode[] = ['copy', 'share'];

/** What a split in one mode would do. */
export interface ModePlan {
  readonly mode: SplitMode;
  /** Data that is read from backing stores. */
  readonly readBytes: number;
  /** Data that is written, at most, and at least: blocks of zeros take no space. */
  readonly writeBytes: number;
  readonly writeBytesMin: number;
  /** Data that the vdisk and the backing store will both name. */
  readonly sharedBytes: number;
  readonly indirectBlocks: number;
  readonly referenceBlocks: number;
  /** What these take on the medium, with their second copies. */
  readonly metaBytes: number;
  /** Of the store: while it goes on, at most, and when it is done. */
  readonly usedBytesDuring: number;
  readonly usedBytesAfter: number;
  /** The store has room for it now. */
  readonly fits: boolean;
  /**
   * What the deletion of the backing store gives back then, and that of its whole vdisk with all
   * snapshots; undefined: not known.
   */
  readonly givesBackBytes: number | undefined;
  readonly vdiskGivesBackBytes: number | undefined;
  /** At which the last splits of this mode went; undefined: there was none. */
  readonly bytesPerSecond: number | undefined;
  readonly seconds: number | undefined;
}

export interface SplitPlan {
  readonly basis: 'scan' | 'estimate';
  /** Of the store, now. */
  readonly usedBytes: number;
  readonly modes: readonly ModePlan[];
}

export interface SplitPlanOptions extends PlanOptions {
  /** Both if it is not said. */
  readonly mode?: SplitMode | undefined;
  /** From the counters of the trees, at once. */
  readonly estimate?: boolean | undefined;
}

/** What a split is planned for. */
export interface SplitSubject {
  /** The tree that is filled. */
  readonly tree: Tree;
  /** Its backing store, and all trees of the vdisk which that belongs to. */
  readonly backing: Tree;
  readonly backingVdisk: readonly Tree[];
}

interface Findings {
  readonly counts: Readonly<Record<SplitMode, HoleCount>>;
  readonly backing: GiveBack | undefined;
  readonly vdisk: GiveBack | undefined;
}

/** @throws {StoreError} not-found: the vdisk was deleted meanwhile */
export async function planSplit(
  parts: SplitParts,
  subject: SplitSubject,
  speed: SplitSpeed,
  options: SplitPlanOptions,
): Promise<SplitPlan> {
  const modes = options.mode === undefined ? SPLIT_MODES : [options.mode];
  const found = options.estimate === true ? estimate(subject) : await scan(parts, subject, options);
  return {
    basis: options.estimate === true ? 'estimate' : 'scan',
    usedBytes: parts.engine.medium.space.usedBlocks * BLOCK_BYTES,
    modes: modes.map((mode) => toModePlan(parts, workOf(found.counts[mode], mode), found, speed)),
  };
}

function estimate({ tree, backing, backingVdisk }: SplitSubject): Findings {
  const count = estimateHoles(tree);
  return {
    counts: { copy: count, share: count },
    backing: estimateGiveBack(tree, [backing], count),
    vdisk: estimateGiveBack(tree, backingVdisk, count),
  };
}

async function scan(
  parts: SplitParts,
  { tree, backing, backingVdisk }: SplitSubject,
  options: PlanOptions,
): Promise<Findings> {
  // What it brings to the medium can be shared, and what was shared has its second owner then.
  await parts.engine.consistencyPoint();
  return {
    counts: {
      copy: await countHoles(parts, tree, 'copy', options),
      share: await countHoles(parts, tree, 'share', options),
    },
    backing: await giveBackOf(parts, tree, [backing], options),
    vdisk: await giveBackOf(parts, tree, backingVdisk, options),
  };
}

function toModePlan(
  { engine: { medium } }: SplitParts,
  work: SplitWork,
  { backing, vdisk }: Findings,
  speed: SplitSpeed,
): ModePlan {
  const { mode, readBlocks, dataBlocks, sharedBlocks, metaBlocks, newMetaBlocks } = work;
  const { usedBlocks } = medium.space;
  const blocksPerSecond = speed.blocksPerSecond(mode);
  const filledBlocks = readBlocks + sharedBlocks;
  return {
    mode,
    readBytes: readBlocks * BLOCK_BYTES,
    writeBytes: dataBlocks * BLOCK_BYTES,
    writeBytesMin: work.dataBlocksMin * BLOCK_BYTES,
    sharedBytes: sharedBlocks * BLOCK_BYTES,
    indirectBlocks: work.indirectBlocks,
    referenceBlocks: work.referenceBlocks,
    metaBytes: metaBlocks * medium.metaCopies * BLOCK_BYTES,
    // What stands in the place of another is there beside it until a consistency point ends.
    usedBytesDuring: (usedBlocks + dataBlocks + metaBlocks * medium.metaCopies) * BLOCK_BYTES,
    usedBytesAfter: (usedBlocks + dataBlocks + newMetaBlocks * medium.metaCopies) * BLOCK_BYTES,
    fits: medium.hasRoom({ dataBlocks, metaBlocks }, 'client'),
    givesBackBytes: bytesBack(mode, backing, medium),
    vdiskGivesBackBytes: bytesBack(mode, vdisk, medium),
    bytesPerSecond: blocksPerSecond === undefined ? undefined : blocksPerSecond * BLOCK_BYTES,
    seconds: blocksPerSecond === undefined ? undefined : filledBlocks / blocksPerSecond,
  };
}

function bytesBack(
  mode: SplitMode,
  giveBack: GiveBack | undefined,
  { metaCopies }: Medium,
): number | undefined {
  if (giveBack === undefined) return undefined;
  const dataBlocks = mode === 'copy' ? giveBack.copyBlocks : giveBack.shareBlocks;
  const metaBlocks = mode === 'copy' ? giveBack.copyMetaBlocks : giveBack.shareMetaBlocks;
  return (dataBlocks + metaBlocks * metaCopies) * BLOCK_BYTES;
}
