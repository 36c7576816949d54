/** One store that is served by one host, and its clients, until it is deposed, closed or killed. */
import { isStoreError } from '../../src/base/store-error.js';
import { BLOCK_BYTES } from '../../src/base/units.js';
import type { Random } from '../../src/env/random.js';
import type { Store } from '../../src/main/store.js';
import type { Vdisk } from '../../src/vdisk/vdisk.js';
import { Violation } from '../model/violation.js';
import type { MachineClock } from '../world/virtual-clock.js';
import type { ServerView, SharedDisk } from './shared-disk.js';

export const DISK = 'disk';

const CLIENTS = 3;
const PAUSE_MS_MAX = 12;
/** Errors that a client of a server that is no more may meet. */
const ENDINGS = ['fenced', 'closed', 'device'] as const;

export class Server {
  readonly view: ServerView;
  readonly store: Store;
  readonly clock: MachineClock;
  readonly #disk: SharedDisk;
  readonly #vdisk: Vdisk;
  readonly #random: Random;
  readonly #fail: (error: unknown) => void;
  #isLeaving = false;
  /** What its engine said when it stopped. */
  stoppedBy: string | undefined;

  constructor(
    parts: { readonly store: Store; readonly clock: MachineClock; readonly view: ServerView },
    disk: SharedDisk,
    random: Random,
    fail: (error: unknown) => void,
  ) {
    this.store = parts.store;
    this.clock = parts.clock;
    this.view = parts.view;
    this.#disk = disk;
    this.#random = random;
    this.#fail = fail;
    this.#vdisk = parts.store.vdisk(DISK);
  }

  start(): void {
    for (let client = 0; client < CLIENTS; client++) {
      this.#serve(client).catch((error: unknown) => {
        const isEnding = ENDINGS.some((kind) => isStoreError(error, kind));
        if (!isEnding) this.#fail(error);
      });
    }
  }

  /** Closes the store; false if it was deposed before. */
  async close(): Promise<boolean> {
    this.#isLeaving = true;
    try {
      await this.store.close();
      return this.stoppedBy === undefined;
    } catch (error) {
      if (isStoreError(error, 'fenced') || isStoreError(error, 'closed')) return false;
      throw error;
    }
  }

  /** Reads all blocks. @throws {Violation} one holds what it must not */
  async readAll(): Promise<void> {
    for (let block = 0; block < this.#disk.blocks; block++) await this.#read(block);
  }

  /** One client, with blocks of its own. */
  async #serve(client: number): Promise<void> {
    const random = this.#random;
    // All servers are looked at whole when they begin.
    for (let block = client; block < this.#disk.blocks; block += CLIENTS) await this.#read(block);
    let unflushed: number[] = [];
    while (!this.#isLeaving) {
      const block = random.below(Math.floor(this.#disk.blocks / CLIENTS)) * CLIENTS + client;
      const drawn = random.below(10);
      if (drawn < 5) unflushed.push(await this.#write(block));
      else if (drawn < 7) await this.#read(block);
      else {
        const covered = unflushed;
        unflushed = [];
        await this.#vdisk.flush();
        this.#disk.promise(this.view, covered);
      }
      const pauseMs = random.nextFraction() * PAUSE_MS_MAX;
      await new Promise<void>((resolve) => this.clock.setTimer(pauseMs, resolve));
    }
  }

  async #write(block: number): Promise<number> {
    const stamp = this.#disk.write(this.view, block);
    const bytes = Buffer.alloc(BLOCK_BYTES);
    for (let at = 0; at < BLOCK_BYTES; at += 8) bytes.writeDoubleLE(stamp, at);
    await this.#vdisk.write(block * BLOCK_BYTES, bytes);
    this.#disk.wrote(this.view, stamp);
    return stamp;
  }

  async #read(block: number): Promise<void> {
    const bytes = Buffer.alloc(BLOCK_BYTES);
    await this.#vdisk.read(block * BLOCK_BYTES, bytes);
    const stamp = bytes.readDoubleLE(0);
    if (bytes.readDoubleLE(BLOCK_BYTES - 8) !== stamp) {
      throw new Violation(`${this.view.name}: block ${block} is torn`);
    }
    this.#disk.read(this.view, block, stamp, this.clock.nowMs());
  }
}
