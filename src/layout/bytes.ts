/**
 * 64-bit fields as numbers. Every number of the format stays below 2^53; a larger one on disk is
 * damage, and reads as NaN, which no range check lets through. One that is written is a bug.
 */
import { invariant } from '../base/invariant.js';

export function getU64(view: DataView, offset: number): number {
  const high = view.getUint32(offset + 4, true);
  if (high >= 0x200000) return Number.NaN;
  return high * 0x1_0000_0000 + view.getUint32(offset, true);
}

export function putU64(view: DataView, offset: number, value: number): void {
  invariant(Number.isSafeInteger(value) && value >= 0, 'a number on disk is in [0, 2^53)');
  view.setUint32(offset, value >>> 0, true);
  view.setUint32(offset + 4, Math.floor(value / 0x1_0000_0000), true);
}

export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** 16 bytes as 32 hexadecimal digits. */
export function toHex(bytes: Uint8Array): string {
  let text = '';
  for (const byte of bytes) text += byte.toString(16).padStart(2, '0');
  return text;
}

/** 32 hexadecimal digits (dashes are skipped) as 16 bytes; undefined if it is not that. */
export function fromHex(text: string): Uint8Array | undefined {
  const digits = text.replaceAll('-', '');
  if (!/^[0-9a-fA-F]{32}$/.test(digits)) return undefined;
  const bytes = new Uint8Array(16);
  for (let index = 0; index < 16; index++) {
    bytes[index] = Number.parseInt(digits.slice(index * 2, index * 2 + 2), 16);
  }
  return bytes;
}
