/**
 * Filling by sharing, where the backing store's block is plain: whole, placed, and not of zeros.
 * Nothing has to be read, so a level-1 range is looked at and changed in one synchronous step: what
 * was a hole is one when the pointer goes there, and a client's write always wins.
 */
import { ZERO_BLOCK_CRC } from '../base/checksum.js';
import { BLOCK_BYTES, FIELDS_PER_BLOCK } from '../base/units.js';
import {
  FLAG_FILLED,
  FLAG_IN_MEMORY,
  POINTER_WORDS,
  putPointer,
  vbnAt,
  ZERO_VBN,
} from '../layout/pointer.js';
import { REFERENCE_ENTRIES_PER_BLOCK } from '../layout/reference-entry.js';
import { WALK_FIELD, WALK_HOLE, WALK_MISS } from '../store/buffer-tree.js';
import type { Reservation } from '../store/reservation.js';
import type { Tree } from '../store/tree.js';
import { FLAG_EXTERNAL, type Missing } from '../vdisk/resolution.js';
import { isHoleField, lineageOf, ownerAt, type SplitParts } from './special-load.js';

export interface SharedPart {
  readonly blocks: number;
  /** No hole of the range is left that the backing store has something for. */
  readonly isDone: boolean;
}

interface MissingBlocks {
  readonly missing: readonly Missing[];
}

const NOTHING: SharedPart = { blocks: 0, isDone: false };

/** Shares the plain blocks of the level-1 range that begins at `fbn`. The others are left. */
export async function sharePlain(
  parts: SplitParts,
  clone: Tree,
  fbn: number,
  reservation: Reservation | undefined,
): Promise<SharedPart> {
  for (;;) {
    parts.engine.assertAlive();
    const part = shareNow(parts, clone, fbn, reservation);
    if ('blocks' in part) return part;
    await parts.reader.loadAll(part.missing);
  }
}

function shareNow(
  parts: SplitParts,
  clone: Tree,
  fbn: number,
  reservation: Reservation | undefined,
): SharedPart | MissingBlocks {
  const { engine } = parts;
  const { trees, generation } = engine;
  const { backing } = clone;
  if (backing === undefined || clone.state === 'dying') return NOTHING;
  if (fbn * BLOCK_BYTES >= clone.readThroughLimitBytes) return NOTHING;
  engine.pool.makeFree(2 * clone.height + 4);
  const cost = trees.pathCost(clone, fbn, generation.number);
  if (cost < 0) return { missing: [{ vbn: trees.missVbn, crc: trees.missCrc }] };
  const source = sourceOf(parts, backing, fbn);
  if (source === undefined) return NOTHING;
  if ('missing' in source) return source;
  const { plain, others, references } = findPlain(parts, clone, fbn, source);
  if (plain.length === 0) return { blocks: 0, isDone: false };
  const metaBlocks = cost + references + 4;
  if (!engine.hasRoomWith(reservation, { dataBlocks: 0, metaBlocks })) return NOTHING;
  put(parts, clone, fbn, plain, source);
  return { blocks: plain.length, isDone: others === 0 };
}

/** What the backing store has in the range, for this synchronous step. */
interface Source {
  /** Pointers from `start` on; the fourth word is the depth of the tree whose block it is. */
  readonly words: Uint32Array;
  readonly start: number;
  readonly masked: ReadonlyMap<number, number> | undefined;
  /** All of it; else each pointer says it. */
  readonly isBeneathShared: boolean;
}

