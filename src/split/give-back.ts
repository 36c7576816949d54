/**
 * What a deletion would give back once a split has let go of what is deleted: exact, by a walk over
 * level-1 buffers and a look into the reference file. No block of data is read.
 *
 * - What nobody else reads through dies, and so do deleted trees below that only it holds.
 * - What one other tree reads through is merged into that one, and what that one hides of it comes
 *   back. What the merge saves of indirect blocks is not counted, nor what it copies of shared
 *   ones.
 * - What several read through stays, and gives nothing back before they let go.
 *
 * What another tree names, too, does not come back, nor anything beneath such an indirect block;
 * after a share split that is every block which the split has shared. Shares count when a
 * consistency point holds them.
 */
import { BLOCK_BYTES, FIELDS_PER_BLOCK, SPAN_BLOCKS } from '../base/units.js';
import { FLAG_IN_MEMORY, HOLE_VBN, POINTER_WORDS, vbnAt, ZERO_VBN } from '../layout/pointer.js';
import { REFERENCE_ENTRIES_PER_BLOCK } from '../layout/reference-entry.js';
import { WALK_FIELD, WALK_HOLE, WALK_MISS } from '../store/buffer-tree.js';
import type { Engine } from '../store/engine.js';
import { alignDown, type Tree } from '../store/tree.js';
import { sharedAbove } from '../vdisk/subtree.js';
import { PathCount } from './path-count.js';
import { isPlain, type PlanOptions, startOf } from './plan.js';
import { shareWhole } from './share-whole.js';
import { loadHoles, type SplitParts } from './special-load.js';

/** Ranges between two yields: about a millisecond. */
const SLICE_RANGES = 32;

export interface GiveBack {
  /** Data blocks, after a split by copy and by share. */
  readonly copyBlocks: number;
  readonly shareBlocks: number;
  /** Indirect blocks. */
  readonly copyMetaBlocks: number;
  readonly shareMetaBlocks: number;
}

interface Sum {
  copyBlocks: number;
  shareBlocks: number;
  copyMetaBlocks: number;
  shareMetaBlocks: number;
}

/** What becomes of a tree: it dies, it is merged into the one over it, or it is held by several. */
export type Fate = { readonly kind: 'dies' | 'held' } | { readonly kind: 'merges'; into: Tree };

/** What becomes of the doomed trees, and of deleted ones below, when `tree` has let go. */
export function fatesOf(tree: Tree, doomed: readonly Tree[]): Map<Tree, Fate> {
  const open = new Set<Tree>();
  for (const each of doomed) {
    if (each.isExternal) continue;
    open.add(each);
    for (let at = each.backing; at?.state === 'deleting'; at = at.backing) open.add(at);
  }
  const fates = new Map<Tree, Fate>();
  for (let before = -1; before < fates.size; ) {
    before = fates.size;
    for (const each of open) {
      if (fates.has(each) || othersOver(each, tree, fates).length > 0) continue;
      fates.set(each, { kind: 'dies' });
    }
  }
  const dying = new Map(fates);
  for (const each of open) {
    const [into, ...more] = othersOver(each, tree, dying);
    if (into === undefined) continue;
    fates.set(each, more.length > 0 ? { kind: 'held' } : { kind: 'merges', into });
  }
  return fates;
}

/** Trees that still read through this one. */
function othersOver(of: Tree, tree: Tree, dying: ReadonlyMap<Tree, Fate>): Tree[] {
  return [...of.over()].filter((over) => over !== tree && !dying.has(over));
}

/** What the deletion of these trees gives back when `tree` has been split. */
export async function giveBackOf(
  parts: SplitParts,
  tree: Tree,
  doomed: readonly Tree[],
  { signal }: PlanOptions = {},
): Promise<GiveBack> {
  const sum: Sum = { copyBlocks: 0, shareBlocks: 0, copyMetaBlocks: 0, shareMetaBlocks: 0 };
  for (const [dying, fate] of fatesOf(tree, doomed)) {
    if (fate.kind === 'held') continue;
    const above = fate.kind === 'merges' ? fate.into : undefined;
    dying.holds++;
    try {
      await addTree({ parts, tree, dying, above, sum, signal });
    } finally {
      dying.holds--;
    }
  }
  return sum;
}

interface Walk {
  readonly parts: SplitParts;
  /** The tree that is split. */
  readonly tree: Tree;
  readonly dying: Tree;
  /** What takes in the rest of `dying`; undefined if it dies. */
  readonly above: Tree | undefined;
  readonly sum: Sum;
  readonly signal: AbortSignal | undefined;
}

async function addTree(walk: Walk): Promise<void> {
  const { parts, dying, above, sum, signal } = walk;
  const { engine } = parts;
  const paths = new PathCount(engine, dying, dying.height);
  const sharePaths = new PathCount(engine, dying, dying.height);
  const wholes = new WholeShares(parts, walk.tree, dying);
  let looked = 0;
  for (let fbn = dying.goneBelowFbn; fbn < dying.capacityFbn; ) {
    const { words, nextFbn, sharedUntil } = await loadFields(engine, dying, fbn);
    if (words !== undefined && sharedUntil <= fbn) {
      const whole = await wholes.levelAt(fbn);
      await addRange(walk, fbn, words, whole > 0);
      if (above === undefined) await paths.add(fbn);
      if (above === undefined) await sharePaths.add(fbn, whole + 1);
    }
    fbn = Math.max(nextFbn, sharedUntil);
    if (++looked % SLICE_RANGES === 0) await engine.options.clock.yield();
    engine.assertAlive();
    signal?.throwIfAborted();
  }
  sum.copyMetaBlocks += paths.blocks;
  sum.shareMetaBlocks += sharePaths.blocks;
}

