/**
 * What a split of a tree will read and write, counted before its first fill: the special loading
 * function looks at every level-1 range, as the split itself will. No block of data is read.
 *
 * 1. It is a background reader: it yields, and an abort ends it. The tree is not merged away
 *    meanwhile, as under a diff; what lies below it may be.
 * 2. Each range is counted as it is at one moment. So the figures are exact if nobody writes while
 *    the scan goes on, and never too low otherwise: a client's write takes holes away and makes
 *    none.
 * 3. What is filled is no hole: of a split under way it counts what is left.
 * 4. Memory: 128 KiB for each TiB of data that a share split names.
 *
 * fill.ts decides what is copied and what is shared, share-whole.ts what one pointer shares; this
 * must say the same.
 */
import { ZERO_BLOCK_CRC } from '../base/checksum.js';
import { StoreError } from '../base/store-error.js';
import { BLOCK_BYTES, FIELDS_PER_BLOCK, heightFor, SEGMENT_BLOCKS } from '../base/units.js';
import { REFERENCE_ENTRIES_PER_BLOCK } from '../layout/reference-entry.js';
import type { SplitMode } from '../layout/tree-record.js';
import type { Engine } from '../store/engine.js';
import type { Tree } from '../store/tree.js';
import { VbnSet } from '../store/vbn-set.js';
import { PathCount } from './path-count.js';
import { mayShareWhole, shareWhole, type WholeShare } from './share-whole.js';
import { type Hole, type HolesOfRange, loadHoles, type SplitParts } from './special-load.js';

/** Level-1 ranges that are looked at together: as many as the split fills together. */
const WINDOW_RANGES = 4;
/** Windows between two yields: about a millisecond. */
const SLICE_WINDOWS = 8;

/** What a split has to do, in blocks. */
export interface SplitWork {
  readonly mode: SplitMode;
  /** Blocks that are read from backing stores; less if some of them are in memory. */
  readonly readBlocks: number;
  /** Data blocks that are written, at most: those that turn out to be zeros take no block. */
  readonly dataBlocks: number;
  /** Of these, the ones that surely are written. */
  readonly dataBlocksMin: number;
  /** Blocks that the backing store and the tree will both name. */
  readonly sharedBlocks: number;
  /** Indirect blocks that are written, and blocks of the reference file, each counted once. */
  readonly indirectBlocks: number;
  readonly referenceBlocks: number;
  /** The sum of the two. Each consistency point on the way writes a few of them once more. */
  readonly metaBlocks: number;
  /** Of metaBlocks, the ones that stand where nothing is now: the others take the place of one. */
  readonly newMetaBlocks: number;
}

export interface PlanOptions {
  readonly signal?: AbortSignal | undefined;
}

/**
 * What is left to do for a split of the tree.
 * @throws {StoreError} not-found: it was deleted meanwhile
 */
export async function planTree(
  parts: SplitParts,
  tree: Tree,
  mode: SplitMode,
  options: PlanOptions = {},
): Promise<SplitWork> {
  return workOf(await countHoles(parts, tree, mode, options), mode);
}

/** The holes that a split has to fill, by what has to be done for them. */
export interface HoleCount {
  /** Whole, placed, and surely not of zeros: what is shared if it can be. */
  readonly plainBlocks: number;
  /** Placed, and of zeros as far as its checksum tells. */
  readonly zeroBlocks: number;
  /** Cut by a read-through limit: zeros perhaps, and never shared. */
  readonly maskedBlocks: number;
  /** In files outside of the store: zeros perhaps, and never shared. */
  readonly externalBlocks: number;
  /** Dirty buffers: they get a VBN with the next consistency point, and can be shared then. */
  readonly unplacedBlocks: number;
  /** Indirect blocks over the holes. */
  readonly indirectBlocks: number;
  readonly newIndirectBlocks: number;
  /** Blocks of the reference file, and indirect ones over them, that sharing changes. */
  readonly referenceBlocks: number;
  readonly newReferenceBlocks: number;
}

export function workOf(count: HoleCount, mode: SplitMode): SplitWork {
  const { plainBlocks, indirectBlocks, newIndirectBlocks } = count;
  const others =
    count.zeroBlocks + count.maskedBlocks + count.externalBlocks + count.unplacedBlocks;
  if (mode === 'copy') {
    return {
      mode,
      readBlocks: plainBlocks + others,
      dataBlocks: plainBlocks + others,
      dataBlocksMin: plainBlocks,
      sharedBlocks: 0,
      indirectBlocks,
      referenceBlocks: 0,
      metaBlocks: indirectBlocks,
      newMetaBlocks: newIndirectBlocks,
    };
  }
  return {
    mode,
    readBlocks: others,
    dataBlocks: others,
    dataBlocksMin: 0,
    sharedBlocks: plainBlocks,
    indirectBlocks,
    referenceBlocks: count.referenceBlocks,
    metaBlocks: indirectBlocks + count.referenceBlocks,
    newMetaBlocks: newIndirectBlocks + count.newReferenceBlocks,
  };
}

/** True for a hole whose block a share split names, and does not copy. */
export function isPlain({ vbn, isExternal, validBytes, crc }: Hole): boolean {
  return !isExternal && vbn !== 0 && validBytes === BLOCK_BYTES && crc !== ZERO_BLOCK_CRC;
}

