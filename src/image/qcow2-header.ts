/**
 * The header of a qcow2 image: bytes to values, every field checked.
 *
 * 1. What follows from a checked header stays inside the file: tables are where the file has bytes.
 * 2. A feature that is not known, or that decides where bytes are, refuses the image.
 * 3. A field that only says how to write (reference counts, snapshots, lazy or not) refuses nothing
 *    unless it cannot be.
 *
 * Source: QEMU, docs/interop/qcow2.txt, whose names for the fields are used here.
 */
import { SECTOR_BYTES, VDISK_BYTES_MAX } from '../base/units.js';
import type { RandomAccessFile } from '../env/random-access-file.js';
import { corruptImage, unsupportedImage } from './image-error.js';
import { decodeExtensions, decodeText, type Extensions } from './qcow2-extensions.js';

/** "QFI" and 0xfb. */
export const QCOW2_MAGIC = 0x514649fb;
const V2_HEADER_BYTES = 72;
const V3_HEADER_BYTES_MIN = 104;
const COMPRESSION_TYPE_AT = 104;
/** 512 bytes to 2 MiB, as QEMU has it; the document has no upper bound. */
const CLUSTER_BITS_MIN = 9;
const CLUSTER_BITS_MAX = 21;
/** A subcluster, 1/32 of a cluster, has at least a sector. */
const EXTENDED_CLUSTER_BITS_MIN = 14;
/** QEMU's bound of 32 MiB: 4 Mi entries of 8 bytes. */
const L1_COUNT_MAX = 4 * 1024 * 1024;
const BACKING_NAME_BYTES_MAX = 1023;
const REFCOUNT_ORDER_MAX = 6;

const DIRTY = 1;
const CORRUPT = 2;
const EXTERNAL_DATA = 4;
const COMPRESSION_TYPE = 8;
const EXTENDED_L2 = 16;
const KNOWN_FEATURES = DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION_TYPE | EXTENDED_L2;

export interface Qcow2Backing {
  /** As it stands in the image: a path, relative to the image's own. */
  readonly name: string;
  /** Undefined if the image does not say. */
  readonly format: string | undefined;
}

export interface Qcow2Header {
  readonly version: 2 | 3;
  readonly clusterBytes: number;
  readonly sizeBytes: number;
  readonly l1Offset: number;
  /** Entries that the disk's size needs; the table may have more. */
  readonly l1Count: number;
  /** L2 entries have a second half: what each 1/32 of the cluster is. */
  readonly extendedL2: boolean;
  readonly backing: Qcow2Backing | undefined;
  readonly notes: readonly string[];
}

/** The fixed fields, and whose bytes they are. */
class Fields {
  readonly name: string;
  readonly fileBytes: number;
  readonly #view: DataView;

