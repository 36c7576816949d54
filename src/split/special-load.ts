/**
 * The special loading function: unlike the ordinary load, which reads through holes, it looks for
 * them. It loads the vdisk's level-1 buffer and the backing store's, searches the fields of the one
 * for holes, and names for each the block that the corresponding field of the other leads to.
 *
 * It takes messages from the backdoor (split-jobs.ts): there is no client behind them.
 */
import { BLOCK_BYTES, FIELDS_PER_BLOCK } from '../base/units.js';
import {
  FLAG_IN_MEMORY,
  FLAG_SHARED,
  HOLE_VBN,
  POINTER_WORDS,
  vbnAt,
  ZERO_VBN,
} from '../layout/pointer.js';
import { WALK_FIELD, WALK_HOLE, WALK_MISS } from '../store/buffer-tree.js';
import type { Engine } from '../store/engine.js';
import type { Tree } from '../store/tree.js';
import { emptyUntil } from '../vdisk/block-status.js';
import type { Reader } from '../vdisk/reader.js';
import { FLAG_EXTERNAL, type Missing, type Resolver } from '../vdisk/resolution.js';

export interface SplitParts {
  readonly engine: Engine;
  readonly reader: Reader;
  readonly resolver: Resolver;
}

/** A hole of the vdisk and what the backing store has there. */
export interface Hole {
  /** Index of the field in its level-1 buffer. */
  readonly index: number;
  /** The backing store's block; 0 while it is a dirty buffer without VBN, and if it is external. */
  readonly vbn: number;
  /** The bytes stand outside of the store. */
  readonly isExternal: boolean;
  /** A copy of that buffer's bytes: it may be another block's when they are wanted. */
  readonly bytes: Uint8Array | undefined;
  readonly crc: number;
  /** Bytes of the block that count; behind them are zeros. */
  readonly validBytes: number;
}

export interface HolesOfRange {
  readonly holes: readonly Hole[];
  /** First FBN that the answer does not speak of: beyond it lies the next range with work. */
  readonly nextFbn: number;
}

/** Fields of one level-1 buffer: the work of one fill. */
export interface Fields {
  /** FBN of the first field of the buffer. */
  readonly base: number;
  /** Index of the first that is meant, and of the one behind the last. */
  readonly first: number;
  readonly end: number;
}

/** The fields of [from, end) by the level-1 buffers that they are in. */
export function* fieldsOf(from: number, end: number): Generator<Fields> {
  for (let fbn = from; fbn < end; ) {
    const first = fbn % FIELDS_PER_BLOCK;
    const base = fbn - first;
    const last = Math.min(FIELDS_PER_BLOCK, end - base);
    yield { base, first, end: last };
    fbn = base + last;
  }
}

/** Loads what is needed and lists the holes among the fields. */
export async function loadHoles(
  parts: SplitParts,
  clone: Tree,
  fields: Fields,
): Promise<HolesOfRange> {
  for (;;) {
    parts.engine.assertAlive();
    const found = findHoles(parts, clone, fields);
    if ('holes' in found) return found;
    await parts.reader.loadAll(found.missing);
  }
}

type Found = HolesOfRange | { readonly missing: readonly Missing[] };

/** One synchronous look at the fields of both level-1 buffers. */
function findHoles(parts: SplitParts, clone: Tree, fields: Fields): Found {
  const { engine, resolver } = parts;
  const { trees } = engine;
  const backing = clone.backing;
  const fbn = fields.base;
  const endOfRange = fbn + FIELDS_PER_BLOCK;
  if (backing === undefined) return { holes: [], nextFbn: endOfRange };
  const found = trees.walk(clone, fbn);
  if (found === WALK_MISS) return { missing: [{ vbn: trees.missVbn, crc: trees.missCrc }] };
  if (found !== WALK_FIELD && found !== WALK_HOLE) {
    const span = 256 ** trees.level;
    return { holes: [], nextFbn: (Math.floor(fbn / span) + 1) * span };
  }
  const own = found === WALK_FIELD ? trees.fieldWords : undefined;
  const start = trees.fieldAt;
  const resolution = resolver.resolve(backing, fbn / FIELDS_PER_BLOCK);
  if (resolution === undefined) return { missing: resolver.missing.slice() };
  if (resolution.dataCount === 0) {
    const next =
      found === WALK_HOLE ? emptyUntil(engine, resolver.externals, clone, fbn) : endOfRange;
    return { holes: [], nextFbn: Math.max(endOfRange, alignUp(next)) };
  }
  const holes: Hole[] = [];
  for (let index = fields.first; index < fields.end; index++) {
    if (own !== undefined && !isHoleField(own, start + index * POINTER_WORDS)) continue;
    const left = clone.readThroughLimitBytes - (fbn + index) * BLOCK_BYTES;
    if (left <= 0) break;
    const at = index * POINTER_WORDS;
    const words = resolution.words;
    const isBuffer = ((words[at + 1] as number) & FLAG_IN_MEMORY) !== 0;
    const isExternal = ((words[at + 1] as number) & FLAG_EXTERNAL) !== 0;
    const vbn = isBuffer ? 0 : vbnAt(words, at);
    if (!isBuffer && !isExternal && vbn <= ZERO_VBN) continue;
    const masked = resolution.masked?.get(index) ?? BLOCK_BYTES;
    holes.push({
      index,
      vbn,
      isExternal,
      bytes: isBuffer ? Uint8Array.from(engine.pool.bytes(words[at] as number)) : undefined,
      crc: words[at + 2] as number,
      validBytes: Math.min(BLOCK_BYTES, left, masked),
    });
  }
  return { holes, nextFbn: fbn + fields.end };
}

/** True if the field stores the invalid pointer that represents a hole, and no dirty buffer. */
export function isHoleField(words: Uint32Array, at: number): boolean {
  return ((words[at + 1] as number) & FLAG_IN_MEMORY) === 0 && vbnAt(words, at) === HOLE_VBN;
}

/** The tree and everything it reads through, by depth. */
export function lineageOf(tree: Tree): Tree[] {
  const trees: Tree[] = [];
  for (let at: Tree | undefined = tree; at !== undefined; at = at.backing) trees.push(at);
  return trees;
}

/** Whose block the reference file knows it as: 0 beneath a shared pointer. */
export function ownerAt(lineage: readonly Tree[], words: Uint32Array, at: number): number {
  if (((words[at + 1] as number) & FLAG_SHARED) !== 0) return 0;
  return (lineage[words[at + 3] as number] as Tree).ownerOfBlocks;
}

function alignUp(fbn: number): number {
  return Number.isFinite(fbn) ? Math.ceil(fbn / FIELDS_PER_BLOCK) * FIELDS_PER_BLOCK : fbn;
}
