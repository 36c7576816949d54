/**
 * Ctrl-C and its relatives: the first one aborts what is under way, so that it can undo what it has
 * begun; the second one ends the process.
 */
import { CommandError } from './failure.js';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** A signal that aborts, with a CommandError, when the process gets one. */
export function interruptions(): AbortSignal {
  const controller = new AbortController();
  for (const each of SIGNALS) {
    process.on(each, (name: string, number: number) => {
      const exitCode = 128 + number;
      if (controller.signal.aborted) process.exit(exitCode);
      controller.abort(new CommandError('interrupted', `ended by ${name}`, { exitCode }));
    });
  }
  return controller.signal;
}