  constructor(file: RandomAccessFile, bytes: Uint8Array) {
    this.name = file.name;
    this.fileBytes = file.sizeBytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  u32(at: number): number {
    return this.#view.getUint32(at);
  }

  /** @throws corrupt: beyond 2^53, where no file has bytes */
  u64(at: number, field: string): number {
    const value = this.#view.getUint32(at) * 2 ** 32 + this.#view.getUint32(at + 4);
    if (!Number.isSafeInteger(value)) throw this.corrupt(at, `${field} is beyond 2^53`);
    return value;
  }

  /** The low 32 bits of a mask; `high` says whether there are others. */
  mask(at: number): { readonly low: number; readonly high: number } {
    return { low: this.#view.getUint32(at + 4), high: this.#view.getUint32(at) };
  }

  corrupt(at: number, what: string): Error {
    return corruptImage(this.name, at, what);
  }
}

/** @throws {StoreError} corrupt, unsupported, device */
export async function readQcow2Header(file: RandomAccessFile): Promise<Qcow2Header> {
  const start = await readStart(file, SECTOR_BYTES);
  if (start.length < V2_HEADER_BYTES) {
    throw corruptImage(file.name, start.length, 'the file ends within the header');
  }
  const fields = new Fields(file, start);
  const version = versionOf(fields);
  const clusterBits = clusterBitsOf(fields);
  const clusterBytes = 2 ** clusterBits;
  const headerBytes = headerBytesOf(fields, version, start.length, clusterBytes);
  // The names of features stand behind the header: read them before an unknown one is refused.
  const first = await readStart(file, clusterBytes);
  const extensions = extensionsOf(fields, first, headerBytes);
  const notes: string[] = [];
  const extendedL2 = version === 3 && checkFeatures(fields, headerBytes, extensions, notes);
  if (extendedL2 && clusterBits < EXTENDED_CLUSTER_BITS_MIN) {
    throw fields.corrupt(20, `clusters of ${clusterBytes} bytes are too small for extended L2`);
  }
  checkEncryption(fields);
  checkReferenceCounts(fields, version, clusterBytes);
  noteSnapshots(fields, notes);
  const sizeBytes = sizeOf(fields);
  return {
    version,
    clusterBytes,
    sizeBytes,
    ...l1Of(fields, sizeBytes, clusterBytes, extendedL2),
    extendedL2,
    backing: backingOf(fields, first, extensions),
    notes,
  };
}

async function readStart(file: RandomAccessFile, length: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(Math.min(length, file.sizeBytes));
  await file.read(0, bytes);
  return bytes;
}

function versionOf(fields: Fields): 2 | 3 {
  if (fields.u32(0) !== QCOW2_MAGIC) throw fields.corrupt(0, 'it does not begin as qcow2 does');
  const version = fields.u32(4);
  if (version === 2 || version === 3) return version;
  const what = `version ${version} of qcow is not read, only 2 and 3: convert it with qemu-img`;
  throw unsupportedImage(fields.name, 4, what);
}

function clusterBitsOf(fields: Fields): number {
  const bits = fields.u32(20);
  if (bits < CLUSTER_BITS_MIN) throw fields.corrupt(20, `cluster_bits is ${bits}, at least 9`);
  if (bits <= CLUSTER_BITS_MAX) return bits;
  throw unsupportedImage(fields.name, 20, `cluster_bits is ${bits}; read are 9 to 21 (2 MiB)`);
}

function headerBytesOf(
  fields: Fields,
  version: 2 | 3,
  startBytes: number,
  clusterBytes: number,
): number {
  if (version === 2) return V2_HEADER_BYTES;
  if (startBytes < V3_HEADER_BYTES_MIN) {
    throw fields.corrupt(startBytes, 'the file ends within the header');
  }
  const length = fields.u32(100);
  const isLength = length >= V3_HEADER_BYTES_MIN && length % 8 === 0 && length <= clusterBytes;
  if (isLength && length <= fields.fileBytes) return length;
  throw fields.corrupt(100, `header_length is ${length}`);
}

function extensionsOf(fields: Fields, first: Uint8Array, headerBytes: number): Extensions {
  const backingAt = fields.u64(8, 'backing_file_offset');
  const isBehind = backingAt >= headerBytes && backingAt <= first.length;
  return decodeExtensions(fields.name, first, headerBytes, isBehind ? backingAt : first.length);
}

/** True for extended L2 entries. */
function checkFeatures(
  fields: Fields,
  headerBytes: number,
  extensions: Extensions,
  notes: string[],
): boolean {
  const { low, high } = fields.mask(72);
  for (let bit = 0; bit < 64; bit++) {
    const word = bit < 32 ? low & ~KNOWN_FEATURES : high;
    if (((word >>> (bit % 32)) & 1) === 0) continue;
    const name = extensions.featureNames.get(bit);
    const called = name === undefined ? '' : ` ("${name}")`;
    const what = `incompatible feature ${bit}${called} is not known here: convert the image`;
    throw unsupportedImage(fields.name, 72, `${what} with qemu-img`);
  }
  if ((low & CORRUPT) !== 0) throw fields.corrupt(72, 'the image is marked as corrupt');
  if ((low & EXTERNAL_DATA) !== 0) {
    const what = 'the data is in another file (external data file): convert it with qemu-img';
    throw unsupportedImage(fields.name, 72, what);
  }
  checkCompression(fields, headerBytes, (low & COMPRESSION_TYPE) !== 0);
  if ((low & DIRTY) !== 0) {
    notes.push('the image was not closed in order: its reference counts may be wrong (not used)');
  }
  return (low & EXTENDED_L2) !== 0;
}

function checkCompression(fields: Fields, headerBytes: number, isOther: boolean): void {
  const type = headerBytes > COMPRESSION_TYPE_AT ? fields.u32(COMPRESSION_TYPE_AT) >>> 24 : 0;
  if (isOther !== (type !== 0)) {
    const bit = isOther ? 'set' : 'not set';
    throw fields.corrupt(104, `compression_type is ${type}, but its feature bit is ${bit}`);
  }
  if (type === 0) return;
  const kind = type === 1 ? 'zstd' : `type ${type}`;
  const next = 'convert it with `qemu-img convert -O qcow2 -o compression_type=zlib`';
  throw unsupportedImage(fields.name, 104, `compression by ${kind} is not read here: ${next}`);
}

function checkEncryption(fields: Fields): void {
  const method = fields.u32(32);
  if (method === 0) return;
  const kind = method === 1 ? 'AES' : method === 2 ? 'LUKS' : `method ${method}`;
  const what = `the image is encrypted (${kind}): decrypt it with qemu-img convert first`;
  throw unsupportedImage(fields.name, 32, what);
}

/** Reading needs no reference counts; where they cannot be, the header is not to be trusted. */
function checkReferenceCounts(fields: Fields, version: 2 | 3, clusterBytes: number): void {
  const table = fields.u64(48, 'refcount_table_offset');
  if (table % clusterBytes !== 0 || table >= fields.fileBytes) {
    throw fields.corrupt(48, `refcount_table_offset is ${table}`);
  }
  const order = version === 3 ? fields.u32(96) : 0;
  if (order > REFCOUNT_ORDER_MAX) throw fields.corrupt(96, `refcount_order is ${order}, at most 6`);
}

function noteSnapshots(fields: Fields, notes: string[]): void {
  const count = fields.u32(60);
  if (count > 0) notes.push(`the image has ${count} internal snapshots: they are not read`);
}

function sizeOf(fields: Fields): number {
  const sizeBytes = fields.u64(24, 'size');
  if (sizeBytes > VDISK_BYTES_MAX) {
    const what = `the disk has ${sizeBytes} bytes, a vdisk at most ${VDISK_BYTES_MAX} (1 PiB)`;
    throw unsupportedImage(fields.name, 24, what);
  }
  if (sizeBytes % SECTOR_BYTES === 0) return sizeBytes;
  const next = 'resize it with qemu-img first';
  const what = `the disk has ${sizeBytes} bytes, not a multiple of 512: ${next}`;
  throw unsupportedImage(fields.name, 24, what);
}

function l1Of(
  fields: Fields,
  sizeBytes: number,
  clusterBytes: number,
  extendedL2: boolean,
): { readonly l1Offset: number; readonly l1Count: number } {
  const entriesPerL2 = clusterBytes / (extendedL2 ? 16 : 8);
  const l1Count = Math.ceil(sizeBytes / (clusterBytes * entriesPerL2));
  const l1Size = fields.u32(36);
  const l1Offset = fields.u64(40, 'l1_table_offset');
  if (l1Size > L1_COUNT_MAX) {
    throw fields.corrupt(36, `l1_size is ${l1Size} entries, at most ${L1_COUNT_MAX}`);
  }
  if (l1Size < l1Count) {
    throw fields.corrupt(36, `l1_size is ${l1Size} entries, but the disk needs ${l1Count}`);
  }
  if (l1Size === 0) return { l1Offset: 0, l1Count };
  if (l1Offset < clusterBytes || l1Offset % clusterBytes !== 0) {
    throw fields.corrupt(40, `l1_table_offset is ${l1Offset}`);
  }
  const end = l1Offset + l1Size * 8;
  if (end <= fields.fileBytes) return { l1Offset, l1Count };
  const what = `the L1 table ends at byte ${end}, beyond the ${fields.fileBytes} of the file`;
  throw fields.corrupt(40, `${what}, which was cut off`);
}

function backingOf(
  fields: Fields,
  first: Uint8Array,
  extensions: Extensions,
): Qcow2Backing | undefined {
  const offset = fields.u64(8, 'backing_file_offset');
  if (offset === 0) return undefined;
  const length = fields.u32(16);
  if (length > BACKING_NAME_BYTES_MAX) {
    throw fields.corrupt(16, `the backing file's name has ${length} bytes, at most 1023`);
  }
  if (offset + length > first.length) {
    throw fields.corrupt(8, "the backing file's name is not inside the first cluster");
  }
  const name = decodeText(fields.name, first, offset, length, "the backing file's name");
  return name === '' ? undefined : { name, format: extensions.backingFormat };
}
