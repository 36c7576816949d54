/** What the system says about a file, in the words of StoreError. */
import { StoreError } from '../base/store-error.js';

/** Somebody else has this path open. */
export function inUse(path: string, cause?: unknown): StoreError {
  const message = `${path} is in use by another process: end that one, or wait for it`;
  return new StoreError('in-use', message, { cause });
}

/** An open failed. */
export function openError(path: string, cause: unknown): StoreError {
  switch (codeOf(cause)) {
    case 'ENOENT':
      return new StoreError('not-found', `${path}: there is no such file`, { cause });
    case 'EEXIST':
      return new StoreError('exists', `${path} is there already: a new one is not made`, { cause });
    case 'EBUSY':
    case 'ETXTBSY':
      return inUse(path, cause);
    case 'EROFS':
      return new StoreError('read-only', `${path} is on a read-only file system`, { cause });
    case 'EISDIR':
      return new StoreError('invalid', `${path} is a directory`, { cause });
    case 'EACCES':
    case 'EPERM':
      return deviceError(path, 'open (are you allowed to read and write it?)', cause);
    default:
      return deviceError(path, 'open', cause);
  }
}

/** Anything else failed. */
export function deviceError(path: string, what: string, cause: unknown): StoreError {
  const reason = cause instanceof Error ? cause.message : String(cause);
  // Not 'out-of-space': the store has space, its file's file system has not.
  const hint =
    codeOf(cause) === 'ENOSPC' || codeOf(cause) === 'EDQUOT'
      ? '; the file system that holds it is full: make space there, then open it again'
      : '';
  return new StoreError('device', `${path}: ${what} failed: ${reason}${hint}`, { cause });
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined;
}
