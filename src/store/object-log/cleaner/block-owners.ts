/**
 * Who names the live blocks of a record.
 *
 * 1. The tag tells which tree a block was placed for; mostly that tree names it still. A merge
 *    moves a name to another tree, a share adds some: then all trees are asked, at the FBN of the
 *    tag, since no block ever changes its FBN.
 * 2. A tree that is overlooked goes on naming the block where it is: that costs space, never bytes.
 */
import { HEIGHT_MAX } from '../../../base/units.js';
import type { BlockTag } from '../../../layout/log-record.js';
import type { Engine } from '../../engine.js';
import { namedAs } from '../../named-block.js';
import type { Tree } from '../../tree.js';
import { mayRenew, ownedAs } from './may-renew.js';

/** A block that somebody names. */
export interface LiveBlock {
  readonly vbn: number;
  readonly tag: BlockTag;
  /** All that name it, if `isShared`; else the one. */
  readonly owners: readonly Tree[];
  readonly isShared: boolean;
}

export interface Owners {
  readonly blocks: readonly LiveBlock[];
  /** Blocks that are named, but cannot be placed again now: others may name them unseen. */
  readonly fixed: number;
}

interface Wanted {
  readonly vbn: number;
  readonly tag: BlockTag;
}

/** Blocks whose paths are loaded at once. */
const PLACES_AT_ONCE = 32;
/** A block that more trees name stays: making all their paths dirty is one synchronous step. */
const OWNERS_MAX = 64;

/**
 * @param firstVbn   VBN of the record's first block
 * @param liveCount  blocks of the record that live, as the usage file has it
 */
export async function findOwners(
  engine: Engine,
  firstVbn: number,
  tags: readonly BlockTag[],
  liveCount: number,
): Promise<Owners> {
  const all = tags.map((tag, index): Wanted => ({ vbn: firstVbn + index, tag }));
  const byTag = (tag: BlockTag): Tree[] => {
    const tree = engine.table.get(tag.treeId);
    return tree === undefined || tree.gone ? [] : [tree];
  };
  await loadPlaces(engine, all, byTag);
  const blocks: LiveBlock[] = [];
  const left: Wanted[] = [];
  let fixed = 0;
  for (const wanted of all) {
    const found = await judge(engine, wanted, () => byTag(wanted.tag));
    if (found === undefined) left.push(wanted);
    else if (found === 'fixed') fixed++;
    else if (await isShared(engine, wanted)) left.push(wanted);
    else blocks.push(found);
  }
  if (blocks.length + fixed >= liveCount && !(await anyShared(engine, left))) {
    return { blocks, fixed };
  }
  const everybody = (): Tree[] => [...engine.table.all()].filter((tree) => !tree.gone);
  await loadPlaces(engine, left, everybody);
  let looked = 0;
  for (const wanted of left) {
    const found = await judge(engine, wanted, everybody);
    if (found === 'fixed') fixed++;
    else if (found !== undefined) blocks.push({ ...found, isShared: true });
    if (++looked % 16 === 0) await engine.options.clock.yield();
  }
  return { blocks, fixed };
}

async function anyShared(engine: Engine, blocks: readonly Wanted[]): Promise<boolean> {
  if (isFileEmpty(engine)) return false;
  for (const wanted of blocks) if (await isShared(engine, wanted)) return true;
  return false;
}

function isFileEmpty({ metafiles }: Engine): boolean {
  return metafiles.reference.root[0] === 0 && metafiles.reference.root[1] === 0;
}

/** True if the reference file has an entry, or may get one. */
async function isShared(engine: Engine, { vbn }: Wanted): Promise<boolean> {
  if (isFileEmpty(engine)) return false;
  for (;;) {
    engine.assertAlive();
    const names = engine.namesOf(vbn);
    if (names !== 'load') return names === 'wait' || names > 1;
    await engine.loadReference();
  }
}

/** The block with those of the trees that name it; undefined if none does. */
async function judge(
  engine: Engine,
  { vbn, tag }: Wanted,
  treesOf: () => readonly Tree[],
): Promise<LiveBlock | 'fixed' | undefined> {
  for (;;) {
    engine.assertAlive();
    const owners = ownersNow(engine, { vbn, tag, owners: treesOf(), isShared: false });
    if (owners === 'fixed') return owners;
    if (owners === 'load' || owners === 'load-reference') await loadLack(engine, owners);
    else return owners.length === 0 ? undefined : { vbn, tag, owners, isShared: false };
  }
}

/** What a synchronous look has missed. */
export type Lack = 'load' | 'load-reference';

export function loadLack(engine: Engine, lack: Lack): Promise<void> {
  const { loader, trees } = engine;
  if (lack === 'load-reference') return engine.loadReference();
  return loader.loadMeta(trees.missVbn, trees.missCrc);
}

/** Of the trees, those that name the block now; for this synchronous step. */
export function ownersNow(engine: Engine, block: LiveBlock): Tree[] | 'fixed' | Lack {
  const owners: Tree[] = [];
  for (const tree of block.owners) {
    if (tree.gone) continue;
    const named = ownedAs(engine, tree, block.vbn, block.tag);
    if (named === 'load' || named === 'load-reference') return named;
    if (named === 'none') continue;
    if (named === 'shared' || !mayRenew(tree)) return 'fixed';
    owners.push(tree);
  }
  return owners.length > OWNERS_MAX ? 'fixed' : owners;
}

/** Loads what the looks will need, many blocks at once: a level of the trees at a time. */
async function loadPlaces(
  engine: Engine,
  wanted: readonly Wanted[],
  treesOf: (tag: BlockTag) => readonly Tree[],
): Promise<void> {
  for (let start = 0; start < wanted.length; start += PLACES_AT_ONCE) {
    const some = wanted.slice(start, start + PLACES_AT_ONCE);
    for (let level = HEIGHT_MAX; level >= 0; level--) {
      engine.assertAlive();
      const misses = new Map<number, number>();
      for (const { vbn, tag } of some) {
        for (const tree of treesOf(tag)) {
          if (namedAs(engine.trees, tree, vbn, tag) !== 'load') continue;
          misses.set(engine.trees.missVbn, engine.trees.missCrc);
        }
      }
      if (misses.size === 0) break;
      await Promise.all([...misses].map(([vbn, crc]) => engine.loader.loadMeta(vbn, crc)));
    }
  }
}
