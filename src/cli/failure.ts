/**
 * How a command fails: a kind, a message for people, and the exit code that scripts go by.
 *
 * 1. A kind has one exit code, for ever. docs/CLI.md lists them; a test holds the two together.
 */
import { InvariantError } from '../base/invariant.js';
import { isStoreError } from '../base/store-error.js';
import type { ProblemKind } from '../control/schemas.js';

/** What only a client can meet, beside the kinds of the API. */
type LocalKind = 'failed' | 'usage' | 'no-server' | 'faults' | 'interrupted' | 'broken-pipe';
export type FailureKind = ProblemKind | LocalKind;

export const EXIT_CODES = {
  failed: 1,
  device: 1,
  usage: 2,
  invalid: 2,
  'too-large': 2,
  'not-acceptable': 2,
  'not-found': 3,
  exists: 4,
  'in-use': 5,
  'no-server': 6,
  'out-of-space': 7,
  'read-only': 8,
  corrupt: 9,
  faults: 9,
  unsupported: 10,
  unauthorized: 11,
  closed: 12,
  cancelled: 13,
  fenced: 14,
  internal: 70,
  // As of a process that a signal ended: 128 and its number.
  interrupted: 130,
  'broken-pipe': 141,
} as const satisfies Record<FailureKind, number>;

export class CommandError extends Error {
  override readonly name = 'CommandError';
  readonly kind: FailureKind;
  /** Instead of the kind's own. */
  readonly exitCode: number | undefined;

  constructor(
    kind: FailureKind,
    message: string,
    options: ErrorOptions & { readonly exitCode?: number } = {},
  ) {
    super(message, options);
    this.kind = kind;
    this.exitCode = options.exitCode;
  }
}

export interface Failure {
  readonly exitCode: number;
  /** For the standard error; undefined: nothing is to be said. */
  readonly message: string | undefined;
}

/** What a command that threw this ends with. */
export function toFailure(error: unknown): Failure {
  if (error instanceof CommandError) {
    const { kind, message } = error;
    const isQuiet = kind === 'broken-pipe';
    const exitCode = error.exitCode ?? EXIT_CODES[kind];
    return { exitCode, message: isQuiet ? undefined : message };
  }
  if (isStoreError(error)) {
    if (isSystemError(error.cause, 'EPIPE')) return toFailure(brokenPipe());
    return { exitCode: EXIT_CODES[error.kind], message: error.message };
  }
  const isBug = error instanceof InvariantError || !isSystemError(error, undefined);
  const text = error instanceof Error ? error.message : String(error);
  const stack = error instanceof Error ? (error.stack ?? text) : text;
  if (isBug) return { exitCode: EXIT_CODES.internal, message: `this is a bug: ${stack}` };
  return { exitCode: EXIT_CODES.failed, message: text };
}

export function brokenPipe(): CommandError {
  return new CommandError('broken-pipe', 'whoever was reading has ended');
}

/** True for an error of the operating system; with this code, if one is given. */
export function isSystemError(error: unknown, code: string | undefined): boolean {
  if (!(error instanceof Error && 'code' in error)) return false;
  return code === undefined ? typeof error.code === 'string' : error.code === code;
}
