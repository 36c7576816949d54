/**
 * What the S3 client reaches by itself: no engine, no NBD, no order of acknowledgement. Objects
 * have the size of full records; what is created is deleted when it has been measured.
 */
import { randomBytes } from 'node:crypto';
import { MIB } from '../../src/base/units.js';
import type { S3ObjectStore } from '../../src/objects/s3-object-store.js';
import { elapsedMs } from '../harness/timing.js';

const OBJECT_BYTES = 4 * MIB;
const BLOCK_BYTES = 4096;

export class BareClient {
  readonly #objects: S3ObjectStore;
  readonly #body = randomBytes(OBJECT_BYTES);
  #lastKey = 0;

  constructor(objects: S3ObjectStore) {
    this.#objects = objects;
  }

  /** MiB a second, of 4 MiB objects that are created. */
  async writeRate(count: number, inFlight: number): Promise<number> {
    const keys: string[] = [];
    const ms = await elapsedMs(() =>
      together(inFlight, count, async () => {
        const key = this.#newKey();
        keys.push(key);
        await this.#objects.putNew(key, [this.#body]);
      }),
    );
    await this.#objects.delete(keys);
    return rateOf(count * (OBJECT_BYTES / MIB), ms);
  }

  /** Objects for `readRate`. */
  async makeObjects(count: number): Promise<readonly string[]> {
    const keys = Array.from({ length: count }, () => this.#newKey());
    await together(8, count, async (at) => {
      await this.#objects.putNew(keys[at] as string, [this.#body]);
    });
    return keys;
  }

  /** MiB a second, of 4 MiB objects that are read whole. */
  async readRate(keys: readonly string[], inFlight: number): Promise<number> {
    const ms = await elapsedMs(() =>
      together(inFlight, keys.length, async (at) => {
        await this.#objects.get(keys[at] as string);
      }),
    );
    return rateOf(keys.length * (OBJECT_BYTES / MIB), ms);
  }

  /** 4 KiB writes a second, each an object of its own with a block for what describes it. */
  async createRate(writers: number, count: number): Promise<number> {
    const keys: string[] = [];
    const ms = await elapsedMs(() =>
      together(writers, count, async () => {
        const key = this.#newKey();
        keys.push(key);
        await this.#objects.putNew(key, this.#record(1));
      }),
    );
    await this.#objects.delete(keys);
    return rateOf(count, ms);
  }

  /** The same where all who wait while an object is created share the next one. */
  async groupRate(writers: number, count: number): Promise<number> {
    const keys: string[] = [];
    let waiting: (() => void)[] = [];
    let isCreating = false;
    const create = async (): Promise<void> => {
      isCreating = true;
      while (waiting.length > 0) {
        const group = waiting;
        waiting = [];
        const key = this.#newKey();
        keys.push(key);
        await this.#objects.putNew(key, this.#record(group.length));
        for (const done of group) done();
      }
      isCreating = false;
    };
    const ms = await elapsedMs(() =>
      together(writers, count, async () => {
        const done = new Promise<void>((resolve) => waiting.push(resolve));
        if (!isCreating) void create();
        await done;
      }),
    );
    await this.#objects.delete(keys);
    return rateOf(count, ms);
  }

  /** So many blocks, and one more. */
  #record(blocks: number): Uint8Array[] {
    return [this.#body.subarray(0, (blocks + 1) * BLOCK_BYTES)];
  }

  #newKey(): string {
    return `bare/${(this.#lastKey++).toString(16).padStart(8, '0')}`;
  }
}

function rateOf(amount: number, ms: number): number {
  return amount / (ms / 1000);
}

/** Does the work `count` times, so many at once. */
async function together(
  inFlight: number,
  count: number,
  work: (at: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  const one = async (): Promise<void> => {
    while (next < count) await work(next++);
  };
  await Promise.all(Array.from({ length: inFlight }, one));
}
