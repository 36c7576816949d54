/**
 * fsinfo: one block that names everything else of a store as of one consistency point.
 *
 * In place it stands in four slots: consistency point n in slot n mod 2, at both ends of the
 * device. In an object log it is the block of a CP record. Offsets are below; docs/FORMAT.md has
 * the prose.
 */
import { crc32 } from '../base/checksum.js';
import { invariant } from '../base/invariant.js';
import { BLOCK_BYTES, HEIGHT_MAX, SEGMENT_BLOCKS, STORE_BYTES_MAX } from '../base/units.js';
import { getU64, putU64, toHex, viewOf } from './bytes.js';
import { pointerFault, vbnAt, ZERO_VBN } from './pointer.js';

export const FORMAT_VERSION = 1;
const MAGIC = 0x4b49_454b; // 'KEIK' as a little-endian word; the two together spell KEIKIFS1
const MAGIC_2 = 0x3153_4649; // 'IFS1'

/** The five metafiles, in the order of their roots in fsinfo. */
export const METAFILES = ['tree', 'vdisk', 'reference', 'usage', 'map'] as const;
export type Metafile = (typeof METAFILES)[number];

/** Root of a metafile: a pointer and the height of the tree under it. */
export interface MetafileRoot {
  readonly words: readonly [number, number, number, number];
  readonly height: number;
}

/** First record number of an epoch of the object log. */
export interface EpochStart {
  readonly epoch: number;
  readonly firstRecord: number;
}

/**
 * Metadata blocks, one behind the other in one segment, that came into use or free since the active
 * map and the usage file were written. Each stands for its second copy, too.
 */
export interface PendingRun {
  readonly vbn: number;
  readonly blocks: number;
  readonly isFreed: boolean;
}

export interface Fsinfo {
  readonly uuid: Uint8Array;
  readonly version: number;
  readonly compatible: number;
  readonly readOnlyCompatible: number;
  readonly incompatible: number;
  readonly medium: 'in-place' | 'object-log';
  readonly cpNumber: number;
  readonly epoch: number;
  readonly lineage: number;
  /** Object log: the ring of a local log that has what this consistency point lacks; else zeros. */
  readonly logUuid: Uint8Array;
  readonly clean: boolean;
  /** In place: blocks of the store, a multiple of 2048. Object log: capacity in blocks. */
  readonly storeBlocks: number;
  readonly logStart: number;
  readonly logBlocks: number;
  /** First log group (in place) or record (object log) that this consistency point lacks. */
  readonly replayFrom: number;
  /** Where that group would stand, in blocks from the start of the ring. */
  readonly replayPosition: number;
  /** Object log with a local log: the first group of its ring that this consistency point lacks. */
  readonly localFrom: number;
  readonly nextTreeId: number;
  readonly nextVdiskId: number;
  readonly freePairs: number;
  readonly dataGaps: number;
  readonly metaGaps: number;
  readonly usedBlocks: number;
  /** In place: blocks that the active map and the usage file do not show yet. */
  readonly pending: readonly PendingRun[];
  readonly roots: Readonly<Record<Metafile, MetafileRoot>>;
  readonly epochs: readonly EpochStart[];
}

/**
 * Feature, read-only compatible: some runs are pending. Who does not know it would place blocks
 * over them.
 */
export const FEATURE_PENDING = 1;
const READ_ONLY_KNOWN = FEATURE_PENDING;

/**
 * Feature, incompatible: there is an external tree. Who does not know it would read zeros where
 * the bytes of a file belong.
 */
export const FEATURE_EXTERNAL = 1;
/**
 * Feature, incompatible: there may be a shared indirect block. Who does not know it would write it
 * and free it as one tree's own. It stays once it is there.
 */
export const FEATURE_SHARED_INDIRECT = 2;
/**
 * Feature, incompatible: a snapshot is or was published to other stores, or one of theirs is read.
 * Who does not know it would delete records that others read. It stays once it is there.
 */
export const FEATURE_PUBLISHED = 4;
const INCOMPATIBLE_KNOWN = FEATURE_EXTERNAL | FEATURE_SHARED_INDIRECT | FEATURE_PUBLISHED;

/** True if the store announces shared indirect blocks. */
export function hasSharedIndirect({ incompatible }: Pick<Fsinfo, 'incompatible'>): boolean {
  return (incompatible & FEATURE_SHARED_INDIRECT) !== 0;
}

