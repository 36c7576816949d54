/**
 * The cleaner: keeps what the object store holds near what is live. Records are deleted whole, when
 * nothing in them lives; so it takes the emptiest, dirties their live blocks without altering them,
 * and the consistency point after that leaves nothing in them.
 *
 * 1. It works when the average live ratio is below the bound, a little in every consistency point,
 *    one batch at a time; clients that wait for buffers go first.
 * 2. What it is about to place it sets aside first, as a split does. Where there is no room it does
 *    nothing: it gives back no room that counts, only objects.
 * 3. A record with a block that cannot move now (beneath a shared pointer, of a tree that somebody
 *    holds) is left until its live count has changed, or some consistency points have passed.
 * 4. It changes no content: no log entry, no change in a diff, the same checksums.
 * 5. When a pass has left as much that is dead as there was, it rests until there is more: an idle
 *    store puts nothing.
 */
import { crc32 } from '../../../base/checksum.js';
import { isStoreError } from '../../../base/store-error.js';
import { BLOCK_BYTES, FIELDS_PER_BLOCK, SEGMENT_BLOCKS, SPAN_BLOCKS } from '../../../base/units.js';
import { type BlockTag, RECORD_BLOCKS_MAX } from '../../../layout/log-record.js';
import type { Engine } from '../../engine.js';
import type { ObjectLogMedium } from '../object-log-medium.js';
import { findOwners, type LiveBlock } from './block-owners.js';
import { metaDemand, type OnRenewed, renewData } from './data-renewal.js';
import { type LiveScan, liveRatioOf, type RecordUse, scanRecords } from './live-scan.js';
import { renewMeta } from './meta-renewal.js';

export interface CleanerOptions {
  /** Live bytes of all bytes kept: below this it works. 0: never. */
  readonly liveRatioMin: number;
  /** Blocks that it places in one consistency point, if clients place fewer. */
  readonly blocksPerCp: number;
  /** As long as less than this is dead it does nothing. */
  readonly deadBlocksMin: number;
  /**
   * greedy: the emptiest first. cost-benefit: what is dead times age for what has to be read and
   * written, so that old records go before they are as empty as young ones.
   */
  readonly choice: 'greedy' | 'cost-benefit';
}

export const CLEANER_DEFAULTS: CleanerOptions = {
  liveRatioMin: 0.7,
  blocksPerCp: 4096,
  deadBlocksMin: 4096,
  choice: 'greedy',
};

export interface CleanerStats {
  passes: number;
  recordsEmptied: number;
  dataBlocksMoved: number;
  metaBlocksMoved: number;
  bytesRead: number;
  /** Records that it had to leave. */
  recordsLeft: number;
  /** As of the last pass. */
  records: number;
  liveBlocks: number;
  keptBlocks: number;
}

/** Victims of one pass. */
const VICTIMS_MAX = 256;
/** What is fuller is not worth the copy. */
const VICTIM_RATIO_MAX = 0.9;
/** A record that was left is tried again after so many consistency points, then twice as many. */
const LEFT_CPS = 16;
const LEFT_CPS_MAX = 8192;
/** Blocks placed for one that clients place, at most. */
const CLIENT_FACTOR = 2;
const CLIENT_FACTOR_BEHIND = 4;

interface Left {
  readonly liveBlocks: number;
  /** Until the consistency point of this number. */
  readonly untilCp: number;
  readonly waitCps: number;
  isOver: boolean;
}

interface Batch {
  readonly blocks: LiveBlock[];
  readonly bytes: Uint8Array[];
  readonly records: number[];
}

type Outcome = 'done' | 'no-room';

export class Cleaner {
  readonly #engine: Engine;
  readonly #medium: ObjectLogMedium;
  readonly #options: CleanerOptions;
  readonly #onRenewed: OnRenewed;
  readonly #left = new Map<number, Left>();
  readonly stats: CleanerStats = {
    passes: 0,
    recordsEmptied: 0,
    dataBlocksMoved: 0,
    metaBlocksMoved: 0,
    bytesRead: 0,
    recordsLeft: 0,
    records: 0,
    liveBlocks: 0,
    keptBlocks: 0,
  };
  #running: Promise<void> | undefined;
  #stopped = false;
  #lastCp = -1;
  #placedBefore = 0;
  #treesBefore = 0;
  /** With less dead than this a pass has come to nothing before. */
  #deadMin: number;
  #movedInPass = 0;

  constructor(
    engine: Engine,
    medium: ObjectLogMedium,
    options: CleanerOptions,
    onRenewed: OnRenewed,
  ) {
    this.#engine = engine;
    this.#medium = medium;
    this.#options = options;
    this.#onRenewed = onRenewed;
    this.#deadMin = options.deadBlocksMin;
  }

  get isIdle(): boolean {
    return this.#running === undefined;
  }

