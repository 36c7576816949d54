/**
 * Merges a deleted snapshot's tree into the one tree over it; nothing is copied.
 *
 * One level-1 range (or a whole untouched subtree) at a time, in one synchronous step of one
 * generation: holes of the tree above adopt the source's pointers, what is hidden is freed, and the
 * source's part is gone (`goneBelowFbn`).
 *
 * 1. It begins when the source is durable: a flushed write that only the log has would be lost with
 *    the source's fields.
 * 2. It waits for whoever holds the source: diffs, exports, splits that fill from or into it.
 * 3. The tree above leaves the source only after a consistency point that holds every adoption.
 * 4. Of a shared block only a whole adoption moves the name; where the tree above needs less or
 *    more, the source first gets a copy of its own, durably (merge-shared.ts).
 * 5. It does not begin while the tree above is split; once it has begun, a split waits for its end,
 *    so that nobody else reads what was half taken over.
 */
import { StoreError } from '../base/store-error.js';
import { BLOCK_BYTES, FIELDS_PER_BLOCK } from '../base/units.js';
import type { LogEntry } from '../layout/log-entry.js';
import { FLAG_FILLED, FLAG_IN_MEMORY, POINTER_WORDS, vbnAt, ZERO_VBN } from '../layout/pointer.js';
import { WALK_FIELD, WALK_HOLE, WALK_MISS, WALK_ZERO } from '../store/buffer-tree.js';
import type { Engine } from '../store/engine.js';
import type { Tree } from '../store/tree.js';
import { treeEntry } from './acts.js';
import { untilDurable } from './free-job.js';
import { type Counted, mergeShared } from './merge-shared.js';
import { holeLevel, isCountedAbove, type Merge, type MergeStep, pass } from './merge-step.js';
import type { Resolver } from './resolution.js';
import { hasShared, pointerAt } from './subtree.js';

const SLICE_RANGES = 64;

type Stop = () => boolean;

/**
 * True if the source may be merged now. A tree that is itself partly merged away takes nothing in:
 * nobody looks below its `goneBelowFbn` any more.
 */
export function mayMerge(source: Tree, above: Tree): boolean {
  return (
    source.overCount === 1 &&
    source.holds === 0 &&
    source.split === undefined &&
    (above.split === undefined || isMerging(source)) &&
    above.goneBelowFbn === 0
  );
}

/** True if a merge of this tree into the one over it has begun. */
export function isMerging(source: Tree): boolean {
  return source.state === 'deleting' && source.goneBelowFbn > 0;
}

/**
 * Merges the source into the tree above it. Returns early when stopped or no longer allowed.
 * @returns the tree above, if the source is gone
 */
export async function mergeDown(
  engine: Engine,
  resolver: Resolver,
  source: Tree,
  isStopped: Stop,
): Promise<Tree | undefined> {
  await untilDurable(engine, source);
  const [above] = source.over();
  if (above === undefined) return undefined;
  const mayShare = engine.sharesIndirect && (await hasShared(engine, source));
  const merge: Merge = { engine, resolver, source, above, mayShare };
  const counted: Counted = { vbn: 0, blocks: 0 };
  let ranges = 0;
  while (source.goneBelowFbn < source.capacityFbn) {
    if (isStopped() || !mayMerge(source, above)) return undefined;
    engine.assertAlive();
    engine.pool.makeFree(4 * above.height + 8);
    let step = mergeRange(merge, source.goneBelowFbn);
    if (step === 'mask') step = await mergeMasked(merge, source.goneBelowFbn);
    if (step === 'shared') step = await mergeShared(merge, source.goneBelowFbn, counted, isStopped);
    if (step === 'load') {
      await engine.loader.loadMeta(engine.trees.missVbn, engine.trees.missCrc);
    } else if (step === 'space') {
      if (!(await makeSpace(engine))) return undefined;
    } else if (step === 'done') {
      engine.changed();
      if (++ranges % SLICE_RANGES === 0) await engine.options.clock.yield();
    }
  }
  return (await release(merge, isStopped)) ? above : undefined;
}

