/**
 * Bodies of requests: JSON, kept whole within a bound, and streams, taken as they come.
 *
 * 1. A JSON body has at most JSON_BYTES_MAX bytes and comes within JSON_MS; of a longer one nothing
 *    is kept.
 * 2. A stream that brings nothing for STALL_MS, whose client is gone, or that is cancelled, ends
 *    with an error.
 */
import type { IncomingMessage } from 'node:http';
import type { Clock, Timer } from '../env/clock.js';
import { JSON_TYPE } from './operations.js';
import { ApiError } from './problem.js';

const JSON_BYTES_MAX = 1024 * 1024;
/** So much of a body that is too long is read before the answer, so that its sender sees it. */
const DISCARD_BYTES_MAX = 16 * 1024 * 1024;
const JSON_MS = 30_000;
const STALL_MS = 60_000;

const utf8 = new TextDecoder('utf-8', { fatal: true });

/** @throws {ApiError} invalid, too-large */
export async function readJson(request: IncomingMessage, clock: Clock): Promise<unknown> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of boundedChunks(request, clock)) {
    bytes += chunk.length;
    if (bytes <= JSON_BYTES_MAX) chunks.push(chunk);
    else chunks.length = 0;
  }
  if (bytes > JSON_BYTES_MAX) {
    const message = `the body has more than ${JSON_BYTES_MAX} bytes`;
    throw new ApiError('too-large', message);
  }
  if (typeOf(request) !== JSON_TYPE) {
    const message = `a body of type ${JSON_TYPE} is needed`;
    throw new ApiError('invalid', message, { status: 415 });
  }
  try {
    return JSON.parse(utf8.decode(Buffer.concat(chunks)));
  } catch {
    throw new ApiError('invalid', 'the body is no JSON');
  }
}

/** Takes the body of an operation that needs none. */
export async function discard(request: IncomingMessage, clock: Clock): Promise<void> {
  if (request.complete) return;
  const chunks = boundedChunks(request, clock);
  for (let next = await chunks.next(); next.done !== true; ) next = await chunks.next();
}

/** The media type, without parameters; undefined if none is given. */
export function typeOf(request: IncomingMessage): string | undefined {
  return request.headers['content-type']?.split(';')[0]?.trim().toLowerCase();
}

async function* boundedChunks(request: IncomingMessage, clock: Clock): AsyncGenerator<Uint8Array> {
  const abort = new AbortController();
  const timer = clock.setTimer(JSON_MS, () => abort.abort());
  let bytes = 0;
  try {
    for await (const chunk of streamChunks(request, abort.signal, clock)) {
      bytes += chunk.length;
      if (bytes > DISCARD_BYTES_MAX) {
        throw new ApiError('too-large', `the body has more than ${DISCARD_BYTES_MAX} bytes`);
      }
      yield chunk;
    }
  } finally {
    timer.cancel();
  }
}

/** @throws {ApiError} cancelled (signal), invalid (cut off, or nothing comes) */
export async function* streamChunks(
  request: IncomingMessage,
  signal: AbortSignal,
  clock: Clock,
): AsyncGenerator<Uint8Array> {
  const chunks: AsyncIterator<Uint8Array> = request.iterator({ destroyOnReturn: false });
  for (;;) {
    const next = await nextChunk(chunks, signal, clock);
    if (next.done === true) return;
    yield next.value;
  }
}

function nextChunk(
  chunks: AsyncIterator<Uint8Array>,
  signal: AbortSignal,
  clock: Clock,
): Promise<IteratorResult<Uint8Array>> {
  return new Promise((resolve, reject) => {
    let timer: Timer | undefined;
    const end = (): void => {
      timer?.cancel();
      signal.removeEventListener('abort', onAbort);
    };
    const onAbort = (): void => {
      end();
      reject(new ApiError('cancelled', 'the transfer was cancelled'));
    };
    if (signal.aborted) {
      onAbort();
      return;
    }
    signal.addEventListener('abort', onAbort, { once: true });
    timer = clock.setTimer(STALL_MS, () => {
      end();
      reject(new ApiError('invalid', `the body stands still for ${STALL_MS / 1000} s`));
    });
    chunks.next().then(
      (next) => {
        end();
        resolve(next);
      },
      () => {
        end();
        reject(new ApiError('invalid', 'the body was cut off'));
      },
    );
  });
}
