/**
 * A record that is being filled, or on its way. Its blocks lie one behind the other in one piece of
 * memory, the trailer behind them: it is put as it lies there, and nothing is gathered.
 *
 * 1. Memory is taken in three sizes, as blocks come: most FLUSHes close a record with few of them.
 * 2. Full-sized memory is used again by a later record, once this one is acknowledged: 4 MiB for
 *    each record, fresh from the system and collected again, cost more than copying its blocks.
 */
import { invariant } from '../../base/invariant.js';
import { BLOCK_BYTES } from '../../base/units.js';
import type { LogEntry } from '../../layout/log-entry.js';
import {
  type BlockTag,
  encodeRecordTrailer,
  RECORD_BLOCKS_MAX,
  type RecordHead,
} from '../../layout/log-record.js';

const SIZES = [16, 64, 1024].map((blocks) => blocks * BLOCK_BYTES);
const FULL_BYTES = 1024 * BLOCK_BYTES;
/** Kept for later: what may be on its way at once, and those being filled. */
const KEPT_MAX = 12;

/** Full-sized memory of records that are acknowledged. */
export class RecordMemory {
  readonly #free: Buffer[] = [];

  take(sizeBytes: number): Buffer {
    const free = sizeBytes === FULL_BYTES ? this.#free.pop() : undefined;
    return free ?? Buffer.allocUnsafeSlow(sizeBytes);
  }

  give(bytes: Buffer): void {
    if (bytes.length === FULL_BYTES && this.#free.length < KEPT_MAX) this.#free.push(bytes);
  }
}

export class OpenRecord {
  readonly number: number;
  readonly tags: BlockTag[] = [];
  entries: readonly LogEntry[] = [];
  cpNumber = 0;
  closed = false;
  readonly #memory: RecordMemory;
  #bytes: Buffer;

  constructor(number: number, memory: RecordMemory) {
    this.number = number;
    this.#memory = memory;
    this.#bytes = memory.take(SIZES[0] as number);
  }

  get blockCount(): number {
    return this.tags.length;
  }

  /** Blocks that it can still take. */
  get room(): number {
    return RECORD_BLOCKS_MAX - this.tags.length;
  }

  get isFull(): boolean {
    return this.room <= 0;
  }

  /** Copies the blocks in; returns the index of the first. */
  add(blocks: Uint8Array, tags: readonly BlockTag[]): number {
    invariant(!this.closed && tags.length <= this.room, 'blocks go into a record that has room');
    const first = this.tags.length;
    this.#grow(first * BLOCK_BYTES + blocks.length);
    this.#bytes.set(blocks, first * BLOCK_BYTES);
    for (const tag of tags) this.tags.push(tag);
    return first;
  }

  /** Good until blocks are added. Undefined: there is no such block. */
  block(index: number): Uint8Array | undefined {
    if (index >= this.tags.length) return undefined;
    return this.#bytes.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES);
  }

  /** The object: blocks and trailer. */
  encode(head: RecordHead): Uint8Array {
    const trailer = encodeRecordTrailer(head, this.tags, this.entries);
    const end = this.tags.length * BLOCK_BYTES;
    this.#grow(end + trailer.length);
    this.#bytes.set(trailer, end);
    return this.#bytes.subarray(0, end + trailer.length);
  }

  #grow(wanted: number): void {
    if (wanted <= this.#bytes.length) return;
    const before = this.#bytes;
    const size = SIZES.find((each) => each >= wanted);
    invariant(size !== undefined, 'a record is at most 4 MiB');
    this.#bytes = this.#memory.take(size);
    this.#bytes.set(before.subarray(0, this.tags.length * BLOCK_BYTES));
    this.#memory.give(before);
  }

  /** It is acknowledged, and nobody looks at its bytes any more. */
  release(): void {
    this.#memory.give(this.#bytes);
    this.#bytes = Buffer.alloc(0);
    this.tags.length = 0;
  }
}
