/**
 * Operating errors. The kind tells the caller what to do; the message names the object, the numbers
 * and the next step. docs/ERRORS.md lists the kinds; a test holds the two together.
 */

export const STORE_ERROR_KINDS = [
  'out-of-space',
  'corrupt',
  'device',
  'read-only',
  'not-found',
  'exists',
  'in-use',
  'invalid',
  'unsupported',
  'fenced',
  'closed',
] as const;

export type StoreErrorKind = (typeof STORE_ERROR_KINDS)[number];

export class StoreError extends Error {
  override readonly name = 'StoreError';
  readonly kind: StoreErrorKind;

  constructor(kind: StoreErrorKind, message: string, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
  }
}

/** True for a StoreError of this kind. */
export function isStoreError(error: unknown, kind?: StoreErrorKind): error is StoreError {
  return error instanceof StoreError && (kind === undefined || error.kind === kind);
}
