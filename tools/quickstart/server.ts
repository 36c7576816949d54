/**
 * The story's server: `keiki serve` as a process of its own, on the store in the run's folder.
 *
 * 1. It carries the folder's name in its environment: that tells it from every other server. One
 *    that an earlier run has left is ended; one that is not ours is never touched.
 */
import type { ChildProcess } from 'node:child_process';
import { closeSync, existsSync, openSync, readFileSync, statSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { ApiClient } from '../../src/cli/api-client.js';
import type { Server as ServerInfo, Stats, Vdisk } from '../../src/control/schemas.js';
import type { Folder } from './folder.js';
import type { Keiki } from './keiki.js';

/** A server that is ended may drain for ten seconds, and on a loaded machine take as many more. */
const WAIT_MS = 180_000;
const POLL_MS = 50;
const EXIT_IN_USE = 5;
const MARK = 'KEIKI_QUICKSTART';

export class Server {
  readonly #folder: Folder;
  readonly #keiki: Keiki;
  readonly #args: readonly string[];
  /** Where the store is, and how to reach it. */
  readonly storeArguments: readonly string[];
  #running: Running | undefined;

  /** @param remote  the store's address, and flags to reach it; undefined: a file in the folder */
  constructor(folder: Folder, keiki: Keiki, storeSize: string, remote?: readonly string[]) {
    this.#folder = folder;
    this.#keiki = keiki;
    this.storeArguments = remote ?? [folder.store];
    const kept = ['--nbd-attachments-file', `${folder.store}.attachments`];
    this.#args = [
      'serve',
      ...['--store', ...this.storeArguments, ...(remote === undefined ? [] : kept)],
      ...['--size', storeSize],
      ...['--nbd-socket', folder.socket('nbd.sock'), '--api', folder.socket('api.sock')],
    ];
  }

  get commandLine(): string {
    return this.#keiki.line(this.#args);
  }

  get api(): ApiClient {
    if (this.#running === undefined) throw new Error('the server is not running');
    return this.#running.api;
  }

  uri(name: string): string {
    const path = this.#folder.socket('nbd.sock').split('/').map(encodeURIComponent).join('/');
    return `nbd+unix:///${encodeURIComponent(name)}?socket=${path}`;
  }

  // -- looks, by the API

  async vdisks(): Promise<Vdisk[]> {
    return (await this.api.call('listVdisks', {})).vdisks;
  }

  async find(name: string): Promise<Vdisk | undefined> {
    return (await this.vdisks()).find((vdisk) => vdisk.name === name);
  }

  async show(name: string): Promise<Vdisk> {
    return this.api.call('getVdisk', { params: { name } });
  }

  async stats(): Promise<Stats['store']> {
    return (await this.api.call('getStats', {})).store;
  }

  /** Bytes of the store that are in use, when what was deleted has been given back. */
  async usedBytes(): Promise<number> {
    do {
      await this.api.call('makeConsistencyPoint', {});
    } while ((await this.stats()).background !== null);
    await this.api.call('makeConsistencyPoint', {});
    return (await this.stats()).usedBytes;
  }

  // -- life

  /**
   * Ends what an earlier run has left, so that its files may be touched.
   * @throws {Error} a server that is not ours
   */
  async endEarlier(onWait: () => void): Promise<void> {
    const end = performance.now() + WAIT_MS;
    for (let hasAsked = false; ; ) {
      const found = await this.#probe();
      if (found === undefined) return;
      const { pid } = found;
      if (pid === null || !this.#isOurs(pid)) {
        const who = `a server that no quickstart has started (process ${pid ?? 'unknown'})`;
        throw new Error(`${who} listens on ${this.#folder.socket('api.sock')}: end it first`);
      }
      if (performance.now() > end) throw new Error(`the earlier server, ${pid}, does not end`);
      onWait();
      if (!hasAsked) endProcess(pid, 'SIGTERM');
      hasAsked = true;
      await sleep(POLL_MS);
    }
  }

  /** Starts the server; it listens when this resolves. @returns what it said since */
  async start(onWait: () => void): Promise<string[]> {
    for (const end = performance.now() + WAIT_MS; ; ) {
      const { log } = this.#folder;
      const logStart = existsSync(log) ? statSync(log).size : 0;
      const code = await this.#startOnce();
      const lines = readFileSync(log).subarray(logStart).toString().trim().split('\n');
      if (code === undefined) return lines;
      // Its store may still be that of a server which is ending.
      if (code !== EXIT_IN_USE || performance.now() > end) {
        throw new Error(`the server has ended with ${code}:\n${lines.slice(-5).join('\n')}`);
      }
      onWait();
      await sleep(POLL_MS);
    }
  }

  /** @returns its exit code, if it has ended before it was ready */
  async #startOnce(): Promise<number | undefined> {
    const log = openSync(this.#folder.log, 'a');
    const child = this.#keiki.spawn(this.#args, {
      stdio: ['ignore', 'ignore', log],
      env: { [MARK]: this.#folder.realPath },
    });
    closeSync(log);
    const ended = new Promise<number>((resolve) => {
      child.on('error', () => resolve(1));
      child.on('close', (code) => resolve(code ?? 128));
    });
    for (;;) {
      const code = await Promise.race([ended, sleep(POLL_MS)]);
      if (code !== undefined) return code;
      const found = await this.#probe();
      if (found?.pid !== child.pid) continue;
      this.#running = { child, ended, api: this.#client() };
      return undefined;
    }
  }

  /** Ends it in order: everything is durable, and the store closed. @returns its exit code */
  async stop(): Promise<number> {
    const running = this.#running;
    if (running === undefined) return 0;
    this.#running = undefined;
    running.api.close();
    running.child.kill('SIGTERM');
    return running.ended;
  }

  get processId(): number | undefined {
    return this.#running?.child.pid;
  }

  #client(): ApiClient {
    const address = { kind: 'unix', path: this.#folder.socket('api.sock') } as const;
    return new ApiClient({ address, token: undefined, signal: new AbortController().signal });
  }

  /** Who answers on our socket. */
  async #probe(): Promise<ServerInfo | undefined> {
    if (!existsSync(this.#folder.socket('api.sock'))) return undefined;
    const api = this.#client();
    try {
      return await api.call('getServer', {});
    } catch {
      return undefined;
    } finally {
      api.close();
    }
  }

  #isOurs(pid: number): boolean {
    try {
      const environment = readFileSync(`/proc/${pid}/environ`, 'utf8').split('\0');
      return environment.includes(`${MARK}=${this.#folder.realPath}`);
    } catch {
      return false;
    }
  }
}

interface Running {
  readonly child: ChildProcess;
  readonly ended: Promise<number>;
  readonly api: ApiClient;
}

function endProcess(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(pid, signal);
  } catch {
    // It has ended by itself.
  }
}
