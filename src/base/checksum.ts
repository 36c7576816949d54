/**
 * CRC-32 (ISO-HDLC, the one of zlib), kept in every pointer. Its Hamming distance is 4 up to
 * 11 KiB, so every error of up to three bits in a block is seen. Source: Koopman, "32-Bit Cyclic
 * Redundancy Codes for Internet Applications", DSN 2002.
 */
import { crc32 as zlibCrc32 } from 'node:zlib';
import { BLOCK_BYTES } from './units.js';

/** CRC-32 of the bytes, continued from `seed` if given. */
export function crc32(bytes: Uint8Array, seed = 0): number {
  return zlibCrc32(bytes, seed);
}

/** CRC-32 of a block of zeros. */
export const ZERO_BLOCK_CRC = crc32(new Uint8Array(BLOCK_BYTES));

/** True if every byte is zero. `bytes` must start 4-byte aligned and be a multiple of 4 long. */
export function isAllZero(bytes: Uint8Array): boolean {
  const words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 2);
  for (let index = 0; index < words.length; index++) if (words[index] !== 0) return false;
  return true;
}

/** The polynomial of CRC-32, bits reversed: what one bit at the very end changes in the CRC. */
const POLYNOMIAL = 0xedb88320;

/**
 * The one bit whose inversion makes crc32(bytes) equal to `crc`: byte index * 8 + bit (0 is the
 * lowest). Undefined if no single bit does, or if none needs to.
 *
 * A CRC is linear: an inverted bit changes it by a number that depends only on the bit's distance
 * from the end, and one bit further from the end is one shift of the register. No two of these
 * numbers are equal in less than 2^32 - 1 bits, as the polynomial is primitive.
 */
export function findSingleBitError(bytes: Uint8Array, crc: number): number | undefined {
  const change = (crc32(bytes) ^ crc) | 0;
  let changeByBit = POLYNOMIAL | 0;
  // The register takes the lowest bit of a byte first, so the last bit is the highest.
  for (let bit = bytes.length * 8 - 1; bit >= 0; bit--) {
    if (changeByBit === change) return bit;
    changeByBit = (changeByBit & 1) === 0 ? changeByBit >>> 1 : (changeByBit >>> 1) ^ POLYNOMIAL;
    changeByBit |= 0;
  }
  return undefined;
}
