/**
 * Blocks on a local disk, bounded, across restarts.
 *
 * 1. The file is a ring of groups, written whole, one behind the other: large writes, whatever is
 *    read. Where the ring comes round, blocks that were read since they were put there go into the
 *    new group once more, the others are gone (a CLOCK whose hand writes).
 * 2. A slot says which store, which VBN and which checksum. What does not agree is dropped, and
 *    counted; it is never served.
 * 3. A device that fails, or is full, switches the cache off, with one line in the log. Nobody who
 *    reads learns of it.
 * 4. Nothing is synced: what a power cut loses is read from the object store again.
 */
import { crc32, isAllZero } from '../../../base/checksum.js';
import { BLOCK_BYTES } from '../../../base/units.js';
import type { Device } from '../../../env/device.js';
import type { LogSink } from '../../../env/log-sink.js';
import {
  decodeGroupHead,
  encodeGroupHead,
  GROUP_BYTES,
  GROUP_SLOTS,
  type GroupSlot,
  hasGroupMagic,
} from './cache-group.js';
import { SlotIndex } from './slot-index.js';

export interface CacheFileStats {
  /** Bytes of blocks that it holds, and that it can hold. */
  bytes: number;
  bytesMax: number;
  damaged: number;
  isOn: boolean;
}

interface FreshGroup {
  readonly bytes: Uint8Array;
  readonly slots: GroupSlot[];
}

const EMPTY_SLOT: GroupSlot = { vbn: 0, crc: 0 };

/** Groups that wait to be written, 4 MiB: with more, what is read is not kept. */
const FULL_MAX = 8;

/** Of a group's blocks that were read, so many stay at most: the ring must go on. */
const KEPT_OF_GROUP = 64;
/** Heads that are read at once when the file is opened. */
const HEADS_AT_ONCE = 32;

export class CacheFile {
  readonly #device: Device;
  readonly #uuid: Uint8Array;
  readonly #log: LogSink;
  readonly #groups: number;
  readonly #index: SlotIndex;
  readonly #crcs: Uint32Array;
  #filling = newGroup();
  /** Full, and waiting to be written. */
  readonly #full: FreshGroup[] = [];
  /** Blocks of these groups: their bytes. */
  readonly #fresh = new Map<number, Uint8Array>();
  #group = 0;
  #sequence = 1;
  #writing: Promise<void> | undefined;
  #isOn = true;
  damaged = 0;

  private constructor(device: Device, uuid: Uint8Array, log: LogSink) {
    this.#device = device;
    this.#uuid = uuid;
    this.#log = log;
    this.#groups = Math.floor(device.sizeBytes / GROUP_BYTES);
    this.#index = new SlotIndex(this.#groups * GROUP_SLOTS);
    this.#crcs = new Uint32Array(this.#groups * GROUP_SLOTS);
  }

