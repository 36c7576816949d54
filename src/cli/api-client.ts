/**
 * The client of the control API: one call an operation, over a unix socket or TCP.
 *
 * 1. What the server refuses is a CommandError of the problem's kind, with the server's words.
 * 2. An answer that is cut off is an error, never a shorter answer.
 * 3. A body that is a stream stops when the server has answered, or the command was interrupted.
 */
import { Agent, type IncomingMessage, type OutgoingHttpHeaders, request } from 'node:http';
import type { AnswerOf, RequestOf } from '../control/operations.js';
import type { Problem } from '../control/schemas.js';
import { type ApiAddress, describeApiAddress } from './api-address.js';
import { CommandError, type FailureKind, isSystemError } from './failure.js';
import { JSON_MEDIA, ROUTES, type RouteId } from './routes.js';

export interface ApiClientOptions {
  readonly address: ApiAddress;
  readonly token: string | undefined;
  /** Ends all that is under way. */
  readonly signal: AbortSignal;
}

/** The parts that an operation takes, and no others. */
export type Ask<K extends RouteId> = {
  readonly [P in keyof RequestOf<K> as RequestOf<K>[P] extends undefined
    ? never
    : P]: RequestOf<K>[P];
};

interface Parts {
  readonly params?: Readonly<Record<string, string>>;
  readonly query?: Readonly<Record<string, string | number | undefined>>;
  readonly body?: unknown;
}

export interface UploadBody {
  readonly type: string;
  readonly chunks: AsyncIterable<Uint8Array>;
}

const CONNECT_MS = 10_000;

export class ApiClient {
  readonly #options: ApiClientOptions;
  readonly #agent = new Agent({ keepAlive: true });

  constructor(options: ApiClientOptions) {
    this.#options = options;
  }

