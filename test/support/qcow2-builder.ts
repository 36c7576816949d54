/** Makes small qcow2 images by hand, and says where their parts are: for tests that change them. */
import { deflateRawSync } from 'node:zlib';

/**
 * What a cluster of the disk is. `packed`: compressed. `mixed`: with extended L2, a mixture by
 * subcluster; else as data. Data of cluster i is `clusterContent(i)`.
 */
export type ClusterPlan = 'hole' | 'zero' | 'data' | 'packed' | 'mixed';

export interface Qcow2Plan {
  readonly version: 2 | 3;
  readonly clusterBits: number;
  readonly extendedL2?: boolean;
  /** One for each cluster of the disk. */
  readonly clusters: readonly ClusterPlan[];
  /** By how much the disk is smaller than its clusters. */
  readonly cutBytes?: number;
  readonly backing?: { readonly name: string; readonly format?: string };
  /** Added to what distinguishes content, so that a backing file has other bytes. */
  readonly salt?: number;
}

export interface BuiltQcow2 {
  readonly bytes: Uint8Array;
  readonly sizeBytes: number;
  readonly clusterBytes: number;
  readonly l1Offset: number;
  readonly l1Count: number;
  readonly l2Offsets: readonly number[];
  readonly entryBytes: number;
  /** First bytes of compressed clusters. */
  readonly packedOffsets: readonly number[];
  readonly extensionsOffset: number;
}

/** Alternating: data, zeros, nothing. */
export const MIXED_DATA = 0x92492492;
export const MIXED_ZEROS = 0x24924924;

export function clusterContent(index: number, clusterBytes: number, salt = 0): Uint8Array {
  const content = new Uint8Array(clusterBytes);
  for (let at = 0; at < clusterBytes; at++) {
    content[at] = 1 + ((index * 31 + salt * 7 + (at >>> 5) * 3) % 251);
  }
  return content;
}

/** A file that grows by clusters. */
class Growing {
  readonly #clusterBytes: number;
  #bytes: Uint8Array;
  #view: DataView;
  usedBytes = 0;

  constructor(clusterBytes: number) {
    this.#clusterBytes = clusterBytes;
    this.#bytes = new Uint8Array(clusterBytes * 16);
    this.#view = new DataView(this.#bytes.buffer);
  }

