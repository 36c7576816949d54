/** `keiki serve` as a process of its own: `tsx run-daemon.ts --store FILE ...`. */

import { serve } from '../../src/main/serve.js';
import { parseServeArguments } from '../../src/main/serve-arguments.js';

try {
  const options = parseServeArguments(process.argv.slice(2));
  process.exitCode = await serve({ ...options, environment: process.env });
} catch (error) {
  process.stderr.write(`keiki: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 2;
}
