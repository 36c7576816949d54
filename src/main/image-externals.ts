/**
 * External backing stores in disk-image files: raw, or qcow2 with the files behind it.
 *
 * 1. A file is used only while it is as its descriptor says: size, time of the last change, and
 *    CRC-32 of both ends. Nobody reads the whole of it: that would be the import that is saved. Who
 *    changes bytes in the middle and sets the time back is not found out.
 * 2. The files are looked at after every read and before its bytes count, so that what a writer
 *    changes under a read is never handed on.
 * 3. The chain is the one that was described: a header that names another file later is refused.
 * 4. Every call tries anew when there was trouble; nothing waits, and no timer runs.
 */
import { resolve } from 'node:path';
import { crc32 } from '../base/checksum.js';
import { invariant } from '../base/invariant.js';
import { isStoreError, StoreError } from '../base/store-error.js';
import { BLOCK_BYTES, KIB } from '../base/units.js';
import { openFileForReading } from '../env/file-source.js';
import type { LogSink } from '../env/log-sink.js';
import type { FileStamp, RandomAccessFile } from '../env/random-access-file.js';
import type { ImageReader } from '../image/image-reader.js';
import { openImage } from '../image/open-image.js';
import type {
  ExternalDescriptor,
  ExternalFile,
  ImageFormat,
} from '../layout/external-descriptor.js';
import {
  type ExternalSource,
  type ExternalStore,
  PIECE_BLOCKS,
  PRESENCE_BYTES,
} from '../vdisk/external-store.js';

/** Bytes of either end of a file that are summed. */
const END_BYTES = 64 * KIB;
/** So often a call begins again because somebody touched a file, and left it as it was. */
const TRIES_MAX = 8;

export type OpenFile = (path: string) => Promise<RandomAccessFile>;

/** @param openFile may refuse a path, for what is not to be read */
export function imageExternals(openFile: OpenFile = openFileForReading): ExternalSource {
  return {
    describe: (path, format) => describeImage(resolve(path), format, openFile),
    open: (descriptor, log) => new ImageStore(descriptor, openFile, log),
  };
}

async function describeImage(
  path: string,
  format: ImageFormat | undefined,
  openFile: OpenFile,
): Promise<ExternalDescriptor> {
  const opened: RandomAccessFile[] = [];
  const open = async (each: string): Promise<RandomAccessFile> => {
    const file = await openFile(each);
    opened.push(file);
    return file;
  };
  const image = await openImage(path, format === undefined ? { open } : { open, format });
  try {
    const files: ExternalFile[] = [];
    for (const file of opened) files.push(await describeFile(file, await file.stamp()));
    return { format: image.format, sizeBytes: image.sizeBytes, files };
  } finally {
    await image.close();
  }
}

async function describeFile(file: RandomAccessFile, stamp: FileStamp): Promise<ExternalFile> {
  const { modifiedNs } = stamp;
  const modified = modifiedNs < 0n ? 0n : modifiedNs;
  return {
    path: file.name,
    sizeBytes: stamp.sizeBytes,
    modifiedSeconds: Number(modified / 1_000_000_000n),
    modifiedNs: Number(modified % 1_000_000_000n),
    headCrc: await sumOf(file, 0),
    tailCrc: await sumOf(file, Math.max(0, file.sizeBytes - END_BYTES)),
  };
}

async function sumOf(file: RandomAccessFile, offset: number): Promise<number> {
  const bytes = new Uint8Array(Math.min(END_BYTES, file.sizeBytes - offset));
  await file.read(offset, bytes);
  return crc32(bytes);
}

/** What of a file is not as it was; undefined if all is. */
export function differenceOf(was: ExternalFile, is: ExternalFile): string | undefined {
  if (is.sizeBytes !== was.sizeBytes) return `it has ${is.sizeBytes} bytes, not ${was.sizeBytes}`;
  if (is.headCrc !== was.headCrc) return 'its first bytes are others';
  return is.tailCrc === was.tailCrc ? undefined : 'its last bytes are others';
}

