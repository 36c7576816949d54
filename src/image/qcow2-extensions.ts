/**
 * The header extensions of a qcow2 image. Two of them matter to a reader: the format of the backing
 * file, and the names of features. All others may be skipped, says the document.
 *
 * Source: QEMU, docs/interop/qcow2.txt, "Header extensions".
 */
import { corruptImage, unsupportedImage } from './image-error.js';

const END = 0;
const BACKING_FORMAT = 0xe2792aca;
const FEATURE_NAMES = 0x6803f857;
/** A type, a bit, and 46 bytes of name. */
const FEATURE_NAME_BYTES = 48;
const INCOMPATIBLE = 0;

export interface Extensions {
  readonly backingFormat: string | undefined;
  /** Names of incompatible features, by bit: for messages. */
  readonly featureNames: ReadonlyMap<number, string>;
}

/** @param first the first cluster; the extensions are in [start, end) of it */
export function decodeExtensions(
  name: string,
  first: Uint8Array,
  start: number,
  end: number,
): Extensions {
  const view = new DataView(first.buffer, first.byteOffset, first.byteLength);
  let backingFormat: string | undefined;
  let featureNames: ReadonlyMap<number, string> = new Map();
  let at = start;
  while (at + 8 <= end) {
    const type = view.getUint32(at);
    const length = view.getUint32(at + 4);
    if (type === END) break;
    const data = at + 8;
    if (data + length > end) {
      const what = `header extension ${type.toString(16)} has ${length} bytes`;
      throw corruptImage(name, at, `${what}, beyond the header's end at byte ${end}`);
    }
    if (type === BACKING_FORMAT) {
      backingFormat = decodeText(name, first, data, length, "the backing file's format");
    } else if (type === FEATURE_NAMES) {
      featureNames = decodeFeatureNames(first.subarray(data, data + length));
    }
    at = data + Math.ceil(length / 8) * 8;
  }
  return { backingFormat, featureNames };
}

/** Names come from the image: only what a terminal shows as itself is kept. */
function decodeFeatureNames(table: Uint8Array): ReadonlyMap<number, string> {
  const names = new Map<number, string>();
  for (let at = 0; at + FEATURE_NAME_BYTES <= table.length; at += FEATURE_NAME_BYTES) {
    if (table[at] !== INCOMPATIBLE) continue;
    const text = String.fromCharCode(...table.subarray(at + 2, at + FEATURE_NAME_BYTES));
    names.set(table[at + 1] as number, text.replaceAll(/[^ -~]/g, ''));
  }
  return names;
}

/** A string of the header, as UTF-8. */
export function decodeText(
  name: string,
  bytes: Uint8Array,
  at: number,
  length: number,
  what: string,
): string {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(bytes.subarray(at, at + length));
  } catch {
    throw unsupportedImage(name, at, `${what} is not UTF-8`);
  }
  if (isPrintable(text)) return text;
  throw corruptImage(name, at, `${what} has control characters`);
}

function isPrintable(text: string): boolean {
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index);
    if (code < 0x20 || code === 0x7f) return false;
  }
  return true;
}
