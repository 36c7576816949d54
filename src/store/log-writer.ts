/**
 * Group commit: one log write for everybody who asked while the last one was under way.
 *
 * 1. A FLUSH covers every unlogged write of its trees and every act and range op before it.
 * 2. What goes into a group is read in one synchronous step from the live trees: the latest content
 *    of each block, behind all acts and range ops. A group leaves the store as it was at that step.
 * 3. A FLUSH is answered when its round and all before it are durable: what it covers may have gone
 *    into one of those. Where the medium takes several rounds at once they are collected one after
 *    the other all the same, and answered in that order.
 * 4. Acts and range ops of the frozen generation are logged under its number: replayed over a later
 *    consistency point they would undo what it holds.
 */
import { crc32 } from '../base/checksum.js';
import { BLOCK_BYTES } from '../base/units.js';
import { type LogEntry, logEntryBytes, POINTERS_COUNT_MAX } from '../layout/log-entry.js';
import { GROUP_BLOCKS_MAX } from '../layout/log-group.js';
import { FLAG_IN_MEMORY, vbnAt, ZERO_VBN } from '../layout/pointer.js';
import { WALK_FIELD, WALK_MISS } from './buffer-tree.js';
import type { Engine } from './engine.js';
import type { LogBatch } from './medium.js';
import type { ExtentList, Tree } from './tree.js';

/** Payload of one group: the rest is left to its header. */
const PAYLOAD_BLOCKS_MAX = GROUP_BLOCKS_MAX - 24;
/** Entries of acts in one group; the largest is 4 KiB. */
const UNIT_ENTRIES_MAX = 100;
/** Header of a group that was put together from two: what PAYLOAD_BLOCKS_MAX leaves free. */
const MERGED_HEADER_BYTES_MAX = 20 * BLOCK_BYTES;

/** Payload that goes into memory of the writer's own: what a few clients flush. */
const SCRATCH_BLOCKS = 16;

interface Request {
  readonly trees: readonly Tree[];
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** A round that the medium has, or one that could not be collected. */
type Appending = { readonly done: Promise<void> } | { readonly failure: unknown };

export class LogWriter {
  readonly #engine: Engine;
  #requests: Request[] = [];
  #running = false;
  /** Rounds that the medium has, the oldest first; none rejects. */
  #underWay: Promise<void>[] = [];
  /** Where payload goes into the log one round is under way: a small one needs no own memory. */
  readonly #scratch = Buffer.alloc(SCRATCH_BLOCKS * BLOCK_BYTES);

  constructor(engine: Engine) {
    this.#engine = engine;
  }

  /** Resolves when all acts, and the acknowledged writes of these trees, are durable. */
  flush(trees: readonly Tree[]): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#requests.push({ trees, resolve, reject });
      if (!this.#running) void this.#run();
    });
  }

  async #run(): Promise<void> {
    this.#running = true;
    const { logsAtOnce } = this.#engine.medium;
    while (this.#requests.length > 0) {
      while (this.#underWay.length >= logsAtOnce) await this.#underWay[0];
      const requests = this.#requests;
      this.#requests = [];
      const appending = await this.#append(new Set(requests.flatMap(({ trees }) => trees)));
      const before = this.#underWay.at(-1);
      const answered = this.#answer(requests, appending, before).finally(() => {
        this.#underWay = this.#underWay.filter((each) => each !== answered);
      });
      this.#underWay.push(answered);
    }
    this.#running = false;
  }

  /** Collects a round and hands it to the medium; does not wait for what comes of that. */
  async #append(trees: ReadonlySet<Tree>): Promise<Appending> {
    const engine = this.#engine;
    try {
      engine.assertAlive();
      const batches = await this.#collect(trees);
      const done = batches.length === 0 ? Promise.resolve() : this.#appendBatches(batches);
      // Heard by who answers.
      done.catch(() => undefined);
      return { done };
    } catch (error) {
      return { failure: error };
    }
  }

  async #appendBatches(batches: readonly LogBatch[]): Promise<void> {
    const engine = this.#engine;
    let outcome: 'durable' | 'full';
    try {
      outcome = await engine.medium.appendLog(batches);
    } catch (error) {
      throw engine.fail(error);
    }
    engine.stats.logGroups += batches.length;
    // What did not fit is in the buffers all the same: a consistency point makes it durable.
    if (outcome === 'full') await engine.consistencyPoint();
    else engine.changed();
  }

  async #answer(
    requests: readonly Request[],
    appending: Appending,
    before: Promise<void> | undefined,
  ): Promise<void> {
    await before;
    const fail = (error: unknown): void => {
      for (const { reject } of requests) reject(error);
    };
    if ('failure' in appending) return fail(appending.failure);
    try {
      await appending.done;
      this.#engine.assertAlive();
      for (const { resolve } of requests) resolve();
    } catch (error) {
      fail(error);
    }
  }

  async #collect(trees: ReadonlySet<Tree>): Promise<LogBatch[]> {
    const { medium } = this.#engine;
    for (;;) {
      for (const tree of trees) {
        if (!medium.logsData && tree.unloggedOld !== undefined) await this.#engine.dataPlaced();
      }
      // From here to the end of the collection nothing is awaited.
      const written = medium.logsData ? Promise.resolve() : this.#placeDirty(trees);
      const collector = new Collector(this.#engine, medium.logsData, this.#scratch);
      const batches = collector.takeTrees(trees) ? collector.finish(trees) : undefined;
      await written.catch((error: unknown) => {
        // What was collected counts as logged, and never will be.
        throw this.#engine.fail(error);
      });
      if (batches !== undefined) return batches;
      await this.#load(trees);
    }
  }

  /** Loads what a walk to each unlogged block needs. */
  async #load(trees: ReadonlySet<Tree>): Promise<void> {
    const { loader, trees: walker } = this.#engine;
    for (const tree of trees) {
      for (const list of [tree.unloggedOld, tree.unlogged]) {
        for (const fbn of fbnsOf(list)) {
          while (walker.walk(tree, fbn) === WALK_MISS) {
            await loader.loadMeta(walker.missVbn, walker.missCrc);
          }
        }
      }
    }
  }

  /** Object log: dirty blocks are placed, since its log holds no data of its own. */
  #placeDirty(trees: ReadonlySet<Tree>): Promise<unknown> {
    const engine = this.#engine;
    const writes: Promise<void>[] = [];
    for (const tree of trees) {
      for (const list of [tree.unloggedOld, tree.unlogged]) {
        for (const fbn of fbnsOf(list)) {
          const written = placeOne(engine, tree, fbn);
          if (written !== undefined) writes.push(written);
        }
      }
    }
    return Promise.all(writes);
  }
}

