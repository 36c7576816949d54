/**
 * Entries of the log: in a group of the in-place ring, or in the trailer of an object-log record.
 *
 * Each begins with u16 kind, u16 bytes (a multiple of 8, all of the entry), u32 of the kind's own:
 *
 *   1 data      u32 crc; u64 tree, fbn; u32 payload index, 0     a block in the group's payload
 *   2 pointers  u32 count; u64 tree, fbn, vbn; count x u32 crc   placed blocks, fbn and vbn run on
 *   3 range     u32 1 zero | 2 hole; u64 tree, fbn, blocks       what TRIM, write zeroes, shrink do
 *   4 tree      u32 0; 256 bytes                                 attributes of a tree
 *   5 vdisk     u32 0; 512 bytes                                 a vdisk or snapshot record
 */
import { invariant } from '../base/invariant.js';
import { FIELDS_PER_BLOCK, HEIGHT_MAX } from '../base/units.js';
import { getU64, putU64 } from './bytes.js';
import {
  decodeTreeRecord,
  encodeTreeRecord,
  TREE_RECORD_BYTES,
  type TreeRecord,
} from './tree-record.js';
import {
  decodeVdiskRecord,
  encodeVdiskRecord,
  VDISK_RECORD_BYTES,
  type VdiskRecord,
} from './vdisk-record.js';

export type LogEntry =
  | {
      readonly kind: 'data';
      readonly treeId: number;
      readonly fbn: number;
      readonly crc: number;
      readonly payloadIndex: number;
    }
  | {
      readonly kind: 'pointers';
      readonly treeId: number;
      readonly fbn: number;
      readonly vbn: number;
      readonly crcs: Uint32Array;
    }
  | {
      readonly kind: 'range';
      readonly treeId: number;
      readonly fbn: number;
      readonly blocks: number;
      readonly to: 'zero' | 'hole';
    }
  | { readonly kind: 'tree'; readonly record: TreeRecord }
  | { readonly kind: 'vdisk'; readonly record: VdiskRecord };

const DATA = 1;
const POINTERS = 2;
const RANGE = 3;
const TREE = 4;
const VDISK = 5;

/** FBNs that a tree of the greatest height has: 2^40. */
const FBN_END = FIELDS_PER_BLOCK ** HEIGHT_MAX;

const DATA_ENTRY_BYTES = 32;
/** Blocks of one pointers entry: its length must fit 16 bits. */
export const POINTERS_COUNT_MAX = 1024;

function pointersEntryBytes(count: number): number {
  return 32 + ((count * 4 + 7) & ~7);
}

/** Bytes the entry takes. */
export function logEntryBytes(entry: LogEntry): number {
  switch (entry.kind) {
    case 'data':
      return DATA_ENTRY_BYTES;
    case 'pointers':
      return pointersEntryBytes(entry.crcs.length);
    case 'range':
      return 32;
    case 'tree':
      return 8 + TREE_RECORD_BYTES;
    case 'vdisk':
      return 8 + VDISK_RECORD_BYTES;
  }
}

