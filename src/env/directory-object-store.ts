/**
 * Owns an object store that is a directory of a file system: for tests, and for shared file systems
 * such as NFS.
 *
 * 1. An object appears under its name whole and durable: it is written beside, synced, and linked.
 *    link(2) fails if the name is there; that makes creating it exclusive, on NFS as well.
 * 2. Before an outcome is told, the directory with the name is synced: 'exists', too, holds for
 *    ever, though the one who created the object may not have come so far.
 * 3. A folder of the directory is a part of keys before a '/'; a file is `<last part>.object`.
 *    Characters that a name cannot hold, and '.' and '%', are percent-encoded.
 *
 * Made for few readers of LIST: each one reads all names below the folder of its prefix.
 */
import * as fs from 'node:fs/promises';
import { dirname, join, resolve } from 'node:path';
import { StoreError } from '../base/store-error.js';
import { joined } from './buffers.js';
import { deviceError, openError } from './file-errors.js';
import { compareKeys } from './object-map.js';
import { AmbiguousPutError, type ObjectStore } from './object-store.js';
import type { Random } from './random.js';

/** As S3 does. */
const LIST_KEYS_MAX = 1000;
const SUFFIX = '.object';
/** Of files that are being written; no key has a part like this. */
const UNFINISHED = '.unfinished';

export interface DirectoryObjectStoreOptions {
  /** A directory that is there. */
  readonly path: string;
  /** Of a seed that no other process has: names of unfinished files. */
  readonly random: Random;
}

export class DirectoryObjectStore implements ObjectStore {
  readonly #path: string;
  readonly #random: Random;
  readonly #durableFolders = new Set<string>();

  constructor({ path, random }: DirectoryObjectStoreOptions) {
    this.#path = resolve(path);
    this.#random = random;
  }

  get name(): string {
    return `dir:${this.#path}`;
  }

  async putNew(key: string, chunks: readonly Uint8Array[]): Promise<'created' | 'exists'> {
    if (key === '') throw new StoreError('invalid', 'an object needs a key');
    const path = this.#pathOf(key);
    const beside = await this.#write(chunks);
    try {
      await this.#makeFolder(dirname(path));
      const outcome = await linkNew(beside, path);
      await syncFolder(dirname(path));
      return outcome;
    } catch (error) {
      // The name may be there, and may be gone after a power cut.
      throw new AmbiguousPutError(`${path}: ${String(error)}`, { cause: error });
    } finally {
      await fs.rm(beside, { force: true });
    }
  }

  async get(key: string, offset = 0, length = Infinity): Promise<Uint8Array | undefined> {
    if (key === '') return undefined;
    const path = this.#pathOf(key);
    let file: fs.FileHandle;
    try {
      file = await fs.open(path, 'r');
    } catch (error) {
      if (isMissing(error)) return undefined;
      throw deviceError(path, 'open', error);
    }
    try {
      const { size } = await file.stat();
      const bytes = new Uint8Array(Math.max(0, Math.min(length, size - offset)));
      let filled = 0;
      while (filled < bytes.length) {
        const left = bytes.length - filled;
        const { bytesRead } = await file.read(bytes, filled, left, offset + filled);
        if (bytesRead === 0) throw new Error(`it ends after ${offset + filled} of ${size} bytes`);
        filled += bytesRead;
      }
      return bytes;
    } catch (error) {
      throw deviceError(path, 'read', error);
    } finally {
      await file.close();
    }
  }

  /** Durable with the next put into the same folder, or later: a name may come back. */
  async delete(keys: readonly string[]): Promise<void> {
    for (const key of keys) {
      const path = this.#pathOf(key);
      try {
        await fs.rm(path, { force: true });
      } catch (error) {
        throw deviceError(path, 'delete', error);
      }
    }
  }

  async list(prefix: string, after?: string): Promise<string[]> {
    const above = prefix.slice(0, prefix.lastIndexOf('/') + 1);
    const keys: string[] = [];
    await this.#collect(above, keys);
    const found = keys.filter((key) => {
      return key.startsWith(prefix) && (after === undefined || compareKeys(key, after) > 0);
    });
    return found.sort(compareKeys).slice(0, LIST_KEYS_MAX);
  }

  /** @param above  '' or a part of keys that ends with '/' */
  async #collect(above: string, keys: string[]): Promise<void> {
    const folder = this.#folderOf(above.split('/').slice(0, -1));
    try {
      for await (const entry of await fs.opendir(folder)) {
        const { name } = entry;
        if (entry.isDirectory()) {
          if (name !== UNFINISHED) await this.#collect(`${above}${decodePart(name)}/`, keys);
        } else if (name.endsWith(SUFFIX)) {
          keys.push(above + decodePart(name.slice(0, -SUFFIX.length)));
        }
      }
    } catch (error) {
      if (!isMissing(error)) throw deviceError(folder, 'list', error);
    }
  }

  #pathOf(key: string): string {
    const parts = key.split('/');
    const last = parts.pop() ?? '';
    return join(this.#folderOf(parts), encodePart(last) + SUFFIX);
  }

  #folderOf(parts: readonly string[]): string {
    // An empty part needs a name, too: one that no other part has.
    return join(this.#path, ...parts.map((part) => (part === '' ? '%' : encodePart(part))));
  }

  /** A durable file with these bytes, under a name of its own. */
  async #write(chunks: readonly Uint8Array[]): Promise<string> {
    const folder = join(this.#path, UNFINISHED);
    const name = [1, 2, 3].map(() => this.#random.nextU32().toString(16).padStart(8, '0')).join('');
    const beside = join(folder, name);
    try {
      await this.#makeFolder(folder);
      const file = await fs.open(beside, 'wx');
      try {
        await file.writeFile(joined(chunks));
        await file.sync();
      } finally {
        await file.close();
      }
      return beside;
    } catch (error) {
      await fs.rm(beside, { force: true });
      throw deviceError(beside, 'write', error);
    }
  }

  async #makeFolder(folder: string): Promise<void> {
    if (this.#durableFolders.has(folder)) return;
    await fs.mkdir(folder, { recursive: true });
    // Its name must be durable, too, and those above it, whoever has just made them.
    for (let at = folder; at !== this.#path; at = dirname(at)) await syncFolder(dirname(at));
    this.#durableFolders.add(folder);
  }
}

/**
 * Opens a directory, which must be there.
 * @throws {StoreError} not-found, invalid (not a directory), device
 */
export async function openDirectory(
  options: DirectoryObjectStoreOptions,
): Promise<DirectoryObjectStore> {
  try {
    if (!(await fs.stat(options.path)).isDirectory()) {
      throw new StoreError('invalid', `${options.path} is not a directory`);
    }
  } catch (error) {
    if (error instanceof StoreError) throw error;
    throw openError(options.path, error);
  }
  return new DirectoryObjectStore(options);
}

async function linkNew(beside: string, path: string): Promise<'created' | 'exists'> {
  try {
    await fs.link(beside, path);
    return 'created';
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error;
    // NFS may have done it, lost the answer and asked again: then our file has two names.
    return (await fs.stat(beside)).nlink > 1 ? 'created' : 'exists';
  }
}

async function syncFolder(path: string): Promise<void> {
  const folder = await fs.open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

function isMissing(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return code === 'ENOENT' || code === 'ENOTDIR';
}

function encodePart(part: string): string {
  return encodeURIComponent(part).replaceAll('.', '%2E');
}

function decodePart(name: string): string {
  return name === '%' ? '' : decodeURIComponent(name);
}
