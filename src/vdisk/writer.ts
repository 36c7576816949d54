/**
 * Writing a vdisk.
 *
 * Small writes (under 64 KiB) become dirty buffers. Large ones are placed first, straight from the
 * caller's bytes, and enter the tree when they are on the medium: no byte is copied or written
 * twice.
 *
 * 1. A piece (the part of a request in one level-1 range) changes in one synchronous step: what was
 *    looked at is true, nothing is seen half written.
 * 2. A write that finds no space changes nothing, as far as one piece goes; all of its space is
 *    asked for before the first piece.
 * 3. The head tree is asked for anew after every await: a snapshot may have put another in its
 *    place.
 */
import { crc32 } from '../base/checksum.js';
import { invariant } from '../base/invariant.js';
import { isStoreError } from '../base/store-error.js';
import { BLOCK_BYTES, FIELDS_PER_BLOCK } from '../base/units.js';
import type { BlockTag } from '../layout/log-record.js';
import { FLAG_IN_MEMORY, POINTER_WORDS, putPointer, vbnAt, ZERO_VBN } from '../layout/pointer.js';
import { WALK_FIELD } from '../store/buffer-tree.js';
import type { Engine } from '../store/engine.js';
import { cutCost, cutRange, isCutLoaded } from '../store/range-cut.js';
import { ExtentList, type Tree } from '../store/tree.js';
import {
  type BlockSource,
  SOURCE_BUFFER,
  SOURCE_EXTERNAL,
  SOURCE_MISS,
  SOURCE_VBN,
} from './block-source.js';
import { externalUnder } from './externals.js';
import { HeldBlocks } from './held-blocks.js';
import type { Reader } from './reader.js';

/** Whole blocks of a request from this size on are placed before they enter the tree: 64 KiB. */
const LARGE_BLOCKS_MIN = 16;
/** Blocks placed in one go: 1 MiB. */
const PLACED_BLOCKS_MAX = 256;
/** Bytes of it that are summed and handed to the medium at a time. */
const PART_BYTES = 512 * 1024;

export interface WriteTarget {
  readonly name: string;
  readonly head: Tree;
  /** @throws {StoreError} not-found when the vdisk is gone, invalid when the range is beyond it */
  checkRange(offset: number, length: number): void;
}

type Step = 'done' | 'load' | 'room' | 'space';

export class Writer {
  readonly #engine: Engine;
  readonly #reader: Reader;
  readonly #source: BlockSource;
  /** Data block to load before a part of it can be written, and the external tree that has it. */
  #wantedData: { readonly fbn: number; readonly external: Tree | undefined } | undefined;

  constructor(engine: Engine, reader: Reader) {
    this.#engine = engine;
    this.#reader = reader;
    this.#source = reader.source;
  }

  write(target: WriteTarget, offset: number, data: Uint8Array): void | Promise<void> {
    this.#engine.assertAlive();
    if (data.length === 0) return;
    const firstWhole = Math.ceil(offset / BLOCK_BYTES);
    const endWhole = Math.floor((offset + data.length) / BLOCK_BYTES);
    if (endWhole - firstWhole >= LARGE_BLOCKS_MIN) return this.#writeLarge(target, offset, data);
    const end = offset + data.length;
    for (let at = offset; at < end; ) {
      const next = Math.min(end, nextRange(at));
      const bytes = at === offset && next === end ? data : slice(data, at - offset, next - offset);
      const step = this.#tryPiece(target.head, at, bytes);
      if (step !== 'done') return this.#writeLater(target, at, slice(data, at - offset), step);
      at = next;
    }
  }

