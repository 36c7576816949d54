/**
 * Owns a large array of bytes of which only the touched chunks take memory.
 *
 * 1. What was never written reads as zeros.
 * 2. `clone` copies no bytes: a chunk is shared until one side writes to it (copy on write).
 * 3. Offsets are not checked: the device above does that.
 */

interface Chunk {
  readonly bytes: Uint8Array;
  /** Who may write to it: a chunk of another owner is copied first. */
  readonly owner: object;
}

export class SparseBytes {
  readonly #chunkBytes: number;
  readonly #chunks: Map<number, Chunk>;
  #owner: object = {};

  /** @param chunkBytes what one touched byte costs; a power of two */
  constructor(chunkBytes: number, chunks: ReadonlyMap<number, Chunk> = new Map()) {
    this.#chunkBytes = chunkBytes;
    this.#chunks = new Map(chunks);
  }

  /** Bytes of memory that the touched chunks take, shared ones counted in full. */
  get residentBytes(): number {
    return this.#chunks.size * this.#chunkBytes;
  }

  /** Fills `into` from `offset`. */
  read(offset: number, into: Uint8Array): void {
    let done = 0;
    while (done < into.length) {
      const index = Math.floor((offset + done) / this.#chunkBytes);
      const start = offset + done - index * this.#chunkBytes;
      const length = Math.min(this.#chunkBytes - start, into.length - done);
      const chunk = this.#chunks.get(index);
      if (chunk === undefined) into.fill(0, done, done + length);
      else into.set(chunk.bytes.subarray(start, start + length), done);
      done += length;
    }
  }

  /** Copies `from` to `offset`. */
  write(offset: number, from: Uint8Array): void {
    let done = 0;
    while (done < from.length) {
      const index = Math.floor((offset + done) / this.#chunkBytes);
      const start = offset + done - index * this.#chunkBytes;
      const length = Math.min(this.#chunkBytes - start, from.length - done);
      const whole = done === 0 && length === from.length;
      this.#writable(index).set(whole ? from : from.subarray(done, done + length), start);
      done += length;
    }
  }

  /** Inverts one bit. */
  flipBit(offset: number, bit: number): void {
    const index = Math.floor(offset / this.#chunkBytes);
    const bytes = this.#writable(index);
    const start = offset - index * this.#chunkBytes;
    bytes[start] = (bytes[start] ?? 0) ^ (1 << bit);
  }

  /** An independent array of the same content, in O(chunks). */
  clone(): SparseBytes {
    // From here on both sides are strangers to the shared chunks.
    this.#owner = {};
    return new SparseBytes(this.#chunkBytes, this.#chunks);
  }

  #writable(index: number): Uint8Array {
    const chunk = this.#chunks.get(index);
    if (chunk !== undefined && chunk.owner === this.#owner) return chunk.bytes;
    const bytes =
      chunk === undefined ? new Uint8Array(this.#chunkBytes) : new Uint8Array(chunk.bytes);
    this.#chunks.set(index, { bytes, owner: this.#owner });
    return bytes;
  }
}