interface Fields {
  /** A copy of the range's fields; undefined if one pointer above stands for all of them. */
  readonly words: Uint32Array | undefined;
  /** That pointer is a hole. */
  readonly isHole: boolean;
  /** First FBN that the answer does not speak of. */
  readonly nextFbn: number;
  /** An indirect block that others name, too, leads to all below this FBN; 0: none does. */
  readonly sharedUntil: number;
}

/** Which indirect blocks of its backing store the tree's split will share whole. */
class WholeShares {
  readonly #parts: SplitParts;
  readonly #tree: Tree;
  readonly #isBacking: boolean;
  #level = 0;
  #endFbn = 0;

  constructor(parts: SplitParts, tree: Tree, dying: Tree) {
    this.#parts = parts;
    this.#tree = tree;
    this.#isBacking = tree.backing === dying;
  }

  /** Level of the one over this FBN; 0 if there is none. Calls come in order of FBNs. */
  async levelAt(fbn: number): Promise<number> {
    if (!this.#isBacking || fbn < startOf(this.#tree)) return 0;
    if (fbn < this.#endFbn) return this.#level;
    const clone = this.#tree;
    const isOver = (): boolean => clone.gone;
    const whole = await shareWhole(this.#parts, { clone, fbn, isPlan: true, isOver });
    if (whole?.isNew !== true) return 0;
    this.#level = whole.level;
    this.#endFbn = whole.nextFbn;
    return whole.level;
  }
}

async function loadFields(engine: Engine, tree: Tree, fbn: number): Promise<Fields> {
  const { trees, loader } = engine;
  for (;;) {
    const found = trees.walk(tree, fbn);
    if (found === WALK_FIELD) {
      const { fieldWords, fieldAt } = trees;
      const words = fieldWords.slice(fieldAt, fieldAt + FIELDS_PER_BLOCK * POINTER_WORDS);
      const level =
        trees.sharedLevel === 0 ? 0 : await sharedAbove(engine, tree, fbn, trees.sharedLevel);
      const sharedUntil = level === 0 ? 0 : alignDown(fbn, level) + (SPAN_BLOCKS[level] as number);
      return { words, isHole: false, nextFbn: fbn + FIELDS_PER_BLOCK, sharedUntil };
    }
    if (found !== WALK_MISS) {
      const span = SPAN_BLOCKS[trees.level] as number;
      const nextFbn = (Math.floor(fbn / span) + 1) * span;
      return { words: undefined, isHole: found === WALK_HOLE, nextFbn, sharedUntil: 0 };
    }
    await loader.loadMeta(trees.missVbn, trees.missCrc);
    engine.assertAlive();
  }
}

async function addRange(
  walk: Walk,
  fbn: number,
  words: Uint32Array,
  isWhole: boolean,
): Promise<void> {
  const { parts, tree, above, sum } = walk;
  const isHidden = above === undefined ? () => true : await hiddenBy(parts.engine, above, fbn);
  const { holes } = await loadHoles(parts, tree, { base: fbn, first: 0, end: FIELDS_PER_BLOCK });
  const shared = new Set<number>();
  for (const hole of holes) if (isPlain(hole)) shared.add(hole.vbn);
  const references = new SharedBlocks(parts.engine);
  for (let index = 0; index < FIELDS_PER_BLOCK; index++) {
    const at = index * POINTER_WORDS;
    const isBuffer = ((words[at + 1] as number) & FLAG_IN_MEMORY) !== 0;
    const vbn = isBuffer ? 0 : vbnAt(words, at);
    if ((!isBuffer && vbn <= ZERO_VBN) || !isHidden(index)) continue;
    if (!isBuffer && (await references.has(vbn))) continue;
    sum.copyBlocks++;
    if (!isWhole && !shared.has(vbn)) sum.shareBlocks++;
  }
}

/** Whether a field of the range is one that the tree above does not need from what is below it. */
async function hiddenBy(
  engine: Engine,
  above: Tree,
  fbn: number,
): Promise<(index: number) => boolean> {
  const { words, isHole } = await loadFields(engine, above, fbn);
  return (index) => {
    if ((fbn + index) * BLOCK_BYTES >= above.readThroughLimitBytes) return true;
    if (words === undefined) return !isHole;
    const at = index * POINTER_WORDS;
    const isBuffer = ((words[at + 1] as number) & FLAG_IN_MEMORY) !== 0;
    return isBuffer || vbnAt(words, at) !== HOLE_VBN;
  };
}

/** Which blocks have an entry in the reference file. Most stores have none, most ranges neither. */
class SharedBlocks {
  readonly #engine: Engine;
  #fbn = -1;
  #isThere = false;

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  async has(vbn: number): Promise<boolean> {
    const { editor, metafiles } = this.#engine;
    const fbn = Math.floor(vbn / REFERENCE_ENTRIES_PER_BLOCK);
    if (fbn !== this.#fbn) {
      const file = metafiles.reference;
      this.#isThere = fbn < file.capacityFbn && (await editor.load(file, fbn)) >= 0;
      this.#fbn = fbn;
    }
    return this.#isThere && (await this.#engine.isShared(vbn));
  }
}
