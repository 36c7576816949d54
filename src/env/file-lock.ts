/**
 * Owns the lock that keeps a second server from a store's file or block device.
 *
 * 1. The lock belongs to the open file description: it holds while our descriptor is open, and ends
 *    with the process, however that ends.
 * 2. Node has no flock call. A process `flock` that inherits the descriptor shares our description,
 *    so the lock it takes stays when it exits.
 *
 * Source: flock(2), flock(1) of util-linux.
 */
import { spawn } from 'node:child_process';
import { StoreError } from '../base/store-error.js';
import { inUse } from './file-errors.js';

/** What flock(1) exits with if somebody else has the lock. */
const EXIT_TAKEN = 1;

/**
 * Locks the open file.
 *
 * @param mode  'exclusive' keeps everybody else out, 'shared' only those who want 'exclusive'
 * @throws {StoreError} in-use: another process has it; unsupported: no flock command
 */
export function lockFile(
  descriptor: number,
  path: string,
  mode: 'exclusive' | 'shared',
): Promise<void> {
  return new Promise((resolve, reject) => {
    const flag = mode === 'exclusive' ? '-x' : '-s';
    const stdio = ['ignore', 'ignore', 'pipe', descriptor] as const;
    const locker = spawn('flock', ['-n', flag, '3'], { stdio: [...stdio] });
    let complaint = '';
    locker.stderr?.on('data', (chunk: Uint8Array) => {
      complaint += chunk.toString();
    });
    locker.on('error', (cause) => {
      const message = `cannot lock ${path}: the command flock (Debian: util-linux) does not run`;
      reject(new StoreError('unsupported', message, { cause }));
    });
    locker.on('close', (code) => {
      if (code === 0) resolve();
      else if (code === EXIT_TAKEN) reject(inUse(path));
      else reject(new StoreError('device', `cannot lock ${path}: flock: ${complaint.trim()}`));
    });
  });
}
