/** Makes a new store file: its size, its space on the host, and its name, all durable. */
import * as fs from 'node:fs';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { StoreError } from '../base/store-error.js';
import { BLOCK_BYTES, MIB } from '../base/units.js';
import { deviceError } from './file-errors.js';

export interface CreateFileOptions {
  /** A multiple of 4096. */
  readonly sizeBytes: number;
  /** Write zeros to the whole file now, so that no write can find its file system full later. */
  readonly preallocate: boolean;
  /** Called while preallocating, after every few MiB. */
  readonly onProgress?: (writtenBytes: number) => void;
}

const PREALLOCATE_BYTES = 4 * MIB;

const openFile = promisify(fs.open);
const closeFile = promisify(fs.close);
const syncFile = promisify(fs.fsync);
const truncateFile = promisify(fs.ftruncate);

/** @throws {StoreError} invalid */
export function checkNewSize(path: string, sizeBytes: number): void {
  if (Number.isSafeInteger(sizeBytes) && sizeBytes > 0 && sizeBytes % BLOCK_BYTES === 0) return;
  const message = `${path}: a file of ${sizeBytes} bytes cannot be made: not a multiple of 4096`;
  throw new StoreError('invalid', message);
}

/** Gives the new, locked file its size and its name, durably. */
export async function fillNewFile(
  main: number,
  path: string,
  create: CreateFileOptions,
): Promise<void> {
  try {
    await truncateFile(main, create.sizeBytes);
    if (create.preallocate) await writeZeros(main, create);
    await syncFile(main);
    // The directory, too: else the file may be gone after a power cut.
    const directory = await openFile(dirname(path), fs.constants.O_RDONLY);
    await syncFile(directory).finally(() => closeFile(directory));
  } catch (error) {
    throw deviceError(path, `create with ${create.sizeBytes} bytes`, error);
  }
}

async function writeZeros(main: number, create: CreateFileOptions): Promise<void> {
  const zeros = new Uint8Array(PREALLOCATE_BYTES);
  const write = promisify(fs.write);
  let done = 0;
  while (done < create.sizeBytes) {
    const length = Math.min(zeros.length, create.sizeBytes - done);
    // A short write is followed by the rest, or by the error that cut it short.
    const { bytesWritten } = await write(main, zeros, 0, length, done);
    done += bytesWritten;
    create.onProgress?.(done);
  }
}