function* fbnsOf(list: ExtentList | undefined): Generator<number> {
  if (list === undefined) return;
  for (let index = 0; index < list.length; index++) {
    const fbn = list.fbn(index);
    const end = fbn + list.count(index);
    for (let at = fbn; at < end; at++) yield at;
  }
}

/** Places the dirty data block at this FBN, if there is one of the live generation. */
function placeOne(engine: Engine, tree: Tree, fbn: number): Promise<void> | undefined {
  const { trees, pool, medium, generation } = engine;
  if (trees.walk(tree, fbn) !== WALK_FIELD) return undefined;
  if (((trees.fieldWords[trees.fieldAt + 1] as number) & FLAG_IN_MEMORY) === 0) return undefined;
  const buffer = trees.fieldWords[trees.fieldAt] as number;
  if (pool.generation[buffer] !== generation.number) return undefined;
  const bytes = pool.bytes(buffer);
  const crc = crc32(bytes);
  const tag = { treeId: tree.id, fbn, level: 0, crc, kind: 'data' } as const;
  const { vbns, written } = medium.place('data', [bytes], [tag]);
  const vbn = vbns[0] as number;
  medium.adopt(vbn, 'data', generation);
  pool.pin(buffer);
  trees.settle(buffer, vbn, crc, undefined, 0, true);
  return written.finally(() => pool.unpin(buffer));
}

/** Gathers the entries of one round, in one synchronous pass. */
class Collector {
  readonly #engine: Engine;
  readonly #logsData: boolean;
  readonly #scratch: Buffer;
  readonly #data: { entry: LogEntry; buffer: number }[] = [];
  readonly #pointers: LogEntry[] = [];
  #run: { treeId: number; fbn: number; vbn: number; crcs: number[] } | undefined;

  constructor(engine: Engine, logsData: boolean, scratch: Buffer) {
    this.#engine = engine;
    this.#logsData = logsData;
    this.#scratch = scratch;
  }

