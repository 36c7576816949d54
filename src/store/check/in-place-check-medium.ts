/**
 * A store on a device, as the check reads it: the four fsinfo slots, blocks, the log ring.
 *
 * Which slots are sound: consistency point n stands in slot n mod 2, front first, then its twin. A
 * power cut between the two leaves an older twin: that is no fault. It cannot leave a damaged one,
 * since all that changes in an fsinfo is in its first sector; so damage is damage.
 */
import { crc32 } from '../../base/checksum.js';
import { isStoreError, StoreError } from '../../base/store-error.js';
import { BLOCK_BYTES, formatBytes, SEGMENT_BLOCKS } from '../../base/units.js';
import type { Device } from '../../env/device.js';
import { decodeFsinfo, encodeFsinfo, type Fsinfo } from '../../layout/fsinfo.js';
import type { TagKind } from '../../layout/log-record.js';
import { storeBlocksFor } from '../in-place/fsinfo-slots.js';
import { LogRing } from '../log-ring.js';
import type { CheckMedium, LoggedBatch } from './check-medium.js';
import type { Findings } from './check-report.js';

export class InPlaceCheckMedium implements CheckMedium {
  readonly fsinfo: Fsinfo;
  readonly copyOffsets = [0, SEGMENT_BLOCKS];
  readonly #device: Device;

  constructor(device: Device, fsinfo: Fsinfo) {
    this.#device = device;
    this.fsinfo = fsinfo;
  }

  get name(): string {
    return this.#device.name;
  }

  get vbnEnd(): number {
    return this.fsinfo.storeBlocks;
  }

  /** fsinfo and log stand before this. */
  get frontBlocks(): number {
    return this.fsinfo.logStart + this.fsinfo.logBlocks;
  }

  placeFault(vbn: number, kind: TagKind): string | undefined {
    if (vbn < this.frontBlocks) return 'a block of fsinfo or the log';
    if (vbn >= this.vbnEnd - 2) return 'a block of fsinfo';
    const segment = Math.floor(vbn / SEGMENT_BLOCKS);
    if (kind === 'meta' && segment % 2 !== 0) return 'a place for second copies of metadata';
    if (kind === 'meta' && vbn + SEGMENT_BLOCKS >= this.vbnEnd - 2) return 'the place of fsinfo';
    return undefined;
  }

  async read(vbn: number, into: readonly Uint8Array[]): Promise<string | undefined> {
    try {
      await this.#device.read(vbn * BLOCK_BYTES, into);
      return undefined;
    } catch (error) {
      if (isStoreError(error, 'device')) return error.message;
      throw error;
    }
  }

  rewrite(vbn: number, bytes: Uint8Array): Promise<void> {
    return this.#device.writeDurable(vbn * BLOCK_BYTES, [bytes]);
  }

  tagFault(): string | undefined {
    return undefined;
  }

  log(): AsyncIterable<LoggedBatch> {
    const { logStart, logBlocks, uuid, epoch, replayFrom, replayPosition } = this.fsinfo;
    const ring = new LogRing(this.#device, {
      start: logStart,
      blocks: logBlocks,
      uuid,
      epoch,
      sequence: replayFrom,
      position: replayPosition,
      name: this.name,
    });
    return ring.recover();
  }
}

interface Slot {
  readonly block: number;
  readonly fsinfo: Fsinfo | undefined;
  readonly crc: number;
  readonly reason: string;
  /** Never written since the store was formatted. */
  readonly isBlank: boolean;
}

/**
 * The newest fsinfo of the device; undefined if there is a store but none of its fsinfos is sound.
 * @throws {StoreError} invalid: no store there, or the device is too short; unsupported
 */
export async function openInPlace(
  device: Device,
  findings: Findings,
  repair: boolean,
): Promise<InPlaceCheckMedium> {
  const front = [await readSlot(device, 0), await readSlot(device, 1)];
  const lengths = new Set(front.flatMap((slot) => slot.fsinfo?.storeBlocks ?? []));
  if (lengths.size === 0) lengths.add(storeBlocksFor(device.sizeBytes));
  const slots = [...front];
  for (const blocks of lengths) {
    slots.push(await readSlot(device, blocks - 2), await readSlot(device, blocks - 1));
  }
  const newest = slots
    .flatMap((slot) => slot.fsinfo ?? [])
    .reduce<Fsinfo | undefined>(
      (best, each) => (best === undefined || each.cpNumber > best.cpNumber ? each : best),
      undefined,
    );
  if (newest === undefined) {
    throw new StoreError('invalid', `${device.name} holds no store; format it first`);
  }
  if (newest.medium !== 'in-place') {
    throw new StoreError('invalid', `${device.name} holds a part of an object log, not a store`);
  }
  const medium = new InPlaceCheckMedium(device, newest);
  if (newest.storeBlocks * BLOCK_BYTES > device.sizeBytes) {
    const needs = formatBytes(newest.storeBlocks * BLOCK_BYTES);
    throw new StoreError(
      'invalid',
      `${device.name} has ${formatBytes(device.sizeBytes)}, its store needs ${needs}: it was cut ` +
        'short, restore its full length',
    );
  }
  const slotOf = (block: number): Slot => slots.find((slot) => slot.block === block) as Slot;
  for (const parity of [newest.cpNumber % 2, (newest.cpNumber + 1) % 2]) {
    const pair = [slotOf(parity), slotOf(newest.storeBlocks - 2 + parity)];
    await checkPair(medium, pair, parity, findings, repair);
  }
  return medium;
}

