/** A format that is cut short is ended by the next one; two side by side make one store. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { SimulatedObjectStore } from '../../../sim/world/simulated-object-store.js';
import { VirtualClock } from '../../../sim/world/virtual-clock.js';
import { isStoreError } from '../../base/store-error.js';
import { BLOCK_BYTES, MIB } from '../../base/units.js';
import { MemoryObjectStore } from '../../env/memory-object-store.js';
import type { ObjectStore } from '../../env/object-store.js';
import { seededRandom } from '../../env/seeded-random.js';
import { numberKey } from './chain-walk.js';
import { formatObjectLog, hasObjectLog, openObjectLog } from './open.js';
import { recordKey } from './record-chain.js';

const PREFIX = 'p';
const SIZE_BYTES = 64 * MIB;
/** The id, the CP record, the epoch. */
const PUTS = 3;

function nonceFrom(seed: number): () => Uint8Array {
  const random = seededRandom(seed);
  return () => {
    const bytes = new Uint8Array(16);
    random.fill(bytes);
    return bytes;
  };
}

function format(objects: ObjectStore, seed: number, sizeBytes = SIZE_BYTES): Promise<void> {
  const nonce = nonceFrom(seed);
  return formatObjectLog(objects, PREFIX, { sizeBytes, uuid: nonce(), nonce });
}

/** It opens, and is empty. */
async function expectStore(objects: ObjectStore): Promise<void> {
  const { fsinfo } = await openObjectLog(objects, PREFIX, nonceFrom(99));
  assert.equal(fsinfo.storeBlocks, SIZE_BYTES / BLOCK_BYTES);
  assert.equal(fsinfo.cpNumber, 0);
  assert.equal(fsinfo.usedBlocks, 0);
}

/** Stands still in front of its `number`-th put, or behind it, until it is let go on. */
class Pausing extends MemoryObjectStore {
  readonly stands: Promise<void>;
  #number: number;
  readonly #when: 'before' | 'after';
  #arrive: () => void = () => undefined;
  readonly #leave: Promise<void>;
  goOn: () => void = () => undefined;

  constructor(objects: MemoryObjectStore, number: number, when: 'before' | 'after') {
    super({ objects: objects.objects });
    this.#number = number;
    this.#when = when;
    this.stands = new Promise((resolve) => {
      this.#arrive = resolve;
    });
    this.#leave = new Promise((resolve) => {
      this.goOn = resolve;
    });
  }

  override async putNew(key: string, chunks: readonly Uint8Array[]) {
    const isIt = --this.#number === 0;
    if (isIt && this.#when === 'before') await this.#stand();
    const outcome = await super.putNew(key, chunks);
    if (isIt && this.#when === 'after') await this.#stand();
    return outcome;
  }

  #stand(): Promise<void> {
    this.#arrive();
    return this.#leave;
  }
}

const PAUSES = [1, 2, 3].flatMap((number) => [
  [number, 'before'] as const,
  [number, 'after'] as const,
]);

test('power fails at each put of a format, before it and after it: the next one ends it', async () => {
  for (const [number, when] of PAUSES) {
    const where = `${when} put ${number}`;
    const objects = new MemoryObjectStore();
    const cut = new Pausing(objects, number, when);
    void format(cut, 1);
    await cut.stands;
    const isMade = number === PUTS && when === 'after';
    assert.equal(await hasObjectLog(objects, PREFIX), isMade, where);
    if (isMade) await assert.rejects(format(objects, 2), (e) => isStoreError(e, 'exists'));
    else await format(objects, 2);
    assert.equal(objects.objects.count, PUTS, where);
    await expectStore(objects);
  }
});

test('power fails in the second format, too', async () => {
  for (const first of PAUSES) {
    for (const second of PAUSES) {
      const objects = new MemoryObjectStore();
      for (const [seed, [number, when]] of [first, second].entries()) {
        const cut = new Pausing(objects, number, when);
        const formatting = format(cut, seed + 1).catch((error: unknown) => error);
        const ended = await Promise.race([cut.stands, formatting]);
        assert.ok(ended === undefined || isStoreError(ended, 'exists'), String(ended));
      }
      await format(objects, 3).catch((error: unknown) => {
        assert.ok(isStoreError(error, 'exists'), String(error));
      });
      await expectStore(objects);
    }
  }
});

test('a format that stood still while another made the store is told so, and changes nothing', async () => {
  for (const [number, when] of PAUSES) {
    const objects = new MemoryObjectStore();
    const slow = new Pausing(objects, number, when);
    const formatting = format(slow, 1);
    await slow.stands;
    const isMade = number === PUTS && when === 'after';
    if (!isMade) await format(objects, 2);
    slow.goOn();
    if (isMade) await formatting;
    else await assert.rejects(formatting, (error) => isStoreError(error, 'exists'));
    assert.equal(objects.objects.count, PUTS);
    await expectStore(objects);
  }
});

test('an object store of which answers get lost: cut at every put, and ended by the next', async () => {
  for (let seed = 1; seed <= 60; seed++) {
    const clock = new VirtualClock();
    const first = new SimulatedObjectStore({ clock, random: seededRandom(seed) });
    first.faultRates = { lostRequest: 0.2, lostResponse: 0.2, latePut: 0.2, failedGet: 0.2 };
    const dies = new Promise<void>((resolve) => first.cutAtPut(1 + (seed % 6), resolve));
    await clock.run(Promise.race([format(first, 1), dies]));
    const next = first.cutClient();
    await clock.run(
      format(next, 2).catch((error: unknown) => {
        assert.ok(isStoreError(error, 'exists'), `seed ${seed}: ${String(error)}`);
      }),
    );
    await clock.run(expectStore(next));
  }
});

test('another size than the one that was begun is refused, with that one', async () => {
  const objects = new MemoryObjectStore();
  const cut = new Pausing(objects, PUTS, 'before');
  void format(cut, 1);
  await cut.stands;
  const open = openObjectLog(objects, PREFIX, nonceFrom(3));
  await assert.rejects(open, /holds no store; its format was cut short: format it again/);
  await assert.rejects(
    format(objects, 2, 2 * SIZE_BYTES),
    (error) => isStoreError(error, 'invalid') && /a store of 67108864 bytes/.test(error.message),
  );
  await format(objects, 2);
  await expectStore(objects);
});

test('a store that has lost its epochs is damaged, and not made anew', async () => {
  const objects = new MemoryObjectStore();
  await format(objects, 1);
  await expectStore(objects);
  const epochs = objects.objects.list(`${PREFIX}/epoch/`);
  assert.equal(epochs.length, 2);
  for (const key of epochs) objects.objects.delete(key);
  const { count } = objects.objects;
  await assert.rejects(format(objects, 2), (error) => isStoreError(error, 'corrupt'));
  assert.equal(objects.objects.count, count);
});

test('a damaged id, or another record where the first belongs: refused', async () => {
  for (const key of [numberKey(PREFIX, 'id'), recordKey(PREFIX, 1)]) {
    const objects = new MemoryObjectStore();
    objects.objects.create(key, new Uint8Array(BLOCK_BYTES));
    await assert.rejects(format(objects, 1), (error) => isStoreError(error, 'corrupt'));
  }
});