/** False if there is none to be made: the merge goes on when somebody has deleted something. */
async function makeSpace(engine: Engine): Promise<boolean> {
  if (!engine.hasBufferRoom) {
    await engine.bufferRoom();
    return true;
  }
  if (!engine.hasPendingFrees) return false;
  await engine.consistencyPoint();
  return true;
}

/** True if a merge into this tree would find room, or could make some. */
export function hasMergeRoom(engine: Engine, above: Tree): boolean {
  if (engine.hasPendingFrees) return true;
  return engine.medium.hasRoom({ dataBlocks: 1, metaBlocks: 2 * above.height }, 'merge');
}

async function release(merge: Merge, isStopped: Stop): Promise<boolean> {
  const { engine, source, above, resolver } = merge;
  // What is left of its count is that of trees further down, which it had taken over. The log says
  // nothing of counts: this one has to be durable before the source goes.
  engine.trees.noteDirty(above, engine.generation);
  engine.trees.noteDirty(source, engine.generation);
  above.mappedBlocks += source.mappedBlocks;
  source.mappedBlocks = 0;
  // Every adoption must be durable before the log can say that the source is not read any more.
  await engine.consistencyPoint();
  // A split or a reader may have come meanwhile; then the job comes back to this later.
  if (isStopped() || source.gone || !mayMerge(source, above)) return false;
  engine.assertAlive();
  engine.trees.noteDirty(above, engine.generation);
  above.readThroughLimitBytes = Math.min(above.readThroughLimitBytes, source.readThroughLimitBytes);
  above.backing = source.backing;
  // Nothing is left to fill.
  if (above.backing === undefined) above.split = undefined;
  // An act after this may rely on it that the source reads through nothing any more, such as the
  // deletion of what was below: the log says it first, and leaves an empty tree to be freed.
  const emptied: LogEntry = {
    kind: 'tree',
    record: { ...source.toRecord(), root: [0, 0, 0, 0], state: 'dying', backingId: 0 },
  };
  engine.generation.units.push([treeEntry(above), emptied]);
  engine.trees.noteDirty(source, engine.generation);
  source.root.fill(0);
  engine.removeTree(source);
  resolver.clear();
  engine.changed();
  return true;
}

/** Moves the cursor of the source on by one range or subtree. */
function mergeRange(merge: Merge, fbn: number): MergeStep {
  const { engine, source, above } = merge;
  const { trees } = engine;
  trees.noteDirty(source, engine.generation);
  const found = trees.walk(source, fbn);
  if (found === WALK_MISS) return 'load';
  if (trees.sharedLevel > 0) return 'shared';
  const level = found === WALK_FIELD ? 1 : trees.level;
  if (found === WALK_HOLE) return pass(merge, fbn, level, level + 1);
  if (fbn * BLOCK_BYTES >= above.readThroughLimitBytes && found === WALK_ZERO) {
    return pass(merge, fbn, level, level + 1);
  }
  const whole = wholeLevel(merge, fbn, found === WALK_ZERO ? level : source.height);
  if (whole === -1) return 'load';
  if (whole > 0) return adoptSubtree(merge, fbn, whole);
  return mergeFields(merge, fbn, found === WALK_ZERO);
}

/**
 * The highest level at which the tree above has nothing at all here, so that it can adopt the
 * source's pointer for the whole subtree; 0 if there is none, -1 if something is not loaded.
 */
function wholeLevel(merge: Merge, fbn: number, levelMax: number): number {
  const { engine, source } = merge;
  // The reference file keeps owners by tree: blocks it knows are moved one by one.
  if (source.sharedBlocks !== 0 || hasPendingShares(engine)) return 0;
  // Where no data is left a shared pointer may still be.
  return holeLevel(merge, fbn, merge.mayShare ? 1 : levelMax);
}

/** True if there are shares that no tree's counter knows of yet. */
function hasPendingShares(engine: Engine): boolean {
  return engine.generation.hasNewNames || engine.frozenGeneration?.hasNewNames === true;
}

