/**
 * Filling the holes among the fields of one level-1 buffer.
 *
 * copy:  the backing store's blocks are loaded and dirtied without altering their content
 *        (`fakeDirty`): the ordinary write allocator chooses new VBNs, sets their bits and
 *        writes them; then each new pointer goes into the vdisk's field.
 * share: the field gets the backing store's own pointer, and the reference file one more owner;
 *        where the block is plain, share-plain.ts has done that already.
 *
 * 1. Whether the field still is a hole, without a dirty buffer, is asked in the same synchronous
 *    step that puts the pointer there: a client's write always wins.
 * 2. The backing store's own block is never freed here.
 * 3. A block of zeros becomes a zero pointer: it takes no space, and it never reads through.
 * 4. A block only partly below the read-through limit is copied, its rest zeros, in either mode;
 *    and so is a block of an external backing store: there is nothing that could be shared. No
 *    pointer vouches for its bytes, so its checksum is made here.
 * 5. What is put here has the filled flag: it is no change of the vdisk's content.
 */
import { crc32, isAllZero, ZERO_BLOCK_CRC } from '../base/checksum.js';
import { isStoreError } from '../base/store-error.js';
import { BLOCK_BYTES, FIELDS_PER_BLOCK } from '../base/units.js';
import type { BlockTag } from '../layout/log-record.js';
import {
  FLAG_FILLED,
  FLAG_IN_MEMORY,
  POINTER_WORDS,
  putPointer,
  vbnAt,
  ZERO_VBN,
} from '../layout/pointer.js';
import type { SplitMode } from '../layout/tree-record.js';
import type { Reservation } from '../store/reservation.js';
import type { Tree } from '../store/tree.js';
import { ExternalError } from '../vdisk/external-store.js';
import type { BackingReads } from './backing-reads.js';
import { type SharedPart, sharePlain } from './share-plain.js';
import {
  type Fields,
  type Hole,
  isHoleField,
  lineageOf,
  loadHoles,
  ownerAt,
  type SplitParts,
} from './special-load.js';

export type FillOutcome =
  | {
      readonly kind: 'filled';
      readonly nextFbn: number;
      readonly blocks: number;
      readonly bad: number[];
    }
  | { readonly kind: 'no-space' }
  /** The external backing store cannot be read now. */
  | { readonly kind: 'unreadable'; readonly reason: string };

/** A new pointer for a hole. */
interface NewPointer {
  readonly index: number;
  readonly vbn: number;
  readonly crc: number;
  /** placed: written for this. shared: the backing store's own. zero: no block. */
  readonly kind: 'placed' | 'shared' | 'zero';
}

const NONE_SHARED: SharedPart = { blocks: 0, isDone: false };

/** What one fill is about. */
export interface FillTask {
  readonly clone: Tree;
  readonly mode: SplitMode;
  readonly fields: Fields;
  readonly reads: BackingReads;
  /** Others fill from the same reads: each block is read once. */
  readonly isShared: boolean;
  /** Space that is set aside for it. */
  readonly reservation: Reservation | undefined;
}

/** Fills the holes among the fields; a share fills those of the whole buffer. */
export async function fillFields(parts: SplitParts, task: FillTask): Promise<FillOutcome> {
  // Waiting for buffers with a hold could wait for itself: a consistency point ends after the hold.
  // The few indirect blocks that a range makes dirty may go over the bound.
  if (!parts.engine.hasBufferRoom) await parts.engine.bufferRoom();
  // The VBNs of the backing store that are named here must stay what they are until it is done.
  const letGo = parts.engine.loader.hold();
  try {
    const { clone, mode, fields, reservation } = task;
    const { base } = fields;
    const isShare = mode === 'share';
    const shared = isShare ? await sharePlain(parts, clone, base, reservation) : NONE_SHARED;
    const { blocks } = shared;
    if (shared.isDone) return { kind: 'filled', nextFbn: base + FIELDS_PER_BLOCK, blocks, bad: [] };
    for (;;) {
      const outcome = await fillOnce(parts, task);
      if (outcome === 'again') continue;
      return outcome.kind === 'filled' ? { ...outcome, blocks: outcome.blocks + blocks } : outcome;
    }
  } catch (error) {
    if (!(error instanceof ExternalError)) throw error;
    return { kind: 'unreadable', reason: error.message };
  } finally {
    letGo();
  }
}

