/**
 * Sizes of the store, each with its arithmetic.
 *
 * A VBN (block number in the store) and an FBN (block number in one tree) are plain numbers below
 * 2^53, as are byte offsets.
 */

export const SECTOR_BYTES = 512;
export const BLOCK_BYTES = 4096;
/** Fields of an indirect block: 4096 / 16. */
export const FIELDS_PER_BLOCK = 256;
/** 4 MiB: the unit the write allocator fills, and the largest record of an object log. */
export const SEGMENT_BLOCKS = 1024;
export const SEGMENT_BYTES = SEGMENT_BLOCKS * BLOCK_BYTES;

export const KIB = 1024;
export const MIB = 1024 * KIB;
export const GIB = 1024 * MIB;
export const TIB = 1024 * GIB;
export const PIB = 1024 * TIB;

/** Largest vdisk: 1 PiB. */
export const VDISK_BYTES_MAX = PIB;
/** Largest store: 4 PiB, what five levels of indirect blocks cover. */
export const STORE_BYTES_MAX = 4 * PIB;
/** Smallest store: eight pairs of segments. */
export const STORE_BYTES_MIN = 64 * MIB;
export const HEIGHT_MAX = 5;

/** Blocks that an indirect block of this level covers: 256^level. Level 0 is a data block. */
export const SPAN_BLOCKS: readonly number[] = [1, 256, 256 ** 2, 256 ** 3, 256 ** 4, 256 ** 5];

/** Number of blocks that hold this many bytes. */
export function toBlocks(bytes: number): number {
  return Math.ceil(bytes / BLOCK_BYTES);
}

/** Smallest height (1..5) of a tree that covers this many bytes. */
export function heightFor(bytes: number): number {
  const blocks = toBlocks(bytes);
  let height = 1;
  let span = FIELDS_PER_BLOCK;
  while (span < blocks) {
    height++;
    span *= FIELDS_PER_BLOCK;
  }
  return height;
}

/** A size as people write it, exact to three digits: 4 KiB, 1.5 GiB. */
export function formatBytes(bytes: number): string {
  const names = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let value = bytes;
  let index = 0;
  while (value >= 1024 && index < names.length - 1) {
    value /= 1024;
    index++;
  }
  const rounded = Number(value.toPrecision(value >= 1000 ? 4 : 3));
  // 1 GiB less a sector is no 1024 MiB.
  if (rounded === 1024 && index < names.length - 1) return `1 ${names[index + 1]}`;
  return `${rounded} ${names[index]}`;
}
