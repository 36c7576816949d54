/**
 * The reference file: which blocks more than one tree names. Changed by consistency points only,
 * from what the generation shared, moved and let go.
 *
 * 1. A block without an entry has one owner; an entry counts at least two.
 * 2. A block let go by one of several owners stays; let go by its last it is free.
 * 3. `sharedBlocks` of a tree counts its blocks that have an entry. When a block's count falls to
 *    one, the exclusive-or of the owners is the one left, and its counter falls too.
 */
import { invariant } from '../base/invariant.js';
import { FLAG_IN_MEMORY, HOLE_VBN, vbnAt } from '../layout/pointer.js';
import {
  ownersAt,
  REFERENCE_ENTRIES_PER_BLOCK,
  REFERENCE_WORDS,
  toggleOwner,
} from '../layout/reference-entry.js';
import type { CpContext } from './consistency-point.js';
import type { Generation, Share } from './generation.js';
import type { Tree } from './tree.js';
import { VbnSet } from './vbn-set.js';

/** Shares between two yields: about a millisecond. */
const SHARES_OF_SLICE = 4096;

/** Brings the file up to date; returns the data blocks that have no owner left. */
export async function applyReferences(context: CpContext, generation: Generation): Promise<VbnSet> {
  const file = context.metafiles.reference;
  if (isEmpty(file) && generation.shares.length === 0) return allFrees(generation);
  const writer = new ReferenceWriter(context, generation);
  const { shares, moves } = generation;
  let shared = 0;
  let done = 0;
  const shareUpTo = async (end: number): Promise<void> => {
    for (; shared < end; shared++) {
      const share = shares[shared] as Share;
      const runEnd = share.vbn + share.blocks;
      for (let vbn = share.vbn; vbn < runEnd; ) {
        const blockEnd = vbn - (vbn % REFERENCE_ENTRIES_PER_BLOCK) + REFERENCE_ENTRIES_PER_BLOCK;
        const end = Math.min(runEnd, blockEnd);
        await writer.share(vbn, end - vbn, share.ownerId, share.withId);
        done += end - vbn;
        vbn = end;
        if (done < SHARES_OF_SLICE) continue;
        done = 0;
        await context.clock.yield();
      }
    }
  };
  for (const { vbn, fromId, toId, sharesBefore } of moves) {
    await shareUpTo(sharesBefore);
    await writer.move(vbn, fromId, toId);
  }
  await shareUpTo(shares.length);
  const freed = new VbnSet();
  for (const [treeId, set] of generation.dataFrees) {
    for (const vbn of set.values()) {
      if (await writer.letGo(vbn, treeId)) freed.add(vbn);
    }
  }
  writer.applyCounts();
  return freed;
}

function isEmpty(file: Tree): boolean {
  return ((file.root[1] as number) & FLAG_IN_MEMORY) === 0 && vbnAt(file.root, 0) === HOLE_VBN;
}

function allFrees(generation: Generation): VbnSet {
  const freed = new VbnSet();
  for (const set of generation.dataFrees.values()) freed.addAll(set);
  return freed;
}

class ReferenceWriter {
  readonly #context: CpContext;
  readonly #generation: Generation;
  readonly #file: Tree;
  /**
   * Blocks of the file that are dirty in this generation, by FBN: there they stay until it is
   * placed.
   */
  readonly #edited = new Map<number, number>();
  /** Changes of the trees' counters so far. */
  readonly #changes = new Map<number, number>();

  constructor(context: CpContext, generation: Generation) {
    this.#context = context;
    this.#generation = generation;
    this.#file = context.metafiles.reference;
  }

