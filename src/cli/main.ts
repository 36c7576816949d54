/**
 * The program `keiki`: from the command line to an exit code. bin/keiki starts it.
 *
 * 1. It ends with the code of its failure (failure.ts), after all that it wrote has left.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { performance } from 'node:perf_hooks';
import { CommandContext } from './context.js';
import { toFailure } from './failure.js';
import { Output } from './output.js';
import { parseArguments } from './program.js';
import { interruptions } from './signals.js';

async function main(): Promise<number> {
  const { env: environment, stdout, stderr } = process;
  // Whoever was reading has gone: each write hears of it, too.
  stdout.on('error', () => undefined);
  stderr.on('error', () => undefined);
  const output = new Output({ out: stdout, error: stderr, environment });
  let context: CommandContext | undefined;
  try {
    const wanted = await parseArguments(process.argv.slice(2), packageVersion(), output);
    if (wanted === undefined) return 0;
    context = new CommandContext({
      flags: wanted.globals,
      output,
      interruptions,
      environment,
      userId: process.getuid?.() ?? -1,
      nowMs: () => performance.now(),
    });
    return (await wanted.row.run(context, wanted.input)) ?? 0;
  } catch (error) {
    const { message, exitCode } = toFailure(error);
    if (message !== undefined) output.tell(`keiki: ${message}`);
    return exitCode;
  } finally {
    context?.close();
  }
}

function packageVersion(): string {
  const path = join(import.meta.dirname, '../../package.json');
  const { version } = JSON.parse(readFileSync(path, 'utf8')) as { readonly version: string };
  return version;
}

process.exit(await main());