  async #writeLater(
    target: WriteTarget,
    offset: number,
    data: Uint8Array,
    first: Step,
  ): Promise<void> {
    const end = offset + data.length;
    const held = new HeldBlocks(this.#engine.pool);
    let step = first;
    try {
      for (let at = offset; at < end; ) {
        const next = Math.min(end, nextRange(at));
        const bytes = slice(data, at - offset, next - offset);
        if (step === 'done') step = this.#tryPiece(target.head, at, bytes, held);
        let didWait = false;
        while (step !== 'done') {
          didWait = await this.#waitFor(step, target, didWait, held);
          target.checkRange(at, bytes.length);
          step = this.#tryPiece(target.head, at, bytes, held);
        }
        at = next;
      }
    } finally {
      held.release();
    }
  }

  /** Makes true what a step lacked. @returns true if a consistency point gave no space so far */
  async #waitFor(
    step: Step,
    target: WriteTarget,
    didWait: boolean,
    held?: HeldBlocks,
  ): Promise<boolean> {
    const engine = this.#engine;
    const wanted = this.#wantedData;
    if (step === 'load') {
      this.#wantedData = undefined;
      if (wanted?.external !== undefined) await this.#hold(wanted.external, wanted.fbn, held);
      else if (wanted !== undefined) await this.#loadData(target, wanted.fbn);
      else await this.#reader.loadAll(this.#source.missing.slice());
    } else if (step === 'room') {
      await engine.bufferRoom();
    } else {
      if (didWait && !engine.hasPendingFrees) throw engine.outOfSpace();
      await engine.consistencyPoint();
      engine.assertAlive();
      return true;
    }
    engine.assertAlive();
    return didWait;
  }

  async #loadData(target: WriteTarget, fbn: number): Promise<void> {
    await this.#reader.read(target, fbn * BLOCK_BYTES, new Uint8Array(BLOCK_BYTES));
  }

  async #hold(external: Tree, fbn: number, held: HeldBlocks | undefined): Promise<void> {
    invariant(held !== undefined, 'who writes a part of a block can hold the old one');
    const bytes = new Uint8Array(BLOCK_BYTES);
    await this.#reader.externals.read(external, fbn, bytes);
    held.put(fbn, bytes);
  }

  /** One piece, in one level-1 range. */
  #tryPiece(tree: Tree, offset: number, data: Uint8Array, held?: HeldBlocks): Step {
    const engine = this.#engine;
    const { trees, pool, generation } = engine;
    if (!engine.hasBufferRoomFor(tree)) return 'room';
    const first = Math.floor(offset / BLOCK_BYTES);
    const last = Math.floor((offset + data.length - 1) / BLOCK_BYTES);
    const count = last - first + 1;
    pool.makeFree(count + 2 * tree.height + 4);
    this.#source.begin();
    const cost = trees.pathCost(tree, first, generation.number);
    if (cost < 0) {
      this.#source.missing.push({ vbn: trees.missVbn, crc: trees.missCrc });
      return 'load';
    }
    const headPart = offset % BLOCK_BYTES !== 0;
    const tailPart = (offset + data.length) % BLOCK_BYTES !== 0;
    const headSource =
      headPart || (first === last && tailPart) ? this.#pinOld(tree, first, held) : 0;
    if (headSource < 0) return 'load';
    const headValid = this.#source.validBytes;
    const tailSource = tailPart && last !== first ? this.#pinOld(tree, last, held) : 0;
    const tailValid = this.#source.validBytes;
    const isReady = tailSource >= 0 && this.#admit(tree, first, count, cost);
    if (isReady) {
      trees.dirtyPath(tree, first, generation);
      this.#applyPiece(tree, offset, data, { headSource, headValid, tailSource, tailValid });
    }
    if (headSource > 0) pool.unpin(headSource);
    if (tailSource > 0) pool.unpin(tailSource);
    if (tailSource < 0) return 'load';
    if (!isReady) return 'space';
    engine.changed();
    return 'done';
  }

  /** Pins the buffer with the block's old bytes: 0 for zeros, -1 if it must be loaded first. */
  #pinOld(tree: Tree, fbn: number, held: HeldBlocks | undefined): number {
    const found = this.#source.find(tree, fbn);
    if (found === SOURCE_MISS) return -1;
    if (found === SOURCE_VBN) {
      this.#wantedData = { fbn, external: undefined };
      return -1;
    }
    if (found === SOURCE_EXTERNAL) {
      // Its content never changes, so what was loaded for this write is still true.
      const buffer = held?.pin(fbn) ?? -1;
      if (buffer < 0) this.#wantedData = { fbn, external: externalUnder(tree) };
      return buffer;
    }
    if (found !== SOURCE_BUFFER) return 0;
    this.#engine.pool.pin(this.#source.buffer);
    return this.#source.buffer;
  }

  /** True if the store has room. The plain case is one look; a full store is looked at closely. */
  #admit(tree: Tree, first: number, count: number, cost: number): boolean {
    const { medium } = this.#engine;
    if (medium.hasRoom({ dataBlocks: count, metaBlocks: cost }, 'client')) return true;
    const { fresh, mapped } = this.#countFresh(tree, first, count);
    const demand = { dataBlocks: fresh, metaBlocks: cost };
    return medium.hasRoom(demand, mapped ? 'overwrite' : 'client');
  }

  /** Blocks that need a new buffer; `mapped`: each of them replaces a block of this tree. */
  #countFresh(tree: Tree, first: number, count: number): { fresh: number; mapped: boolean } {
    const { trees, pool, generation } = this.#engine;
    if (trees.walk(tree, first) !== WALK_FIELD) return { fresh: count, mapped: false };
    let fresh = 0;
    let mapped = true;
    for (let index = 0; index < count; index++) {
      const at = trees.fieldAt + index * POINTER_WORDS;
      const isBuffer = ((trees.fieldWords[at + 1] as number) & FLAG_IN_MEMORY) !== 0;
      const buffer = trees.fieldWords[at] as number;
      if (isBuffer && pool.generation[buffer] === generation.number) continue;
      fresh++;
      if (!isBuffer && vbnAt(trees.fieldWords, at) <= ZERO_VBN) mapped = false;
    }
    return { fresh, mapped };
  }

  /** Writes into the level-1 block that dirtyPath left. */
  #applyPiece(tree: Tree, offset: number, data: Uint8Array, old: OldBlocks): void {
    const { trees, pool, generation } = this.#engine;
    const end = offset + data.length;
    const first = Math.floor(offset / BLOCK_BYTES);
    let fbn = first;
    for (let at = offset; at < end; fbn++) {
      const start = at - fbn * BLOCK_BYTES;
      const length = Math.min(BLOCK_BYTES - start, end - at);
      const words = trees.fieldWords;
      const field = trees.fieldAt;
      const isBuffer = ((words[field + 1] as number) & FLAG_IN_MEMORY) !== 0;
      let buffer = words[field] as number;
      if (isBuffer && pool.generation[buffer] === generation.number) {
        words[field + 1] = FLAG_IN_MEMORY; // a client's block now, whoever put it there
        pool.summed[buffer] = 0;
      } else {
        buffer = pool.take();
        if (length < BLOCK_BYTES) {
          if (fbn === first) this.#copyOld(buffer, old.headSource, old.headValid);
          else this.#copyOld(buffer, old.tailSource, old.tailValid);
        }
        trees.putData(tree, buffer, generation, false);
      }
      pool
        .slabOf(buffer)
        .set(
          length === data.length ? data : data.subarray(at - offset, at - offset + length),
          pool.byteStart(buffer) + start,
        );
      pool.unlogged[buffer] = 1;
      trees.fieldAt += POINTER_WORDS;
      at += length;
    }
    tree.unlogged ??= new ExtentList();
    tree.unlogged.push(first, fbn - first);
  }

  #copyOld(buffer: number, source: number, valid: number): void {
    const { pool } = this.#engine;
    const slab = pool.slabOf(buffer);
    const start = pool.byteStart(buffer);
    if (source === 0) {
      slab.fill(0, start, start + BLOCK_BYTES);
      return;
    }
    const from = pool.byteStart(source);
    pool.slabOf(source).copy(slab, start, from, from + valid);
    if (valid < BLOCK_BYTES) slab.fill(0, start + valid, start + BLOCK_BYTES);
  }

  // -- large

  async #writeLarge(target: WriteTarget, offset: number, data: Uint8Array): Promise<void> {
    const end = offset + data.length;
    let at = offset;
    while (at < end) {
      const isWhole = at % BLOCK_BYTES === 0 && end - at >= BLOCK_BYTES;
      if (isWhole) {
        const blocks = Math.min(PLACED_BLOCKS_MAX, Math.floor((end - at) / BLOCK_BYTES));
        const length = blocks * BLOCK_BYTES;
        await this.#placePiece(target, at, slice(data, at - offset, at - offset + length));
        at += length;
      } else {
        // The part of a block at either end.
        const next = Math.min(end, (Math.floor(at / BLOCK_BYTES) + 1) * BLOCK_BYTES);
        await this.#writeLater(target, at, slice(data, at - offset, next - offset), 'done');
        at = next;
      }
    }
  }

  async #placePiece(target: WriteTarget, offset: number, data: Uint8Array): Promise<void> {
    const { medium } = this.#engine;
    const first = offset / BLOCK_BYTES;
    const count = data.length / BLOCK_BYTES;
    for (let didWait = false; !this.#mayPlace(target, first, count); ) {
      didWait = await this.#waitToPlace(target, count, didWait);
    }
    const placed = this.#place(target.head, first, data);
    const { vbns, writes } = placed;
    let entered = 0;
    try {
      // All must have ended before the caller may use its bytes again, even if one failed.
      for (const outcome of await Promise.allSettled(writes)) {
        if (outcome.status === 'rejected') throw this.#engine.fail(outcome.reason);
      }
      while (entered < vbns.length) {
        entered += await this.#enter(target, first, placed, entered);
      }
    } finally {
      for (const vbn of vbns.slice(entered)) medium.abandon(vbn, 'data');
    }
  }

  /** Places the blocks in parts: the sums of one are taken while the one before is written. */
  #place(tree: Tree, first: number, data: Uint8Array): PlacedBlocks {
    const vbns: number[] = [];
    const crcs = new Uint32Array(data.length / BLOCK_BYTES);
    const writes: Promise<void>[] = [];
    for (let at = 0; at < data.length; at += PART_BYTES) {
      const part = slice(data, at, Math.min(data.length, at + PART_BYTES));
      const firstOfPart = at / BLOCK_BYTES;
      const sums = crcs.subarray(firstOfPart);
      const blocks = { treeId: tree.id, first: first + firstOfPart };
      const tags = sumBlocks(part, blocks, sums);
      const placed = this.#engine.medium.place('data', [part], tags);
      writes.push(placed.written);
      for (const vbn of placed.vbns) vbns.push(vbn);
    }
    return { vbns, crcs, writes };
  }

  /** True if the blocks can be placed. They must be in the same synchronous step. */
  #mayPlace(target: WriteTarget, first: number, count: number): boolean {
    this.#engine.assertAlive();
    target.checkRange(first * BLOCK_BYTES, count * BLOCK_BYTES);
    return this.#hasRoomFor(target, count) && this.#engine.medium.isReady('data', count);
  }

  #hasRoomFor(target: WriteTarget, count: number): boolean {
    const demand = { dataBlocks: count, metaBlocks: 2 * target.head.height };
    return this.#engine.medium.hasRoom(demand, 'client');
  }

  /** @returns true if a consistency point gave no space so far */
  async #waitToPlace(target: WriteTarget, count: number, didWait: boolean): Promise<boolean> {
    const engine = this.#engine;
    if (this.#hasRoomFor(target, count)) {
      await this.#prepare(count);
      return didWait;
    }
    const waited = await this.#waitFor('space', target, didWait);
    // An overwrite needs no more room in the end: block by block it may still find it.
    if (!this.#hasRoomFor(target, count) && !engine.hasPendingFrees) throw engine.outOfSpace();
    return waited;
  }

  async #prepare(count: number): Promise<void> {
    try {
      await this.#engine.medium.prepare('data', count);
    } catch (error) {
      if (isStoreError(error, 'device')) throw this.#engine.fail(error);
      throw error;
    }
  }

  /** Puts the placed blocks of one level-1 range into the tree; returns how many. */
  async #enter(
    target: WriteTarget,
    first: number,
    { vbns, crcs }: PlacedBlocks,
    from: number,
  ): Promise<number> {
    const engine = this.#engine;
    const fbn = first + from;
    const count = Math.min(vbns.length - from, FIELDS_PER_BLOCK - (fbn % FIELDS_PER_BLOCK));
    for (let didWait = false; ; ) {
      engine.assertAlive();
      target.checkRange(fbn * BLOCK_BYTES, count * BLOCK_BYTES);
      const tree = target.head;
      const { trees, generation, pool, medium } = engine;
      pool.makeFree(2 * tree.height + 4);
      const cost = trees.pathCost(tree, fbn, generation.number);
      if (cost < 0) {
        await this.#reader.loadAll([{ vbn: trees.missVbn, crc: trees.missCrc }]);
        continue;
      }
      if (!engine.hasBufferRoom) {
        await engine.bufferRoom();
        continue;
      }
      if (!medium.hasRoom({ dataBlocks: 0, metaBlocks: cost }, 'overwrite')) {
        didWait = await this.#waitFor('space', target, didWait);
        continue;
      }
      trees.dirtyPath(tree, fbn, generation);
      for (let index = 0; index < count; index++) {
        const at = trees.fieldAt + index * POINTER_WORDS;
        const vbn = vbns[from + index] as number;
        if (!trees.letGoField(tree, trees.fieldWords, at, generation)) tree.mappedBlocks++;
        putPointer(trees.fieldWords, at, vbn, crcs[from + index] as number, 0);
        medium.adopt(vbn, 'data', generation);
      }
      tree.unlogged ??= new ExtentList();
      tree.unlogged.push(fbn, count);
      engine.changed();
      return count;
    }
  }

  // -- zeros

  /** The range reads as zeros; its whole blocks are given back. */
  zero(target: WriteTarget, offset: number, length: number): void | Promise<void> {
    this.#engine.assertAlive();
    if (length === 0) return;
    return this.#zeroLater(target, offset, length);
  }

  async #zeroLater(target: WriteTarget, offset: number, length: number): Promise<void> {
    const end = offset + length;
    const from = Math.ceil(offset / BLOCK_BYTES);
    // The vdisk's last block may be a part of one: nothing behind its end has to be kept.
    const isEnd = end === target.head.sizeBytes;
    const to = isEnd ? Math.ceil(end / BLOCK_BYTES) : Math.floor(end / BLOCK_BYTES);
    if (from >= to) return this.#writeZeros(target, offset, length);
    if (from * BLOCK_BYTES > offset) {
      await this.#writeZeros(target, offset, from * BLOCK_BYTES - offset);
    }
    await this.#cut(target, from, to);
    if (to * BLOCK_BYTES < end) {
      await this.#writeZeros(target, to * BLOCK_BYTES, end - to * BLOCK_BYTES);
    }
  }

  #writeZeros(target: WriteTarget, offset: number, length: number): Promise<void> {
    target.checkRange(offset, length);
    return this.#writeLater(target, offset, new Uint8Array(length), 'done');
  }

  async #cut(target: WriteTarget, from: number, to: number): Promise<void> {
    const engine = this.#engine;
    for (let didWait = false; ; ) {
      engine.assertAlive();
      target.checkRange(from * BLOCK_BYTES, 0);
      const tree = target.head;
      engine.pool.makeFree(cutCost(tree));
      if (!isCutLoaded(engine, tree, from, to)) {
        await this.#reader.loadAll([{ vbn: engine.trees.missVbn, crc: engine.trees.missCrc }]);
        continue;
      }
      if (!engine.medium.hasRoom({ dataBlocks: 0, metaBlocks: cutCost(tree) }, 'trim')) {
        didWait = await this.#waitFor('space', target, didWait);
        continue;
      }
      const kind = tree.needsZeros ? 'zero' : 'hole';
      cutRange(engine, tree, from, to, kind);
      engine.generation.units.push([
        { kind: 'range', treeId: tree.id, fbn: from, blocks: to - from, to: kind },
      ]);
      engine.changed();
      return;
    }
  }
}

