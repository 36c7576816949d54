/** Runs the reader that knows docs/FORMAT.md alone, and removes what it was given. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const READER = fileURLToPath(new URL('keiki_reader.py', import.meta.url));

export interface ReaderAnswer {
  readonly code: number | undefined;
  readonly output: Buffer;
  readonly message: string;
}

/** Runs the reader on the store file at `path`. */
export function runReader(path: string, ...command: string[]): ReaderAnswer {
  const run = spawnSync('python3', [READER, path, ...command], {
    maxBuffer: 2 ** 30,
    timeout: 600_000,
  });
  if (run.error !== undefined) throw run.error;
  return { code: run.status ?? undefined, output: run.stdout, message: run.stderr.toString() };
}

/** Runs the reader on a store of these bytes. */
export function readImage(image: Uint8Array, ...command: string[]): ReaderAnswer {
  const folder = mkdtempSync(join(tmpdir(), 'keiki-reader-'));
  try {
    const path = join(folder, 'store');
    writeFileSync(path, image);
    return runReader(path, ...command);
  } finally {
    rmSync(folder, { recursive: true });
  }
}
