/**
 * The log ring (NVLOG): what FLUSH and administrative acts made durable since the last consistency
 * point. One durable write a group; layout in layout/log-group.ts.
 *
 * 1. Groups have consecutive sequence numbers and are written one after the other: when group n is
 *    written, every earlier one is durable.
 * 2. What lies between the mark of the last durable consistency point and the head is never
 *    overwritten.
 * 3. A damaged group that is not the last is damage, and refused. Of the last one, a torn write was
 *    never acknowledged; but a single wrong bit is rot, and mended: a tear is not so small, and if
 *    it were, the mended bytes are what was being written.
 */
import { crc32, findSingleBitError } from '../base/checksum.js';
import { StoreError } from '../base/store-error.js';
import { BLOCK_BYTES } from '../base/units.js';
import type { Device } from '../env/device.js';
import type { LogEntry } from '../layout/log-entry.js';
import {
  decodeGroupHeader,
  encodeGroupHeader,
  GROUP_BLOCKS_MAX,
  groupHeaderBlocks,
  hasGroupMagic,
  isGroupUpTo,
  type LogGroup,
  repairGroupHeader,
} from '../layout/log-group.js';
import type { LogBatch, RecoveredBatch, RecoveryPass } from './medium.js';
import { RingReader } from './ring-reader.js';

const NO_PAYLOAD = new Uint8Array(0);

export interface RingMark {
  readonly sequence: number;
  /** Blocks since the ring was opened, so that it only grows. */
  readonly offset: number;
}

export interface RingPlace {
  readonly start: number;
  readonly blocks: number;
  readonly uuid: Uint8Array;
  readonly epoch: number;
  readonly sequence: number;
  readonly position: number;
  readonly name: string;
}

export class LogRing {
  readonly #device: Device;
  readonly #place: RingPlace;
  #sequence: number;
  #head: number;
  #tail: number;
  #syncedThrough: number;
  /** Header of the group that is being written: one at a time (rule 1), so none is allocated. */
  readonly #header = new Uint8Array(BLOCK_BYTES);

  constructor(device: Device, place: RingPlace) {
    this.#device = device;
    this.#place = place;
    this.#sequence = place.sequence;
    this.#head = place.position;
    this.#tail = place.position;
    this.#syncedThrough = place.sequence - 1;
  }

  get usedBlocks(): number {
    return this.#head - this.#tail;
  }

  get mark(): RingMark {
    return { sequence: this.#sequence, offset: this.#head };
  }

  positionOf(mark: RingMark): number {
    return mark.offset % this.#place.blocks;
  }

  /** Everything before the mark is in a durable consistency point. */
  release(mark: RingMark): void {
    this.#tail = mark.offset;
  }

  /** Writes the batches, durable when it resolves; writes nothing if they do not all fit. */
  async append(batches: readonly LogBatch[]): Promise<'durable' | 'full'> {
    const groups = batches.map((batch) => ({ batch, entries: batch.units.flat() }));
    let head = this.#head;
    for (const { batch, entries } of groups) {
      const blocks = groupHeaderBlocks(entries) + batch.payload.length;
      if (blocks > GROUP_BLOCKS_MAX) return 'full';
      head = this.#startOf(head, blocks) + blocks;
    }
    if (head - this.#tail > this.#place.blocks) return 'full';
    for (const { batch, entries } of groups) await this.#write(batch, entries);
    return 'durable';
  }

  /**
   * A group of so many blocks begins at `head`, or at the ring's start if it would pass its end.
   */
  #startOf(head: number, blocks: number): number {
    const rest = this.#place.blocks - (head % this.#place.blocks);
    return blocks <= rest ? head : head + rest;
  }

  async #write(batch: LogBatch, entries: readonly LogEntry[]): Promise<void> {
    const sequence = this.#sequence;
    const head = {
      uuid: this.#place.uuid,
      epoch: this.#place.epoch,
      sequence,
      cpNumber: batch.cpNumber,
      syncedThrough: this.#syncedThrough,
    };
    const header = encodeGroupHeader(head, entries, batch.payload.length, this.#header);
    const blocks = header.length / BLOCK_BYTES + batch.payload.length;
    const start = this.#startOf(this.#head, blocks);
    this.#sequence++;
    this.#head = start + blocks;
    const position = this.#place.start + (start % this.#place.blocks);
    await this.#device.writeDurable(position * BLOCK_BYTES, [header, ...batch.payload]);
    this.#syncedThrough = sequence;
  }

  /**
   * Groups from the mark of the opened consistency point on, in order. 'survey' says how far the
   * log goes and what its entries are: of payload it verifies the last group's only (rule 1: all
   * others were durable before the next was written).
   */
  async *recover(pass: RecoveryPass = 'apply'): AsyncGenerator<RecoveredBatch> {
    const place = this.#place;
    const reader = new RingReader(this.#device, place.start, place.blocks);
    const end = { sequence: place.sequence, offset: place.position };
    let found = await this.#findGroup(reader, end.sequence, end.offset);
    while (found !== undefined) {
      const { group } = found;
      const after = found.offset + group.headerBlocks + group.payloadBlocks;
      const isFull = after - place.position > place.blocks;
      const next = isFull ? undefined : await this.#findGroup(reader, end.sequence + 1, after);
      const mayTrust = pass === 'survey' && next !== undefined;
      const payload = mayTrust ? NO_PAYLOAD : await this.#readPayload(reader, found);
      if (payload === undefined) {
        // A torn group may still stand where the one that was given its number did not fit.
        const isHere = found.offset === end.offset;
        found = isHere ? await this.#findWrapped(reader, end.sequence, end.offset) : undefined;
        continue;
      }
      yield {
        cpNumber: group.cpNumber,
        entries: group.entries,
        payload: (index) => payload.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES),
      };
      end.sequence++;
      end.offset = after;
      found = next;
    }
    if (end.offset - place.position <= place.blocks) {
      await this.#refuseIfNotTail(reader, end.sequence, end.offset);
    }
    this.#sequence = end.sequence;
    this.#head = end.offset;
    this.#syncedThrough = end.sequence - 1;
  }

  /** The header of this group, at the offset or, if it did not fit there, at the ring's start. */
  async #findGroup(
    reader: RingReader,
    sequence: number,
    offset: number,
  ): Promise<FoundGroup | undefined> {
    const here = await this.#readHeader(reader, sequence, offset);
    return here ?? this.#findWrapped(reader, sequence, offset);
  }

