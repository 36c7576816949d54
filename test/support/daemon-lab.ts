/** The server as a process of its own, on a store file in a folder that goes with it. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { request as httpRequest } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';

const PROGRAM = fileURLToPath(new URL('./run-daemon.ts', import.meta.url));

export interface DaemonOptions {
  readonly args?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  /** Descriptors 3 and on. */
  readonly descriptors?: readonly number[];
}

export class Daemon {
  readonly process: ChildProcess;
  readonly ended: Promise<number | string>;
  log = '';

  constructor(process: ChildProcess) {
    this.process = process;
    process.stderr?.setEncoding('utf8');
    process.stderr?.on('data', (chunk: string) => {
      this.log += chunk;
    });
    this.ended = once(process, 'close').then(([code, signal]) =>
      typeof code === 'number' ? code : String(signal),
    );
  }

  /** Resolves when the log has the text. Rejects when the process ends before. */
  async logged(pattern: RegExp): Promise<void> {
    while (!pattern.test(this.log)) {
      const end = await Promise.race([
        once(this.process.stderr ?? this.process, 'data').then(() => undefined),
        this.ended,
      ]);
      if (end !== undefined && !pattern.test(this.log)) {
        throw new Error(`the server ended with ${end}: ${this.log}`);
      }
    }
  }

  async kill(signal: NodeJS.Signals): Promise<number | string> {
    this.process.kill(signal);
    return this.ended;
  }
}

/** A test that is cut off leaves no server behind. */
function killAtExit(child: ChildProcess): void {
  const kill = (): void => void child.kill('SIGKILL');
  const exit = (): void => process.exit(143);
  process.once('exit', kill);
  process.once('SIGTERM', exit);
  child.once('close', () => {
    process.off('exit', kill);
    process.off('SIGTERM', exit);
  });
}

export class DaemonLab {
  readonly folder = mkdtempSync(join(tmpdir(), 'keiki-serve-'));
  readonly #daemons: Daemon[] = [];

  path(name: string): string {
    return join(this.folder, name);
  }

  /** Starts `keiki serve` on this folder's store and sockets. */
  spawn({ args = [], environment = {}, descriptors = [] }: DaemonOptions = {}): Daemon {
    const all = ['--store', this.path('store'), '--size', '64M', '--store-memory', '16M', ...args];
    // systemd says whose the sockets are by process id, which only the process knows.
    const command = 'LISTEN_PID=$$ exec "$@"';
    const program = [process.execPath, '--import', 'tsx', PROGRAM, ...all];
    const child = spawn('sh', ['-c', command, 'sh', ...program], {
      stdio: ['ignore', 'ignore', 'pipe', ...descriptors],
      env: { PATH: process.env.PATH, ...environment },
    });
    killAtExit(child);
    const daemon = new Daemon(child);
    this.#daemons.push(daemon);
    return daemon;
  }

  /** The same with sockets in the folder, ready. */
  async start(options: DaemonOptions = {}): Promise<Daemon> {
    const sockets = ['--api', this.path('api'), '--nbd-socket', this.path('nbd')];
    const daemon = this.spawn({ ...options, args: [...sockets, ...(options.args ?? [])] });
    await daemon.logged(/ready: /);
    return daemon;
  }

  /** The one that was started last. */
  get last(): Daemon {
    const last = this.#daemons.at(-1);
    if (last === undefined) throw new Error('no server was started');
    return last;
  }

  async killAll(): Promise<void> {
    for (const daemon of this.#daemons) await daemon.kill('SIGKILL');
  }

  /** Ends the last one in order. */
  async stop(): Promise<void> {
    const end = await this.last.kill('SIGTERM');
    if (end !== 0) throw new Error(`the server ended with ${end}: ${this.last.log}`);
  }

  async call(method: string, path: string, body?: object): Promise<Record<string, unknown>> {
    const answer = await this.text(path, method, body);
    return answer === '' ? {} : (JSON.parse(answer) as Record<string, unknown>);
  }

  /** What the API answers, whatever it is. */
  text(path: string, method = 'GET', body?: object): Promise<string> {
    return new Promise<string>((resolve, reject) => {
      const headers = { 'content-type': 'application/json' };
      const socketPath = this.path('api');
      const options = { socketPath, method, path, headers, agent: false };
      const request = httpRequest(options, (response) => {
        text(response).then(resolve, reject);
      });
      request.on('error', reject);
      request.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }

  /** Begins to send a body, and never ends. Resolves when there are so many jobs. */
  async stuckUpload(path: string, jobCount = 1): Promise<void> {
    const request = httpRequest({ socketPath: this.path('api'), method: 'PUT', path });
    request.on('error', () => undefined);
    request.write(Buffer.alloc(1000));
    for (;;) {
      const { jobs } = await this.call('GET', '/v1/jobs');
      if ((jobs as unknown[]).length >= jobCount) return;
    }
  }

  async close(): Promise<void> {
    await this.killAll();
    rmSync(this.folder, { recursive: true });
  }
}
