/**
 * Blocks of an external backing store that a write needs in part. They have no VBN under which the
 * buffer pool would keep them, so the write keeps them itself until it is through.
 */
import type { BufferPool } from '../store/buffer-pool.js';

export class HeldBlocks {
  readonly #pool: BufferPool;
  /** Made when something is held: most writes hold nothing. */
  #buffers: Map<number, number> | undefined;

  constructor(pool: BufferPool) {
    this.#pool = pool;
  }

  put(fbn: number, bytes: Uint8Array): void {
    this.#buffers ??= new Map();
    if (this.#buffers.has(fbn)) return;
    const buffer = this.#pool.take();
    this.#pool.bytes(buffer).set(bytes);
    this.#buffers.set(fbn, buffer);
  }

  /** The buffer, pinned once more; -1 if the block is not held. */
  pin(fbn: number): number {
    const buffer = this.#buffers?.get(fbn) ?? -1;
    if (buffer >= 0) this.#pool.pin(buffer);
    return buffer;
  }

  release(): void {
    // A buffer in no state goes back when nobody has it pinned.
    for (const buffer of this.#buffers?.values() ?? []) this.#pool.unpin(buffer);
    this.#buffers = undefined;
  }
}
