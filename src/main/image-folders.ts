/**
 * Which files a server opens because a client of its API has named them, or because an image names
 * the one behind it: those in certain folders.
 */
import { realpath } from 'node:fs/promises';
import { resolve, sep } from 'node:path';
import { StoreError } from '../base/store-error.js';
import { openFileForReading } from '../env/file-source.js';
import type { OpenFile } from './image-externals.js';

/** Opens files within these folders only; where links lead counts, not where they stand. */
export function openWithin(folders: readonly string[]): OpenFile {
  return async (path) => {
    const target = await realpath(path).catch(() => undefined);
    for (const folder of folders) {
      const root = await realpath(folder).catch(() => resolve(folder));
      const isWithin = (each: string): boolean =>
        each.startsWith(root.endsWith(sep) ? root : root + sep);
      // What is not there is told only of folders that may be looked into.
      if (target === undefined ? isWithin(resolve(path)) : isWithin(target)) {
        return openFileForReading(target ?? path);
      }
    }
    const next =
      folders.length === 0
        ? 'set images.folders to the folders that it may read images from'
        : `move it into ${folders.join(' or ')}, or add its folder to images.folders`;
    throw new StoreError('invalid', `${path} is not a file that this server may read: ${next}`);
  };
}
