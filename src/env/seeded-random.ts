/**
 * Numbers from a seed, the same on every machine and for ever: simulator runs are replayed by them.
 * Not for secrets.
 *
 * Source: sfc32 of Chris Doty-Humphrey's PractRand 0.94 (three words of chaos and a counter, so
 * that no seed has a short period), state filled by splitmix32 (the finaliser of MurmurHash3).
 */
import { invariant } from '../base/invariant.js';
import type { Random } from './random.js';

const TWO_32 = 2 ** 32;
const TWO_53 = 2 ** 53;

class Sfc32 implements Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  constructor(seed: number) {
    let state = (seed % TWO_32) | 0;
    const next = (): number => {
      state = (state + 0x9e3779b9) | 0;
      let mixed = state ^ (state >>> 16);
      mixed = Math.imul(mixed, 0x85ebca6b);
      mixed ^= mixed >>> 13;
      mixed = Math.imul(mixed, 0xc2b2ae35);
      return mixed ^ (mixed >>> 16);
    };
    this.#a = next();
    // The high bits of a large seed count too.
    state ^= Math.floor(seed / TWO_32) | 0;
    this.#b = next();
    this.#c = next();
    for (let round = 0; round < 15; round++) this.nextU32();
  }

  nextU32(): number {
    const result = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + result) | 0;
    return result >>> 0;
  }

  below(limit: number): number {
    invariant(limit > 0 && limit <= TWO_53, 'a random number is below a limit in (0, 2^53]');
    // Values from the last, incomplete run of `limit` are drawn again: each result is as likely.
    if (limit <= TWO_32) {
      const end = TWO_32 - (TWO_32 % limit);
      for (;;) {
        const drawn = this.nextU32();
        if (drawn < end) return drawn % limit;
      }
    }
    const end = TWO_53 - (TWO_53 % limit);
    for (;;) {
      const drawn = (this.nextU32() >>> 11) * TWO_32 + this.nextU32();
      if (drawn < end) return drawn % limit;
    }
  }

  nextFraction(): number {
    return this.nextU32() / TWO_32;
  }

  chance(probability: number): boolean {
    return this.nextFraction() < probability;
  }

  fill(into: Uint8Array): void {
    const words = into.length >>> 2;
    if (into.byteOffset % 4 === 0) {
      // Little-endian machines only, as the rest of the program.
      const view = new Uint32Array(into.buffer, into.byteOffset, words);
      for (let index = 0; index < words; index++) view[index] = this.nextU32();
    } else {
      for (let index = 0; index < words; index++) {
        const word = this.nextU32();
        for (let byte = 0; byte < 4; byte++) into[index * 4 + byte] = word >>> (8 * byte);
      }
    }
    for (let index = words * 4; index < into.length; index++) into[index] = this.nextU32();
  }
}

/** @param seed an integer in [0, 2^53) */
export function seededRandom(seed: number): Random {
  invariant(Number.isSafeInteger(seed) && seed >= 0, 'a seed is an integer in [0, 2^53)');
  return new Sfc32(seed);
}
