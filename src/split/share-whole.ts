/**
 * Filling by sharing whole indirect blocks: where a range of the clone is one hole, the backing
 * store's pointer to all that stands there is put in its place, at the highest level there is.
 *
 * 1. Only a backing store that stands alone gives whole blocks: no hole in them leads further down.
 *    What the read-through limit cuts in two is copied, so its block is no part of a whole one.
 * 2. With the shared flag of its root pointer, what the backing store names becomes nobody's in
 *    particular. It must not have shared any block one by one before: those are known as its own.
 *    If it has, only what it shares whole already is shared whole again.
 * 3. How many blocks that is must be counted, for the clone's counters; not if it is all.
 * 4. The look and the pointer are one synchronous step: a client's write always wins.
 */
import { BLOCK_BYTES, FIELDS_PER_BLOCK, SPAN_BLOCKS } from '../base/units.js';
import { FLAG_FILLED, FLAG_IN_MEMORY, FLAG_SHARED, vbnAt, ZERO_VBN } from '../layout/pointer.js';
import { WALK_HOLE, WALK_MISS } from '../store/buffer-tree.js';
import type { Reservation } from '../store/reservation.js';
import type { Tree } from '../store/tree.js';
import { countData, hasShared, pointerAt } from '../vdisk/subtree.js';
import type { SplitParts } from './special-load.js';

export interface WholeShare {
  /** Data blocks; 0 too if the clone had the pointer already. */
  readonly blocks: number;
  readonly isNew: boolean;
  /** Level and VBN of the block. */
  readonly level: number;
  readonly vbn: number;
  /** First FBN behind what was shared. */
  readonly nextFbn: number;
}

/** What is known of the backing store, beyond the step in which it was found. */
interface Known {
  /** Data blocks beneath a block, by its VBN. */
  readonly counts: Map<number, number>;
  /** No pointer of the backing store is shared; undefined: not looked at yet. */
  isPlain: boolean | undefined;
}

/** A block whose data blocks must be counted first. */
interface Uncounted {
  readonly level: number;
  readonly pointer: Uint32Array;
}

type Lack = 'load' | 'dirty' | 'plain' | Uncounted;

/**
 * Shares what begins at this FBN, as much as one pointer names.
 * @returns undefined if nothing can be shared whole here
 */
export async function shareWhole(
  parts: SplitParts,
  task: WholeTask,
): Promise<WholeShare | undefined> {
  const { clone } = task;
  const { backing } = clone;
  if (backing === undefined || task.fbn % FIELDS_PER_BLOCK !== 0) return undefined;
  const isOver = (): boolean => task.isOver() || clone.backing !== backing || clone.gone;
  // A merge would move what is being counted.
  backing.holds++;
  try {
    return await untilShared(parts, { ...task, backing, isOver });
  } finally {
    backing.holds--;
  }
}

export interface WholeTask {
  readonly clone: Tree;
  readonly fbn: number;
  readonly reservation?: Reservation | undefined;
  /** Only look: nothing is shared, and nothing is made placed for it. */
  readonly isPlan?: boolean;
  /** Nobody wants it any more. */
  readonly isOver: () => boolean;
}

interface Place extends WholeTask {
  readonly backing: Tree;
}

async function untilShared(parts: SplitParts, place: Place): Promise<WholeShare | undefined> {
  const { engine } = parts;
  const { isOver } = place;
  const known: Known = { counts: new Map(), isPlain: undefined };
  while (!isOver()) {
    engine.assertAlive();
    const step = shareNow(parts, place, known);
    if (step === undefined) return undefined;
    if (step === 'load') {
      await engine.loader.loadMeta(engine.trees.missVbn, engine.trees.missCrc);
    } else if (step === 'dirty') {
      if (place.isPlan === true) return undefined;
      await engine.consistencyPoint();
    } else if (step === 'plain') {
      known.isPlain = !(await hasShared(engine, place.backing));
    } else if ('pointer' in step) {
      const blocks = await countData(engine, step.pointer, step.level, isOver);
      if (blocks !== undefined) known.counts.set(vbnAt(step.pointer, 0), blocks);
    } else {
      return step;
    }
  }
  return undefined;
}

/**
 * Takes a block back that was shared whole here and that the backing store names, too.
 * @returns undefined if there is none
 */
