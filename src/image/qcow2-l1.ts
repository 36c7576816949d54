/**
 * The L1 table of a qcow2 image: where its L2 tables are.
 *
 * 1. Every L2 table is aligned, inside the file, behind the header and not inside the L1 table.
 * 2. No L2 table is named twice. So a small file cannot stand for more entries than it has.
 *
 * Source: QEMU, docs/interop/qcow2.txt, "Cluster mapping".
 */
import type { RandomAccessFile } from '../env/random-access-file.js';
import { corruptImage } from './image-error.js';
import type { Qcow2Header } from './qcow2-header.js';

/** Entries read in one call. */
const STEP = 65536;
/** Bits 56 to 62; 63 says how often the table is referenced. */
const RESERVED_HIGH = 0x7f000000;
const RESERVED_LOW = 0x1ff;
const OFFSET_HIGH = 0x00ffffff;

export class L1Table {
  /** Offset of the L2 table for each entry; 0 if there is none. */
  readonly entries: Float64Array;
  /** Offsets of all L2 tables, ascending. */
  readonly #tables: Float64Array;
  readonly #start: number;
  readonly #end: number;

  constructor(header: Qcow2Header, entries: Float64Array, tables: Float64Array) {
    this.entries = entries;
    this.#tables = tables;
    this.#start = Math.floor(header.l1Offset / header.clusterBytes) * header.clusterBytes;
    this.#end = header.l1Offset + entries.length * 8;
  }

  /** True if the cluster at this offset has an L2 table, or some of the L1 table. */
  isTable(hostOffset: number): boolean {
    if (hostOffset >= this.#start && hostOffset < this.#end) return true;
    let low = 0;
    let high = this.#tables.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if ((this.#tables[middle] as number) < hostOffset) low = middle + 1;
      else high = middle;
    }
    return this.#tables[low] === hostOffset;
  }
}

/** Reads and checks the table. @throws {StoreError} corrupt, device */
export async function loadL1(file: RandomAccessFile, header: Qcow2Header): Promise<L1Table> {
  const { l1Offset, l1Count } = header;
  const entries = new Float64Array(l1Count);
  const bytes = new Uint8Array(Math.min(STEP, l1Count) * 8);
  const view = new DataView(bytes.buffer);
  const tables = new SortedTables(file.name, l1Offset);
  for (let first = 0; first < l1Count; first += STEP) {
    const count = Math.min(STEP, l1Count - first);
    // Each step waits, so that a large table holds nobody up for long.
    await file.read(l1Offset + first * 8, bytes.subarray(0, count * 8));
    for (let index = 0; index < count; index++) {
      const hostAt = l1Offset + (first + index) * 8;
      entries[first + index] = tableOffset(file, header, view, index * 8, hostAt);
    }
    tables.add(entries.subarray(first, first + count).filter((table) => table !== 0));
  }
  return new L1Table(header, entries, tables.end());
}

/**
 * Sorts the offsets of L2 tables as they come: sorted runs, of which two of like length are merged
 * at once. So no step takes longer than one merge.
 */
class SortedTables {
  readonly #name: string;
  readonly #l1Offset: number;
  readonly #runs: Float64Array[] = [];

  constructor(name: string, l1Offset: number) {
    this.#name = name;
    this.#l1Offset = l1Offset;
  }

  /** @throws {StoreError} corrupt: a table is named twice */
  add(run: Float64Array): void {
    run.sort();
    for (let at = 1; at < run.length; at++) this.#differ(run[at - 1] as number, run[at] as number);
    if (run.length > 0) this.#runs.push(run);
    while (this.#isDue()) this.#mergeLast();
  }

  end(): Float64Array {
    while (this.#runs.length > 1) this.#mergeLast();
    return this.#runs[0] ?? new Float64Array(0);
  }

  #isDue(): boolean {
    const [before, last] = [this.#runs.at(-2), this.#runs.at(-1)];
    return before !== undefined && last !== undefined && before.length <= last.length * 2;
  }

  #mergeLast(): void {
    const [right, left] = [this.#runs.pop(), this.#runs.pop()];
    if (left === undefined || right === undefined) return;
    const merged = new Float64Array(left.length + right.length);
    let l = 0;
    let r = 0;
    for (let at = 0; at < merged.length; at++) {
      const fromLeft = l < left.length ? (left[l] as number) : Number.POSITIVE_INFINITY;
      const fromRight = r < right.length ? (right[r] as number) : Number.POSITIVE_INFINITY;
      this.#differ(fromLeft, fromRight);
      if (fromLeft < fromRight) l++;
      else r++;
      merged[at] = Math.min(fromLeft, fromRight);
    }
    this.#runs.push(merged);
  }

  #differ(one: number, other: number): void {
    if (one !== other) return;
    const what = `the L1 table names the L2 table at byte ${one} twice`;
    throw corruptImage(this.#name, this.#l1Offset, what);
  }
}

/** @param at the entry's place in the view; `hostAt` in the file */
function tableOffset(
  file: RandomAccessFile,
  header: Qcow2Header,
  view: DataView,
  at: number,
  hostAt: number,
): number {
  const high = view.getUint32(at);
  const low = view.getUint32(at + 4);
  if ((high & RESERVED_HIGH) !== 0 || (low & RESERVED_LOW) !== 0) {
    throw corruptImage(file.name, hostAt, 'the L1 entry has reserved bits set');
  }
  const table = (high & OFFSET_HIGH) * 2 ** 32 + low;
  if (table === 0) return 0;
  const { clusterBytes, l1Offset, l1Count } = header;
  if (table % clusterBytes !== 0) {
    throw corruptImage(file.name, hostAt, `an L2 table at byte ${table}, within a cluster`);
  }
  if (table + clusterBytes > file.sizeBytes) {
    const what = `an L2 table at byte ${table}, beyond the ${file.sizeBytes} of the file`;
    throw corruptImage(file.name, hostAt, `${what}, which was cut off`);
  }
  if (table < l1Offset + l1Count * 8 && table + clusterBytes > l1Offset) {
    throw corruptImage(file.name, hostAt, `an L2 table at byte ${table}, where the L1 table is`);
  }
  return table;
}
