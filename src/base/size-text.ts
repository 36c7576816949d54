/** Sizes as people write them: 512, 4K, 20G, 1.5T, 64MiB. A unit is a power of 1024. */

const UNITS = 'KMGTP';

/** Bytes; undefined if the text is no size, or no whole number of bytes. */
export function parseSize(text: string): number | undefined {
  const match = /^([0-9]{1,16}(?:\.[0-9]{1,6})?)\s*(?:([kmgtp])(?:i?b)?|b)?$/i.exec(text.trim());
  if (match === null) return undefined;
  // "GB" is 10^9 to some and 2^30 to others: it is asked for, not guessed.
  if (/[kmgtp]b$/i.test(text.trim())) return undefined;
  const power = match[2] === undefined ? 0 : UNITS.indexOf(match[2].toUpperCase()) + 1;
  const bytes = Number(match[1]) * 1024 ** power;
  return Number.isSafeInteger(bytes) ? bytes : undefined;
}
