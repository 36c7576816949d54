/**
 * Copies a vdisk or snapshot out, as a qcow2 image: version 3, clusters of 64 KiB, no backing file.
 *
 * 1. The file is laid out in the order of the disk: header (written last), L1 table, data and,
 *    behind each 512 MiB of the disk, the L2 table of it; at the end the reference counts. So every
 *    cluster of the file is in use exactly once, and its count is 1.
 * 2. Holes have no entry, zeros the zero flag; a cluster of data that is all zeros has it, too.
 * 3. The header is written when all else is durable: a file cut short has no header.
 * 4. When it rejects, nothing is under way any more; the caller discards the sink.
 *
 * Source: QEMU, docs/interop/qcow2.txt.
 */
import { isAllZero } from '../base/checksum.js';
import { StoreError } from '../base/store-error.js';
import { KIB } from '../base/units.js';
import type { FileSink, StreamSink } from '../env/file-sink.js';
import type { BlockTarget } from '../vdisk/block-target.js';
import { type ClusterRun, clusterRuns } from './cluster-runs.js';
import { Buffers, type CopyOptions, Progress } from './copy-options.js';
import type { CopyReport } from './import-image.js';
import { type InFlight, inFlight, inOrder } from './in-flight.js';
import { QCOW2_MAGIC } from './qcow2-header.js';

const CLUSTER_BITS = 16;
const CLUSTER_BYTES = 64 * KIB;
/** 1 MiB: read, looked through and written at once. */
const PIECE_CLUSTERS = 16;
const PIECES_AT_ONCE = 4;
/** 8 bytes each: 8192 clusters, 512 MiB of the disk. */
const ENTRIES_PER_TABLE = CLUSTER_BYTES / 8;
/** 16 bits each. */
const COUNTS_PER_BLOCK = CLUSTER_BYTES / 2;
const REFCOUNT_ORDER = 4;
const HEADER_BYTES = 104;
/** Bit 63 of an L1 or L2 entry: referenced exactly once. */
const ONCE_HIGH = 0x80000000;
const ZERO = 1;

/**
 * @throws {StoreError} invalid (the sink is a pipe), device, and what the target throws
 * @throws the signal's reason
 */
export async function exportQcow2(
  target: BlockTarget,
  sink: FileSink | StreamSink,
  options: CopyOptions = {},
): Promise<CopyReport> {
  if (sink.kind === 'stream' || !sink.isBlank) {
    const message = `${sink.name}: qcow2 is written to a file, not to a pipe or a device`;
    throw new StoreError('invalid', `${message}; export raw there`);
  }
  const { sizeBytes } = target;
  const progress = new Progress(sizeBytes, options);
  const image = new NewImage(sink, sizeBytes, progress);
  await inFlight(PIECES_AT_ONCE, async (flight) => {
    const parts = partsOf(target, options.signal);
    await inOrder(
      PIECES_AT_ONCE,
      parts,
      (part) => image.load(target, part),
      (part) => image.append(flight, part),
    );
    await image.endTable(flight);
  });
  await image.finish();
  return { sizeBytes, writtenBytes: progress.writtenBytes };
}

/** Runs of clusters; data in pieces. */
async function* partsOf(
  target: BlockTarget,
  signal: AbortSignal | undefined,
): AsyncGenerator<ClusterRun> {
  for await (const run of clusterRuns(target, CLUSTER_BYTES, signal)) {
    if (run.kind === 'hole') {
      yield run;
      continue;
    }
    const step = run.kind === 'data' ? PIECE_CLUSTERS : ENTRIES_PER_TABLE;
    for (let first = run.first; first < run.first + run.count; ) {
      signal?.throwIfAborted();
      const end = Math.min(run.first + run.count, (Math.floor(first / step) + 1) * step);
      yield { first, count: end - first, kind: run.kind };
      first = end;
    }
  }
}

interface LoadedRun extends ClusterRun {
  /** Of data: whole clusters, the disk's end filled up with zeros. */
  readonly buffer: Uint8Array | undefined;
}

