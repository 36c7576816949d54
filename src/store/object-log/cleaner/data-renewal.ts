/**
 * Dirties live data blocks without altering them, the step of a split's fill: each is placed anew,
 * and whoever named it names the new place, with the same checksum and flags.
 *
 * 1. Whether a tree names the block is asked in the same synchronous step that changes its pointer:
 *    what a client wrote meanwhile stands.
 * 2. All owners of a shared block change in one step, and the new block gets their names in the
 *    reference file. An owner that was overlooked keeps the old block: that costs space, no bytes.
 * 3. Nothing is logged: after a crash the old block is there, for its record is deleted only below
 *    a consistency point that does not name it.
 */
import { FIELDS_PER_BLOCK } from '../../../base/units.js';
import { putPointer, VBN_HIGH_MASK } from '../../../layout/pointer.js';
import type { Engine } from '../../engine.js';
import type { Reservation } from '../../reservation.js';
import type { Tree } from '../../tree.js';
import { type Lack, type LiveBlock, loadLack, ownersNow } from './block-owners.js';

/** A block, and where its bytes stand now. */
export interface PlacedBlock {
  readonly block: LiveBlock;
  readonly vbn: number;
}

/** Pointers of these level-1 ranges are others now, though no byte is. */
export type OnRenewed = (fromRange: number, toRange: number) => void;

export interface RenewalParts {
  readonly engine: Engine;
  readonly reservation: Reservation;
  readonly onRenewed: OnRenewed;
}

/** Puts the new places where the blocks still are named. @returns how many were */
export async function renewData(
  parts: RenewalParts,
  placed: readonly PlacedBlock[],
): Promise<number> {
  const { engine } = parts;
  let done = 0;
  let count = 0;
  try {
    for (const each of placed) {
      while (!engine.hasBufferRoom) await engine.bufferRoom();
      const outcome = await renewOne(parts, each);
      if (outcome === 'no-room') break;
      done++;
      if (outcome) count++;
      else engine.medium.abandon(each.vbn, 'data');
      if (done % FIELDS_PER_BLOCK === 0) await engine.options.clock.yield();
    }
  } finally {
    for (const { vbn } of placed.slice(done)) engine.medium.abandon(vbn, 'data');
  }
  if (count > 0) engine.changed();
  return count;
}

async function renewOne(parts: RenewalParts, placed: PlacedBlock): Promise<boolean | 'no-room'> {
  const { engine } = parts;
  for (;;) {
    engine.assertAlive();
    const outcome = renewNow(parts, placed);
    if (outcome !== 'load' && outcome !== 'load-reference') return outcome;
    await loadLack(engine, outcome);
  }
}

function renewNow(parts: RenewalParts, { block, vbn }: PlacedBlock): boolean | Lack | 'no-room' {
  const { engine, reservation } = parts;
  const { trees, pool, generation } = engine;
  const { fbn } = block.tag;
  pool.makeFree(block.owners.length * 6 + 8);
  const owners = ownersNow(engine, block);
  if (owners === 'load' || owners === 'load-reference') return owners;
  if (owners === 'fixed' || owners.length === 0) return false;
  let cost = 0;
  for (const tree of owners) {
    const path = trees.pathCost(tree, fbn, generation.number);
    if (path < 0) return 'load';
    cost += path;
  }
  const references = owners.length > 1 ? 4 : 0;
  const demand = { dataBlocks: 0, metaBlocks: cost + references };
  if (!engine.hasRoomWith(reservation, demand)) return 'no-room';
  for (const tree of owners) putPlace(engine, tree, block, vbn);
  const metaBlocks = Math.max(0, reservation.metaBlocks - demand.metaBlocks);
  reservation.keep({ dataBlocks: 0, metaBlocks });
  engine.medium.adopt(vbn, 'data', generation);
  const [first, ...others] = owners as [Tree, ...Tree[]];
  for (const other of others) {
    const ids = { ownerId: first.ownerOfBlocks, withId: other.ownerOfBlocks };
    generation.share({ vbn, blocks: 1, ...ids });
  }
  const range = Math.floor(fbn / FIELDS_PER_BLOCK);
  parts.onRenewed(range, range + 1);
  return true;
}

/** Nothing is awaited since the tree was asked. */
function putPlace({ trees, generation }: Engine, tree: Tree, block: LiveBlock, vbn: number): void {
  trees.dirtyPath(tree, block.tag.fbn, generation);
  const { fieldWords, fieldAt } = trees;
  const flags = ((fieldWords[fieldAt + 1] as number) & ~VBN_HIGH_MASK) >>> 0;
  putPointer(fieldWords, fieldAt, vbn, fieldWords[fieldAt + 2] as number, flags);
  generation.freeData(tree.ownerOfBlocks, block.vbn);
}

/** Indirect blocks that the renewal may make dirty, at most. */
export function metaDemand(blocks: readonly LiveBlock[]): number {
  const ranges = new Map<Tree, Set<number>>();
  let uppers = 0;
  let references = 0;
  for (const { tag, owners } of blocks) {
    if (owners.length > 1) references += 2;
    for (const tree of owners) {
      let of = ranges.get(tree);
      if (of === undefined) {
        of = new Set();
        ranges.set(tree, of);
        uppers += 2 * tree.height;
      }
      of.add(Math.floor(tag.fbn / FIELDS_PER_BLOCK));
    }
  }
  let level1 = 0;
  for (const of of ranges.values()) level1 += of.size;
  return level1 + Math.ceil(level1 / 16) + uppers + references;
}
