/** The servers that are compared, each a process of its own with a unix socket. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { runCommand } from '../harness/scratch.js';

/** Clients and servers of others live where a user's PATH may not look. */
const PATH = `/usr/sbin:/usr/bin:/sbin:/bin:${process.env.PATH ?? ''}`;
const START_MS = 120_000;
const POLL_MS = 50;

const started: ChildProcess[] = [];
process.on('exit', () => {
  for (const server of started) server.kill('SIGKILL');
});

/** A server under way; ends with the bench. */
export class ServerProcess {
  readonly #process: ChildProcess;
  #log = '';

  /** Resolves when something can connect to `socketPath`. */
  static async start(
    program: string,
    words: readonly string[],
    socketPath: string,
    environment: Readonly<Record<string, string>> = {},
  ): Promise<ServerProcess> {
    const server = new ServerProcess(program, words, environment);
    const attempts = START_MS / POLL_MS;
    for (let attempt = 0; !existsSync(socketPath); attempt++) {
      if (attempt === attempts || !server.isRunning) {
        throw new Error(`${program} does not listen on ${socketPath}: ${server.#log}`);
      }
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    }
    return server;
  }

  private constructor(
    program: string,
    words: readonly string[],
    environment: Readonly<Record<string, string>>,
  ) {
    const env = { ...process.env, PATH, ...environment };
    this.#process = spawn(program, words, { env, stdio: ['ignore', 'ignore', 'pipe'] });
    this.#process.stderr?.on('data', (chunk: Buffer) => {
      this.#log += chunk.toString();
    });
    started.push(this.#process);
    this.#process.on('error', (error) => {
      this.#log += error.message;
    });
  }

  get isRunning(): boolean {
    return this.#process.exitCode === null && this.#process.pid !== undefined;
  }

  /** Bytes that it has asked the system for so far. */
  get readBytes(): number {
    const io = readFileSync(`/proc/${this.#process.pid}/io`, 'utf8');
    return Number(/^rchar: (\d+)$/m.exec(io)?.[1] ?? Number.NaN);
  }

  /** Resident memory now, without files that it shares with others. */
  get residentBytes(): number {
    const status = readFileSync(`/proc/${this.#process.pid}/status`, 'utf8');
    return Number(/^RssAnon:\s+(\d+) kB$/m.exec(status)?.[1] ?? Number.NaN) * 1024;
  }

  async stop(): Promise<void> {
    if (!this.isRunning) return;
    const ended = new Promise((resolve) => this.#process.on('exit', resolve));
    this.#process.kill('SIGTERM');
    await ended;
  }
}

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

const TSC = `${ROOT}node_modules/typescript/bin/tsc`;

/** A build of the sources: a folder with dist/ in it. */
export interface ServerBuild {
  readonly folder: string;
  remove(): void;
}

/**
 * Builds the sources as they are into a folder of its own, so that neither an old build nor the
 * compiler of the sources is measured. KEIKI_BENCH_BUILD measures another one: before and after.
 */
export function buildServer(): ServerBuild {
  const other = process.env.KEIKI_BENCH_BUILD;
  if (other !== undefined) return { folder: other, remove: () => undefined };
  mkdirSync(`${ROOT}tmp`, { recursive: true });
  const folder = mkdtempSync(`${ROOT}tmp/bench-build-`);
  cpSync(`${ROOT}package.json`, `${folder}/package.json`);
  const words = ['--noCheck', '--declaration', 'false', '--outDir', `${folder}/dist`];
  runCommand(process.execPath, [TSC, '-p', `${ROOT}tsconfig.build.json`, ...words]);
  return { folder, remove: () => rmSync(folder, { recursive: true, force: true }) };
}

/** Where a server's store is, if it is not a file in its folder. */
export interface StorePlace {
  readonly store: string;
  readonly environment: Readonly<Record<string, string>>;
}

/** `keiki serve` on a store file of its own, or at another place, and its command line. */
export class KeikiServer {
  readonly socketPath: string;
  readonly #folder: string;
  readonly #program: string;
  readonly #place: StorePlace;

  /** @param build  what `buildServer` made */
  constructor(folder: string, build: ServerBuild, place?: StorePlace) {
    this.#folder = folder;
    this.#program = `${build.folder}/dist/cli/main.js`;
    this.#place = place ?? { store: `${folder}/store`, environment: {} };
    this.socketPath = `${folder}/keiki.sock`;
  }

  async start(storeBytes: number, words: readonly string[] = []): Promise<ServerProcess> {
    const store = ['--store', this.#place.store, '--size', String(storeBytes)];
    const sockets = ['--nbd-socket', this.socketPath, '--api', this.apiPath];
    const args = ['serve', ...store, ...sockets, ...words];
    // A profile of the server: KEIKI_BENCH_SERVER_NODE='--cpu-prof --cpu-prof-dir=FOLDER'.
    const nodeWords = (process.env.KEIKI_BENCH_SERVER_NODE ?? '').split(' ').filter(Boolean);
    const all = [...nodeWords, this.#program, ...args];
    return ServerProcess.start(process.execPath, all, this.socketPath, this.#place.environment);
  }

  /** One command of the command line. */
  command(...words: readonly string[]): string {
    return runCommand(process.execPath, [this.#program, '--api', this.apiPath, ...words]);
  }

  get apiPath(): string {
    return `${this.#folder}/api.sock`;
  }
}

/** qemu-nbd on a new qcow2 overlay of a qcow2 file, which `makeQcow2` made. */
export async function startQemuNbd(
  golden: string,
  overlay: string,
  socketPath: string,
): Promise<ServerProcess> {
  qemuImg('create', '-q', '-f', 'qcow2', '-b', golden, '-F', 'qcow2', overlay);
  const words = ['-t', '-e', '16', '-k', socketPath, '-f', 'qcow2', '--cache=writeback', overlay];
  return ServerProcess.start('qemu-nbd', words, socketPath);
}

/** A qcow2 file with the content of a raw one. */
export function makeQcow2(raw: string, path: string): void {
  qemuImg('convert', '-O', 'qcow2', raw, path);
}

export function startNbdkit(
  plugin: 'memory' | 'null',
  sizeBytes: number,
  socketPath: string,
): Promise<ServerProcess> {
  const words = ['-f', '-U', socketPath, plugin, String(sizeBytes)];
  return ServerProcess.start('nbdkit', words, socketPath);
}

const QEMU_IMG = 'qemu-img';

export function qemuImg(...words: readonly string[]): void {
  const run = spawnSync(QEMU_IMG, words, { env: { ...process.env, PATH }, encoding: 'utf8' });
  if (run.status !== 0) throw new Error(`qemu-img ${words[0]}: ${run.stderr ?? run.error}`);
}
