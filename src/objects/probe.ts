/**
 * Proves of an object store what fencing and durability rest on, before a store is opened on it.
 * There are stores that accept a condition and ignore it, or race: two owners, silently.
 *
 * 1. On every way to the store, and over all of them: of 16 creates of one fresh key at once one
 *    wins, its body is what is there, and whoever comes later is told that it exists.
 * 2. What was created, deleted or is listed on one way is seen on every other at once.
 * 3. Parts of objects are the bytes asked for.
 * 4. What it has put is deleted, however it ends, as far as the store can delete.
 */
import { isStoreError, StoreError } from '../base/store-error.js';
import { AmbiguousPutError, type ObjectStore } from '../env/object-store.js';
import type { Random } from '../env/random.js';

export interface ProbeOptions {
  /** Keys of the probe stand below it. */
  readonly prefix: string;
  readonly random: Random;
  /** Clients of the same objects, one for each way to them. At least one. */
  readonly ways: readonly ObjectStore[];
}

const RACERS = 16;
/** How often an outcome may be unknown before that is the finding. */
const UNKNOWN_MAX = 8;

/** @throws {StoreError} unsupported: what does not hold; others: it could not be asked */
export async function probeObjectStore(options: ProbeOptions): Promise<void> {
  const probe = new Probe(options);
  try {
    await probe.run();
  } finally {
    await probe.cleanUp();
  }
}

class Probe {
  readonly #ways: readonly ObjectStore[];
  readonly #folder: string;
  readonly #keys: string[] = [];

  constructor({ prefix, random, ways }: ProbeOptions) {
    this.#ways = ways;
    const id = Array.from({ length: 4 }, () => random.nextU32().toString(16).padStart(8, '0'));
    this.#folder = `${prefix}/probe/${id.join('')}/`;
  }

  async run(): Promise<void> {
    for (const way of this.#ways) await this.#race([way]);
    if (this.#ways.length > 1) await this.#race(this.#ways);
    for (const way of this.#ways) await this.#parts(way);
    for (const way of this.#ways) await this.#listAndDelete(way);
  }

  /** What is left is deleted; that it cannot be is not what is told. */
  async cleanUp(): Promise<void> {
    await this.#any.delete(this.#keys).catch(() => undefined);
  }

  get #any(): ObjectStore {
    return this.#ways[0] as ObjectStore;
  }

  #newKey(): string {
    const key = `${this.#folder}${String(this.#keys.length).padStart(4, '0')}`;
    this.#keys.push(key);
    return key;
  }

  async #race(ways: readonly ObjectStore[]): Promise<void> {
    const key = this.#newKey();
    const bodies = Array.from({ length: RACERS }, (_, racer) => `racer ${racer} of ${key}`);
    const outcomes = await Promise.all(
      bodies.map((body, racer) => put(ways[racer % ways.length] as ObjectStore, key, body)),
    );
    const winners = outcomes.flatMap((outcome, racer) => (outcome === 'created' ? [racer] : []));
    const names = ways.map(({ name }) => name).join(', ');
    if (winners.length > 1) {
      throw refusal(
        names,
        `${winners.length} of ${RACERS} creates of one key were all told that they created it ` +
          '(If-None-Match: * is ignored, or races): two servers could own one store',
      );
    }
    for (const way of this.#ways) {
      const there = toText(await way.get(key));
      const winner = there === undefined ? -1 : bodies.indexOf(there);
      if (winner < 0) throw refusal(way.name, 'a GET does not see what a PUT before it created');
      // One whose outcome is unknown may have won; then nobody else was told so.
      const isSame = winners.length === 0 ? outcomes[winner] === 'unknown' : winner === winners[0];
      if (!isSame) throw refusal(way.name, 'a create that lost has changed the object');
    }
    const there = toText(await this.#any.get(key));
    for (const way of this.#ways) {
      await this.#mustExist(way, key);
      if (toText(await way.get(key)) !== there) {
        throw refusal(way.name, 'a create of a key that is there has changed the object');
      }
    }
  }

  async #mustExist(way: ObjectStore, key: string): Promise<void> {
    for (let unknown = 0; unknown < UNKNOWN_MAX; unknown++) {
      const outcome = await put(way, key, 'too late');
      if (outcome === 'exists') return;
      if (outcome === 'created') {
        throw refusal(way.name, 'a create of a key that is there was told that it created it');
      }
    }
    throw refusal(
      way.name,
      `a create of a key that is there got no clear answer ${UNKNOWN_MAX} times`,
    );
  }

  async #parts(way: ObjectStore): Promise<void> {
    const key = this.#newKey();
    const whole = Uint8Array.from({ length: 10_000 }, (_, at) => (at * 7 + (at >> 8)) & 0xff);
    await putSurely(way, key, whole);
    for (const reader of this.#ways) {
      for (const [offset, length] of [
        [0, 1],
        [4096, 4096],
        [9999, 1],
        [8192, 4096],
      ] as const) {
        const part = await reader.get(key, offset, length);
        const isRight =
          part !== undefined && Buffer.compare(part, whole.subarray(offset, offset + length)) === 0;
        if (!isRight)
          throw refusal(reader.name, `a GET of ${length} bytes from ${offset} is wrong`);
      }
    }
  }

