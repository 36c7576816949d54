/** Read-only files in memory that count what is asked of them, and a folder of them. */
import { resolve } from 'node:path';
import { StoreError } from '../../src/base/store-error.js';
import type { ByteRange } from '../../src/env/file-holes.js';
import type { FileStamp, RandomAccessFile } from '../../src/env/random-access-file.js';

export class MemoryFile implements RandomAccessFile {
  readonly name: string;
  readonly identity: string;
  readonly bytes: Uint8Array;
  reads = 0;
  bytesRead = 0;
  openCount = 1;
  /** Every read fails from now on. */
  isBroken = false;

  constructor(name: string, bytes: Uint8Array, identity: string = name) {
    this.name = name;
    this.bytes = bytes;
    this.identity = identity;
  }

  get sizeBytes(): number {
    return this.bytes.length;
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    this.reads++;
    this.bytesRead += into.length;
    if (this.openCount === 0) throw new StoreError('closed', `${this.name} is closed`);
    if (this.isBroken) throw new StoreError('device', `${this.name}: read failed`);
    // What real files answer, too: the images check before they ask.
    if (!(offset >= 0 && offset + into.length <= this.bytes.length)) {
      throw new Error(`${this.name}: asked for bytes ${offset} to ${offset + into.length}`);
    }
    into.set(this.bytes.subarray(offset, offset + into.length));
  }

  async *dataRanges(offset: number, length: number): AsyncGenerator<ByteRange> {
    yield { offset, length };
  }

  stamp(): Promise<FileStamp> {
    return Promise.resolve({ sizeBytes: this.sizeBytes, modifiedNs: 0n, changedNs: 0n });
  }

  close(): Promise<void> {
    this.openCount = 0;
    return Promise.resolve();
  }
}

/** Files by path. */
export class MemoryFolder {
  readonly files = new Map<string, Uint8Array>();
  readonly opened: MemoryFile[] = [];

  readonly open = (path: string): Promise<MemoryFile> => {
    const place = resolve('/', path);
    const bytes = this.files.get(place);
    if (bytes === undefined) {
      return Promise.reject(new StoreError('not-found', `${path}: there is no such file`));
    }
    const file = new MemoryFile(place, bytes);
    this.opened.push(file);
    return Promise.resolve(file);
  };

  /** Files that somebody has opened and not closed. */
  get openCount(): number {
    return this.opened.filter(({ openCount }) => openCount > 0).length;
  }
}
