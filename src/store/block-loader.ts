/**
 * Brings blocks from the medium into memory, and lets nothing through that its pointer's checksum
 * does not confirm.
 *
 * 1. A read counts from the moment its VBN was taken from a pointer until it settles. `drained`
 *    resolves when every read that counted at the call has settled: only then may a freed block be
 *    used again (a read of it would otherwise see another block's bytes and call it damage).
 * 2. A damaged metadata block is read from its second copy, and the damaged one is healed.
 * 3. Metadata that several wait for is read once.
 * 4. What may have changed on its way from the medium is read again before it is called damaged.
 */
import { crc32 } from '../base/checksum.js';
import { StoreError } from '../base/store-error.js';
import { BLOCK_BYTES } from '../base/units.js';
import type { LogSink } from '../env/log-sink.js';
import type { BufferPool } from './buffer-pool.js';
import type { Medium } from './medium.js';

/** A block that is damaged in so many more readings is. */
const READINGS_MORE = 2;

export class BlockLoader {
  readonly #pool: BufferPool;
  readonly #medium: Medium;
  readonly #log: LogSink;
  readonly #loading = new Map<number, Promise<void>>();
  /** Reads under way that began in the even and in the odd epoch. */
  readonly #reads = [0, 0];
  #epoch = 0;
  #drain: { resolve: () => void; epoch: number } | undefined;
  blocksRead = 0;
  blocksHealed = 0;

  constructor(pool: BufferPool, medium: Medium, log: LogSink) {
    this.#pool = pool;
    this.#medium = medium;
    this.#log = log;
  }

  /** Loads a metadata block into a clean buffer. */
  loadMeta(vbn: number, crc: number): Promise<void> {
    const running = this.#loading.get(vbn);
    if (running !== undefined) return running;
    const load = this.#loadMeta(vbn, crc).finally(() => this.#loading.delete(vbn));
    this.#loading.set(vbn, load);
    return load;
  }

  async #loadMeta(vbn: number, crc: number): Promise<void> {
    if (this.#pool.find(vbn) >= 0) return;
    const buffer = this.#pool.take();
    const end = this.#begin();
    try {
      const bytes = this.#pool.bytes(buffer);
      const fault = await this.#readOne(vbn, bytes, crc);
      if (fault !== undefined) await this.#healFirst(vbn, crc, bytes, fault);
      this.blocksRead++;
      if (this.#pool.find(vbn) < 0) {
        this.#pool.setClean(buffer, vbn, crc);
        this.#pool.noteMeta(buffer);
      } else {
        this.#pool.drop(buffer);
      }
    } catch (error) {
      this.#pool.drop(buffer);
      throw error;
    } finally {
      this.#pool.unpin(buffer);
      end();
    }
  }

  /** Reads and verifies one block; returns what is wrong with it. */
  async #readOne(vbn: number, bytes: Uint8Array, crc: number): Promise<string | undefined> {
    try {
      await this.#medium.readBlocks(vbn, [bytes]);
    } catch (error) {
      if (error instanceof StoreError && error.kind === 'device') return error.message;
      throw error;
    }
    const found = crc32(bytes);
    if (found === crc || (await this.#readAgain(vbn, bytes, crc))) return undefined;
    return `its checksum is ${hex(found)} instead of ${hex(crc)}`;
  }

  /** True if one of a few more readings brings the right bytes. @throws {StoreError} device */
  async #readAgain(vbn: number, bytes: Uint8Array, crc: number): Promise<boolean> {
    for (let reading = 0; reading < READINGS_MORE; reading++) {
      if (!(await this.#medium.readAgain(vbn, bytes))) return false;
      if (crc32(bytes) === crc) return true;
    }
    return false;
  }

  async #healFirst(vbn: number, crc: number, bytes: Uint8Array, fault: string): Promise<void> {
    const hasCopy = await this.#medium.readSecondCopy(vbn, bytes).catch(() => false);
    if (!hasCopy || crc32(bytes) !== crc) {
      const copy = hasCopy ? ', and its second copy is damaged too' : '';
      throw new StoreError(
        'corrupt',
        `metadata block ${vbn} of ${this.#medium.name}: ${fault}${copy}; run a check of the store`,
      );
    }
    this.blocksHealed++;
    this.#log({
      level: 'warn',
      event: 'metadata-healed',
      message: `Metadata block ${vbn} was damaged (${fault}); healed from its second copy.`,
      fields: { vbn },
    });
    await this.#medium.heal(vbn, bytes, 'first');
  }

  /**
   * Reads data blocks from `vbn` on into the buffers and verifies each. Resolves with the index of
   * the first damaged one, or -1.
   */
  async readData(
    vbn: number,
    into: readonly Uint8Array[],
    crcs: ArrayLike<number>,
  ): Promise<number> {
    const end = this.#begin();
    try {
      await this.#medium.readBlocks(vbn, into);
      this.blocksRead += into.length;
      for (let index = 0; index < into.length; index++) {
        const block = into[index] as Uint8Array;
        const crc = crcs[index] as number;
        if (crc32(block) === crc || (await this.#readAgain(vbn + index, block, crc))) continue;
        return index;
      }
      return -1;
    } finally {
      end();
    }
  }

  /**
   * Counts as a read from now until the returned function is called: for VBNs that are taken from
   * pointers now and read, or named, after something else was awaited.
   */
  hold(): () => void {
    return this.#begin();
  }

  /** Resolves when every read that is under way now has ended. */
  drained(): Promise<void> {
    const epoch = this.#epoch;
    this.#epoch = 1 - epoch;
    if (this.#reads[epoch] === 0) return Promise.resolve();
    return new Promise((resolve) => {
      this.#drain = { resolve, epoch };
    });
  }

  #begin(): () => void {
    const epoch = this.#epoch;
    this.#reads[epoch] = (this.#reads[epoch] as number) + 1;
    return () => {
      this.#reads[epoch] = (this.#reads[epoch] as number) - 1;
      if (this.#reads[epoch] === 0 && this.#drain?.epoch === epoch) {
        const { resolve } = this.#drain;
        this.#drain = undefined;
        resolve();
      }
    };
  }
}

function hex(crc: number): string {
  return `0x${crc.toString(16).padStart(8, '0')}`;
}

/** Cuts a contiguous memory area into block-sized views. */
export function toBlockViews(bytes: Uint8Array): Uint8Array[] {
  const views: Uint8Array[] = [];
  for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
    views.push(bytes.subarray(at, at + BLOCK_BYTES));
  }
  return views;
}
