/** The control API of a Keiki server, as far as benches need it. */
import { request } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import type { RequestOf } from '../../src/control/operations.js';
import type { Job, Stats } from '../../src/control/schemas.js';

/** Asked so often, the server does not feel it. */
const POLL_MS = 100;

export type SplitRequest = RequestOf<'splitVdisk'>['body'];

/** When a split began and ended, in milliseconds since 1970. */
export interface SplitTimes {
  readonly startMs: number;
  readonly endMs: number;
}

export class KeikiApi {
  readonly #socketPath: string;

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
  }

  stats(): Promise<Stats> {
    return this.#call<Stats>('GET', '/v1/stats');
  }

  async create(name: string, sizeBytes: number): Promise<void> {
    await this.#call('POST', '/v1/vdisks', { name, sizeBytes });
  }

  async snapshot(vdisk: string, name: string): Promise<void> {
    await this.#call('POST', '/v1/snapshots', { items: [{ vdisk, snapshot: name }] });
  }

  async clone(snapshot: string, names: readonly string[]): Promise<void> {
    await this.#call('POST', '/v1/clones', { source: snapshot, names });
  }

  /** Deletes vdisks, and waits until their space has come back. */
  async deleteVdisks(names: readonly string[]): Promise<void> {
    for (const name of names) await this.#call('DELETE', `/v1/vdisks/${name}`);
    for (let before = -1; ; ) {
      const { store } = await this.stats();
      if (store.usedBytes === before) return;
      before = store.usedBytes;
      await sleep(10 * POLL_MS);
    }
  }

  /** Resolves when the vdisk stands alone. */
  async split(name: string, options: SplitRequest): Promise<SplitTimes> {
    const { id } = await this.#call<Job>('POST', `/v1/vdisks/${name}/split`, options);
    for (;;) {
      const job = await this.#call<Job>('GET', `/v1/jobs/${id}`);
      if (job.endedAt !== null) {
        if (job.state !== 'done') throw new Error(`split of ${name}: ${JSON.stringify(job)}`);
        return { startMs: Date.parse(job.startedAt), endMs: Date.parse(job.endedAt) };
      }
      await sleep(POLL_MS);
    }
  }

  #call<T>(method: string, path: string, body?: unknown): Promise<T> {
    const headers = body === undefined ? {} : { 'content-type': 'application/json' };
    return new Promise((resolve, reject) => {
      const asked = request({ socketPath: this.#socketPath, method, path, headers }, (answer) => {
        let text = '';
        answer.setEncoding('utf8');
        answer.on('data', (chunk: string) => {
          text += chunk;
        });
        answer.on('end', () => {
          const { statusCode = 0 } = answer;
          if (statusCode >= 300) reject(new Error(`${method} ${path}: ${statusCode} ${text}`));
          else resolve((text === '' ? undefined : JSON.parse(text)) as T);
        });
      });
      asked.on('error', reject);
      asked.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }
}