  /** False if something on the way is not loaded, or, in an object log, not placed. */
  takeTrees(trees: ReadonlySet<Tree>): boolean {
    for (const tree of trees) {
      for (const list of [tree.unloggedOld, tree.unlogged]) {
        for (const fbn of fbnsOf(list)) {
          if (this.#take(tree, fbn)) continue;
          for (const { buffer } of this.#data) this.#engine.pool.unlogged[buffer] = 1;
          return false;
        }
      }
      this.#endRun();
    }
    return true;
  }

  #take(tree: Tree, fbn: number): boolean {
    const { trees, pool } = this.#engine;
    const found = trees.walk(tree, fbn);
    if (found === WALK_MISS) return false;
    if (found !== WALK_FIELD) return true;
    const words = trees.fieldWords;
    const at = trees.fieldAt;
    if (((words[at + 1] as number) & FLAG_IN_MEMORY) !== 0) {
      const buffer = words[at] as number;
      if (!this.#logsData) return false;
      if (pool.unlogged[buffer] === 1) {
        const entry = { kind: 'data', treeId: tree.id, fbn, crc: 0, payloadIndex: 0 } as const;
        this.#data.push({ entry, buffer });
        // Marked, so that a block that is listed twice is taken once.
        pool.unlogged[buffer] = 2;
      }
      return true;
    }
    const vbn = vbnAt(words, at);
    if (vbn > ZERO_VBN) this.#addPointer(tree.id, fbn, vbn, words[at + 2] as number);
    return true;
  }

  #addPointer(treeId: number, fbn: number, vbn: number, crc: number): void {
    const run = this.#run;
    if (
      run !== undefined &&
      run.treeId === treeId &&
      run.fbn + run.crcs.length === fbn &&
      run.vbn + run.crcs.length === vbn &&
      run.crcs.length < POINTERS_COUNT_MAX
    ) {
      run.crcs.push(crc);
      return;
    }
    this.#endRun();
    this.#run = { treeId, fbn, vbn, crcs: [crc] };
  }

  #endRun(): void {
    const run = this.#run;
    if (run === undefined) return;
    const { treeId, fbn, vbn } = run;
    this.#pointers.push({ kind: 'pointers', treeId, fbn, vbn, crcs: Uint32Array.from(run.crcs) });
    this.#run = undefined;
  }

  /** The batches; the lists and acts they hold count as logged from now on. */
  finish(trees: ReadonlySet<Tree>): LogBatch[] {
    const { generation, frozenGeneration } = this.#engine;
    const batches: LogBatch[] = [];
    if (frozenGeneration !== undefined) {
      addUnits(batches, frozenGeneration.number, frozenGeneration.units.splice(0));
    }
    addUnits(batches, generation.number, generation.units.splice(0));
    addUnits(
      batches,
      generation.number,
      this.#pointers.map((entry) => [entry]),
    );
    for (let at = 0; at < this.#data.length; at += PAYLOAD_BLOCKS_MAX) {
      batches.push(this.#dataBatch(at, Math.min(this.#data.length, at + PAYLOAD_BLOCKS_MAX)));
    }
    for (const tree of trees) {
      tree.unlogged = undefined;
      tree.unloggedOld = undefined;
    }
    return mergeSmall(batches);
  }

  /** Copies the blocks: clients may change the buffers while the group is written. */
  #dataBatch(from: number, to: number): LogBatch {
    const { pool, generation } = this.#engine;
    const length = (to - from) * BLOCK_BYTES;
    const isSmall = this.#data.length * BLOCK_BYTES <= this.#scratch.length;
    const payload = isSmall ? this.#scratch.subarray(0, length) : Buffer.allocUnsafe(length);
    const blocks: Uint8Array[] = [];
    const entries: LogEntry[] = [];
    for (let index = from; index < to; index++) {
      const item = this.#data[index];
      if (item === undefined || item.entry.kind !== 'data') continue;
      const { buffer, entry } = item;
      const bytes = pool.bytes(buffer);
      const crc = pool.summed[buffer] === 1 ? (pool.crc[buffer] as number) : crc32(bytes);
      pool.crc[buffer] = crc;
      pool.summed[buffer] = 1;
      pool.unlogged[buffer] = 0;
      const start = (index - from) * BLOCK_BYTES;
      payload.set(bytes, start);
      blocks.push(payload.subarray(start, start + BLOCK_BYTES));
      entries.push({ ...entry, crc, payloadIndex: index - from });
    }
    return { cpNumber: generation.number, units: [entries], payload: blocks };
  }
}

function addUnits(batches: LogBatch[], cpNumber: number, units: LogEntry[][]): void {
  for (let at = 0; at < units.length; ) {
    const part: LogEntry[][] = [];
    let entries = 0;
    while (at < units.length && (part.length === 0 || entries < UNIT_ENTRIES_MAX)) {
      const unit = units[at++] as LogEntry[];
      part.push(unit);
      entries += unit.length;
    }
    batches.push({ cpNumber, units: part, payload: [] });
  }
}

function bytesOf(batch: LogBatch): number {
  let bytes = 0;
  for (const unit of batch.units) for (const entry of unit) bytes += logEntryBytes(entry);
  return bytes;
}

/**
 * Acts and data of one generation go into one group if both are small: one write instead of two.
 */
function mergeSmall(batches: LogBatch[]): LogBatch[] {
  const merged: LogBatch[] = [];
  for (const batch of batches) {
    const last = merged.at(-1);
    const small =
      last !== undefined &&
      last.cpNumber === batch.cpNumber &&
      last.payload.length === 0 &&
      bytesOf(last) + bytesOf(batch) <= MERGED_HEADER_BYTES_MAX;
    if (!small || last === undefined) {
      merged.push(batch);
      continue;
    }
    merged[merged.length - 1] = {
      cpNumber: batch.cpNumber,
      units: [...last.units, ...batch.units],
      payload: batch.payload,
    };
  }
  return merged;
}
