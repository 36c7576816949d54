/**
 * The record chain: records are numbered, put in parallel, and acknowledged strictly in order.
 *
 * 1. A record is acknowledged when it and every one before it is in the object store.
 * 2. A record keeps its blocks in memory until it is acknowledged; reads are served from there.
 * 3. A put whose outcome is unknown is settled by reading the key: our nonce, it is there; another
 *    body, somebody else owns the store; nothing, the same body is put again.
 * 4. At most `inFlightMax` puts are under way: whoever places blocks waits for that.
 * 5. No record is put WINDOW_RECORDS or more ahead of the first one that is not acknowledged: what
 *    a deposed owner has under way stays within the gap before the next epoch.
 */
import { invariant } from '../../base/invariant.js';
import { StoreError } from '../../base/store-error.js';
import { SEGMENT_BLOCKS } from '../../base/units.js';
import { AmbiguousPutError, isPassingFailure, type ObjectStore } from '../../env/object-store.js';
import {
  type BlockTag,
  decodeRecord,
  type RecordHead,
  type RecordKind,
} from '../../layout/log-record.js';
import { OpenRecord, RecordMemory } from './open-record.js';

export interface ChainIdentity {
  readonly uuid: Uint8Array;
  readonly lineage: number;
  readonly epoch: number;
  /** Fresh bytes for every record, so that no two bodies are alike. */
  readonly nonce: () => Uint8Array;
  readonly prefix: string;
  /** For `confirmedMs`; without it that stays 0. */
  readonly nowMs?: () => number;
}

const IN_FLIGHT_MAX = 8;
/** Below EPOCH_GAP_RECORDS. */
const WINDOW_RECORDS = 512;
/** Of stores that do not try again by themselves, and count no time: a bound, and no more. */
export const READ_TRIES_MAX = 10;
/** An outcome is unknown until the store's patience is over, with a pause each time. */
export const PUT_TRIES_MAX = 10_000;
const READINGS_MAX = 3;

export function recordKey(prefix: string, number: number): string {
  return `${prefix}/log/${number.toString(16).padStart(16, '0')}`;
}

export class RecordChain {
  readonly #objects: ObjectStore;
  readonly #identity: ChainIdentity;
  readonly #memory = new RecordMemory();
  #next: number;
  /** Every record below this is acknowledged. */
  #acknowledged: number;
  /** Records that landed, with the time when their puts began. */
  readonly #landed = new Map<number, number>();
  /** Closed, but too far ahead to be put. */
  readonly #held: { readonly record: OpenRecord; readonly kind: RecordKind }[] = [];
  readonly #sent = new Set<number>();
  #confirmedMs = 0;
  readonly #unacknowledged = new Map<number, OpenRecord>();
  #inFlight = 0;
  #failure: StoreError | undefined;
  readonly #waiters: { through: number; resolve: () => void; reject: (e: unknown) => void }[] = [];
  #throttled: (() => void)[] = [];

  constructor(objects: ObjectStore, identity: ChainIdentity, next: number) {
    this.#objects = objects;
    this.#identity = identity;
    this.#next = next;
    this.#acknowledged = next;
  }

  get next(): number {
    return this.#next;
  }

  /** The first record that is not acknowledged: somebody who takes over puts his SEAL there. */
  get firstOpen(): number {
    return this.#acknowledged;
  }

  /** True while this record's put is under way, or it waits for those before it. */
  isSent(number: number): boolean {
    return this.#sent.has(number);
  }

  get failure(): StoreError | undefined {
    return this.#failure;
  }

  /** At this time, or later, nobody had sealed the chain. */
  get confirmedMs(): number {
    return this.#confirmedMs;
  }

  confirm(timeMs: number): void {
    this.#confirmedMs = Math.max(this.#confirmedMs, timeMs);
  }

  open(): OpenRecord {
    const record = new OpenRecord(this.#next++, this.#memory);
    this.#unacknowledged.set(record.number, record);
    return record;
  }

  /** The block, if its record is not acknowledged yet. */
  blockInMemory(vbn: number): Uint8Array | undefined {
    const record = this.#unacknowledged.get(Math.floor(vbn / SEGMENT_BLOCKS));
    return record?.block(vbn % SEGMENT_BLOCKS);
  }

  /** Sends the record on its way. Its blocks and entries do not change any more. */
  close(record: OpenRecord, kind: RecordKind): void {
    invariant(!record.closed, 'a record is closed once');
    record.closed = true;
    this.#inFlight++;
    if (record.number < this.#acknowledged + WINDOW_RECORDS) this.#send(record, kind);
    else this.#held.push({ record, kind });
  }

  #send(record: OpenRecord, kind: RecordKind): void {
    const startMs = this.#identity.nowMs?.() ?? 0;
    this.#sent.add(record.number);
    void this.#put(record, kind).then(
      () => this.#land(record.number, startMs),
      (error: unknown) => this.fail(error),
    );
  }