class NewImage {
  readonly #sink: FileSink;
  readonly #sizeBytes: number;
  readonly #progress: Progress;
  readonly #buffers = new Buffers(PIECE_CLUSTERS * CLUSTER_BYTES);
  readonly #l1: DataView;
  readonly #l1Count: number;
  /** The L2 table under way, and which one it is. */
  #l2: DataView | undefined;
  #l2Index = 0;
  /** First cluster of the file that nothing has yet. */
  #nextCluster: number;

  constructor(sink: FileSink, sizeBytes: number, progress: Progress) {
    this.#sink = sink;
    this.#sizeBytes = sizeBytes;
    this.#progress = progress;
    // One at least: a table of none would leave its cluster without an owner.
    this.#l1Count = Math.max(1, Math.ceil(sizeBytes / (CLUSTER_BYTES * ENTRIES_PER_TABLE)));
    const l1Clusters = Math.ceil((this.#l1Count * 8) / CLUSTER_BYTES);
    this.#l1 = new DataView(new ArrayBuffer(l1Clusters * CLUSTER_BYTES));
    this.#nextCluster = 1 + l1Clusters;
  }

  async load(target: BlockTarget, run: ClusterRun): Promise<LoadedRun> {
    if (run.kind !== 'data') return { ...run, buffer: undefined };
    const buffer = this.#buffers.take();
    const offset = run.first * CLUSTER_BYTES;
    const length = Math.min(run.count * CLUSTER_BYTES, this.#sizeBytes - offset);
    await target.read(offset, buffer.subarray(0, length));
    buffer.fill(0, length);
    return { ...run, buffer };
  }

  /** Gives the run its place in the file; called in the order of the disk. */
  async append(flight: InFlight, run: LoadedRun): Promise<void> {
    const { first, count, kind, buffer } = run;
    const diskBytes = Math.min(count * CLUSTER_BYTES, this.#sizeBytes - first * CLUSTER_BYTES);
    if (kind === 'hole') {
      this.#progress.add(diskBytes, 0);
      return;
    }
    // No run reaches into the next table: from here on clusters are taken without a gap.
    const table = await this.#beginTable(flight, Math.floor(first / ENTRIES_PER_TABLE));
    const hostStart = this.#nextCluster * CLUSTER_BYTES;
    const writes: Uint8Array[] = [];
    let start = 0;
    for (let index = 0; index < count; index++) {
      const entry = (first + index) % ENTRIES_PER_TABLE;
      if (buffer === undefined || isZeroCluster(buffer, index)) {
        setEntry(table, entry, 0, ZERO);
        if (buffer !== undefined && index > start) writes.push(clusters(buffer, start, index));
        start = index + 1;
      } else {
        setEntry(table, entry, this.#nextCluster++ * CLUSTER_BYTES, 0);
      }
    }
    if (buffer === undefined) {
      this.#progress.add(diskBytes, 0);
      return;
    }
    if (count > start) writes.push(clusters(buffer, start, count));
    await flight.begin(async () => {
      let at = hostStart;
      for (const bytes of writes) {
        await this.#sink.write(at, bytes);
        at += bytes.length;
      }
      this.#buffers.give(buffer);
      this.#progress.add(diskBytes, at - hostStart);
    });
  }

  async #beginTable(flight: InFlight, index: number): Promise<DataView> {
    if (this.#l2 !== undefined && index === this.#l2Index) return this.#l2;
    await this.endTable(flight);
    this.#l2 = new DataView(new ArrayBuffer(CLUSTER_BYTES));
    this.#l2Index = index;
    return this.#l2;
  }

  async endTable(flight: InFlight): Promise<void> {
    if (this.#l2 === undefined) return;
    const table = this.#l2;
    this.#l2 = undefined;
    const hostOffset = this.#nextCluster++ * CLUSTER_BYTES;
    setEntry(this.#l1, this.#l2Index, hostOffset, 0);
    await flight.begin(() => this.#sink.write(hostOffset, new Uint8Array(table.buffer)));
  }

  /** Everything but data and L2 tables. */
  async finish(): Promise<void> {
    await this.#sink.write(CLUSTER_BYTES, new Uint8Array(this.#l1.buffer));
    const counts = await this.#writeCounts();
    await this.#sink.setSize(counts.clusters * CLUSTER_BYTES);
    await this.#sink.sync();
    await this.#sink.write(0, this.#header(counts));
    await this.#sink.sync();
  }

  /** Every cluster up to the last one of the counts themselves has count 1. */
  async #writeCounts(): Promise<Counts> {
    const counts = countsFor(this.#nextCluster);
    const blocksAt = (this.#nextCluster + counts.tableClusters) * CLUSTER_BYTES;
    const table = new DataView(new ArrayBuffer(counts.tableClusters * CLUSTER_BYTES));
    const block = new DataView(new ArrayBuffer(CLUSTER_BYTES));
    for (let index = 0; index < counts.blocks; index++) {
      const offset = blocksAt + index * CLUSTER_BYTES;
      setHostOffset(table, index * 8, offset);
      const used = Math.min(COUNTS_PER_BLOCK, counts.clusters - index * COUNTS_PER_BLOCK);
      for (let at = 0; at < COUNTS_PER_BLOCK; at++) block.setUint16(at * 2, at < used ? 1 : 0);
      await this.#sink.write(offset, new Uint8Array(block.buffer));
    }
    await this.#sink.write(counts.tableOffset, new Uint8Array(table.buffer));
    return counts;
  }

  #header(counts: Counts): Uint8Array {
    // Behind the fields: an empty extension, which ends them.
    const view = new DataView(new ArrayBuffer(HEADER_BYTES + 8));
    view.setUint32(0, QCOW2_MAGIC);
    view.setUint32(4, 3);
    view.setUint32(20, CLUSTER_BITS);
    setHostOffset(view, 24, this.#sizeBytes);
    view.setUint32(36, this.#l1Count);
    setHostOffset(view, 40, CLUSTER_BYTES);
    setHostOffset(view, 48, counts.tableOffset);
    view.setUint32(56, counts.tableClusters);
    view.setUint32(96, REFCOUNT_ORDER);
    view.setUint32(100, HEADER_BYTES);
    return new Uint8Array(view.buffer);
  }
}

interface Counts {
  readonly tableOffset: number;
  readonly tableClusters: number;
  readonly blocks: number;
  /** Of the whole file. */
  readonly clusters: number;
}

/** Room for the counts of all clusters, those of the counts among them. */
function countsFor(usedClusters: number): Counts {
  let blocks = 1;
  let tableClusters = 1;
  for (;;) {
    const clusters = usedClusters + blocks + tableClusters;
    const blocksNeeded = Math.ceil(clusters / COUNTS_PER_BLOCK);
    const tableNeeded = Math.ceil(blocksNeeded / ENTRIES_PER_TABLE);
    if (blocksNeeded <= blocks && tableNeeded <= tableClusters) {
      return { tableOffset: usedClusters * CLUSTER_BYTES, tableClusters, blocks, clusters };
    }
    blocks = Math.max(blocks, blocksNeeded);
    tableClusters = Math.max(tableClusters, tableNeeded);
  }
}

/** The clusters [start, end) of the buffer. */
function clusters(buffer: Uint8Array, start: number, end: number): Uint8Array {
  return buffer.subarray(start * CLUSTER_BYTES, end * CLUSTER_BYTES);
}

function isZeroCluster(buffer: Uint8Array, index: number): boolean {
  return isAllZero(buffer.subarray(index * CLUSTER_BYTES, (index + 1) * CLUSTER_BYTES));
}

function setEntry(table: DataView, index: number, hostOffset: number, flag: number): void {
  setHostOffset(table, index * 8, hostOffset);
  if (hostOffset !== 0) table.setUint32(index * 8, table.getUint32(index * 8) | ONCE_HIGH);
  table.setUint32(index * 8 + 4, table.getUint32(index * 8 + 4) | flag);
}

function setHostOffset(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / 2 ** 32));
  view.setUint32(at + 4, value % 2 ** 32);
}
