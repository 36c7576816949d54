/**
 * Where bytes come from that are only read: a regular file or block device, at any offset; or a
 * pipe, from its beginning to its end.
 */
import * as fs from 'node:fs';
import type { Readable } from 'node:stream';
import { promisify } from 'node:util';
import { StoreError } from '../base/store-error.js';
import { SECTOR_BYTES } from '../base/units.js';
import { blockDeviceBytes } from './block-device-size.js';
import { deviceError, openError } from './file-errors.js';
import { type ByteRange, dataRanges } from './file-holes.js';
import type { FileStamp, RandomAccessFile } from './random-access-file.js';

/** Bytes in order, as they come. */
export interface ByteStream {
  readonly kind: 'stream';
  readonly name: string;
  readonly chunks: AsyncIterable<Uint8Array>;
  /** Lets go of the pipe, also while a chunk is waited for. */
  close(): void;
}

export interface FileSource {
  readonly kind: 'file';
  readonly file: RandomAccessFile;
}

const STANDARD_INPUT = 0;

const openFile = promisify(fs.open);
const closeFile = promisify(fs.close);

/**
 * Opens what is at the path, or the standard input (0), for reading.
 *
 * @throws {StoreError} not-found, invalid (a directory), device
 */
export async function openSource(from: string | 0): Promise<FileSource | ByteStream> {
  if (from === STANDARD_INPUT) {
    const stat = await promisify(fs.fstat)(STANDARD_INPUT);
    const name = 'the standard input';
    if (!isRandomAccess(stat)) return streamOf(name, process.stdin);
    return { kind: 'file', file: new SourceFile(name, STANDARD_INPUT, stat, await sizeOf(stat)) };
  }
  const stat = await statAt(from);
  if (isRandomAccess(stat)) return { kind: 'file', file: await openFileForReading(from) };
  if (stat.isDirectory()) throw new StoreError('invalid', `${from} is a directory`);
  return streamOf(from, fs.createReadStream(from));
}

/**
 * Opens a regular file or a block device for reading.
 *
 * @throws {StoreError} not-found, invalid (a directory, a pipe), device
 */
export async function openFileForReading(path: string): Promise<RandomAccessFile> {
  // Before the open: that of a pipe waits until somebody writes to it.
  if (!isRandomAccess(await statAt(path))) {
    const message = `${path} is neither a regular file nor a block device`;
    throw new StoreError('invalid', message);
  }
  const descriptor = await openFile(path, fs.constants.O_RDONLY).catch((error: unknown) => {
    throw openError(path, error);
  });
  try {
    const stat = await promisify(fs.fstat)(descriptor);
    return new SourceFile(path, descriptor, stat, await sizeOf(stat));
  } catch (error) {
    await closeFile(descriptor);
    throw deviceError(path, 'open', error);
  }
}

async function statAt(path: string): Promise<fs.Stats> {
  try {
    return await promisify(fs.stat)(path);
  } catch (error) {
    throw openError(path, error);
  }
}

function isRandomAccess(stat: fs.Stats): boolean {
  return stat.isFile() || stat.isBlockDevice();
}

function sizeOf(stat: fs.Stats): Promise<number> {
  return stat.isFile() ? Promise.resolve(stat.size) : blockDeviceBytes(stat);
}

function streamOf(name: string, stream: Readable): ByteStream {
  return { kind: 'stream', name, chunks: chunksOf(name, stream), close: () => stream.destroy() };
}

async function* chunksOf(name: string, stream: Readable): AsyncGenerator<Uint8Array> {
  try {
    for await (const chunk of stream as AsyncIterable<Uint8Array>) yield chunk;
  } catch (error) {
    throw deviceError(name, 'read', error);
  }
}

class SourceFile implements RandomAccessFile {
  readonly name: string;
  readonly sizeBytes: number;
  readonly identity: string;
  readonly #descriptor: number;
  readonly #isFile: boolean;
  readonly #isSparse: boolean;
  #callsUnderWay = 0;
  #whenIdle: (() => void) | undefined;
  #closing: Promise<void> | undefined;

  constructor(name: string, descriptor: number, stat: fs.Stats, sizeBytes: number) {
    this.name = name;
    this.sizeBytes = sizeBytes;
    this.identity = stat.isFile() ? `${stat.dev}:${stat.ino}` : `device ${stat.rdev}`;
    this.#descriptor = descriptor;
    this.#isFile = stat.isFile();
    this.#isSparse = stat.isFile() && stat.blocks * SECTOR_BYTES < stat.size;
  }

  read(offset: number, into: Uint8Array): Promise<void> {
    if (this.#closing !== undefined) {
      return Promise.reject(new StoreError('closed', `${this.name} is closed`));
    }
    if (!(offset >= 0 && offset + into.length <= this.sizeBytes)) {
      const range = `bytes ${offset} to ${offset + into.length}`;
      const message = `${this.name}: ${range} are not all inside its ${this.sizeBytes} bytes`;
      return Promise.reject(new StoreError('invalid', message));
    }
    if (into.length === 0) return Promise.resolve();
    this.#callsUnderWay++;
    return new Promise((resolve, reject) => {
      let done = 0;
      const step = (): void => {
        const [length, at] = [into.length - done, offset + done];
        fs.read(this.#descriptor, into, done, length, at, (cause, count) => {
          if (cause !== null || count === 0) {
            this.#end();
            reject(this.#readError(at, cause));
          } else if ((done += count) < into.length) {
            step();
          } else {
            this.#end();
            resolve();
          }
        });
      };
      step();
    });
  }

  async *dataRanges(offset: number, length: number): AsyncGenerator<ByteRange> {
    const isOpen = this.#closing === undefined;
    if (isOpen && this.#isSparse) yield* dataRanges(this.#descriptor, offset, length);
    else if (length > 0) yield { offset, length };
  }

  stamp(): Promise<FileStamp> {
    const { sizeBytes } = this;
    // The times of a device file tell of nothing that is in the device.
    if (!this.#isFile) return Promise.resolve({ sizeBytes, modifiedNs: 0n, changedNs: 0n });
    return new Promise((resolve, reject) => {
      if (this.#closing !== undefined) {
        reject(new StoreError('closed', `${this.name} is closed`));
        return;
      }
      this.#callsUnderWay++;
      fs.fstat(this.#descriptor, { bigint: true }, (cause, stat) => {
        this.#end();
        if (cause !== null) reject(deviceError(this.name, 'look at', cause));
        else {
          const { size, mtimeNs, ctimeNs } = stat;
          resolve({ sizeBytes: Number(size), modifiedNs: mtimeNs, changedNs: ctimeNs });
        }
      });
    });
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    if (this.#callsUnderWay > 0) {
      await new Promise<void>((resolve) => {
        this.#whenIdle = resolve;
      });
    }
    // The standard input is not ours to close.
    if (this.#descriptor !== STANDARD_INPUT) await closeFile(this.#descriptor);
  }

  #end(): void {
    if (--this.#callsUnderWay === 0) this.#whenIdle?.();
  }

  #readError(at: number, cause: unknown): StoreError {
    if (cause !== null) return deviceError(this.name, `read at byte ${at}`, cause);
    const was = `it had ${this.sizeBytes} bytes when it was opened`;
    return new StoreError('device', `${this.name}: it ends at byte ${at} now, but ${was}`);
  }
}