  async #put(record: OpenRecord, kind: RecordKind): Promise<void> {
    const { uuid, lineage, epoch, nonce, prefix } = this.#identity;
    const head: RecordHead = {
      kind,
      uuid,
      lineage,
      epoch,
      number: record.number,
      cpNumber: record.cpNumber,
      nonce: nonce(),
    };
    await this.#putSettled(recordKey(prefix, record.number), [record.encode(head)], head);
  }

  async #putSettled(key: string, chunks: readonly Uint8Array[], head: RecordHead): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        if ((await this.#objects.putNew(key, chunks)) === 'created') return;
        // Somebody on the way may have sent the request twice.
        if ((await this.#whoseIs(key, head)) === 'ours') return;
        throw fencedAt(this.#objects.name, key, head.epoch);
      } catch (error) {
        if (!(error instanceof AmbiguousPutError)) throw error;
        const whose = await this.#whoseIs(key, head);
        if (whose === 'ours') return;
        if (whose === 'theirs') throw fencedAt(this.#objects.name, key, head.epoch);
        if (attempt >= PUT_TRIES_MAX) {
          throw new StoreError(
            'device',
            `${this.#objects.name}: ${key} could not be put in ${attempt} tries: ${error.message}`,
          );
        }
      }
    }
  }

  /** By the nonce. A record that is damaged is read again: it may have been so on its way only. */
  async #whoseIs(key: string, head: RecordHead): Promise<'ours' | 'theirs' | 'nobodys'> {
    for (let reading = 1; ; reading++) {
      const there = await this.#read(key);
      if (there === undefined) return 'nobodys';
      const record = decodeRecord(there, head.uuid);
      if (record === undefined && reading < READINGS_MAX) continue;
      const isOurs = record?.nonce.every((byte, index) => byte === head.nonce[index]) === true;
      return isOurs ? 'ours' : 'theirs';
    }
  }

  async #read(key: string): Promise<Uint8Array | undefined> {
    for (let attempt = 1; ; attempt++) {
      try {
        return await this.#objects.get(key);
      } catch (error) {
        if (attempt >= READ_TRIES_MAX || !isPassingFailure(error)) throw error;
      }
    }
  }

  #land(number: number, startMs: number): void {
    this.#inFlight--;
    this.#landed.set(number, startMs);
    for (;;) {
      const first = this.#acknowledged;
      const putMs = this.#landed.get(first);
      if (putMs === undefined) break;
      this.#landed.delete(first);
      this.#sent.delete(first);
      this.#unacknowledged.get(first)?.release();
      this.#unacknowledged.delete(first);
      this.#acknowledged++;
      // When this one was created nobody had sealed before it: he would have met one of ours.
      this.confirm(putMs);
    }
    const end = this.#acknowledged + WINDOW_RECORDS;
    for (let index = this.#held.length - 1; index >= 0 && this.#failure === undefined; index--) {
      const held = this.#held[index];
      if (held === undefined || held.record.number >= end) continue;
      this.#held.splice(index, 1);
      this.#send(held.record, held.kind);
    }
    this.#wake();
  }

  /** Ends the chain: nothing is acknowledged any more. */
  fail(error: unknown): void {
    this.#failure ??=
      error instanceof StoreError
        ? error
        : new StoreError('device', `${this.#objects.name}: ${String(error)}`);
    this.#wake();
  }

  #wake(): void {
    for (let index = this.#waiters.length - 1; index >= 0; index--) {
      const waiter = this.#waiters[index];
      if (waiter === undefined) continue;
      if (this.#failure !== undefined) waiter.reject(this.#failure);
      else if (waiter.through < this.#acknowledged) waiter.resolve();
      else continue;
      this.#waiters.splice(index, 1);
    }
    const throttled = this.#throttled;
    this.#throttled = [];
    for (const resolve of throttled) resolve();
  }

  /** Resolves when this record and all before it are acknowledged. */
  acknowledged(through: number): Promise<void> {
    if (this.#failure !== undefined) return Promise.reject(this.#failure);
    if (through < this.#acknowledged) return Promise.resolve();
    return new Promise((resolve, reject) => {
      this.#waiters.push({ through, resolve, reject });
    });
  }

  /** Resolves when few enough puts are under way. */
  async throttle(): Promise<void> {
    while (this.#inFlight > IN_FLIGHT_MAX && this.#failure === undefined) {
      await new Promise<void>((resolve) => this.#throttled.push(resolve));
    }
    if (this.#failure !== undefined) throw this.#failure;
  }

  /** Copies blocks into the record, which has room for them; returns the VBN of the first. */
  copyIn(record: OpenRecord, blocks: Uint8Array, tags: readonly BlockTag[]): number {
    return record.number * SEGMENT_BLOCKS + record.add(blocks, tags);
  }
}

/** What the owner of this epoch is told when somebody else has put this key of its chain. */
export function fencedAt(name: string, key: string, epoch: number): StoreError {
  return new StoreError(
    'fenced',
    `${name}: ${key} was created by somebody else: another server has taken this store over, ` +
      `and epoch ${epoch}, which was ours, has ended`,
  );
}