  take(clusters: number): number {
    const at = Math.ceil(this.usedBytes / this.#clusterBytes) * this.#clusterBytes;
    this.takeBytes(at - this.usedBytes + clusters * this.#clusterBytes);
    return at;
  }

  takeBytes(length: number): number {
    const at = this.usedBytes;
    this.usedBytes += length;
    while (this.usedBytes > this.#bytes.length) {
      const larger = new Uint8Array(this.#bytes.length * 2);
      larger.set(this.#bytes);
      this.#bytes = larger;
      this.#view = new DataView(larger.buffer);
    }
    return at;
  }

  u32(at: number, value: number): void {
    this.#view.setUint32(at, value);
  }

  u64(at: number, value: bigint): void {
    this.#view.setBigUint64(at, value);
  }

  set(at: number, bytes: Uint8Array): void {
    this.#bytes.set(bytes, at);
  }

  end(): Uint8Array {
    return this.#bytes.slice(0, this.usedBytes);
  }
}

const ONCE = 1n << 63n;
const PACKED = 1n << 62n;

export function buildQcow2(plan: Qcow2Plan): BuiltQcow2 {
  const clusterBytes = 2 ** plan.clusterBits;
  const entryBytes = plan.extendedL2 === true ? 16 : 8;
  const entriesPerTable = clusterBytes / entryBytes;
  const sizeBytes = plan.clusters.length * clusterBytes - (plan.cutBytes ?? 0);
  const l1Count = Math.ceil(plan.clusters.length / entriesPerTable);
  const file = new Growing(clusterBytes);
  file.take(1);
  const countsOffset = file.take(1);
  const l1Offset = file.take(Math.max(1, Math.ceil((l1Count * 8) / clusterBytes)));
  const extensionsOffset = writeHeader(file, plan, { sizeBytes, l1Count, l1Offset, countsOffset });
  const l2Offsets: number[] = [];
  for (let table = 0; table < l1Count; table++) {
    const part = plan.clusters.slice(table * entriesPerTable, (table + 1) * entriesPerTable);
    if (part.every((kind) => kind === 'hole')) continue;
    const offset = file.take(1);
    l2Offsets.push(offset);
    file.u64(l1Offset + table * 8, BigInt(offset) | ONCE);
  }
  const packedOffsets = writeClusters(file, plan, l2Offsets);
  // The last one may end anywhere; all before are whole.
  return {
    bytes: file.end(),
    sizeBytes,
    clusterBytes,
    l1Offset,
    l1Count,
    l2Offsets,
    entryBytes,
    packedOffsets,
    extensionsOffset,
  };
}

function writeHeader(
  file: Growing,
  plan: Qcow2Plan,
  facts: { sizeBytes: number; l1Count: number; l1Offset: number; countsOffset: number },
): number {
  const headerBytes = plan.version === 2 ? 72 : 112;
  file.u32(0, 0x514649fb);
  file.u32(4, plan.version);
  file.u32(20, plan.clusterBits);
  file.u64(24, BigInt(facts.sizeBytes));
  file.u32(36, facts.l1Count);
  file.u64(40, BigInt(facts.l1Offset));
  file.u64(48, BigInt(facts.countsOffset));
  file.u32(56, 1);
  if (plan.version === 3) {
    if (plan.extendedL2 === true) file.u64(72, 16n);
    file.u32(96, 4);
    file.u32(100, headerBytes);
  }
  let at = headerBytes;
  const format = plan.backing?.format;
  if (format !== undefined) {
    file.u32(at, 0xe2792aca);
    file.u32(at + 4, format.length);
    file.set(at + 8, new TextEncoder().encode(format));
    at += 8 + Math.ceil(format.length / 8) * 8;
  }
  at += 8;
  if (plan.backing !== undefined) {
    const name = new TextEncoder().encode(plan.backing.name);
    file.u64(8, BigInt(at));
    file.u32(16, name.length);
    file.set(at, name);
  }
  return headerBytes;
}

/** @param l2Offsets  of the tables that have something, in order */
function writeClusters(file: Growing, plan: Qcow2Plan, l2Offsets: readonly number[]): number[] {
  const clusterBytes = 2 ** plan.clusterBits;
  const isExtended = plan.extendedL2 === true;
  const entryBytes = isExtended ? 16 : 8;
  const entriesPerTable = clusterBytes / entryBytes;
  const packed: number[] = [];
  /** Which table of the disk the last cluster belonged to, and which one of the file that is. */
  let table = -1;
  let tableIndex = -1;
  plan.clusters.forEach((kind, index) => {
    if (kind === 'hole') return;
    if (table !== Math.floor(index / entriesPerTable)) tableIndex++;
    table = Math.floor(index / entriesPerTable);
    const at = (l2Offsets[tableIndex] ?? 0) + (index % entriesPerTable) * entryBytes;
    const content = clusterContent(index, clusterBytes, plan.salt);
    if (kind === 'packed') {
      packed.push(writePacked(file, plan, at, content));
    } else if (kind === 'zero') {
      if (isExtended) file.u32(at + 8, 0xffffffff);
      else file.u64(at, 1n);
    } else {
      const host = file.take(1);
      file.set(host, content);
      file.u64(at, BigInt(host) | ONCE);
      if (!isExtended) return;
      file.u32(at + 8, kind === 'mixed' ? MIXED_ZEROS : 0);
      file.u32(at + 12, kind === 'mixed' ? MIXED_DATA : 0xffffffff);
    }
  });
  return packed;
}

function writePacked(file: Growing, plan: Qcow2Plan, at: number, content: Uint8Array): number {
  const stream = deflateRawSync(content, { windowBits: 12 });
  const host = file.takeBytes(stream.length);
  file.set(host, stream);
  const sectors = Math.floor((host + stream.length - 1) / 512) - Math.floor(host / 512);
  const offsetBits = BigInt(62 - (plan.clusterBits - 8));
  file.u64(at, PACKED | (BigInt(sectors) << offsetBits) | BigInt(host));
  return host;
}

/** An image over another one, clusters of 64 KiB, and the disk that the two are. */
export function buildChain(backing: string): {
  base: Uint8Array;
  top: Uint8Array;
  disk: Uint8Array;
} {
  const plan = { version: 3, clusterBits: 16 } as const;
  const bytes = 65536;
  const base = buildQcow2({ ...plan, clusters: ['data', 'data', 'hole', 'packed'], salt: 1 });
  const top = buildQcow2({
    ...plan,
    clusters: ['hole', 'data', 'hole', 'hole'],
    cutBytes: 512,
    backing: { name: backing, format: 'qcow2' },
  });
  const disk = new Uint8Array(4 * bytes - 512);
  disk.set(clusterContent(0, bytes, 1));
  disk.set(clusterContent(1, bytes), bytes);
  disk.set(clusterContent(3, bytes, 1).subarray(0, bytes - 512), 3 * bytes);
  return { base: base.bytes, top: top.bytes, disk };
}