async function fillOnce(parts: SplitParts, task: FillTask): Promise<FillOutcome | 'again'> {
  const { clone, mode, reads } = task;
  const fbn = task.fields.base;
  const { holes, nextFbn } = await loadHoles(parts, clone, task.fields);
  if (holes.length === 0) return { kind: 'filled', nextFbn, blocks: 0, bad: [] };
  const pointers: NewPointer[] = [];
  const copies: Hole[] = [];
  for (const hole of holes) {
    const isSharable = mode === 'share' && hole.vbn !== 0 && hole.validBytes === BLOCK_BYTES;
    // The checksum of a block of zeros tells where to look; only the bytes tell for sure.
    if (isSharable && hole.crc !== ZERO_BLOCK_CRC) {
      pointers.push({ index: hole.index, vbn: hole.vbn, crc: hole.crc, kind: 'shared' });
    } else {
      copies.push(hole);
    }
  }
  const isCopied = parts.engine.medium.copiesBlocks && !task.isShared;
  const toLoad = isCopied ? copies.filter((hole) => !isPlain(hole)) : copies;
  // First what may throw, then what is placed.
  const loaded = await reads.load(parts, clone, fbn, toLoad);
  if (isCopied) {
    const damaged = await copyPlain(parts, task, copies.filter(isPlain), pointers);
    if (damaged === undefined) return { kind: 'no-space' };
    const again = await reads.load(parts, clone, fbn, damaged);
    for (const [index, bytes] of again) loaded.set(index, bytes);
    toLoad.push(...damaged);
  }
  const bad = toLoad.filter((hole) => loaded.get(hole.index) === undefined);
  if (!(await fakeDirty(parts, task, toLoad, loaded, pointers))) {
    abandonAll(parts, pointers);
    return { kind: 'no-space' };
  }
  const blocks = await putPointers(parts, task, pointers);
  if (blocks === 'again') return 'again';
  if (blocks === undefined) return { kind: 'no-space' };
  return {
    kind: 'filled',
    nextFbn,
    blocks,
    bad: bad.map((hole) => fbn + hole.index).sort((a, b) => a - b),
  };
}

/**
 * Dirties plain blocks where nobody else needs their bytes: the medium loads each, verifies it, and
 * writes it where the write allocator placed it anew.
 * @returns the holes whose blocks something is wrong with; undefined if there is no room
 */
async function copyPlain(
  parts: SplitParts,
  task: FillTask,
  holes: readonly Hole[],
  pointers: NewPointer[],
): Promise<readonly Hole[] | undefined> {
  if (holes.length === 0) return [];
  const { engine } = parts;
  const { medium } = engine;
  const sources = holes.map(({ vbn }) => vbn);
  const crcs = holes.map(({ crc }) => crc);
  const placed = await placeWithRoom(parts, task, holes.length, () =>
    medium.placeCopies(sources, crcs),
  );
  if (placed === undefined) return undefined;
  const left = await placed.written.catch((error: unknown) => {
    throw engine.fail(error);
  });
  task.reads.blocksRead += holes.length - left.size;
  holes.forEach(({ index, crc }, at) => {
    const vbn = placed.vbns[at] as number;
    if (left.has(at)) medium.abandon(vbn, 'data');
    else pointers.push({ index, vbn, crc, kind: 'placed' });
  });
  return holes.filter((_, at) => left.has(at));
}

/** A block on the medium that is copied as it is; one of zeros takes none. */
function isPlain({ vbn, bytes, crc, validBytes }: Hole): boolean {
  return vbn !== 0 && bytes === undefined && validBytes === BLOCK_BYTES && crc !== ZERO_BLOCK_CRC;
}

/** Dirties the loaded blocks without altering them: the write allocator places each anew. */
async function fakeDirty(
  parts: SplitParts,
  { clone, fields, reservation }: FillTask,
  holes: readonly Hole[],
  loaded: ReadonlyMap<number, Uint8Array>,
  pointers: NewPointer[],
): Promise<boolean> {
  const { engine } = parts;
  const blocks: Uint8Array[] = [];
  const tags: BlockTag[] = [];
  const indexes: number[] = [];
  for (const hole of holes) {
    const bytes = loaded.get(hole.index);
    if (bytes === undefined) continue;
    const isWhole = hole.validBytes === BLOCK_BYTES;
    const content = isWhole ? bytes : maskedCopy(bytes, hole.validBytes);
    if (isAllZero(content)) {
      pointers.push({ index: hole.index, vbn: ZERO_VBN, crc: 0, kind: 'zero' });
      continue;
    }
    // The content is what its pointer's checksum confirmed: it is not summed again.
    const crc = isWhole && hole.vbn !== 0 ? hole.crc : crc32(content);
    indexes.push(hole.index);
    blocks.push(content);
    tags.push({ treeId: clone.id, fbn: fields.base + hole.index, level: 0, crc, kind: 'data' });
  }
  if (blocks.length === 0) return true;
  const placed = await placeWithRoom(parts, { clone, reservation }, blocks.length, () =>
    engine.medium.place('data', blocks, tags),
  );
  if (placed === undefined) return false;
  const { vbns, written } = placed;
  await written.catch((error: unknown) => {
    throw engine.fail(error);
  });
  vbns.forEach((vbn, at) => {
    const { crc } = tags[at] as BlockTag;
    pointers.push({ index: indexes[at] as number, vbn, crc, kind: 'placed' });
  });
  return true;
}