export async function takeBackWhole(
  parts: SplitParts,
  task: WholeTask,
): Promise<WholeShare | undefined> {
  const { engine } = parts;
  const { clone, isOver } = task;
  const { backing } = clone;
  if (backing === undefined) return undefined;
  const known: Known = { counts: new Map(), isPlain: undefined };
  while (!isOver() && clone.backing === backing) {
    engine.assertAlive();
    const step = takeBackNow(parts, { ...task, backing }, known);
    if (step === undefined) return undefined;
    if (step === 'load') {
      await engine.loader.loadMeta(engine.trees.missVbn, engine.trees.missCrc);
    } else if (step === 'load-reference') {
      await engine.loadReference();
    } else if (step === 'wait') {
      await engine.consistencyPoint();
    } else if ('pointer' in step) {
      const blocks = await countData(engine, step.pointer, step.level, isOver);
      if (blocks !== undefined) known.counts.set(vbnAt(step.pointer, 0), blocks);
    } else {
      return step;
    }
  }
  return undefined;
}

function takeBackNow(
  parts: SplitParts,
  place: Place,
  known: Known,
): WholeShare | Uncounted | 'load' | 'load-reference' | 'wait' | undefined {
  const { engine, resolver } = parts;
  const { clone, backing, fbn } = place;
  const { trees, generation } = engine;
  if (trees.walk(clone, fbn) === WALK_MISS) return 'load';
  const same = alreadyShared(parts, place, trees.sharedLevel);
  if (typeof same !== 'object' || !('vbn' in same)) return same === 'load' ? 'load' : undefined;
  const { level, vbn, nextFbn } = same;
  const own = pointerAt(engine, clone, fbn, level);
  if (typeof own === 'string' || !isBelowLimit(clone, backing, nextFbn)) return undefined;
  if (((own.pointer[1] as number) & FLAG_FILLED) === 0) return undefined;
  const names = engine.namesOf(vbn);
  if (typeof names === 'string') return names === 'load' ? 'load-reference' : 'wait';
  const blocks = known.counts.get(vbn);
  if (blocks === undefined) return { level, pointer: own.pointer };
  engine.pool.makeFree(2 * clone.height + 4);
  const isRoot = level === clone.height;
  const cost = isRoot ? 0 : trees.pathCost(clone, fbn, generation.number);
  if (cost < 0) return 'load';
  if (!engine.medium.hasRoom({ dataBlocks: 0, metaBlocks: cost + 6 }, 'merge')) return undefined;
  trees.putSubtree(clone, fbn, level, new Uint32Array(4), generation);
  generation.freeShared(clone.ownerOfBlocks, vbn);
  clone.mappedBlocks -= blocks;
  clone.sharedBlocks -= blocks;
  resolver.dropRanges(fbn / FIELDS_PER_BLOCK, nextFbn / FIELDS_PER_BLOCK);
  return { ...same, blocks };
}

/** The highest block that can be shared. */
interface Candidate {
  readonly level: number;
  readonly pointer: Uint32Array;
  readonly isBeneathShared: boolean;
  /** It is the backing store's alone so far: the root must get the flag. */
  readonly isPlain: boolean;
}

function shareNow(parts: SplitParts, place: Place, known: Known): WholeShare | Lack | undefined {
  const { engine } = parts;
  const { clone, backing, fbn } = place;
  if (!givesWhole(backing) || clone.state === 'dying' || fbn >= clone.capacityFbn) return undefined;
  const found = engine.trees.walk(clone, fbn);
  if (found === WALK_MISS) return 'load';
  if (found !== WALK_HOLE) return alreadyShared(parts, place, engine.trees.sharedLevel);
  const mayFlag = mayFlagRoot(parts, backing, known);
  const candidate = findCandidate(parts, place, engine.trees.level, mayFlag !== false);
  if (candidate === undefined || typeof candidate === 'string') return candidate;
  const { level, pointer, isPlain } = candidate;
  // A dirty root would lose the flag when it is placed, and what it leads to is not all placed.
  if (isPlain && ((backing.root[1] as number) & FLAG_IN_MEMORY) !== 0) return 'dirty';
  if (isPlain && mayFlag === undefined) return 'plain';
  const blocks = countOf(parts, backing, candidate, known);
  if (blocks === undefined) return { level, pointer };
  const root = { level: backing.height, pointer: backing.root.slice() };
  const all = isPlain ? countOf(parts, backing, root, known) : 0;
  if (all === undefined) return root;
  const nextFbn = fbn + (SPAN_BLOCKS[level] as number);
  const done = { blocks, isNew: true, level, vbn: vbnAt(pointer, 0), nextFbn };
  if (place.isPlan === true) return done;
  engine.pool.makeFree(2 * clone.height + 4);
  const isRoot = level === clone.height;
  const cost = isRoot ? 0 : engine.trees.pathCost(clone, fbn, engine.generation.number);
  if (cost < 0) return 'load';
  const demand = { dataBlocks: 0, metaBlocks: cost + 6 };
  if (!engine.hasRoomWith(place.reservation, demand)) return undefined;
  if (isPlain) flagRoot(parts, backing, all);
  put(parts, place, candidate, blocks);
  return done;
}

