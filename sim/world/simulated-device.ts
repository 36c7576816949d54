/**
 * Owns a device in a simulated world: seeded latencies, a volatile cache, declared faults.
 *
 * 1. Calls run side by side and complete in any order. A read sees every write that completed
 *    before it began; of those that it overlaps in time, all or nothing.
 * 2. A sync makes durable what completed before it began; a durable write makes durable itself.
 * 3. Without power no promise settles and no callback is called, then or later.
 * 4. After a cut each sector holds its durable bytes or those of any unsynced or in-flight write
 *    (write-cache.ts).
 * 5. Faults are off until asked for, and counted when they happen: failed writes (torn), failed
 *    syncs (the writes may be lost, and a later sync succeeds without them), unreadable ranges
 *    (until written again), flipped bits, power cuts.
 * 6. It checks Device's invariant 3: a caller that changes a buffer in flight is a bug.
 */
import { invariant } from '../../src/base/invariant.js';
import { StoreError } from '../../src/base/store-error.js';
import { BLOCK_BYTES } from '../../src/base/units.js';
import { joined, totalBytes } from '../../src/env/buffers.js';
import type { Clock } from '../../src/env/clock.js';
import { copyThroughMemory } from '../../src/env/copy-blocks.js';
import type { BlockCopies, Device } from '../../src/env/device.js';
import { rangeError } from '../../src/env/device-range.js';
import { type DeviceStats, newDeviceStats } from '../../src/env/memory-device.js';
import type { Random } from '../../src/env/random.js';
import type { SparseBytes } from '../../src/env/sparse-bytes.js';
import { type FaultCounts, newFaultCounts } from './fault-counts.js';
import { drawLatencyMs } from './latency.js';
import { never } from './never.js';
import { type PendingWrite, WriteCache } from './write-cache.js';

export interface DeviceLatencies {
  readonly readMs: number;
  readonly writeMs: number;
  readonly writeDurableMs: number;
  readonly syncMs: number;
}

/** Means, near to those of a good solid-state disk. */
const LATENCIES: DeviceLatencies = { readMs: 0.1, writeMs: 0.05, writeDurableMs: 0.2, syncMs: 2 };

export interface SimulatedDeviceOptions {
  /** The world's clock, not that of a machine in it: a device has power of its own. */
  readonly clock: Clock;
  /** A stream of its own: draws of the program must not change what the device does. */
  readonly random: Random;
  readonly sizeBytes: number;
  readonly name?: string;
  readonly latencies?: DeviceLatencies;
  /** Durable content to start from, owned by the device from here on; zeros if absent. */
  readonly image?: SparseBytes;
  /** Where to count faults; a new set if absent. */
  readonly counts?: FaultCounts;
}

export class SimulatedDevice implements Device {
  readonly name: string;
  readonly sizeBytes: number;
  readonly stats: DeviceStats = newDeviceStats();
  readonly counts: FaultCounts;
  readonly #options: SimulatedDeviceOptions;
  /** What outlives this opening of the device. */
  readonly #cache: WriteCache;
  readonly #inFlight = new Set<PendingWrite>();
  #callsUnderWay = 0;
  readonly #whenIdle: (() => void)[] = [];
  #isOn = true;
  #isClosed = false;
  #writesIssued = 0;
  #dataWritesIssued = 0;
  #syncsIssued = 0;
  #cutAt: { readonly number: number; readonly onCut: () => void } | undefined;
  #failWriteAt: number | undefined;
  #failSyncAt: number | undefined;

  constructor(options: SimulatedDeviceOptions, cache?: WriteCache) {
    this.name = options.name ?? 'simulated';
    this.sizeBytes = options.sizeBytes;
    this.counts = options.counts ?? newFaultCounts();
    this.#options = options;
    this.#cache = cache ?? new WriteCache(options.image);
  }

  /** Calls of write, writeDurable and sync since it was opened: the points of cutAtWrite. */
  get writesIssued(): number {
    return this.#writesIssued;
  }

  /** Calls of write and writeDurable: the points of failWriteAt. */
  get dataWritesIssued(): number {
    return this.#dataWritesIssued;
  }

  /** Calls of sync: the points of failSyncAt. */
  get syncsIssued(): number {
    return this.#syncsIssued;
  }

  get isOn(): boolean {
    return this.#isOn;
  }

