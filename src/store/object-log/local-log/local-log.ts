/**
 * Durability `local`: a FLUSH is durable in a ring of groups on a local disk, and with the next
 * consistency point in the object store. docs/decisions/0031-a-local-log.md has the reasons.
 *
 * 1. Each epoch has a ring of its own, with a fresh uuid. Nothing is added to it before a
 *    consistency point in the object store names it: whoever opens the store knows that there is
 *    more, and where.
 * 2. The ring of the epoch before stands until then: nothing is written over it.
 * 3. What is in the ring and not in the object store is never older than `lagMsMax` when something
 *    is added, nor more than the ring takes: else the answer is 'full', and the FLUSH waits for a
 *    consistency point.
 * 4. A consistency point is a state of the whole store. Who has to do without the log goes back to
 *    one: nothing is there without what was before it.
 */
import { invariant } from '../../../base/invariant.js';
import { StoreError } from '../../../base/store-error.js';
import { BLOCK_BYTES } from '../../../base/units.js';
import type { Clock } from '../../../env/clock.js';
import type { Device } from '../../../env/device.js';
import type { Fsinfo } from '../../../layout/fsinfo.js';
import { LOCAL_HEADS, NO_RING } from '../../../layout/local-log-head.js';
import { LogRing, type RingMark } from '../../log-ring.js';
import type { LogBatch, RecoveredBatch, RecoveryPass } from '../../medium.js';
import { withContent } from './log-content.js';
import { LogHeads, namesLog } from './log-heads.js';

export interface LocalLogOptions {
  readonly device: Device;
  readonly clock: Clock;
  /** False: what it holds is recovered, and nothing added. */
  readonly isUsed: boolean;
  readonly lagMsMax: number;
}

export interface LocalLogStats {
  readonly sizeBytes: number;
  /** Of the log: what the object store does not have. */
  readonly lagBytes: number;
  /** Age of the oldest of it. */
  readonly lagMs: number;
  readonly lagMsMax: number;
  /** Groups that were written. */
  readonly groups: number;
  /** FLUSHes that waited for a consistency point, for the log was full or too old. */
  readonly waits: number;
}

/** What a consistency point says of the local log. */
export type LogNaming = Pick<Fsinfo, 'logUuid' | 'localFrom' | 'replayPosition' | 'clean'>;

interface Frozen {
  readonly mark: RingMark;
  readonly oldestMs: number | undefined;
}

export class LocalLog {
  readonly isUsed: boolean;
  readonly #device: Device;
  readonly #clock: Clock;
  readonly #lagMsMax: number;
  readonly #heads: LogHeads;
  /** Of an earlier epoch: to be recovered. */
  #before: LogRing | undefined;
  #ring: LogRing | undefined;
  #uuid: Uint8Array = NO_RING;
  readonly #frozen = new Map<number, Frozen>();
  /** When the first group since the last freeze was added. */
  #oldestMs: number | undefined;
  #isNamed = false;
  #isClosed = false;
  #groups = 0;
  #waits = 0;

  private constructor(options: LocalLogOptions, heads: LogHeads) {
    this.isUsed = options.isUsed;
    this.#device = options.device;
    this.#clock = options.clock;
    this.#lagMsMax = options.lagMsMax;
    this.#heads = heads;
  }

  /** @throws {StoreError} invalid (no local log), corrupt, unsupported, device */
  static async open(options: LocalLogOptions): Promise<LocalLog> {
    return new LocalLog(options, await LogHeads.read(options.device));
  }

  get name(): string {
    return this.#device.name;
  }

  /** @throws {StoreError} invalid: it belongs to another store, or to an epoch that has ended */
  holdsTailOf(fsinfo: Fsinfo): boolean {
    return this.#heads.holdsTailOf(fsinfo);
  }

