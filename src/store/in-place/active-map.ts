/**
 * Writes one generation's allocations and frees into the active map and the usage file, and places
 * what changed of these two files.
 *
 * 1. A set bit is a block in use; a segment's live count is the number of its set bits.
 * 2. Placing the two files changes them: each block placed sets bits, each old block given up
 *    clears some. Every block that changes is given its VBN before any is written, and that may
 *    change more of them; it ends when nothing new changes, since there are only so many of them.
 * 3. Only then are checksums taken, from the leaves up.
 */
import { crc32 } from '../../base/checksum.js';
import { invariant } from '../../base/invariant.js';
import { SEGMENT_BLOCKS } from '../../base/units.js';
import {
  SEGMENT_FREE,
  USAGE_ENTRIES_PER_BLOCK,
  usageKind,
  usageLive,
  usageWord,
} from '../../layout/usage-entry.js';
import type { Generation } from '../generation.js';
import { collectDirty, type DirtyLevel, type MetafileEditor } from '../metafile.js';
import type { Tree } from '../tree.js';
import { popcount, SEGMENT_WORDS, type VbnSet } from '../vbn-set.js';
import { countPair, type PairCounts, type SegmentAllocator } from './segment-allocator.js';

/** Segments that one block of the active map covers: 32768 / 1024. */
export const MAP_BLOCK_SEGMENTS = 32;

/** A block of the two files with the VBN it was given. */
export interface AssignedBlock {
  readonly buffer: number;
  readonly vbn: number;
  readonly words: Uint32Array;
  readonly at: number;
  readonly level: number;
  readonly fbn: number;
}

export interface MapOutcome {
  readonly blocks: readonly AssignedBlock[];
  readonly counts: PairCounts;
  readonly usedBlocks: number;
}

export class MapWriter {
  readonly #editor: MetafileEditor;
  readonly #allocator: SegmentAllocator;
  readonly #generation: Generation;
  readonly #map: Tree;
  readonly #usage: Tree;
  readonly #freed: VbnSet;
  /** Bits of each segment that are in the map already. */
  readonly #applied = new Map<number, { set: Uint32Array; cleared: Uint32Array }>();
  readonly #assigned = new Map<number, number>();
  readonly #counts: PairCounts;
  #usedBlocks: number;

  /** `freed`: data blocks with no owner left. The old blocks of metafiles are added to it. */
  constructor(
    editor: MetafileEditor,
    allocator: SegmentAllocator,
    generation: Generation,
    files: { readonly map: Tree; readonly usage: Tree },
    freed: VbnSet,
    before: { readonly counts: PairCounts; readonly usedBlocks: number },
  ) {
    this.#editor = editor;
    this.#allocator = allocator;
    this.#generation = generation;
    this.#map = files.map;
    this.#usage = files.usage;
    this.#freed = freed;
    this.#counts = { ...before.counts };
    this.#usedBlocks = before.usedBlocks;
  }

  async write(): Promise<MapOutcome> {
    for (;;) {
      this.#takeMetaFrees();
      const segments = new Set([
        ...this.#generation.allocated.segments(),
        ...this.#freed.segments(),
      ]);
      let changed = false;
      for (const segment of [...segments].sort((a, b) => a - b)) {
        if (await this.#apply(segment)) changed = true;
      }
      if (await this.#assign()) changed = true;
      if (!changed && this.#generation.metaFrees.size === this.#taken) break;
    }
    return { blocks: this.#finish(), counts: this.#counts, usedBlocks: this.#usedBlocks };
  }

  #taken = 0;

  /** Metadata given up counts with its second copy. */
  #takeMetaFrees(): void {
    if (this.#generation.metaFrees.size === this.#taken) return;
    for (const vbn of this.#generation.metaFrees.values()) {
      this.#freed.add(vbn);
      this.#freed.add(vbn + SEGMENT_BLOCKS);
    }
    this.#taken = this.#generation.metaFrees.size;
  }

  /** Brings one segment's bits up to date; true if any changed. */
  async #apply(segment: number): Promise<boolean> {
    const set = this.#generation.allocated.bitsOf(segment);
    const cleared = this.#freed.bitsOf(segment);
    const done = this.#applied.get(segment);
    if (done !== undefined && same(done.set, set) && same(done.cleared, cleared)) return false;
    await this.#allocator.load(segment);
    const mapFbn = Math.floor(segment / MAP_BLOCK_SEGMENTS);
    const usageFbn = Math.floor(segment / USAGE_ENTRIES_PER_BLOCK);
    await this.#editor.edit(this.#usage, usageFbn, this.#generation);
    const mapBuffer = await this.#editor.edit(this.#map, mapFbn, this.#generation);
    // Both are dirty now, and stay where they are until this commit ends.
    const usageBuffer = this.#editor.trees.dirtyMetaBlock(this.#usage, usageFbn, this.#generation);
    const delta = this.#applyBits(segment, mapBuffer, set, cleared);
    this.#applyUsage(segment, usageBuffer, delta);
    this.#usedBlocks += delta;
    return true;
  }

  /** Sets what was allocated, then clears what was freed; returns the change of the count. */
  #applyBits(
    segment: number,
    buffer: number,
    set: Uint32Array | undefined,
    cleared: Uint32Array | undefined,
  ): number {
    const pool = this.#editor.pool;
    const words = pool.wordsOf(buffer);
    const start = pool.wordStart(buffer) + (segment % MAP_BLOCK_SEGMENTS) * SEGMENT_WORDS;
    const done = this.#applied.get(segment);
    let delta = 0;
    for (let index = 0; index < SEGMENT_WORDS; index++) {
      const before = words[start + index] as number;
      const setNow = ((set?.[index] ?? 0) & ~(done?.set[index] ?? 0)) >>> 0;
      const clearNow = ((cleared?.[index] ?? 0) & ~(done?.cleared[index] ?? 0)) >>> 0;
      invariant((before & setNow) === 0, `a block placed in segment ${segment} was not in use`);
      const between = before | setNow;
      invariant((clearNow & ~between) === 0, `a block freed in segment ${segment} was in use`);
      const after = (between & ~clearNow) >>> 0;
      words[start + index] = after;
      delta += popcount(after) - popcount(before);
    }
    this.#applied.set(segment, {
      set: set?.slice() ?? new Uint32Array(SEGMENT_WORDS),
      cleared: cleared?.slice() ?? new Uint32Array(SEGMENT_WORDS),
    });
    return delta;
  }

