/**
 * A qcow2 image over its backing image, if it has one.
 *
 * 1. Bytes come from the first image of the chain that has them; beyond the end of the backing
 *    image they are zeros.
 * 2. A read loads what it needs, then maps in one step, so that reads need not know of each other.
 * 3. A walk over the disk (extents) refuses an image that names more data than its file has bytes:
 *    then clusters overlap, and a small file could fill a large vdisk.
 */
import type { RandomAccessFile } from '../env/random-access-file.js';
import { CompressedClusters } from './compressed-clusters.js';
import { corruptImage, rangeFault } from './image-error.js';
import type { ImageExtent, ImageExtentKind, ImageReader } from './image-reader.js';
import { type InFlight, inFlight } from './in-flight.js';
import type { Qcow2Header } from './qcow2-header.js';
import { loadL1 } from './qcow2-l1.js';
import { type Mapping, Qcow2Tables } from './qcow2-tables.js';
import { CacheTable, type SharedCache } from './shared-cache.js';

/** Pieces of one read that are fetched at the same time. */
const PIECES_AT_ONCE = 8;

/** An extent ends here, so that who walks a large table of nothing can be told to stop. */
const RUNS_PER_EXTENT_MAX = 4096;

export class Qcow2Image implements ImageReader {
  readonly format = 'qcow2';
  readonly name: string;
  readonly sizeBytes: number;
  readonly notes: readonly string[];
  readonly #file: RandomAccessFile;
  readonly #tables: Qcow2Tables;
  readonly #compressed: CompressedClusters;
  readonly #backing: ImageReader | undefined;

  /** Use openImage. */
  constructor(
    file: RandomAccessFile,
    header: Qcow2Header,
    tables: Qcow2Tables,
    compressed: CompressedClusters,
    backing: ImageReader | undefined,
  ) {
    this.name = file.name;
    this.sizeBytes = header.sizeBytes;
    this.notes = [...header.notes, ...(backing?.notes ?? [])];
    this.#file = file;
    this.#tables = tables;
    this.#compressed = compressed;
    this.#backing = backing;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    const fault = rangeFault(this, offset, into.length);
    if (fault !== undefined) throw fault;
    if (into.length === 0) return;
    const run = await this.#mapping(offset, into.length);
    // The usual case: one piece.
    if (run.length === into.length) return this.#readRun(run, offset, into);
    await inFlight(PIECES_AT_ONCE, (flight) => this.#readRuns(flight, run, offset, into));
  }

  async #readRuns(
    flight: InFlight,
    first: Mapping,
    offset: number,
    into: Uint8Array,
  ): Promise<void> {
    let done = 0;
    let run = first;
    for (;;) {
      const [at, piece, part] = [offset + done, run, into.subarray(done, done + run.length)];
      await flight.begin(() => this.#readRun(piece, at, part));
      done += run.length;
      if (done === into.length) return;
      run = await this.#mapping(offset + done, into.length - done);
    }
  }

  async #mapping(offset: number, length: number): Promise<Mapping> {
    const slice = this.#tables.slice(offset);
    const loaded = slice instanceof Promise ? await slice : slice;
    return this.#tables.map(loaded, offset, length);
  }

  /** Fills `into`, as long as the run. */
  async #readRun(run: Mapping, offset: number, into: Uint8Array): Promise<void> {
    switch (run.kind) {
      case 'data':
        return this.#file.read(run.hostOffset, into);
      case 'compressed':
        return this.#compressed.read(run, into);
      case 'zero':
        into.fill(0);
        return;
      case 'unallocated': {
        const there = this.#backedBytes(offset, into.length);
        into.fill(0, there);
        if (there > 0) await this.#backing?.read(offset, into.subarray(0, there));
      }
    }
  }

  /** How many of these bytes the backing image has. */
  #backedBytes(offset: number, length: number): number {
    const end = this.#backing?.sizeBytes ?? 0;
    return Math.min(length, Math.max(0, end - offset));
  }

  async *extents(
    offset = 0,
    length: number = this.sizeBytes - offset,
  ): AsyncGenerator<ImageExtent> {
    const fault = rangeFault(this, offset, length);
    if (fault !== undefined) throw fault;
    let last: { offset: number; length: number; kind: ImageExtentKind } | undefined;
    let runs = 0;
    for await (const extent of this.#walk(offset, length, new Map())) {
      if (last?.kind === extent.kind && ++runs < RUNS_PER_EXTENT_MAX) {
        last.length += extent.length;
        continue;
      }
      if (last !== undefined) yield last;
      last = { ...extent };
      runs = 0;
    }
    if (last !== undefined) yield last;
  }

  /** @param named  bytes of data that the walk has found named, by image */
  async *#walk(
    offset: number,
    length: number,
    named: Map<Qcow2Image, number>,
  ): AsyncGenerator<ImageExtent> {
    const end = offset + length;
    for (let at = offset; at < end; ) {
      const run = await this.#mapping(at, end - at);
      if (run.kind === 'unallocated') {
        yield* this.#walkBacking(at, run.length, named);
      } else {
        if (run.kind === 'data') this.#count(run.hostOffset, run.length, named);
        const kind = run.kind === 'zero' ? 'zero' : 'data';
        yield { offset: at, length: run.length, kind };
      }
      at += run.length;
    }
  }

  async *#walkBacking(
    offset: number,
    length: number,
    named: Map<Qcow2Image, number>,
  ): AsyncGenerator<ImageExtent> {
    const there = this.#backedBytes(offset, length);
    if (there > 0 && this.#backing instanceof Qcow2Image) {
      yield* this.#backing.#walk(offset, there, named);
    } else if (there > 0 && this.#backing !== undefined) {
      yield* this.#backing.extents(offset, there);
    }
    if (there < length) yield { offset: offset + there, length: length - there, kind: 'hole' };
  }

  #count(hostOffset: number, length: number, named: Map<Qcow2Image, number>): void {
    const total = (named.get(this) ?? 0) + length;
    if (total > this.#file.sizeBytes) {
      const what = `with it the image names ${total} bytes of data, more than its file has`;
      throw corruptImage(this.name, hostOffset, `${what}: clusters overlap`);
    }
    named.set(this, total);
  }

  async close(): Promise<void> {
    await this.#file.close();
    await this.#backing?.close();
  }
}

/** The image of this file, whose header has been read, over its backing image. */
export async function newQcow2Image(
  file: RandomAccessFile,
  header: Qcow2Header,
  backing: ImageReader | undefined,
  cache: SharedCache,
): Promise<Qcow2Image> {
  const l1 = await loadL1(file, header);
  const tables = new Qcow2Tables(file, header, l1, new CacheTable(cache));
  const clusters = new CompressedClusters(file, header.clusterBytes, new CacheTable(cache));
  return new Qcow2Image(file, header, tables, clusters, backing);
}
