/**
 * A tree in memory: what its record says, where its root is, and who reads through it.
 *
 * 1. `root` is a pointer in the form of an indirect block's field; it may name a buffer.
 * 2. While a consistency point writes the tree, `frozen` holds the record and root it writes; the
 *    live ones go on changing.
 * 3. `over` holds exactly the trees whose `backing` this is.
 */
import { invariant } from '../base/invariant.js';
import { heightFor, SPAN_BLOCKS } from '../base/units.js';
import type { SplitPolicy } from '../layout/split-policy.js';
import type {
  BadRange,
  SplitMode,
  SplitPhase,
  TreeRecord,
  TreeState,
} from '../layout/tree-record.js';

/** What a split of this tree has come to; see split/. */
export interface TreeSplit {
  mode: SplitMode;
  phase: SplitPhase;
  policy: SplitPolicy;
  positionFbn: number;
  bad: BadRange[];
}

export interface FrozenTree {
  readonly record: TreeRecord;
  readonly root: Uint32Array;
}

/** Growing list of (fbn, count) pairs. */
export class ExtentList {
  // A plain array: most lists hold one write and live until its FLUSH, and typed arrays are dear to
  // make and to collect.
  readonly #items: number[] = [];

  get length(): number {
    return this.#items.length / 2;
  }

  push(fbn: number, count: number): void {
    const last = this.#items.length - 2;
    if (last >= 0) {
      const end = (this.#items[last] as number) + (this.#items[last + 1] as number);
      if (end === fbn) {
        this.#items[last + 1] = (this.#items[last + 1] as number) + count;
        return;
      }
    }
    this.#items.push(fbn, count);
  }

  fbn(index: number): number {
    return this.#items[index * 2] as number;
  }

  count(index: number): number {
    return this.#items[index * 2 + 1] as number;
  }
}

export class Tree {
  /** Place in the table of loaded trees; see BufferPool.holder. */
  readonly index: number;
  readonly id: number;
  /** Place of the record in the tree file; -1 for a metafile. */
  readonly recordIndex: number;
  state: TreeState = 'live';
  height: number;
  readonly root = new Uint32Array(4);
  sizeBytes: number;
  readThroughLimitBytes = 0;
  mappedBlocks = 0;
  sharedBlocks = 0;
  ownerId = 0;
  goneBelowFbn = 0;
  countedById = 0;
  /** Its holes lead to files outside of the store; it has no backing tree, and never changes. */
  isExternal = false;
  split: TreeSplit | undefined;
  /** In the current generation's list of dirty trees. */
  dirty = false;
  frozen: FrozenTree | undefined;
  /** What the record was when the tree became dirty in the current generation. */
  baseline: TreeRecord | undefined;
  /** Client writes since the last FLUSH, in this generation and in the one being written. */
  unlogged: ExtentList | undefined;
  unloggedOld: ExtentList | undefined;
  /** The last consistency point in which the tree changed or was made. */
  changedCp = 0;
  /**
   * The association was released, but not durably yet: after a crash it is there again, so zeros
   * must go on hiding what lies below.
   */
  isReleasePending = false;
  /** Removed: nothing may use it, though it may be in the table until a consistency point ends. */
  gone = false;
  /** Merges of this tree wait while this is not 0: splits through it, diffs, exports. */
  holds = 0;
  #backing: Tree | undefined;
  #over: Set<Tree> | undefined;

  constructor(index: number, id: number, recordIndex: number, sizeBytes: number) {
    this.index = index;
    this.id = id;
    this.recordIndex = recordIndex;
    this.sizeBytes = sizeBytes;
    this.height = heightFor(sizeBytes);
  }

  /**
   * A hole may lead to a backing store's bytes: what is to read as zeros must be a zero pointer.
   */
  get needsZeros(): boolean {
    return this.#backing !== undefined || this.isReleasePending;
  }

  get backing(): Tree | undefined {
    return this.#backing;
  }

  set backing(tree: Tree | undefined) {
    if (this.#backing !== undefined) this.#backing.#over?.delete(this);
    this.#backing = tree;
    if (tree === undefined) return;
    tree.#over ??= new Set();
    tree.#over.add(this);
  }

  /** Under which id the tree's blocks stand in the reference file. */
  get ownerOfBlocks(): number {
    return this.countedById === 0 ? this.id : this.countedById;
  }

  get overCount(): number {
    return this.#over?.size ?? 0;
  }

  over(): Iterable<Tree> {
    return this.#over ?? [];
  }

  /** FBNs that the tree's height can hold. */
  get capacityFbn(): number {
    return SPAN_BLOCKS[this.height] as number;
  }

  toRecord(): TreeRecord {
    const split = this.split;
    return {
      id: this.id,
      state: this.state,
      height: this.height,
      root: [
        this.root[0] as number,
        this.root[1] as number,
        this.root[2] as number,
        this.root[3] as number,
      ],
      sizeBytes: this.sizeBytes,
      backingId: this.#backing?.id ?? 0,
      readThroughLimitBytes: this.readThroughLimitBytes,
      mappedBlocks: this.mappedBlocks,
      sharedBlocks: this.sharedBlocks,
      ownerId: this.ownerId,
      goneBelowFbn: this.goneBelowFbn,
      countedById: this.countedById,
      isExternal: this.isExternal,
      split:
        split === undefined
          ? undefined
          : {
              mode: split.mode,
              phase: split.phase,
              policy: split.policy,
              positionFbn: split.positionFbn,
              bad: [...split.bad],
            },
    };
  }
}

/** Index of the field for this FBN in the block of this level (>= 1) above it. */
export function fieldIndex(fbn: number, level: number): number {
  // An FBN has up to 40 bits, bit operations work on 32: levels 4 and 5 look at the upper part.
  if (level <= 3) return ((fbn % 0x100_0000) >>> ((level - 1) * 8)) & 0xff;
  const upper = Math.floor(fbn / 0x100_0000);
  return level === 4 ? upper & 0xff : (upper >>> 8) & 0xff;
}

/** First FBN of the block of this level that covers `fbn`. */
export function alignDown(fbn: number, level: number): number {
  const span = SPAN_BLOCKS[level] as number;
  return Math.floor(fbn / span) * span;
}

/** Trees that are loaded, by table index and by id. */
export class TreeTable {
  readonly #byIndex: (Tree | undefined)[] = [];
  readonly #byId = new Map<number, Tree>();
  readonly #freeIndexes: number[] = [];

  /** Adds a tree. Metafiles have id 0 and record index -1. */
  add(id: number, recordIndex: number, sizeBytes: number): Tree {
    const index = this.#freeIndexes.pop() ?? this.#byIndex.length;
    const tree = new Tree(index, id, recordIndex, sizeBytes);
    this.#byIndex[index] = tree;
    if (id !== 0) {
      invariant(!this.#byId.has(id), 'a tree id is never used twice');
      this.#byId.set(id, tree);
    }
    return tree;
  }

  remove(tree: Tree): void {
    invariant(tree.overCount === 0, 'a tree that others read through is not removed');
    tree.backing = undefined;
    tree.gone = true;
    this.#byIndex[tree.index] = undefined;
    this.#byId.delete(tree.id);
    this.#freeIndexes.push(tree.index);
  }

  at(index: number): Tree {
    const tree = this.#byIndex[index];
    invariant(tree !== undefined, 'a root buffer belongs to a tree of the table');
    return tree;
  }

  get(id: number): Tree | undefined {
    return this.#byId.get(id);
  }

  get size(): number {
    return this.#byId.size;
  }

  all(): IterableIterator<Tree> {
    return this.#byId.values();
  }
}
