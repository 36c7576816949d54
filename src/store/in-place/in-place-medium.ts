/**
 * The medium of a store on a device. See medium.ts for what it promises; the parts are the segment
 * allocator, the map writer, the log ring and the fsinfo slots.
 *
 * 1. A block freed by consistency point n stays busy (`#committing`, then `#unreleased`) until n is
 *    durable in both slots and the reads begun before have ended.
 * 2. The root is written only after a sync that began when every block of the consistency point had
 *    been written.
 * 3. A log entry that names placed blocks is written only after a sync of them.
 * 4. What `#pending` holds is in use or free, whatever the active map and the usage file say.
 */
import { invariant } from '../../base/invariant.js';
import { BLOCK_BYTES, SEGMENT_BLOCKS } from '../../base/units.js';
import { totalBytes } from '../../env/buffers.js';
import type { BlockCopies, Device } from '../../env/device.js';
import { FEATURE_PENDING, type Fsinfo, type PendingRun } from '../../layout/fsinfo.js';
import type { LogEntry } from '../../layout/log-entry.js';
import type { BlockTag, TagKind } from '../../layout/log-record.js';
import {
  SEGMENT_DATA,
  SEGMENT_META,
  USAGE_ENTRIES_PER_BLOCK,
  usageKind,
  usageLive,
} from '../../layout/usage-entry.js';
import type { Generation } from '../generation.js';
import { LogRing, type RingMark } from '../log-ring.js';
import type {
  CommitRequest,
  Demand,
  LogBatch,
  Medium,
  MediumHost,
  MediumSpace,
  Placed,
  PlacedCopies,
  RecoveredBatch,
  RecoveryPass,
  Urgency,
} from '../medium.js';
import { rootOf } from '../metafile.js';
import { popcountAll, SEGMENT_WORDS, VbnSet } from '../vbn-set.js';
import { type AssignedBlock, MAP_BLOCK_SEGMENTS, MapWriter } from './active-map.js';
import { type BlockRun, toRanges, toRuns, type VbnRange } from './block-runs.js';
import { FailStopDevice } from './fail-stop-device.js';
import { writeSlots } from './fsinfo-slots.js';
import { PendingMap } from './pending-map.js';
import { PAIR_DATA_BLOCKS, SegmentAllocator, type UsageChunk } from './segment-allocator.js';

type MapChange = Pick<Fsinfo, 'freePairs' | 'dataGaps' | 'metaGaps' | 'usedBlocks' | 'pending'>;
/** Metadata blocks that are kept from each, for those who give more back. */
const SLOP_BLOCKS: Record<Urgency, number> = {
  client: 96,
  overwrite: 48,
  trim: 36,
  merge: 24,
  release: 0,
};

type PointersEntry = Extract<LogEntry, { kind: 'pointers' }>;

