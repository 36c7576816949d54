/**
 * A record of the object log: blocks first, then a trailer, in one object that is put once.
 *
 *   blocks   block i of record n has VBN n x 1024 + i and stands at byte i x 4096
 *   trailer  from byte blocks x 4096, padded so that the object is a multiple of 4096; its last 16
 *            bytes are u32 blocks, u32 trailer bytes without padding, u32 CRC of those, u32 'KREC'
 *
 *  trailer:  0 u32 kind (1 DATA, 2 CP, 3 SEAL)   4 u32 blocks    8 uuid of the store
 *           24 u64 lineage  32 u64 epoch  40 u64 record number  48 u64 CP number
 *           56 nonce, 16 bytes            72 u32 entries         76 u32 0
 *           80 tags, 24 bytes a block; then the log entries
 *  tag:      0 u64 tree     8 u64 FBN    16 u32 CRC-32 of the block
 *           20 u8 level    21 u8 kind    22 u16 0
 *
 * A tag says which tree and FBN the block was placed for, so that a cleaner can find its owner. A
 * CP record has one block, the fsinfo. Blocks stand first because their place must be known before
 * the trailer is.
 */
import { crc32 } from '../base/checksum.js';
import { invariant } from '../base/invariant.js';
import { BLOCK_BYTES, HEIGHT_MAX } from '../base/units.js';
import { getU64, putU64, viewOf } from './bytes.js';
import { decodeLogEntries, encodeLogEntry, type LogEntry, logEntryBytes } from './log-entry.js';

const MAGIC = 0x4345_524b; // 'KREC'
const TRAILER_HEAD_BYTES = 80;
const TAG_BYTES = 24;
const FOOT_BYTES = 16;
/** Blocks of a record: 4 MiB less room for 24 blocks of trailer. */
export const RECORD_BLOCKS_MAX = 1000;
/** Bytes of log entries that fit beside a full set of tags: 24 x 4096 - 80 - 16 - 1000 x 24. */
export const RECORD_ENTRY_BYTES_MAX = 74_208;

export type RecordKind = 'data' | 'cp' | 'seal';
const KINDS: readonly RecordKind[] = ['data', 'cp', 'seal'];

/** data: a block of a vdisk. meta: an indirect block, or a block of a metafile. */
export type TagKind = 'data' | 'meta';

export interface BlockTag {
  readonly treeId: number;
  readonly fbn: number;
  readonly level: number;
  readonly crc: number;
  readonly kind: TagKind;
}

export interface RecordHead {
  readonly kind: RecordKind;
  readonly uuid: Uint8Array;
  readonly lineage: number;
  readonly epoch: number;
  readonly number: number;
  readonly cpNumber: number;
  readonly nonce: Uint8Array;
}

export interface LogRecord extends RecordHead {
  readonly blocks: number;
  readonly tags: readonly BlockTag[];
  readonly entries: readonly LogEntry[];
}

/** Whole blocks that hold this many bytes of trailer and the foot. */
function trailerBytes(length: number): number {
  return Math.ceil((length + FOOT_BYTES) / BLOCK_BYTES) * BLOCK_BYTES;
}

/** Whole blocks that a record of so many blocks takes, with its trailer, if it has no entries. */
export function recordBlocks(blocks: number): number {
  return blocks + trailerBytes(TRAILER_HEAD_BYTES + blocks * TAG_BYTES) / BLOCK_BYTES;
}

