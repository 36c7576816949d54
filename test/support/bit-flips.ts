/** All bytes with one bit inverted, or cut short: what a decoder of untrusted bytes must stand. */

/** Calls back with the bytes after each single bit of [from, to) is inverted, one at a time. */
export function eachBitFlip(
  bytes: Uint8Array,
  from: number,
  to: number,
  visit: (flipped: Uint8Array, position: string) => void,
): void {
  for (let at = from; at < to; at++) {
    for (let bit = 0; bit < 8; bit++) {
      bytes[at] = (bytes[at] ?? 0) ^ (1 << bit);
      visit(bytes, `byte ${at}, bit ${bit}`);
      bytes[at] = (bytes[at] ?? 0) ^ (1 << bit);
    }
  }
}

/** Calls back with every proper prefix of the bytes, the empty one first. */
export function eachPrefix(bytes: Uint8Array, visit: (prefix: Uint8Array) => void): void {
  for (let length = 0; length < bytes.length; length++) visit(bytes.slice(0, length));
}
