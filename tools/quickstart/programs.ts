/**
 * Runs the real programs of the story: mke2fs, debugfs, e2fsck, qemu-io, nbdcopy.
 * None of them knows anything of Keiki.
 */
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';

/** mke2fs and e2fsck live where a user's PATH may not look. */
const PATH = `${process.env['PATH'] ?? ''}:/usr/sbin:/sbin:/usr/bin:/bin`;
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

/** Gives commands to qemu-io; it tells failures in its output, whatever its exit code says. */
export async function qemuIo(uri: string, commands: readonly string[]): Promise<void> {
  const args = ['-f', 'raw', '-t', 'none', ...commands.flatMap((command) => ['-c', command]), uri];
  const { code, output } = await runProgram('qemu-io', args);
  if (code === 0 && !/failed|rror:/.test(output)) return;
  throw new Error(`qemu-io: exit ${code}\n${output.slice(0, 2000)}`);
}
