/**
 * Owns what a simulated device holds: the durable bytes, the bytes that reads see, and every write
 * between the two.
 *
 * 1. `visible` is the newest completed write of every sector.
 * 2. After a cut each 512-byte sector holds its durable bytes, or those of a write to it that was
 *    unsynced or in flight; which one does not depend on the other sectors of that write.
 * 3. A write that became durable hides for ever every write to its blocks that completed before.
 */

import { BLOCK_BYTES, KIB, SECTOR_BYTES } from '../../src/base/units.js';
import type { Random } from '../../src/env/random.js';
import { SparseBytes } from '../../src/env/sparse-bytes.js';
import type { FaultCounts } from './fault-counts.js';

/** Small, because the first write to a chunk after a cut copies it. */
const CHUNK_BYTES = 16 * KIB;

export interface PendingWrite {
  readonly offset: number;
  readonly data: Uint8Array;
}

interface UnsyncedWrite extends PendingWrite {
  /** Place in the order of completion. */
  readonly order: number;
  /** Blocks (from the device's start) of this write that a newer durable write hides. */
  hidden: Set<number> | undefined;
}

export class WriteCache {
  readonly #durable: SparseBytes;
  readonly #visible: SparseBytes;
  #unsynced: UnsyncedWrite[] = [];
  /** Writes whose sync failed: still visible, but no later sync will make them durable. */
  readonly #orphans: UnsyncedWrite[] = [];
  /** Blocks that cannot be read until they are written. */
  readonly #badBlocks: Set<number>;
  #order = 0;

  constructor(durable = new SparseBytes(CHUNK_BYTES), badBlocks: ReadonlySet<number> = new Set()) {
    this.#durable = durable;
    this.#visible = durable.clone();
    this.#badBlocks = new Set(badBlocks);
  }

  read(offset: number, into: Uint8Array): void {
    this.#visible.read(offset, into);
  }

  /** A write completed and stays volatile. */
  complete(write: PendingWrite): void {
    this.#show(write);
    const { offset, data } = write;
    this.#unsynced.push({ offset, data, order: ++this.#order, hidden: undefined });
  }

