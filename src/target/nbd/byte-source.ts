/**
 * Owns what a peer has sent and nobody has parsed yet.
 *
 * 1. Bytes are taken in the order they came; how the stream was cut into chunks is never seen.
 * 2. A small item that is cut is copied together; a payload can be had as a view or copied once.
 * 3. Between two runs of a parser at most one small item waits here, copied out of its chunk,
 *    unless the parser is stalled: then whole chunks wait, and the owner has stopped reading.
 */
import { invariant } from '../../base/invariant.js';

/** Largest item that `locate` finds: an option's header has 16 bytes, a request's 28 or 32. */
const ITEM_BYTES_MAX = 32;

const NOTHING = new Uint8Array(0);

export class ByteSource {
  /** Where `locate` found the item. */
  bytes: Uint8Array = NOTHING;
  at = 0;
  /** Chunks after `bytes`. */
  readonly #later: Uint8Array[] = [];
  #laterBytes = 0;

  push(chunk: Uint8Array): void {
    if (chunk.length === 0) return;
    if (this.at === this.bytes.length) {
      this.bytes = chunk;
      this.at = 0;
    } else {
      this.#later.push(chunk);
      this.#laterBytes += chunk.length;
    }
  }

  get availableBytes(): number {
    return this.bytes.length - this.at + this.#laterBytes;
  }

  /** True if the next `length` bytes are there, at `bytes[at]` and on; false if some miss. */
  locate(length: number): boolean {
    if (this.bytes.length - this.at >= length) return true;
    if (this.availableBytes < length) return false;
    invariant(length <= ITEM_BYTES_MAX, 'an item that may be cut is at most 32 bytes');
    this.#gather(length);
    return true;
  }

  /** The next bytes as a view if one chunk has them all; undefined, and nothing taken, else. */
  takeView(length: number): Uint8Array | undefined {
    if (this.bytes.length - this.at < length) return undefined;
    const view = this.bytes.subarray(this.at, this.at + length);
    this.skip(length);
    return view;
  }

  /** Copies to `into[at]` and on, as much as there is and fits; tells how much that was. */
  copy(into: Uint8Array, at: number, length: number): number {
    let copied = 0;
    while (copied < length && this.at < this.bytes.length) {
      const part = Math.min(length - copied, this.bytes.length - this.at);
      into.set(this.bytes.subarray(this.at, this.at + part), at + copied);
      copied += part;
      this.skip(part);
    }
    return copied;
  }

  /** Drops up to `length` bytes; tells how many. */
  skip(length: number): number {
    let skipped = 0;
    for (;;) {
      const part = Math.min(length - skipped, this.bytes.length - this.at);
      this.at += part;
      skipped += part;
      if (this.at < this.bytes.length) return skipped;
      const next = this.#later.shift();
      if (next === undefined) return skipped;
      this.#laterBytes -= next.length;
      this.bytes = next;
      this.at = 0;
    }
  }

  /** The parser has done what it could: of a large chunk only the cut item's bytes are kept. */
  settle(): void {
    const rest = this.bytes.length - this.at;
    if (rest === 0) {
      this.bytes = NOTHING;
      this.at = 0;
    } else if (rest < ITEM_BYTES_MAX && this.bytes.length > ITEM_BYTES_MAX) {
      // Not slice: that of a Buffer is a view.
      this.bytes = new Uint8Array(this.bytes.subarray(this.at));
      this.at = 0;
    }
  }

  /** Makes the next `length` bytes one item, with what follows in its chunk left behind it. */
  #gather(length: number): void {
    const item = new Uint8Array(length);
    let filled = 0;
    while (filled < length) filled += this.copy(item, filled, length - filled);
    if (this.at < this.bytes.length) {
      const rest = this.bytes.subarray(this.at);
      this.#later.unshift(rest);
      this.#laterBytes += rest.length;
    }
    this.bytes = item;
    this.at = 0;
  }
}
