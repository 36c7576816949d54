import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { isStoreError } from '../../src/base/store-error.js';
import { AmbiguousPutError } from '../../src/env/object-store.js';
import { seededRandom } from '../../src/env/seeded-random.js';
import { SimulatedObjectStore } from './simulated-object-store.js';
import { DeadlockError, VirtualClock } from './virtual-clock.js';

interface World {
  readonly clock: VirtualClock;
  readonly store: SimulatedObjectStore;
}

function makeWorld(seed = 1): World {
  const clock = new VirtualClock();
  return { clock, store: new SimulatedObjectStore({ clock, random: seededRandom(seed) }) };
}

function body(content: string): Uint8Array[] {
  return [new Uint8Array(Buffer.from(content))];
}

function content(store: SimulatedObjectStore, key: string): string | undefined {
  const bytes = store.objects.get(key);
  return bytes === undefined ? undefined : Buffer.from(bytes).toString();
}

const isAmbiguous = (error: unknown): boolean => error instanceof AmbiguousPutError;
const isDeviceError = (error: unknown): boolean => isStoreError(error, 'device');

/** Lets everything happen that is on its way. */
async function drain(clock: VirtualClock): Promise<void> {
  await clock.run(clock.sleep(1_000_000));
}

describe('simulated object store: ambiguous puts', () => {
  test('lost response: the object is there', async () => {
    const { clock, store } = makeWorld();
    store.fatePutAt(1, 'lost-response');
    await assert.rejects(clock.run(store.putNew('k', body('one'))), isAmbiguous);
    assert.equal(content(store, 'k'), 'one');
    assert.equal(await clock.run(store.putNew('k', body('two'))), 'exists');
    assert.equal(store.counts.lostResponses, 1);
  });

  test('lost response to a put of a key that is there changes nothing', async () => {
    const { clock, store } = makeWorld();
    store.fatePutAt(2, 'lost-response');
    await clock.run(store.putNew('k', body('one')));
    await assert.rejects(clock.run(store.putNew('k', body('two'))), isAmbiguous);
    assert.equal(content(store, 'k'), 'one');
  });

  test('lost request: the object never comes', async () => {
    const { clock, store } = makeWorld();
    store.fatePutAt(1, 'lost-request');
    await assert.rejects(clock.run(store.putNew('k', body('one'))), isAmbiguous);
    await drain(clock);
    assert.equal(content(store, 'k'), undefined);
    assert.equal(store.counts.lostRequests, 1);
    assert.equal(await clock.run(store.putNew('k', body('two'))), 'created');
  });

  test('late: it lands after its answer, once, and only if nobody else did', async () => {
    let landed = 0;
    for (let seed = 1; seed <= 20; seed++) {
      const { clock, store } = makeWorld(seed);
      store.fatePutAt(1, 'late');
      const from = body('one');
      await assert.rejects(clock.run(store.putNew('k', from)), isAmbiguous);
      from[0]?.fill(0);
      if (content(store, 'k') === undefined) landed++;
      if (seed % 2 === 0) {
        const retry = await clock.run(store.putNew('k', body('two')));
        const expected = retry === 'created' ? 'two' : 'one';
        await drain(clock);
        assert.equal(content(store, 'k'), expected);
      } else {
        await drain(clock);
        assert.equal(content(store, 'k'), 'one');
      }
      assert.equal(store.counts.latePuts, 1);
    }
    assert.ok(landed > 15, `${landed} of 20 landed after the answer`);
  });

  test('rates: each fault happens about as often as asked for', async () => {
    const { clock, store } = makeWorld();
    store.faultRates = {
      lostRequest: 0.1,
      lostResponse: 0.2,
      latePut: 0.05,
      failedGet: 0.3,
      failedDelete: 0.4,
    };
    let [created, ambiguous, failedGets, failedDeletes] = [0, 0, 0, 0];
    const work = async (): Promise<void> => {
      for (let put = 0; put < 2000; put++) {
        await store.putNew(`k${put}`, []).then(
          () => created++,
          (error: unknown) => {
            assert.ok(isAmbiguous(error));
            ambiguous++;
          },
        );
        await store.get(`k${put}`).catch((error: unknown) => {
          assert.ok(isDeviceError(error));
          failedGets++;
        });
        await store.delete([]).catch((error: unknown) => {
          assert.ok(isDeviceError(error));
          failedDeletes++;
        });
      }
    };
    await clock.run(work());
    const { counts } = store;
    assert.equal(created + ambiguous, 2000);
    assert.equal(counts.lostRequests + counts.lostResponses + counts.latePuts, ambiguous);
    assert.equal(counts.failedGets, failedGets);
    assert.equal(counts.failedDeletes, failedDeletes);
    const near = (count: number, rate: number): void => {
      assert.ok(Math.abs(count / 2000 - rate) < 0.05, `${count} of 2000, asked for ${rate}`);
    };
    near(counts.lostRequests, 0.1);
    near(counts.lostResponses, 0.2);
    near(counts.latePuts, 0.05);
    near(counts.failedGets, 0.3);
    near(counts.failedDeletes, 0.4);
  });

  test('a failed delete has deleted some keys', async () => {
    const { clock, store } = makeWorld();
    const keys = Array.from({ length: 40 }, (_, at) => `k${at}`);
    for (const key of keys) await clock.run(store.putNew(key, []));
    store.faultRates = { failedDelete: 1 };
    await assert.rejects(clock.run(store.delete(keys)), isDeviceError);
    const left = store.objects.count;
    assert.ok(left > 5 && left < 35, `${left} of 40 left`);
  });
});