/** True if the store announces publications. */
export function hasPublished({ incompatible }: Pick<Fsinfo, 'incompatible'>): boolean {
  return (incompatible & FEATURE_PUBLISHED) !== 0;
}

const PENDING_OFFSET = 416;
const PENDING_RUN_BYTES = 8;
/**
 * All that changes from one consistency point to the next stays in the first sector, which is
 * written wholly or not at all: (512 - 416) / 8.
 */
export const PENDING_RUNS_MAX = 12;
const PENDING_FREED = 1;

const ROOTS_OFFSET = 256;
const ROOT_BYTES = 32;
const TAIL_OFFSET = 512;
/** Tags of the tail: u16 tag, u16 bytes, then the bytes; the next tag stands right behind. */
const TAG_END = 0;
const TAG_EPOCHS = 1;
/** Epochs that fit the tail: (4096 - 512 - 4) / 16, less room for other tags. */
export const EPOCHS_MAX = 192;

export function encodeFsinfo(info: Fsinfo): Uint8Array {
  const fault = fsinfoFault(info);
  invariant(fault === undefined, `fsinfo does not name ${fault}`);
  const bytes = new Uint8Array(BLOCK_BYTES);
  const view = viewOf(bytes);
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, MAGIC_2, true);
  view.setUint32(12, info.version, true);
  bytes.set(info.uuid, 16);
  putU64(view, 32, info.compatible);
  putU64(view, 40, info.readOnlyCompatible);
  putU64(view, 48, info.incompatible);
  view.setUint32(56, BLOCK_BYTES, true);
  view.setUint32(60, SEGMENT_BLOCKS, true);
  view.setUint32(64, 1, true); // checksum kind: CRC-32
  view.setUint32(68, info.medium === 'in-place' ? 1 : 2, true);
  putU64(view, 72, info.cpNumber);
  putU64(view, 80, info.epoch);
  putU64(view, 88, info.lineage);
  bytes.set(info.logUuid, 96);
  view.setUint32(112, info.clean ? 1 : 0, true);
  putU64(view, 120, info.storeBlocks);
  putU64(view, 128, info.logStart);
  putU64(view, 136, info.logBlocks);
  putU64(view, 144, info.replayFrom);
  putU64(view, 152, info.replayPosition);
  putU64(view, 160, info.nextTreeId);
  putU64(view, 168, info.nextVdiskId);
  putU64(view, 176, info.freePairs);
  putU64(view, 184, info.dataGaps);
  putU64(view, 192, info.metaGaps);
  putU64(view, 200, info.usedBlocks);
  putU64(view, 208, info.localFrom);
  METAFILES.forEach((name, index) => {
    const offset = ROOTS_OFFSET + index * ROOT_BYTES;
    const root = info.roots[name];
    root.words.forEach((word, w) => {
      view.setUint32(offset + w * 4, word, true);
    });
    view.setUint32(offset + 16, root.height, true);
  });
  encodePending(view, info.pending);
  encodeTail(view, info.epochs);
  view.setUint32(8, crc32(bytes.subarray(12)), true);
  return bytes;
}

function encodePending(view: DataView, pending: readonly PendingRun[]): void {
  pending.forEach(({ vbn, blocks, isFreed }, index) => {
    const at = PENDING_OFFSET + index * PENDING_RUN_BYTES;
    view.setUint32(at, vbn >>> 0, true);
    view.setUint8(at + 4, Math.floor(vbn / 0x1_0000_0000));
    view.setUint8(at + 5, isFreed ? PENDING_FREED : 0);
    view.setUint16(at + 6, blocks, true);
  });
}

/** Up to the first run of no blocks; a damaged one has NaN for its VBN. */
function decodePending(view: DataView): PendingRun[] {
  const pending: PendingRun[] = [];
  for (let index = 0; index < PENDING_RUNS_MAX; index++) {
    const at = PENDING_OFFSET + index * PENDING_RUN_BYTES;
    const blocks = view.getUint16(at + 6, true);
    if (blocks === 0) break;
    const flags = view.getUint8(at + 5);
    const vbn = view.getUint8(at + 4) * 0x1_0000_0000 + view.getUint32(at, true);
    pending.push({
      vbn: flags > PENDING_FREED ? Number.NaN : vbn,
      blocks,
      isFreed: flags === PENDING_FREED,
    });
  }
  return pending;
}

