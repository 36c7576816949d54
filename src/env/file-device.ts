/**
 * Owns a store's regular file or raw block device: its descriptors, its lock, its transfers.
 *
 * 1. Volatile writes and reads go through one descriptor; durable writes through a second one,
 *    opened O_DSYNC, so that they never wait for other dirty data of the file.
 * 2. At most one sync is under way: a sync holds one of libuv's four threads for long. Callers that
 *    arrive meanwhile share the next one, as the one under way may have begun before their writes.
 * 3. After a failed write or sync none is tried again: Linux calls what a failed sync did not
 *    write clean, so a later one would lie. Reads go on.
 * 4. Copies within the file are made by threads of their own (block-copier.ts): they are volatile
 *    writes like any other, and a failed one is a failed write.
 * 5. The lock (file-lock.ts) is taken before anything else is done to the file, and held until all
 *    transfers have ended.
 */
import * as fs from 'node:fs';
import { promisify } from 'node:util';
import { invariant } from '../base/invariant.js';
import { isStoreError, StoreError } from '../base/store-error.js';
import { BLOCK_BYTES } from '../base/units.js';
import { BlockCopier, COPY_BLOCKS_MAX } from './block-copier.js';
import { blockDeviceBytes } from './block-device-size.js';
import { gather, joinAdjacent, totalBytes, withoutFirst } from './buffers.js';
import type { BlockCopies, Device } from './device.js';
import { blocksError, rangeError } from './device-range.js';
import { type CreateFileOptions, checkNewSize, fillNewFile } from './file-create.js';
import { deviceError, openError } from './file-errors.js';
import { lockFile } from './file-lock.js';

export interface OpenFileOptions {
  /** Make a new file; without it the file or block device must be there. */
  readonly create?: CreateFileOptions;
  /** For checkers: takes a shared lock, refuses writes. */
  readonly readOnly?: boolean;
}

/** preadv and pwritev take no more buffers in one call. */
const IOV_MAX = 1024;
/**
 * A call costs the program 1 to 4 µs for each buffer, a copy of one of 4 KiB much less: writes of
 * more buffers than this are copied together, so many bytes at a time.
 */
const GATHER_BUFFERS_MIN = 8;
const GATHER_BYTES = 1024 * 1024;
/** Pieces of memory for that: as many as a consistency point has under way, copies counted. */
const GATHERS_MAX = 8;

const openFile = promisify(fs.open);
const closeFile = promisify(fs.close);
const statFile = promisify(fs.fstat);

/**
 * Opens a regular file or a block device, alone.
 *
 * @throws {StoreError} in-use, not-found, exists (create), read-only, invalid, device
 */
export async function openFileDevice(path: string, options: OpenFileOptions = {}): Promise<Device> {
  const { create, readOnly = false } = options;
  if (create !== undefined && readOnly) {
    throw new StoreError('invalid', `${path}: a new file cannot be opened for reading only`);
  }
  if (create !== undefined) checkNewSize(path, create.sizeBytes);
  const main = await openMain(path, create !== undefined, readOnly);
  const descriptors = [main];
  try {
    await lockFile(main, path, readOnly ? 'shared' : 'exclusive');
    if (create !== undefined) await fillNewFile(main, path, create);
    const sizeBytes = await sizeOf(main, path);
    const durable = readOnly ? undefined : await openDurable(main, path);
    if (durable !== undefined) descriptors.push(durable);
    return new FileDevice(path, sizeBytes, main, durable);
  } catch (error) {
    // A new file that could not be made whole would be in the way of the next attempt. But if
    // somebody else has it locked, it is theirs.
    if (create !== undefined && !isStoreError(error, 'in-use')) await promisify(fs.unlink)(path);
    for (const descriptor of descriptors) await closeFile(descriptor);
    throw error instanceof StoreError ? error : deviceError(path, 'open', error);
  }
}