/** An image whose files were found to be as described. */
class OpenedImage {
  readonly reader: ImageReader;
  readonly #files: readonly RandomAccessFile[];
  readonly #stamps: readonly FileStamp[];
  #running: Promise<boolean> = Promise.resolve(true);
  #next: Promise<boolean> | undefined;

  constructor(
    reader: ImageReader,
    files: readonly RandomAccessFile[],
    stamps: readonly FileStamp[],
  ) {
    this.reader = reader;
    this.#files = files;
    this.#stamps = stamps;
  }

  /** True if nothing touched a file up to now. Who asks at the same time shares one look. */
  isUntouched(): Promise<boolean> {
    this.#next ??= this.#lookNext();
    return this.#next;
  }

  /** A look that began before the question would not see what came in between. */
  async #lookNext(): Promise<boolean> {
    await this.#running.catch(() => undefined);
    this.#next = undefined;
    this.#running = this.#look();
    return this.#running;
  }

  async #look(): Promise<boolean> {
    const now = await Promise.all(this.#files.map((file) => file.stamp()));
    return now.every((stamp, index) => {
      const then = this.#stamps[index] as FileStamp;
      return (
        stamp.sizeBytes === then.sizeBytes &&
        stamp.modifiedNs === then.modifiedNs &&
        stamp.changedNs === then.changedNs
      );
    });
  }
}

class ImageStore implements ExternalStore {
  readonly #descriptor: ExternalDescriptor;
  readonly #openFile: OpenFile;
  readonly #log: LogSink;
  #opening: Promise<OpenedImage> | undefined;
  #trouble: StoreError | undefined;
  #isClosed = false;
  readonly #closing = new Set<Promise<void>>();

  constructor(descriptor: ExternalDescriptor, openFile: OpenFile, log: LogSink) {
    this.#descriptor = descriptor;
    this.#openFile = openFile;
    this.#log = log;
  }