function encodeTail(view: DataView, epochs: readonly EpochStart[]): void {
  invariant(epochs.length <= EPOCHS_MAX, 'the epochs fit the tail of fsinfo');
  if (epochs.length === 0) return;
  view.setUint16(TAIL_OFFSET, TAG_EPOCHS, true);
  view.setUint16(TAIL_OFFSET + 2, epochs.length * 16, true);
  epochs.forEach((start, index) => {
    putU64(view, TAIL_OFFSET + 4 + index * 16, start.epoch);
    putU64(view, TAIL_OFFSET + 12 + index * 16, start.firstRecord);
  });
}

export type FsinfoOutcome =
  | { readonly kind: 'ok'; readonly fsinfo: Fsinfo }
  /** Not an fsinfo block, or a damaged one. */
  | { readonly kind: 'invalid'; readonly reason: string }
  /** Sound, but of a format that this program does not know. */
  | { readonly kind: 'unsupported'; readonly reason: string };

/** True for a block that is an fsinfo, or was one before it was damaged. */
export function hasFsinfoMagic(bytes: Uint8Array): boolean {
  const view = viewOf(bytes);
  return view.getUint32(0, true) === MAGIC && view.getUint32(4, true) === MAGIC_2;
}

export function decodeFsinfo(bytes: Uint8Array): FsinfoOutcome {
  if (bytes.length !== BLOCK_BYTES) return { kind: 'invalid', reason: 'not one block long' };
  const view = viewOf(bytes);
  if (!hasFsinfoMagic(bytes)) {
    return { kind: 'invalid', reason: 'no fsinfo magic' };
  }
  if (view.getUint32(8, true) !== crc32(bytes.subarray(12))) {
    return { kind: 'invalid', reason: 'wrong checksum' };
  }
  const unsupported = unsupportedReason(view);
  if (unsupported !== undefined) return { kind: 'unsupported', reason: unsupported };
  const numbers: number[] = [];
  for (let offset = 32; offset < 56; offset += 8) numbers.push(getU64(view, offset));
  for (let offset = 72; offset < 96; offset += 8) numbers.push(getU64(view, offset));
  for (let offset = 120; offset < 216; offset += 8) numbers.push(getU64(view, offset));
  if (numbers.some(Number.isNaN)) return { kind: 'invalid', reason: 'a number beyond 2^53' };
  const at = (index: number): number => numbers[index] as number;
  const fsinfo: Fsinfo = {
    uuid: bytes.slice(16, 32),
    version: view.getUint32(12, true),
    compatible: at(0),
    readOnlyCompatible: at(1),
    incompatible: at(2),
    medium: view.getUint32(68, true) === 1 ? 'in-place' : 'object-log',
    cpNumber: at(3),
    epoch: at(4),
    lineage: at(5),
    logUuid: bytes.slice(96, 112),
    clean: view.getUint32(112, true) === 1,
    storeBlocks: at(6),
    logStart: at(7),
    logBlocks: at(8),
    replayFrom: at(9),
    replayPosition: at(10),
    nextTreeId: at(11),
    nextVdiskId: at(12),
    freePairs: at(13),
    dataGaps: at(14),
    metaGaps: at(15),
    usedBlocks: at(16),
    localFrom: at(17),
    pending: decodePending(view),
    roots: decodeRoots(view),
    epochs: decodeEpochs(view),
  };
  const fault = fsinfoFault(fsinfo);
  return fault === undefined ? { kind: 'ok', fsinfo } : { kind: 'invalid', reason: fault };
}

/** What in it a sound store cannot say: a checksum does not keep a bug's or a stranger's out. */
function fsinfoFault(info: Fsinfo): string | undefined {
  if (info.medium === 'in-place') {
    const logEnd = info.logStart + info.logBlocks;
    if (info.storeBlocks % (2 * SEGMENT_BLOCKS) !== 0) return 'a store of half a segment pair';
    if (info.storeBlocks > STORE_BYTES_MAX / BLOCK_BYTES) return 'a store beyond 4 PiB';
    if (info.logStart < 2 || logEnd > info.storeBlocks - 2) return 'a log outside the store';
    if (info.replayPosition > info.logBlocks) return 'a replay position outside the log';
  }
  const vbnEnd = info.medium === 'in-place' ? info.storeBlocks : Number.MAX_SAFE_INTEGER;
  for (const name of METAFILES) {
    const root = info.roots[name];
    const words = Uint32Array.from(root.words);
    if (root.height > HEIGHT_MAX) return `a ${name} file of height ${root.height}`;
    if (root.height === 0 && vbnAt(words, 0) > ZERO_VBN) return `a ${name} file without height`;
    const fault = pointerFault(words, 0, vbnEnd);
    if (fault !== undefined) return `a root of the ${name} file that ${fault}`;
  }
  const pendingFault = info.pending.map((run) => pendingRunFault(run, info)).find(Boolean);
  if (pendingFault !== undefined) return pendingFault;
  let before = 0;
  for (const start of info.epochs) {
    // NaN, a number beyond 2^53, is not greater either.
    if (!(start.epoch > before) || !(start.firstRecord >= 0)) return 'a damaged table of epochs';
    before = start.epoch;
  }
  return undefined;
}

