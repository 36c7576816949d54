/**
 * The medium of a store on an object store. Blocks are copied into the open record of their kind;
 * a FLUSH closes it early and waits until the chain is acknowledged up to it.
 *
 * 1. VBN = record number x 1024 + index. Numbers only grow: a VBN never comes back.
 * 2. Data and metadata never share a record.
 * 3. Entries of one record belong to one generation.
 * 4. A record is deleted only when nothing in it is live in an indexed consistency point, it lies
 *    below that point's replayFrom, and the reads begun before have ended; and when no other store
 *    reads it.
 */
import { invariant } from '../../base/invariant.js';
import { StoreError } from '../../base/store-error.js';
import { BLOCK_BYTES, MIB, SEGMENT_BLOCKS } from '../../base/units.js';
import type { ObjectStore } from '../../env/object-store.js';
import type { Fsinfo } from '../../layout/fsinfo.js';
import {
  type BlockTag,
  decodeRecord,
  RECORD_BLOCKS_MAX,
  type TagKind,
} from '../../layout/log-record.js';
import { SEGMENT_DATA, USAGE_ENTRIES_PER_BLOCK, usageLive } from '../../layout/usage-entry.js';
import type { Generation } from '../generation.js';
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
import { SEGMENT_WORDS, VbnSet } from '../vbn-set.js';
import { BlockCache, type BlockCacheStats } from './cache/block-cache.js';
import type { CacheFile } from './cache/cache-file.js';
import { type FoundRecord, getPatiently, walkChain } from './chain-walk.js';
import { putCpRecord } from './cp-record.js';
import { type LocalLog, type LocalLogStats, namingOf } from './local-log/local-log.js';
import { namesLog } from './local-log/log-heads.js';
import type { ObjectLogPlace } from './object-log-place.js';
import { OpenRecords } from './open-records.js';
import { Ownership } from './ownership.js';
import { PinnedRecords } from './published/pinned-records.js';
import type { StorePrefix } from './published/publication-objects.js';
import { RecordChain, recordKey } from './record-chain.js';
import { RecordLedger } from './record-ledger.js';
import { SLOP_BLOCKS } from './slop.js';
import { splitUnits } from './split-units.js';
import { type UsageParts, writeUsage } from './usage-writer.js';

/**
 * A consistency point is taken when the chain has grown by so much: an open reads all of it, one
 * record after the other. Of small ones, which FLUSHes make, there may be more: a consistency point
 * costs half a dozen PUTs itself.
 */
const RECORDS_PER_CP = 256;
const BLOCKS_PER_CP = 64 * RECORD_BLOCKS_MAX;

/** While one record is on its way the next FLUSHes gather: more at once make smaller records. */
const LOGS_AT_ONCE = 2;

/** Memory for what was read ahead: twice what read-ahead.ts asks for. */
const AHEAD_BYTES = 48 * MIB;

export class ObjectLogMedium implements Medium {
  readonly kind = 'object-log';
  readonly logsData: boolean;
  /** A local log has what the store lacks, or will: the next consistency point says which. */
  commitIsDue: boolean;
  readonly #localLog: LocalLog | undefined;
  readonly copiesBlocks = false;
  readonly readsAhead = true;
  readonly logsAtOnce: number;
  readonly metaCopies = 1;
  readonly #objects: ObjectStore;
  readonly #prefix: string;
  readonly #chain: RecordChain;
  readonly #epoch: number;
  readonly #open: OpenRecords;
  readonly #ledger = new RecordLedger();
  /** Records that other stores read, through what is published. */
  readonly pins = new PinnedRecords();
  readonly #place: ObjectLogPlace;
  #host: MediumHost | undefined;
  #ownership: Ownership | undefined;
  #fsinfo: Fsinfo;
  #liveBlocks: number;
  readonly #generations = new Set<Generation>();
  readonly #inFlight = new VbnSet();
  /** By consistency point: where the log that it leaves begins, and the blocks put before. */
  readonly #replayFrom = new Map<number, { readonly record: number; readonly blocks: number }>();
  #blocksBefore = 0;
  #freedBlocks = 0;
  readonly #dead: number[] = [];
  readonly #oldIndexKeys: string[] = [];
  #cache = new BlockCache((vbn, count) => this.#fetch(vbn, count), AHEAD_BYTES, undefined);
  /** Blocks that were placed, without those that the cleaner placed again. */
  blocksPlaced = 0;
  /** Of these, data. */
  dataBlocksPlaced = 0;

