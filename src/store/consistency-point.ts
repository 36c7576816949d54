/**
 * Writes one frozen generation: data, indirect blocks from the bottom up, reference file, records,
 * then, through the medium, maps and root.
 *
 * 1. What is written is the store as it was at the freeze; clients go on in the next generation.
 * 2. Work is done in slices of at most SLICE_BLOCKS blocks, with a yield between them.
 * 3. A block that clients let go of while it waited here is written all the same (the frozen tree
 *    names it) and is free in the next generation.
 */
import { crc32 } from '../base/checksum.js';
import type { Clock } from '../env/clock.js';
import type { BlockTag, TagKind } from '../layout/log-record.js';
import {
  encodeTreeRecord,
  TREE_RECORDS_PER_BLOCK,
  type TreeRecord,
} from '../layout/tree-record.js';
import { encodeVdiskRecord, VDISK_RECORDS_PER_BLOCK } from '../layout/vdisk-record.js';
import type { Generation } from './generation.js';
import type { Medium } from './medium.js';
import {
  collectDirty,
  cutZeros,
  type DirtyLevel,
  type MetafileEditor,
  rootOf,
} from './metafile.js';
import { applyReferences } from './reference-file.js';
import type { Tree, TreeTable } from './tree.js';

/** Blocks between two yields: about a millisecond of checksums and copies. */
const SLICE_BLOCKS = 256;
/** Slices whose writes may be under way at once: 4 MiB. */
const SLICES_IN_FLIGHT = 4;

export interface Metafiles {
  readonly tree: Tree;
  readonly vdisk: Tree;
  readonly reference: Tree;
  readonly usage: Tree;
  readonly map: Tree;
}

export interface CpContext {
  readonly medium: Medium;
  readonly editor: MetafileEditor;
  readonly clock: Clock;
  readonly table: TreeTable;
  readonly metafiles: Metafiles;
  /** The generation that clients change now. */
  live(): Generation;
  /** Dirty buffers became clean: who waits for room may look again. */
  roomMade(): void;
  readonly incompatible: number;
  ids(): { readonly nextTreeId: number; readonly nextVdiskId: number };
}

export class ConsistencyPoint {
  readonly #context: CpContext;
  readonly #generation: Generation;
  readonly #writes: Promise<void>[] = [];
  #sliceLeft = SLICE_BLOCKS;
  /** Resolves when every data block of the generation is placed. */
  readonly dataPlaced: Promise<void>;
  #dataDone: () => void = () => undefined;
  blocksWritten = 0;

  constructor(context: CpContext, generation: Generation) {
    this.#context = context;
    this.#generation = generation;
    this.dataPlaced = new Promise((resolve) => {
      this.#dataDone = resolve;
    });
  }

