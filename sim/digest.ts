/** Owns the digest of a run: every event that somebody could observe, in order, in 64 bits. */
import { crc32 } from '../src/base/checksum.js';

const PRIME = 0x0100_0193;

export class Digest {
  /** FNV-1a over what was added, and the same with another start: 64 bits together. */
  #low = 0x811c_9dc5;
  #high = 0x1234_5677;
  events = 0;

  add(event: string, ...numbers: readonly number[]): void {
    this.events++;
    for (let index = 0; index < event.length; index++) this.#mix(event.charCodeAt(index));
    for (const number of numbers) {
      this.#mix(number | 0);
      this.#mix(Math.floor(number / 0x1_0000_0000) | 0);
    }
  }

  addBytes(bytes: Uint8Array): void {
    this.#mix(crc32(bytes));
  }

  toString(): string {
    const hex = (word: number): string => (word >>> 0).toString(16).padStart(8, '0');
    return hex(this.#high) + hex(this.#low);
  }

  #mix(word: number): void {
    this.#low = Math.imul(this.#low ^ word, PRIME);
    this.#high = Math.imul(this.#high ^ ((word << 7) | (word >>> 25)), PRIME);
  }
}
