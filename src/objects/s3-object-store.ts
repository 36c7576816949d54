/**
 * An object store that speaks S3: Amazon's, Ceph's RADOS gateway, and others that pass the probe.
 *
 * 1. A PUT whose bytes may have reached a server is never sent again from here: without an answer,
 *    or with one that leaves it open (5xx, 408, 409, 429), putNew rejects with AmbiguousPutError.
 *    The caller reads the key, and may put again.
 * 2. All else is tried again, at another endpoint if there is one, with jitter and patience. If no
 *    PUT has had a clear answer for that long the next unknown outcome is PatienceOverError: what a
 *    caller makes of several requests ends as a single one does.
 * 3. At most `requests` PUTs, and as many other requests, are under way; the next ones wait.
 *
 * Source: Amazon S3 API Reference: PutObject ("Conditional writes"), GetObject, DeleteObjects,
 * ListObjectsV2
 */
import { createHash } from 'node:crypto';
import { invariant } from '../base/invariant.js';
import { StoreError } from '../base/store-error.js';
import { joined } from '../env/buffers.js';
import type { Clock } from '../env/clock.js';
import { AmbiguousPutError, type ObjectStore, PatienceOverError } from '../env/object-store.js';
import type { Random } from '../env/random.js';
import { ExchangeError, type HttpAnswer } from './http-exchange.js';
import { RequestSlots } from './request-slots.js';
import { Outage, pause, Retries } from './retries.js';
import { describeAnswer, isTransient, refused, wantsNewCredentials } from './s3-errors.js';
import type { S3Gateway, S3Request } from './s3-gateway.js';
import type { CredentialSource } from './s3-signer.js';
import { elements, elementText, escapeXml, isXmlText, keysOf } from './s3-xml.js';

export interface S3Options {
  readonly bucket: string;
  /** Of one store: what one was told the others know. At least one. */
  readonly gateways: readonly S3Gateway[];
  readonly credentials: CredentialSource;
  readonly clock: Clock;
  readonly random: Random;
  /** PUTs under way at once, and other requests. */
  readonly requests: number;
  /** How long requests are tried again, from the first that fails, before they fail. */
  readonly patienceMs: number;
}

const DELETE_KEYS_MAX = 1000;

export class S3ObjectStore implements ObjectStore {
  readonly #options: S3Options;
  #gateways: readonly S3Gateway[];
  readonly #puts: RequestSlots;
  readonly #others: RequestSlots;
  readonly #putOutage: Outage;
  readonly #otherOutage: Outage;
  #turn = 0;
  #retries = 0;

  constructor(options: S3Options) {
    invariant(options.gateways.length > 0, 'an S3 store has an endpoint');
    this.#options = options;
    this.#gateways = options.gateways;
    this.#puts = new RequestSlots(options.requests);
    this.#others = new RequestSlots(options.requests);
    this.#putOutage = new Outage(options.patienceMs);
    this.#otherOutage = new Outage(options.patienceMs);
  }

  get name(): string {
    return `s3://${this.#options.bucket}`;
  }

  /** Requests that were sent again, or left open. */
  get retries(): number {
    return this.#retries;
  }

  putNew(key: string, chunks: readonly Uint8Array[]): Promise<'created' | 'exists'> {
    if (key === '') return Promise.reject(new StoreError('invalid', 'an object needs a key'));
    const [only] = chunks;
    const body = only === undefined || chunks.length > 1 ? joined(chunks) : only;
    return this.#puts.run(() => this.#put(key, body));
  }

  async get(key: string, offset = 0, length?: number): Promise<Uint8Array | undefined> {
    if (key === '') return undefined;
    if (length === 0) return (await this.get(key)) === undefined ? undefined : new Uint8Array();
    const isWhole = offset === 0 && length === undefined;
    const range = `bytes=${offset}-${length === undefined ? '' : offset + length - 1}`;
    const headers = isWhole ? {} : { range };
    const answer = await this.#ask({ method: 'GET', key, headers }, [200, 206, 404, 416]);
    switch (answer.status) {
      case 206:
        return this.#part(key, offset, length, answer);
      case 200:
        // A server may leave the range out of account.
        return isWhole ? answer.body : answer.body.slice(offset, endOf(offset, length));
      case 416:
        return new Uint8Array();
      default:
        return undefined;
    }
  }

