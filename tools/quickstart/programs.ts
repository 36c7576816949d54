/**
 * Runs the real programs of the story: mke2fs, debugfs, e2fsck, qemu-io, nbdcopy.
 * None of them knows anything of Keiki.
 */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';

/** mke2fs and e2fsck live where a user's PATH may not look. */
const PATH = `${process.env.PATH ?? ''}:/usr/sbin:/sbin:/usr/bin:/bin`;
const ENVIRONMENT = { ...process.env, PATH, LC_ALL: 'C' };

export interface Outcome {
  readonly code: number;
  readonly output: string;
}

/** Runs a program to its end; `onOutput` sees its standard output instead of the outcome. */
export function runProgram(
  program: string,
  args: readonly string[],
  onOutput?: (chunk: Buffer) => void,
): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const running = spawn(program, args, { env: ENVIRONMENT, stdio: ['ignore', 'pipe', 'pipe'] });
    const output: Buffer[] = [];
    running.stdout.on('data', onOutput ?? ((chunk: Buffer) => output.push(chunk)));
    running.stderr.on('data', (chunk: Buffer) => output.push(chunk));
    running.on('error', (error) => {
      reject(
        new Error(`${program} cannot be run (${error.message}): sh tools/setup.sh installs it`),
      );
    });
    running.on('close', (code, signal) => {
      const text = Buffer.concat(output).toString();
      resolve({
        code: code ?? 128,
        output: signal === null ? text : `${text}\nended by ${signal}`,
      });
    });
  });
}

/** Runs a program that must succeed. */
export async function runToSuccess(
  program: string,
  args: readonly string[],
  onOutput?: (chunk: Buffer) => void,
): Promise<string> {
  const { code, output } = await runProgram(program, args, onOutput);
  if (code === 0) return output;
  throw new Error(`${program} ${args.join(' ')}: exit ${code}\n${output}`);
}

/** Reads the whole export through nbdcopy: SHA-256 of its bytes. */
export async function hashExport(uri: string): Promise<string> {
  const hash = createHash('sha256');
  await runToSuccess('nbdcopy', [uri, '-'], (chunk) => hash.update(chunk));
  return hash.digest('hex');
}

const QEMU_IO = 'qemu-io';
const PROMPT = `${QEMU_IO}> `;

/** A qemu-io that stays connected and is told what to do, command by command. */
export class QemuIo {
  readonly #running: ChildProcessWithoutNullStreams;
  /** Prompts still to come: the first one, and one behind the answer to each command. */
  #promptsLeft = 1;
  #output = '';
  #error: Error | undefined;
  #onChange: () => void = () => undefined;

  constructor(uri: string) {
    this.#running = spawn(QEMU_IO, ['-f', 'raw', '-t', 'none', uri], { env: ENVIRONMENT });
    this.#running.stdout.on('data', (chunk: Buffer) => this.#read(chunk));
    this.#running.stderr.on('data', (chunk: Buffer) => this.#read(chunk));
    this.#running.stdin.on('error', (error) => this.#fail(error));
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
      this.#running.stdin.write(`${command}\n`);
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
      if (this.#running.exitCode !== null) resolve();
      this.#running.on('close', () => resolve());
      this.#running.stdin.end('quit\n');
    });
  }
}
