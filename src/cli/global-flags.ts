/** Flags of all commands. */
import type { FlagRow } from './command-table.js';

export const GLOBAL_FLAGS: readonly FlagRow[] = [
  {
    name: 'api',
    takes: 'PATH|HOST:PORT',
    summary:
      'the control API of the server (or KEIKI_API); default: api.sock in its runtime folder',
    completes: 'file',
    isList: true,
  },
  {
    name: 'token-file',
    takes: 'FILE',
    summary: 'file with the token that an API on a TCP port wants (or KEIKI_TOKEN_FILE)',
    completes: 'file',
  },
  { name: 'json', summary: 'the result as one JSON document' },
  { name: 'quiet', short: 'q', summary: 'no progress, and no line that only says that it is done' },
];
