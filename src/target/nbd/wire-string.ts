/**
 * Codec of the protocol's strings: UTF-8 without NUL, at most 4096 bytes. What a peer sends is
 * checked, never repaired; what we send is cut to fit.
 *
 * Source: proto.md, "Conventions".
 */
import { STRING_BYTES_MAX } from './protocol.js';

const utf8Decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const utf8Encoder = new TextEncoder();

/** A string of the protocol; undefined if these bytes are none. */
export function decodeString(bytes: Uint8Array): string | undefined {
  if (bytes.length > STRING_BYTES_MAX) return undefined;
  try {
    const text = utf8Decoder.decode(bytes);
    return text.includes('\0') ? undefined : text;
  } catch {
    return undefined;
  }
}

/** UTF-8, cut at a character so that it stays within the protocol's limit. */
export function encodeString(text: string): Uint8Array {
  const bytes = new Uint8Array(Math.min(text.length * 3, STRING_BYTES_MAX));
  return bytes.subarray(0, utf8Encoder.encodeInto(text, bytes).written);
}
