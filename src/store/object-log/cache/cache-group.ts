/**
 * A group of the cache file: 127 slots behind the block that describes them, 512 KiB in all.
 *
 *   block 0        0 magic 'KEIKICG1'   8 uuid of the store   24 u64 sequence of the group
 *                 32 slots, 32 bytes each: u64 VBN (0: empty), u32 CRC-32, 20 bytes 0
 *                 the last 4 bytes of slot 126 are the CRC-32 of all before
 *   blocks 1-127   the bytes of the slots
 *
 * It is written in one piece. What a power cut, or rot, leaves of it shows in a checksum.
 */
import { crc32 } from '../../../base/checksum.js';
import { BLOCK_BYTES } from '../../../base/units.js';
import { getU64, putU64, viewOf } from '../../../layout/bytes.js';

export const GROUP_SLOTS = 127;
const GROUP_BLOCKS = GROUP_SLOTS + 1;
export const GROUP_BYTES = GROUP_BLOCKS * BLOCK_BYTES;

const MAGIC = new TextEncoder().encode('KEIKICG1');
const SLOT_BYTES = 32;
const CRC_AT = BLOCK_BYTES - 4;

export interface GroupSlot {
  readonly vbn: number;
  readonly crc: number;
}

export interface GroupHead {
  readonly sequence: number;
  readonly slots: readonly GroupSlot[];
}

/** Writes the head into the first block of the group's bytes. */
export function encodeGroupHead(head: GroupHead, uuid: Uint8Array, into: Uint8Array): void {
  const block = into.subarray(0, BLOCK_BYTES).fill(0);
  const view = viewOf(block);
  block.set(MAGIC, 0);
  block.set(uuid, 8);
  putU64(view, 24, head.sequence);
  head.slots.forEach(({ vbn, crc }, index) => {
    putU64(view, (index + 1) * SLOT_BYTES, vbn);
    view.setUint32((index + 1) * SLOT_BYTES + 8, crc, true);
  });
  view.setUint32(CRC_AT, crc32(block.subarray(0, CRC_AT)), true);
}

export function hasGroupMagic(block: Uint8Array): boolean {
  return MAGIC.every((byte, index) => block[index] === byte);
}

/** Undefined: damaged, never written, or of another store. */
export function decodeGroupHead(block: Uint8Array, uuid: Uint8Array): GroupHead | undefined {
  const view = viewOf(block);
  if (!hasGroupMagic(block)) return undefined;
  if (view.getUint32(CRC_AT, true) !== crc32(block.subarray(0, CRC_AT))) return undefined;
  if (!uuid.every((byte, index) => block[8 + index] === byte)) return undefined;
  const sequence = getU64(view, 24);
  const slots: GroupSlot[] = [];
  for (let at = SLOT_BYTES; at < BLOCK_BYTES; at += SLOT_BYTES) {
    slots.push({ vbn: getU64(view, at), crc: view.getUint32(at + 8, true) });
  }
  return { sequence, slots };
}
