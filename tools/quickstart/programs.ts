/**
 * Runs programs: Keiki's own, and the real ones of the story (sfdisk, mke2fs, debugfs, e2fsck,
 * qemu-io, nbdcopy), none of which knows anything of Keiki.
 *
 * 1. None outlives this process, however that ends: `setpriv` has the kernel kill them with it. So
 *    a run that is killed is a crash of its server, too, and leaves no process behind.
 */
import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';

/** sfdisk, mke2fs and e2fsck live where a user's PATH may not look. */
const PATH = `${process.env.PATH ?? ''}:/usr/sbin:/sbin:/usr/bin:/bin`;
const ENVIRONMENT: NodeJS.ProcessEnv = { ...process.env, PATH, LC_ALL: 'C' };
/** What setpriv, as shells do, ends with if there is no such program. */
const EXIT_NO_PROGRAM = 127;

export interface Outcome {
  readonly code: number;
  readonly output: string;
}

/** Starts a program that ends with this process. */
export function spawnBound(
  program: string,
  args: readonly string[],
  options: SpawnOptions,
): ChildProcess {
  const environment = { ...ENVIRONMENT, ...options.env };
  const bound = ['--pdeathsig', 'KILL', '--', program, ...args];
  return spawn('setpriv', bound, { ...options, env: environment });
}

export interface RunOptions {
  /** Written to its standard input. */
  readonly input?: string;
  /** Sees its standard output, instead of the outcome. */
  readonly onOutput?: (chunk: Buffer) => void;
}

/** Runs a program to its end. */
export function runProgram(
  program: string,
  args: readonly string[],
  { input = '', onOutput }: RunOptions = {},
): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const running = spawnBound(program, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    const output: Buffer[] = [];
    running.stdout?.on('data', onOutput ?? ((chunk: Buffer) => output.push(chunk)));
    running.stderr?.on('data', (chunk: Buffer) => output.push(chunk));
    running.on('error', (error) => reject(notThere('setpriv', error.message)));
    running.on('close', (code, signal) => {
      const text = Buffer.concat(output).toString();
      if (code === EXIT_NO_PROGRAM) reject(notThere(program, text.trim()));
      const ending = signal === null ? '' : `\nended by ${signal}`;
      resolve({ code: code ?? 128, output: text + ending });
    });
    // A program that ends before it has read all.
    running.stdin?.on('error', () => undefined);
    running.stdin?.end(input);
  });
}

function notThere(program: string, why: string): Error {
  return new Error(`${program} cannot be run (${why}): sh tools/setup.sh installs it`);
}

/** Runs a program that must succeed. */
export async function runToSuccess(
  program: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  const { code, output } = await runProgram(program, args, options);
  if (code === 0) return output;
  throw new Error(`${program} ${args.join(' ')}: exit ${code}\n${output}`);
}

/** Reads the whole export through nbdcopy: SHA-256 of its bytes. */
export async function hashExport(uri: string): Promise<string> {
  const hash = createHash('sha256');
  await runToSuccess('nbdcopy', [uri, '-'], { onOutput: (chunk) => hash.update(chunk) });
  return hash.digest('hex');
}

const QEMU_IO = 'qemu-io';
const PROMPT = `${QEMU_IO}> `;

/** A qemu-io that stays connected and is told what to do, command by command. */
export class QemuIo {
  readonly #running: ChildProcess;
  /** Prompts still to come: the first one, and one behind the answer to each command. */
  #promptsLeft = 1;
  #output = '';
  #error: Error | undefined;
  #onChange: () => void = () => undefined;

  constructor(uri: string) {
    const args = ['-f', 'raw', '-t', 'none', uri];
    this.#running = spawnBound(QEMU_IO, args, { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#running.stdout?.on('data', (chunk: Buffer) => this.#read(chunk));
    this.#running.stderr?.on('data', (chunk: Buffer) => this.#read(chunk));
    this.#running.stdin?.on('error', (error) => this.#fail(error));
    this.#running.on('error', (error) => this.#fail(error));
    this.#running.on('close', () => this.#fail(new Error(`qemu-io has ended: ${this.#output}`)));
  }

  #read(chunk: Buffer): void {
    const parts = (this.#output + chunk.toString()).split(PROMPT);
    this.#output = parts.at(-1) ?? '';
    this.#promptsLeft -= parts.length - 1;
    // It tells failures in its output, whatever its exit code says.
    const complaint = parts.find((part) => /failed|rror:/.test(part));
    if (complaint === undefined) this.#onChange();
    else this.#fail(new Error(`qemu-io: ${complaint.trim()}`));
  }

  #fail(error: Error): void {
    this.#error ??= error;
    this.#onChange();
  }

  /** Resolves when all commands have been answered; a command it is told before that gets lost. */
  async tell(commands: readonly string[]): Promise<void> {
    for (const command of commands) {
      await this.#prompt();
      this.#promptsLeft++;
      this.#running.stdin?.write(`${command}\n`);
    }
    await this.#prompt();
  }

  async #prompt(): Promise<void> {
    while (this.#promptsLeft > 0 && this.#error === undefined) {
      await new Promise<void>((resolve) => {
        this.#onChange = resolve;
      });
    }
    if (this.#error !== undefined) throw this.#error;
  }

  /** Lets go of the disk. */
  close(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#running.exitCode !== null || this.#running.signalCode !== null) resolve();
      this.#running.on('close', () => resolve());
      this.#running.stdin?.end('quit\n');
    });
  }
}