  read(offset: number, into: readonly Uint8Array[]): Promise<void> {
    const length = totalBytes(into);
    return this.#call(offset, length, this.#latencies.readMs, () => {
      this.stats.reads++;
      this.stats.blocksRead += length / BLOCK_BYTES;
      return () => {
        const bad = this.#cache.firstBadBlock(offset, length);
        if (bad !== undefined) {
          this.counts.failedReads++;
          return this.#error(`cannot read block at byte ${bad * BLOCK_BYTES} (simulated)`);
        }
        let position = offset;
        for (const buffer of into) {
          this.#cache.read(position, buffer);
          position += buffer.length;
        }
        return undefined;
      };
    });
  }

  write(offset: number, from: readonly Uint8Array[]): Promise<void> {
    return this.#write(offset, from, false);
  }

  writeDurable(offset: number, from: readonly Uint8Array[]): Promise<void> {
    return this.#write(offset, from, true);
  }

  sync(): Promise<void> {
    return this.#call(0, 0, this.#latencies.syncMs, () => {
      this.stats.syncs++;
      const number = ++this.#syncsIssued;
      const isFailing = number === this.#failSyncAt;
      const mark = this.#cache.mark();
      this.#countIssued();
      return () => {
        if (!isFailing) {
          this.#cache.syncThrough(mark);
          return undefined;
        }
        this.counts.failedSyncs++;
        this.#cache.forgetThrough(mark);
        return this.#error(`sync ${number} failed (simulated)`);
      };
    });
  }

  copyBlocks(copies: BlockCopies): Promise<readonly number[]> {
    return copyThroughMemory(this, copies);
  }

  close(): Promise<void> {
    if (!this.#isOn) return never();
    this.#isClosed = true;
    if (this.#callsUnderWay === 0) return Promise.resolve();
    return new Promise((resolve) => this.#whenIdle.push(resolve));
  }

  /** The same device, opened again after a close: nothing is lost, nothing became durable. */
  reopen(): SimulatedDevice {
    invariant(this.#isOn, 'a device without power is opened again by cutPower');
    invariant(this.#isClosed && this.#callsUnderWay === 0, 'a device is closed, then reopened');
    return new SimulatedDevice({ ...this.#options, counts: this.counts }, this.#cache);
  }

  /** Nothing happens on this device any more; what it holds waits for `cutPower`. */
  powerOff(): void {
    this.#isOn = false;
  }

  /**
   * Cuts the power (if it is not off yet) and gives the device as it is when power is back. Called
   * again it gives another outcome of the same cut.
   */
  cutPower(): SimulatedDevice {
    this.powerOff();
    this.counts.cuts++;
    const cache = this.#cache.afterCut([...this.#inFlight], this.#options.random, this.counts);
    return new SimulatedDevice({ ...this.#options, counts: this.counts }, cache);
  }

  /** The durable bytes: another device can start from them. In O(chunks). */
  durableImage(): SparseBytes {
    return this.#cache.durableBytes();
  }

  /**
   * Power fails in the `number`-th call (1-based, by writesIssued) of write, writeDurable or sync,
   * with that call in flight; `onCut` is called once, as an event of its own.
   */
  cutAtWrite(number: number, onCut: () => void): void {
    this.#cutAt = { number, onCut };
  }

  /** The `number`-th write or writeDurable (1-based, by dataWritesIssued) fails, torn. */
  failWriteAt(number: number): void {
    this.#failWriteAt = number;
  }

  /** The `number`-th sync (1-based, by syncsIssued) fails. */
  failSyncAt(number: number): void {
    this.#failSyncAt = number;
  }

  /** Reads of this range fail until it is written. */
  failReads(offset: number, length: number): void {
    this.#cache.failReads(offset, length);
  }

  /** Inverts bit `bit` (0-7) of the byte at `offset`, as rot does. */
  flipBit(offset: number, bit: number): void {
    this.counts.flippedBits++;
    this.#cache.flipBit(offset, bit);
  }

  get #latencies(): DeviceLatencies {
    return this.#options.latencies ?? LATENCIES;
  }

  #write(offset: number, from: readonly Uint8Array[], isDurable: boolean): Promise<void> {
    const length = totalBytes(from);
    const meanMs = isDurable ? this.#latencies.writeDurableMs : this.#latencies.writeMs;
    return this.#call(offset, length, meanMs, () => {
      this.stats.writes++;
      if (isDurable) this.stats.durableWrites++;
      this.stats.blocksWritten += length / BLOCK_BYTES;
      const write = { offset, data: joined(from) };
      this.#inFlight.add(write);
      const number = ++this.#dataWritesIssued;
      const isFailing = number === this.#failWriteAt;
      this.#countIssued();
      return () => {
        invariant(isSame(from, write.data), 'a buffer stays as it is while its write is in flight');
        this.#inFlight.delete(write);
        if (isFailing) {
          this.counts.failedWrites++;
          this.#cache.completeTorn(write, this.#options.random);
          return this.#error(`write ${number} at byte ${offset} failed (simulated)`);
        }
        if (isDurable) this.#cache.completeDurable(write);
        else this.#cache.complete(write);
        return undefined;
      };
    });
  }

  /**
   * One call: checked, begun, and after its latency completed, unless power fails before.
   *
   * @param begin  counts and registers the call; returns what happens when it completes
   */
  #call(
    offset: number,
    length: number,
    meanMs: number,
    begin: () => () => StoreError | undefined,
  ): Promise<void> {
    if (!this.#isOn) return never();
    if (this.#isClosed) {
      return Promise.reject(new StoreError('closed', `${this.name}: the device is closed`));
    }
    const refusal = rangeError(this, offset, length);
    if (refusal !== undefined) return Promise.reject(refusal);
    const complete = begin();
    if (!this.#isOn) return never();
    this.#callsUnderWay++;
    return new Promise((resolve, reject) => {
      this.#options.clock.setTimer(drawLatencyMs(meanMs, this.#options.random), () => {
        if (!this.#isOn) return;
        const error = complete();
        if (error === undefined) resolve();
        else reject(error);
        if (--this.#callsUnderWay > 0) return;
        for (const wake of this.#whenIdle.splice(0)) wake();
      });
    });
  }

  #countIssued(): void {
    if (++this.#writesIssued !== this.#cutAt?.number) return;
    const { onCut } = this.#cutAt;
    this.powerOff();
    // Not from here: the caller is in the middle of something.
    this.#options.clock.setTimer(0, onCut);
  }

  #error(what: string): StoreError {
    return new StoreError('device', `${this.name}: ${what}`);
  }
}

function isSame(buffers: readonly Uint8Array[], all: Uint8Array): boolean {
  let position = 0;
  for (const buffer of buffers) {
    const part = all.subarray(position, position + buffer.length);
    if (Buffer.compare(buffer, part) !== 0) return false;
    position += buffer.length;
  }
  return true;
}