class FileDevice implements Device {
  readonly name: string;
  readonly sizeBytes: number;
  readonly #main: number;
  /** Undefined if the device is open for reading only. */
  readonly #durable: number | undefined;
  #callsUnderWay = 0;
  #whenIdle: (() => void) | undefined;
  #closing: Promise<void> | undefined;
  #failure: StoreError | undefined;
  /** Memory to copy into that nobody uses, and how many pieces there are. */
  readonly #staging: Buffer[] = [];
  #stagingCount = 0;
  #sync: Promise<void> | undefined;
  #nextSync: Promise<void> | undefined;
  #copier: BlockCopier | undefined;

  constructor(path: string, sizeBytes: number, main: number, durable: number | undefined) {
    this.name = path;
    this.sizeBytes = sizeBytes;
    this.#main = main;
    this.#durable = durable;
  }

  read(offset: number, into: readonly Uint8Array[]): Promise<void> {
    const length = totalBytes(into);
    const refusal = this.#closedError() ?? rangeError(this, offset, length);
    if (refusal !== undefined) return Promise.reject(refusal);
    return this.#transfer('read', this.#main, offset, into, length);
  }

  write(offset: number, from: readonly Uint8Array[]): Promise<void> {
    return this.#write(this.#main, offset, from);
  }

  writeDurable(offset: number, from: readonly Uint8Array[]): Promise<void> {
    return this.#write(this.#durable ?? this.#main, offset, from);
  }

