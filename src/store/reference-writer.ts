/** Changes entries of the reference file, for one consistency point; see reference-file.ts. */
import { invariant } from '../base/invariant.js';
import {
  ownersAt,
  REFERENCE_ENTRIES_PER_BLOCK,
  REFERENCE_WORDS,
  toggleOwner,
} from '../layout/reference-entry.js';
import type { CpContext } from './consistency-point.js';
import type { Generation, Unsharing } from './generation.js';
import type { Tree } from './tree.js';
import { VbnSet } from './vbn-set.js';

/** Entries between two yields: about a millisecond. */
const ENTRIES_OF_SLICE = 4096;

export class ReferenceWriter {
  readonly #context: CpContext;
  readonly #generation: Generation;
  readonly #file: Tree;
  /**
   * Blocks of the file that are dirty in this generation, by FBN: there they stay until it is
   * placed.
   */
  readonly #edited = new Map<number, number>();
  /** Data blocks that have no owner left. */
  readonly freedData = new VbnSet();
  /** Blocks that lost a name to a copy in this generation. */
  readonly #unshared = new Map<number, Unsharing>();
  /** Entries changed since the last yield. */
  #done = 0;
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
    await this.#pause(blocks);
  }

  async move(vbn: number, fromId: number, toId: number, isData: boolean): Promise<void> {
    if ((await this.#peek(vbn)) === 0) return;
    const { words, at } = this.#entry(await this.#edit(vbn), vbn);
    toggleOwner(words, at, fromId);
    toggleOwner(words, at, toId);
    if (!isData) return;
    this.#count(fromId, -1);
    this.#count(toId, 1);
  }

  /** One more name of an indirect block, or of one that counts as shared already. */
  async lend(vbn: number, ownerId: number, withId: number): Promise<void> {
    const { words, at } = this.#entry(await this.#edit(vbn), vbn);
    if (words[at] === 0) {
      words[at] = 1;
      toggleOwner(words, at, ownerId);
    }
    words[at] = (words[at] as number) + 1;
    toggleOwner(words, at, withId);
  }

  /**
   * What the block names gets one more name, of the tree. If the tree was the last that named the
   * block, the block is free, and what it named is the tree's alone where nobody else names it.
   */
  async unshare(unsharing: Unsharing): Promise<void> {
    const { vbn, treeId, level, named } = unsharing;
    const isLast = await this.letGo(vbn, treeId, false);
    let own = 0;
    for (const below of named) {
      if (!isLast) await this.lend(below, 0, treeId);
      else if ((await this.#peek(below)) === 0) own++;
      else await this.move(below, 0, treeId, false);
    }
    if (isLast) this.#generation.metaFrees.add(vbn);
    else this.#unshared.set(vbn, unsharing);
    // Until now it counted all of them as shared.
    if (isLast && level === 1) this.#count(treeId, -own);
    await this.#pause(named.length);
  }

  /** The block, and all beneath, loses a name. */
  async freeShared(vbn: number, ownerId: number): Promise<void> {
    if (!(await this.letGo(vbn, ownerId, false))) return;
    // Whoever else named it when this was decided has copied it since, in this generation.
    const unsharing = this.#unshared.get(vbn);
    invariant(unsharing !== undefined, `block ${vbn} had another name when it was let go`);
    this.#generation.metaFrees.add(vbn);
    for (const below of unsharing.named) {
      if (unsharing.level > 1) await this.freeShared(below, 0);
      else if (await this.letGo(below, 0, true)) this.freedData.add(below);
    }
    await this.#pause(unsharing.named.length);
  }

  /** True if that was the last name. */
  async letGo(vbn: number, treeId: number, isData: boolean): Promise<boolean> {
    if ((await this.#peek(vbn)) === 0) return true;
    const { words, at } = this.#entry(await this.#edit(vbn), vbn);
    invariant((words[at] as number) >= 2, `block ${vbn} has at least two owners`);
    words[at] = (words[at] as number) - 1;
    toggleOwner(words, at, treeId);
    if (isData) this.#count(treeId, -1);
    if (words[at] !== 1) return false;
    if (isData) this.#count(ownersAt(words, at), -1);
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

  async #pause(entries: number): Promise<void> {
    this.#done += entries;
    if (this.#done < ENTRIES_OF_SLICE) return;
    this.#done = 0;
    await this.#context.clock.yield();
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
