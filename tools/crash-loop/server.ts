/**
 * `keiki serve` and `keiki check` as processes on one store: started, killed, asked whether all is
 * sound.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readlinkSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Violation } from '../../sim/model/violation.js';
import type { CheckReport } from '../../src/store/check/check-report.js';
import type { ServerAddress } from './remote-store.js';

const ROOT = join(import.meta.dirname, '../..');
const KEIKI = isBuilt()
  ? [join(ROOT, 'dist/cli/main.js')]
  : ['--import', 'tsx', join(ROOT, 'src/cli/main.ts')];
const READY_MS = 180_000;
const STOP_MS = 180_000;

export class Server implements ServerAddress {
  readonly apiSocket: string;
  readonly nbdSocket: string;
  readonly storePath: string;
  /** Of its next start. */
  flags: readonly string[];
  #process: ChildProcess | undefined;
  #ended: Promise<number | string> = Promise.resolve(0);
  /** What all its lives have said. */
  log = '';

  /** @param storePath  a file, made with `size` if it is not there, or a block device */
  constructor(folder: string, storePath: string, flags: readonly string[]) {
    this.storePath = storePath;
    this.apiSocket = join(folder, 'api');
    this.nbdSocket = join(folder, 'nbd');
    this.flags = flags;
  }

  /** Starts it; does not wait. */
  launch(): void {
    const sockets = ['--api', this.apiSocket, '--nbd-socket', this.nbdSocket];
    const args = [...KEIKI, 'serve', '--store', this.storePath, ...sockets, ...this.flags];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    child.stderr.on('data', (chunk: Buffer) => {
      this.log += chunk.toString();
    });
    // Whoever runs the loop may be cut off.
    const kill = (): void => void child.kill('SIGKILL');
    process.once('exit', kill);
    this.#process = child;
    this.#ended = once(child, 'close').then(([code, signal]: unknown[]) => {
      process.off('exit', kill);
      return typeof code === 'number' ? code : String(signal);
    });
  }

  /** Starts it, if that was not done, and waits until it listens. */
  async start(): Promise<void> {
    const from = this.log.length;
    if (!this.isRunning) this.launch();
    await this.#until('ready', () => /\bready: /.test(this.log.slice(from)), READY_MS);
  }

  /** Starts it, and resolves as soon as it has the store open: recovery comes next. */
  async startUntilOpen(): Promise<void> {
    this.launch();
    await this.#until('open', () => this.#hasOpen(), READY_MS);
  }

  get isRunning(): boolean {
    const child = this.#process;
    return child !== undefined && child.exitCode === null && child.signalCode === null;
  }

  /** @throws {Violation} it had ended by itself */
  async kill(): Promise<void> {
    this.#process?.kill('SIGKILL');
    const end = await this.#ended;
    if (end !== 'SIGKILL') throw new Violation(`the server ended with ${end}: ${this.lastWords()}`);
  }

  /** Ends it in order. */
  async stop(): Promise<void> {
    this.#process?.kill('SIGTERM');
    await this.#until('stopped', () => !this.isRunning, STOP_MS);
    const end = await this.#ended;
    if (end !== 0) throw new Violation(`SIGTERM: it ended with ${end}: ${this.lastWords()}`);
  }

  lastWords(): string {
    return this.log.slice(-2000);
  }

  /** The offline check of a store that nobody has open. @throws {Violation} it finds a fault */
  check(): Promise<CheckReport> {
    return new Promise((resolve, reject) => {
      const args = [...KEIKI, 'check', this.storePath, '--json'];
      execFile(process.execPath, args, { maxBuffer: 2 ** 26 }, (error, out, said) => {
        if (error === null) resolve(JSON.parse(out) as CheckReport);
        else reject(new Violation(`keiki check: ${out.slice(0, 4000)}${said}`));
      });
    });
  }

  async #until(what: string, isThere: () => boolean, timeoutMs: number): Promise<void> {
    const end = performance.now() + timeoutMs;
    while (!isThere()) {
      if (what !== 'stopped' && !this.isRunning) {
        throw new Violation(`the server ended before it was ${what}: ${this.lastWords()}`);
      }
      if (performance.now() > end) {
        throw new Violation(`not ${what} after ${timeoutMs / 1000} s: ${this.lastWords()}`);
      }
      await sleep(2);
    }
  }

  /** The process has a descriptor of the store, says Linux. */
  #hasOpen(): boolean {
    const folder = `/proc/${this.#process?.pid ?? 0}/fd`;
    try {
      return readdirSync(folder).some((name) => {
        try {
          return readlinkSync(join(folder, name)) === this.storePath;
        } catch {
          return false;
        }
      });
    } catch {
      return false;
    }
  }
}

/** True if what was built is as new as the sources: it starts in a fourth of the time. */
function isBuilt(): boolean {
  try {
    const builtMs = statSync(join(ROOT, 'dist/cli/main.js')).mtimeMs;
    const files = readdirSync(join(ROOT, 'src'), { recursive: true, encoding: 'utf8' });
    return files.every((name) => statSync(join(ROOT, 'src', name)).mtimeMs < builtMs);
  } catch {
    return false;
  }
}
