/**
 * The usage file: 8 bytes for every 1,024 VBNs, a segment in place or a record of the object log.
 *
 *   bytes 0-1  live blocks    byte 2  kind    byte 3  0
 *   bytes 4-7  object log: blocks the record was put with; in place 0
 *
 * Entry s stands in block s / 512 of the file, at byte (s mod 512) x 8. A hole is 512 free entries.
 */

export const USAGE_ENTRY_BYTES = 8;
export const USAGE_ENTRIES_PER_BLOCK = 512;
/** VBNs that one block of the usage file counts: 512 x 1024, 2 GiB of store. */
export const USAGE_BLOCK_VBNS = 512 * 1024;

/** free, data, metadata, second copies of metadata, reserved (fsinfo and log). */
export const SEGMENT_FREE = 0;
export const SEGMENT_DATA = 1;
export const SEGMENT_META = 2;
export const SEGMENT_MIRROR = 3;
export const SEGMENT_RESERVED = 4;

/** live | kind << 16 of the entry, as its first word. */
export function usageLive(word: number): number {
  return word & 0xffff;
}

export function usageKind(word: number): number {
  return (word >>> 16) & 0xff;
}

export function usageWord(live: number, kind: number): number {
  return (live | (kind << 16)) >>> 0;
}