  sync(): Promise<void> {
    const refusal = this.#closedError() ?? this.#writeRefusal();
    if (refusal !== undefined) return Promise.reject(refusal);
    if (this.#sync === undefined) {
      this.#sync = this.#startSync();
      return this.#sync;
    }
    this.#nextSync ??= this.#sync.then(() => {
      this.#nextSync = undefined;
      this.#sync = this.#startSync();
      return this.#sync;
    });
    return this.#nextSync;
  }

  async copyBlocks(copies: BlockCopies): Promise<readonly number[]> {
    const { from, to } = copies;
    invariant(to.length <= COPY_BLOCKS_MAX, 'so much is copied at once');
    if (to.length === 0) return [];
    const refusal = this.#closedError() ?? this.#writeRefusal() ?? blocksError(this, from);
    const error = refusal ?? blocksError(this, to);
    if (error !== undefined) throw error;
    this.#callsUnderWay++;
    try {
      this.#copier ??= new BlockCopier(this.#main);
      return await this.#copier.copy(copies);
    } catch (cause) {
      const first = (to[0] as number) * BLOCK_BYTES;
      this.#failure ??= deviceError(this.name, `copy of ${to.length} to byte ${first}`, cause);
      throw this.#failure;
    } finally {
      this.#end();
    }
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  #write(descriptor: number, offset: number, from: readonly Uint8Array[]): Promise<void> {
    const length = totalBytes(from);
    const refusal = this.#closedError() ?? this.#writeRefusal() ?? rangeError(this, offset, length);
    if (refusal !== undefined) return Promise.reject(refusal);
    return this.#transfer('write', descriptor, offset, from, length);
  }

  /** Reads or writes all bytes, in as many calls as the system needs. */
  #transfer(
    kind: 'read' | 'write',
    descriptor: number,
    offset: number,
    buffers: readonly Uint8Array[],
    length: number,
  ): Promise<void> {
    if (length === 0) return Promise.resolve();
    const call = kind === 'read' ? fs.readv : fs.writev;
    this.#callsUnderWay++;
    return new Promise((resolve, reject) => {
      let rest = joinAdjacent(buffers);
      let done = 0;
      const step = (): void => {
        const gathers = kind === 'write' && rest.length > GATHER_BUFFERS_MIN;
        const staging = gathers ? this.#takeStaging() : undefined;
        const some = staging === undefined ? rest.slice(0, IOV_MAX) : [gather(rest, staging)];
        call(descriptor, some, offset + done, (cause, count) => {
          if (staging !== undefined) this.#staging.push(staging);
          if (cause !== null || count === 0) {
            const error = this.#transferError(kind, offset + done, cause ?? undefined);
            if (kind === 'write') this.#failure ??= error;
            this.#end();
            reject(error);
            return;
          }
          done += count;
          if (done < length) {
            rest = withoutFirst(rest, count);
            step();
            return;
          }
          this.#end();
          resolve();
        });
      };
      step();
    });
  }

  /** Memory to copy into; undefined if all of it is in use. */
  #takeStaging(): Buffer | undefined {
    if (this.#staging.length === 0 && this.#stagingCount < GATHERS_MAX) {
      this.#stagingCount++;
      this.#staging.push(Buffer.allocUnsafeSlow(GATHER_BYTES));
    }
    return this.#staging.pop();
  }

  #startSync(): Promise<void> {
    this.#callsUnderWay++;
    return new Promise((resolve, reject) => {
      fs.fdatasync(this.#main, (cause) => {
        if (cause !== null) this.#failure ??= deviceError(this.name, 'sync', cause);
        // The next one fails with this one: it will not begin (invariant 3).
        if (this.#failure !== undefined) this.#nextSync = undefined;
        if (this.#nextSync === undefined) this.#sync = undefined;
        this.#end();
        // A write that failed meanwhile: its bytes are not there, whatever this sync says.
        if (this.#failure !== undefined) reject(this.#failure);
        else resolve();
      });
    });
  }

  #end(): void {
    this.#callsUnderWay--;
    // A sync that others wait for begins after this one: it is under way, too.
    if (this.#callsUnderWay === 0 && this.#nextSync === undefined) this.#whenIdle?.();
  }

  async #close(): Promise<void> {
    if (this.#callsUnderWay > 0) {
      await new Promise<void>((resolve) => {
        this.#whenIdle = resolve;
      });
    }
    await this.#copier?.close();
    // The lock goes with the main descriptor: last.
    if (this.#durable !== undefined) await closeFile(this.#durable);
    await closeFile(this.#main);
  }

  #closedError(): StoreError | undefined {
    if (this.#closing === undefined) return undefined;
    return new StoreError('closed', `${this.name}: the device is closed`);
  }

  #writeRefusal(): StoreError | undefined {
    if (this.#durable === undefined) {
      return new StoreError('read-only', `${this.name} is open for reading only`);
    }
    if (this.#failure === undefined) return undefined;
    const message = `${this.#failure.message}; nothing is written since then: open it again`;
    return new StoreError('device', message, { cause: this.#failure });
  }

  #transferError(kind: 'read' | 'write', position: number, cause: unknown): StoreError {
    const where = `${kind} at byte ${position}`;
    if (cause !== undefined) return deviceError(this.name, where, cause);
    const size = `it had ${this.sizeBytes} bytes when it was opened`;
    return new StoreError('device', `${this.name}: ${where}: it ends there now, but ${size}`);
  }
}

async function openMain(path: string, isNew: boolean, readOnly: boolean): Promise<number> {
  const { O_RDONLY, O_RDWR, O_CREAT, O_EXCL } = fs.constants;
  try {
    if (isNew) return await openFile(path, O_RDWR | O_CREAT | O_EXCL, 0o600);
    if (readOnly) return await openFile(path, O_RDONLY);
    const isBlockDevice = (await promisify(fs.stat)(path)).isBlockDevice();
    // On a block device O_EXCL keeps out mounts and others that ask for it, too (open(2)).
    return await openFile(path, isBlockDevice ? O_RDWR | O_EXCL : O_RDWR);
  } catch (error) {
    throw openError(path, error);
  }
}

async function openDurable(main: number, path: string): Promise<number> {
  const descriptor = await openFile(path, fs.constants.O_RDWR | fs.constants.O_DSYNC);
  const [ours, other] = [await statFile(main), await statFile(descriptor)];
  if (ours.ino === other.ino && ours.dev === other.dev) return descriptor;
  await closeFile(descriptor);
  throw new StoreError('device', `${path} was replaced by another file while it was opened`);
}

async function sizeOf(descriptor: number, path: string): Promise<number> {
  const stat = await statFile(descriptor);
  if (stat.isFile()) return stat.size - (stat.size % BLOCK_BYTES);
  if (!stat.isBlockDevice()) {
    throw new StoreError('invalid', `${path} is neither a regular file nor a block device`);
  }
  const sizeBytes = await blockDeviceBytes(stat);
  return sizeBytes - (sizeBytes % BLOCK_BYTES);
}
