/**
 * The reference file: which blocks more than one tree names. Changed by consistency points only,
 * from what the generation shared, renamed and let go.
 *
 * 1. A block without an entry has one name; an entry counts at least two.
 * 2. A block let go by one of several stays; let go by its last it is free.
 * 3. `sharedBlocks` of a tree counts its data blocks that have an entry, and all beneath its shared
 *    pointers. When a block's count falls to one, the exclusive-or of the owners is the one left,
 *    and its counter falls too.
 * 4. What a block beneath a shared pointer names it names for nobody in particular: owner 0.
 */
import { FLAG_IN_MEMORY, HOLE_VBN, vbnAt } from '../layout/pointer.js';
import { REFERENCE_ENTRIES_PER_BLOCK } from '../layout/reference-entry.js';
import type { CpContext } from './consistency-point.js';
import type { Generation, Renaming, Share } from './generation.js';
import { ReferenceWriter } from './reference-writer.js';
import type { Tree } from './tree.js';
import { VbnSet } from './vbn-set.js';

/** Brings the file up to date; returns the data blocks that have no owner left. */
export async function applyReferences(context: CpContext, generation: Generation): Promise<VbnSet> {
  const file = context.metafiles.reference;
  const { shares, renamings, sharedFrees } = generation;
  if (isEmpty(file) && !generation.hasNewNames && sharedFrees.size === 0) {
    return allFrees(generation);
  }
  const writer = new ReferenceWriter(context, generation);
  let shared = 0;
  const shareUpTo = async (end: number): Promise<void> => {
    for (; shared < end; shared++) await applyShare(writer, shares[shared] as Share);
  };
  for (const { renaming, sharesBefore } of renamings) {
    await shareUpTo(sharesBefore);
    await rename(writer, renaming);
  }
  await shareUpTo(shares.length);
  for (const [vbn, ownerId] of sharedFrees) await writer.freeShared(vbn, ownerId);
  const letGo = async (treeId: number, vbn: number): Promise<void> => {
    if (await writer.letGo(vbn, treeId, true)) writer.freedData.add(vbn);
  };
  for (const { treeId, vbn } of generation.earlierFrees) await letGo(treeId, vbn);
  for (const [treeId, set] of generation.dataFrees) {
    for (const vbn of set.values()) await letGo(treeId, vbn);
  }
  writer.applyCounts();
  return writer.freedData;
}

async function applyShare(writer: ReferenceWriter, share: Share): Promise<void> {
  const runEnd = share.vbn + share.blocks;
  for (let vbn = share.vbn; vbn < runEnd; ) {
    const blockEnd = vbn - (vbn % REFERENCE_ENTRIES_PER_BLOCK) + REFERENCE_ENTRIES_PER_BLOCK;
    const end = Math.min(runEnd, blockEnd);
    await writer.share(vbn, end - vbn, share.ownerId, share.withId);
    vbn = end;
  }
}

function rename(writer: ReferenceWriter, renaming: Renaming): Promise<void> {
  switch (renaming.kind) {
    case 'move':
      return writer.move(renaming.vbn, renaming.fromId, renaming.toId, renaming.isData);
    case 'lend':
      return writer.lend(renaming.vbn, renaming.ownerId, renaming.withId);
    case 'unshare':
      return writer.unshare(renaming);
  }
}

function isEmpty(file: Tree): boolean {
  return ((file.root[1] as number) & FLAG_IN_MEMORY) === 0 && vbnAt(file.root, 0) === HOLE_VBN;
}

function allFrees(generation: Generation): VbnSet {
  const freed = new VbnSet();
  for (const set of generation.dataFrees.values()) freed.addAll(set);
  return freed;
}
