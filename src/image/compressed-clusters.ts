/**
 * Reads compressed clusters: a deflate stream without header that gives one cluster.
 *
 * 1. The bytes of the stream are bounded by its L2 entry (two clusters), what it gives by the
 *    cluster: a stream that gives less or more is damage.
 * 2. What lies behind the stream is another cluster's, and is not looked at.
 */
import { promisify } from 'node:util';
import { constants, type InputType, inflateRaw, type ZlibOptions } from 'node:zlib';
import type { RandomAccessFile } from '../env/random-access-file.js';
import { corruptImage } from './image-error.js';
import type { CompressedMapping } from './qcow2-tables.js';
import type { CacheTable } from './shared-cache.js';

const inflate = promisify<InputType, ZlibOptions, Buffer>(inflateRaw);

export class CompressedClusters {
  readonly #file: RandomAccessFile;
  readonly #clusterBytes: number;
  readonly #cache: CacheTable;

  constructor(file: RandomAccessFile, clusterBytes: number, cache: CacheTable) {
    this.#file = file;
    this.#clusterBytes = clusterBytes;
    this.#cache = cache;
  }

  /** Fills `into`, as long as the run, from where it begins in its cluster. */
  async read(run: CompressedMapping, into: Uint8Array): Promise<void> {
    const { hostOffset, hostBytes, skipBytes } = run;
    const cluster =
      this.#cache.get(hostOffset) ??
      (await this.#cache.load(hostOffset, () => this.#inflate(hostOffset, hostBytes)));
    into.set(cluster.subarray(skipBytes, skipBytes + into.length));
  }

  async #inflate(hostOffset: number, hostBytes: number): Promise<Uint8Array> {
    const stream = new Uint8Array(hostBytes);
    await this.#file.read(hostOffset, stream);
    let cluster: Uint8Array;
    try {
      cluster = await inflate(stream, {
        maxOutputLength: this.#clusterBytes,
        chunkSize: this.#clusterBytes,
        // A stream without an end is whole if it has given a cluster.
        finishFlush: constants.Z_SYNC_FLUSH,
      });
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw corruptImage(this.#file.name, hostOffset, `compressed data: ${reason}`);
    }
    if (cluster.length === this.#clusterBytes) return cluster;
    const what = `compressed data of ${cluster.length} bytes, not ${this.#clusterBytes}`;
    throw corruptImage(this.#file.name, hostOffset, what);
  }
}
