/** What every ObjectStore does. Run on each implementation by object-store.test.ts. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import type { ObjectStore } from '../../src/env/object-store.js';
import { seededRandom } from '../../src/env/seeded-random.js';

/** One implementation, made ready for one test. */
export interface ObjectStoreFixture {
  /** Without objects, at least under the keys the suite uses. */
  readonly objects: ObjectStore;
  /** Another client of the same objects. */
  anotherClient(): ObjectStore;
  /** Waits; a simulated object store has its time moved. */
  settle<T>(promise: Promise<T>): Promise<T>;
  end(): Promise<void>;
}

const LIST_KEYS_MAX = 1000;

function text(bytes: Uint8Array | undefined): string | undefined {
  return bytes === undefined ? undefined : Buffer.from(bytes).toString('latin1');
}

function chunks(...parts: string[]): Uint8Array[] {
  return parts.map((part) => new Uint8Array(Buffer.from(part, 'latin1')));
}

function bytewise(a: string, b: string): number {
  return Buffer.compare(Buffer.from(a), Buffer.from(b));
}

export function objectStoreContract(name: string, make: () => Promise<ObjectStoreFixture>): void {
  describe(`object store contract: ${name}`, () => {
    let fixture: ObjectStoreFixture;
    let objects: ObjectStore;
    const settle = <T>(promise: Promise<T>): Promise<T> => fixture.settle(promise);
    beforeEach(async () => {
      fixture = await make();
      objects = fixture.objects;
    });
    afterEach(() => fixture.end());

    test('putNew: chunks in order, then get has them', async () => {
      assert.ok(objects.name.length > 0);
      assert.equal(await settle(objects.putNew('k', chunks('ab', '', 'cde', 'f'))), 'created');
      assert.equal(text(await settle(objects.get('k'))), 'abcdef');
    });

    test('putNew: an empty object is an object', async () => {
      assert.equal(await settle(objects.putNew('empty', [])), 'created');
      assert.equal(text(await settle(objects.get('empty'))), '');
      assert.equal(await settle(objects.putNew('empty', chunks('x'))), 'exists');
    });

    test('putNew: a key that is there is never changed', async () => {
      await settle(objects.putNew('k', chunks('first')));
      for (const other of ['second', 'first', '']) {
        assert.equal(await settle(objects.putNew('k', chunks(other))), 'exists');
      }
      assert.equal(await settle(fixture.anotherClient().putNew('k', chunks('x'))), 'exists');
      assert.equal(text(await settle(objects.get('k'))), 'first');
    });

    test('putNew: of many at once, from several clients, one wins', async () => {
      const clients = [objects, fixture.anotherClient(), fixture.anotherClient()];
      for (let round = 0; round < 20; round++) {
        const key = `race/${round}`;
        const puts = Array.from({ length: 16 }, (_, index) =>
          (clients[index % 3] ?? objects).putNew(key, chunks(`by ${index}`)),
        );
        const answers = await settle(Promise.all(puts));
        const winners = answers.flatMap((answer, index) => (answer === 'created' ? [index] : []));
        assert.equal(winners.length, 1, `winners of ${key}: ${winners}`);
        assert.equal(text(await settle(objects.get(key))), `by ${winners[0]}`);
      }
    });

    test('putNew: the bytes are copied', async () => {
      const from = chunks('before');
      await settle(objects.putNew('k', from));
      from[0]?.fill(0);
      assert.equal(text(await settle(objects.get('k'))), 'before');
    });

    test('get: an object that is not there', async () => {
      assert.equal(await settle(objects.get('nothing')), undefined);
      assert.equal(await settle(objects.get('nothing', 5, 10)), undefined);
      assert.equal(await settle(objects.get('')), undefined);
    });

    test('get: every part of an object', async () => {
      const whole = '0123456789';
      await settle(objects.putNew('k', chunks('0123', '456789')));
      for (let offset = 0; offset <= whole.length; offset++) {
        assert.equal(text(await settle(objects.get('k', offset))), whole.slice(offset));
        for (let length = 1; length <= whole.length + 2; length++) {
          const part = await settle(objects.get('k', offset, length));
          assert.equal(text(part), whole.slice(offset, offset + length));
        }
      }
      assert.equal(text(await settle(objects.get('k', 100, 5))), '');
    });

    test('get: what the caller does to the bytes does not change the object', async () => {
      await settle(objects.putNew('k', chunks('abc')));
      (await settle(objects.get('k')))?.fill(0);
      assert.equal(text(await settle(objects.get('k'))), 'abc');
    });

    test('get: sees what a put before it created, from every client', async () => {
      for (let round = 0; round < 20; round++) {
        await settle(objects.putNew(`k${round}`, chunks(`${round}`)));
        const got = await settle(fixture.anotherClient().get(`k${round}`));
        assert.equal(text(got), `${round}`);
      }
    });

    test('delete: those named and no others; twice is no error', async () => {
      for (const key of ['a', 'ab', 'b', 'c']) await settle(objects.putNew(key, chunks(key)));
      await settle(objects.delete(['a', 'c', 'never there']));
      await settle(objects.delete(['a']));
      await settle(objects.delete([]));
      assert.deepEqual(await settle(objects.list('')), ['ab', 'b']);
      assert.equal(await settle(objects.get('a')), undefined);
      assert.equal(text(await settle(objects.get('ab'))), 'ab');
    });

    test('list: a prefix, in order of bytes, after a key', async () => {
      // Among them: prefixes of one another, and characters that UTF-16 orders differently.
      const keys = ['a', 'a/1', 'a/10', 'a/2', 'a/', 'a0', 'a!', 'b/1', 'B', 'é', '￾', '😀', 'z'];
      for (const key of keys) await settle(objects.putNew(key, chunks('x')));
      const sorted = [...keys].sort(bytewise);
      for (const prefix of ['', 'a', 'a/', 'a/1', 'b', 'none', 'zz', '😀']) {
        const expected = sorted.filter((key) => key.startsWith(prefix));
        assert.deepEqual(await settle(objects.list(prefix)), expected);
        for (const after of [...keys, 'a/11', 'zzz', ' ']) {
          const rest = expected.filter((key) => bytewise(key, after) > 0);
          assert.deepEqual(await settle(objects.list(prefix, after)), rest, `${prefix} ${after}`);
        }
      }
    });

    test('list: at most 1000 keys; the last one leads on to the rest', async () => {
      const keys = Array.from({ length: 2 * LIST_KEYS_MAX + 5 }, (_, at) => `n/${at + 10_000}`);
      await settle(Promise.all(keys.map((key) => objects.putNew(key, []))));
      await settle(Promise.all(['m', 'o'].map((key) => objects.putNew(key, []))));
      const found: string[] = [];
      let after: string | undefined;
      for (;;) {
        const some: string[] = await settle(objects.list('n/', after));
        assert.ok(some.length <= LIST_KEYS_MAX);
        if (some.length === 0) break;
        found.push(...some);
        after = some.at(-1);
      }
      assert.deepEqual(found, keys);
    });

    test('random puts, gets, deletes and lists beside a Map', async () => {
      const random = seededRandom(1);
      const model = new Map<string, string>();
      for (let turn = 0; turn < 500; turn++) {
        const key = `${random.below(3)}/${random.below(20)}`;
        switch (random.below(4)) {
          case 0: {
            const expected = model.has(key) ? 'exists' : 'created';
            assert.equal(await settle(objects.putNew(key, chunks(`${turn}`))), expected);
            if (expected === 'created') model.set(key, `${turn}`);
            break;
          }
          case 1:
            assert.equal(text(await settle(objects.get(key))), model.get(key));
            break;
          case 2:
            await settle(objects.delete([key]));
            model.delete(key);
            break;
          default: {
            const keys = [...model.keys()].filter((other) => other.startsWith(key.slice(0, 2)));
            assert.deepEqual(await settle(objects.list(key.slice(0, 2))), keys.sort(bytewise));
          }
        }
      }
    });
  });
}