  /** Blocks of one block of the file, one behind the other. */
  async share(vbn: number, blocks: number, ownerId: number, withId: number): Promise<void> {
    const { words, at: start } = this.#entry(await this.#edit(vbn), vbn);
    const end = start + blocks * REFERENCE_WORDS;
    let fresh = 0;
    for (let at = start; at < end; at += REFERENCE_WORDS) {
      if (words[at] === 0) {
        words[at] = 1;
        toggleOwner(words, at, ownerId);
        fresh++;
      }
      words[at] = (words[at] as number) + 1;
      toggleOwner(words, at, withId);
    }
    this.#count(ownerId, fresh);
    this.#count(withId, blocks);
  }

  async move(vbn: number, fromId: number, toId: number): Promise<void> {
    if ((await this.#peek(vbn)) === 0) return;
    const { words, at } = this.#entry(await this.#edit(vbn), vbn);
    toggleOwner(words, at, fromId);
    toggleOwner(words, at, toId);
    this.#count(fromId, -1);
    this.#count(toId, 1);
  }

  /** True if that was the last owner. */
  async letGo(vbn: number, treeId: number): Promise<boolean> {
    if ((await this.#peek(vbn)) === 0) return true;
    const { words, at } = this.#entry(await this.#edit(vbn), vbn);
    invariant((words[at] as number) >= 2, `block ${vbn} has at least two owners`);
    words[at] = (words[at] as number) - 1;
    toggleOwner(words, at, treeId);
    this.#count(treeId, -1);
    if (words[at] !== 1) return false;
    this.#count(ownersAt(words, at), -1);
    words.fill(0, at, at + REFERENCE_WORDS);
    return false;
  }

  /** The count of the block's entry, 0 if it has none. */
  async #peek(vbn: number): Promise<number> {
    const { editor } = this.#context;
    const fbn = Math.floor(vbn / REFERENCE_ENTRIES_PER_BLOCK);
    if (fbn >= this.#file.capacityFbn) return 0;
    let buffer = editor.trees.findMetaBlock(this.#file, fbn);
    if (buffer === -2) buffer = await editor.load(this.#file, fbn);
    if (buffer < 0) return 0;
    return editor.pool.wordsOf(buffer)[this.#at(buffer, vbn)] as number;
  }

  /** Makes the block of the file that holds the entry dirty. */
  async #edit(vbn: number): Promise<number> {
    const fbn = Math.floor(vbn / REFERENCE_ENTRIES_PER_BLOCK);
    const known = this.#edited.get(fbn);
    if (known !== undefined) return known;
    const buffer = await this.#context.editor.edit(this.#file, fbn, this.#generation);
    this.#edited.set(fbn, buffer);
    return buffer;
  }

  #entry(buffer: number, vbn: number): { words: Uint32Array; at: number } {
    return { words: this.#context.editor.pool.wordsOf(buffer), at: this.#at(buffer, vbn) };
  }

  #at(buffer: number, vbn: number): number {
    return (
      this.#context.editor.pool.wordStart(buffer) +
      (vbn % REFERENCE_ENTRIES_PER_BLOCK) * REFERENCE_WORDS
    );
  }

  #count(treeId: number, change: number): void {
    this.#changes.set(treeId, (this.#changes.get(treeId) ?? 0) + change);
  }

  /** The counters of the trees change, live and in what this consistency point writes. */
  applyCounts(): void {
    for (const [treeId, change] of this.#changes) {
      const tree = this.#context.table.get(treeId);
      if (tree !== undefined && change !== 0) this.#countTree(tree, change);
    }
  }

  #countTree(tree: Tree, change: number): void {
    if (tree.frozen === undefined) {
      // Not in this consistency point yet: its record must be, as it was at the freeze.
      const record = tree.dirty && tree.baseline !== undefined ? tree.baseline : tree.toRecord();
      tree.frozen = { record, root: Uint32Array.from(record.root) };
      this.#generation.trees.add(tree);
    }
    tree.sharedBlocks += change;
    const { record, root } = tree.frozen;
    const sharedBlocks = record.sharedBlocks + change;
    tree.frozen = { record: { ...record, sharedBlocks }, root };
  }
}