  /** A write completed and is durable. */
  completeDurable(write: PendingWrite): void {
    this.#show(write);
    this.#durable.write(write.offset, write.data);
    const order = ++this.#order;
    hide(this.#unsynced, write, order);
    hide(this.#orphans, write, order);
  }

  /** A write failed: some of its sectors are there, others are not. */
  completeTorn(write: PendingWrite, random: Random): void {
    const data = new Uint8Array(write.data.length);
    this.#visible.read(write.offset, data);
    const keeps = tear(data.length / SECTOR_BYTES, random);
    for (let at = 0; at < data.length; at += SECTOR_BYTES) {
      if (keeps(at / SECTOR_BYTES)) data.set(write.data.subarray(at, at + SECTOR_BYTES), at);
    }
    this.complete({ offset: write.offset, data });
  }

  /** The writes that a sync which begins now makes durable: those up to this number. */
  mark(): number {
    return this.#order;
  }

  /** A sync ended well. */
  syncThrough(mark: number): void {
    const rest: UnsyncedWrite[] = [];
    for (const write of this.#unsynced) {
      if (write.order <= mark) {
        apply(write, this.#durable);
        hide(this.#orphans, write, write.order);
      } else rest.push(write);
    }
    this.#unsynced = rest;
  }

  /** A sync failed: like Linux, the device calls its writes clean now. */
  forgetThrough(mark: number): void {
    this.#orphans.push(...this.#unsynced.filter((write) => write.order <= mark));
    this.#unsynced = this.#unsynced.filter((write) => write.order > mark);
  }

  flipBit(offset: number, bit: number): void {
    this.#durable.flipBit(offset, bit);
    this.#visible.flipBit(offset, bit);
  }

  failReads(offset: number, length: number): void {
    const end = offset + length;
    for (let block = Math.floor(offset / BLOCK_BYTES); block * BLOCK_BYTES < end; block++) {
      this.#badBlocks.add(block);
    }
  }

  firstBadBlock(offset: number, length: number): number | undefined {
    if (this.#badBlocks.size === 0) return undefined;
    for (let block = offset / BLOCK_BYTES; block * BLOCK_BYTES < offset + length; block++) {
      if (this.#badBlocks.has(block)) return block;
    }
    return undefined;
  }

  /** The durable bytes now, in O(chunks). */
  durableBytes(): SparseBytes {
    return this.#durable.clone();
  }

  /** What is there after the power failed with these writes in flight. */
  afterCut(inFlight: readonly PendingWrite[], random: Random, counts: FaultCounts): WriteCache {
    const image = this.#durable.clone();
    const writes: readonly (PendingWrite & { hidden?: Set<number> | undefined })[] = shuffled(
      [...this.#orphans, ...this.#unsynced, ...inFlight],
      random,
    );
    // Each cut has odds of its own: with fixed ones, the cut that keeps or loses everything would
    // never come.
    const lossOdds = random.below(5) / 4;
    const tearOdds = random.below(4) / 4;
    for (const write of writes) {
      if (random.chance(lossOdds)) {
        if (random.chance(tearOdds)) {
          counts.writesTorn++;
          apply(write, image, tear(write.data.length / SECTOR_BYTES, random));
        } else counts.writesLost++;
      } else {
        counts.writesKept++;
        apply(write, image);
      }
    }
    return new WriteCache(image, this.#badBlocks);
  }

  /** Reads see the write from here on, and a block that could not be read can be. */
  #show({ offset, data }: PendingWrite): void {
    this.#visible.write(offset, data);
    if (this.#badBlocks.size === 0) return;
    for (let at = 0; at < data.length; at += BLOCK_BYTES) {
      this.#badBlocks.delete((offset + at) / BLOCK_BYTES);
    }
  }
}

/** Marks the blocks of `newer` in every write that completed before it. */
function hide(writes: readonly UnsyncedWrite[], newer: PendingWrite, order: number): void {
  const newerEnd = newer.offset + newer.data.length;
  for (const write of writes) {
    const from = Math.max(newer.offset, write.offset);
    const to = Math.min(newerEnd, write.offset + write.data.length);
    if (write.order > order || from >= to) continue;
    write.hidden ??= new Set();
    for (let at = from; at < to; at += BLOCK_BYTES) write.hidden.add(at / BLOCK_BYTES);
  }
}

/** Copies the write, or the sectors that `keeps` says, to the image. */
function apply(
  write: PendingWrite & { readonly hidden?: Set<number> | undefined },
  image: SparseBytes,
  keeps?: (sector: number) => boolean,
): void {
  const { hidden, data, offset } = write;
  if (hidden === undefined && keeps === undefined) {
    image.write(offset, data);
    return;
  }
  for (let at = 0; at < data.length; at += SECTOR_BYTES) {
    if (hidden?.has(Math.floor((offset + at) / BLOCK_BYTES)) === true) continue;
    if (keeps !== undefined && !keeps(at / SECTOR_BYTES)) continue;
    image.write(offset + at, data.subarray(at, at + SECTOR_BYTES));
  }
}

/** Which sectors of a torn write are there: a first part, a last part, or any. */
function tear(sectors: number, random: Random): (sector: number) => boolean {
  const edge = random.below(sectors + 1);
  switch (random.below(4)) {
    case 0:
      return (sector) => sector < edge;
    case 1:
      return (sector) => sector >= edge;
    default:
      return () => random.chance(0.5);
  }
}

/** Fisher and Yates. */
function shuffled<T>(items: T[], random: Random): T[] {
  for (let last = items.length - 1; last > 0; last--) {
    const other = random.below(last + 1);
    const moved = items[last];
    const taken = items[other];
    if (moved === undefined || taken === undefined) continue;
    items[last] = taken;
    items[other] = moved;
  }
  return items;
}