async function readSlot(device: Device, block: number): Promise<Slot> {
  const bytes = new Uint8Array(BLOCK_BYTES);
  const none = { block, fsinfo: undefined, crc: 0, isBlank: false };
  if (block < 0 || (block + 1) * BLOCK_BYTES > device.sizeBytes) {
    return { ...none, reason: 'it lies beyond the end of the device' };
  }
  try {
    await device.read(block * BLOCK_BYTES, [bytes]);
  } catch (error) {
    if (!isStoreError(error, 'device')) throw error;
    return { ...none, reason: error.message };
  }
  const outcome = decodeFsinfo(bytes);
  if (outcome.kind === 'unsupported') {
    throw new StoreError('unsupported', `${device.name}: ${outcome.reason}`);
  }
  if (outcome.kind === 'invalid') {
    return { ...none, reason: outcome.reason, isBlank: bytes.every((byte) => byte === 0) };
  }
  return { block, fsinfo: outcome.fsinfo, crc: crc32(bytes), reason: '', isBlank: false };
}

/** Both copies of the slot for consistency points of this parity. */
async function checkPair(
  medium: InPlaceCheckMedium,
  pair: readonly Slot[],
  parity: number,
  findings: Findings,
  repair: boolean,
): Promise<void> {
  const newest = medium.fsinfo;
  const isNewest = newest.cpNumber % 2 === parity;
  const best = pair.reduce<Fsinfo | undefined>(
    (found, { fsinfo }) =>
      fsinfo !== undefined && fsinfo.cpNumber > (found?.cpNumber ?? -1) ? fsinfo : found,
    undefined,
  );
  // Consistency point 1 is the first: nothing was ever in the other slot, and 2 may be half there.
  const mayBeBlank = newest.cpNumber <= 2;
  for (const { block, fsinfo, reason, isBlank } of pair) {
    const what = `fsinfo block ${block} of ${medium.name}`;
    if (fsinfo !== undefined) {
      const fault = contradiction(fsinfo, newest, parity);
      if (fault !== undefined) findings.add('fsinfo-differs', `${what} ${fault}`);
      else if (isNewest && fsinfo.cpNumber < newest.cpNumber) findings.counts.staleFsinfos++;
      continue;
    }
    if (isBlank && mayBeBlank) {
      if (isNewest) findings.counts.staleFsinfos++;
      continue;
    }
    const cpNumber = best?.cpNumber ?? newest.cpNumber - 1;
    const damage = `${what}, for CP ${cpNumber}, is damaged: ${reason}`;
    if (best === undefined || !repair) findings.add('fsinfo-damaged', damage);
    else {
      await medium.rewrite(block, encodeFsinfo(best));
      findings.addRepaired('fsinfo-damaged', damage);
    }
  }
  const [first, second] = pair;
  const isSame = first?.fsinfo?.cpNumber === second?.fsinfo?.cpNumber && first?.crc === second?.crc;
  if (isSame || first?.fsinfo?.cpNumber !== second?.fsinfo?.cpNumber) return;
  findings.add(
    'fsinfo-differs',
    `fsinfo blocks ${first?.block} and ${second?.block} of ${medium.name} are both of CP ` +
      `${best?.cpNumber} and not the same`,
  );
}

function contradiction(fsinfo: Fsinfo, newest: Fsinfo, parity: number): string | undefined {
  if (fsinfo.cpNumber % 2 !== parity) return `holds CP ${fsinfo.cpNumber}, of the other slot`;
  if (!fsinfo.uuid.every((byte, index) => byte === newest.uuid[index])) {
    return 'belongs to another store';
  }
  const names = ['storeBlocks', 'logStart', 'logBlocks'] as const;
  for (const name of names) {
    if (fsinfo[name] === newest[name]) continue;
    return `says ${name} ${fsinfo[name]}, the one of CP ${newest.cpNumber} says ${newest[name]}`;
  }
  return undefined;
}