  async run(clean: boolean): Promise<void> {
    const { medium, metafiles } = this.#context;
    const trees = [...this.#generation.trees].sort((a, b) => a.id - b.id);
    const uppers: (() => Promise<void>)[] = [];
    for (const tree of trees) uppers.push(await this.#placeData(tree));
    this.#dataDone();
    for (const upper of uppers) await upper();
    const freedData = await applyReferences(this.#context, this.#generation);
    await this.#writeRecords();
    for (const renewal of this.#generation.renewals) {
      // The usage file is the medium's to write.
      if (renewal.name === 'usage') continue;
      await this.#context.editor.renew(metafiles[renewal.name], renewal, this.#generation);
    }
    await this.#placeMetafile(metafiles.reference, 'cut');
    for (const file of [metafiles.tree, metafiles.vdisk]) await this.#placeMetafile(file, 'keep');
    await Promise.all(this.#writes.splice(0));
    const { nextTreeId, nextVdiskId } = this.#context.ids();
    await medium.commit({
      generation: this.#generation,
      clean,
      roots: {
        tree: rootOf(metafiles.tree),
        vdisk: rootOf(metafiles.vdisk),
        reference: rootOf(metafiles.reference),
      },
      freedData,
      nextTreeId,
      nextVdiskId,
      incompatible: this.#context.incompatible,
    });
  }

  /** Places the tree's data; returns what places its indirect blocks. */
  async #placeData(tree: Tree): Promise<() => Promise<void>> {
    const frozen = tree.frozen;
    if (frozen === undefined) return () => Promise.resolve();
    const levels = collectDirty(this.#context.editor.pool, frozen.root, frozen.record.height);
    await this.#placeLevel(tree.id, levels[0] as DirtyLevel, 0, 'data');
    return async () => {
      for (let level = 1; level < levels.length; level++) {
        await this.#placeLevel(tree.id, levels[level] as DirtyLevel, level, 'meta');
      }
    };
  }

  /** @param zeros  what becomes of blocks without a bit: files of records use them again soon */
  async #placeMetafile(file: Tree, zeros: 'cut' | 'keep'): Promise<void> {
    const { trees, pool } = this.#context.editor;
    const levels = collectDirty(pool, file.root, file.height);
    if (zeros === 'cut') cutZeros(trees, levels);
    for (let level = 0; level < levels.length; level++) {
      await this.#placeLevel(0, levels[level] as DirtyLevel, level, 'meta');
    }
  }

  async #placeLevel(
    treeId: number,
    dirty: DirtyLevel,
    level: number,
    kind: TagKind,
  ): Promise<void> {
    const { medium, clock } = this.#context;
    for (let start = 0; start < dirty.buffers.length; ) {
      const end = Math.min(dirty.buffers.length, start + this.#sliceLeft);
      const count = end - start;
      while (!medium.isReady(kind, count)) await medium.prepare(kind, count);
      this.#placeSlice(treeId, dirty, start, end, level, kind);
      this.#sliceLeft -= count;
      start = end;
      if (this.#sliceLeft > 0) continue;
      this.#sliceLeft = SLICE_BLOCKS;
      if (this.#writes.length >= SLICES_IN_FLIGHT) await this.#writes.shift();
      await clock.yield();
    }
  }

  #placeSlice(
    treeId: number,
    dirty: DirtyLevel,
    start: number,
    end: number,
    level: number,
    kind: TagKind,
  ): void {
    const { medium, editor, roomMade } = this.#context;
    const { pool, trees } = editor;
    const blocks: Uint8Array[] = [];
    const tags: BlockTag[] = [];
    for (let index = start; index < end; index++) {
      const buffer = dirty.buffers[index] as number;
      const bytes = pool.bytes(buffer);
      const crc = pool.summed[buffer] === 1 ? (pool.crc[buffer] as number) : crc32(bytes);
      pool.crc[buffer] = crc;
      blocks.push(bytes);
      tags.push({ treeId, fbn: dirty.fbns[index] as number, level, crc, kind });
    }
    const { vbns, written } = medium.place(kind, blocks, tags);
    for (let index = start; index < end; index++) {
      const buffer = dirty.buffers[index] as number;
      const vbn = vbns[index - start] as number;
      const words = dirty.words[index] as Uint32Array;
      medium.adopt(vbn, kind, this.#generation);
      pool.pin(buffer);
      const isLive = trees.settle(
        buffer,
        vbn,
        pool.crc[buffer] as number,
        words,
        dirty.ats[index] as number,
        kind === 'data',
      );
      if (!isLive) this.#freeInNext(treeId, vbn, kind);
    }
    this.blocksWritten += end - start;
    const buffers = dirty.buffers.slice(start, end);
    const settled = written.then(() => {
      for (const buffer of buffers) pool.unpin(buffer);
      roomMade();
    });
    // Awaited by the next slice but four, or at the end.
    settled.catch(() => undefined);
    this.#writes.push(settled);
  }

  #freeInNext(treeId: number, vbn: number, kind: TagKind): void {
    const live = this.#context.live();
    if (kind === 'data') live.freeData(treeId, vbn);
    else live.metaFrees.add(vbn);
  }

  // -- records

  async #writeRecords(): Promise<void> {
    const { metafiles } = this.#context;
    const generation = this.#generation;
    for (const index of generation.removedTrees) {
      await this.#putRecord(metafiles.tree, index, TREE_RECORDS_PER_BLOCK, (bytes) =>
        bytes.fill(0),
      );
    }
    for (const tree of generation.trees) {
      const frozen = tree.frozen;
      if (frozen === undefined) continue;
      const [a, b, c, d] = frozen.root;
      const record: TreeRecord = {
        ...frozen.record,
        root: [a as number, b as number, c as number, d as number],
      };
      await this.#putRecord(metafiles.tree, tree.recordIndex, TREE_RECORDS_PER_BLOCK, (bytes) =>
        encodeTreeRecord(record, bytes),
      );
    }
    for (const [index, record] of generation.vdisks) {
      await this.#putRecord(metafiles.vdisk, index, VDISK_RECORDS_PER_BLOCK, (bytes) => {
        if (record === undefined) bytes.fill(0);
        else encodeVdiskRecord(record, bytes);
      });
    }
  }

  async #putRecord(
    file: Tree,
    index: number,
    perBlock: number,
    encode: (bytes: Uint8Array) => void,
  ): Promise<void> {
    const { editor, clock } = this.#context;
    const buffer = await editor.edit(file, Math.floor(index / perBlock), this.#generation);
    const size = 4096 / perBlock;
    const start = (index % perBlock) * size;
    encode(editor.pool.bytes(buffer).subarray(start, start + size));
    if (--this.#sliceLeft > 0) return;
    this.#sliceLeft = SLICE_BLOCKS;
    await clock.yield();
  }
}
