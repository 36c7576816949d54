/**
 * Exact figures that take a walk over level-1 blocks (no data is read): what a vdisk reads through,
 * and what deleting it would give back.
 */
import { BLOCK_BYTES, FIELDS_PER_BLOCK, SPAN_BLOCKS } from '../base/units.js';
import { FLAG_IN_MEMORY, POINTER_WORDS, vbnAt, ZERO_VBN } from '../layout/pointer.js';
import { WALK_FIELD, WALK_MISS } from '../store/buffer-tree.js';
import type { Engine } from '../store/engine.js';
import { alignDown, type Tree } from '../store/tree.js';
import { SOURCE_MISS, SOURCE_ZERO } from './block-source.js';
import { emptyUntil } from './block-status.js';
import type { Reader } from './reader.js';
import { sharedAbove } from './subtree.js';

export interface ScanReport {
  /** Bytes that the vdisk reads from its backing stores. */
  readonly readThroughBytes: number;
  /** Bytes of data that nobody would name if the vdisk were deleted. */
  readonly givesBackBytes: number;
}

const SLICE_BLOCKS = 16384;

export interface ScanParts {
  readonly engine: Engine;
  readonly reader: Reader;
}

/** What several counts may look at together; what one pointer calls empty counts as one. */
export interface LooksLeft {
  blocks: number;
}

export async function scanTree(parts: ScanParts, tree: Tree): Promise<ScanReport> {
  const { engine } = parts;
  tree.holds++;
  try {
    const everything = { blocks: Number.POSITIVE_INFINITY };
    const readThrough = (await countReadThrough(parts, tree, tree, everything)) ?? 0;
    const givesBack = tree.overCount === 0 ? await countExclusive(engine, tree) : 0;
    return {
      readThroughBytes: readThrough * BLOCK_BYTES,
      givesBackBytes: givesBack * BLOCK_BYTES,
    };
  } finally {
    tree.holds--;
  }
}

/**
 * Blocks that the tree reads from `through` or from what lies below that; of `through` itself, what
 * it reads from below. The caller holds the tree. Undefined: it has let go of `through`, or there
 * is more to look at than is left.
 */
export async function countReadThrough(
  { engine, reader }: ScanParts,
  tree: Tree,
  through: Tree,
  left: LooksLeft,
): Promise<number | undefined> {
  const end = Math.ceil(tree.sizeBytes / BLOCK_BYTES);
  const { source } = reader;
  let count = 0;
  let looked = 0;
  let depth = depthOf(through, tree);
  source.begin();
  for (let fbn = 0; fbn < end; ) {
    if (depth === undefined || left.blocks <= 0) return undefined;
    const found = source.find(tree, fbn);
    if (found === SOURCE_MISS) {
      await reader.loadAll(source.missing.slice());
    } else {
      if (found !== SOURCE_ZERO && source.isHole && source.depth >= depth) count++;
      fbn = found === SOURCE_ZERO ? emptyUntil(engine, reader.externals, tree, fbn) : fbn + 1;
      left.blocks--;
      if (++looked % SLICE_BLOCKS !== 0) continue;
      await engine.options.clock.yield();
    }
    // Others ran: a merge may have taken a tree out of the lineage, or a delete the tree itself.
    engine.assertAlive();
    depth = depthOf(through, tree);
    source.begin();
  }
  return depth === undefined ? undefined : count;
}

/** How many trees lie from `head` down to `tree`; undefined: `head` does not read through it. */
function depthOf(tree: Tree, head: Tree): number | undefined {
  let depth = 0;
  for (let at: Tree | undefined = head; at !== undefined; at = at.backing) {
    if (at === tree) return depth;
    depth++;
  }
  return undefined;
}

/** Data blocks that this tree alone names: no entry in the reference file, nor one above. */
async function countExclusive(engine: Engine, tree: Tree): Promise<number> {
  let count = 0;
  for (let fbn = 0, looked = 0; fbn < tree.capacityFbn; ) {
    const found = engine.trees.walk(tree, fbn);
    if (found === WALK_MISS) {
      await engine.loader.loadMeta(engine.trees.missVbn, engine.trees.missCrc);
      continue;
    }
    const { sharedLevel } = engine.trees;
    const shared = sharedLevel > 0 ? await sharedAbove(engine, tree, fbn, sharedLevel) : 0;
    // Looking into the reference file may have let the path leave memory.
    if (sharedLevel > 0 && engine.trees.walk(tree, fbn) !== found) continue;
    if (shared > 0) {
      fbn = alignDown(fbn, shared) + (SPAN_BLOCKS[shared] as number);
    } else if (found !== WALK_FIELD) {
      fbn = (Math.floor(fbn / 256 ** engine.trees.level) + 1) * 256 ** engine.trees.level;
    } else {
      count += await countFields(engine, tree, fbn);
      fbn += FIELDS_PER_BLOCK;
    }
    if (++looked % 256 === 0) await engine.options.clock.yield();
    engine.assertAlive();
  }
  return count;
}

async function countFields(engine: Engine, tree: Tree, fbn: number): Promise<number> {
  engine.trees.walk(tree, fbn);
  const at = engine.trees.fieldAt;
  const words = engine.trees.fieldWords.slice(at, at + FIELDS_PER_BLOCK * POINTER_WORDS);
  let count = 0;
  for (let field = 0; field < words.length; field += POINTER_WORDS) {
    if (((words[field + 1] as number) & FLAG_IN_MEMORY) !== 0) {
      count++;
      continue;
    }
    const vbn = vbnAt(words, field);
    if (vbn > ZERO_VBN && !(await engine.isShared(vbn))) count++;
  }
  return count;
}