/** What a large write has placed: VBN and checksum of each block, and the writes under way. */
interface PlacedBlocks {
  readonly vbns: readonly number[];
  readonly crcs: Uint32Array;
  readonly writes: readonly Promise<void>[];
}

interface OldBlocks {
  readonly headSource: number;
  readonly headValid: number;
  readonly tailSource: number;
  readonly tailValid: number;
}

/** First byte of the level-1 range after the one of this byte. */
function nextRange(offset: number): number {
  const rangeBytes = FIELDS_PER_BLOCK * BLOCK_BYTES;
  return (Math.floor(offset / rangeBytes) + 1) * rangeBytes;
}

function slice(data: Uint8Array, from: number, to = data.length): Uint8Array {
  return from === 0 && to === data.length ? data : data.subarray(from, to);
}

/** What the medium is told of each block of a write; puts the sums into `crcs`. */
function sumBlocks(
  data: Uint8Array,
  { treeId, first }: { readonly treeId: number; readonly first: number },
  crcs: Uint32Array,
): BlockTag[] {
  const tags: BlockTag[] = [];
  for (let index = 0; index * BLOCK_BYTES < data.length; index++) {
    const start = data.byteOffset + index * BLOCK_BYTES;
    const crc = crc32(new Uint8Array(data.buffer, start, BLOCK_BYTES));
    crcs[index] = crc;
    tags.push({ treeId, fbn: first + index, level: 0, crc, kind: 'data' });
  }
  return tags;
}
