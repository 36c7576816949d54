/**
 * Serves the operations over HTTP: finds what is meant, asks for the token, checks the request, and
 * answers with JSON, a stream, or a problem document.
 *
 * 1. Nothing is kept of a body that is longer than JSON_BYTES_MAX; streams are taken as they come.
 * 2. An answer that has begun and fails is cut off, so that nobody takes it for whole.
 * 3. `close` takes no new requests, lets those under way end for `drainMs`, then cuts them off.
 * 4. A bug ends the request with a 500 and is told to `onBug`.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Clock } from '../env/clock.js';
import { type ListenAddress, listenAt } from '../env/listen.js';
import type { Handler, Handlers } from './handler.js';
import { StreamAnswer } from './handler.js';
import type { IdempotencyKeys } from './idempotency.js';
import { toAddress } from './nbd-uri.js';
import {
  IDEMPOTENCY_KEY_HEADER,
  JSON_TYPE,
  OPERATIONS,
  type Operation,
  type OperationId,
} from './operations.js';
import { ApiError, isExpected, PROBLEM_TYPE, toProblem } from './problem.js';
import { discard, readJson } from './request-body.js';
import { matchRoute } from './router.js';
import type { Address } from './schemas.js';
import { Validation } from './validation.js';

const CONNECTIONS_MAX = 512;
const HEADERS_MS = 30_000;
const KEEP_ALIVE_MS = 30_000;
/** How long a client may go on sending a body that was answered already. */
const LINGER_MS = 5_000;
/** How long an answer may wait for a client that takes nothing. */
const STALL_MS = 120_000;

export interface ControlServerOptions {
  readonly handlers: Handlers;
  readonly idempotency: IdempotencyKeys;
  readonly clock: Clock;
  readonly onBug: (error: unknown, where: string) => void;
}

/** One request on its way. */
interface Exchange {
  readonly request: IncomingMessage;
  readonly response: ServerResponse;
  readonly signal: AbortSignal;
}

export class ControlServer {
  readonly #options: ControlServerOptions;
  readonly #validation = new Validation();
  readonly #servers: Server[] = [];
  readonly #underWay = new Set<AbortController>();
  readonly #addresses: Address[] = [];
  #isClosing = false;
  #onIdle: (() => void) | undefined;

  constructor(options: ControlServerOptions) {
    this.#options = options;
  }

  get addresses(): readonly Address[] {
    return this.#addresses;
  }