describe('simulated object store: power of the client', () => {
  test('cutAtPut: power fails in the n-th put, and tells once', async () => {
    for (let number = 1; number <= 4; number++) {
      const { clock, store } = makeWorld();
      let cuts = 0;
      store.cutAtPut(number, () => cuts++);
      const answers: string[] = [];
      const work = (async () => {
        for (const key of ['a', 'b', 'c']) answers.push(await store.putNew(key, body(key)));
      })();
      if (number === 4) await clock.run(work);
      else await assert.rejects(clock.run(work), DeadlockError);
      assert.equal(answers.length, Math.min(number - 1, 3));
      assert.equal(cuts, number === 4 ? 0 : 1);
      assert.equal(store.isOn, number === 4);
    }
  });

  test('without power nothing settles', async () => {
    const { clock, store } = makeWorld();
    const inFlight = [store.putNew('k', []), store.get('k'), store.delete(['k']), store.list('')];
    store.powerOff();
    const later = [store.putNew('k', []), store.get('k'), store.delete(['k']), store.list('')];
    await assert.rejects(clock.run(Promise.race([...inFlight, ...later])), DeadlockError);
  });

  test('a put in flight at a cut has landed, is lost, or lands later; whole', async () => {
    const outcomes = { atOnce: 0, later: 0, never: 0 };
    for (let seed = 1; seed <= 100; seed++) {
      const { clock, store } = makeWorld(seed);
      await clock.run(store.putNew('before', body('before')));
      let isAnswered = false;
      void store.putNew('k', body('one')).then(() => {
        isAnswered = true;
      });
      const next = store.cutClient();
      const atOnce = await clock.run(next.get('k'));
      await drain(clock);
      const later = content(next, 'k');
      assert.equal(content(next, 'before'), 'before');
      assert.equal(isAnswered, false);
      if (atOnce !== undefined) outcomes.atOnce++;
      else if (later !== undefined) outcomes.later++;
      else outcomes.never++;
      if (later !== undefined) assert.equal(later, 'one');
      const { counts } = store;
      assert.equal(counts.putsLandedAtCut + counts.putsLandedAfterCut + counts.putsLostAtCut, 1);
    }
    for (const count of Object.values(outcomes)) assert.ok(count > 15, JSON.stringify(outcomes));
  });

  test('a put that landed before the cut, its answer still under way, stays', async () => {
    let unanswered = 0;
    for (let seed = 1; seed <= 50; seed++) {
      const { clock, store } = makeWorld(seed);
      let isAnswered = false;
      void store.putNew('k', body('one')).then(() => {
        isAnswered = true;
      });
      const watch = async (): Promise<void> => {
        while (content(store, 'k') === undefined) await clock.sleep(0.1);
      };
      await clock.run(watch());
      const next = store.cutClient();
      await drain(clock);
      assert.equal(content(next, 'k'), 'one');
      if (!isAnswered) unanswered++;
    }
    assert.ok(unanswered > 25, `${unanswered} of 50 cut before the answer`);
  });

  test('keys of a delete in flight at a cut are deleted or not', async () => {
    const { clock, store } = makeWorld();
    const keys = Array.from({ length: 40 }, (_, at) => `k${at}`);
    for (const key of keys) await clock.run(store.putNew(key, []));
    void store.delete(keys);
    const next = store.cutClient();
    const left = next.objects.count;
    assert.ok(left > 5 && left < 35, `${left} of 40 left`);
    await drain(clock);
    assert.equal(next.objects.count, left);
  });

  test('other clients go on', async () => {
    const { clock, store } = makeWorld();
    const other = store.anotherClient();
    const put = other.putNew('k', body('one'));
    store.cutClient();
    assert.equal(await clock.run(put), 'created');
  });

  test('the same seed gives the same run', async () => {
    const runs: string[] = [];
    for (const seed of [5, 5, 6]) {
      const { clock, store } = makeWorld(seed);
      store.faultRates = { lostRequest: 0.2, lostResponse: 0.2, latePut: 0.2 };
      const work = async (): Promise<void> => {
        for (let put = 0; put < 50; put++) {
          await store.putNew(`k${put}`, []).catch(() => undefined);
        }
      };
      await clock.run(work());
      store.cutClient();
      runs.push(`${clock.nowMs()} ${store.objects.list('').join()}`);
    }
    assert.equal(runs[0], runs[1]);
    assert.notEqual(runs[0], runs[2]);
  });
});

test('flipBit: rot in an object', async () => {
  const { clock, store } = makeWorld();
  await clock.run(store.putNew('k', body('abc')));
  store.flipBit('k', 1, 0);
  assert.equal(content(store, 'k'), 'acc');
  assert.throws(() => store.flipBit('k', 3, 0), /no byte 3 in object k/);
  assert.equal(store.counts.flippedBits, 1);
});
