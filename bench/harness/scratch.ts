/**
 * Files of a bench: in a folder of their own, removed at the end. KEIKI_BENCH_DIR says where; by
 * default in the folder for temporary files, which must be on a real disk.
 */
import { spawnSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { MIB } from '../../src/base/units.js';

export async function withScratch<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(process.env.KEIKI_BENCH_DIR ?? tmpdir(), 'keiki-bench-'));
  try {
    return await work(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** A file with its blocks written, so that a later write changes no metadata of its file system. */
export function writeFile(path: string, sizeBytes: number, fill: Uint8Array): void {
  const descriptor = openSync(path, constants.O_CREAT | constants.O_RDWR);
  const piece = fill.length === 0 ? new Uint8Array(MIB) : fill;
  for (let done = 0; done < sizeBytes; done += piece.length) writeSync(descriptor, piece);
  closeSync(descriptor);
  runCommand('sync', [path]);
}

/** Runs a program; returns what it printed. */
export function runCommand(program: string, words: readonly string[]): string {
  const { status, stdout, stderr, error } = spawnSync(program, words, { encoding: 'utf8' });
  if (error !== undefined) throw error;
  if (status !== 0) throw new Error(`${program} ${words.join(' ')}: ${stderr}`);
  return stdout + stderr;
}
