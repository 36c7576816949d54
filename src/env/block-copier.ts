/**
 * Owns the threads that copy blocks within one open file: the bytes never come to the event loop,
 * so clients do not wait for them.
 *
 * 1. No block is written unless it has its checksum.
 * 2. What was written is volatile, as any write through the same descriptor.
 * 3. The threads start with the first copy, and do not keep the process alive.
 */
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { invariant } from '../base/invariant.js';
import { BLOCK_BYTES, MIB } from '../base/units.js';
import type { BlockCopies } from './device.js';

/** What one copy takes at most: the memory of a thread. */
export const COPY_BLOCKS_MAX = MIB / BLOCK_BYTES;
const THREADS_MAX = 2;
/** Above that of the process: copies wait for clients' work on the same cores. */
const NICENESS = 19;

/** What `BlockCopies` says, in a form that is quickly handed over. */
export interface CopyRequest {
  readonly id: number;
  readonly from: Float64Array;
  readonly to: Float64Array;
  readonly crcs: Uint32Array;
}

export interface CopyReply {
  readonly id: number;
  /** Indexes of blocks that cannot be read or have another checksum. */
  readonly bad: readonly number[];
  /** Why it could not be written. */
  readonly error: unknown;
}

interface Waiting {
  readonly resolve: (bad: readonly number[]) => void;
  readonly reject: (error: unknown) => void;
}

export class BlockCopier {
  readonly #threads: CopyThread[];

  constructor(descriptor: number) {
    const count = Math.min(THREADS_MAX, availableParallelism());
    this.#threads = Array.from({ length: count }, () => new CopyThread(descriptor));
  }

  /**
   * @returns the indexes of blocks that could not be read or are damaged. Rejects with the
   *   system's error if one could not be written.
   */
  copy(copies: BlockCopies): Promise<readonly number[]> {
    const [first, ...others] = this.#threads;
    invariant(first !== undefined, 'there is a thread');
    let least = first;
    for (const thread of others) if (thread.underWay < least.underWay) least = thread;
    return least.copy(copies);
  }

  /** Nothing is under way any more. */
  async close(): Promise<void> {
    await Promise.all(this.#threads.map((thread) => thread.close()));
  }
}

class CopyThread {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, Waiting>();
  #lastId = 0;
  #end: Error | undefined;

  constructor(descriptor: number) {
    const workerData = { descriptor, blocksMax: COPY_BLOCKS_MAX, niceness: NICENESS };
    const options = { workerData, execArgv: [] };
    this.#worker = new Worker(new URL('./copy-thread.js', import.meta.url), options);
    this.#worker.unref();
    this.#worker.on('message', (reply: CopyReply) => this.#take(reply));
    this.#worker.on('error', (error) => this.#failAll(asError(error)));
    this.#worker.on('exit', () => this.#failAll(new Error('the thread that copies has ended')));
  }

  get underWay(): number {
    return this.#waiting.size;
  }

  copy({ from, to, crcs }: BlockCopies): Promise<readonly number[]> {
    if (this.#end !== undefined) return Promise.reject(this.#end);
    return new Promise((resolve, reject) => {
      if (this.#waiting.size === 0) this.#worker.ref();
      const id = ++this.#lastId;
      this.#waiting.set(id, { resolve, reject });
      const request: CopyRequest = {
        id,
        from: Float64Array.from(from),
        to: Float64Array.from(to),
        crcs: Uint32Array.from(crcs),
      };
      this.#worker.postMessage(request);
    });
  }

  async close(): Promise<void> {
    this.#worker.removeAllListeners('exit');
    await this.#worker.terminate();
  }

  #take({ id, bad, error }: CopyReply): void {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (this.#waiting.size === 0) this.#worker.unref();
    if (error === undefined) waiting?.resolve(bad);
    else waiting?.reject(error);
  }

  #failAll(error: Error): void {
    this.#end ??= error;
    const all = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { reject } of all) reject(error);
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
