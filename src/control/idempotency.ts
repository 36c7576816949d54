/**
 * Answers to requests with an Idempotency-Key, so that a client which lost the answer can ask again
 * and gets the same one, without a second act.
 *
 * 1. A key stands for one operation with one body; with another one it is refused.
 * 2. At most KEYS_MAX keys of KEY_CHARS_MAX characters, for KEPT_MS; the oldest go first. None
 *    outlives the server.
 * 3. Only what has succeeded is kept: what failed may be tried again.
 */
import { createHash } from 'node:crypto';
import type { Clock } from '../env/clock.js';
import { ApiError } from './problem.js';

const KEYS_MAX = 1000;
const KEY_CHARS_MAX = 200;
const KEPT_MS = 24 * 3_600_000;

interface KeptAnswer {
  readonly digest: string;
  readonly atMs: number;
  readonly answer: Promise<unknown>;
}

export class IdempotencyKeys {
  readonly #clock: Clock;
  readonly #kept = new Map<string, KeptAnswer>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get size(): number {
    return this.#kept.size;
  }

  /** The answer of the first request with this key, or that of `act`. */
  once(key: string, request: readonly unknown[], act: () => Promise<unknown>): Promise<unknown> {
    if (key.length === 0 || key.length > KEY_CHARS_MAX) {
      throw new ApiError('invalid', `an Idempotency-Key has 1 to ${KEY_CHARS_MAX} characters`);
    }
    this.#dropOld();
    const digest = createHash('sha256').update(JSON.stringify(request)).digest('base64');
    const kept = this.#kept.get(key);
    if (kept !== undefined) {
      if (kept.digest === digest) return kept.answer;
      throw new ApiError('invalid', 'this Idempotency-Key stands for another request', {
        status: 422,
      });
    }
    const answer = act();
    this.#kept.set(key, { digest, atMs: this.#clock.nowMs(), answer });
    answer.catch(() => this.#kept.delete(key));
    return answer;
  }

  #dropOld(): void {
    const nowMs = this.#clock.nowMs();
    for (const [key, { atMs }] of this.#kept) {
      if (this.#kept.size < KEYS_MAX && nowMs - atMs < KEPT_MS) return;
      this.#kept.delete(key);
    }
  }
}