  get #path(): string {
    return this.#descriptor.files[0]?.path ?? '';
  }

  get trouble(): StoreError | undefined {
    return this.#trouble;
  }

  read(fbn: number, into: Uint8Array): Promise<void> {
    const offset = fbn * BLOCK_BYTES;
    const there = Math.max(0, Math.min(into.length, this.#descriptor.sizeBytes - offset));
    return this.#with(async ({ reader }) => {
      await reader.read(offset, into.subarray(0, there));
      into.fill(0, there);
    });
  }

  presence(piece: number): Promise<Uint8Array> {
    const start = piece * PIECE_BLOCKS * BLOCK_BYTES;
    const end = Math.min(start + PIECE_BLOCKS * BLOCK_BYTES, this.#descriptor.sizeBytes);
    return this.#with(async ({ reader }) => {
      const bits = new Uint8Array(PRESENCE_BYTES);
      if (start >= end) return bits;
      for await (const { offset, length, kind } of reader.extents(start, end - start)) {
        if (kind !== 'data') continue;
        const first = Math.floor((offset - start) / BLOCK_BYTES);
        const last = Math.ceil((offset + length - start) / BLOCK_BYTES);
        for (let at = first; at < last; at++) {
          bits[at >>> 3] = (bits[at >>> 3] as number) | (1 << (at & 7));
        }
      }
      return bits;
    });
  }

  async look(): Promise<void> {
    await this.#with(() => Promise.resolve()).catch((error: unknown) => {
      if (!isStoreError(error)) throw error;
    });
  }

  /** Calls with the image, and gives what came of it if no file was touched meanwhile. */
  async #with<T>(call: (image: OpenedImage) => Promise<T>): Promise<T> {
    for (let tries = 1; ; tries++) {
      const opening = this.#opened();
      try {
        const image = await opening;
        const result = await call(image);
        if (await image.isUntouched()) {
          this.#trouble = undefined;
          return result;
        }
        // Somebody changed it, its name or its rights: open it anew and look what it is now.
        this.#letGo(opening);
        if (tries === TRIES_MAX) throw new StoreError('corrupt', `${this.#path} keeps changing`);
      } catch (error) {
        if (tries === TRIES_MAX || !(await this.#mayTryAgain(opening, error))) {
          this.#letGo(opening);
          throw this.#noted(error);
        }
        this.#letGo(opening);
      }
    }
  }

  /** What failed may have been a file that changed under it: then that is what has to be said. */
  async #mayTryAgain(opening: Promise<OpenedImage>, error: unknown): Promise<boolean> {
    if (this.#isClosed || !isStoreError(error)) return false;
    // Another call let go of the image under this one.
    if (error.kind === 'closed') return true;
    const image = await opening.catch(() => undefined);
    if (image === undefined) return false;
    return !(await image.isUntouched().catch(() => false));
  }

  #opened(): Promise<OpenedImage> {
    if (this.#isClosed) {
      return Promise.reject(new StoreError('closed', `${this.#path} is closed`));
    }
    this.#opening ??= this.#open();
    return this.#opening;
  }

  async #open(): Promise<OpenedImage> {
    const { files: expected, format, sizeBytes } = this.#descriptor;
    invariant(format !== 'published', 'what another store has published is no image');
    const files: RandomAccessFile[] = [];
    const open = async (path: string): Promise<RandomAccessFile> => {
      const was = expected[files.length];
      if (was?.path !== path) throw this.#changed(`a file behind it is ${path} now`);
      const file = await this.#openFile(path);
      files.push(file);
      return file;
    };
    const reader = await openImage(this.#path, { open, format });
    try {
      const stamps = await Promise.all(files.map((file) => file.stamp()));
      for (const [index, file] of files.entries()) {
        await this.#compare(expected[index] as ExternalFile, file, stamps[index] as FileStamp);
      }
      if (files.length !== expected.length)
        throw this.#changed('a file behind it is not named now');
      if (reader.sizeBytes !== sizeBytes)
        throw this.#changed(`its disk has ${reader.sizeBytes} bytes`);
      const image = new OpenedImage(reader, files, stamps);
      if (this.#trouble !== undefined) this.#say('info', 'external-back', 'can be read again');
      return image;
    } catch (error) {
      await reader.close();
      throw error;
    }
  }

  async #compare(was: ExternalFile, file: RandomAccessFile, stamp: FileStamp): Promise<void> {
    const is = await describeFile(file, stamp);
    const isTimely = is.modifiedSeconds === was.modifiedSeconds && is.modifiedNs === was.modifiedNs;
    const difference = differenceOf(was, is) ?? (isTimely ? undefined : 'it was written to');
    if (difference !== undefined) throw this.#changed(`${file.name}: ${difference}`);
  }

  #changed(what: string): StoreError {
    const next = 'put it back as it was, or say where such a file is with relocate';
    return new StoreError(
      'corrupt',
      `${this.#path} is not what it was when it became a backing store: ${what}; ${next}`,
    );
  }

  /** Why it cannot be read, in words for who reads a clone of it. */
  #noted(error: unknown): unknown {
    if (!isStoreError(error) || this.#isClosed) return error;
    // A reader of a vdisk must not think that the vdisk is gone.
    const isAway = error.kind === 'not-found' || error.kind === 'invalid';
    const kind = isAway ? 'device' : error.kind;
    const next = isAway ? ': put it back, or say where it is with relocate' : '';
    const message = `${error.message}${next}`;
    const trouble = new StoreError(kind, message, { cause: error });
    if (this.#trouble?.message !== message) {
      this.#say('warn', 'external-trouble', `cannot be read: ${message}`);
    }
    this.#trouble = trouble;
    return trouble;
  }

  #say(level: 'info' | 'warn', event: string, what: string): void {
    const message = `External backing store ${this.#path} ${what}.`;
    this.#log({ level, event, message, fields: { path: this.#path } });
  }

  /** The next call opens the files anew. */
  #letGo(opening: Promise<OpenedImage>): void {
    if (this.#opening !== opening) return;
    this.#opening = undefined;
    const closed = opening
      .then(({ reader }) => reader.close())
      .catch(() => undefined)
      .finally(() => this.#closing.delete(closed));
    this.#closing.add(closed);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    if (this.#opening !== undefined) this.#letGo(this.#opening);
    await Promise.all(this.#closing);
  }
}
