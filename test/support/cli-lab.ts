/** The program `keiki` as processes: a server of a new store, and commands that ask it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { ApiClient } from '../../src/cli/api-client.js';

export interface CliResult {
  readonly code: number;
  readonly out: Buffer;
  readonly error: string;
}

const MAIN = resolve('src/cli/main.ts');
/** A loaded machine has been seen to take 20 s. */
const START_MS = 180_000;

/** A command under way. */
export class CliProcess {
  readonly process: ChildProcess;
  readonly ended: Promise<CliResult>;
  out = Buffer.alloc(0);
  error = '';

  constructor(child: ChildProcess) {
    this.process = child;
    child.stdout?.on('data', (chunk: Buffer) => {
      this.out = Buffer.concat([this.out, chunk]);
    });
    child.stderr?.on('data', (chunk: Buffer) => {
      this.error += chunk.toString();
    });
    this.ended = once(child, 'close').then(([code, signal]: unknown[]) => {
      const exitCode = typeof code === 'number' ? code : -1;
      const error = typeof signal === 'string' ? `${this.error}ended by ${signal}` : this.error;
      return { code: exitCode, out: this.out, error };
    });
  }

  /** Resolves when `isThere`; fails if the process ends before. */
  async until(isThere: () => boolean | Promise<boolean>): Promise<void> {
    const end = performance.now() + START_MS;
    while (!(await isThere())) {
      if (this.process.exitCode !== null || performance.now() > end) {
        throw new Error(`it never came: ${this.error}`);
      }
      await new Promise((done) => setTimeout(done, 20));
    }
  }
}

export class CliLab {
  readonly folder = mkdtempSync(join(tmpdir(), 'keiki-cli-'));
  readonly api: ApiClient;
  readonly #running = new Set<ChildProcess>();
  server: CliProcess | undefined;

  constructor() {
    const address = { kind: 'unix', path: this.path('api.sock') } as const;
    this.api = new ApiClient({ address, token: undefined, signal: new AbortController().signal });
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  /** Starts the server; it listens when this resolves. */
  async serve(...flags: readonly string[]): Promise<CliProcess> {
    const server = this.start([
      'serve',
      ...['--store', this.path('store'), '--size', '1G'],
      ...['--nbd-socket', this.path('nbd.sock'), '--api', this.path('api.sock'), ...flags],
    ]);
    this.server = server;
    await server.until(() => server.error.includes('ready'));
    return server;
  }

  /** A command in the lab's folder, which finds the server by KEIKI_API. */
  start(
    args: readonly string[],
    command: readonly string[] = ['--import', 'tsx', MAIN],
  ): CliProcess {
    const child = spawn(process.execPath, [...command, ...args], {
      env: { ...process.env, KEIKI_API: this.path('api.sock'), NODE_OPTIONS: '' },
      stdio: ['pipe', 'pipe', 'pipe'],
    });
    this.#running.add(child);
    child.once('close', () => this.#running.delete(child));
    // A command that ends before it has read all.
    child.stdin?.on('error', () => undefined);
    return new CliProcess(child);
  }

  /** Words of a command, as a shell would part them; runs it to its end. */
  run(line: string, input?: Uint8Array): Promise<CliResult> {
    const started = this.start(line.split(' '));
    started.process.stdin?.end(input);
    return started.ended;
  }

  /** Of a command that has to succeed. */
  async json<T>(line: string): Promise<T> {
    const { code, out, error } = await this.run(`${line} --json`);
    if (code !== 0) throw new Error(`${line}: ${code}: ${error}`);
    return JSON.parse(out.toString()) as T;
  }

  async close(): Promise<void> {
    this.api.close();
    for (const child of this.#running) child.kill('SIGKILL');
    await Promise.all([...this.#running].map((child) => once(child, 'close')));
    rmSync(this.folder, { recursive: true });
  }
}
