/**
 * Where a store is, as people write it: `disks.keiki` (a file or block device), `dir:PATH` (an
 * object log in a directory), `s3://BUCKET/PREFIX` (an object log in a bucket).
 */
import { crc32 } from '../base/checksum.js';
import { StoreError } from '../base/store-error.js';

export type StoreAddress = { readonly kind: 'file'; readonly path: string } | ObjectAddress;

/** A store that is an object log; its keys stand below the prefix. */
export type ObjectAddress =
  | { readonly kind: 'directory'; readonly path: string; readonly prefix: string }
  | { readonly kind: 's3'; readonly bucket: string; readonly prefix: string };

/** A directory has one store. */
const DIRECTORY_PREFIX = 'store';

/** @throws {StoreError} invalid */
export function parseStoreAddress(text: string): StoreAddress {
  if (text.startsWith('dir:')) {
    const path = text.slice(4);
    if (path === '') throw new StoreError('invalid', `"${text}" names no directory: dir:PATH`);
    return { kind: 'directory', path, prefix: DIRECTORY_PREFIX };
  }
  if (!/^[a-z0-9]+:\/\//.test(text)) return { kind: 'file', path: text };
  const [, bucket = '', name = ''] = /^s3:\/\/([^/]+)\/+(.+?)\/*$/.exec(text) ?? [];
  // What stands in keys, lists, policies and lines of the log without being escaped.
  if (bucket === '' || !/^[A-Za-z0-9._/-]{1,200}$/.test(name) || name.includes('//')) {
    const message = `"${text}" is no address of a store: s3://BUCKET/PREFIX, the prefix of letters`;
    throw new StoreError('invalid', `${message}, digits and . _ - /`);
  }
  return { kind: 's3', bucket, prefix: `${hashOf(name)}/${name}` };
}

/** First in every key, so that S3 can spread stores over its partitions. */
function hashOf(name: string): string {
  return crc32(new TextEncoder().encode(name)).toString(16).padStart(8, '0').slice(0, 4);
}