function pendingRunFault(run: PendingRun, info: Fsinfo): string | undefined {
  const { vbn, blocks } = run;
  if (info.pending.length > PENDING_RUNS_MAX) return 'more pending runs than have a place';
  if (info.readOnlyCompatible % 2 !== FEATURE_PENDING) return 'pending runs without their mask';
  if (info.medium !== 'in-place') return undefined;
  const index = vbn % SEGMENT_BLOCKS;
  const segment = (vbn - index) / SEGMENT_BLOCKS;
  const copyEnd = vbn + SEGMENT_BLOCKS + blocks;
  const isInside = vbn >= info.logStart + info.logBlocks && copyEnd <= info.storeBlocks - 2;
  // NaN is not inside either.
  if (!isInside || index + blocks > SEGMENT_BLOCKS || segment % 2 !== 0) {
    return 'a damaged pending run';
  }
  return undefined;
}

function unsupportedReason(view: DataView): string | undefined {
  const version = view.getUint32(12, true);
  if (version !== FORMAT_VERSION) {
    return `format version ${version}; this program reads version ${FORMAT_VERSION}`;
  }
  if (view.getUint32(48, true) > INCOMPATIBLE_KNOWN || view.getUint32(52, true) !== 0) {
    return 'it uses incompatible features that this program does not know';
  }
  if (view.getUint32(56, true) !== BLOCK_BYTES || view.getUint32(60, true) !== SEGMENT_BLOCKS) {
    return 'its block or segment size is not 4 KiB and 1024 blocks';
  }
  if (view.getUint32(64, true) !== 1) return 'its checksum is not CRC-32';
  const medium = view.getUint32(68, true);
  if (medium !== 1 && medium !== 2) return `medium kind ${medium} is unknown`;
  // Of an object log it is a local log: who opens the store must have it (local-log.ts).
  for (let offset = 96; medium === 1 && offset < 112; offset++) {
    if (view.getUint8(offset) !== 0) return 'its log is on an external device, which is missing';
  }
  return undefined;
}

function decodeRoots(view: DataView): Record<Metafile, MetafileRoot> {
  const decode = (index: number): MetafileRoot => {
    const offset = ROOTS_OFFSET + index * ROOT_BYTES;
    const word = (w: number): number => view.getUint32(offset + w * 4, true);
    return { words: [word(0), word(1), word(2), word(3)], height: word(4) };
  };
  return {
    tree: decode(0),
    vdisk: decode(1),
    reference: decode(2),
    usage: decode(3),
    map: decode(4),
  };
}

/** The table of epochs in the tail; a damaged one holds a NaN. Unknown tags are skipped. */
function decodeEpochs(view: DataView): EpochStart[] {
  const epochs: EpochStart[] = [];
  let at = TAIL_OFFSET;
  while (at + 4 <= BLOCK_BYTES && view.getUint16(at, true) !== TAG_END) {
    const start = at + 4;
    const length = view.getUint16(at + 2, true);
    const end = start + length;
    const isEpochs = view.getUint16(at, true) === TAG_EPOCHS;
    if (end > BLOCK_BYTES || (isEpochs && (length % 16 !== 0 || length > EPOCHS_MAX * 16))) {
      return [{ epoch: Number.NaN, firstRecord: Number.NaN }];
    }
    for (let entry = start; isEpochs && entry < end; entry += 16) {
      epochs.push({ epoch: getU64(view, entry), firstRecord: getU64(view, entry + 8) });
    }
    at = end;
  }
  return epochs;
}

/** True if a program that does not know these feature bits may only read the store. */
export function mustOpenReadOnly(info: Fsinfo): boolean {
  return Math.floor(info.readOnlyCompatible / (READ_ONLY_KNOWN + 1)) !== 0;
}

/** Short name of a store for messages. */
export function storeName(info: Fsinfo): string {
  return toHex(info.uuid).slice(0, 8);
}