/** Undefined if there is nothing. */
function sourceOf(
  { engine, resolver }: SplitParts,
  backing: Tree,
  fbn: number,
): Source | MissingBlocks | undefined {
  const { trees } = engine;
  if (backing.backing === undefined) {
    // It alone has blocks there: its level-1 block is what a resolution would be a copy of.
    const found = trees.walk(backing, fbn);
    if (found === WALK_MISS) return { missing: [{ vbn: trees.missVbn, crc: trees.missCrc }] };
    if (found !== WALK_FIELD) return undefined;
    const { fieldWords: words, fieldAt: start, sharedLevel } = trees;
    return { words, start, masked: undefined, isBeneathShared: sharedLevel > 0 };
  }
  const resolution = resolver.resolve(backing, fbn / FIELDS_PER_BLOCK);
  if (resolution === undefined) return { missing: resolver.missing.slice() };
  if (resolution.dataCount === 0) return undefined;
  const { words, masked } = resolution;
  return { words, start: 0, masked, isBeneathShared: false };
}

interface PlainHoles {
  /** Indexes of the fields. */
  readonly plain: readonly number[];
  /** Holes for which the backing store has something else. */
  readonly others: number;
  /** Blocks of the reference file that the plain ones are in, at most. */
  readonly references: number;
}

function findPlain(
  parts: SplitParts,
  clone: Tree,
  fbn: number,
  { words, start: from, masked }: Source,
): PlainHoles {
  const { trees } = parts.engine;
  const plain: number[] = [];
  let others = 0;
  let references = 0;
  let reference = -1;
  const found = trees.walk(clone, fbn);
  if (found !== WALK_FIELD && found !== WALK_HOLE) return { plain, others, references };
  const own = found === WALK_FIELD ? trees.fieldWords : undefined;
  const start = trees.fieldAt;
  const limit = clone.readThroughLimitBytes / BLOCK_BYTES - fbn;
  for (let index = 0; index < FIELDS_PER_BLOCK && index < limit; index++) {
    const at = from + index * POINTER_WORDS;
    if (own !== undefined && !isHoleField(own, start + index * POINTER_WORDS)) continue;
    const isBuffer = ((words[at + 1] as number) & FLAG_IN_MEMORY) !== 0;
    const vbn = vbnAt(words, at);
    if (((words[at + 1] as number) & FLAG_EXTERNAL) !== 0) {
      others++;
      continue;
    }
    if (!isBuffer && vbn <= ZERO_VBN) continue;
    const isWhole = index + 1 <= limit && masked?.has(index) !== true;
    // The checksum of a block of zeros tells where to look; only the bytes tell for sure.
    if (isBuffer || !isWhole || words[at + 2] === ZERO_BLOCK_CRC) {
      others++;
      continue;
    }
    plain.push(index);
    const fbnOfReference = Math.floor(vbn / REFERENCE_ENTRIES_PER_BLOCK);
    if (fbnOfReference === reference) continue;
    reference = fbnOfReference;
    references++;
  }
  return { plain, others, references };
}

/** Nothing is awaited since the fields were looked at. */
function put(
  parts: SplitParts,
  clone: Tree,
  fbn: number,
  plain: readonly number[],
  { words, start: from, isBeneathShared }: Source,
): void {
  const { engine } = parts;
  const { trees, generation } = engine;
  const lineage = lineageOf(clone.backing as Tree);
  const withId = clone.ownerOfBlocks;
  trees.dirtyPath(clone, fbn, generation);
  const own = trees.fieldWords;
  const start = trees.fieldAt;
  let first = 0;
  let blocks = 0;
  let ownerId = 0;
  for (const index of plain) {
    const at = from + index * POINTER_WORDS;
    const vbn = vbnAt(words, at);
    putPointer(own, start + index * POINTER_WORDS, vbn, words[at + 2] as number, FLAG_FILLED);
    const owner = isBeneathShared ? 0 : ownerAt(lineage, words, at);
    if (blocks > 0 && vbn === first + blocks && owner === ownerId) {
      blocks++;
      continue;
    }
    if (blocks > 0) generation.share({ vbn: first, blocks, ownerId, withId });
    first = vbn;
    blocks = 1;
    ownerId = owner;
  }
  generation.share({ vbn: first, blocks, ownerId, withId });
  clone.mappedBlocks += plain.length;
  engine.changed();
}