  /** @throws {CommandError} */
  async call<K extends RouteId>(id: K, ask: Ask<K>): Promise<AnswerOf<K>> {
    const response = await this.#send(id, ask, JSON_MEDIA, undefined);
    return (await this.#json(response)) as AnswerOf<K>;
  }

  /** The answer as it comes. @throws {CommandError} */
  async stream<K extends RouteId>(id: K, ask: Ask<K>, accept: string): Promise<ApiStream> {
    const response = await this.#send(id, ask, accept, undefined);
    return new ApiStream(response, this.#options.signal);
  }

  /** Sends a stream. What its chunks throw is thrown, and the server undoes what it began. */
  async upload(ask: Ask<'writeData'>, body: UploadBody): Promise<AnswerOf<'writeData'>> {
    const response = await this.#send('writeData', ask, JSON_MEDIA, body);
    return (await this.#json(response)) as AnswerOf<'writeData'>;
  }

  close(): void {
    this.#agent.destroy();
  }

  #json(response: IncomingMessage): Promise<unknown> {
    return readJson(response, this.#options.signal);
  }

  async #send(
    id: RouteId,
    { params = {}, query = {}, body }: Parts,
    accept: string,
    upload: UploadBody | undefined,
  ): Promise<IncomingMessage> {
    const { address, token, signal } = this.#options;
    signal.throwIfAborted();
    const text = body === undefined ? undefined : JSON.stringify(body);
    const headers: OutgoingHttpHeaders = { accept };
    if (token !== undefined) headers.authorization = `Bearer ${token}`;
    if (text !== undefined) {
      headers['content-type'] = JSON_MEDIA;
      headers['content-length'] = Buffer.byteLength(text);
    }
    if (upload !== undefined) headers['content-type'] = upload.type;
    const { method, path } = ROUTES[id];
    const where =
      address.kind === 'unix'
        ? { socketPath: address.path, host: 'localhost' }
        : { host: address.host, port: address.port };
    const outgoing = request({
      ...where,
      method,
      path: toTarget(path, params, query),
      headers,
      agent: this.#agent,
      signal,
    });
    const answered = new Promise<IncomingMessage>((resolve, reject) => {
      outgoing.once('response', resolve);
      outgoing.on('error', reject);
    });
    const watch = setTimeout(() => {
      if (outgoing.socket?.connecting !== false) {
        outgoing.destroy(noServer(address, `nothing within ${CONNECT_MS / 1000} s`));
      }
    }, CONNECT_MS);
    try {
      if (upload === undefined) outgoing.end(text);
      else await sendBody(outgoing, upload.chunks, answered);
      const response = await answered;
      if ((response.statusCode ?? 500) >= 300) throw await toError(response, signal);
      return response;
    } catch (error) {
      answered.catch(() => undefined);
      signal.throwIfAborted();
      throw error instanceof Error ? toConnectError(error, address) : error;
    } finally {
      clearTimeout(watch);
    }
  }
}

/** An answer that comes in pieces. */
export class ApiStream {
  readonly #response: IncomingMessage;
  readonly #signal: AbortSignal;

  constructor(response: IncomingMessage, signal: AbortSignal) {
    this.#response = response;
    this.#signal = signal;
  }

  /** @throws {CommandError} failed: cut off */
  get chunks(): AsyncIterable<Uint8Array> {
    return bodyOf(this.#response, this.#signal);
  }

  close(): void {
    this.#response.destroy();
  }
}

/** Writes the chunks; stops if the server has answered before, as it does to refuse. */
async function sendBody(
  outgoing: ReturnType<typeof request>,
  chunks: AsyncIterable<Uint8Array>,
  answered: Promise<unknown>,
): Promise<void> {
  let isOver = false;
  let wake: () => void = () => undefined;
  const end = (): void => {
    isOver = true;
    wake();
  };
  answered.then(end, end);
  outgoing.on('drain', () => wake());
  try {
    for await (const chunk of chunks) {
      if (isOver) return;
      if (outgoing.write(chunk)) continue;
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
      if (isOver) return;
    }
  } catch (error) {
    // Without its last chunk the body is cut off, and the server undoes what it has begun.
    outgoing.destroy();
    throw error;
  }
  outgoing.end();
}

function toTarget(
  path: string,
  params: Readonly<Record<string, string>>,
  query: Readonly<Record<string, string | number | undefined>>,
): string {
  const filled = path.replaceAll(/\{(\w+)\}/g, (_all, key: string) =>
    encodeURIComponent(params[key] ?? ''),
  );
  const pairs = Object.entries(query).flatMap(([key, value]) =>
    value === undefined ? [] : [`${key}=${encodeURIComponent(value)}`],
  );
  return pairs.length === 0 ? filled : `${filled}?${pairs.join('&')}`;
}

async function* bodyOf(response: IncomingMessage, signal: AbortSignal): AsyncGenerator<Uint8Array> {
  try {
    for await (const chunk of response as AsyncIterable<Uint8Array>) yield chunk;
  } catch (cause) {
    signal.throwIfAborted();
    throw new CommandError('failed', 'the server cut its answer off', { cause });
  }
}

async function readJson(response: IncomingMessage, signal: AbortSignal): Promise<unknown> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of bodyOf(response, signal)) chunks.push(chunk);
  if (response.statusCode === 204) return undefined;
  try {
    return JSON.parse(Buffer.concat(chunks).toString()) as unknown;
  } catch (cause) {
    throw new CommandError('failed', 'the answer is no JSON: is this a keiki server?', { cause });
  }
}

async function toError(response: IncomingMessage, signal: AbortSignal): Promise<CommandError> {
  const status = response.statusCode ?? 0;
  const body = await readJson(response, signal).catch(() => undefined);
  if (typeof body !== 'object' || body === null || !('kind' in body)) {
    return new CommandError('failed', `the server answers ${status}: is this a keiki server?`);
  }
  const { kind, detail, faults = [] } = body as Problem;
  const places = faults.map(({ where, message }) => `\n  ${where}: ${message}`).join('');
  return new CommandError(kind, detail + places + nextStep(kind));
}

function nextStep(kind: FailureKind): string {
  if (kind === 'unauthorized') return '; name its file with --token-file';
  return '';
}

function toConnectError(error: Error, address: ApiAddress): Error {
  if (error instanceof CommandError) return error;
  if (isSystemError(error, 'ENOENT')) return noServer(address, 'there is no such socket');
  if (isSystemError(error, 'ECONNREFUSED')) return noServer(address, 'nobody answers there');
  if (isSystemError(error, 'EACCES')) {
    const message = `${describeApiAddress(address)}: this socket is not for you: be its owner`;
    return new CommandError('unauthorized', message, { cause: error });
  }
  const isNetwork = ['ENOTFOUND', 'EAI_AGAIN', 'EHOSTUNREACH', 'ENETUNREACH', 'ENOTSOCK'].some(
    (code) => isSystemError(error, code),
  );
  if (isNetwork) return noServer(address, error.message);
  if (isSystemError(error, 'ECONNRESET') || isSystemError(error, 'EPIPE')) {
    const message = `the server at ${describeApiAddress(address)} has ended the connection`;
    return new CommandError('failed', `${message}: see its log`, { cause: error });
  }
  return error;
}

function noServer(address: ApiAddress, what: string): CommandError {
  const at = describeApiAddress(address);
  const start = 'start one with `keiki serve --store FILE --size 64G`';
  const message = `no server at ${at} (${what}): ${start}, or name another with --api`;
  return new CommandError('no-server', message);
}