/** Writes the entry at `offset` of `bytes`; returns the offset after it. */
export function encodeLogEntry(entry: LogEntry, bytes: Uint8Array, offset: number): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const length = logEntryBytes(entry);
  const end = offset + length;
  bytes.fill(0, offset, end);
  const head = (kind: number, own: number): void => {
    view.setUint16(offset, kind, true);
    view.setUint16(offset + 2, length, true);
    view.setUint32(offset + 4, own, true);
  };
  switch (entry.kind) {
    case 'data':
      invariant(entry.fbn < FBN_END, 'an entry ends at FBN 2^40');
      head(DATA, entry.crc);
      putU64(view, offset + 8, entry.treeId);
      putU64(view, offset + 16, entry.fbn);
      view.setUint32(offset + 24, entry.payloadIndex, true);
      break;
    case 'pointers':
      invariant(entry.crcs.length <= POINTERS_COUNT_MAX, 'a pointers entry has at most 1,024');
      invariant(entry.fbn + entry.crcs.length <= FBN_END, 'an entry ends at FBN 2^40');
      head(POINTERS, entry.crcs.length);
      putU64(view, offset + 8, entry.treeId);
      putU64(view, offset + 16, entry.fbn);
      putU64(view, offset + 24, entry.vbn);
      for (let index = 0; index < entry.crcs.length; index++) {
        view.setUint32(offset + 32 + index * 4, entry.crcs[index] as number, true);
      }
      break;
    case 'range':
      invariant(entry.fbn + entry.blocks <= FBN_END, 'an entry ends at FBN 2^40');
      head(RANGE, entry.to === 'zero' ? 1 : 2);
      putU64(view, offset + 8, entry.treeId);
      putU64(view, offset + 16, entry.fbn);
      putU64(view, offset + 24, entry.blocks);
      break;
    case 'tree':
      head(TREE, 0);
      encodeTreeRecord(entry.record, bytes.subarray(offset + 8, end));
      break;
    case 'vdisk':
      head(VDISK, 0);
      encodeVdiskRecord(entry.record, bytes.subarray(offset + 8, end));
      break;
  }
  return end;
}

/** Decodes `count` entries that fill [offset, end); undefined if the bytes cannot be that. */
export function decodeLogEntries(
  bytes: Uint8Array,
  offset: number,
  end: number,
  count: number,
): LogEntry[] | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const entries: LogEntry[] = [];
  let at = offset;
  for (let index = 0; index < count; index++) {
    if (at + 8 > end) return undefined;
    const length = view.getUint16(at + 2, true);
    if (length < 8 || length % 8 !== 0 || at + length > end) return undefined;
    const entry = decodeOne(bytes, view, at, length);
    if (entry === undefined) return undefined;
    entries.push(entry);
    at += length;
  }
  return at === end ? entries : undefined;
}

function decodeOne(
  bytes: Uint8Array,
  view: DataView,
  at: number,
  length: number,
): LogEntry | undefined {
  const kind = view.getUint16(at, true);
  const own = view.getUint32(at + 4, true);
  if (kind === TREE || kind === VDISK) return decodeRecord(kind, bytes, at, length);
  if (length < 32) return undefined;
  const treeId = getU64(view, at + 8);
  const fbn = getU64(view, at + 16);
  if (Number.isNaN(treeId) || !(fbn < FBN_END)) return undefined;
  if (kind === DATA && length === DATA_ENTRY_BYTES) {
    return { kind: 'data', treeId, fbn, crc: own, payloadIndex: view.getUint32(at + 24, true) };
  }
  const third = getU64(view, at + 24);
  if (Number.isNaN(third)) return undefined;
  if (fbn + (kind === POINTERS ? own : third) > FBN_END) return undefined;
  if (kind === POINTERS && third + own > Number.MAX_SAFE_INTEGER) return undefined;
  if (kind === POINTERS && own <= POINTERS_COUNT_MAX && length === pointersEntryBytes(own)) {
    const crcs = new Uint32Array(own);
    for (let index = 0; index < own; index++) {
      crcs[index] = view.getUint32(at + 32 + index * 4, true);
    }
    return { kind: 'pointers', treeId, fbn, vbn: third, crcs };
  }
  if (kind === RANGE && length === 32 && (own === 1 || own === 2)) {
    return { kind: 'range', treeId, fbn, blocks: third, to: own === 1 ? 'zero' : 'hole' };
  }
  return undefined;
}

function decodeRecord(
  kind: number,
  bytes: Uint8Array,
  at: number,
  length: number,
): LogEntry | undefined {
  const image = bytes.subarray(at + 8, at + length);
  if (kind === TREE && image.length === TREE_RECORD_BYTES) {
    const record = decodeTreeRecord(image);
    return record === undefined || record === 'free' ? undefined : { kind: 'tree', record };
  }
  if (kind === VDISK && image.length === VDISK_RECORD_BYTES) {
    const record = decodeVdiskRecord(image);
    return record === undefined || record === 'free' ? undefined : { kind: 'vdisk', record };
  }
  return undefined;
}
