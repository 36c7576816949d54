/**
 * One HTTP request and its answer, on a connection that is kept for the next one.
 *
 * 1. It ends by its deadline: answered, or rejected with ExchangeError.
 * 2. ExchangeError says whether anything may have reached the server. Only before its connection
 *    stands is that certainly not so.
 * 3. An answer is whole: one that ends before its Content-Length is an error.
 *
 * Source: RFC 9110; RFC 9112 §6.3
 */
import {
  type IncomingHttpHeaders,
  type IncomingMessage,
  Agent as PlainAgent,
  request,
} from 'node:http';
import { request as secureRequest, Agent as TlsAgent } from 'node:https';
import type { Clock } from '../env/clock.js';

export interface HttpRequest {
  readonly method: 'PUT' | 'GET' | 'DELETE' | 'POST';
  /** Encoded, with the query. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Uint8Array | undefined;
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Uint8Array;
}

/** There is no answer. */
export class ExchangeError extends Error {
  override readonly name = 'ExchangeError';
  /** The request may have reached the server, and may have been done. */
  readonly wasSent: boolean;

  constructor(message: string, wasSent: boolean, cause: unknown) {
    super(message, { cause });
    this.wasSent = wasSent;
  }
}

export interface HttpPlace {
  readonly url: URL;
  readonly clock: Clock;
  /** From the call to the whole answer. */
  readonly deadlineMs: number;
}

/** A server closes idle connections after some seconds; we want to be the first. */
const IDLE_MS = 4000;
/** More than an answer of ours can have: a record is 4 MiB, a list of 1,000 keys below that. */
const ANSWER_BYTES_MAX = 32 * 1024 * 1024;

/** Requests to one server. */
export class HttpExchange {
  readonly #place: HttpPlace;
  readonly #agent: PlainAgent | TlsAgent;

  constructor(place: HttpPlace) {
    this.#place = place;
    const options = {
      keepAlive: true,
      noDelay: true,
      timeout: IDLE_MS,
      scheduling: 'lifo',
    } as const;
    this.#agent = place.url.protocol === 'https:' ? new TlsAgent(options) : new PlainAgent(options);
  }

  /** @throws {ExchangeError} */
  ask({ method, path, headers, body }: HttpRequest): Promise<HttpAnswer> {
    const { url, clock, deadlineMs } = this.#place;
    const send = url.protocol === 'https:' ? secureRequest : request;
    return new Promise((resolve, reject) => {
      let wasSent = false;
      const { hostname, port } = url;
      const asking = send({ agent: this.#agent, host: hostname, port, method, path, headers });
      const deadline = clock.setTimer(deadlineMs, () => {
        asking.destroy(new Error(`no answer within ${deadlineMs} ms`));
      });
      const fail = (error: unknown): void => {
        deadline.cancel();
        const why = error instanceof Error ? error.message : String(error);
        reject(new ExchangeError(`${url.origin}: ${why}`, wasSent, error));
      };
      asking.on('socket', (socket) => {
        if (!socket.connecting) wasSent = true;
        else socket.once('connect', () => (wasSent = true));
      });
      asking.on('error', fail);
      asking.on('response', (response) => {
        readWhole(response).then((whole) => {
          deadline.cancel();
          resolve({ status: response.statusCode ?? 0, headers: response.headers, body: whole });
        }, fail);
      });
      asking.end(body);
    });
  }

  /** Requests under way fail. */
  close(): void {
    this.#agent.destroy();
  }
}

/** The body, in one buffer that nobody else holds. */
function readWhole(response: IncomingMessage): Promise<Uint8Array> {
  const length = response.headers['content-length'];
  if (length === undefined) return readChunked(response);
  return new Promise((resolve, reject) => {
    const wanted = Number(length);
    if (!(wanted <= ANSWER_BYTES_MAX)) {
      response.destroy(new Error(`an answer of ${length} bytes was not asked for`));
    }
    // Not zeroed: it is handed on only if every byte of it came.
    const body = Buffer.allocUnsafeSlow(wanted <= ANSWER_BYTES_MAX ? wanted : 0);
    let filled = 0;
    response.on('data', (chunk: Buffer) => {
      body.set(chunk, filled);
      filled += chunk.length;
    });
    response.on('error', reject);
    response.on('end', () => {
      if (filled === wanted) resolve(body);
      else reject(cutShort(filled, length));
    });
  });
}

function readChunked(response: IncomingMessage): Promise<Uint8Array> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let filled = 0;
    response.on('data', (chunk: Buffer) => {
      filled += chunk.length;
      if (filled > ANSWER_BYTES_MAX) response.destroy(new Error('an answer without end'));
      else chunks.push(chunk);
    });
    response.on('error', reject);
    response.on('end', () => resolve(Buffer.concat(chunks)));
  });
}

function cutShort(filled: number, wanted: string): Error {
  return new Error(`the answer ended after ${filled} bytes of ${wanted}`);
}