  constructor(place: ObjectLogPlace) {
    const clock = place.ownership?.clock;
    this.#place = place;
    this.#localLog = place.localLog;
    this.logsData = place.localLog?.isUsed === true;
    // A ring of a local log takes one group after the other.
    this.logsAtOnce = this.logsData ? 1 : LOGS_AT_ONCE;
    this.commitIsDue = place.localLog !== undefined || namesLog(place.fsinfo);
    this.#objects = place.objects;
    this.#prefix = place.prefix;
    this.#fsinfo = place.fsinfo;
    this.#epoch = place.epoch;
    this.#liveBlocks = place.fsinfo.usedBlocks;
    this.#chain = new RecordChain(
      place.objects,
      {
        uuid: place.fsinfo.uuid,
        lineage: place.fsinfo.lineage,
        epoch: place.epoch,
        nonce: place.nonce,
        prefix: place.prefix,
        ...(clock === undefined ? {} : { nowMs: () => clock.nowMs() }),
      },
      place.first,
    );
    this.#open = new OpenRecords({
      chain: this.#chain,
      ledger: this.#ledger,
      inFlight: this.#inFlight,
      currentCp: () => this.#attached.currentCp(),
    });
  }

  get name(): string {
    return `${this.#objects.name}/${this.#prefix}`;
  }

  /** Where its objects are. */
  get where(): StorePrefix {
    return { objects: this.#objects, prefix: this.#prefix };
  }

  get epoch(): number {
    return this.#epoch;
  }

  get fsinfo(): Fsinfo {
    return this.#fsinfo;
  }

  get vbnEnd(): number {
    return this.#chain.next * SEGMENT_BLOCKS;
  }

  attach(host: MediumHost): void {
    const { ownership } = this.#place;
    this.#host = host;
    if (ownership === undefined) return;
    const owned = {
      objects: this.#objects,
      prefix: this.#prefix,
      epoch: this.#epoch,
      chain: this.#chain,
    };
    this.#ownership = new Ownership(owned, ownership, (error) => host.fail(error));
  }

  /** Resolves when every answer that an earlier owner may still give has been given. */
  async predecessorSilent(): Promise<void> {
    const { ownership, answersFromMs } = this.#place;
    if (ownership === undefined) return;
    const { clock } = ownership;
    const restMs = answersFromMs - clock.nowMs();
    if (restMs <= 0) return;
    await new Promise<void>((done) => clock.setTimer(restMs, done, { keepsAlive: true }));
  }

  readsConfirmed(): Promise<void> | undefined {
    return this.#ownership?.confirmed();
  }

  get #attached(): MediumHost {
    invariant(this.#host !== undefined, 'the medium is attached before it is written to');
    return this.#host;
  }

  async readBlocks(vbn: number, into: readonly Uint8Array[]): Promise<void> {
    let start = 0;
    while (start < into.length) {
      const held = this.#chain.blockInMemory(vbn + start);
      if (held !== undefined) {
        (into[start] as Uint8Array).set(held);
        start++;
        continue;
      }
      let end = start + 1;
      while (end < into.length && this.#sameObject(vbn, start, end)) end++;
      await this.#readRecords(vbn + start, into.slice(start, end));
      start = end;
    }
  }

  /** What is missing may have been deleted by whoever owns the store now: then that is told. */
  async #readRecords(vbn: number, into: readonly Uint8Array[]): Promise<void> {
    try {
      await this.#cache.read(vbn, into);
    } catch (error) {
      await this.#ownership?.lookAfresh();
      throw error;
    }
  }

  #sameObject(vbn: number, start: number, end: number): boolean {
    const record = Math.floor((vbn + start) / SEGMENT_BLOCKS);
    return (
      Math.floor((vbn + end) / SEGMENT_BLOCKS) === record &&
      this.#chain.blockInMemory(vbn + end) === undefined
    );
  }

  readAhead(vbn: number, count: number): void {
    // What is on its way out is read from there, and what is not yet has no object to be read from.
    if (this.#chain.blockInMemory(vbn) === undefined) this.#cache.readAhead(vbn, count);
  }

  /** Blocks of one record; fewer where it ends. */
  async #fetch(vbn: number, count: number): Promise<Uint8Array> {
    const record = Math.floor(vbn / SEGMENT_BLOCKS);
    const offset = (vbn % SEGMENT_BLOCKS) * BLOCK_BYTES;
    const key = recordKey(this.#prefix, record);
    const bytes = await getPatiently(this.#objects, key, offset, count * BLOCK_BYTES);
    if (bytes !== undefined) return bytes;
    throw new StoreError('device', `${this.name}: record ${record} is missing`);
  }

  get localLogStats(): LocalLogStats | undefined {
    return this.logsData ? this.#localLog?.stats : undefined;
  }

  get cacheStats(): BlockCacheStats {
    return this.#cache.stats;
  }

  /** Keeps blocks that were read in this file, too, from now on. */
  useCacheFile(file: CacheFile): void {
    this.#cache = new BlockCache((vbn, count) => this.#fetch(vbn, count), AHEAD_BYTES, file);
  }

  async readAgain(vbn: number, into: Uint8Array): Promise<boolean> {
    if (this.#chain.blockInMemory(vbn) !== undefined) return false;
    // A new owner may have deleted the record, before or now; a late SEAL may stand in its place.
    await this.#cache.readAgain(vbn, into).finally(() => this.#ownership?.lookAfresh());
    return true;
  }

  readSecondCopy(): Promise<boolean> {
    return Promise.resolve(false);
  }

  heal(): Promise<void> {
    return Promise.reject(new StoreError('unsupported', 'an object log has no second copies'));
  }

  // -- space

  hasRoom(demand: Demand, urgency: Urgency): boolean {
    const promised = this.#attached.promised();
    const wanted =
      promised.dataBlocks +
      promised.metaBlocks +
      demand.dataBlocks +
      demand.metaBlocks +
      SLOP_BLOCKS[urgency];
    return this.#liveBlocks + wanted + 64 <= this.#fsinfo.storeBlocks;
  }

  get space(): MediumSpace {
    const promised = this.#attached.promised();
    const taken = this.#liveBlocks + promised.dataBlocks + promised.metaBlocks + 320;
    return {
      totalBlocks: this.#fsinfo.storeBlocks,
      usedBlocks: this.#liveBlocks,
      freeDataBlocks: Math.max(0, this.#fsinfo.storeBlocks - taken),
    };
  }

  async loadUse(record: number): Promise<void> {
    const { editor, usage } = this.#attached;
    const fbn = Math.floor(record / USAGE_ENTRIES_PER_BLOCK);
    if (fbn < usage.capacityFbn) await editor.load(usage, fbn);
  }

  useOf(record: number): Uint32Array | undefined {
    const { editor, usage } = this.#attached;
    const bits = new Uint32Array(SEGMENT_WORDS);
    const fbn = Math.floor(record / USAGE_ENTRIES_PER_BLOCK);
    const buffer = fbn >= usage.capacityFbn ? -1 : editor.trees.findMetaBlock(usage, fbn);
    if (buffer === -2) return undefined;
    if (buffer >= 0) {
      const at = editor.pool.wordStart(buffer) + (record % USAGE_ENTRIES_PER_BLOCK) * 2;
      if (usageLive(editor.pool.wordsOf(buffer)[at] as number) > 0) return bits.fill(0xffff_ffff);
    }
    for (const set of [this.#inFlight, ...[...this.#generations].map((each) => each.allocated)]) {
      const more = set.bitsOf(record);
      if (more === undefined) continue;
      for (let word = 0; word < SEGMENT_WORDS; word++) {
        bits[word] = (bits[word] as number) | (more[word] as number);
      }
    }
    return bits;
  }

  isReady(): boolean {
    return true;
  }

  prepare(): Promise<void> {
    return Promise.resolve();
  }

  place(kind: TagKind, pieces: readonly Uint8Array[], tags: readonly BlockTag[]): Placed {
    const vbns: number[] = [];
    for (const piece of pieces) {
      for (let at = 0; at < piece.length; ) {
        const record = this.#open.of(kind);
        const count = Math.min(record.room, (piece.length - at) / BLOCK_BYTES);
        const end = at + count * BLOCK_BYTES;
        this.#open.copyIn(
          record,
          piece.subarray(at, end),
          tags.slice(vbns.length, vbns.length + count),
          vbns,
        );
        at = end;
      }
    }
    this.#liveBlocks += vbns.length;
    this.blocksPlaced += vbns.length;
    if (kind === 'data') this.dataBlocksPlaced += vbns.length;
    return { vbns, written: this.#chain.throttle() };
  }

  placeCopies(): PlacedCopies {
    throw new StoreError('unsupported', 'an object log does not copy blocks by itself');
  }

  /**
   * Places data blocks in records of their own, which leave at once: a FLUSH cannot cut them short,
   * and blocks that have stayed for long do not mix with what clients write now.
   */
  placeApart(blocks: readonly Uint8Array[], tags: readonly BlockTag[]): Placed {
    const vbns: number[] = [];
    // Records of lower numbers must not wait to be full: they are acknowledged before these.
    this.#open.closeAll();
    for (let start = 0; start < blocks.length; start += RECORD_BLOCKS_MAX) {
      const record = this.#chain.open();
      this.#ledger.opened(record.number, SEGMENT_DATA);
      blocks.slice(start, start + RECORD_BLOCKS_MAX).forEach((block, index) => {
        this.#open.copyIn(record, block, [tags[start + index] as BlockTag], vbns);
      });
      record.cpNumber = this.#attached.currentCp();
      this.#open.closeRecord(record);
    }
    this.#liveBlocks += vbns.length;
    return { vbns, written: this.#chain.throttle() };
  }

  /** True if only the last consistency point names blocks of the record, and no other store. */
  isSettled(record: number): boolean {
    return record < this.#fsinfo.replayFrom && !this.#isHeld(record) && !this.pins.has(record);
  }

  /** They were pinned, or held back: the next consistency point deletes those that are dead. */
  unpinned(records: Iterable<number>): void {
    for (const record of records) this.#ledger.known.add(record);
  }

  /**
   * True if nobody here will ever look at the record again, nor delete it. That nothing lives in
   * it the usage file must say.
   */
  isForgotten(record: number): boolean {
    const isComing = this.#ledger.known.has(record) || this.#dead.includes(record);
    return this.isSettled(record) && !isComing && !this.pins.isHeld;
  }

  /** The whole record; undefined if it is missing or damaged. @throws {StoreError} device */
  async readRecord(number: number): Promise<FoundRecord | undefined> {
    const object = await getPatiently(this.#objects, recordKey(this.#prefix, number));
    const record = object === undefined ? undefined : decodeRecord(object, this.#fsinfo.uuid);
    if (object === undefined || record?.number !== number) return undefined;
    return { record, object };
  }

  adopt(vbn: number, _kind: TagKind, generation: Generation): void {
    this.#inFlight.delete(vbn);
    this.#generations.add(generation);
    generation.allocated.add(vbn);
  }

  abandon(vbn: number): void {
    this.#inFlight.delete(vbn);
    this.#liveBlocks--;
  }

  reclaim(): Promise<void> {
    return Promise.resolve();
  }

  claim(vbn: number, generation: Generation): void {
    if (generation.allocated.has(vbn)) return;
    this.#ledger.kinds.set(Math.floor(vbn / SEGMENT_BLOCKS), SEGMENT_DATA);
    this.#liveBlocks++;
    this.adopt(vbn, 'data', generation);
  }

  // -- log

  async appendLog(batches: readonly LogBatch[]): Promise<'durable' | 'full'> {
    invariant(!this.commitIsDue, 'nothing is answered before it is said where the log is');
    if (this.#localLog?.isUsed === true) {
      const blockOf = (vbn: number): Uint8Array | undefined => this.#chain.blockInMemory(vbn);
      const outcome = await this.#localLog.append(batches, blockOf);
      // A server that was deposed must not answer for long; nothing else tells it so here.
      await this.readsConfirmed();
      return outcome;
    }
    for (const batch of batches) {
      for (const entries of splitUnits(batch.units)) this.#open.closeWith(entries, batch.cpNumber);
    }
    this.#open.closeAll();
    await this.#chain.acknowledged(this.#chain.next - 1);
    return 'durable';
  }

  get logIsHalfFull(): boolean {
    if (this.logsData && this.#localLog?.isHalfFull === true) return true;
    return (
      this.#chain.next - this.#fsinfo.replayFrom >= RECORDS_PER_CP ||
      this.#open.blocksClosed - this.#blocksBefore >= BLOCKS_PER_CP
    );
  }

  freezeLog(cpNumber: number): void {
    this.#localLog?.freeze(cpNumber);
    const { first, blocksClosed } = this.#open;
    this.#replayFrom.set(cpNumber, { record: first, blocks: blocksClosed });
  }

  async *recover(pass: RecoveryPass): AsyncGenerator<RecoveredBatch> {
    const walk = walkChain(this.#objects, this.#prefix, this.#fsinfo, this.#epoch);
    for await (const { record } of walk) {
      if (record.kind !== 'seal') this.#ledger.found(record);
      if (record.entries.length === 0) continue;
      yield {
        cpNumber: record.cpNumber,
        entries: record.entries,
        payload: () => {
          throw new StoreError('corrupt', `record ${record.number} has a data entry`);
        },
      };
    }
    if (this.#localLog !== undefined) yield* this.#localLog.recover(pass);
  }

  // -- consistency point

  async commit(request: CommitRequest): Promise<void> {
    const { generation } = request;
    const freed = request.freedData;
    // Every record that this generation has blocks in is closed before its blocks are counted.
    this.#open.closeAll();
    const logFrom = this.#replayFrom.get(generation.number);
    invariant(logFrom !== undefined, 'the log was marked when the generation was frozen');
    const replayFrom = logFrom.record;
    await writeUsage(this.#usageParts, generation, freed);
    this.#open.closeAll();
    const dead = await this.#findDead(generation, replayFrom);
    const before = this.#fsinfo;
    const fsinfo: Fsinfo = {
      ...before,
      cpNumber: generation.number,
      epoch: this.#epoch,
      incompatible: request.incompatible,
      ...namingOf(this.#localLog, generation.number, request.clean),
      replayFrom,
      nextTreeId: request.nextTreeId,
      nextVdiskId: request.nextVdiskId,
      usedBlocks: before.usedBlocks + generation.allocated.size - freed.size,
      roots: {
        ...request.roots,
        usage: rootOf(this.#attached.usage),
        map: before.roots.map,
      },
    };
    // A successor of a clean store does not wait: nothing is answered from here on.
    if (request.clean) this.#ownership?.end();
    // A record that clients opened meanwhile has a lower number: it must not wait to be full.
    this.#open.closeAll();
    const cp = await putCpRecord({ ...this.#place, chain: this.#chain }, fsinfo);
    this.#oldIndexKeys.push(cp.indexKey);
    await this.#localLog?.committed(generation.number);
    this.commitIsDue = false;
    this.#fsinfo = fsinfo;
    this.#blocksBefore = logFrom.blocks;
    this.#replayFrom.delete(generation.number);
    this.#generations.delete(generation);
    this.#ledger.forgetBelow(replayFrom, (record) => this.#isHeld(record));
    this.#freedBlocks += freed.size;
    // One by one: a call has not room for the records of a large vdisk as its arguments.
    for (const record of dead) this.#dead.push(record);
    this.#ledger.known.add(cp.record);
  }

  get #usageParts(): UsageParts {
    const { editor, usage } = this.#attached;
    return {
      editor,
      usage,
      chain: this.#chain,
      ledger: this.#ledger,
      close: (record) => this.#open.closeRecord(record),
      adopt: (vbn, generation) => {
        this.#liveBlocks++;
        this.adopt(vbn, 'meta', generation);
      },
    };
  }

  /** Records below replayFrom in which this consistency point has nothing live. */
  async #findDead(generation: Generation, replayFrom: number): Promise<number[]> {
    const { editor, usage } = this.#attached;
    const dead: number[] = [];
    for (const record of [...this.#ledger.known]) {
      if (record >= replayFrom || this.#isHeld(record, generation)) continue;
      this.#ledger.known.delete(record);
      const fbn = Math.floor(record / USAGE_ENTRIES_PER_BLOCK);
      const buffer = fbn >= usage.capacityFbn ? -1 : await editor.load(usage, fbn);
      const at = (record % USAGE_ENTRIES_PER_BLOCK) * 2;
      if (buffer >= 0) {
        const word = editor.pool.wordsOf(buffer)[editor.pool.wordStart(buffer) + at] as number;
        if (usageLive(word) !== 0) continue;
      }
      dead.push(record);
    }
    return dead;
  }

  /** True if blocks of the record belong to a later generation, or to none yet. */
  #isHeld(record: number, committing?: Generation): boolean {
    if (this.#inFlight.bitsOf(record) !== undefined) return true;
    for (const generation of this.#generations) {
      if (generation === committing) continue;
      if (generation.allocated.bitsOf(record) !== undefined) return true;
    }
    return false;
  }

  /** The last consistency point is indexed and its readers are gone: its dead records go too. */
  releaseFreed(): void {
    this.#liveBlocks -= this.#freedBlocks;
    this.#freedBlocks = 0;
    const keys: string[] = [];
    for (const record of this.#dead.splice(0)) {
      this.#ledger.kinds.delete(record);
      if (!this.pins.keeps(record)) keys.push(recordKey(this.#prefix, record));
    }
    keys.push(...this.#oldIndexKeys.splice(0, Math.max(0, this.#oldIndexKeys.length - 2)));
    // What cannot be deleted stays behind as an orphan, and harms nobody.
    if (keys.length > 0) void this.#objects.delete(keys).catch(() => undefined);
  }

  async close(): Promise<void> {
    this.#ownership?.end();
    await this.#localLog?.close();
    await this.#cache.close();
  }
}