  /**
   * @param token  what a client must bring as bearer; undefined: who gets in may do all
   * @throws {StoreError} in-use, device
   */
  async listen(address: ListenAddress, token: string | undefined): Promise<void> {
    const digest = token === undefined ? undefined : digestOf(token);
    const server = createServer({ requestTimeout: 0, headersTimeout: HEADERS_MS });
    server.keepAliveTimeout = KEEP_ALIVE_MS;
    server.maxConnections = CONNECTIONS_MAX;
    server.on('request', (request, response) => {
      this.#serve(request, response, digest).catch((error: unknown) => {
        this.#options.onBug(error, 'control server');
      });
    });
    await listenAt(server, address);
    // Running out of descriptors, say: the server goes on.
    server.on('error', () => undefined);
    this.#servers.push(server);
    const bound = server.address();
    const port = typeof bound === 'object' && bound !== null ? bound.port : undefined;
    this.#addresses.push(toAddress(address, port));
  }

  async close(drainMs: number): Promise<void> {
    this.#isClosing = true;
    const closed = this.#servers.map((server) => new Promise((done) => server.close(done)));
    for (const server of this.#servers) server.closeIdleConnections();
    if (this.#underWay.size > 0) {
      const idle = new Promise<void>((resolve) => {
        this.#onIdle = resolve;
      });
      const late = new Promise<void>((resolve) => {
        this.#options.clock.setTimer(drainMs, resolve);
      });
      await Promise.race([idle, late]);
    }
    for (const each of this.#underWay) each.abort();
    for (const server of this.#servers) server.closeAllConnections();
    await Promise.all(closed);
  }

  async #serve(
    request: IncomingMessage,
    response: ServerResponse,
    digest: Buffer | undefined,
  ): Promise<void> {
    const abort = new AbortController();
    this.#underWay.add(abort);
    // The client is gone: 'close' follows.
    response.on('error', () => undefined);
    request.on('error', () => undefined);
    response.on('close', () => abort.abort());
    const exchange = { request, response, signal: abort.signal };
    try {
      await this.#answer(exchange, digest);
    } catch (error) {
      this.#refuse(exchange, error);
    } finally {
      this.#underWay.delete(abort);
      if (this.#underWay.size === 0) this.#onIdle?.();
      this.#endInput(request);
    }
  }

  async #answer(exchange: Exchange, digest: Buffer | undefined): Promise<void> {
    const { request, response } = exchange;
    if (this.#isClosing) throw new ApiError('closed', 'the server is stopping');
    const method = request.method ?? '';
    const [path = '', query = ''] = splitTarget(request.url ?? '');
    const match = matchRoute(method, path);
    // Who may not come in does not learn what is there.
    const isOpen = match.kind === 'found' && match.id === 'getHealth';
    if (!isOpen && digest !== undefined) checkToken(request.headers.authorization, digest);
    if (match.kind === 'none') throw new ApiError('not-found', `there is no ${path.slice(0, 200)}`);
    if (match.kind === 'method') {
      const allow = match.allowed.join(', ');
      if (method === 'OPTIONS') {
        this.#head(response, 204, { allow }).end();
        return;
      }
      throw new ApiError('invalid', `${method} is not for ${path.slice(0, 200)}: ${allow} are`, {
        status: 405,
        headers: { allow },
      });
    }
    const { id } = match;
    const operation: Operation = OPERATIONS[id];
    const params = this.#validation.path(id, match.params);
    const call = { params, query: this.#validation.query(id, query), body: undefined as unknown };
    if (operation.body !== undefined) {
      const value = await readJson(request, this.#options.clock);
      call.body = this.#validation.body(id, value);
    } else if (operation.takes === undefined) {
      await discard(request, this.#options.clock);
    }
    const { headers } = request;
    const full = { ...call, headers, stream: request, signal: exchange.signal };
    // The table of handlers and the schemas agree on the types of each operation.
    const handler: Handler<never> = this.#options.handlers[id];
    const act = async (): Promise<unknown> => handler(full);
    const answer = await this.#once(id, operation, headers[IDEMPOTENCY_KEY_HEADER], call, act);
    await this.#send(exchange, operation, answer);
  }

  #once(
    id: OperationId,
    operation: Operation,
    key: string | readonly string[] | undefined,
    call: object,
    act: () => Promise<unknown>,
  ): Promise<unknown> {
    if (operation.isIdempotent !== true || key === undefined) return act();
    return this.#options.idempotency.once(String(key), [id, call], act);
  }

  async #send(exchange: Exchange, operation: Operation, answer: unknown): Promise<void> {
    const { request, response } = exchange;
    if (answer instanceof StreamAnswer) {
      await this.#sendStream(exchange, operation.status, answer);
      return;
    }
    if (operation.status === 204) {
      this.#head(response, 204).end();
      return;
    }
    const text = `${JSON.stringify(answer)}\n`;
    this.#head(response, operation.status, {
      'content-type': JSON_TYPE,
      'content-length': Buffer.byteLength(text),
      'cache-control': 'no-store',
    });
    response.end(request.method === 'HEAD' ? undefined : text);
  }

  async #sendStream(
    { request, response, signal }: Exchange,
    status: number,
    answer: StreamAnswer,
  ): Promise<void> {
    const headers = { 'content-type': answer.type, 'cache-control': 'no-store', ...answer.headers };
    if (request.method === 'HEAD') {
      this.#head(response, status, headers).end();
      return;
    }
    const chunks = answer.chunks[Symbol.asyncIterator]();
    try {
      // The first piece decides whether there is an answer at all.
      let next = await chunks.next();
      this.#head(response, status, headers);
      response.flushHeaders();
      while (next.done !== true && !signal.aborted) {
        if (!response.write(next.value)) await this.#drained(response, signal);
        next = await chunks.next();
      }
      response.end();
    } finally {
      await chunks.return?.(undefined);
    }
  }

  #head(
    response: ServerResponse,
    status: number,
    headers: Readonly<Record<string, string | number>> = {},
  ): ServerResponse {
    // Else a client would send its next request to a server that is gone.
    if (this.#isClosing) response.shouldKeepAlive = false;
    return response.writeHead(status, headers);
  }

  /** Resolves when the client has taken what was written, or is gone. */
  async #drained(response: ServerResponse, signal: AbortSignal): Promise<void> {
    if (signal.aborted) return;
    await new Promise<void>((resolve) => {
      const timer = this.#options.clock.setTimer(STALL_MS, () => response.destroy());
      const done = (): void => {
        timer.cancel();
        response.off('drain', done);
        signal.removeEventListener('abort', done);
        resolve();
      };
      response.once('drain', done);
      signal.addEventListener('abort', done, { once: true });
    });
  }

  #refuse({ request, response }: Exchange, error: unknown): void {
    if (!isExpected(error)) this.#options.onBug(error, `${request.method} ${request.url}`);
    if (response.headersSent) {
      response.destroy();
      return;
    }
    const problem = toProblem(error);
    const headers = error instanceof ApiError ? error.facts.headers : undefined;
    const text = `${JSON.stringify(problem)}\n`;
    this.#head(response, problem.status, {
      'content-type': PROBLEM_TYPE,
      'content-length': Buffer.byteLength(text),
      'cache-control': 'no-store',
      ...(problem.kind === 'unauthorized' ? { 'www-authenticate': 'Bearer' } : {}),
      ...headers,
    });
    response.end(request.method === 'HEAD' ? undefined : text);
  }

  /** A client that still sends what nobody reads has a moment to see the answer. */
  #endInput(request: IncomingMessage): void {
    if (request.complete || request.destroyed) return;
    request.resume();
    this.#options.clock.setTimer(LINGER_MS, () => {
      if (!request.complete) request.destroy();
    });
  }
}

function splitTarget(target: string): string[] {
  const at = target.indexOf('?');
  return at < 0 ? [target] : [target.slice(0, at), target.slice(at + 1)];
}

function digestOf(token: string): Buffer {
  return createHash('sha256').update(token).digest();
}

function checkToken(header: string | undefined, digest: Buffer): void {
  const given = /^bearer +(\S+)$/i.exec(header ?? '')?.[1];
  // Digests have one length, and their comparison takes one time.
  if (given !== undefined && timingSafeEqual(digestOf(given), digest)) return;
  const what = given === undefined ? 'send "Authorization: Bearer <token>"' : 'this is another one';
  throw new ApiError('unauthorized', `a token is needed here: ${what}`);
}