  #applyUsage(segment: number, buffer: number, delta: number): void {
    const pool = this.#editor.pool;
    const words = pool.wordsOf(buffer);
    const index = segment % USAGE_ENTRIES_PER_BLOCK;
    const at = pool.wordStart(buffer) + index * 2;
    const evenAt = pool.wordStart(buffer) + (index - (index % 2)) * 2;
    this.#countPair(words, evenAt, -1);
    const live = usageLive(words[at] as number) + delta;
    // The allocator knows the kind of every segment that it filled.
    const kind = live === 0 ? SEGMENT_FREE : this.#kindOf(segment, words[at] as number);
    words[at] = usageWord(live, kind);
    this.#countPair(words, evenAt, 1);
  }

  #kindOf(segment: number, word: number): number {
    const known = this.#allocator.kindOf(segment);
    return known === SEGMENT_FREE ? usageKind(word) : known;
  }

  #countPair(words: Uint32Array, evenAt: number, sign: 1 | -1): void {
    const even = words[evenAt] as number;
    const odd = words[evenAt + 2] as number;
    countPair(
      [usageKind(even), usageKind(odd)],
      [usageLive(even), usageLive(odd)],
      this.#counts,
      sign,
    );
  }

  /** Gives every dirty block of the two files that has none its VBN; true if there was one. */
  async #assign(): Promise<boolean> {
    const waiting: number[] = [];
    for (const tree of [this.#usage, this.#map]) {
      for (const level of collectDirty(this.#editor.pool, tree.root, tree.height)) {
        for (const buffer of level.buffers) {
          if (!this.#assigned.has(buffer)) waiting.push(buffer);
        }
      }
    }
    if (waiting.length === 0) return false;
    while (!this.#allocator.isReady('meta', waiting.length)) {
      await this.#allocator.prepare('meta', waiting.length);
    }
    for (const buffer of waiting) {
      const vbn = this.#allocator.take('meta');
      this.#assigned.set(buffer, vbn);
      this.#generation.allocated.add(vbn);
      this.#generation.allocated.add(vbn + SEGMENT_BLOCKS);
    }
    return true;
  }

  #finish(): AssignedBlock[] {
    const blocks: AssignedBlock[] = [];
    for (const tree of [this.#usage, this.#map]) {
      const levels = collectDirty(this.#editor.pool, tree.root, tree.height);
      for (let level = 0; level < levels.length; level++) {
        this.#settleLevel(levels[level] as DirtyLevel, level, blocks);
      }
    }
    return blocks;
  }

  #settleLevel(level: DirtyLevel, number: number, blocks: AssignedBlock[]): void {
    for (let index = 0; index < level.buffers.length; index++) {
      const buffer = level.buffers[index] as number;
      const vbn = this.#assigned.get(buffer);
      invariant(vbn !== undefined, 'every changed block of the map has its VBN');
      const crc = crc32(this.#editor.pool.bytes(buffer));
      this.#editor.trees.settle(buffer, vbn, crc, undefined, 0, false);
      this.#editor.pool.pin(buffer);
      blocks.push({
        buffer,
        vbn,
        words: level.words[index] as Uint32Array,
        at: level.ats[index] as number,
        level: number,
        fbn: level.fbns[index] as number,
      });
    }
  }
}

function same(done: Uint32Array, now: Uint32Array | undefined): boolean {
  for (let index = 0; index < SEGMENT_WORDS; index++) {
    if (done[index] !== (now?.[index] ?? 0)) return false;
  }
  return true;
}
