/**
 * The difference between two points of one vdisk's history: what the later trees hold. Nothing is
 * compared, so it costs what was changed. Blocks that a split filled in are no change.
 */
import { StoreError } from '../base/store-error.js';
import { BLOCK_BYTES } from '../base/units.js';
import { FLAG_FILLED, FLAG_IN_MEMORY, HOLE_VBN, vbnAt, ZERO_VBN } from '../layout/pointer.js';
import { WALK_FIELD, WALK_MISS, WALK_ZERO } from '../store/buffer-tree.js';
import type { Engine } from '../store/engine.js';
import type { Tree } from '../store/tree.js';
import { PIECE_BLOCKS } from './external-store.js';
import { type Externals, hasBit, type MissingPresence } from './externals.js';

export interface DiffExtent {
  readonly offset: number;
  readonly length: number;
  readonly kind: 'data' | 'zero';
}

/** Blocks between two yields. */
const SLICE_BLOCKS = 16384;

/** The trees that hold what changed after `from`, newest first. @throws {StoreError} invalid */
function changedTrees(from: Tree | undefined, to: Tree, names: [string, string]): Tree[] {
  const trees: Tree[] = [];
  for (let tree: Tree | undefined = to; tree !== from; tree = tree.backing) {
    if (tree === undefined) {
      throw new StoreError('invalid', `${names[0]} is not in the past of ${names[1]}`);
    }
    trees.push(tree);
  }
  return trees;
}

/**
 * Extents that clients changed between `from` (exclusive; undefined: the beginning) and `to`. While
 * it runs no tree between them is merged away.
 */
export async function* diffTrees(
  { engine, externals }: { readonly engine: Engine; readonly externals: Externals },
  from: Tree | undefined,
  to: Tree,
  names: [string, string],
): AsyncGenerator<DiffExtent> {
  const trees = changedTrees(from, to, names);
  const held = from === undefined ? trees : [...trees, from];
  for (const tree of held) tree.holds++;
  try {
    let extent: DiffExtent | undefined;
    const end = Math.ceil(to.sizeBytes / BLOCK_BYTES);
    for (let fbn = 0, looked = 0; fbn < end; ) {
      const look = lookAt(engine, externals, trees, fbn, from === undefined);
      if (look === 'load') {
        await engine.loader.loadMeta(engine.trees.missVbn, engine.trees.missCrc);
        engine.assertAlive();
        continue;
      }
      if ('external' in look) {
        await externals.loadPresence(look);
        engine.assertAlive();
        continue;
      }
      const offset = fbn * BLOCK_BYTES;
      const length = Math.min(look.until * BLOCK_BYTES, to.sizeBytes) - offset;
      if (look.kind !== extent?.kind || extent.offset + extent.length !== offset) {
        if (extent !== undefined) yield extent;
        extent = look.kind === 'same' ? undefined : { offset, length, kind: look.kind };
      } else {
        extent = { ...extent, length: extent.length + length };
      }
      fbn = look.until;
      if (++looked % SLICE_BLOCKS === 0) await engine.options.clock.yield();
    }
    if (extent !== undefined) yield extent;
  } finally {
    for (const tree of held) tree.holds--;
  }
}

interface Look {
  readonly kind: 'same' | 'data' | 'zero';
  /** First FBN that the answer does not speak of. */
  readonly until: number;
}

function lookAt(
  engine: Engine,
  externals: Externals,
  trees: readonly Tree[],
  fbn: number,
  isWhole: boolean,
): Look | MissingPresence | 'load' {
  const walker = engine.trees;
  let until = Number.POSITIVE_INFINITY;
  for (const tree of trees) {
    if (tree.isExternal) return lookOutside(externals, tree, fbn, until);
    const found = walker.walk(tree, fbn);
    if (found === WALK_MISS) return 'load';
    if (found === WALK_FIELD) {
      until = fbn + 1;
      const high = walker.fieldWords[walker.fieldAt + 1] as number;
      const isBuffer = (high & FLAG_IN_MEMORY) !== 0;
      const vbn = vbnAt(walker.fieldWords, walker.fieldAt);
      const isHole = !isBuffer && vbn === HOLE_VBN;
      // Filled: the bytes of the backing store, so what that changed counts. Since the beginning,
      // they are content like any.
      const isFilled = !isHole && (walker.filledAbove || (high & FLAG_FILLED) !== 0);
      if (isFilled && !isWhole) continue;
      if (!isHole) return { kind: !isBuffer && vbn === ZERO_VBN ? 'zero' : 'data', until };
    }
    if (found !== WALK_FIELD && fbn < tree.capacityFbn) {
      const span = 256 ** walker.level;
      const end = (Math.floor(fbn / span) + 1) * span;
      // What was merged away is one hole, whatever level the walk ended at.
      until = Math.min(until, fbn < tree.goneBelowFbn ? Math.max(end, tree.goneBelowFbn) : end);
    }
    if (found === WALK_ZERO) {
      if (walker.filledAbove && !isWhole) continue;
      return { kind: 'zero', until };
    }
    if (fbn * BLOCK_BYTES >= tree.readThroughLimitBytes) {
      // Beyond the limit nothing older shows: it reads as zeros since the vdisk was cut here.
      return {
        kind: tree.backing === undefined ? 'same' : 'zero',
        until: Math.max(fbn + 1, until),
      };
    }
    const limit = tree.readThroughLimitBytes;
    if (limit < Math.min((fbn + 1) * BLOCK_BYTES, tree.sizeBytes)) {
      // The vdisk was cut within this block: a part of it is the older one's, the rest zeros.
      return { kind: 'data', until: fbn + 1 };
    }
    const limitFbn = Math.floor(limit / BLOCK_BYTES);
    until = Math.min(until, Math.max(fbn + 1, limitFbn));
  }
  return { kind: 'same', until };
}

/** The image of an external tree is content since the beginning, where it has data. */
function lookOutside(
  externals: Externals,
  external: Tree,
  fbn: number,
  until: number,
): Look | MissingPresence {
  const piece = Math.floor(fbn / PIECE_BLOCKS);
  const bits = externals.presenceOf(external, piece);
  if (bits === undefined) return { external, piece };
  if (fbn * BLOCK_BYTES < external.sizeBytes && hasBit(bits, fbn)) {
    return { kind: 'data', until: fbn + 1 };
  }
  return { kind: 'same', until: Math.min(until, externals.emptyUntil(external, fbn)) };
}