/** Places so many blocks when there is room for them; undefined: there is none. */
async function placeWithRoom<T>(
  { engine }: SplitParts,
  { clone, reservation }: Pick<FillTask, 'clone' | 'reservation'>,
  dataBlocks: number,
  place: () => T,
): Promise<T | undefined> {
  const demand = { dataBlocks, metaBlocks: 2 * clone.height };
  for (;;) {
    engine.assertAlive();
    if (!engine.hasRoomWith(reservation, demand)) return undefined;
    // From here to the placing nothing awaits: others take of what is ready, too.
    if (engine.medium.isReady('data', dataBlocks)) {
      const placed = place();
      reservation?.placed(dataBlocks);
      return placed;
    }
    try {
      await engine.medium.prepare('data', dataBlocks);
    } catch (error) {
      if (isStoreError(error, 'out-of-space')) return undefined;
      throw engine.fail(error);
    }
  }
}

function maskedCopy(bytes: Uint8Array, validBytes: number): Uint8Array {
  const copy = new Uint8Array(BLOCK_BYTES);
  copy.set(bytes.subarray(0, validBytes));
  return copy;
}

/**
 * Puts the new pointers where holes still are, in one synchronous step.
 * @returns the number of holes filled; undefined if there was no room for the indirect blocks;
 *   'again' if a merge has moved the backing store's pointers meanwhile
 */
async function putPointers(
  parts: SplitParts,
  { clone, fields, reservation }: FillTask,
  pointers: readonly NewPointer[],
): Promise<number | 'again' | undefined> {
  const { engine } = parts;
  const fbn = fields.base;
  const { trees, pool } = engine;
  let isDone = false;
  try {
    for (;;) {
      engine.assertAlive();
      if (clone.state === 'dying' || clone.backing === undefined) return 0;
      // Shrunk meanwhile: an indirect block behind the end would belong to nobody.
      if (fbn * BLOCK_BYTES >= clone.readThroughLimitBytes) return 0;
      pool.makeFree(2 * clone.height + 4);
      const cost = trees.pathCost(clone, fbn, engine.generation.number);
      if (cost < 0) {
        await engine.loader.loadMeta(trees.missVbn, trees.missCrc);
      } else if (!engine.hasRoomWith(reservation, { dataBlocks: 0, metaBlocks: cost + 4 })) {
        return undefined;
      } else {
        const owners = ownersNow(parts, clone, fbn, pointers);
        if (owners === undefined) return 'again';
        isDone = true;
        return putNow(parts, clone, fbn, pointers, owners);
      }
    }
  } finally {
    if (!isDone) abandonAll(parts, pointers);
  }
}

function abandonAll(parts: SplitParts, pointers: readonly NewPointer[]): void {
  for (const { vbn, kind } of pointers) {
    if (kind === 'placed') parts.engine.medium.abandon(vbn, 'data');
  }
}

/**
 * Whose blocks the shared pointers name, now; undefined if one of them is not what the backing
 * store has any more, or cannot be told without loading.
 */
function ownersNow(
  parts: SplitParts,
  clone: Tree,
  fbn: number,
  pointers: readonly NewPointer[],
): Map<number, number> | undefined {
  const owners = new Map<number, number>();
  if (!pointers.some(({ kind }) => kind === 'shared')) return owners;
  const { backing } = clone;
  if (backing === undefined) return undefined;
  const resolution = parts.resolver.resolve(backing, fbn / FIELDS_PER_BLOCK);
  if (resolution === undefined) return undefined;
  const lineage = lineageOf(backing);
  for (const { index, vbn, kind } of pointers) {
    if (kind !== 'shared') continue;
    const at = index * POINTER_WORDS;
    const isBuffer = ((resolution.words[at + 1] as number) & FLAG_IN_MEMORY) !== 0;
    if (isBuffer || vbnAt(resolution.words, at) !== vbn) return undefined;
    owners.set(index, ownerAt(lineage, resolution.words, at));
  }
  return owners;
}

function putNow(
  parts: SplitParts,
  clone: Tree,
  fbn: number,
  pointers: readonly NewPointer[],
  owners: ReadonlyMap<number, number>,
): number {
  const { engine } = parts;
  const { trees, medium, generation } = engine;
  trees.dirtyPath(clone, fbn, generation);
  const words = trees.fieldWords;
  const start = trees.fieldAt;
  let filled = 0;
  for (const { index, vbn, crc, kind } of pointers) {
    const at = start + index * POINTER_WORDS;
    const isInside = (fbn + index) * BLOCK_BYTES < clone.readThroughLimitBytes;
    // Loading let others run: ask again. From here to the pointer nothing awaits (rule 1).
    if (!isInside || !isHoleField(words, at)) {
      if (kind === 'placed') medium.abandon(vbn, 'data');
      continue;
    }
    putPointer(words, at, vbn, crc, FLAG_FILLED);
    filled++;
    if (kind === 'zero') continue;
    clone.mappedBlocks++;
    if (kind === 'placed') medium.adopt(vbn, 'data', generation);
    else {
      const ownerId = owners.get(index) ?? 0;
      generation.share({ vbn, blocks: 1, ownerId, withId: clone.ownerOfBlocks });
    }
  }
  engine.changed();
  return filled;
}
