/**
 * A group of the in-place log ring: one durable write, what one or more FLUSHes waited for.
 *
 *   header   96 bytes, then the entries, padded to whole blocks
 *   payload  the blocks of the data entries, in order of their payload index
 *
 *    0 u32 magic 'KLOG'   4 u32 CRC-32 of bytes 8 .. headerBytes   8 uuid of the store
 *   24 u64 sequence      32 u64 epoch      40 u64 CP number     48 u64 synced through
 *   56 u32 headerBytes   60 u32 payload blocks   64 u32 entries  68 .. 96 zero
 *
 * Groups stand one behind the other; one that would pass the end of the ring stands at its start.
 * `syncedThrough` says which groups were durable before this one was written: an invalid group at
 * or below the mark of a later valid one is damage, never the tail.
 */
import { crc32, findSingleBitError } from '../base/checksum.js';
import { invariant } from '../base/invariant.js';
import { BLOCK_BYTES } from '../base/units.js';
import { getU64, putU64, viewOf } from './bytes.js';
import { decodeLogEntries, encodeLogEntry, type LogEntry, logEntryBytes } from './log-entry.js';

const MAGIC = 0x474f_4c4b; // 'KLOG'
export const GROUP_HEADER_BYTES = 96;
/** Blocks of the largest group, header and payload: 4 MiB. */
export const GROUP_BLOCKS_MAX = 1024;

export interface LogGroup {
  readonly sequence: number;
  readonly epoch: number;
  readonly cpNumber: number;
  readonly syncedThrough: number;
  readonly headerBlocks: number;
  readonly payloadBlocks: number;
  readonly entries: readonly LogEntry[];
}

export interface GroupHead {
  readonly uuid: Uint8Array;
  readonly sequence: number;
  readonly epoch: number;
  readonly cpNumber: number;
  readonly syncedThrough: number;
}

/** Blocks the header of a group with these entries takes. */
export function groupHeaderBlocks(entries: readonly LogEntry[]): number {
  let bytes = GROUP_HEADER_BYTES;
  for (const entry of entries) bytes += logEntryBytes(entry);
  return Math.ceil(bytes / BLOCK_BYTES);
}

/** The header blocks of a group; in `scratch` if that is large enough. */
export function encodeGroupHeader(
  head: GroupHead,
  entries: readonly LogEntry[],
  payloadBlocks: number,
  scratch?: Uint8Array,
): Uint8Array {
  const headerBlocks = groupHeaderBlocks(entries);
  invariant(
    isSound({ ...head, headerBlocks, payloadBlocks, entries }),
    'a group is at most 4 MiB, has the payload of its entries, and follows what it says is synced',
  );
  const bytes =
    scratch !== undefined && scratch.length >= headerBlocks * BLOCK_BYTES
      ? scratch.subarray(0, headerBlocks * BLOCK_BYTES).fill(0)
      : new Uint8Array(headerBlocks * BLOCK_BYTES);
  const view = viewOf(bytes);
  let at = GROUP_HEADER_BYTES;
  for (const entry of entries) at = encodeLogEntry(entry, bytes, at);
  view.setUint32(0, MAGIC, true);
  bytes.set(head.uuid, 8);
  putU64(view, 24, head.sequence);
  putU64(view, 32, head.epoch);
  putU64(view, 40, head.cpNumber);
  putU64(view, 48, head.syncedThrough);
  view.setUint32(56, at, true);
  view.setUint32(60, payloadBlocks, true);
  view.setUint32(64, entries.length, true);
  view.setUint32(4, crc32(bytes.subarray(8, at)), true);
  return bytes;
}

/** Bytes of the header that begins here, if the block looks like the first of one. */
export function peekGroupHeaderBytes(block: Uint8Array): number | undefined {
  if (block.length < GROUP_HEADER_BYTES) return undefined;
  const view = viewOf(block);
  if (view.getUint32(0, true) !== MAGIC) return undefined;
  const headerBytes = view.getUint32(56, true);
  const most = GROUP_BLOCKS_MAX * BLOCK_BYTES;
  return headerBytes < GROUP_HEADER_BYTES || headerBytes > most ? undefined : headerBytes;
}

