/**
 * The store of the story and its NBD server, in this process: what a kill ends, both at once.
 *
 * 1. The store is open, and so locked, before any other file of the folder is touched: of two runs
 *    in one folder, the second waits.
 */
import { existsSync, mkdirSync, rmSync } from 'node:fs';
import { join, relative } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isStoreError } from '../../src/base/store-error.js';
import { openFileDevice } from '../../src/env/file-device.js';
import type { LogEvent } from '../../src/env/log-sink.js';
import { checkStore } from '../../src/main/check.js';
import { formatStore, openStore } from '../../src/main/open-store.js';
import type { Store, VdiskInfo } from '../../src/main/store.js';
import type { CheckReport } from '../../src/store/check/check-report.js';
import { type NbdServer, serveNbd } from '../../src/target/nbd/listener.js';

/** As long as a whole run may take. */
const WAIT_MS = 120_000;

export class Lab {
  readonly storePath: string;
  readonly #socketPath: string;
  readonly #sizeBytes: number;
  #open: { readonly store: Store; readonly server: NbdServer } | undefined;
  /** What the store said when it was opened. */
  readonly events: LogEvent[] = [];

  constructor(folder: string, sizeBytes: number) {
    mkdirSync(folder, { recursive: true });
    this.storePath = join(folder, 'disks.keiki');
    // The shorter name: that of a socket may have 107 bytes.
    const socketPath = join(folder, 'nbd.sock');
    const shorter = relative(process.cwd(), socketPath);
    this.#socketPath = shorter.length < socketPath.length ? shorter : socketPath;
    this.#sizeBytes = sizeBytes;
  }

  get store(): Store {
    if (this.#open === undefined) throw new Error('the store is not open');
    return this.#open.store;
  }

  uri(name: string): string {
    return `nbd+unix:///${encodeURIComponent(name)}?socket=${this.#socketPath}`;
  }

  /**
   * Opens the store that is there, or makes a new one. Another run that has it (one whose terminal
   * was killed, say, and not itself) is waited for.
   */
  async open(onWait?: () => void): Promise<'new' | 'found' | 'unfinished'> {
    for (const end = performance.now() + WAIT_MS; ; ) {
      try {
        return await this.#openOnce();
      } catch (error) {
        if (!isStoreError(error, 'in-use') || performance.now() > end) throw error;
        onWait?.();
        await sleep(WAIT_MS / 200);
      }
    }
  }

  async #openOnce(): Promise<'new' | 'found' | 'unfinished'> {
    if (!existsSync(this.storePath)) {
      await this.#serve(await this.#create());
      return 'new';
    }
    try {
      await this.#serve(await this.#openStore());
      return 'found';
    } catch (error) {
      if (!isStoreError(error, 'invalid')) throw error;
      // Killed while it was being made: there is nothing in it yet.
      rmSync(this.storePath);
      await this.#serve(await this.#create());
      return 'unfinished';
    }
  }

  async #create(): Promise<Store> {
    const create = { sizeBytes: this.#sizeBytes, preallocate: false };
    const device = await openFileDevice(this.storePath, { create });
    await formatStore({ kind: 'device', device });
    return openStore({ kind: 'device', device });
  }

  #openStore(): Promise<Store> {
    return openStore(this.storePath, { log: (event) => this.events.push(event) });
  }

  async #serve(store: Store): Promise<void> {
    const server = await serveNbd({
      socketPath: this.#socketPath,
      replaceSocketFile: true,
      exports: {
        list: () => store.list().map(({ name }) => name),
        open: (name) => (this.find(name) === undefined ? undefined : store.vdisk(name)),
      },
    });
    this.#open = { store, server };
  }

  find(name: string): VdiskInfo | undefined {
    return this.#open?.store.list().find((info) => info.name === name);
  }

  /** Bytes of the store that are in use, after what is deleted has been given back. */
  async usedBytes(): Promise<number> {
    await this.store.consistencyPoint();
    return this.store.stats().usedBytes;
  }

  /** The offline check; the store must be closed. */
  async check(): Promise<CheckReport> {
    const device = await openFileDevice(this.storePath, { readOnly: true });
    try {
      return await checkStore({ kind: 'device', device });
    } finally {
      await device.close();
    }
  }

  async close(): Promise<void> {
    const open = this.#open;
    this.#open = undefined;
    await open?.server.close();
    await open?.store.close();
  }
}
