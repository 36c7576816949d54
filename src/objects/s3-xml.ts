/**
 * The little XML that S3 speaks: lists of keys, errors, settings of a bucket. Elements without
 * attributes are searched by name; nothing is believed of their order.
 *
 * Source: Amazon S3 API Reference: ListObjectsV2, DeleteObjects, "Error responses"
 */
import { StoreError } from '../base/store-error.js';

const ENTITIES: Readonly<Record<string, string>> = {
  amp: '&',
  lt: '<',
  gt: '>',
  quot: '"',
  apos: "'",
};

/** What stands in all elements of this name, elements within them included. */
export function elements(xml: string, name: string): string[] {
  return [...xml.matchAll(new RegExp(`<${name}(?:\\s[^>]*)?>([\\s\\S]*?)</${name}>`, 'g'))].map(
    ([, content]) => content ?? '',
  );
}

/** The text of the first element of this name. */
export function elementText(xml: string, name: string): string | undefined {
  const [content] = elements(xml, name);
  return content === undefined ? undefined : unescapeXml(content);
}

function unescapeXml(text: string): string {
  return text.replaceAll(/&(#x?[0-9a-fA-F]+|[a-z]+);/g, (whole, name: string) => {
    if (name.startsWith('#x')) return toCharacter(Number.parseInt(name.slice(2), 16), whole);
    if (name.startsWith('#')) return toCharacter(Number(name.slice(1)), whole);
    return ENTITIES[name] ?? whole;
  });
}

function toCharacter(code: number, otherwise: string): string {
  return code <= 0x10ffff ? String.fromCodePoint(code) : otherwise;
}

export function escapeXml(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
}

/** Characters that XML 1.0 cannot hold, not even escaped. */
export function isXmlText(text: string): boolean {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return !/[\u0000-\u001f\ufffe\uffff]|\p{Surrogate}/u.test(text);
}

/** @throws {StoreError} device: this is no list */
export function keysOf(xml: string, source: string): string[] {
  if (!xml.includes('<ListBucketResult')) {
    throw new StoreError('device', `${source} answered a LIST with something else`);
  }
  // Keys may hold what XML cannot: we ask for them URL-encoded, and are not always heard.
  const isEncoded = elementText(xml, 'EncodingType') === 'url';
  return elements(xml, 'Contents').map((content) => {
    const key = elementText(content, 'Key') ?? '';
    return isEncoded ? decodeURIComponent(key.replaceAll('+', ' ')) : key;
  });
}