function adoptSubtree(merge: Merge, fbn: number, level: number): MergeStep {
  const { engine, source, above } = merge;
  const found = pointerAt(engine, source, fbn, level);
  if (typeof found === 'string') return 'load';
  const cost = 2 * above.height;
  if (!engine.medium.hasRoom({ dataBlocks: 0, metaBlocks: cost }, 'merge')) return 'space';
  if (level < above.height && engine.trees.pathCost(above, fbn, engine.generation.number) < 0) {
    return 'load';
  }
  engine.trees.putSubtree(above, fbn, level, found.pointer, engine.generation);
  // Nobody knows how many blocks hang on it: from here on the tree above counts what is left of the
  // source too (`isCountedAbove`), so that a TRIM of what it adopted never takes away too many.
  above.mappedBlocks += source.mappedBlocks;
  source.mappedBlocks = 0;
  return pass(merge, fbn, level, level + 1);
}

/** One level-1 range, field by field. */
function mergeFields(merge: Merge, fbn: number, isZero: boolean): MergeStep {
  const { engine, above } = merge;
  const { trees, generation } = engine;
  if (fbn >= above.capacityFbn || fbn * BLOCK_BYTES >= above.readThroughLimitBytes) {
    return hideAll(merge, fbn, isZero);
  }
  if (!engine.hasBufferRoom) return 'space';
  const cost = trees.pathCost(above, fbn, generation.number);
  if (cost < 0) return 'load';
  if (maskedFbn(merge, fbn, isZero) !== undefined) return 'mask';
  if (!engine.medium.hasRoom({ dataBlocks: 0, metaBlocks: cost }, 'merge')) return 'space';
  const from = sourceFields(merge, fbn, isZero);
  trees.dirtyPath(above, fbn, generation);
  const words = trees.fieldWords;
  const start = trees.fieldAt;
  for (let index = 0; index < FIELDS_PER_BLOCK; index++) {
    const at = start + index * POINTER_WORDS;
    const theirs = from.subarray(index * POINTER_WORDS, (index + 1) * POINTER_WORDS);
    const vbn = vbnAt(theirs, 0);
    if (vbn === 0) continue;
    // Zeros are zeros on both sides of the limit; of data only a whole block can be adopted.
    const end = vbn === ZERO_VBN ? fbn + index : fbn + index + 1;
    const isBelow = end * BLOCK_BYTES <= above.readThroughLimitBytes;
    const isHole = (words[at] as number) === 0 && (words[at + 1] as number) === 0;
    if (isHole && isBelow) adoptField(merge, words, at, theirs, vbn);
    else {
      keepChange(words, at, theirs);
      if (vbn > ZERO_VBN) hideField(merge, vbn);
    }
  }
  return pass(merge, fbn, 1, isZero ? levelAbove(merge, fbn) : 1);
}

function levelAbove(merge: Merge, fbn: number): number {
  const found = merge.engine.trees.walk(merge.source, fbn);
  return found === WALK_FIELD ? 1 : merge.engine.trees.level + 1;
}

function adoptField(
  merge: Merge,
  words: Uint32Array,
  at: number,
  theirs: Uint32Array,
  vbn: number,
): void {
  const { engine, source, above } = merge;
  words.set(theirs, at);
  if (vbn <= ZERO_VBN) return;
  if (!isCountedAbove(merge)) {
    source.mappedBlocks--;
    above.mappedBlocks++;
  }
  if (source.sharedBlocks === 0 && !hasPendingShares(engine)) return;
  engine.generation.move(vbn, source.ownerOfBlocks, above.ownerOfBlocks);
}

/**
 * A split had filled the field with what the source's clients had put there: beside what lies below
 * the source that is a change, and no fill.
 */
function keepChange(words: Uint32Array, at: number, theirs: Uint32Array): void {
  const high = words[at + 1] as number;
  const isFill = ((theirs[1] as number) & FLAG_FILLED) !== 0;
  if ((high & FLAG_FILLED) !== 0 && !isFill) words[at + 1] = (high & ~FLAG_FILLED) >>> 0;
}