  /** The cache as the last server left it. Never rejects: a file that cannot be read is off. */
  static async open(device: Device, uuid: Uint8Array, log: LogSink): Promise<CacheFile> {
    const file = new CacheFile(device, uuid, log);
    if (file.#groups < 2) file.#off(`it needs at least ${2 * GROUP_BYTES} bytes`);
    else await file.#load();
    return file;
  }

  async #load(): Promise<void> {
    try {
      for (let start = 0; start < this.#groups; start += HEADS_AT_ONCE) {
        const count = Math.min(HEADS_AT_ONCE, this.#groups - start);
        await Promise.all(Array.from({ length: count }, (_, at) => this.#loadHead(start + at)));
      }
    } catch (error) {
      this.#off(String(error));
    }
  }

  async #loadHead(group: number): Promise<void> {
    const block = new Uint8Array(BLOCK_BYTES);
    await this.#device.read(group * GROUP_BYTES, [block]);
    const head = decodeGroupHead(block, this.#uuid);
    if (head === undefined) return;
    head.slots.forEach(({ vbn, crc }, index) => {
      if (vbn === 0 || this.#index.find(vbn) >= 0) return;
      this.#index.set(group * GROUP_SLOTS + index, vbn);
      this.#crcs[group * GROUP_SLOTS + index] = crc;
    });
    if (head.sequence < this.#sequence) return;
    this.#sequence = head.sequence + 1;
    this.#group = (group + 1) % this.#groups;
  }

  get stats(): CacheFileStats {
    const bytesMax = this.#groups * GROUP_SLOTS * BLOCK_BYTES;
    const blocks = this.#isOn ? this.#index.count : 0;
    return { bytes: blocks * BLOCK_BYTES, bytesMax, damaged: this.damaged, isOn: this.#isOn };
  }

  has(vbn: number): boolean {
    return this.#isOn && (this.#fresh.has(vbn) || this.#index.find(vbn) >= 0);
  }

  /** Fills the block; false if it is not here, or not sound. */
  async read(vbn: number, into: Uint8Array): Promise<boolean> {
    if (!this.#isOn) return false;
    const fresh = this.#fresh.get(vbn);
    if (fresh !== undefined) {
      into.set(fresh);
      return true;
    }
    const slot = this.#index.find(vbn);
    if (slot < 0) return false;
    const crc = this.#crcs[slot] as number;
    this.#index.noteUse(slot);
    try {
      await this.#device.read(offsetOf(slot), [into]);
    } catch (error) {
      this.#off(String(error));
      return false;
    }
    if (crc32(into) === crc) return true;
    // The ring may have come round while it was read: then it is gone, and nothing is damaged.
    if (this.#index.find(vbn) === slot && this.#crcs[slot] === crc) {
      this.damaged++;
      this.#index.delete(vbn);
    }
    return false;
  }

  /** Takes a copy of the block, unless writing cannot keep up: then it is not kept. */
  add(vbn: number, bytes: Uint8Array): void {
    if (!this.#isOn || this.has(vbn) || this.#full.length >= FULL_MAX) return;
    this.#put(vbn, bytes);
    this.#writing ??= this.#writeFull().finally(() => {
      this.#writing = undefined;
    });
  }

  /** It is not what its pointer says, whatever the checksum of the slot is. */
  forget(vbn: number): void {
    if (!this.has(vbn)) return;
    this.damaged++;
    this.#index.delete(vbn);
    if (!this.#fresh.delete(vbn)) return;
    for (const { slots } of [this.#filling, ...this.#full]) {
      const at = slots.findIndex((slot) => slot.vbn === vbn);
      if (at >= 0) slots[at] = EMPTY_SLOT;
    }
  }

  #put(vbn: number, bytes: Uint8Array): void {
    const { slots, bytes: all } = this.#filling;
    const start = (slots.length + 1) * BLOCK_BYTES;
    all.set(bytes, start);
    slots.push({ vbn, crc: crc32(bytes) });
    this.#fresh.set(vbn, all.subarray(start, start + BLOCK_BYTES));
    if (slots.length < GROUP_SLOTS) return;
    this.#full.push(this.#filling);
    this.#filling = newGroup();
  }

  async #writeFull(): Promise<void> {
    await Promise.resolve();
    for (let fresh = this.#full[0]; fresh !== undefined && this.#isOn; fresh = this.#full[0]) {
      await this.#writeGroup(fresh);
      this.#full.shift();
      for (const { vbn } of fresh.slots) this.#fresh.delete(vbn);
    }
  }

  async #writeGroup({ bytes, slots }: FreshGroup): Promise<void> {
    const group = this.#group;
    try {
      const kept = await this.#takeUsed(group);
      encodeGroupHead({ sequence: this.#sequence, slots }, this.#uuid, bytes);
      await this.#device.write(group * GROUP_BYTES, [bytes]);
      slots.forEach(({ vbn, crc }, index) => {
        if (vbn === EMPTY_SLOT.vbn) return;
        this.#index.set(group * GROUP_SLOTS + index, vbn);
        this.#crcs[group * GROUP_SLOTS + index] = crc;
      });
      this.#sequence++;
      this.#group = (group + 1) % this.#groups;
      for (const { vbn, block } of kept) if (!this.has(vbn)) this.#put(vbn, block);
    } catch (error) {
      this.#off(String(error));
    }
  }

  /** Empties the group; resolves with those of its blocks that are to stay. */
  async #takeUsed(group: number): Promise<{ vbn: number; block: Uint8Array }[]> {
    const wanted: { vbn: number; slot: number }[] = [];
    for (let slot = group * GROUP_SLOTS; slot < (group + 1) * GROUP_SLOTS; slot++) {
      const vbn = this.#index.vbnOf(slot);
      if (vbn === 0) continue;
      if (this.#index.isUsed(slot) && wanted.length < KEPT_OF_GROUP) wanted.push({ vbn, slot });
      this.#index.delete(vbn);
    }
    const kept: { vbn: number; block: Uint8Array }[] = [];
    for (const { vbn, slot } of wanted) {
      const block = new Uint8Array(BLOCK_BYTES);
      await this.#device.read(offsetOf(slot), [block]);
      if (crc32(block) === this.#crcs[slot]) kept.push({ vbn, block });
      else this.damaged++;
    }
    return kept;
  }

  #off(reason: string): void {
    if (!this.#isOn) return;
    this.#isOn = false;
    this.#full.length = 0;
    this.#fresh.clear();
    this.#log({
      level: 'warn',
      event: 'cache-file-off',
      message: `The cache file ${this.#device.name} is not used any more: ${reason}`,
    });
  }

  /** Writes what it has not written, and lets go of the device. */
  async close(): Promise<void> {
    await this.#writing;
    if (this.#isOn && this.#filling.slots.length > 0) await this.#writeGroup(this.#filling);
    this.#isOn = false;
    await this.#device.close();
  }
}

/** True if the device begins as a cache does, or as nothing does. @throws {StoreError} device */
export async function isCacheDevice(device: Device): Promise<boolean> {
  const block = new Uint8Array(BLOCK_BYTES);
  await device.read(0, [block]);
  return isAllZero(block) || hasGroupMagic(block);
}

function newGroup(): FreshGroup {
  return { bytes: new Uint8Array(GROUP_BYTES), slots: [] };
}

function offsetOf(slot: number): number {
  const group = Math.floor(slot / GROUP_SLOTS);
  return group * GROUP_BYTES + ((slot % GROUP_SLOTS) + 1) * BLOCK_BYTES;
}