  /** The epoch is ours, and this its first consistency point, or the last one before it. */
  async begin(fsinfo: Fsinfo, epoch: number, uuid: Uint8Array): Promise<void> {
    const blocks = Math.floor(this.#device.sizeBytes / BLOCK_BYTES) - LOCAL_HEADS;
    const place = { start: LOCAL_HEADS, blocks, epoch, name: this.#device.name };
    const hasTail = this.#heads.holdsTailOf(fsinfo);
    if (hasTail) {
      const at = { sequence: fsinfo.localFrom, position: fsinfo.replayPosition };
      const ring = { ...place, ...at, uuid: fsinfo.logUuid, epoch: fsinfo.epoch };
      this.#before = new LogRing(this.#device, ring);
    }
    await this.#heads.begin(fsinfo.uuid, epoch, uuid, hasTail ? fsinfo.logUuid : NO_RING);
    this.#uuid = uuid;
    this.#ring = new LogRing(this.#device, { ...place, uuid, sequence: 1, position: 0 });
  }

  get #ours(): LogRing {
    invariant(this.#ring !== undefined, 'a local log is begun before it is used');
    return this.#ring;
  }

  /** What the last consistency point lacks, in order. @throws {StoreError} corrupt, device */
  async *recover(pass: RecoveryPass): AsyncGenerator<RecoveredBatch> {
    if (this.#before !== undefined) yield* this.#before.recover(pass);
  }

  /** @param blockOf  a block that the object store does not have yet */
  async append(
    batches: readonly LogBatch[],
    blockOf: (vbn: number) => Uint8Array | undefined,
  ): Promise<'durable' | 'full'> {
    invariant(this.#isNamed, 'nothing is added before a consistency point names the ring');
    const { oldestMs } = this.#lag;
    const nowMs = this.#clock.nowMs();
    const isLate = nowMs - oldestMs > this.#lagMsMax;
    const hadOldest = this.#oldestMs !== undefined;
    // Set first: the ring may be marked while the group is written.
    this.#oldestMs ??= nowMs;
    const isOpen = !isLate && !this.#isClosed;
    const groups = isOpen ? withContent(batches, blockOf) : [];
    const outcome = isOpen ? await this.#ours.append(groups) : 'full';
    if (outcome === 'durable') {
      this.#groups += groups.length;
      return outcome;
    }
    this.#waits++;
    if (!hadOldest) this.#oldestMs = undefined;
    return outcome;
  }

  get isHalfFull(): boolean {
    return this.#ours.usedBlocks * BLOCK_BYTES * 2 > this.#device.sizeBytes;
  }

  get #lag(): { readonly oldestMs: number } {
    const frozen = [...this.#frozen.values()].map(({ oldestMs }) => oldestMs ?? Infinity);
    return { oldestMs: Math.min(this.#oldestMs ?? Infinity, ...frozen) };
  }

  get stats(): LocalLogStats {
    const { oldestMs } = this.#lag;
    return {
      sizeBytes: this.#device.sizeBytes,
      lagBytes: (this.#ring?.usedBlocks ?? 0) * BLOCK_BYTES,
      lagMs: Math.max(0, this.#clock.nowMs() - Math.min(oldestMs, this.#clock.nowMs())),
      lagMsMax: this.#lagMsMax,
      groups: this.#groups,
      waits: this.#waits,
    };
  }

  // -- consistency points

  freeze(cpNumber: number): void {
    this.#frozen.set(cpNumber, { mark: this.#ours.mark, oldestMs: this.#oldestMs });
    this.#oldestMs = undefined;
  }

  /**
   * What the consistency point says. A last one names no log, and nothing is added any more; unless
   * a FLUSH was quicker: then the store was not closed in order.
   */
  naming(cpNumber: number, isLast: boolean): LogNaming {
    if (!this.isUsed) return { ...NO_NAMING, clean: isLast };
    const frozen = this.#frozen.get(cpNumber);
    invariant(frozen !== undefined, 'the local log was marked when the generation was frozen');
    const { mark } = frozen;
    if (isLast && mark.sequence === this.#ours.mark.sequence) {
      this.#isClosed = true;
      return { ...NO_NAMING, clean: true };
    }
    return {
      logUuid: this.#uuid,
      localFrom: mark.sequence,
      replayPosition: this.#ours.positionOf(mark),
      clean: false,
    };
  }

  /** The consistency point is durable in the object store. */
  async committed(cpNumber: number): Promise<void> {
    const frozen = this.#frozen.get(cpNumber);
    invariant(frozen !== undefined, 'the local log was marked when the generation was frozen');
    this.#ours.release(frozen.mark);
    this.#frozen.delete(cpNumber);
    const isFirst = !this.#isNamed;
    this.#isNamed = true;
    if (this.#isClosed || (isFirst && !this.isUsed)) await this.#heads.empty();
  }

  close(): Promise<void> {
    return this.#device.close();
  }
}

const NO_NAMING = { logUuid: NO_RING, localFrom: 0, replayPosition: 0 };

/** What a consistency point of a store without a local log says. */
export function namingOf(log: LocalLog | undefined, cpNumber: number, isLast: boolean): LogNaming {
  return log?.naming(cpNumber, isLast) ?? { ...NO_NAMING, clean: isLast };
}

/** How somebody who opens a store stands to its local log. */
export interface LogAccess {
  readonly log: LocalLog | undefined;
  /** The word that the store is to be opened without it. */
  readonly isGivenUp: boolean;
}

/**
 * Nobody goes on from a consistency point that lacks what was flushed, unless he was told to.
 * @throws {StoreError} not-found: the log is not here; invalid: another one is
 */
export function admit(fsinfo: Fsinfo, { log, isGivenUp }: LogAccess, name: string): void {
  const hasTail = log?.holdsTailOf(fsinfo) === true;
  if (hasTail || isGivenUp || !namesLog(fsinfo)) return;
  const where = log === undefined ? 'no local log is given' : `${log.name} does not hold it`;
  throw new StoreError(
    'not-found',
    `${name}: what was flushed since consistency point ${fsinfo.cpNumber} is in the local log ` +
      `of the server of epoch ${fsinfo.epoch}, and ${where}. Start it there, or with that file ` +
      'as --local-log. If it is lost, --without-local-log opens the store as of that point: what ' +
      'was flushed later is gone then',
  );
}
