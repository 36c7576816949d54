/** Lists of buffers, as devices and object stores take them. */

/** Bytes of all buffers together. */
export function totalBytes(buffers: readonly Uint8Array[]): number {
  let total = 0;
  for (const buffer of buffers) total += buffer.length;
  return total;
}

/** A copy of all buffers in one, which nobody else holds. */
export function joined(buffers: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(totalBytes(buffers));
  let position = 0;
  for (const buffer of buffers) {
    all.set(buffer, position);
    position += buffer.length;
  }
  return all;
}

/** The buffers without their first `skipBytes` bytes; no bytes are copied. */
export function withoutFirst(buffers: readonly Uint8Array[], skipBytes: number): Uint8Array[] {
  const rest: Uint8Array[] = [];
  let skip = skipBytes;
  for (const buffer of buffers) {
    if (skip < buffer.length) rest.push(skip === 0 ? buffer : buffer.subarray(skip));
    skip = Math.max(0, skip - buffer.length);
  }
  return rest;
}

/** The same bytes in fewer buffers: those that lie one behind the other in memory become one. */
export function joinAdjacent(buffers: readonly Uint8Array[]): readonly Uint8Array[] {
  const runs: Uint8Array[] = [];
  let start = 0;
  let length = 0;
  for (let index = 0; index < buffers.length; index++) {
    const { buffer, byteOffset, byteLength } = buffers[index] as Uint8Array;
    length += byteLength;
    const next = buffers[index + 1];
    if (next?.buffer === buffer && next.byteOffset === byteOffset + byteLength) continue;
    const first = buffers[start] as Uint8Array;
    runs.push(start === index ? first : new Uint8Array(buffer, first.byteOffset, length));
    start = index + 1;
    length = 0;
  }
  return runs;
}

/** Copies as much of the buffers as there is room for, in order; returns what it filled. */
export function gather(buffers: readonly Uint8Array[], into: Buffer): Uint8Array {
  let at = 0;
  for (const buffer of buffers) {
    const left = into.length - at;
    if (left === 0) break;
    into.set(buffer.length <= left ? buffer : buffer.subarray(0, left), at);
    at += Math.min(buffer.length, left);
  }
  return into.subarray(0, at);
}