function hideField(merge: Merge, vbn: number): void {
  const { engine, source, above } = merge;
  if (isCountedAbove(merge)) {
    engine.trees.noteDirty(above, engine.generation);
    above.mappedBlocks--;
  } else {
    source.mappedBlocks--;
  }
  engine.generation.freeData(source.ownerOfBlocks, vbn);
}

/** The source's fields of the range, as they stand; zeros of an upper pointer written out. */
function sourceFields(merge: Merge, fbn: number, isZero: boolean): Uint32Array {
  const { trees } = merge.engine;
  if (isZero) {
    const words = new Uint32Array(FIELDS_PER_BLOCK * POINTER_WORDS);
    for (let at = 0; at < words.length; at += POINTER_WORDS) words[at] = ZERO_VBN;
    return words;
  }
  trees.walk(merge.source, fbn);
  return trees.fieldWords.slice(trees.fieldAt, trees.fieldAt + FIELDS_PER_BLOCK * POINTER_WORDS);
}

/** Nothing above can see this range: its blocks are freed. */
function hideAll(merge: Merge, fbn: number, isZero: boolean): MergeStep {
  if (isZero) return pass(merge, fbn, 1, levelAbove(merge, fbn));
  const from = sourceFields(merge, fbn, false);
  for (let at = 0; at < from.length; at += POINTER_WORDS) {
    const vbn = vbnAt(from, at);
    if (vbn > ZERO_VBN) hideField(merge, vbn);
  }
  return pass(merge, fbn, 1, 1);
}

/** The block of the range in which the limit lies, if the tree above reads it from the source. */
function maskedFbn(merge: Merge, fbn: number, isZero: boolean): number | undefined {
  const { engine, above } = merge;
  const limit = above.readThroughLimitBytes;
  const cut = Math.floor(limit / BLOCK_BYTES);
  if (isZero || limit % BLOCK_BYTES === 0 || cut < fbn || cut >= fbn + FIELDS_PER_BLOCK) {
    return undefined;
  }
  const theirs = sourceFields(merge, fbn, false);
  if (vbnAt(theirs, (cut - fbn) * POINTER_WORDS) <= ZERO_VBN) return undefined;
  const found = engine.trees.walk(above, cut);
  if (found !== WALK_FIELD) return found === WALK_HOLE ? cut : undefined;
  const { fieldWords, fieldAt } = engine.trees;
  const isBuffer = ((fieldWords[fieldAt + 1] as number) & FLAG_IN_MEMORY) !== 0;
  return !isBuffer && vbnAt(fieldWords, fieldAt) === 0 ? cut : undefined;
}

/** Gives the tree above a block of its own where the limit cuts one of the source's in two. */
async function mergeMasked(merge: Merge, fbn: number): Promise<MergeStep> {
  const { engine, source, above } = merge;
  const cut = maskedFbn(merge, fbn, false);
  if (cut === undefined) return 'mask';
  const fields = sourceFields(merge, fbn, false);
  const at = (cut - fbn) * POINTER_WORDS;
  const bytes = new Uint8Array(BLOCK_BYTES);
  const vbn = vbnAt(fields, at);
  const bad = await engine.loader.readData(vbn, [bytes], [fields[at + 2] as number]);
  if (bad >= 0) {
    throw new StoreError(
      'corrupt',
      `tree ${source.id}, block ${cut}: VBN ${vbn} does not have the checksum of its pointer`,
    );
  }
  engine.pool.makeFree(2 * above.height + 4);
  // The read let others run: is it still a hole?
  if (maskedFbn(merge, fbn, false) !== cut) return 'mask';
  const cost = engine.trees.pathCost(above, cut, engine.generation.number);
  if (cost < 0) return 'load';
  if (!engine.medium.hasRoom({ dataBlocks: 1, metaBlocks: cost }, 'merge')) return 'space';
  bytes.fill(0, above.readThroughLimitBytes - cut * BLOCK_BYTES);
  engine.trees.dirtyPath(above, cut, engine.generation);
  const buffer = engine.pool.take();
  engine.pool.bytes(buffer).set(bytes);
  engine.trees.putData(above, buffer, engine.generation, false);
  return 'mask';
}