  /** A consistency point is durable: there may be something to do. */
  wake(): void {
    if (this.#running !== undefined || this.#stopped || this.#options.liveRatioMin === 0) return;
    if (this.#medium.fsinfo.cpNumber === this.#lastCp) return;
    this.#running = this.#run();
  }

  /** Resolves when no pass is under way. */
  async idle(): Promise<void> {
    await this.#running;
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#running;
  }

  async #run(): Promise<void> {
    await Promise.resolve();
    try {
      this.#lastCp = this.#medium.fsinfo.cpNumber;
      await this.#pass();
    } catch (error) {
      if (!isStoreError(error)) this.#engine.fail(error);
      // The store has ended, or a block is damaged: the next pass may meet it again.
      if (this.#engine.failure !== undefined) this.#stopped = true;
      this.#engine.options.log({
        level: 'warn',
        event: 'cleaner-pass-ended',
        message: `A pass of the cleaner has ended early: ${String(error)}`,
      });
    } finally {
      this.#running = undefined;
    }
  }

  async #pass(): Promise<void> {
    const scan = await this.#scan();
    const dead = scan.keptBlocks - scan.liveBlocks;
    const { liveRatioMin, deadBlocksMin } = this.#options;
    if (dead < deadBlocksMin) this.#deadMin = deadBlocksMin;
    if (dead < this.#deadMin || scan.liveBlocks >= liveRatioMin * scan.keptBlocks) return;
    this.stats.passes++;
    this.#movedInPass = 0;
    const budget = this.#budget(scan);
    const batch: Batch = { blocks: [], bytes: [], records: [] };
    let left = scan.emptiest.length;
    for (const use of scan.emptiest) {
      if (this.#stopped || this.#movedInPass + batch.blocks.length >= budget) break;
      left--;
      if ((await this.#empty(use, batch)) === 'no-room') break;
      if (batch.blocks.length < RECORD_BLOCKS_MAX) continue;
      if ((await this.#place(batch)) === 'no-room') break;
    }
    if (batch.blocks.length > 0) await this.#place(batch);
    // All that could be done is done: rest until a fiftieth more is dead.
    const isThrough = left === 0 && this.#movedInPass < budget;
    this.#deadMin = isThrough ? Math.ceil(dead * 1.02) + 64 : deadBlocksMin;
  }

  async #scan(): Promise<LiveScan> {
    const { cpNumber } = this.#medium.fsinfo;
    this.#reviseLeft(cpNumber);
    const scan = await scanRecords(this.#engine, {
      countMax: VICTIMS_MAX,
      ratioMax: VICTIM_RATIO_MAX,
      rank: (use) => this.#rank(use),
      isWanted: (use) => this.#isWanted(use, cpNumber),
    });
    const { records, liveBlocks, keptBlocks } = scan;
    Object.assign(this.stats, { records, liveBlocks, keptBlocks });
    return scan;
  }

  /** Where something may be possible now that was not, there is no rest. */
  #reviseLeft(cpNumber: number): void {
    const { size } = this.#engine.table;
    // A tree that has gone may have been what held others back.
    if (size < this.#treesBefore) this.#left.clear();
    let mayGoOn = size < this.#treesBefore;
    this.#treesBefore = size;
    for (const [record, left] of this.#left) {
      if (cpNumber < left.untilCp) continue;
      if (!left.isOver) mayGoOn = true;
      left.isOver = true;
      if (cpNumber > left.untilCp + LEFT_CPS_MAX) this.#left.delete(record);
    }
    if (mayGoOn) this.#deadMin = this.#options.deadBlocksMin;
  }

  #rank(use: RecordUse): number {
    const ratio = liveRatioOf(use);
    if (this.#options.choice === 'greedy') return ratio;
    const age = this.#medium.vbnEnd / SEGMENT_BLOCKS - use.record;
    return -((1 - ratio) * age) / (1 + ratio);
  }

  #isWanted({ record, liveBlocks }: RecordUse, cpNumber: number): boolean {
    const left = this.#left.get(record);
    if (left?.liveBlocks === liveBlocks && cpNumber < left.untilCp) return false;
    return this.#medium.isSettled(record);
  }

  /** Blocks of this pass: enough to keep up with what clients write, and bounded. */
  #budget({ liveBlocks, keptBlocks }: LiveScan): number {
    const { blocksPerCp, liveRatioMin } = this.#options;
    const byClients = this.#medium.blocksPlaced - this.#placedBefore;
    this.#placedBefore = this.#medium.blocksPlaced;
    const isBehind = liveBlocks < (liveRatioMin - 0.1) * keptBlocks;
    const factor = isBehind ? CLIENT_FACTOR_BEHIND : CLIENT_FACTOR;
    return Math.max(blocksPerCp, Math.min(factor * byClients, 16 * blocksPerCp));
  }

  /** Takes the record's data into the batch, or makes its metadata dirty. */
  async #empty(use: RecordUse, batch: Batch): Promise<Outcome> {
    const { record: number, liveBlocks } = use;
    if (!this.#medium.isSettled(number)) return 'done';
    const found = await this.#medium.readRecord(number);
    if (found === undefined) {
      this.#leave(use);
      return 'done';
    }
    const { record, object } = found;
    this.stats.bytesRead += object.length;
    if (use.isMeta) return this.#emptyMeta(use, record.tags);
    const first = number * SEGMENT_BLOCKS;
    const { blocks, fixed } = await findOwners(this.#engine, first, record.tags, liveBlocks);
    const bytes = blocks.map(({ vbn }) => {
      const start = (vbn - first) * BLOCK_BYTES;
      return object.subarray(start, start + BLOCK_BYTES);
    });
    // What is damaged stays where it is: a copy elsewhere would be no better.
    const isSound = blocks.every(({ tag }, index) => crc32(bytes[index] as Uint8Array) === tag.crc);
    if (fixed > 0 || blocks.length === 0 || !isSound) {
      this.#leave(use);
      return 'done';
    }
    batch.blocks.push(...blocks);
    batch.bytes.push(...bytes);
    batch.records.push(number);
    return 'done';
  }

  async #emptyMeta(use: RecordUse, tags: readonly BlockTag[]): Promise<Outcome> {
    const first = use.record * SEGMENT_BLOCKS;
    let fixed = 0;
    for (const [index, tag] of tags.entries()) {
      if (this.#stopped) return 'no-room';
      while (!this.#engine.hasBufferRoom) await this.#engine.bufferRoom();
      const outcome = await renewMeta(this.#engine, first + index, tag);
      // It may have been a shared one, and what it names have had other owners.
      if (outcome === 'renewed') this.#onRenewed(...rangesOf(tag));
      if (outcome === 'no-room') return outcome;
      if (outcome === 'fixed') fixed++;
      if (outcome !== 'renewed') continue;
      this.stats.metaBlocksMoved++;
      this.#movedInPass++;
    }
    if (fixed > 0) this.#leave(use);
    else this.#emptied([use.record]);
    return 'done';
  }

  #emptied(records: readonly number[]): void {
    this.stats.recordsEmptied += records.length;
    for (const record of records) this.#left.delete(record);
  }

  #leave({ record, liveBlocks }: RecordUse): void {
    this.stats.recordsLeft++;
    const before = this.#left.get(record)?.waitCps ?? LEFT_CPS / 2;
    const waitCps = Math.min(LEFT_CPS_MAX, 2 * before);
    this.#left.set(record, { liveBlocks, untilCp: this.#lastCp + waitCps, waitCps, isOver: false });
  }

  /** Places what the batch holds, in order of tree and FBN, and lets its owners name that. */
  async #place(batch: Batch): Promise<Outcome> {
    const engine = this.#engine;
    const order = batch.blocks.map((_, index) => index);
    const blocks = batch.blocks.splice(0);
    const bytes = batch.bytes.splice(0);
    const records = batch.records.splice(0);
    order.sort((a, b) => compare(blocks[a] as LiveBlock, blocks[b] as LiveBlock));
    const demand = { dataBlocks: blocks.length, metaBlocks: metaDemand(blocks) };
    const reservation = engine.reserve(demand);
    if (reservation === undefined) return 'no-room';
    try {
      const sorted = order.map((index) => blocks[index] as LiveBlock);
      const tags = sorted.map(
        ({ tag, owners }): BlockTag => ({
          ...tag,
          treeId: (owners[0] as LiveBlock['owners'][number]).id,
        }),
      );
      const { vbns, written } = this.#medium.placeApart(
        order.map((index) => bytes[index] as Uint8Array),
        tags,
      );
      reservation.placed(vbns.length);
      const placed = sorted.map((block, index) => ({ block, vbn: vbns[index] as number }));
      await written.catch((error: unknown) => {
        throw engine.fail(error);
      });
      const parts = { engine, reservation, onRenewed: this.#onRenewed };
      const moved = await renewData(parts, placed);
      this.#movedInPass += moved;
      this.stats.dataBlocksMoved += moved;
      this.#emptied(records);
    } finally {
      reservation.release();
    }
    return 'done';
  }
}

/** Level-1 ranges that the indirect block covers. */
function rangesOf({ fbn, level }: BlockTag): [number, number] {
  const first = Math.floor(fbn / FIELDS_PER_BLOCK);
  return [first, first + (SPAN_BLOCKS[Math.max(0, level - 1)] as number)];
}

function compare(a: LiveBlock, b: LiveBlock): number {
  return a.tag.treeId - b.tag.treeId || a.tag.fbn - b.tag.fbn;
}
