/**
 * The pointer: one field of an indirect block, four little-endian 32-bit words.
 *
 *   word 0   VBN, low 32 bits
 *   word 1   bits 0-23 VBN, high; bits 24-31 flags
 *   word 2   CRC-32 of the block pointed to; 0 for a hole or zero pointer
 *   word 3   spare, 0
 *
 * VBN 0 is a hole (read the backing store), VBN 1 a zero block (zeros, never read through); at an
 * upper level both stand for the whole subtree. An indirect block is 256 such fields.
 *
 * The engine keeps indirect blocks in memory in this very form and so reads fields as native words:
 * the host must be little-endian.
 */
import { invariant } from '../base/invariant.js';

export const POINTER_WORDS = 4;
export const POINTER_BYTES = 16;

export const HOLE_VBN = 0;
export const ZERO_VBN = 1;

/** Put there by a split, not by a client; on an upper field it covers all beneath. Word 1. */
export const FLAG_FILLED = 0x0100_0000;
/**
 * The indirect block may have other names, and so may every one beneath it. Never on a pointer to a
 * data block: of these the reference file tells. Word 1.
 */
export const FLAG_SHARED = 0x0200_0000;
/**
 * In memory only: word 0 is the buffer that holds the block, which has no VBN yet. Word 1.
 * A block with this flag is never written to a medium.
 */
export const FLAG_IN_MEMORY = 0x8000_0000;
const FLAGS_ON_DISK = FLAG_FILLED | FLAG_SHARED;
export const VBN_HIGH_MASK = 0x00ff_ffff;

invariant(
  new Uint8Array(new Uint32Array([1]).buffer)[0] === 1,
  'the host is little-endian: indirect blocks are used in memory as they are on disk',
);

/** VBN of the pointer whose words begin at `word`. */
export function vbnAt(words: Uint32Array, word: number): number {
  const high = (words[word + 1] as number) & VBN_HIGH_MASK;
  return high === 0 ? (words[word] as number) : high * 0x1_0000_0000 + (words[word] as number);
}

/** Writes a pointer to a placed block. `flags` are word-1 flags. */
export function putPointer(
  words: Uint32Array,
  word: number,
  vbn: number,
  crc: number,
  flags: number,
): void {
  words[word] = vbn >>> 0;
  words[word + 1] = (Math.floor(vbn / 0x1_0000_0000) | flags) >>> 0;
  words[word + 2] = crc;
  words[word + 3] = 0;
}

/** Why the pointer cannot stand on disk in a store of this many VBNs; undefined if it can. */
export function pointerFault(words: Uint32Array, word: number, vbnEnd: number): string | undefined {
  const high = words[word + 1] as number;
  if ((high & ~VBN_HIGH_MASK & ~FLAGS_ON_DISK) !== 0) return 'has unknown flags';
  const vbn = vbnAt(words, word);
  if (vbn >= vbnEnd) return `names VBN ${vbn}, beyond the store's ${vbnEnd}`;
  if (vbn <= ZERO_VBN && (words[word + 2] as number) !== 0) return 'has a checksum but no block';
  if (vbn <= ZERO_VBN && (high & FLAG_SHARED) !== 0) return 'is shared but names no block';
  if ((words[word + 3] as number) !== 0) return 'has its spare word set';
  return undefined;
}
