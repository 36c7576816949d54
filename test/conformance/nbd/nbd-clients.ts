/** Real NBD clients against a server in this process: starts the server, runs the programs. */
import assert from 'node:assert/strict';
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type NbdServer, serveNbd } from '../../../src/target/nbd/listener.js';
import type { NbdTls } from '../../../src/target/nbd/tls.js';
import type { BlockTarget } from '../../../src/vdisk/block-target.js';
import { TestExports } from '../../support/nbd-peer.js';

/** Debian's programs come first: the libnbd binding belongs to Debian's Python. */
export const PATH = '/usr/sbin:/usr/bin:/sbin:/bin';
/** Against hanging: on a loaded machine a minute's work has taken three. */
const TIMEOUT_MS = 600_000;

export interface ServedForClients {
  readonly server: NbdServer;
  readonly exports: TestExports;
  readonly folder: string;
  readonly socketPath: string;
  /** For clients that ask for this export. */
  uri(name?: string): string;
  close(): Promise<void>;
}

export async function serveForClients(
  targets: readonly BlockTarget[],
  defaultName?: string,
  tls?: NbdTls,
): Promise<ServedForClients> {
  const folder = mkdtempSync(join(tmpdir(), 'nbd-clients-'));
  const socketPath = join(folder, 'socket');
  const exports = new TestExports(targets, defaultName);
  const server = await serveNbd({ exports, socketPath, tls });
  return {
    server,
    exports,
    folder,
    socketPath,
    uri: (name = '') => `nbd+unix:///${name}?socket=${socketPath}`,
    close: async () => {
      await server.close();
      rmSync(folder, { recursive: true });
    },
  };
}

export interface Outcome {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs a program to its end. One that is not installed fails the test: it is no reason to skip. */
export function run(program: string, args: readonly string[], cwd?: string): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const options = {
      env: { PATH, LC_ALL: 'C' },
      timeout: TIMEOUT_MS,
      maxBuffer: 64 * 1024 * 1024,
      ...(cwd === undefined ? {} : { cwd }),
    };
    execFile(program, args, options, (error, stdout, stderr) => {
      if (error !== null && typeof error.code !== 'number') reject(new Error(error.message));
      else resolve({ code: Number(error?.code ?? 0), stdout, stderr });
    });
  });
}

/** A program that goes on beside the test; what it complains of is shown. */
export function start(program: string, args: readonly string[]): ChildProcess {
  return spawn(program, args, {
    env: { PATH, LC_ALL: 'C' },
    stdio: ['ignore', 'pipe', 'inherit'],
  });
}

/** Runs a program that must succeed; gives what it printed. */
export async function runOk(
  program: string,
  args: readonly string[],
  cwd?: string,
): Promise<string> {
  const { code, stdout, stderr } = await run(program, args, cwd);
  assert.equal(code, 0, `${program} ${args.join(' ')}: exit ${code}\n${stdout}${stderr}`);
  return stdout;
}

/** Runs Python with libnbd: `h` is a handle that is connected to the URI, if there is one. */
export function nbdsh(uri: string, script: string): Promise<string> {
  return runOk('nbdsh', [...(uri === '' ? [] : ['-u', uri]), '-c', script]);
}