/** True if something of the tree's backing store may be shared whole. */
export function mayShareWhole(clone: Tree): boolean {
  return clone.backing !== undefined && givesWhole(clone.backing);
}

/** True if the tree has all that its holes could lead to, and keeps it. */
function givesWhole(backing: Tree): boolean {
  return backing.backing === undefined && !backing.isExternal && backing.goneBelowFbn === 0;
}

/** A range that was shared whole before, and not written since, has no hole to be filled. */
function alreadyShared(
  { engine }: SplitParts,
  { clone, backing, fbn }: Place,
  level: number,
): WholeShare | Lack | undefined {
  const span = SPAN_BLOCKS[level] as number;
  if (level === 0 || level > backing.height || fbn % span !== 0) return undefined;
  const own = pointerAt(engine, clone, fbn, level);
  const theirs = pointerAt(engine, backing, fbn, level);
  if (own === 'load' || theirs === 'load') return 'load';
  if (own === 'dirty' || theirs === 'dirty') return undefined;
  if (vbnAt(own.pointer, 0) !== vbnAt(theirs.pointer, 0)) return undefined;
  const vbn = vbnAt(own.pointer, 0);
  return { blocks: 0, isNew: false, level, vbn, nextFbn: fbn + span };
}

/** False if names of the backing store are counted as its own; undefined if that is not known. */
function mayFlagRoot({ engine }: SplitParts, backing: Tree, known: Known): boolean | undefined {
  const id = backing.ownerOfBlocks;
  if (backing.sharedBlocks !== 0 || engine.generation.countsFor(id)) return false;
  if (engine.frozenGeneration?.countsFor(id) === true) return false;
  return engine.sharesIndirect ? known.isPlain : true;
}

function findCandidate(
  { engine }: SplitParts,
  { clone, backing, fbn }: Place,
  holeLevel: number,
  mayFlag: boolean,
): Candidate | 'load' | 'dirty' | undefined {
  for (let level = Math.min(holeLevel, backing.height); level >= 1; level--) {
    if (fbn % (SPAN_BLOCKS[level] as number) !== 0) continue;
    if (!isBelowLimit(clone, backing, fbn + (SPAN_BLOCKS[level] as number))) continue;
    const found = pointerAt(engine, backing, fbn, level);
    if (typeof found === 'string') return found;
    const { pointer, isBeneathShared } = found;
    if (vbnAt(pointer, 0) <= ZERO_VBN) return undefined;
    const isPlain = !isBeneathShared && ((pointer[1] as number) & FLAG_SHARED) === 0;
    if (!isPlain || mayFlag) return { level, pointer, isBeneathShared, isPlain };
  }
  return undefined;
}

/** True if the clone reads all of what the backing store has up to this FBN. */
function isBelowLimit(clone: Tree, backing: Tree, endFbn: number): boolean {
  const limit = clone.readThroughLimitBytes;
  if (endFbn * BLOCK_BYTES <= limit) return true;
  return limit >= backing.sizeBytes && backing.sizeBytes % BLOCK_BYTES === 0;
}

/** Data blocks beneath the backing store's block; undefined if they have to be counted. */
function countOf(
  { engine }: SplitParts,
  backing: Tree,
  { level, pointer }: Uncounted,
  known: Known,
): number | undefined {
  const counted = known.counts.get(vbnAt(pointer, 0));
  if (counted !== undefined || level < backing.height) return counted;
  // The tree's own counter is that of its root, but for what was cut out of it and not freed yet.
  for (const tree of engine.table.all()) {
    if (tree.countedById === backing.id && !tree.gone) return undefined;
  }
  return backing.mappedBlocks;
}

/** From here on no block beneath the root is known as the backing store's own. */
function flagRoot({ engine, resolver }: SplitParts, backing: Tree, blocks: number): void {
  engine.trees.noteDirty(backing, engine.generation);
  backing.root[1] = ((backing.root[1] as number) | FLAG_SHARED) >>> 0;
  backing.sharedBlocks = blocks;
  resolver.clear();
}

function put(
  { engine }: SplitParts,
  { clone, backing, fbn }: Place,
  { level, pointer, isBeneathShared, isPlain }: Candidate,
  blocks: number,
): void {
  const { generation } = engine;
  const isOwn = !isBeneathShared && !(isPlain && level < backing.height);
  generation.lend(vbnAt(pointer, 0), isOwn ? backing.ownerOfBlocks : 0, clone.ownerOfBlocks);
  const own = pointer.slice();
  own[1] = ((own[1] as number) | FLAG_FILLED | FLAG_SHARED) >>> 0;
  engine.trees.putSubtree(clone, fbn, level, own, generation);
  clone.mappedBlocks += blocks;
  clone.sharedBlocks += blocks;
  engine.sharesIndirect = true;
  engine.changed();
}
