/** Prints the completion script of a shell. */
import type { CommandRow } from '../command-table.js';
import { completionScript, SHELLS, type Shell } from '../completion.js';

/** @param rows  all commands, this one among them */
export function completionCommand(rows: () => readonly CommandRow[]): CommandRow {
  return {
    name: 'completion',
    summary: 'The completion script of a shell',
    usage: 'bash|zsh|fish',
    details: 'It completes commands, flags, and the names of the store.',
    arguments: [
      { name: 'SHELL', summary: SHELLS.join(', '), completes: 'nothing', choices: SHELLS },
    ],
    flags: [],
    examples: [
      'source <(keiki completion bash)',
      'keiki completion fish > ~/.config/fish/completions/keiki.fish',
    ],
    run: async ({ output, isJson }, { arguments: [shell] }) => {
      const script = completionScript(shell as Shell, rows());
      if (isJson) await output.printJson({ shell, script });
      else await output.printBytes(script);
      return undefined;
    },
  };
}
