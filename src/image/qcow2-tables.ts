/**
 * Where a qcow2 image keeps each byte of its disk: the L1 table, in memory; slices of L2 tables, in
 * the chain's cache.
 *
 * 1. An offset is used only after it was checked: aligned, inside the file, behind the header, no
 *    byte of data inside the L1 table or an L2 table.
 * 2. `slice`, then `map`: what `map` says is of the slice that it is given, whatever others load.
 *
 * Source: QEMU, docs/interop/qcow2.txt, "Cluster mapping", "Extended L2 Entries".
 */
import { SECTOR_BYTES } from '../base/units.js';
import type { RandomAccessFile } from '../env/random-access-file.js';
import { corruptImage } from './image-error.js';
import type { Qcow2Header } from './qcow2-header.js';
import type { L1Table } from './qcow2-l1.js';
import type { CacheTable } from './shared-cache.js';

/** A run of the disk that lies in one piece. */
export type Mapping =
  | { readonly kind: 'data'; readonly length: number; readonly hostOffset: number }
  | { readonly kind: 'zero' | 'unallocated'; readonly length: number }
  | CompressedMapping;

export interface CompressedMapping {
  readonly kind: 'compressed';
  readonly length: number;
  /** First byte of the deflate stream, and how many bytes it may have. */
  readonly hostOffset: number;
  readonly hostBytes: number;
  /** Where in the inflated cluster the run begins. */
  readonly skipBytes: number;
}

/** What is loaded of an L2 table at once. */
const SLICE_BYTES = 4096;
const SUBCLUSTERS = 32;

/** Bits of the upper half of an entry. */
const COMPRESSED = 0x40000000;
const RESERVED_HIGH = 0x3f000000;
const OFFSET_HIGH = 0x00ffffff;
/** Bits of the lower half. */
const ZERO = 1;
const RESERVED_LOW = 0x1fe;
const OFFSET_LOW = 0xfffffe00;

/** What one entry, or one subcluster of it, says. */
const UNALLOCATED = 0;
const ZEROS = 1;
const DATA = 2;
const PACKED = 3;

export class Qcow2Tables {
  readonly #file: RandomAccessFile;
  readonly #header: Qcow2Header;
  readonly #l1: L1Table;
  readonly #cache: CacheTable;
  readonly #entryBytes: number;
  readonly #sliceBytes: number;
  readonly #entriesPerSlice: number;
  /** Bytes of the disk that one entry stands for: a subcluster, or the cluster. */
  readonly #unitBytes: number;
  /** Where the run goes on that `#unit` has found. */
  #hostOffset = 0;
  #hostBytes = 0;

  constructor(file: RandomAccessFile, header: Qcow2Header, l1: L1Table, cache: CacheTable) {
    this.#file = file;
    this.#header = header;
    this.#l1 = l1;
    this.#cache = cache;
    this.#entryBytes = header.extendedL2 ? 16 : 8;
    this.#sliceBytes = Math.min(SLICE_BYTES, header.clusterBytes);
    this.#entriesPerSlice = this.#sliceBytes / this.#entryBytes;
    this.#unitBytes = header.extendedL2 ? header.clusterBytes / SUBCLUSTERS : header.clusterBytes;
  }

