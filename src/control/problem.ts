/**
 * Errors as problem documents (RFC 9457): each kind has its status and title, in one table that the
 * compiler checks for completeness.
 */
import { isStoreError, type StoreError } from '../base/store-error.js';
import { InUseError, type InUseHolder } from '../vdisk/in-use.js';
import type { Problem, ProblemKind } from './schemas.js';

export const PROBLEM_TYPE = 'application/problem+json';

interface KindOfProblem {
  readonly status: number;
  readonly title: string;
}

export const KINDS_OF_PROBLEM = {
  'out-of-space': { status: 507, title: 'The store is full' },
  corrupt: { status: 500, title: 'Bytes on the medium are not what was written' },
  device: { status: 500, title: 'The device failed' },
  'read-only': { status: 403, title: 'It cannot be written' },
  'not-found': { status: 404, title: 'There is no such thing' },
  exists: { status: 409, title: 'The name is taken' },
  'in-use': { status: 409, title: 'Something depends on it' },
  invalid: { status: 400, title: 'The request cannot be meant' },
  unsupported: { status: 422, title: 'This server cannot do that' },
  fenced: { status: 503, title: 'Another process has taken over the store' },
  closed: { status: 503, title: 'The server is stopping, or its store has ended' },
  unauthorized: { status: 401, title: 'A token is needed' },
  'too-large': { status: 413, title: 'The request is too large' },
  'not-acceptable': { status: 406, title: 'No type of answer that was asked for' },
  cancelled: { status: 409, title: 'It was cancelled' },
  internal: { status: 500, title: 'A bug of the server' },
} as const satisfies Record<ProblemKind, KindOfProblem>;

export interface Fault {
  /** 'body', 'query' or 'path', with a JSON pointer. */
  readonly where: string;
  readonly message: string;
}

export interface ApiErrorFacts {
  readonly faults?: readonly Fault[];
  /** Who has it in use. */
  readonly clients?: readonly string[];
  /** Who reads through it, and how much. */
  readonly holders?: readonly InUseHolder[];
  /** Instead of the kind's own: 405, 415. */
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
}

export class ApiError extends Error {
  override readonly name = 'ApiError';
  readonly kind: ProblemKind;
  readonly facts: ApiErrorFacts;

  constructor(kind: ProblemKind, message: string, facts: ApiErrorFacts = {}) {
    super(message);
    this.kind = kind;
    this.facts = facts;
  }
}

/** True for what is no bug of the server. */
export function isExpected(error: unknown): error is ApiError | StoreError {
  return error instanceof ApiError || isStoreError(error);
}

/** The document for an error; what is no error of an operation is told as a bug, without detail. */
export function toProblem(error: unknown): Problem {
  if (!isExpected(error)) {
    return problemOf('internal', 'The log of the server says more.', {});
  }
  return problemOf(error.kind, error.message, factsOf(error));
}

function factsOf(error: ApiError | StoreError): ApiErrorFacts {
  if (error instanceof ApiError) return error.facts;
  return error instanceof InUseError ? { holders: error.holders } : {};
}

function problemOf(kind: ProblemKind, detail: string, facts: ApiErrorFacts): Problem {
  const { status, title } = KINDS_OF_PROBLEM[kind];
  const { faults, clients, holders } = facts;
  return {
    type: `urn:keiki:problem:${kind}`,
    title,
    status: facts.status ?? status,
    kind,
    detail,
    ...(faults === undefined ? {} : { faults: [...faults] }),
    ...(clients === undefined ? {} : { clients: [...clients] }),
    ...(holders === undefined ? {} : { holders: [...holders] }),
  };
}
