/** Stores in files, as the benches use them. */
import { MIB } from '../../src/base/units.js';
import { openFileDevice } from '../../src/env/file-device.js';
import { type FormatOptions, formatStore } from '../../src/main/open-store.js';

/** A formatted store in a new file. Preallocated: no write changes metadata of the file system. */
export async function makeStoreFile(
  path: string,
  sizeBytes: number,
  options: FormatOptions & { readonly preallocate: boolean },
): Promise<void> {
  const { preallocate, ...format } = options;
  const device = await openFileDevice(path, { create: { sizeBytes, preallocate } });
  await formatStore({ kind: 'device', device }, format);
  // Formatting closes the device; closing again is nothing.
  await device.close();
}

/** Bytes that differ from block to block and do not compress. */
export function noise(sizeBytes: number, seed: number): Buffer {
  const bytes = Buffer.alloc(sizeBytes);
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, sizeBytes / 4);
  let x = seed | 1;
  for (let index = 0; index < words.length; index++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    words[index] = x;
  }
  return bytes;
}

/** A buffer of noise that no two calls of `next` leave equal. */
export class NoisePieces {
  readonly bytes: Buffer;
  #number = 0;

  constructor(sizeBytes = MIB) {
    this.bytes = noise(sizeBytes, 12345);
  }

  next(): Buffer {
    this.#number++;
    for (let at = 0; at < this.bytes.length; at += 4096) {
      this.bytes.writeUInt32LE(this.#number, at);
    }
    return this.bytes;
  }
}
