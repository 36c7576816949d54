/**
 * The four fsinfo slots: two generations, each at both ends of the device. Consistency point n
 * stands in slot n mod 2: blocks 0 and 1, with their twins in the last two blocks of the store.
 */
import { StoreError } from '../../base/store-error.js';
import { BLOCK_BYTES, formatBytes, SEGMENT_BLOCKS } from '../../base/units.js';
import type { Device } from '../../env/device.js';
import type { LogSink } from '../../env/log-sink.js';
import { decodeFsinfo, encodeFsinfo, type Fsinfo } from '../../layout/fsinfo.js';

/** Segments come in pairs, so a store is a whole number of 8 MiB. */
const PAIR_BLOCKS = 2 * SEGMENT_BLOCKS;

/** Blocks of the largest store that fits the device. */
export function storeBlocksFor(sizeBytes: number): number {
  return Math.floor(sizeBytes / BLOCK_BYTES / PAIR_BLOCKS) * PAIR_BLOCKS;
}

export function slotBlocks(cpNumber: number, storeBlocks: number): readonly [number, number] {
  const slot = cpNumber % 2;
  return [slot, storeBlocks - 2 + slot];
}

/** Makes the fsinfo durable in both places, one after the other, so that one is always whole. */
export async function writeSlots(device: Device, fsinfo: Fsinfo): Promise<void> {
  const bytes = encodeFsinfo(fsinfo);
  for (const block of slotBlocks(fsinfo.cpNumber, fsinfo.storeBlocks)) {
    await device.writeDurable(block * BLOCK_BYTES, [bytes]);
  }
}

interface Slot {
  readonly block: number;
  readonly fsinfo: Fsinfo | undefined;
  readonly reason: string;
}

async function readSlot(device: Device, block: number): Promise<Slot> {
  const bytes = new Uint8Array(BLOCK_BYTES);
  if (block < 0 || (block + 1) * BLOCK_BYTES > device.sizeBytes) {
    return { block, fsinfo: undefined, reason: 'beyond the end of the device' };
  }
  try {
    await device.read(block * BLOCK_BYTES, [bytes]);
  } catch (error) {
    if (!(error instanceof StoreError)) throw error;
    return { block, fsinfo: undefined, reason: error.message };
  }
  const outcome = decodeFsinfo(bytes);
  if (outcome.kind === 'unsupported') {
    throw new StoreError('unsupported', `${device.name}: ${outcome.reason}`);
  }
  if (outcome.kind === 'invalid') return { block, fsinfo: undefined, reason: outcome.reason };
  return { block, fsinfo: outcome.fsinfo, reason: '' };
}

export interface SlotsOutcome {
  readonly fsinfo: Fsinfo;
  /** Slots of the newest consistency point that are damaged or were never written. */
  readonly stale: readonly number[];
}

/** The newest fsinfo of the device. @throws {StoreError} invalid, unsupported, device */
export async function readSlots(device: Device): Promise<SlotsOutcome> {
  const front = [await readSlot(device, 0), await readSlot(device, 1)];
  const sizes = new Set(front.flatMap((slot) => slot.fsinfo?.storeBlocks ?? []));
  // With both front slots gone, the twins are where the device ends.
  if (sizes.size === 0) sizes.add(storeBlocksFor(device.sizeBytes));
  const slots = [...front];
  for (const blocks of sizes) {
    slots.push(await readSlot(device, blocks - 2), await readSlot(device, blocks - 1));
  }
  const sound = slots.flatMap((slot) => slot.fsinfo ?? []);
  const newest = sound.reduce<Fsinfo | undefined>(
    (best, each) => (best === undefined || each.cpNumber > best.cpNumber ? each : best),
    undefined,
  );
  if (newest === undefined) {
    const reasons = front.map((slot) => `block ${slot.block}: ${slot.reason}`).join('; ');
    throw new StoreError('invalid', `${device.name} holds no store (${reasons}); format it first`);
  }
  if (newest.storeBlocks * BLOCK_BYTES > device.sizeBytes) {
    throw new StoreError(
      'invalid',
      `${device.name} has ${formatBytes(device.sizeBytes)}, its store needs ` +
        `${formatBytes(newest.storeBlocks * BLOCK_BYTES)}: it was cut short, restore its length`,
    );
  }
  const places = slotBlocks(newest.cpNumber, newest.storeBlocks);
  const stale = places.filter((block) => {
    const slot = slots.find((each) => each.block === block);
    return slot?.fsinfo?.cpNumber !== newest.cpNumber;
  });
  return { fsinfo: newest, stale };
}

/** Writes the newest fsinfo over its damaged twin. */
export async function healSlots(
  device: Device,
  outcome: SlotsOutcome,
  log: LogSink,
): Promise<void> {
  for (const block of outcome.stale) {
    await device.writeDurable(block * BLOCK_BYTES, [encodeFsinfo(outcome.fsinfo)]);
    log({
      level: 'warn',
      event: 'fsinfo-healed',
      message:
        `fsinfo block ${block} of ${device.name} was not that of ` +
        `CP ${outcome.fsinfo.cpNumber}; healed from its twin.`,
      fields: { block, cpNumber: outcome.fsinfo.cpNumber },
    });
  }
}