  /**
   * The part of an L2 table that answers for this offset of the disk; undefined if there is no
   * table, a promise if it has to be read.
   */
  slice(offset: number): Uint8Array | Promise<Uint8Array> | undefined {
    const sliceIndex = Math.floor(offset / (this.#header.clusterBytes * this.#entriesPerSlice));
    const slicesPerTable = this.#header.clusterBytes / this.#sliceBytes;
    const table = this.#l1.entries[Math.floor(sliceIndex / slicesPerTable)] as number;
    if (table === 0) return undefined;
    const hostOffset = table + (sliceIndex % slicesPerTable) * this.#sliceBytes;
    return (
      this.#cache.get(hostOffset) ?? this.#cache.load(hostOffset, () => this.#load(hostOffset))
    );
  }

  async #load(hostOffset: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(this.#sliceBytes);
    await this.#file.read(hostOffset, bytes);
    return bytes;
  }

  /**
   * The longest run from `offset` that is of one kind, in one piece of the file, and known from
   * this slice; at most `length` bytes.
   *
   * @param slice  what `slice(offset)` has given
   * @throws {StoreError} corrupt
   */
  map(slice: Uint8Array | undefined, offset: number, length: number): Mapping {
    if (slice === undefined) return { kind: 'unallocated', length: this.#emptyRun(offset, length) };
    const view = new DataView(slice.buffer, slice.byteOffset, slice.byteLength);
    const unitBytes = this.#unitBytes;
    const unitsPerSlice = (this.#header.clusterBytes / unitBytes) * this.#entriesPerSlice;
    const firstUnit = Math.floor(offset / unitBytes);
    const skipBytes = offset - firstUnit * unitBytes;
    let index = firstUnit % unitsPerSlice;
    const sliceDiskOffset = (firstUnit - index) * unitBytes;
    const kind = this.#unit(view, index, sliceDiskOffset);
    if (kind === PACKED) return this.#compressedRun(offset, length);
    const hostOffset = this.#hostOffset + skipBytes;
    let runBytes = unitBytes - skipBytes;
    while (runBytes < length && ++index < unitsPerSlice) {
      if (this.#unit(view, index, sliceDiskOffset) !== kind) break;
      if (kind === DATA && this.#hostOffset !== hostOffset + runBytes) break;
      runBytes += unitBytes;
    }
    const run = Math.min(runBytes, length);
    if (kind === DATA) return { kind: 'data', length: run, hostOffset };
    return { kind: kind === ZEROS ? 'zero' : 'unallocated', length: run };
  }

  /** To the next L2 table that is there. */
  #emptyRun(offset: number, length: number): number {
    const bytesPerTable =
      this.#header.clusterBytes * (this.#header.clusterBytes / this.#entryBytes);
    const end = offset + length;
    let index = Math.floor(offset / bytesPerTable) + 1;
    while (index * bytesPerTable < end && this.#l1.entries[index] === 0) index++;
    return Math.min(index * bytesPerTable, end) - offset;
  }

  /** A compressed cluster is a run of its own: as far as it goes. */
  #compressedRun(offset: number, length: number): CompressedMapping {
    const skipBytes = offset % this.#header.clusterBytes;
    return {
      kind: 'compressed',
      length: Math.min(length, this.#header.clusterBytes - skipBytes),
      hostOffset: this.#hostOffset,
      hostBytes: this.#hostBytes,
      skipBytes,
    };
  }

  /** What this unit of the slice is; for data and packed data `#hostOffset` says where. */
  #unit(view: DataView, index: number, sliceDiskOffset: number): number {
    const { extendedL2, clusterBytes } = this.#header;
    const entryIndex = extendedL2 ? Math.floor(index / SUBCLUSTERS) : index;
    const at = entryIndex * this.#entryBytes;
    const high = view.getUint32(at);
    const low = view.getUint32(at + 4);
    const clusterOffset = sliceDiskOffset + entryIndex * clusterBytes;
    if ((high & COMPRESSED) !== 0) return this.#packed(high, low, clusterOffset);
    if ((high & RESERVED_HIGH) !== 0 || (low & RESERVED_LOW) !== 0) {
      throw this.#corrupt(clusterOffset, 'reserved bits are set');
    }
    const hostOffset = (high & OFFSET_HIGH) * 2 ** 32 + ((low & OFFSET_LOW) >>> 0);
    if (extendedL2)
      return this.#subcluster(view, at, index % SUBCLUSTERS, hostOffset, clusterOffset);
    if ((low & ZERO) !== 0) {
      if (this.#header.version < 3)
        throw this.#corrupt(clusterOffset, 'version 2 has no zero flag');
      return ZEROS;
    }
    if (hostOffset === 0) return UNALLOCATED;
    return this.#data(hostOffset, clusterOffset, 0);
  }

  #subcluster(
    view: DataView,
    at: number,
    subcluster: number,
    hostOffset: number,
    clusterOffset: number,
  ): number {
    if ((view.getUint32(at + 4) & ZERO) !== 0) {
      throw this.#corrupt(clusterOffset, 'a zero flag in an extended entry');
    }
    const zeros = view.getUint32(at + 8);
    const allocated = view.getUint32(at + 12);
    if ((zeros & allocated) !== 0) {
      throw this.#corrupt(clusterOffset, 'a subcluster is both data and zeros');
    }
    const bit = 1 << subcluster;
    if ((zeros & bit) !== 0) return ZEROS;
    if ((allocated & bit) === 0) return UNALLOCATED;
    if (hostOffset === 0) throw this.#corrupt(clusterOffset, 'subclusters without a place');
    return this.#data(hostOffset, clusterOffset, subcluster * this.#unitBytes);
  }

  /** Data of the cluster at `hostOffset`, from its byte `skipBytes` on. */
  #data(hostOffset: number, clusterOffset: number, skipBytes: number): number {
    const { clusterBytes, sizeBytes } = this.#header;
    if (hostOffset % clusterBytes !== 0) {
      throw this.#corrupt(clusterOffset, `data at byte ${hostOffset}, within a cluster`);
    }
    // The last cluster of the disk may be shorter in the file, as the disk is.
    const start = clusterOffset + skipBytes;
    const end = hostOffset + skipBytes + Math.min(this.#unitBytes, sizeBytes - start);
    if (start < sizeBytes && end > this.#file.sizeBytes) {
      const what = `data up to byte ${end}, beyond the ${this.#file.sizeBytes} of the file`;
      throw this.#corrupt(clusterOffset, `${what}, which was cut off`);
    }
    if (this.#l1.isTable(hostOffset)) {
      throw this.#corrupt(clusterOffset, `data at byte ${hostOffset}, where a table is`);
    }
    this.#hostOffset = hostOffset + skipBytes;
    return DATA;
  }

  /**
   * A compressed cluster: the offset has x = 62 - (cluster_bits - 8) bits, the number of sectors
   * behind the first one those above.
   */
  #packed(high: number, low: number, clusterOffset: number): number {
    const offsetBitsHigh = 38 - Math.log2(this.#header.clusterBytes);
    const hostHigh = high & (2 ** offsetBitsHigh - 1);
    const moreSectors = (high & 0x3fffffff) >>> offsetBitsHigh;
    const hostOffset = hostHigh * 2 ** 32 + low;
    const end = (Math.floor(hostOffset / SECTOR_BYTES) + 1 + moreSectors) * SECTOR_BYTES;
    if (hostOffset < this.#header.clusterBytes || hostOffset >= this.#file.sizeBytes) {
      const size = this.#file.sizeBytes;
      const what = `compressed data at byte ${hostOffset}, outside the ${size} of the file`;
      throw this.#corrupt(clusterOffset, what);
    }
    this.#hostOffset = hostOffset;
    // The last sector of a file need not be whole; what is missing is seen when it is inflated.
    this.#hostBytes = Math.min(end, this.#file.sizeBytes) - hostOffset;
    return PACKED;
  }

  #corrupt(clusterOffset: number, what: string): Error {
    const bytesPerTable =
      this.#header.clusterBytes * (this.#header.clusterBytes / this.#entryBytes);
    const table = this.#l1.entries[Math.floor(clusterOffset / bytesPerTable)] as number;
    const entry = (clusterOffset % bytesPerTable) / this.#header.clusterBytes;
    const at = table + entry * this.#entryBytes;
    return corruptImage(this.#file.name, at, `the L2 entry of disk byte ${clusterOffset}: ${what}`);
  }
}
