/** What is wrong with an image, in the words of StoreError: file, offset, what to do next. */
import { StoreError } from '../base/store-error.js';

/** The bytes at this offset of the file cannot be: damage, or somebody's intention. */
export function corruptImage(name: string, at: number, what: string): StoreError {
  const next = 'restore the image from a copy, or see what `qemu-img check` can save';
  return new StoreError('corrupt', `${name}: byte ${at}: ${what}; ${next}`);
}

/** A sound image that this program does not read. */
export function unsupportedImage(name: string, at: number, what: string): StoreError {
  return new StoreError('unsupported', `${name}: byte ${at}: ${what}`);
}

/** The range is not inside the image's disk; undefined if it is. */
export function rangeFault(
  image: { readonly name: string; readonly sizeBytes: number },
  offset: number,
  length: number,
): StoreError | undefined {
  const isRange = Number.isSafeInteger(offset) && Number.isSafeInteger(length);
  if (isRange && offset >= 0 && length >= 0 && offset + length <= image.sizeBytes) return undefined;
  const range = `bytes ${offset} to ${offset + length}`;
  const message = `${image.name}: ${range} are not within the ${image.sizeBytes} bytes of its disk`;
  return new StoreError('invalid', message);
}
