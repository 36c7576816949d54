/**
 * The two heads of a local log: read, judged against the store, written.
 *
 * 1. Both are written, one after the other, each durably: a torn one leaves the other.
 * 2. A log is let in only if nothing in it can be what the store lacks and never will have: the
 *    last consistency point names one of its rings, or is as new as its newest ring and names none.
 */
import { StoreError } from '../../../base/store-error.js';
import { BLOCK_BYTES, formatBytes, MIB } from '../../../base/units.js';
import type { Device } from '../../../env/device.js';
import { toHex } from '../../../layout/bytes.js';
import type { Fsinfo } from '../../../layout/fsinfo.js';
import {
  decodeLocalLogHead,
  encodeLocalLogHead,
  type LocalLogHead,
  NO_RING,
} from '../../../layout/local-log-head.js';

export type LogMark = Pick<Fsinfo, 'uuid' | 'epoch' | 'logUuid'>;

/** As in place: what is too large for it waits for a consistency point. */
const LOCAL_LOG_BYTES_MIN = 4 * MIB;

function isSameId(one: Uint8Array, other: Uint8Array): boolean {
  return one.every((byte, index) => byte === other[index]);
}

/** True if part of the store is in a local log. */
export function namesLog({ logUuid }: Pick<Fsinfo, 'logUuid'>): boolean {
  return !isSameId(logUuid, NO_RING);
}

export class LogHeads {
  readonly #device: Device;
  #head: LocalLogHead | undefined;

  private constructor(device: Device, head: LocalLogHead | undefined) {
    this.#device = device;
    this.#head = head;
  }

  /** @throws {StoreError} invalid (no local log, too small), corrupt, unsupported, device */
  static async read(device: Device): Promise<LogHeads> {
    const { name, sizeBytes } = device;
    if (sizeBytes < LOCAL_LOG_BYTES_MIN) {
      const least = formatBytes(LOCAL_LOG_BYTES_MIN);
      throw new StoreError('invalid', `${name}: a local log needs at least ${least}`);
    }
    const found: (LocalLogHead | 'blank' | 'foreign' | 'damaged')[] = [];
    for (const block of [0, 1]) {
      const bytes = new Uint8Array(BLOCK_BYTES);
      await device.read(block * BLOCK_BYTES, [bytes]);
      const head = decodeLocalLogHead(bytes);
      if (head !== 'newer') found.push(head);
      else throw new StoreError('unsupported', `${name}: a newer program has made this local log`);
    }
    const heads = found.filter((head) => typeof head !== 'string');
    const head = heads.sort((a, b) => b.generation - a.generation)[0];
    if (head === undefined) {
      // What a head says is in its first sector, so that a torn one is whole or blank.
      if (found.every((each) => each === 'blank')) return new LogHeads(device, undefined);
      if (!found.includes('damaged')) {
        throw new StoreError('invalid', `${name}: it is no local log; give another file, or none`);
      }
      throw new StoreError('corrupt', `${name}: both heads of the local log are damaged; keep it`);
    }
    if (head.deviceBlocks !== Math.floor(sizeBytes / BLOCK_BYTES)) {
      const was = formatBytes(head.deviceBlocks * BLOCK_BYTES);
      const is = formatBytes(sizeBytes);
      throw new StoreError(
        'invalid',
        `${name}: a local log of ${was} has ${is} now: a part of it?`,
      );
    }
    return new LogHeads(device, head);
  }

  /**
   * True if it has what the consistency point lacks.
   * @throws {StoreError} invalid: it belongs to another store or epoch
   */
  holdsTailOf(mark: LogMark): boolean {
    const head = this.#head;
    if (head === undefined) return false;
    const { name } = this.#device;
    if (!isSameId(head.store, mark.uuid)) {
      const whose = `store ${toHex(head.store).slice(0, 8)}, not ${toHex(mark.uuid).slice(0, 8)}`;
      throw new StoreError('invalid', `${name} is the local log of ${whose}: give another file`);
    }
    if (isSameId(head.ring, NO_RING)) return false;
    const isNamed = isSameId(head.ring, mark.logUuid) || isSameId(head.ringBefore, mark.logUuid);
    if (namesLog(mark) && isNamed) return true;
    // No consistency point of a later epoch: whatever was in it is in the store.
    if (!namesLog(mark) && mark.epoch <= head.epoch) return false;
    throw new StoreError(
      'invalid',
      `${name} is the local log of epoch ${head.epoch}, and the store is in epoch ` +
        `${mark.epoch}: another server has taken it over. What was flushed at the end of the old ` +
        'epoch may be in this file only: move it away, or delete it if you can do without it',
    );
  }

  /** This ring is the log's now, and so is the one before, until a consistency point names it. */
  async begin(store: Uint8Array, epoch: number, ring: Uint8Array, before: Uint8Array) {
    await this.#write({ store, epoch, ring, ringBefore: before });
  }

  /** Everything is in the object store. */
  async empty(): Promise<void> {
    if (this.#head === undefined) return;
    await this.#write({ ...this.#head, ring: NO_RING, ringBefore: NO_RING });
  }

  async #write(head: Omit<LocalLogHead, 'generation' | 'deviceBlocks'>): Promise<void> {
    const generation = (this.#head?.generation ?? 0) + 1;
    const deviceBlocks = Math.floor(this.#device.sizeBytes / BLOCK_BYTES);
    const next: LocalLogHead = { ...head, generation, deviceBlocks };
    const bytes = encodeLocalLogHead(next);
    for (const block of [0, 1]) await this.#device.writeDurable(block * BLOCK_BYTES, [bytes]);
    this.#head = next;
  }
}
