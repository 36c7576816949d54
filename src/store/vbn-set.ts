/**
 * A set of VBNs, kept as one bitmap a segment: 128 bytes for up to 1,024 neighbours. What a
 * consistency point allocates and frees is such a set, so that it goes into the active map word by
 * word.
 */
import { SEGMENT_BLOCKS } from '../base/units.js';

/** 32-bit words that hold one segment's bits. */
export const SEGMENT_WORDS = SEGMENT_BLOCKS / 32;

export class VbnSet {
  readonly #segments = new Map<number, Uint32Array>();
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** Adds the VBN; false if it was there. */
  add(vbn: number): boolean {
    const segment = Math.floor(vbn / SEGMENT_BLOCKS);
    let bits = this.#segments.get(segment);
    if (bits === undefined) {
      bits = new Uint32Array(SEGMENT_WORDS);
      this.#segments.set(segment, bits);
    }
    const index = vbn % SEGMENT_BLOCKS;
    const word = bits[index >>> 5] as number;
    const mask = 1 << (index & 31);
    if ((word & mask) !== 0) return false;
    bits[index >>> 5] = word | mask;
    this.#size++;
    return true;
  }

  has(vbn: number): boolean {
    const bits = this.#segments.get(Math.floor(vbn / SEGMENT_BLOCKS));
    if (bits === undefined) return false;
    const index = vbn % SEGMENT_BLOCKS;
    return ((bits[index >>> 5] as number) & (1 << (index & 31))) !== 0;
  }

  /** Takes the VBN out; false if it was not there. */
  delete(vbn: number): boolean {
    const segment = Math.floor(vbn / SEGMENT_BLOCKS);
    const bits = this.#segments.get(segment);
    if (bits === undefined) return false;
    const index = vbn % SEGMENT_BLOCKS;
    const word = bits[index >>> 5] as number;
    const mask = 1 << (index & 31);
    if ((word & mask) === 0) return false;
    bits[index >>> 5] = word & ~mask;
    this.#size--;
    if (bits[index >>> 5] === 0 && isEmpty(bits)) this.#segments.delete(segment);
    return true;
  }

  addAll(other: VbnSet): void {
    for (const [segment, more] of other.#segments) {
      const bits = this.#segments.get(segment) ?? new Uint32Array(SEGMENT_WORDS);
      this.#segments.set(segment, bits);
      for (let word = 0; word < SEGMENT_WORDS; word++) {
        const before = bits[word] as number;
        const after = (before | (more[word] as number)) >>> 0;
        bits[word] = after;
        this.#size += popcount(after) - popcount(before);
      }
    }
  }

  /** Segments that have a VBN in the set, in no order. */
  segments(): IterableIterator<number> {
    return this.#segments.keys();
  }

  /** The segment's bits, to read only; undefined if it has none. */
  bitsOf(segment: number): Uint32Array | undefined {
    return this.#segments.get(segment);
  }

  /** Every VBN, in order within its segment. */
  *values(): IterableIterator<number> {
    for (const [segment, bits] of this.#segments) {
      const base = segment * SEGMENT_BLOCKS;
      for (let word = 0; word < SEGMENT_WORDS; word++) {
        let rest = bits[word] as number;
        while (rest !== 0) {
          const bit = 31 - Math.clz32(rest & -rest);
          yield base + word * 32 + bit;
          rest &= rest - 1;
        }
      }
    }
  }
}

function isEmpty(bits: Uint32Array): boolean {
  for (let index = 0; index < SEGMENT_WORDS; index++) if (bits[index] !== 0) return false;
  return true;
}

/** Bits set in a 32-bit word. */
export function popcount(word: number): number {
  let bits = word - ((word >>> 1) & 0x5555_5555);
  bits = (bits & 0x3333_3333) + ((bits >>> 2) & 0x3333_3333);
  bits = (bits + (bits >>> 4)) & 0x0f0f_0f0f;
  return Math.imul(bits, 0x0101_0101) >>> 24;
}

/** Bits set in a bitmap. */
export function popcountAll(bits: Uint32Array): number {
  let count = 0;
  for (let index = 0; index < bits.length; index++) count += popcount(bits[index] as number);
  return count;
}
