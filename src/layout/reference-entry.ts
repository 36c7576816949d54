/**
 * The reference file: 16 bytes for each VBN that more than one tree names, after a share split.
 *
 *   word 0  count of trees that name the block, 0 (a block with one owner) or at least 2
 *   word 1  0
 *   words 2-3  exclusive-or of their tree ids, low word first
 *
 * The exclusive-or tells, when the count falls to one, which tree is left, without a scan. Entry v
 * stands in block v / 256 of the file, like a field of an indirect block.
 */

export const REFERENCE_ENTRIES_PER_BLOCK = 256;
export const REFERENCE_WORDS = 4;

/** The id that the two words hold. */
export function ownersAt(words: Uint32Array, word: number): number {
  return (words[word + 3] as number) * 0x1_0000_0000 + (words[word + 2] as number);
}

/** Adds or takes away one tree id. */
export function toggleOwner(words: Uint32Array, word: number, treeId: number): void {
  words[word + 2] = ((words[word + 2] as number) ^ (treeId >>> 0)) >>> 0;
  const high = Math.floor(treeId / 0x1_0000_0000);
  words[word + 3] = ((words[word + 3] as number) ^ high) >>> 0;
}
