/**
 * The head of a local log: which store it belongs to, and whose ring stands behind it.
 *
 *    0 u32 'KEIK', u32 'LLOG'     8 u32 CRC-32 of bytes 12 .. 4096    12 u32 version, 1
 *   16 uuid of the store         32 u64 generation                  40 u64 blocks of the device
 *   48 uuid of the ring          64 u64 its epoch                   72 uuid of the ring before it
 *
 * It stands twice, in blocks 0 and 1; the ring follows, in groups as in place (log-group.ts), with
 * the ring's uuid instead of the store's. Of two heads the higher generation counts.
 */
import { crc32, isAllZero } from '../base/checksum.js';
import { BLOCK_BYTES } from '../base/units.js';
import { getU64, putU64, viewOf } from './bytes.js';

const MAGIC = 0x4b49_454b; // 'KEIK'
const MAGIC_2 = 0x474f_4c4c; // 'LLOG'
const VERSION = 1;

/** Heads stand in the first blocks; the ring begins here. */
export const LOCAL_HEADS = 2;
/** The uuid of no ring. */
export const NO_RING = new Uint8Array(16);

export interface LocalLogHead {
  readonly store: Uint8Array;
  /** Counts the heads that were written. */
  readonly generation: number;
  readonly deviceBlocks: number;
  /** Of the server that opened the log last; NO_RING: nothing is in it. */
  readonly ring: Uint8Array;
  /** The epoch that this server claimed. */
  readonly epoch: number;
  /** What that server may have had to recover first. */
  readonly ringBefore: Uint8Array;
}

export function encodeLocalLogHead(head: LocalLogHead): Uint8Array {
  const bytes = new Uint8Array(BLOCK_BYTES);
  const view = viewOf(bytes);
  view.setUint32(0, MAGIC, true);
  view.setUint32(4, MAGIC_2, true);
  view.setUint32(12, VERSION, true);
  bytes.set(head.store, 16);
  putU64(view, 32, head.generation);
  putU64(view, 40, head.deviceBlocks);
  bytes.set(head.ring, 48);
  putU64(view, 64, head.epoch);
  bytes.set(head.ringBefore, 72);
  view.setUint32(8, crc32(bytes.subarray(12)), true);
  return bytes;
}

/**
 * 'blank': nothing was ever written there. 'foreign': something else was. 'newer': of a version
 * that this program lacks.
 */
export function decodeLocalLogHead(
  bytes: Uint8Array,
): LocalLogHead | 'blank' | 'foreign' | 'newer' | 'damaged' {
  if (isAllZero(bytes)) return 'blank';
  const view = viewOf(bytes);
  if (view.getUint32(0, true) !== MAGIC || view.getUint32(4, true) !== MAGIC_2) return 'foreign';
  if (view.getUint32(8, true) !== crc32(bytes.subarray(12))) return 'damaged';
  if (view.getUint32(12, true) !== VERSION) return 'newer';
  const head: LocalLogHead = {
    store: bytes.slice(16, 32),
    generation: getU64(view, 32),
    deviceBlocks: getU64(view, 40),
    ring: bytes.slice(48, 64),
    epoch: getU64(view, 64),
    ringBefore: bytes.slice(72, 88),
  };
  const numbers = [head.generation, head.deviceBlocks, head.epoch];
  return numbers.some(Number.isNaN) ? 'damaged' : head;
}
