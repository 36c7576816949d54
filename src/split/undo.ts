/**
 * Undoing a split that has not ended: what it filled becomes holes again, and the space comes back.
 *
 * 1. A field is emptied only if it has the filled flag and, in the same synchronous step, the
 *    backing store names a block with the same checksum there: otherwise what was filled may be all
 *    that is left of it, and it stays.
 *    Zeros stay, too, where another tree reads through this one.
 * 2. What was shared whole, and is named by both still, is taken back whole.
 * 3. The position is durable with the holes before it; after a crash the rest is undone.
 */
import { ZERO_BLOCK_CRC } from '../base/checksum.js';
import { BLOCK_BYTES, FIELDS_PER_BLOCK, SPAN_BLOCKS } from '../base/units.js';
import {
  FLAG_FILLED,
  FLAG_IN_MEMORY,
  HOLE_VBN,
  POINTER_WORDS,
  vbnAt,
  ZERO_VBN,
} from '../layout/pointer.js';
import { WALK_FIELD, WALK_MISS } from '../store/buffer-tree.js';
import type { Tree } from '../store/tree.js';
import { FLAG_EXTERNAL, type Missing, type Resolution } from '../vdisk/resolution.js';
import { takeBackWhole } from './share-whole.js';
import { isHoleField, type SplitParts } from './special-load.js';

/** Level-1 ranges between two yields. */
const SLICE_RANGES = 16;
const RETRY_MS = 1000;

/** Empties what was filled. Returns early if `isStopped` says so. */
export async function undoFills(
  parts: SplitParts,
  tree: Tree,
  isStopped: () => boolean,
  onEmptied: (blocks: number) => void,
): Promise<void> {
  const { engine } = parts;
  const { split } = tree;
  let ranges = 0;
  for (;;) {
    engine.assertAlive();
    if (isStopped() || split === undefined || tree.split !== split || tree.gone) return;
    const fbn = split.positionFbn;
    if (fbn * BLOCK_BYTES >= tree.sizeBytes) return;
    const isOver = (): boolean => isStopped() || tree.split !== split || tree.gone;
    const whole = await takeBackWhole(parts, { clone: tree, fbn, isOver });
    if (split.positionFbn !== fbn || isOver()) continue;
    const step = whole ?? undoRange(parts, tree, fbn);
    if (step === 'space') await moreSpace(parts);
    else if (step === 'room') await engine.bufferRoom();
    else if ('missing' in step) await parts.reader.loadAll(step.missing);
    else {
      engine.trees.noteDirty(tree, engine.generation);
      split.positionFbn = step.nextFbn;
      onEmptied(step.blocks);
      engine.changed();
      if (++ranges % SLICE_RANGES === 0) await engine.options.clock.yield();
    }
  }
}

/** What the undo has freed comes back with a consistency point; else somebody has to delete. */
async function moreSpace({ engine }: SplitParts): Promise<void> {
  if (engine.hasPendingFrees) await engine.consistencyPoint();
  else await new Promise<void>((resolve) => engine.options.clock.setTimer(RETRY_MS, resolve));
}

type Step =
  | 'space'
  | 'room'
  | { readonly missing: readonly Missing[] }
  | { readonly nextFbn: number; readonly blocks: number };

/** The level-1 range that begins at `fbn`, in one synchronous step. */
function undoRange(parts: SplitParts, tree: Tree, fbn: number): Step {
  const { engine, resolver } = parts;
  const { trees, generation } = engine;
  const range = Math.floor(fbn / FIELDS_PER_BLOCK);
  const nextFbn = (range + 1) * FIELDS_PER_BLOCK;
  const { backing } = tree;
  const found = trees.walk(tree, fbn);
  if (found === WALK_MISS) return { missing: [{ vbn: trees.missVbn, crc: trees.missCrc }] };
  if (found !== WALK_FIELD) {
    const span = SPAN_BLOCKS[trees.level] as number;
    return { nextFbn: (Math.floor(fbn / span) + 1) * span, blocks: 0 };
  }
  if (backing === undefined) return { nextFbn, blocks: 0 };
  const { fieldWords, fieldAt, filledAbove } = trees;
  if (!hasFilled(fieldWords, fieldAt, filledAbove)) return { nextFbn, blocks: 0 };
  if (!engine.hasBufferRoom) return 'room';
  const resolution = resolver.resolve(backing, range);
  if (resolution === undefined) return { missing: resolver.missing.slice() };
  engine.pool.makeFree(2 * tree.height + 4);
  const cost = trees.pathCost(tree, fbn, generation.number);
  if (cost < 0) return { missing: [{ vbn: trees.missVbn, crc: trees.missCrc }] };
  if (!engine.medium.hasRoom({ dataBlocks: 0, metaBlocks: cost + 4 }, 'merge')) return 'space';
  trees.dirtyPath(tree, fbn, generation);
  const blocks = emptyFields(parts, tree, fbn, resolution);
  // Clones of this tree may have learnt where its blocks were.
  resolver.dropRanges(range, range + 1);
  return { nextFbn, blocks };
}

function hasFilled(words: Uint32Array, start: number, filledAbove: boolean): boolean {
  for (let index = 0; index < FIELDS_PER_BLOCK; index++) {
    const at = start + index * POINTER_WORDS;
    if (isHoleField(words, at)) continue;
    if (filledAbove || ((words[at + 1] as number) & FLAG_FILLED) !== 0) return true;
  }
  return false;
}

/** Empties what may be emptied of the fields that dirtyPath left. */
function emptyFields(parts: SplitParts, tree: Tree, fbn: number, from: Resolution): number {
  const { trees, generation } = parts.engine;
  const words = trees.fieldWords;
  const start = trees.fieldAt;
  let blocks = 0;
  for (let index = 0; index < FIELDS_PER_BLOCK; index++) {
    const at = start + index * POINTER_WORDS;
    const end = (fbn + index + 1) * BLOCK_BYTES;
    const isFilled = ((words[at + 1] as number) & FLAG_FILLED) !== 0;
    if (!isFilled || end > tree.readThroughLimitBytes) continue;
    // A split of what reads through this tree may have passed them: a block would come too late.
    if (tree.overCount > 0 && vbnAt(words, at) === ZERO_VBN) continue;
    if (!isSame(words, at, from, index)) continue;
    if (trees.letGoField(tree, words, at, generation)) tree.mappedBlocks--;
    words.fill(0, at, at + POINTER_WORDS);
    words[at] = HOLE_VBN;
    blocks++;
  }
  return blocks;
}

/** True if the backing store surely gives what the filled field does. */
function isSame(words: Uint32Array, at: number, from: Resolution, index: number): boolean {
  const source = index * POINTER_WORDS;
  const flags = from.words[source + 1] as number;
  if (from.masked?.has(index) === true) return false;
  // What stands outside of the store never changes.
  if ((flags & FLAG_EXTERNAL) !== 0) return true;
  if ((flags & FLAG_IN_MEMORY) !== 0 || vbnAt(from.words, source) <= ZERO_VBN) return false;
  const isZero = vbnAt(words, at) === ZERO_VBN;
  const crc = isZero ? ZERO_BLOCK_CRC : (words[at + 2] as number);
  return from.words[source + 2] === crc;
}
