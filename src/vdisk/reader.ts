/**
 * Reading a vdisk. What is in memory is copied at once, without a promise.
 *
 * 1. Every pass is synchronous: what it finds belongs together. A miss loads, then the pass starts
 *    again.
 * 2. Data goes to the caller only after its checksum agreed; a block that does not is `corrupt` and
 *    named by vdisk and FBN.
 * 3. Blocks with adjacent VBNs are read in one call. Short reads stay in memory; long ones go
 *    straight to the caller, so that a backup does not push everybody's working set out. What an
 *    external backing store has is not kept: the system keeps its file.
 */
import { invariant } from '../base/invariant.js';
import { isStoreError, StoreError } from '../base/store-error.js';
import { BLOCK_BYTES } from '../base/units.js';
import type { Engine } from '../store/engine.js';
import type { Tree } from '../store/tree.js';
import {
  BlockSource,
  SOURCE_BUFFER,
  SOURCE_EXTERNAL,
  SOURCE_MISS,
  SOURCE_VBN,
} from './block-source.js';
import { type Externals, externalUnder } from './externals.js';
import { ReadAhead } from './read-ahead.js';
import type { Missing, Resolver } from './resolution.js';

/** Reads of fewer blocks than this stay in memory. */
const KEPT_BLOCKS_MAX = 16;
/** Blocks of one device read: 1 MiB. */
const RUN_BLOCKS_MAX = 256;

/** The head tree may change while a read waits: it is asked for anew in every pass. */
export interface ReadTarget {
  readonly name: string;
  readonly head: Tree;
  /** @throws {StoreError} not-found when the vdisk is gone */
  checkRange(offset: number, length: number): void;
}

interface WantedPart {
  readonly fbn: number;
  readonly validBytes: number;
}

interface WantedBlock extends WantedPart {
  readonly vbn: number;
  readonly crc: number;
}

/** What a look has found to be read. */
interface Wanted {
  readonly blocks: WantedBlock[];
  /** In the external backing store. */
  readonly external: WantedPart[];
}

export class Reader {
  readonly #engine: Engine;
  readonly source: BlockSource;
  readonly externals: Externals;
  readonly #ahead: ReadAhead | undefined;

  constructor(engine: Engine, resolver: Resolver) {
    this.#engine = engine;
    this.source = new BlockSource(engine, resolver);
    this.externals = resolver.externals;
    if (!engine.medium.readsAhead) return;
    this.#ahead = new ReadAhead(engine, this, new BlockSource(engine, resolver));
  }

  read(target: ReadTarget, offset: number, into: Uint8Array): void | Promise<void> {
    this.#engine.assertAlive();
    if (this.#readNow(target.head, offset, into)) return;
    return this.#readLater(target, offset, into);
  }

  /** Copies the range if all of it is in memory. */
  #readNow(tree: Tree, offset: number, into: Uint8Array): boolean {
    this.source.begin();
    const end = offset + into.length;
    for (let at = offset; at < end; ) {
      const fbn = Math.floor(at / BLOCK_BYTES);
      const start = at - fbn * BLOCK_BYTES;
      const count = Math.min(BLOCK_BYTES - start, end - at);
      const found = this.source.find(tree, fbn);
      if (found >= SOURCE_VBN) return false;
      this.#deliver(found, into, at - offset, start, count);
      at += count;
    }
    return true;
  }

