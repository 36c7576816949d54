/**
 * The descriptor of an external backing store: which files it is, and how they were when it was
 * made. It stands in the external tree itself, behind everything that a vdisk can have. Offsets in
 * docs/FORMAT.md.
 *
 * It has no checksum: the pointers to its blocks have.
 */
import { invariant } from '../base/invariant.js';
import { BLOCK_BYTES, VDISK_BYTES_MAX } from '../base/units.js';
import { getU64, putU64, viewOf } from './bytes.js';

/** Block of the external tree where the descriptor begins: the first that no vdisk can have. */
export const DESCRIPTOR_FBN = VDISK_BYTES_MAX / BLOCK_BYTES;
export const DESCRIPTOR_BLOCKS_MAX = 16;
/** A tree that has such a block is this high. */
export const EXTERNAL_HEIGHT = 5;
export const EXTERNAL_FILES_MAX = 64;

const MAGIC = 'KEIKIEXT';
const HEAD_BYTES = 40;
const FILE_BYTES = 40;

export type ImageFormat = 'raw' | 'qcow2';
/** published: no file, but a snapshot that another store has published; its "path" says which. */
export type ExternalFormat = ImageFormat | 'published';
const FORMATS: readonly ExternalFormat[] = ['raw', 'qcow2', 'published'];

/** One file of the chain, as it was. */
export interface ExternalFile {
  readonly path: string;
  readonly sizeBytes: number;
  /** Last change of its bytes, since 1970; 0 and 0 of a block device. */
  readonly modifiedSeconds: number;
  readonly modifiedNs: number;
  /** CRC-32 of its first and of its last 64 KiB. */
  readonly headCrc: number;
  readonly tailCrc: number;
}

export interface ExternalDescriptor {
  readonly format: ExternalFormat;
  /** Of the disk in the image. */
  readonly sizeBytes: number;
  /** The image, the file behind it, and so on. */
  readonly files: readonly ExternalFile[];
}

const encoder = new TextEncoder();
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

/** Bytes of the descriptor; who writes it fills the last block up with zeros. */
export function encodeExternalDescriptor(descriptor: ExternalDescriptor): Uint8Array {
  const { files } = descriptor;
  invariant(files.length >= 1 && files.length <= EXTERNAL_FILES_MAX, 'a chain has 1 to 64 files');
  const names = files.map(({ path }) => encoder.encode(path));
  const lengths = names.map((name) => FILE_BYTES + Math.ceil(name.length / 8) * 8);
  const bytes = new Uint8Array(lengths.reduce((sum, length) => sum + length, HEAD_BYTES));
  const view = viewOf(bytes);
  bytes.set(encoder.encode(MAGIC));
  view.setUint32(8, bytes.length, true);
  view.setUint32(12, FORMATS.indexOf(descriptor.format) + 1, true);
  putU64(view, 16, descriptor.sizeBytes);
  view.setUint32(24, files.length, true);
  let at = HEAD_BYTES;
  files.forEach((file, index) => {
    const name = names[index] as Uint8Array;
    invariant(name.length > 0, 'a file has a name');
    view.setUint32(at, lengths[index] as number, true);
    view.setUint32(at + 4, name.length, true);
    putU64(view, at + 8, file.sizeBytes);
    putU64(view, at + 16, file.modifiedSeconds);
    view.setUint32(at + 24, file.modifiedNs, true);
    view.setUint32(at + 28, file.headCrc, true);
    view.setUint32(at + 32, file.tailCrc, true);
    bytes.set(name, at + FILE_BYTES);
    at += lengths[index] as number;
  });
  return bytes;
}

/** How many blocks the descriptor takes, from its first one; undefined if that is none. */
export function descriptorBlocks(first: Uint8Array): number | undefined {
  const view = viewOf(first);
  const blocks = Math.ceil(view.getUint32(8, true) / BLOCK_BYTES);
  const isMagic = encoder.encode(MAGIC).every((byte, index) => first[index] === byte);
  return isMagic && blocks >= 1 && blocks <= DESCRIPTOR_BLOCKS_MAX ? blocks : undefined;
}

/** The descriptor at the beginning of these blocks; undefined if they cannot hold one. */
export function decodeExternalDescriptor(bytes: Uint8Array): ExternalDescriptor | undefined {
  if (bytes.length < HEAD_BYTES || descriptorBlocks(bytes) === undefined) return undefined;
  const view = viewOf(bytes);
  const end = view.getUint32(8, true);
  const format = FORMATS[view.getUint32(12, true) - 1];
  const sizeBytes = getU64(view, 16);
  const count = view.getUint32(24, true);
  if (end > bytes.length || format === undefined || Number.isNaN(sizeBytes)) return undefined;
  if (count < 1 || count > EXTERNAL_FILES_MAX) return undefined;
  const files: ExternalFile[] = [];
  let at = HEAD_BYTES;
  for (let index = 0; index < count; index++) {
    const file = decodeFile(bytes, view, at, end);
    if (file === undefined) return undefined;
    files.push(file);
    at += view.getUint32(at, true);
  }
  return at === end ? { format, sizeBytes, files } : undefined;
}

function decodeFile(
  bytes: Uint8Array,
  view: DataView,
  at: number,
  end: number,
): ExternalFile | undefined {
  if (at + FILE_BYTES > end) return undefined;
  const length = view.getUint32(at, true);
  const nameBytes = view.getUint32(at + 4, true);
  const isLength = length === FILE_BYTES + Math.ceil(nameBytes / 8) * 8 && nameBytes > 0;
  if (!isLength || at + length > end) return undefined;
  const sizeBytes = getU64(view, at + 8);
  const modifiedSeconds = getU64(view, at + 16);
  const modifiedNs = view.getUint32(at + 24, true);
  if (Number.isNaN(sizeBytes + modifiedSeconds) || modifiedNs >= 1e9) return undefined;
  let path: string;
  try {
    path = decoder.decode(bytes.subarray(at + FILE_BYTES, at + FILE_BYTES + nameBytes));
  } catch {
    return undefined;
  }
  const headCrc = view.getUint32(at + 28, true);
  const tailCrc = view.getUint32(at + 32, true);
  return { path, sizeBytes, modifiedSeconds, modifiedNs, headCrc, tailCrc };
}
