/**
 * What a store tells others of a snapshot that it has published: the manifest, for who reads the
 * snapshot, and the list of records that are kept for them. Offsets in docs/FORMAT.md.
 *
 * Both are objects of their own, which are created once; each ends with a CRC-32 of what is before.
 */
import { crc32 } from '../base/checksum.js';
import { invariant } from '../base/invariant.js';
import { HEIGHT_MAX, VDISK_BYTES_MAX } from '../base/units.js';
import { getU64, putU64, viewOf } from './bytes.js';

/** The snapshot's tree, or one behind it. */
export interface PublishedTree {
  readonly root: readonly [number, number, number, number];
  readonly height: number;
  readonly readThroughLimitBytes: number;
}

export interface Manifest {
  /** Of the store. */
  readonly uuid: Uint8Array;
  /** `golden@v1`, as it was called then. */
  readonly name: string;
  readonly sizeBytes: number;
  /** Consistency point whose trees these are. */
  readonly cpNumber: number;
  readonly wallMs: number;
  /** The snapshot's tree, the one behind it, and so on; the last has none behind it. */
  readonly trees: readonly PublishedTree[];
}

/** Records [first, first + count). */
export interface RecordRun {
  readonly first: number;
  readonly count: number;
}

const MANIFEST_HEAD_BYTES = 64;
export const PUBLISHED_TREE_BYTES = 32;
const RECORD_LIST_HEAD_BYTES = 32;
const RECORD_RUN_BYTES = 16;
const CRC_BYTES = 4;
const MANIFEST_MAGIC = 'KEIKIPUB';
const RECORD_LIST_MAGIC = 'KEIKIREC';

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

export function encodeManifest(manifest: Manifest): Uint8Array {
  const { trees } = manifest;
  const name = encoder.encode(manifest.name);
  invariant(trees.length > 0 && name.length > 0, 'a manifest has a name and a tree');
  const treesAt = MANIFEST_HEAD_BYTES + Math.ceil(name.length / 8) * 8;
  const bytes = new Uint8Array(treesAt + trees.length * PUBLISHED_TREE_BYTES + CRC_BYTES);
  const view = viewOf(bytes);
  bytes.set(encoder.encode(MANIFEST_MAGIC));
  bytes.set(manifest.uuid, 8);
  putU64(view, 24, manifest.sizeBytes);
  putU64(view, 32, manifest.cpNumber);
  putU64(view, 40, manifest.wallMs);
  view.setUint32(48, trees.length, true);
  view.setUint32(52, name.length, true);
  bytes.set(name, MANIFEST_HEAD_BYTES);
  trees.forEach(({ root, height, readThroughLimitBytes }, index) => {
    const at = treesAt + index * PUBLISHED_TREE_BYTES;
    for (const [word, value] of root.entries()) view.setUint32(at + word * 4, value, true);
    putU64(view, at + 16, readThroughLimitBytes);
    view.setUint32(at + 24, height, true);
  });
  return sealed(bytes);
}

/** Undefined if the bytes cannot be one. */
export function decodeManifest(bytes: Uint8Array): Manifest | undefined {
  if (!isSealed(bytes, MANIFEST_MAGIC, MANIFEST_HEAD_BYTES)) return undefined;
  const view = viewOf(bytes);
  const [sizeBytes, cpNumber, wallMs] = [24, 32, 40].map((at) => getU64(view, at)) as [
    number,
    number,
    number,
  ];
  const count = view.getUint32(48, true);
  const nameBytes = view.getUint32(52, true);
  const treesAt = MANIFEST_HEAD_BYTES + Math.ceil(nameBytes / 8) * 8;
  const isLong = bytes.length === treesAt + count * PUBLISHED_TREE_BYTES + CRC_BYTES;
  if (!isLong || count === 0 || nameBytes === 0) return undefined;
  if (!(sizeBytes <= VDISK_BYTES_MAX) || Number.isNaN(cpNumber + wallMs)) return undefined;
  const trees: PublishedTree[] = [];
  for (let at = treesAt; trees.length < count; at += PUBLISHED_TREE_BYTES) {
    const root = [0, 4, 8, 12].map((word) => view.getUint32(at + word, true));
    const readThroughLimitBytes = getU64(view, at + 16);
    const height = view.getUint32(at + 24, true);
    if (height < 1 || height > HEIGHT_MAX || Number.isNaN(readThroughLimitBytes)) return undefined;
    trees.push({ root: root as [number, number, number, number], height, readThroughLimitBytes });
  }
  let name: string;
  try {
    name = decoder.decode(bytes.subarray(MANIFEST_HEAD_BYTES, MANIFEST_HEAD_BYTES + nameBytes));
  } catch {
    return undefined;
  }
  return { uuid: bytes.slice(8, 24), name, sizeBytes, cpNumber, wallMs, trees };
}

/** @param runs  in order, apart */
export function encodeRecordList(uuid: Uint8Array, runs: readonly RecordRun[]): Uint8Array {
  const length = RECORD_LIST_HEAD_BYTES + runs.length * RECORD_RUN_BYTES + CRC_BYTES;
  const bytes = new Uint8Array(length);
  const view = viewOf(bytes);
  bytes.set(encoder.encode(RECORD_LIST_MAGIC));
  bytes.set(uuid, 8);
  view.setUint32(24, runs.length, true);
  runs.forEach(({ first, count }, index) => {
    const at = RECORD_LIST_HEAD_BYTES + index * RECORD_RUN_BYTES;
    putU64(view, at, first);
    putU64(view, at + 8, count);
  });
  return sealed(bytes);
}

/** Undefined if the bytes cannot be one of this store. */
export function decodeRecordList(uuid: Uint8Array, bytes: Uint8Array): RecordRun[] | undefined {
  if (!isSealed(bytes, RECORD_LIST_MAGIC, RECORD_LIST_HEAD_BYTES)) return undefined;
  const view = viewOf(bytes);
  const runCount = view.getUint32(24, true);
  const end = RECORD_LIST_HEAD_BYTES + runCount * RECORD_RUN_BYTES;
  if (bytes.length !== end + CRC_BYTES || uuid.some((byte, index) => bytes[8 + index] !== byte)) {
    return undefined;
  }
  const runs: RecordRun[] = [];
  let last = 0;
  for (let at = RECORD_LIST_HEAD_BYTES; at < end; at += RECORD_RUN_BYTES) {
    const first = getU64(view, at);
    const count = getU64(view, at + 8);
    // A record number that is no number makes the comparison false, too.
    if (!(first > last && count > 0)) return undefined;
    last = first + count;
    runs.push({ first, count });
  }
  return runs;
}

function sealed(bytes: Uint8Array): Uint8Array {
  const end = bytes.length - CRC_BYTES;
  viewOf(bytes).setUint32(end, crc32(bytes.subarray(0, end)), true);
  return bytes;
}

function isSealed(bytes: Uint8Array, magic: string, headBytes: number): boolean {
  const end = bytes.length - CRC_BYTES;
  if (end < headBytes) return false;
  const isMagic = encoder.encode(magic).every((byte, index) => bytes[index] === byte);
  return isMagic && viewOf(bytes).getUint32(end, true) === crc32(bytes.subarray(0, end));
}
