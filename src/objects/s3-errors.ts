/** What an answer of S3 that is no success says to people, and what they can do. */
import { StoreError, type StoreErrorKind } from '../base/store-error.js';
import type { HttpAnswer } from './http-exchange.js';
import { elementText } from './s3-xml.js';

/** Where it was asked, and what. */
export interface Asked {
  /** `s3://bucket`. */
  readonly store: string;
  /** `PUT a/key`. */
  readonly what: string;
  readonly gateway: string;
}

interface Advice {
  readonly kind: StoreErrorKind;
  readonly next: string;
}

const CREDENTIALS: Advice = { kind: 'invalid', next: 'check the credentials' };
const REGION: Advice = { kind: 'invalid', next: "give the bucket's region with --s3-region" };
const OTHER_STORE: Advice = { kind: 'unsupported', next: 'this object store cannot hold a store' };

const ADVICE: Readonly<Record<string, Advice>> = {
  AccessDenied: {
    kind: 'invalid',
    next: 'allow it: docs/OBJECT-STORE.md has the policy that is needed',
  },
  InvalidAccessKeyId: CREDENTIALS,
  SignatureDoesNotMatch: CREDENTIALS,
  ExpiredToken: CREDENTIALS,
  InvalidToken: CREDENTIALS,
  RequestTimeTooSkewed: { kind: 'invalid', next: "set this machine's clock" },
  NoSuchBucket: { kind: 'not-found', next: 'make the bucket, or name another' },
  PermanentRedirect: REGION,
  TemporaryRedirect: REGION,
  AuthorizationHeaderMalformed: REGION,
  NotImplemented: OTHER_STORE,
  MethodNotAllowed: OTHER_STORE,
  QuotaExceeded: { kind: 'device', next: 'raise the quota, or delete something' },
};

const OTHERWISE: Advice = { kind: 'device', next: "ask the object store's operator, with the id" };

/** The code that S3 gives an error; '' if it gives none. */
function codeOf({ body }: HttpAnswer): string {
  return elementText(new TextDecoder().decode(body.subarray(0, 4096)), 'Code') ?? '';
}

/** Worth trying again: what failed is the server, or it has too much to do. */
export function isTransient({ status }: HttpAnswer): boolean {
  return status >= 500 ? status !== 501 : status === 408 || status === 429;
}

/** The credentials are older than the store believes; new ones may be there. */
export function wantsNewCredentials(answer: HttpAnswer): boolean {
  return (
    [400, 401, 403].includes(answer.status) &&
    /^(ExpiredToken|TokenRefreshRequired)$/.test(codeOf(answer))
  );
}

/** `s3://b: PUT k answered 403 AccessDenied (...), request id X at http://...`. */
export function describeAnswer({ store, what, gateway }: Asked, answer: HttpAnswer): string {
  const { status, headers, body } = answer;
  const text = new TextDecoder().decode(body.subarray(0, 4096));
  const code = elementText(text, 'Code');
  const message = elementText(text, 'Message')?.slice(0, 200);
  const id = headers['x-amz-request-id'] ?? elementText(text, 'RequestId');
  const region = headers['x-amz-bucket-region'];
  return [
    `${store}: ${what} answered ${status}`,
    code === undefined ? '' : ` ${code}`,
    message === undefined || message === '' ? '' : ` (${message})`,
    id === undefined ? '' : `, request id ${String(id)}`,
    region === undefined ? '' : `, bucket in region ${String(region)}`,
    ` at ${gateway}`,
  ].join('');
}

/** An answer that trying again would not change. */
export function refused(asked: Asked, answer: HttpAnswer): StoreError {
  const byStatus = answer.status >= 300 && answer.status < 400 ? REGION : OTHERWISE;
  const { kind, next } = ADVICE[codeOf(answer)] ?? byStatus;
  return new StoreError(kind, `${describeAnswer(asked, answer)}: ${next}`);
}