  /** The bytes, if they are the ones that were asked for. */
  #part(key: string, offset: number, length: number | undefined, answer: HttpAnswer): Uint8Array {
    const range = answer.headers['content-range'] ?? '';
    const [, first, last] = /^bytes (\d+)-(\d+)\//.exec(range) ?? [];
    const isAsked =
      Number(first) === offset &&
      Number(last) - offset + 1 === answer.body.length &&
      (length === undefined || answer.body.length <= length);
    if (isAsked) return answer.body;
    const message = `${this.name}: GET ${key} from ${offset} was answered with "${range}"`;
    throw new StoreError('device', message);
  }

  async delete(keys: readonly string[]): Promise<void> {
    const inXml = keys.filter((key) => key !== '' && isXmlText(key));
    const others = keys.filter((key) => key !== '' && !isXmlText(key));
    // One by one: for a single key no list has to be sent, hashed and read.
    const single = inXml.length === 1 ? [...others, ...inXml] : others;
    const many = inXml.length === 1 ? [] : inXml;
    for (const key of single) await this.#ask({ method: 'DELETE', key }, [200, 204, 404]);
    for (let at = 0; at < many.length; at += DELETE_KEYS_MAX) {
      await this.#deleteSome(many.slice(at, at + DELETE_KEYS_MAX));
    }
  }

  async #deleteSome(keys: readonly string[]): Promise<void> {
    const items = keys.map((key) => `<Object><Key>${escapeXml(key)}</Key></Object>`).join('');
    const body = Buffer.from(`<Delete><Quiet>true</Quiet>${items}</Delete>`);
    // The one request for which S3 demands a checksum; MD5 is the one that all stores know.
    const headers = { 'content-md5': md5(body) };
    const request = { method: 'POST', key: '', query: { delete: '' }, headers, body } as const;
    const answer = await this.#ask(request, [200]);
    const [error] = elements(new TextDecoder().decode(answer.body), 'Error');
    if (error === undefined) return;
    const [key, code] = [elementText(error, 'Key') ?? '', elementText(error, 'Code') ?? ''];
    const message = `${this.name}: DELETE ${key}, one of ${keys.length}, answered ${code}`;
    throw new StoreError('device', message);
  }

  async list(prefix: string, after?: string): Promise<string[]> {
    const query = {
      'list-type': '2',
      'max-keys': '1000',
      'encoding-type': 'url',
      prefix,
      ...(after === undefined ? {} : { 'start-after': after }),
    };
    const answer = await this.#ask({ method: 'GET', key: '', query }, [200]);
    return keysOf(new TextDecoder().decode(answer.body), this.name);
  }

  /** An answer with one of these statuses, about the bucket itself. Not for the hot path. */
  askBucket(
    method: S3Request['method'],
    query: Readonly<Record<string, string>>,
    statuses: readonly number[],
    body?: Uint8Array,
  ): Promise<HttpAnswer> {
    if (body === undefined) return this.#ask({ method, key: '', query }, statuses);
    const headers = { 'content-md5': md5(body) };
    return this.#ask({ method, key: '', query, headers, body }, statuses);
  }

  /** A client of the same bucket for each endpoint. */
  throughEach(options: Pick<S3Options, 'patienceMs'>): S3ObjectStore[] {
    const { gateways } = this.#options;
    return gateways.map(
      (gateway) => new S3ObjectStore({ ...this.#options, ...options, gateways: [gateway] }),
    );
  }

  /** Its endpoints, of `throughEach`, are not asked any more; one is left. */
  leaveOut(way: S3ObjectStore): void {
    const left = this.#gateways.filter((gateway) => !way.#gateways.includes(gateway));
    if (left.length > 0) this.#gateways = left;
  }

  /** Requests under way fail. */
  close(): void {
    for (const gateway of this.#options.gateways) gateway.close();
  }

  async #put(key: string, body: Uint8Array): Promise<'created' | 'exists'> {
    const { clock, credentials } = this.#options;
    const retries = this.#newRetries();
    const headers = { 'if-none-match': '*', 'content-type': 'application/octet-stream' };
    for (;;) {
      const gateway = this.#pick();
      const startMs = clock.nowMs();
      let answer: HttpAnswer;
      try {
        answer = await gateway.ask({ method: 'PUT', key, headers, body });
      } catch (error) {
        if (!(error instanceof ExchangeError)) throw error;
        gateway.failed();
        this.#putOutage.failed(startMs, clock.nowMs());
        const message = `${this.name}: PUT ${key}: ${error.message}`;
        if (error.wasSent) throw await this.#unknown(message, error);
        if (!(await this.#again(retries))) throw this.#outOfPatience(message, error);
        continue;
      }
      const asked = { store: this.name, what: `PUT ${key}`, gateway: gateway.name };
      if (isTransient(answer)) {
        gateway.failed();
        this.#putOutage.failed(startMs, clock.nowMs());
        throw await this.#unknown(describeAnswer(asked, answer));
      }
      gateway.worked();
      if (answer.status === 409) {
        this.#putOutage.failed(startMs, clock.nowMs());
        throw await this.#unknown(describeAnswer(asked, answer));
      }
      this.#putOutage.worked();
      if (answer.status >= 200 && answer.status < 300) return 'created';
      if (answer.status === 412) return 'exists';
      if (!wantsNewCredentials(answer) || retries.count > 0) throw refused(asked, answer);
      // Refused before anything was done: with other credentials it may be sent again.
      await credentials({ forceRefresh: true });
      if (!(await this.#again(retries))) throw refused(asked, answer);
    }
  }

  /** Tries until one of these statuses is the answer. For what may be done twice. */
  #ask(request: S3Request, statuses: readonly number[]): Promise<HttpAnswer> {
    return this.#others.run(() => this.#askNow(request, statuses));
  }

  async #askNow(request: S3Request, statuses: readonly number[]): Promise<HttpAnswer> {
    const { clock, credentials } = this.#options;
    const retries = this.#newRetries();
    const what = `${request.method} ${request.key === '' ? 'of the bucket' : request.key}`;
    for (;;) {
      const gateway = this.#pick();
      const asked = { store: this.name, what, gateway: gateway.name };
      const startMs = clock.nowMs();
      let failure: StoreError;
      try {
        const answer = await gateway.ask(request);
        if (statuses.includes(answer.status) && !isMissingBucket(request, answer)) {
          gateway.worked();
          this.#otherOutage.worked();
          return answer;
        }
        failure = refused(asked, answer);
        if (isTransient(answer)) {
          gateway.failed();
          this.#otherOutage.failed(startMs, clock.nowMs());
          failure = this.#outOfPatience(describeAnswer(asked, answer));
        } else if (wantsNewCredentials(answer) && retries.count === 0) {
          await credentials({ forceRefresh: true });
        } else throw failure;
      } catch (error) {
        if (!(error instanceof ExchangeError)) throw error;
        gateway.failed();
        this.#otherOutage.failed(startMs, clock.nowMs());
        failure = this.#outOfPatience(`${this.name}: ${what}: ${error.message}`, error);
      }
      if (!(await this.#again(retries))) throw failure;
    }
  }

  /** Patience counts from when requests began to fail. */
  #newRetries(): Retries {
    const { clock, random, patienceMs } = this.#options;
    const nowMs = clock.nowMs();
    const since = [this.#putOutage, this.#otherOutage].flatMap((each) => each.sinceMs(nowMs) ?? []);
    return new Retries(
      clock,
      random,
      patienceMs,
      since.length === 0 ? undefined : Math.min(...since),
    );
  }

  #again(retries: Retries): Promise<boolean> {
    this.#retries++;
    return retries.again();
  }

  /** After a pause: whoever reads the key next should find the server better. */
  async #unknown(message: string, cause?: unknown): Promise<AmbiguousPutError | StoreError> {
    this.#retries++;
    const { clock, random } = this.#options;
    if (this.#putOutage.isOver(clock.nowMs())) return this.#outOfPatience(message, cause);
    await pause(clock, this.#putOutage.pauseMs(random));
    return new AmbiguousPutError(message, { cause });
  }

  #outOfPatience(message: string, cause?: unknown): StoreError {
    const seconds = Math.round(this.#options.patienceMs / 1000);
    const next = 'is the object store running, and can this machine reach it?';
    return new PatienceOverError(`${message}; tried for ${seconds} s: ${next}`, { cause });
  }

  /** The endpoints in turn, those in trouble last. */
  #pick(): S3Gateway {
    const gateways = this.#gateways;
    const turn = this.#turn++;
    let best: S3Gateway | undefined;
    for (let step = 0; step < gateways.length; step++) {
      const gateway = gateways[(turn + step) % gateways.length] as S3Gateway;
      if (gateway.troubleMs === 0) return gateway;
      if (best === undefined || gateway.troubleMs < best.troubleMs) best = gateway;
    }
    return best as S3Gateway;
  }
}

function md5(body: Uint8Array): string {
  return createHash('md5').update(body).digest('base64');
}

function endOf(offset: number, length: number | undefined): number | undefined {
  return length === undefined ? undefined : offset + length;
}

/** That a bucket is missing is no answer to whether it holds an object. */
function isMissingBucket(request: S3Request, answer: HttpAnswer): boolean {
  return answer.status === 404 && request.key !== '' && isNoBucket(answer);
}

function isNoBucket({ body }: HttpAnswer): boolean {
  return elementText(new TextDecoder().decode(body), 'Code') === 'NoSuchBucket';
}