/** True if no header of a group with a higher sequence begins here; cheaper than to decode it. */
export function isGroupUpTo(sequence: number, block: Uint8Array): boolean {
  if (peekGroupHeaderBytes(block) === undefined) return true;
  return !(getU64(viewOf(block), 24) > sequence);
}

/** Decodes a whole header; undefined if it is damaged or of another store. */
export function decodeGroupHeader(bytes: Uint8Array, uuid: Uint8Array): LogGroup | undefined {
  const headerBytes = peekGroupHeaderBytes(bytes);
  if (headerBytes === undefined || headerBytes > bytes.length) return undefined;
  const view = viewOf(bytes);
  if (view.getUint32(4, true) !== crc32(bytes.subarray(8, headerBytes))) return undefined;
  for (let index = 0; index < 16; index++) {
    if (bytes[8 + index] !== uuid[index]) return undefined;
  }
  const entries = decodeLogEntries(
    bytes,
    GROUP_HEADER_BYTES,
    headerBytes,
    view.getUint32(64, true),
  );
  if (entries === undefined) return undefined;
  const group: LogGroup = {
    sequence: getU64(view, 24),
    epoch: getU64(view, 32),
    cpNumber: getU64(view, 40),
    syncedThrough: getU64(view, 48),
    headerBlocks: Math.ceil(headerBytes / BLOCK_BYTES),
    payloadBlocks: view.getUint32(60, true),
    entries,
  };
  const numbers = [group.sequence, group.epoch, group.cpNumber, group.syncedThrough];
  return numbers.some(Number.isNaN) || !isSound(group) ? undefined : group;
}

/** Asserted before a group is written, asked after one is read. */
function isSound(group: Omit<LogGroup, 'epoch' | 'cpNumber'>): boolean {
  const { sequence, syncedThrough, headerBlocks, payloadBlocks } = group;
  if (syncedThrough > sequence || headerBlocks + payloadBlocks > GROUP_BLOCKS_MAX) return false;
  return group.entries.every(
    (entry) => entry.kind !== 'data' || entry.payloadIndex < payloadBlocks,
  );
}

/** True if the block begins like a group header, but for one bit at most. */
export function hasGroupMagic(block: Uint8Array): boolean {
  const bits = viewOf(block).getUint32(0, true) ^ MAGIC;
  return (bits & (bits - 1)) === 0;
}

/**
 * Decodes a header; if it is damaged by a single bit, mends it in `bytes` and decodes it then.
 * `decode` is decodeGroupHeader with the store's uuid.
 */
export function repairGroupHeader(
  bytes: Uint8Array,
  decode: (bytes: Uint8Array) => LogGroup | undefined,
): LogGroup | undefined {
  const sound = decode(bytes);
  if (sound !== undefined) return sound;
  const view = viewOf(bytes);
  const magicBits = view.getUint32(0, true) ^ MAGIC;
  // More than one wrong bit in the magic: this is not a damaged header, it is none.
  if ((magicBits & (magicBits - 1)) !== 0) return undefined;
  view.setUint32(0, MAGIC, true);
  if (magicBits !== 0) return decode(bytes);
  const length = view.getUint32(56, true);
  for (let bit = 0; bit < 32; bit++) {
    view.setUint32(56, length ^ (1 << bit), true);
    const mended = decode(bytes);
    if (mended !== undefined) return mended;
  }
  view.setUint32(56, length, true);
  if (length < GROUP_HEADER_BYTES || length > bytes.length) return undefined;
  const covered = bytes.subarray(8, length);
  const crcBits = crc32(covered) ^ view.getUint32(4, true);
  if ((crcBits & (crcBits - 1)) === 0) {
    view.setUint32(4, crc32(covered), true);
    return decode(bytes);
  }
  const bit = findSingleBitError(covered, view.getUint32(4, true));
  if (bit === undefined) return undefined;
  covered[bit >>> 3] = (covered[bit >>> 3] as number) ^ (1 << (bit & 7));
  return decode(bytes);
}
