/**
 * A vdisk of the server, for the exporters of src/image: its map, and its data as one stream.
 *
 * 1. Reads are asked for in ascending order, as exporters do; each is served from the stream, in
 *    turn, and what the stream does not bring reads as zeros.
 * 2. A stream that is cut off fails the read that waits for it.
 */
import { StoreError } from '../base/store-error.js';
import { GIB, MIB } from '../base/units.js';
import { decodeSparse, type SparsePiece } from '../control/sparse-stream.js';
import type { BlockTarget, Extent } from '../vdisk/block-target.js';
import type { ApiClient, ApiStream } from './api-client.js';
import { extentItems } from './json-items.js';
import { JSON_MEDIA, SPARSE_MEDIA } from './routes.js';

/** So much of the map is asked for at once; more where there is little to say. */
const WINDOW_BYTES_MIN = 256 * MIB;
const WINDOW_BYTES_MAX = 1024 * GIB;
const FEW_EXTENTS = 1000;

export class RemoteTarget implements BlockTarget {
  readonly name: string;
  readonly sizeBytes: number;
  readonly readOnly = true;
  readonly #api: ApiClient;
  #windowBytes = WINDOW_BYTES_MIN;
  #extents: Extent[] = [];
  #stream: ApiStream | undefined;
  #pieces: AsyncIterator<SparsePiece> | undefined;
  /** What the last read has left. */
  #piece: SparsePiece | undefined;
  #lastRead: Promise<void> = Promise.resolve();

  constructor(api: ApiClient, vdisk: { readonly name: string; readonly sizeBytes: number }) {
    this.#api = api;
    this.name = vdisk.name;
    this.sizeBytes = vdisk.sizeBytes;
  }

  read(offset: number, into: Uint8Array): Promise<void> {
    const reading = this.#lastRead.then(() => this.#fill(offset, into));
    this.#lastRead = reading;
    return reading;
  }

  async blockStatus(offset: number, length: number): Promise<Extent[]> {
    const last = this.#extents.at(-1);
    const end = last === undefined ? 0 : last.offset + last.length;
    if (offset >= end) this.#extents = await this.#askMap(offset);
    // Those before are of no use any more.
    while (this.#extents[0] !== undefined && endOf(this.#extents[0]) <= offset) {
      this.#extents.shift();
    }
    const asked = this.#extents.filter((extent) => extent.offset < offset + length);
    return asked.map((extent) => {
      const from = Math.max(offset, extent.offset);
      return { ...extent, offset: from, length: Math.min(offset + length, endOf(extent)) - from };
    });
  }

  /** Takes the rest of the stream, so that the server knows that all of it came. */
  async finish(): Promise<void> {
    await this.#lastRead;
    while (this.#pieces !== undefined && (await this.#next()) !== undefined)
      this.#piece = undefined;
  }

  close(): void {
    this.#stream?.close();
  }

  write(): never {
    throw this.#readOnly();
  }

  trim(): never {
    throw this.#readOnly();
  }

  writeZeroes(): never {
    throw this.#readOnly();
  }

  flush(): Promise<void> {
    return Promise.resolve();
  }

  async #askMap(offset: number): Promise<Extent[]> {
    const length = Math.min(this.#windowBytes, this.sizeBytes - offset);
    const ask = { params: { name: this.name }, query: { offset, length } };
    const stream = await this.#api.stream('mapVdisk', ask, JSON_MEDIA);
    const extents: Extent[] = [];
    for await (const item of extentItems(stream.chunks)) extents.push(item as Extent);
    const isFew = extents.length < FEW_EXTENTS;
    this.#windowBytes = isFew
      ? Math.min(this.#windowBytes * 2, WINDOW_BYTES_MAX)
      : WINDOW_BYTES_MIN;
    if (extents.length > 0) return extents;
    throw new StoreError('invalid', `${this.name} ends before byte ${offset} now: was it resized?`);
  }

  async #fill(offset: number, into: Uint8Array): Promise<void> {
    into.fill(0);
    const end = offset + into.length;
    await this.#open();
    for (;;) {
      const piece = await this.#next();
      if (piece === undefined || piece.offset >= end) return;
      const pieceEnd = piece.offset + (piece.kind === 'data' ? piece.bytes.length : piece.length);
      if (piece.kind === 'data' && pieceEnd > offset) {
        const from = Math.max(offset, piece.offset);
        const some = piece.bytes.subarray(
          from - piece.offset,
          Math.min(end, pieceEnd) - piece.offset,
        );
        into.set(some, from - offset);
      }
      if (pieceEnd > end) return;
      this.#piece = undefined;
    }
  }

  async #open(): Promise<void> {
    if (this.#stream !== undefined) return;
    const ask = { params: { name: this.name }, query: { length: this.sizeBytes } };
    this.#stream = await this.#api.stream('readData', ask, SPARSE_MEDIA);
    this.#pieces = decodeSparse(this.#stream.chunks)[Symbol.asyncIterator]();
  }

  /** The first piece that is not used up; undefined at the end. */
  async #next(): Promise<SparsePiece | undefined> {
    if (this.#piece === undefined) {
      const next = await this.#pieces?.next();
      this.#piece = next === undefined || next.done === true ? undefined : next.value;
    }
    return this.#piece;
  }

  #readOnly(): StoreError {
    return new StoreError('read-only', `${this.name} is only read here`);
  }
}

function endOf({ offset, length }: Extent): number {
  return offset + length;
}