/** The trailer of a record, padded to whole blocks. */
export function encodeRecordTrailer(
  head: RecordHead,
  tags: readonly BlockTag[],
  entries: readonly LogEntry[],
): Uint8Array {
  invariant(tags.length <= RECORD_BLOCKS_MAX, 'a record has at most 1,000 blocks');
  let length = TRAILER_HEAD_BYTES + tags.length * TAG_BYTES;
  for (const entry of entries) length += logEntryBytes(entry);
  const bytes = new Uint8Array(trailerBytes(length));
  const view = viewOf(bytes);
  view.setUint32(0, KINDS.indexOf(head.kind) + 1, true);
  view.setUint32(4, tags.length, true);
  bytes.set(head.uuid, 8);
  putU64(view, 24, head.lineage);
  putU64(view, 32, head.epoch);
  putU64(view, 40, head.number);
  putU64(view, 48, head.cpNumber);
  bytes.set(head.nonce, 56);
  view.setUint32(72, entries.length, true);
  let at = TRAILER_HEAD_BYTES;
  for (const tag of tags) {
    putU64(view, at, tag.treeId);
    putU64(view, at + 8, tag.fbn);
    view.setUint32(at + 16, tag.crc, true);
    bytes[at + 20] = tag.level;
    bytes[at + 21] = tag.kind === 'data' ? 1 : 2;
    at += TAG_BYTES;
  }
  for (const entry of entries) at = encodeLogEntry(entry, bytes, at);
  const foot = bytes.length - FOOT_BYTES;
  view.setUint32(foot, tags.length, true);
  view.setUint32(foot + 4, length, true);
  view.setUint32(foot + 8, crc32(bytes.subarray(0, length)), true);
  view.setUint32(foot + 12, MAGIC, true);
  return bytes;
}

/** Decodes the trailer of a whole object; undefined if it is damaged or of another store. */
export function decodeRecord(object: Uint8Array, uuid: Uint8Array): LogRecord | undefined {
  if (object.length < BLOCK_BYTES || object.length % BLOCK_BYTES !== 0) return undefined;
  const whole = viewOf(object);
  const foot = object.length - FOOT_BYTES;
  if (whole.getUint32(foot + 12, true) !== MAGIC) return undefined;
  const blocks = whole.getUint32(foot, true);
  const length = whole.getUint32(foot + 4, true);
  const start = blocks * BLOCK_BYTES;
  if (blocks > RECORD_BLOCKS_MAX || length < TRAILER_HEAD_BYTES) return undefined;
  if (start + trailerBytes(length) !== object.length) return undefined;
  const trailer = object.subarray(start, start + length);
  if (whole.getUint32(foot + 8, true) !== crc32(trailer)) return undefined;
  const view = viewOf(trailer);
  const kind = KINDS[view.getUint32(0, true) - 1];
  if (kind === undefined || view.getUint32(4, true) !== blocks) return undefined;
  for (let index = 0; index < 16; index++) {
    if (trailer[8 + index] !== uuid[index]) return undefined;
  }
  const tagsEnd = TRAILER_HEAD_BYTES + blocks * TAG_BYTES;
  if (tagsEnd > length) return undefined;
  const entries = decodeLogEntries(trailer, tagsEnd, length, view.getUint32(72, true));
  const tags = decodeTags(trailer, blocks);
  if (entries === undefined || tags === undefined) return undefined;
  const record: LogRecord = {
    kind,
    uuid,
    lineage: getU64(view, 24),
    epoch: getU64(view, 32),
    number: getU64(view, 40),
    cpNumber: getU64(view, 48),
    nonce: trailer.slice(56, 72),
    blocks,
    tags,
    entries,
  };
  const numbers = [record.lineage, record.epoch, record.number, record.cpNumber];
  return numbers.some(Number.isNaN) ? undefined : record;
}

function decodeTags(trailer: Uint8Array, blocks: number): BlockTag[] | undefined {
  const view = viewOf(trailer);
  const tags: BlockTag[] = [];
  for (let at = TRAILER_HEAD_BYTES; tags.length < blocks; at += TAG_BYTES) {
    const treeId = getU64(view, at);
    const fbn = getU64(view, at + 8);
    const level = trailer[at + 20] as number;
    const kind = trailer[at + 21];
    if (Number.isNaN(treeId) || Number.isNaN(fbn) || level > HEIGHT_MAX) return undefined;
    if (kind !== 1 && kind !== 2) return undefined;
    const crc = view.getUint32(at + 16, true);
    tags.push({ treeId, fbn, level, crc, kind: kind === 1 ? 'data' : 'meta' });
  }
  return tags;
}
