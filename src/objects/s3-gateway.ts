/**
 * One endpoint of an S3 store and one bucket behind it: makes the request, signs it, sends it.
 *
 * 1. What an answer means is not its business; that there is none is told by ExchangeError.
 * 2. An endpoint that failed is in trouble for a while, longer each time: others are asked first.
 */
import { StoreError } from '../base/store-error.js';
import type { Clock } from '../env/clock.js';
import { type HttpAnswer, HttpExchange } from './http-exchange.js';
import type { S3Signer } from './s3-signer.js';

export interface S3Request {
  readonly method: 'PUT' | 'GET' | 'DELETE' | 'POST';
  /** '' for the bucket itself. */
  readonly key: string;
  readonly query?: Readonly<Record<string, string>>;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
}

export interface S3Place {
  readonly endpoint: URL;
  readonly bucket: string;
  /** path: http://host/bucket/key; host: http://bucket.host/key. */
  readonly addressing: 'path' | 'host';
  readonly signer: S3Signer;
  readonly clock: Clock;
  readonly deadlineMs: number;
}

const TROUBLE_MS_FIRST = 500;
const TROUBLE_MS_MAX = 10_000;

export class S3Gateway {
  readonly #place: S3Place;
  readonly #url: URL;
  readonly #exchange: HttpExchange;
  #failuresInARow = 0;
  #troubleUntilMs = Number.NEGATIVE_INFINITY;

  constructor(place: S3Place) {
    const { endpoint, bucket, addressing, clock, deadlineMs } = place;
    this.#place = place;
    this.#url = new URL(endpoint);
    if (addressing === 'host') this.#url.hostname = `${bucket}.${endpoint.hostname}`;
    this.#exchange = new HttpExchange({ url: this.#url, clock, deadlineMs });
  }

  /** For people. */
  get name(): string {
    return this.#place.endpoint.origin;
  }

  /** Milliseconds until it should be asked again; 0: at once. */
  get troubleMs(): number {
    return Math.max(0, this.#troubleUntilMs - this.#place.clock.nowMs());
  }

  /** It gave no answer, or a server's error. */
  failed(): void {
    const ms = Math.min(TROUBLE_MS_MAX, TROUBLE_MS_FIRST * 2 ** this.#failuresInARow++);
    this.#troubleUntilMs = this.#place.clock.nowMs() + ms;
  }

  worked(): void {
    this.#failuresInARow = 0;
    this.#troubleUntilMs = Number.NEGATIVE_INFINITY;
  }

  /**
   * @throws {ExchangeError} no answer
   * @throws {StoreError} invalid: there are no credentials
   */
  async ask({ method, key, query = {}, headers = {}, body }: S3Request): Promise<HttpAnswer> {
    const { bucket, addressing, signer } = this.#place;
    const path = `${addressing === 'path' ? `/${encodePart(bucket)}` : ''}/${encodeKey(key)}`;
    const signed = await signer
      .sign({ method, url: this.#url, path, query, headers, body })
      .catch((error: unknown) => {
        throw noCredentials(error);
      });
    const pairs = Object.entries(query).map(
      ([name, value]) => `${encodePart(name)}=${encodePart(value)}`,
    );
    const whole = pairs.length === 0 ? path : `${path}?${pairs.join('&')}`;
    return this.#exchange.ask({ method, path: whole, headers: signed, body });
  }

  /** Requests under way fail. */
  close(): void {
    this.#exchange.close();
  }
}

function noCredentials(cause: unknown): StoreError {
  const why = cause instanceof Error ? cause.message : String(cause);
  return new StoreError(
    'invalid',
    `no credentials for the object store (${why}): set AWS_ACCESS_KEY_ID and ` +
      'AWS_SECRET_ACCESS_KEY, or a profile that the AWS tools find',
    { cause },
  );
}

/** Every byte but the unreserved ones (RFC 3986 §2.3), as what is signed has it. */
function encodePart(text: string): string {
  return encodeURIComponent(text).replaceAll(
    /[!'()*]/g,
    (mark) => `%${mark.charCodeAt(0).toString(16).toUpperCase()}`,
  );
}

function encodeKey(key: string): string {
  return key.split('/').map(encodePart).join('/');
}