/** Looks at every range that the split of this tree has not passed. */
export async function countHoles(
  parts: SplitParts,
  tree: Tree,
  mode: SplitMode,
  { signal }: PlanOptions,
): Promise<HoleCount> {
  const { engine } = parts;
  const tally = new Tally(engine, tree);
  tree.holds++;
  try {
    let windows = 0;
    for (let fbn = startOf(tree); fbn * BLOCK_BYTES < tree.readThroughLimitBytes; ) {
      signal?.throwIfAborted();
      checkThere(tree);
      const isWhole = mode === 'share' && mayShareWhole(tree);
      const isOver = (): boolean => signal?.aborted === true || tree.gone;
      const whole = isWhole
        ? await shareWhole(parts, { clone: tree, fbn, isPlan: true, isOver })
        : undefined;
      if (whole !== undefined) {
        if (whole.isNew) await tally.addWhole(fbn, whole);
        fbn = whole.nextFbn;
        if (++windows % SLICE_WINDOWS === 0) await engine.options.clock.yield();
        continue;
      }
      const ranges = await loadWindow(parts, tree, fbn, isWhole ? 1 : WINDOW_RANGES);
      for (const { start, holes, nextFbn } of ranges) {
        await tally.add(start, holes);
        fbn = Math.max(fbn, nextFbn);
      }
      if (++windows % SLICE_WINDOWS === 0) await engine.options.clock.yield();
    }
    checkThere(tree);
    return await tally.end();
  } finally {
    tree.holds--;
  }
}

interface Range extends HolesOfRange {
  readonly start: number;
}

/** Together, so that a store that is not in memory is not waited for range by range. */
function loadWindow(parts: SplitParts, tree: Tree, fbn: number, ranges: number): Promise<Range[]> {
  const loads: Promise<Range>[] = [];
  for (let at = 0; at < ranges; at++) {
    const start = fbn + at * FIELDS_PER_BLOCK;
    const fields = { base: start, first: 0, end: FIELDS_PER_BLOCK };
    loads.push(loadHoles(parts, tree, fields).then((found) => ({ start, ...found })));
  }
  return Promise.all(loads);
}

/** Every hole below has been filled or, if it could not be read, is listed. */
export function startOf({ split }: Tree): number {
  if (split === undefined) return 0;
  const fbn = Math.min(split.positionFbn, split.bad[0]?.fbn ?? Number.POSITIVE_INFINITY);
  return fbn - (fbn % FIELDS_PER_BLOCK);
}

function checkThere(tree: Tree): void {
  if (!tree.gone && tree.state !== 'dying') return;
  throw new StoreError('not-found', `tree ${tree.id} was deleted while its split was planned`);
}

class Tally {
  readonly #engine: Engine;
  readonly #paths: PathCount;
  /** Blocks of the reference file, by their FBN there. */
  readonly #references = new VbnSet();
  #referenceEnd = 0;
  #plain = 0;
  #zero = 0;
  #masked = 0;
  #external = 0;
  #unplaced = 0;

  constructor(engine: Engine, tree: Tree) {
    this.#engine = engine;
    this.#paths = new PathCount(engine, tree, tree.height);
  }

  async add(start: number, holes: readonly Hole[]): Promise<void> {
    if (holes.length === 0) return;
    for (const hole of holes) this.#addHole(hole);
    await this.#paths.add(start);
  }

  #addHole(hole: Hole): void {
    if (hole.isExternal) this.#external++;
    else if (hole.validBytes < BLOCK_BYTES) this.#masked++;
    else if (hole.vbn === 0) this.#unplaced++;
    else if (!isPlain(hole)) this.#zero++;
    else {
      this.#plain++;
      this.#addReference(hole.vbn);
    }
  }

  /** An indirect block that is shared, with all beneath. */
  async addWhole(start: number, { blocks, level, vbn }: WholeShare): Promise<void> {
    this.#plain += blocks;
    this.#addReference(vbn);
    await this.#paths.add(start, level + 1);
  }

  #addReference(vbn: number): void {
    const fbn = Math.floor(vbn / REFERENCE_ENTRIES_PER_BLOCK);
    this.#references.add(fbn);
    this.#referenceEnd = Math.max(this.#referenceEnd, fbn + 1);
  }

  async end(): Promise<HoleCount> {
    const references = await this.#countReferences();
    return {
      plainBlocks: this.#plain,
      zeroBlocks: this.#zero,
      maskedBlocks: this.#masked,
      externalBlocks: this.#external,
      unplacedBlocks: this.#unplaced,
      indirectBlocks: this.#paths.blocks,
      newIndirectBlocks: this.#paths.newBlocks,
      referenceBlocks: references.blocks,
      newReferenceBlocks: references.newBlocks,
    };
  }

  async #countReferences(): Promise<{ readonly blocks: number; readonly newBlocks: number }> {
    const engine = this.#engine;
    const file = engine.metafiles.reference;
    const segments = [...this.#references.segments()].sort((a, b) => a - b);
    const height = Math.max(file.height, heightFor(this.#referenceEnd * BLOCK_BYTES));
    const paths = new PathCount(engine, file, height);
    let newLeaves = 0;
    for (const segment of segments) {
      const first = segment * SEGMENT_BLOCKS;
      for (let fbn = first; fbn < first + SEGMENT_BLOCKS; fbn++) {
        if (!this.#references.has(fbn)) continue;
        await paths.add(fbn);
        if (!hasLeaf(engine, file, fbn)) newLeaves++;
      }
      await engine.options.clock.yield();
    }
    return { blocks: paths.blocks + this.#references.size, newBlocks: paths.newBlocks + newLeaves };
  }
}

/** Whether the metafile has this block. Its path was loaded a moment ago: if not, it is there. */
function hasLeaf({ trees }: Engine, file: Tree, fbn: number): boolean {
  return trees.findMetaBlock(file, fbn) !== -1;
}
