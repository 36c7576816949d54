/**
 * Where bytes go that are only written: a new file or a block device, at any offset; or a pipe.
 *
 * 1. A file that was there is not touched before it is locked: a store that is open stays whole.
 * 2. `discard` takes away what was begun: a file that this sink has made.
 */
import * as fs from 'node:fs';
import { promisify } from 'node:util';
import { StoreError } from '../base/store-error.js';
import { blockDeviceBytes } from './block-device-size.js';
import { deviceError, openError } from './file-errors.js';
import { lockFile } from './file-lock.js';

export interface FileSink {
  readonly kind: 'file';
  readonly name: string;
  /** What is not written reads as zeros: a file. False for a block device: it has old bytes. */
  readonly isBlank: boolean;
  /** Of a block device: more do not fit. */
  readonly capacityBytes: number | undefined;
  write(offset: number, from: Uint8Array): Promise<void>;
  /** The file ends there from now on; without effect on a block device. */
  setSize(sizeBytes: number): Promise<void>;
  sync(): Promise<void>;
  close(): Promise<void>;
  /** Instead of close, after a failure: removes the file. */
  discard(): Promise<void>;
}

export interface StreamSink {
  readonly kind: 'stream';
  readonly name: string;
  /** Writes all bytes behind those of the calls before. One call at a time. */
  write(from: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

export interface OpenSinkOptions {
  /** Take the place of a file that is there; without it that is refused. */
  readonly overwrite?: boolean;
}

const STANDARD_OUTPUT = 1;
/** A pipe that somebody made non-blocking is full: how long until it is tried again. */
const FULL_PIPE_MS = 5;

const openFile = promisify(fs.open);
const closeFile = promisify(fs.close);
const statFile = promisify(fs.fstat);
const truncateFile = promisify(fs.ftruncate);

/**
 * Opens a new file, a block device, a pipe, or the standard output (1) for writing.
 *
 * @throws {StoreError} exists (without `overwrite`), in-use, invalid, device
 */
export async function openSink(
  to: string | 1,
  options: OpenSinkOptions = {},
): Promise<FileSink | StreamSink> {
  if (to === STANDARD_OUTPUT) return new PipeSink('the standard output', STANDARD_OUTPUT);
  const stat = await promisify(fs.stat)(to).catch(() => undefined);
  if (stat === undefined) return createFile(to);
  if (stat.isDirectory()) throw new StoreError('invalid', `${to} is a directory`);
  if (stat.isFile() || stat.isBlockDevice()) {
    if (stat.isFile() && options.overwrite !== true) {
      throw new StoreError('exists', `${to} is there already: name another file, or overwrite it`);
    }
    return takeOver(to, stat.isBlockDevice());
  }
  return new PipeSink(to, await openAt(to, fs.constants.O_WRONLY));
}

async function createFile(path: string): Promise<FileSink> {
  const { O_RDWR, O_CREAT, O_EXCL } = fs.constants;
  const descriptor = await openAt(path, O_RDWR | O_CREAT | O_EXCL);
  return new FileDescriptorSink(path, descriptor, undefined);
}

async function takeOver(path: string, isBlockDevice: boolean): Promise<FileSink> {
  const { O_RDWR, O_EXCL } = fs.constants;
  // On a block device O_EXCL keeps out mounts and others that ask for it, too (open(2)).
  const descriptor = await openAt(path, isBlockDevice ? O_RDWR | O_EXCL : O_RDWR);
  try {
    await lockFile(descriptor, path, 'exclusive');
    if (!isBlockDevice) await truncateFile(descriptor, 0);
    const capacity = isBlockDevice ? await blockDeviceBytes(await statFile(descriptor)) : undefined;
    return new FileDescriptorSink(path, descriptor, capacity);
  } catch (error) {
    await closeFile(descriptor);
    throw error instanceof StoreError ? error : deviceError(path, 'open', error);
  }
}

async function openAt(path: string, flags: number): Promise<number> {
  try {
    return await openFile(path, flags, 0o600);
  } catch (error) {
    throw openError(path, error);
  }
}

class FileDescriptorSink implements FileSink {
  readonly kind = 'file';
  readonly name: string;
  readonly isBlank: boolean;
  readonly capacityBytes: number | undefined;
  readonly #descriptor: number;

  constructor(name: string, descriptor: number, capacityBytes: number | undefined) {
    this.name = name;
    this.isBlank = capacityBytes === undefined;
    this.capacityBytes = capacityBytes;
    this.#descriptor = descriptor;
  }

  write(offset: number, from: Uint8Array): Promise<void> {
    return writeAll(this.name, this.#descriptor, from, offset);
  }

  setSize(sizeBytes: number): Promise<void> {
    if (!this.isBlank) return Promise.resolve();
    return this.#try('truncate', truncateFile(this.#descriptor, sizeBytes));
  }

  sync(): Promise<void> {
    return this.#try('sync', promisify(fs.fsync)(this.#descriptor));
  }

  close(): Promise<void> {
    return this.#try('close', closeFile(this.#descriptor));
  }

  async discard(): Promise<void> {
    await this.close();
    if (this.isBlank) await this.#try('remove', promisify(fs.unlink)(this.name));
  }

  async #try(what: string, call: Promise<void>): Promise<void> {
    try {
      await call;
    } catch (error) {
      throw deviceError(this.name, what, error);
    }
  }
}

class PipeSink implements StreamSink {
  readonly kind = 'stream';
  readonly name: string;
  readonly #descriptor: number;

  constructor(name: string, descriptor: number) {
    this.name = name;
    this.#descriptor = descriptor;
  }

  write(from: Uint8Array): Promise<void> {
    return writeAll(this.name, this.#descriptor, from, undefined);
  }

  async close(): Promise<void> {
    // The standard output is not ours to close.
    if (this.#descriptor !== STANDARD_OUTPUT) await closeFile(this.#descriptor);
  }
}

/** Writes all bytes, in as many calls as the system needs. */
function writeAll(
  name: string,
  descriptor: number,
  from: Uint8Array,
  offset: number | undefined,
): Promise<void> {
  if (from.length === 0) return Promise.resolve();
  return new Promise((resolve, reject) => {
    let done = 0;
    const step = (): void => {
      const position = offset === undefined ? undefined : offset + done;
      fs.write(descriptor, from, done, from.length - done, position, (cause, count) => {
        if (cause?.code === 'EAGAIN') {
          setTimeout(step, FULL_PIPE_MS);
        } else if (cause?.code === 'EPIPE') {
          const message = `${name}: whoever was reading from it has ended`;
          reject(new StoreError('device', message, { cause }));
        } else if (cause !== null) {
          reject(
            deviceError(name, position === undefined ? 'write' : `write at ${position}`, cause),
          );
        } else if ((done += count) < from.length) {
          step();
        } else {
          resolve();
        }
      });
    };
    step();
  });
}