  #deliver(found: number, into: Uint8Array, at: number, start: number, count: number): void {
    if (found !== SOURCE_BUFFER) {
      into.fill(0, at, at + count);
      return;
    }
    const { pool } = this.#engine;
    const { buffer, validBytes } = this.source;
    const slab = pool.slabOf(buffer);
    const from = pool.byteStart(buffer) + start;
    const valid = Math.max(0, Math.min(count, validBytes - start));
    slab.copy(into, at, from, from + valid);
    if (valid < count) into.fill(0, at + valid, at + count);
  }

  async #readLater(target: ReadTarget, offset: number, into: Uint8Array): Promise<void> {
    for (;;) {
      const wanted: Wanted = { blocks: [], external: [] };
      const missing = this.#collect(target.head, offset, into, wanted);
      if (missing.length === 0) {
        // Still the same synchronous step: the reads count from here on.
        const reading = this.#fetchAll(target, wanted, offset, into);
        // Behind it: what is wanted now is asked for before what will be.
        const fbn = Math.floor(offset / BLOCK_BYTES);
        this.#ahead?.note(target, fbn, Math.ceil((offset + into.length) / BLOCK_BYTES) - fbn);
        return reading;
      }
      try {
        await this.loadAll(missing);
      } catch (error) {
        if (!isStoreError(error, 'corrupt')) throw error;
        throw await this.#named(target, offset, into.length, error);
      }
      this.#engine.assertAlive();
      // A deleted vdisk reads through nothing any more: it would look like zeros.
      target.checkRange(0, 0);
    }
  }

  /** Damaged metadata, by the name of the vdisk and the first block of the range that needs it. */
  async #named(
    target: ReadTarget,
    offset: number,
    length: number,
    error: StoreError,
  ): Promise<StoreError> {
    const end = offset + length;
    for (let fbn = Math.floor(offset / BLOCK_BYTES); fbn * BLOCK_BYTES < end; fbn++) {
      this.source.begin();
      if (this.source.find(target.head, fbn) !== SOURCE_MISS) continue;
      try {
        await this.loadAll(this.source.missing.slice());
      } catch (found) {
        if (!isStoreError(found, 'corrupt')) continue;
        const message = `vdisk ${target.name}, block ${fbn} (byte ${fbn * BLOCK_BYTES}): `;
        return new StoreError('corrupt', message + found.message, { cause: found });
      }
    }
    return error;
  }

  /** @throws {StoreError} corrupt, device; an ExternalError */
  loadAll(missing: readonly Missing[]): Promise<unknown> {
    const seen = new Set<number>();
    const loads: Promise<void>[] = [];
    let presence = -1;
    for (const each of missing) {
      if ('external' in each) {
        // A request is in one lineage: there is one external tree.
        if (each.piece !== presence) loads.push(this.externals.loadPresence(each));
        presence = each.piece;
      } else if (!seen.has(each.vbn)) {
        seen.add(each.vbn);
        loads.push(this.#engine.loader.loadMeta(each.vbn, each.crc));
      }
    }
    return Promise.all(loads);
  }

  /** Delivers what is in memory, lists what has to be read; returns what to load first. */
  #collect(tree: Tree, offset: number, into: Uint8Array, wanted: Wanted): Missing[] {
    const { source } = this;
    source.begin();
    const end = offset + into.length;
    for (let at = offset; at < end; ) {
      const fbn = Math.floor(at / BLOCK_BYTES);
      const start = at - fbn * BLOCK_BYTES;
      const count = Math.min(BLOCK_BYTES - start, end - at);
      const found = source.find(tree, fbn);
      if (found === SOURCE_VBN) {
        const { vbn, crc, validBytes } = source;
        wanted.blocks.push({ fbn, vbn, crc, validBytes });
      } else if (found === SOURCE_EXTERNAL) {
        wanted.external.push({ fbn, validBytes: source.validBytes });
      } else if (found !== SOURCE_MISS) {
        this.#deliver(found, into, at - offset, start, count);
      }
      at += count;
    }
    return source.missing.slice();
  }

  async #fetchAll(
    target: ReadTarget,
    wanted: Wanted,
    offset: number,
    into: Uint8Array,
  ): Promise<void> {
    const { blocks, external } = wanted;
    const reads = this.#fetch(target.name, blocks, offset, into);
    if (external.length > 0) {
      const tree = externalUnder(target.head);
      invariant(tree !== undefined, 'what is read outside of the store has an external tree');
      reads.push(...this.#fetchExternal(tree, external, offset, into));
    }
    if (reads.length === 1) return reads[0];
    // The caller may use its buffer again when this is over: nothing may still be read into it.
    for (const outcome of await Promise.allSettled(reads)) {
      if (outcome.status === 'rejected') throw outcome.reason;
    }
  }

  /** Adjacent blocks in one call. */
  #fetchExternal(
    tree: Tree,
    wanted: readonly WantedPart[],
    offset: number,
    into: Uint8Array,
  ): Promise<void>[] {
    const reads: Promise<void>[] = [];
    for (let start = 0; start < wanted.length; ) {
      let end = start + 1;
      const first = (wanted[start] as WantedPart).fbn;
      while (
        end < wanted.length &&
        end - start < RUN_BLOCKS_MAX &&
        (wanted[end] as WantedPart).fbn === first + end - start
      ) {
        end++;
      }
      reads.push(this.#fetchExternalRun(tree, wanted.slice(start, end), offset, into));
      start = end;
    }
    return reads;
  }

  async #fetchExternalRun(
    tree: Tree,
    run: readonly WantedPart[],
    offset: number,
    into: Uint8Array,
  ): Promise<void> {
    const { fbn } = run[0] as WantedPart;
    const at = fbn * BLOCK_BYTES - offset;
    const length = run.length * BLOCK_BYTES;
    const isInside = at >= 0 && at + length <= into.length;
    const bytes = isInside ? into.subarray(at, at + length) : new Uint8Array(length);
    await this.externals.read(tree, fbn, bytes);
    run.forEach((part, index) => {
      const start = index * BLOCK_BYTES;
      if (!isInside) copyOut(part, bytes.subarray(start, start + BLOCK_BYTES), offset, into);
      else bytes.fill(0, start + part.validBytes, start + BLOCK_BYTES);
    });
  }

  #fetch(
    name: string,
    wanted: readonly WantedBlock[],
    offset: number,
    into: Uint8Array,
  ): Promise<void>[] {
    const keep = wanted.length <= KEPT_BLOCKS_MAX;
    const reads: Promise<void>[] = [];
    for (let start = 0; start < wanted.length; ) {
      let end = start + 1;
      const first = (wanted[start] as WantedBlock).vbn;
      while (
        end < wanted.length &&
        end - start < RUN_BLOCKS_MAX &&
        (wanted[end] as WantedBlock).vbn === first + end - start
      ) {
        end++;
      }
      const run = wanted.slice(start, end);
      reads.push(
        keep ? this.#fetchKept(name, run, offset, into) : this.#fetchRun(name, run, offset, into),
      );
      start = end;
    }
    return reads;
  }

  async #fetchKept(
    name: string,
    run: readonly WantedBlock[],
    offset: number,
    into: Uint8Array,
  ): Promise<void> {
    const { pool } = this.#engine;
    const buffers = run.map(() => pool.take());
    const blocks = buffers.map((buffer) => pool.bytes(buffer));
    try {
      await this.#readRun(name, run, blocks);
      run.forEach((block, index) => {
        const buffer = buffers[index] as number;
        copyOut(block, blocks[index] as Uint8Array, offset, into);
        if (pool.find(block.vbn) < 0) pool.setClean(buffer, block.vbn, block.crc);
        else pool.drop(buffer);
      });
    } catch (error) {
      for (const buffer of buffers) pool.drop(buffer);
      throw error;
    } finally {
      for (const buffer of buffers) pool.unpin(buffer);
    }
  }

  async #fetchRun(
    name: string,
    run: readonly WantedBlock[],
    offset: number,
    into: Uint8Array,
  ): Promise<void> {
    const spare: { block: WantedBlock; bytes: Uint8Array }[] = [];
    const blocks = run.map((block) => {
      const at = block.fbn * BLOCK_BYTES - offset;
      if (at >= 0 && at + BLOCK_BYTES <= into.length) return into.subarray(at, at + BLOCK_BYTES);
      const bytes = new Uint8Array(BLOCK_BYTES);
      spare.push({ block, bytes });
      return bytes;
    });
    await this.#readRun(name, run, blocks);
    for (const { block, bytes } of spare) copyOut(block, bytes, offset, into);
    for (const block of run) {
      if (block.validBytes === BLOCK_BYTES) continue;
      const at = block.fbn * BLOCK_BYTES - offset;
      into.fill(0, Math.max(0, at + block.validBytes), Math.min(into.length, at + BLOCK_BYTES));
    }
  }

  async #readRun(
    name: string,
    run: readonly WantedBlock[],
    blocks: readonly Uint8Array[],
  ): Promise<void> {
    const first = run[0] as WantedBlock;
    const crcs = run.map((block) => block.crc);
    const bad = await this.#engine.loader.readData(first.vbn, blocks, crcs);
    if (bad < 0) return;
    const { fbn, vbn } = run[bad] as WantedBlock;
    throw new StoreError(
      'corrupt',
      `vdisk ${name}, block ${fbn} (byte ${fbn * BLOCK_BYTES}): VBN ${vbn} does not have the ` +
        'checksum of its pointer; restore the block from a copy',
    );
  }
}

function copyOut(block: WantedPart, bytes: Uint8Array, offset: number, into: Uint8Array): void {
  const at = block.fbn * BLOCK_BYTES - offset;
  const from = Math.max(0, -at);
  const to = Math.min(BLOCK_BYTES, into.length - at);
  const valid = Math.min(to, Math.max(from, block.validBytes));
  into.set(bytes.subarray(from, valid), at + from);
  if (valid < to) into.fill(0, at + valid, at + to);
}
