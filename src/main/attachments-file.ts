/**
 * The file in which attachments outlive the server.
 *
 * 1. It is whole at any moment: written beside its place, made durable, then renamed into it.
 * 2. One process writes it: who has the lock on the store.
 */
import { statSync } from 'node:fs';
import { open, readFile, rename } from 'node:fs/promises';
import { dirname } from 'node:path';
import { StoreError } from '../base/store-error.js';
import type { AttachmentKeeper } from '../control/kept-attachments.js';
import type { Settings } from './settings.js';
import { parseStoreAddress } from './store-address.js';

/** Undefined: nothing outlives the server, as beside a block device there is no place. */
export function attachmentKeeper(settings: Settings): AttachmentKeeper | undefined {
  const given = settings['nbd.attachments-file'];
  if (given !== undefined) return new AttachmentsFile(given);
  const store = settings['store.path'];
  const address = store === undefined ? undefined : parseStoreAddress(store);
  switch (address?.kind) {
    case 'file':
      if (!statSync(address.path).isFile()) return undefined;
      return new AttachmentsFile(`${address.path}.attachments`);
    case 'directory':
      return new AttachmentsFile(`${address.path.replace(/\/+$/, '')}.attachments`);
    case 's3':
    case undefined:
      return undefined;
  }
}

class AttachmentsFile implements AttachmentKeeper {
  readonly name: string;

  constructor(path: string) {
    this.name = path;
  }

  async load(): Promise<string | undefined> {
    try {
      return await readFile(this.name, 'utf8');
    } catch (cause) {
      if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') return undefined;
      throw this.#failed('cannot be read', cause);
    }
  }

  async save(text: string): Promise<void> {
    const beside = `${this.name}.new`;
    try {
      const file = await open(beside, 'w', 0o600);
      try {
        await file.writeFile(text);
        await file.sync();
      } finally {
        await file.close();
      }
      await rename(beside, this.name);
      await syncFolder(dirname(this.name));
    } catch (cause) {
      throw this.#failed('cannot be written', cause);
    }
  }

  #failed(what: string, cause: unknown): StoreError {
    const why = cause instanceof Error ? cause.message : String(cause);
    const message = `the attachments in ${this.name}: the file ${what} (${why})`;
    return new StoreError('device', `${message}; name another with --nbd-attachments-file`, {
      cause,
    });
  }
}

/** So that the new name outlives a power cut. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path, 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