export class InPlaceMedium implements Medium {
  readonly kind = 'in-place';
  readonly logsData = true;
  readonly commitIsDue = false;
  readonly copiesBlocks = true;
  readonly readsAhead = false;
  readonly logsAtOnce = 1;
  readonly metaCopies = 2;
  readonly #device: Device;
  readonly #allocator: SegmentAllocator;
  readonly #ring: LogRing;
  #host: MediumHost | undefined;
  #fsinfo: Fsinfo;
  /** Placed, but no tree names it yet. */
  readonly #inFlight = new VbnSet();
  /** Generations that have placed blocks and are not committed. */
  readonly #generations = new Set<Generation>();
  #committing: VbnSet | undefined;
  #unreleased = new VbnSet();
  #pending = new PendingMap();
  #pendingTaken: Promise<void> | undefined;
  readonly #frozenMarks = new Map<number, RingMark>();
  /** Writes of placed blocks that have ended, and how many of them the last sync covers. */
  #writesEnded = 0;
  /** Data blocks that are being written. */
  readonly #writing = new Set<{
    readonly runs: readonly VbnRange[];
    readonly written: Promise<unknown>;
  }>();
  #writesSynced = 0;

  constructor(device: Device, fsinfo: Fsinfo) {
    this.#device = new FailStopDevice(device);
    this.#fsinfo = fsinfo;
    this.#allocator = new SegmentAllocator(
      {
        loadChunk: (index) => this.#loadChunk(index),
        loadBits: (segment) => this.#loadBits(segment),
        busyBits: (segment) => this.#busyBits(segment),
        promised: () => this.#demand({ dataBlocks: 0, metaBlocks: 0 }, 'release'),
      },
      fsinfo.storeBlocks / SEGMENT_BLOCKS,
      fsinfo,
      device.name,
    );
    this.#ring = new LogRing(this.#device, {
      start: fsinfo.logStart,
      blocks: fsinfo.logBlocks,
      uuid: fsinfo.uuid,
      epoch: fsinfo.epoch,
      sequence: fsinfo.replayFrom,
      position: fsinfo.replayPosition,
      name: device.name,
    });
  }

  get name(): string {
    return this.#device.name;
  }

  get fsinfo(): Fsinfo {
    return this.#fsinfo;
  }

  get vbnEnd(): number {
    return this.#fsinfo.storeBlocks;
  }

  attach(host: MediumHost): void {
    this.#host = host;
  }

  get #attached(): MediumHost {
    invariant(this.#host !== undefined, 'the medium is attached before it is written to');
    return this.#host;
  }

  /** The device is locked. */
  readsConfirmed(): undefined {
    return undefined;
  }

  readBlocks(vbn: number, into: readonly Uint8Array[]): Promise<void> {
    return this.#device.read(vbn * BLOCK_BYTES, into);
  }

  /** The system reads ahead of who reads a file, and keeps it. */
  readAhead(): void {}

  readAgain(): Promise<boolean> {
    return Promise.resolve(false);
  }

  async readSecondCopy(vbn: number, into: Uint8Array): Promise<boolean> {
    await this.#device.read((vbn + SEGMENT_BLOCKS) * BLOCK_BYTES, [into]);
    return true;
  }

  heal(vbn: number, bytes: Uint8Array, which: 'first' | 'second'): Promise<void> {
    const at = which === 'first' ? vbn : vbn + SEGMENT_BLOCKS;
    return this.#device.write(at * BLOCK_BYTES, [bytes]);
  }

  // -- space

  /** Blocks that the map and the usage file can need in one consistency point. */
  get #mapBlocksMax(): number {
    const blocks = this.#fsinfo.storeBlocks;
    const leaves = Math.ceil(blocks / 32768) + Math.ceil(blocks / (512 * 1024));
    return Math.ceil(leaves * 1.01) + 10;
  }

  #demand(more: Demand, urgency: Urgency): Demand {
    const promised = this.#attached.promised();
    const slop = SLOP_BLOCKS[urgency];
    const dataSlop = urgency === 'client' ? Math.min(1024, this.#fsinfo.storeBlocks >>> 6) : 0;
    return {
      dataBlocks: promised.dataBlocks + more.dataBlocks + dataSlop,
      metaBlocks: promised.metaBlocks + more.metaBlocks + this.#mapBlocksMax + slop,
    };
  }

  hasRoom(demand: Demand, urgency: Urgency): boolean {
    const { dataBlocks, metaBlocks } = this.#demand(demand, urgency);
    return this.#allocator.fits(dataBlocks, metaBlocks);
  }

  get space(): MediumSpace {
    const { freePairs, dataGaps, metaGaps } = this.#allocator.counts;
    const demand = this.#demand({ dataBlocks: 0, metaBlocks: 0 }, 'client');
    const metaPairs = Math.ceil(Math.max(0, demand.metaBlocks - metaGaps) / SEGMENT_BLOCKS);
    const free = dataGaps + (freePairs - metaPairs) * PAIR_DATA_BLOCKS - demand.dataBlocks;
    return {
      totalBlocks: this.#fsinfo.storeBlocks,
      usedBlocks: this.#fsinfo.usedBlocks,
      freeDataBlocks: Math.max(0, free),
    };
  }

  isReady(kind: TagKind, blocks: number): boolean {
    return this.#allocator.isReady(kind, blocks);
  }

  async prepare(kind: TagKind, blocks: number): Promise<void> {
    await this.#takePending();
    await this.#allocator.prepare(kind, blocks);
  }

  place(kind: TagKind, pieces: readonly Uint8Array[], _tags: readonly BlockTag[]): Placed {
    const vbns: number[] = [];
    for (let left = totalBytes(pieces); left > 0; left -= BLOCK_BYTES) {
      const vbn = this.#allocator.take(kind);
      vbns.push(vbn);
      this.#inFlight.add(vbn);
    }
    const runs = toRuns(vbns, pieces);
    const written = this.#writeRuns(kind, runs);
    if (kind === 'data') this.#noteWriting(runs, written);
    return { vbns, written };
  }

  placeCopies(sources: readonly number[], crcs: readonly number[]): PlacedCopies {
    const vbns = sources.map(() => this.#allocator.take('data'));
    for (const vbn of vbns) this.#inFlight.add(vbn);
    const written = this.#copy({ from: sources, to: vbns, crcs });
    this.#noteWriting(toRanges(vbns), written);
    return { vbns, written };
  }

  async #copy(copies: BlockCopies): Promise<ReadonlySet<number>> {
    const left = await this.#device.copyBlocks(copies);
    this.#writesEnded++;
    return new Set(left);
  }

  #noteWriting(runs: readonly VbnRange[], written: Promise<unknown>): void {
    const writing = { runs, written };
    this.#writing.add(writing);
    // One that failed stays: nothing that names its blocks may be acknowledged.
    written.then(
      () => this.#writing.delete(writing),
      () => undefined,
    );
  }

  async #writeRuns(kind: TagKind, runs: readonly BlockRun[]): Promise<void> {
    const writes: Promise<void>[] = [];
    for (const { vbn, pieces } of runs) {
      writes.push(this.#device.write(vbn * BLOCK_BYTES, pieces));
      if (kind !== 'meta') continue;
      writes.push(this.#device.write((vbn + SEGMENT_BLOCKS) * BLOCK_BYTES, pieces));
    }
    // All must have ended before the caller may use its buffers again, even if one failed.
    const outcomes = await Promise.allSettled(writes);
    for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
    this.#writesEnded++;
  }

  adopt(vbn: number, kind: TagKind, generation: Generation): void {
    // A buffer may still hold what stood here before the place was freed.
    this.#attached.editor.pool.dropVbn(vbn);
    this.#inFlight.delete(vbn);
    this.#generations.add(generation);
    generation.allocated.add(vbn);
    if (kind === 'meta') generation.allocated.add(vbn + SEGMENT_BLOCKS);
  }

  abandon(vbn: number, _kind: TagKind): void {
    this.#inFlight.delete(vbn);
    this.#allocator.release(Math.floor(vbn / SEGMENT_BLOCKS), 1);
  }

  async reclaim(vbns: readonly number[], generation: Generation): Promise<void> {
    await this.#takePending();
    for (const vbn of vbns) {
      if (generation.allocated.has(vbn)) continue;
      const segment = Math.floor(vbn / SEGMENT_BLOCKS);
      await this.#allocator.load(segment);
      await this.#loadBits(segment);
      const bits = this.#busyBits(segment);
      invariant(bits !== undefined, 'the bits of the segment are loaded');
      const index = vbn % SEGMENT_BLOCKS;
      if (((bits[index >>> 5] as number) & (1 << (index & 31))) !== 0) continue;
      this.#allocator.occupy(segment, 1, SEGMENT_DATA);
      this.adopt(vbn, 'data', generation);
    }
  }

  claim(): void {
    // `reclaim` did it, before anything else could take the block.
  }

  /** Format only: the segments are in use for ever. */
  async reserve(
    segment: number,
    blocks: readonly number[],
    kind: number,
    generation: Generation,
  ): Promise<void> {
    await this.#allocator.load(segment);
    this.#allocator.occupy(segment, blocks.length, kind);
    for (const vbn of blocks) this.adopt(vbn, 'data', generation);
  }

  // -- what the allocator asks

  async #loadChunk(index: number): Promise<UsageChunk> {
    const { editor, usage } = this.#attached;
    const occupied = new Uint16Array(USAGE_ENTRIES_PER_BLOCK);
    const kind = new Uint8Array(USAGE_ENTRIES_PER_BLOCK);
    const buffer = await editor.load(usage, index);
    // From here on nothing is awaited: the file, and what it does not count any more, agree.
    for (let entry = 0; entry < USAGE_ENTRIES_PER_BLOCK; entry++) {
      const segment = index * USAGE_ENTRIES_PER_BLOCK + entry;
      const held = this.#unreleased.bitsOf(segment);
      if (held !== undefined) occupied[entry] = popcountAll(held);
      if (buffer < 0) continue;
      const word = editor.pool.wordsOf(buffer)[editor.pool.wordStart(buffer) + entry * 2] as number;
      occupied[entry] = (occupied[entry] as number) + usageLive(word);
      kind[entry] = usageKind(word);
    }
    return { occupied, kind };
  }

  async #loadBits(segment: number): Promise<void> {
    const { editor, map } = this.#attached;
    await editor.load(map, Math.floor(segment / MAP_BLOCK_SEGMENTS));
  }

  #busyBits(segment: number): Uint32Array | undefined {
    const { editor, map } = this.#attached;
    const bits = new Uint32Array(SEGMENT_WORDS);
    const buffer = editor.trees.findMetaBlock(map, Math.floor(segment / MAP_BLOCK_SEGMENTS));
    if (buffer === -2) return undefined;
    if (buffer >= 0) {
      const at = editor.pool.wordStart(buffer) + (segment % MAP_BLOCK_SEGMENTS) * SEGMENT_WORDS;
      bits.set(editor.pool.wordsOf(buffer).subarray(at, at + SEGMENT_WORDS));
    }
    const { allocated, freed } = this.#pending;
    const sets: (VbnSet | undefined)[] = [allocated, freed];
    sets.push(this.#inFlight, this.#committing, this.#unreleased);
    for (const generation of this.#generations) sets.push(generation.allocated);
    for (const set of sets) {
      const more = set?.bitsOf(segment);
      if (more === undefined) continue;
      for (let word = 0; word < SEGMENT_WORDS; word++) {
        bits[word] = (bits[word] as number) | (more[word] as number);
      }
    }
    return bits;
  }

  async loadUse(segment: number): Promise<void> {
    await this.#takePending();
    await this.#loadBits(segment);
  }

  useOf(segment: number): Uint32Array | undefined {
    // The pending runs are in use, and not in the map.
    return this.#pendingTaken === undefined ? undefined : this.#busyBits(segment);
  }

  /** Opening: the runs that the consistency point left pending, before anything is placed. */
  #takePending(): Promise<void> {
    this.#pendingTaken ??= this.#takeRuns(this.#fsinfo.pending);
    return this.#pendingTaken;
  }

  async #takeRuns(runs: readonly PendingRun[]): Promise<void> {
    for (const { vbn } of runs) await this.#allocator.load(Math.floor(vbn / SEGMENT_BLOCKS));
    for (const run of runs) {
      const segment = Math.floor(run.vbn / SEGMENT_BLOCKS);
      // What was freed is occupied in the usage file still.
      if (!run.isFreed) this.#allocator.occupy(segment, run.blocks, SEGMENT_META);
      this.#pending.addRun(run);
    }
  }

  // -- log

  async appendLog(batches: readonly LogBatch[]): Promise<'durable' | 'full'> {
    const named = batches.flatMap((batch) =>
      batch.units.flatMap((unit) => unit.filter((entry) => entry.kind === 'pointers')),
    );
    if (named.length > 0) {
      await this.#writesOf(named);
      await this.#syncPlaced();
    }
    return this.#ring.append(batches);
  }

  /** A consistency point gives blocks their VBNs before it has written them: waits for those. */
  async #writesOf(entries: readonly PointersEntry[]): Promise<void> {
    for (const { runs, written } of [...this.#writing]) {
      const isNamed = entries.some(({ vbn, crcs }) =>
        runs.some((run) => run.vbn < vbn + crcs.length && vbn < run.endVbn),
      );
      if (isNamed) await written;
    }
  }

  async #syncPlaced(): Promise<void> {
    if (this.#writesSynced === this.#writesEnded) return;
    const covered = this.#writesEnded;
    await this.#device.sync();
    this.#writesSynced = Math.max(this.#writesSynced, covered);
  }

  get logIsHalfFull(): boolean {
    return this.#ring.usedBlocks * 2 >= this.#fsinfo.logBlocks;
  }

  freezeLog(cpNumber: number): void {
    this.#frozenMarks.set(cpNumber, this.#ring.mark);
  }

  async *recover(pass: RecoveryPass): AsyncIterable<RecoveredBatch> {
    await this.#takePending();
    yield* this.#ring.recover(pass);
  }

  // -- consistency point

  async commit(request: CommitRequest): Promise<void> {
    const { generation } = request;
    await this.#takePending();
    const freed = request.freedData;
    this.#generations.add(generation);
    const outcome = (await this.#leavePending(request)) ?? (await this.#writeMaps(request));
    await this.#device.sync();
    const mark = this.#frozenMarks.get(generation.number);
    invariant(mark !== undefined, 'the log was marked when the generation was frozen');
    const { usage, map } = this.#attached;
    const before = this.#fsinfo;
    const mask = before.readOnlyCompatible;
    const fsinfo: Fsinfo = {
      ...before,
      readOnlyCompatible: mask - (mask % 2) + (outcome.pending.length > 0 ? FEATURE_PENDING : 0),
      cpNumber: generation.number,
      incompatible: request.incompatible,
      clean: request.clean,
      replayFrom: mark.sequence,
      replayPosition: this.#ring.positionOf(mark),
      nextTreeId: request.nextTreeId,
      nextVdiskId: request.nextVdiskId,
      ...outcome,
      roots: { ...request.roots, usage: rootOf(usage), map: rootOf(map) },
    };
    await writeSlots(this.#device, fsinfo);
    this.#fsinfo = fsinfo;
    this.#ring.release(mark);
    this.#frozenMarks.delete(generation.number);
    this.#generations.delete(generation);
    if (outcome.pending.length > 0) return;
    this.#pending = new PendingMap();
    this.#committing = undefined;
    this.#unreleased.addAll(freed);
  }

  /** Leaves the map and the usage file as they are, if so little changed that fsinfo can say it. */
  async #leavePending(request: CommitRequest): Promise<MapChange | undefined> {
    const { generation, clean, freedData } = request;
    // A store that fills up needs its gaps, and a clean one its map.
    if (clean || freedData.size > 0) return undefined;
    if (!this.hasRoom({ dataBlocks: 0, metaBlocks: SEGMENT_BLOCKS / 2 }, 'client'))
      return undefined;
    const freed = new VbnSet();
    for (const vbn of generation.metaFrees.values()) {
      freed.add(vbn);
      freed.add(vbn + SEGMENT_BLOCKS);
    }
    const pending = new PendingMap();
    pending.add(this.#pending.allocated, this.#pending.freed);
    pending.add(generation.allocated, freed);
    const runs = pending.toRuns((segment) => this.#allocator.kindOf(segment));
    if (runs === undefined || runs.length === 0) return undefined;
    const { freePairs, dataGaps, metaGaps, usedBlocks } = this.#fsinfo;
    const change = pending.netBlocks - this.#pending.netBlocks;
    this.#pending = pending;
    return { freePairs, dataGaps, metaGaps, usedBlocks: usedBlocks + change, pending: runs };
  }

  async #writeMaps(request: CommitRequest): Promise<MapChange> {
    const { generation, freedData: freed } = request;
    const { editor, map, usage } = this.#attached;
    const { freePairs, dataGaps, metaGaps, usedBlocks } = this.#fsinfo;
    const { netBlocks } = this.#pending;
    generation.allocated.addAll(this.#pending.allocated);
    freed.addAll(this.#pending.freed);
    this.#committing = freed;
    const writer = new MapWriter(editor, this.#allocator, generation, { map, usage }, freed, {
      counts: { freePairs, dataGaps, metaGaps },
      usedBlocks: usedBlocks - netBlocks,
    });
    const outcome = await writer.write();
    await this.#writeAssigned(outcome.blocks);
    return { ...outcome.counts, usedBlocks: outcome.usedBlocks, pending: [] };
  }

  async #writeAssigned(blocks: readonly AssignedBlock[]): Promise<void> {
    const { pool } = this.#attached.editor;
    const sorted = [...blocks].sort((a, b) => a.vbn - b.vbn);
    const vbns = sorted.map((block) => block.vbn);
    const bytes = sorted.map((block) => pool.bytes(block.buffer));
    await this.#writeRuns('meta', toRuns(vbns, bytes));
    for (const block of blocks) pool.unpin(block.buffer);
  }

  releaseFreed(): void {
    const released = this.#unreleased;
    this.#unreleased = new VbnSet();
    for (const segment of released.segments()) {
      const kind = this.#allocator.kindOf(segment);
      // The odd segment of a metadata pair goes with the even one.
      if (segment % 2 === 1 && this.#allocator.kindOf(segment - 1) === SEGMENT_META) continue;
      const bits = released.bitsOf(segment);
      if (bits === undefined || kind === 0) continue;
      this.#allocator.release(segment, popcountAll(bits));
    }
  }

  close(): Promise<void> {
    return this.#device.close();
  }
}