  async #listAndDelete(way: ObjectStore): Promise<void> {
    const keys = [this.#newKey(), this.#newKey(), this.#newKey()];
    for (const key of keys) await putSurely(way, key, new Uint8Array([1]));
    const [first, second, third] = keys as [string, string, string];
    const before = this.#folder + String(this.#keys.length - 4).padStart(4, '0');
    for (const reader of this.#ways) {
      const found = await reader.list(this.#folder, before);
      if (found.join() !== keys.join()) {
        throw refusal(reader.name, 'a LIST does not show what was just created, in order');
      }
    }
    await way.delete([first, third]);
    for (const reader of this.#ways) {
      const left = await reader.list(this.#folder, before);
      const isGone = (await reader.get(first)) === undefined;
      if (!isGone || left.join() !== second) {
        throw refusal(reader.name, 'what was deleted is still there');
      }
    }
    await putSurely(way, first, new Uint8Array([2]));
  }
}

/** unknown: it may have happened. */
async function put(
  way: ObjectStore,
  key: string,
  body: string,
): Promise<'created' | 'exists' | 'unknown'> {
  try {
    return await way.putNew(key, [Buffer.from(body)]);
  } catch (error) {
    if (error instanceof AmbiguousPutError) return 'unknown';
    throw error;
  }
}

async function putSurely(way: ObjectStore, key: string, body: Uint8Array): Promise<void> {
  for (let unknown = 0; ; unknown++) {
    try {
      const outcome = await way.putNew(key, [body]);
      if (outcome === 'created' || unknown > 0) return;
      throw refusal(way.name, `a fresh key was told to exist: ${key}`);
    } catch (error) {
      if (!(error instanceof AmbiguousPutError)) throw error;
      if (unknown < UNKNOWN_MAX) continue;
      throw new StoreError('device', `${way.name}: ${error.message}, ${unknown} times`);
    }
  }
}

function toText(bytes: Uint8Array | undefined): string | undefined {
  return bytes === undefined ? undefined : Buffer.from(bytes).toString();
}

function refusal(name: string, what: string): StoreError {
  return new StoreError('unsupported', `${name} cannot hold a store: ${what}`);
}

/** The ways that answer. @throws {StoreError} device: none does */
export async function waysThatAnswer<W extends ObjectStore>(
  ways: readonly W[],
  onSilent: (way: W, error: StoreError) => void,
): Promise<W[]> {
  const answering: W[] = [];
  let last: StoreError | undefined;
  for (const way of ways) {
    try {
      await way.get('keiki-probe-of-nothing');
      answering.push(way);
    } catch (error) {
      if (!isStoreError(error, 'device')) throw error;
      last = error;
      onSilent(way, error);
    }
  }
  if (answering.length === 0 && last !== undefined) throw last;
  return answering;
}
