/** Commands of the command line in this process: their words, and what they wrote. */
import { CommandContext } from '../../src/cli/context.js';
import { toFailure } from '../../src/cli/failure.js';
import { Output, type Sink } from '../../src/cli/output.js';
import { parseArguments } from '../../src/cli/program.js';

export interface Ran {
  readonly code: number;
  readonly out: string;
  readonly error: string;
}

class TextSink implements Sink {
  text = '';

  write(text: string | Uint8Array, done: () => void): boolean {
    this.text += Buffer.from(text).toString();
    done();
    return true;
  }
}

/** As src/cli/main.ts runs it. @param line  words between single spaces */
export async function runCommand(
  line: string,
  api: string,
  signal: AbortSignal = new AbortController().signal,
): Promise<Ran> {
  const [out, error] = [new TextSink(), new TextSink()];
  const output = new Output({ out, error, environment: {} });
  let context: CommandContext | undefined;
  let code = 0;
  try {
    const wanted = await parseArguments(line.split(' '), '1.2.3', output);
    if (wanted !== undefined) {
      context = new CommandContext({
        flags: { api, ...wanted.globals },
        output,
        interruptions: () => signal,
        environment: {},
        userId: 0,
        nowMs: () => performance.now(),
      });
      code = (await wanted.row.run(context, wanted.input)) ?? 0;
    }
  } catch (failure) {
    const { exitCode, message } = toFailure(failure);
    code = exitCode;
    if (message !== undefined) output.tell(`keiki: ${message}`);
  } finally {
    context?.close();
  }
  return { code, out: out.text, error: error.text };
}
