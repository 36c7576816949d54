/**
 * Who stands in the way of a delete, and how much each of them still reads through what should go:
 * what a split of it would have to fill.
 *
 * 1. Counted by the holes of level-1 buffers, while a refusal looks at no more than 1 GiB of vdisks
 *    in all; those that come cheapest are first. For the rest, and for what cannot be read now, the
 *    counters of the trees say how much it is at most.
 * 2. The count awaits: others may come and go meanwhile. Who asks again afterwards has the names of
 *    that moment; a holder that has come since is told from the counters.
 */
import { isStoreError, StoreError } from '../base/store-error.js';
import { BLOCK_BYTES, formatBytes, GIB, toBlocks } from '../base/units.js';
import type { Tree } from '../store/tree.js';
import { countReadThrough, type LooksLeft, type ScanParts } from './scan.js';
import type { VdiskTable } from './vdisk-table.js';

/** What a refusal looks at, in all. */
const LOOK_BYTES_MAX = GIB;
/** Names that a message has room for. */
const NAMES_MAX = 5;

export const READ_BASES = ['counted', 'at-most'] as const;
export type ReadBasis = (typeof READ_BASES)[number];

/** A vdisk or snapshot that reads through what should be deleted. */
export interface InUseHolder {
  readonly name: string;
  readonly readThroughBytes: number;
  readonly basis: ReadBasis;
}

export class InUseError extends StoreError {
  readonly holders: readonly InUseHolder[];

  constructor(name: string, holders: readonly InUseHolder[], orElse: string) {
    const list = holders.slice(0, NAMES_MAX).map(toText).join(', ');
    const more = holders.length > NAMES_MAX ? `, and ${holders.length - NAMES_MAX} more` : '';
    const others = holders.length === 1 ? 'another' : `${holders.length} others`;
    super(
      'in-use',
      `${name} is the backing store of ${others} (${list}${more}): ` +
        `split or delete them first${orElse}`,
    );
    this.holders = holders;
  }
}

/** The first says what is done with the bytes: the others are read the same way. */
function toText({ name, readThroughBytes, basis }: InUseHolder, index: number): string {
  const atMost = basis === 'counted' ? '' : 'at most ';
  return `${name} ${index === 0 ? 'reads ' : ''}${atMost}${formatBytes(readThroughBytes)}`;
}

export interface Holder {
  readonly name: string;
  readonly tree: Tree;
}

/**
 * What reads through the tree and has a name, in order of names: directly, or behind trees that
 * have lost theirs and wait for a merge.
 */
export function holdersOf(table: VdiskTable, tree: Tree): Holder[] {
  const holders: Holder[] = [];
  const waiting = [tree];
  for (let at = waiting.pop(); at !== undefined; at = waiting.pop()) {
    for (const over of at.over()) {
      const owner = table.byId(over.ownerId);
      if (owner === undefined) waiting.push(over);
      else holders.push({ name: owner.name, tree: over });
    }
  }
  return holders.sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** Blocks that holders read, by their trees, as far as they were counted. */
export type CountedReads = ReadonlyMap<Tree, number>;

/** Counts what each reads through the tree, until the looks of a refusal are used up. */
export async function countReads(
  parts: ScanParts,
  through: Tree,
  holders: readonly Holder[],
): Promise<CountedReads> {
  const counted = new Map<Tree, number>();
  const left: LooksLeft = { blocks: LOOK_BYTES_MAX / BLOCK_BYTES };
  const cheapestFirst = holders
    .map(({ tree }) => ({ tree, cost: tree.mappedBlocks + blocksAtMost(tree, through) }))
    .sort((a, b) => a.cost - b.cost);
  for (const { tree } of cheapestFirst) {
    if (left.blocks <= 0) break;
    const blocks = await tryToCount(parts, tree, through, left);
    if (blocks !== undefined) counted.set(tree, blocks);
  }
  return counted;
}

async function tryToCount(
  parts: ScanParts,
  tree: Tree,
  through: Tree,
  left: LooksLeft,
): Promise<number | undefined> {
  tree.holds++;
  try {
    return await countReadThrough(parts, tree, through, left);
  } catch (error) {
    parts.engine.assertAlive();
    // Damage, or a file that is missing: who reads through it is known all the same.
    if (isStoreError(error)) return undefined;
    throw error;
  } finally {
    tree.holds--;
  }
}

export function toInUseHolder(
  { name, tree }: Holder,
  through: Tree,
  counted: CountedReads,
): InUseHolder {
  const blocks = counted.get(tree);
  return {
    name,
    readThroughBytes: (blocks ?? blocksAtMost(tree, through)) * BLOCK_BYTES,
    basis: blocks === undefined ? 'at-most' : 'counted',
  };
}

/**
 * All that the tree and what lies below have, as far as the holder's read-through limits reach.
 * What the holder has itself is not taken off: its counter still counts what was cut out of it.
 */
function blocksAtMost(holder: Tree, through: Tree): number {
  let limitBytes = holder.readThroughLimitBytes;
  for (let at = holder.backing; at !== undefined && at !== through; at = at.backing) {
    limitBytes = Math.min(limitBytes, at.readThroughLimitBytes);
  }
  let blocks = 0;
  for (let at: Tree | undefined = through; at !== undefined; at = at.backing) {
    blocks += at.isExternal ? toBlocks(at.sizeBytes) : at.mappedBlocks;
  }
  return Math.min(toBlocks(limitBytes), blocks);
}