  /** The header of this group at the ring's start, if it may not have fitted at the offset. */
  async #findWrapped(
    reader: RingReader,
    sequence: number,
    offset: number,
  ): Promise<FoundGroup | undefined> {
    const rest = this.#place.blocks - (offset % this.#place.blocks);
    if (rest >= GROUP_BLOCKS_MAX) return undefined;
    return this.#readHeader(reader, sequence, offset + rest);
  }

  async #readHeader(
    reader: RingReader,
    sequence: number,
    offset: number,
  ): Promise<FoundGroup | undefined> {
    const position = offset % this.#place.blocks;
    const left = this.#place.blocks - position;
    const decode = (bytes: Uint8Array): LogGroup | undefined =>
      decodeGroupHeader(bytes, this.#place.uuid);
    // Copies: mending tries out what a header could be.
    const first = (await reader.read(position, 1)).slice();
    let group = repairGroupHeader(first, decode);
    if (group === undefined) {
      if (!hasGroupMagic(first)) return undefined;
      // A header of several blocks, or one whose length is what is damaged.
      const blocks = Math.min(left, GROUP_BLOCKS_MAX);
      group = repairGroupHeader((await reader.read(position, blocks)).slice(), decode);
    }
    if (group === undefined || group.sequence !== sequence) return undefined;
    if (group.headerBlocks + group.payloadBlocks > left) return undefined;
    return { group, offset };
  }

  /** The payload, verified and mended; undefined if it is not what was written. */
  async #readPayload(reader: RingReader, found: FoundGroup): Promise<Uint8Array | undefined> {
    const { group, offset } = found;
    const position = (offset % this.#place.blocks) + group.headerBlocks;
    const payload = await reader.read(position, group.payloadBlocks);
    return this.#payloadIsSound(group, payload) ? payload : undefined;
  }

  #payloadIsSound(group: LogGroup, payload: Uint8Array): boolean {
    for (const entry of group.entries) {
      if (entry.kind !== 'data') continue;
      const start = entry.payloadIndex * BLOCK_BYTES;
      const block = payload.subarray(start, start + BLOCK_BYTES);
      if (block.length !== BLOCK_BYTES) return false;
      if (crc32(block) === entry.crc) continue;
      const bit = findSingleBitError(block, entry.crc);
      if (bit === undefined) return false;
      block[bit >>> 3] = (block[bit >>> 3] as number) ^ (1 << (bit & 7));
    }
    return true;
  }

  /** Looks for a later group where one could begin: then the one at `offset` is damage. */
  async #refuseIfNotTail(reader: RingReader, sequence: number, offset: number): Promise<void> {
    const place = this.#place;
    const position = offset % place.blocks;
    const rest = place.blocks - position;
    // The next group begins at most one group on, and its header may be as long as a group; it
    // stands at the ring's start if it does not fit behind this one.
    const areas = [{ position, blocks: Math.min(2 * GROUP_BLOCKS_MAX, rest) }];
    if (rest < 2 * GROUP_BLOCKS_MAX) {
      areas.push({ position: 0, blocks: Math.min(2 * GROUP_BLOCKS_MAX, place.blocks) });
    }
    for (const area of areas) {
      const bytes = await reader.read(area.position, area.blocks);
      for (let block = 0; block < area.blocks; block++) {
        const from = bytes.subarray(block * BLOCK_BYTES);
        // Mostly groups of the last time round.
        if (isGroupUpTo(sequence, from)) continue;
        const header = decodeGroupHeader(from, place.uuid);
        if (header === undefined) continue;
        throw new StoreError(
          'corrupt',
          `log of ${place.name}: group ${sequence} at ring block ${position} is damaged, but ` +
            `group ${header.sequence} after it is sound; flushed writes are lost, restore a copy`,
        );
      }
    }
  }
}

interface FoundGroup {
  readonly group: LogGroup;
  readonly offset: number;
}
