/**
 * External backing stores in memory, which can go missing, fail a read, and come back. They vouch
 * for their content as files do: by a stamp that changes with it.
 */
import { StoreError } from '../../src/base/store-error.js';
import { BLOCK_BYTES } from '../../src/base/units.js';
import type { ExternalDescriptor } from '../../src/layout/external-descriptor.js';
import {
  type ExternalSource,
  type ExternalStore,
  PIECE_BLOCKS,
  PRESENCE_BYTES,
} from '../../src/vdisk/external-store.js';

/** Of so many blocks of zeros one is said to have data. */
const SAID_TO_HAVE_DATA = 3;
const ZEROS = new Uint8Array(BLOCK_BYTES);

export class SimulatedImage {
  readonly bytes: Uint8Array;
  /** Goes up when somebody writes to it. */
  version = 1;
  isMissing = false;
  /** A store has been asked to take it on, and has answered: from then on it may be in trouble. */
  isTakenOn = false;
  /** So many calls fail from now on. */
  failures = 0;
  calls = 0;
  openCount = 0;

  constructor(bytes: Uint8Array) {
    this.bytes = bytes;
  }

  get sizeBytes(): number {
    return this.bytes.length;
  }

  block(fbn: number): Uint8Array {
    return this.bytes.subarray(fbn * BLOCK_BYTES, (fbn + 1) * BLOCK_BYTES);
  }

  hasData(fbn: number): boolean {
    if (fbn % SAID_TO_HAVE_DATA === 0) return true;
    const block = this.block(fbn);
    return Buffer.compare(block, ZEROS.subarray(0, block.length)) !== 0;
  }
}

export class SimulatedExternals implements ExternalSource {
  readonly images: Map<string, SimulatedImage>;
  readonly #pause: () => Promise<void>;

  /** @param pause  what every call takes */
  constructor(
    pause: () => Promise<void> = () => Promise.resolve(),
    images = new Map<string, SimulatedImage>(),
  ) {
    this.#pause = pause;
    this.images = images;
  }

  add(path: string, bytes: Uint8Array): SimulatedImage {
    const image = new SimulatedImage(bytes);
    this.images.set(path, image);
    return image;
  }

  async describe(path: string): Promise<ExternalDescriptor> {
    await this.#pause();
    const image = this.images.get(path);
    if (image === undefined || image.isMissing) {
      throw new StoreError('not-found', `${path}: there is no such image`);
    }
    const { sizeBytes, version } = image;
    const file = {
      path,
      sizeBytes,
      modifiedSeconds: version,
      modifiedNs: 0,
      headCrc: 0,
      tailCrc: 0,
    };
    return { format: 'raw', sizeBytes, files: [file] };
  }

  open(descriptor: ExternalDescriptor): ExternalStore {
    const path = descriptor.files[0]?.path ?? '';
    const image = this.images.get(path);
    if (image !== undefined) image.openCount++;
    return new SimulatedExternal(path, descriptor, this.images, this.#pause);
  }
}

class SimulatedExternal implements ExternalStore {
  readonly #path: string;
  readonly #descriptor: ExternalDescriptor;
  readonly #images: ReadonlyMap<string, SimulatedImage>;
  readonly #pause: () => Promise<void>;
  trouble: StoreError | undefined;
  #isClosed = false;

  constructor(
    path: string,
    descriptor: ExternalDescriptor,
    images: ReadonlyMap<string, SimulatedImage>,
    pause: () => Promise<void>,
  ) {
    this.#path = path;
    this.#descriptor = descriptor;
    this.#images = images;
    this.#pause = pause;
  }

  async read(fbn: number, into: Uint8Array): Promise<void> {
    const image = await this.#ready();
    const from = fbn * BLOCK_BYTES;
    const there = image.bytes.subarray(from, from + into.length);
    into.fill(0, there.length);
    into.set(there);
  }

  async presence(piece: number): Promise<Uint8Array> {
    const image = await this.#ready();
    const bits = new Uint8Array(PRESENCE_BYTES);
    const first = piece * PIECE_BLOCKS;
    const end = Math.min(PIECE_BLOCKS, Math.ceil(image.sizeBytes / BLOCK_BYTES) - first);
    for (let at = 0; at < end; at++) {
      if (image.hasData(first + at)) bits[at >>> 3] = (bits[at >>> 3] as number) | (1 << (at & 7));
    }
    return bits;
  }

  async look(): Promise<void> {
    await this.#ready().catch(() => undefined);
  }

  async #ready(): Promise<SimulatedImage> {
    await this.#pause();
    const image = this.#images.get(this.#path);
    this.trouble = this.#troubleOf(image);
    if (this.trouble !== undefined) throw this.trouble;
    return image as SimulatedImage;
  }

  #troubleOf(image: SimulatedImage | undefined): StoreError | undefined {
    if (this.#isClosed) return new StoreError('closed', `${this.#path} is closed`);
    if (image === undefined || image.isMissing) {
      return new StoreError('device', `${this.#path} is missing: put it back`);
    }
    image.calls++;
    if (image.failures > 0) {
      image.failures--;
      return new StoreError('device', `${this.#path} cannot be read`);
    }
    if (image.version === this.#descriptor.files[0]?.modifiedSeconds) return undefined;
    return new StoreError('corrupt', `${this.#path} was changed`);
  }

  close(): Promise<void> {
    const image = this.#images.get(this.#path);
    if (image !== undefined && !this.#isClosed) image.openCount--;
    this.#isClosed = true;
    return Promise.resolve();
  }
}
