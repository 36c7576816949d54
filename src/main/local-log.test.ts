/** Durability `local`: what a local log promises, who may open the store, and what is refused. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { VirtualClock } from '../../sim/world/virtual-clock.js';
import { isStoreError } from '../base/store-error.js';
import { BLOCK_BYTES, MIB } from '../base/units.js';
import type { Clock } from '../env/clock.js';
import { MemoryDevice } from '../env/memory-device.js';
import { MemoryObjectStore } from '../env/memory-object-store.js';
import type { ObjectStore } from '../env/object-store.js';
import { seededRandom } from '../env/seeded-random.js';
import { findChain } from '../store/object-log/chain-walk.js';
import { admit } from '../store/object-log/local-log/local-log.js';
import { ChainEnd, takeOver } from '../store/object-log/take-over.js';
import { formatStore, type OpenOptions, openStore } from './open-store.js';
import type { Store } from './store.js';

const PREFIX = 'p';
const LOG_BYTES = 8 * MIB;
const STALE_MS = 3000;
/** No consistency point comes by itself. */
const NEVER_MS = 3_600_000;

/** An object store whose puts can be held up. */
class Gate implements ObjectStore {
  readonly name = 'gate';
  readonly inner: MemoryObjectStore;
  #held: (() => void)[] | undefined;

  constructor(inner = new MemoryObjectStore()) {
    this.inner = inner;
  }

  shut(): void {
    this.#held ??= [];
  }

  open(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const go of held) go();
  }

  async putNew(key: string, chunks: readonly Uint8Array[]): Promise<'created' | 'exists'> {
    const bytes = chunks.map((chunk) => chunk.slice());
    if (this.#held !== undefined) await new Promise<void>((go) => this.#held?.push(go));
    return this.inner.putNew(key, bytes);
  }

  get(key: string, offset?: number, length?: number): Promise<Uint8Array | undefined> {
    return this.inner.get(key, offset, length);
  }

  delete(keys: readonly string[]): Promise<void> {
    return this.inner.delete(keys);
  }

  list(prefix: string, after?: string): Promise<string[]> {
    return this.inner.list(prefix, after);
  }
}

let seed = 1;

/** A store, and a machine with a disk for its local log. */
class Scene {
  readonly clock: VirtualClock;
  readonly objects: Gate;
  /** Of the machine that is asked about; others have their own. */
  readonly disk: MemoryDevice;

  constructor(objects = new Gate(), disk = newDisk(), clock = new VirtualClock()) {
    this.clock = clock;
    this.objects = objects;
    this.disk = disk;
  }

  async format(): Promise<this> {
    const source = { kind: 'objects', objects: this.objects, prefix: PREFIX } as const;
    await formatStore(source, { sizeBytes: 64 * MIB, random: seededRandom(seed++) });
    return this;
  }

  /** What a kill of the server leaves. */
  crashed(): Scene {
    const objects = new Gate(this.objects.inner.duplicate());
    return new Scene(objects, this.disk.duplicate(), this.clock);
  }

  /** The same object store, and another machine's disk. */
  elsewhere(): Scene {
    return new Scene(this.objects, newDisk(), this.clock);
  }

  open(options: OpenOptions = {}, log: Partial<OpenOptions['localLog']> = {}): Promise<Store> {
    const device = this.disk.reopen();
    return this.openRemote({ localLog: { device, lagMsMax: NEVER_MS, ...log }, ...options });
  }

  openRemote(options: OpenOptions = {}): Promise<Store> {
    return openStore(
      { kind: 'objects', objects: this.objects, prefix: PREFIX },
      {
        memoryBytes: 16 * MIB,
        cpIntervalMs: NEVER_MS,
        clock: this.clock,
        random: seededRandom(seed++),
        // Nobody lives but who is named.
        alone: options.ownership === undefined,
        ...options,
      },
    );
  }
}

function newDisk(): MemoryDevice {
  return new MemoryDevice({ sizeBytes: LOG_BYTES, name: 'local-log' });
}

/** Runs the body in virtual time. */
function scene(body: (scene: Scene) => Promise<void>): () => Promise<void> {
  return async () => {
    const made = await new Scene().format();
    await made.clock.run(body(made));
  };
}

async function put(store: Store, block: number, value: number, name = 'd'): Promise<void> {
  const bytes = new Uint8Array(BLOCK_BYTES).fill(value);
  await store.vdisk(name).write(block * BLOCK_BYTES, bytes);
}

async function get(store: Store, block: number, name = 'd'): Promise<number> {
  const bytes = new Uint8Array(BLOCK_BYTES);
  await store.vdisk(name).read(block * BLOCK_BYTES, bytes);
  return bytes[0] as number;
}

const refused =
  (kind: 'not-found' | 'invalid' | 'fenced' | 'corrupt', text: RegExp) => (error: unknown) =>
    isStoreError(error, kind) && text.test(error.message);

describe('restart on the same machine', () => {
  test(
    'a FLUSH and an act put nothing, and are there after a kill',
    scene(async (here) => {
      const store = await here.open();
      const { puts } = here.objects.inner.stats;
      await store.createVdisk('d', MIB);
      await put(store, 3, 7);
      await store.vdisk('d').flush();
      await put(store, 4, 8);
      assert.equal(here.objects.inner.stats.puts, puts);
      const again = await here.crashed().open();
      assert.deepEqual([await get(again, 3), await get(again, 4)], [7, 0]);
    }),
  );

  test(
    'large writes that the object store does not have are in the log',
    scene(async (here) => {
      const store = await here.open();
      await store.createVdisk('d', 4 * MIB);
      here.objects.shut();
      const bytes = new Uint8Array(3 * MIB);
      seededRandom(9).fill(bytes);
      await store.vdisk('d').write(MIB / 2, bytes, { fua: true });
      const again = await here.crashed().open();
      const into = new Uint8Array(bytes.length);
      await again.vdisk('d').read(MIB / 2, into);
      assert.deepEqual(Buffer.compare(into, bytes), 0);
    }),
  );

  test(
    'many lives, killed at once or after a consistency point',
    scene(async (here) => {
      let at = here;
      let store = await at.open();
      await store.createVdisk('d', MIB);
      for (let life = 1; life <= 12; life++) {
        await put(store, life, life);
        await store.vdisk('d').flush();
        if (life % 3 === 0) await store.consistencyPoint();
        at = at.crashed();
        store = await at.open();
        for (let block = 1; block <= life; block++) assert.equal(await get(store, block), block);
      }
    }),
  );

  test(
    'opened without the use of the log it is recovered, and needed no more',
    scene(async (here) => {
      const store = await here.open();
      await store.createVdisk('d', MIB);
      await put(store, 1, 5);
      await store.vdisk('d').flush();
      const again = here.crashed();
      const remote = await again.open({}, { durability: 'remote' });
      assert.equal(await get(remote, 1), 5);
      assert.equal(remote.stats().localLog, undefined);
      await put(remote, 2, 6);
      await remote.vdisk('d').flush();
      const last = again.crashed().elsewhere();
      const far = await last.openRemote();
      assert.deepEqual([await get(far, 1), await get(far, 2)], [5, 6]);
      // And the file serves again.
      assert.equal(await get(await again.crashed().open(), 2), 6);
    }),
  );

  test(
    'a store that was closed is opened anywhere, and the log by anybody after it',
    scene(async (here) => {
      const store = await here.open();
      await store.createVdisk('d', MIB);
      await put(store, 1, 5);
      await store.close();
      const other = here.elsewhere();
      const far = await other.open();
      assert.equal(await get(far, 1), 5);
      await put(far, 1, 6);
      await far.close();
      assert.equal(await get(await here.open(), 1), 6);
    }),
  );
});

test(
  'FLUSHes that run beside a close: what was answered is there',
  scene(async (here) => {
    let at = here;
    await (await at.open()).createVdisk('d', MIB);
    at = at.crashed();
    for (let round = 1; round <= 40; round++) {
      const store = await at.open();
      let answered = 0;
      const client = (async () => {
        for (let value = 1; ; value++) {
          await put(store, 1, value % 250);
          await store.vdisk('d').flush();
          answered = value;
          // Time goes on only when nothing else does.
          if (value % 4 === 0) await at.clock.sleep(0);
        }
      })().catch((error: unknown) => {
        assert.ok(isStoreError(error), String(error));
      });
      for (let steps = 0; steps < 3 * round; steps++) await Promise.resolve();
      await store.close();
      await client;
      const again = await at.crashed().open();
      const found = await get(again, 1);
      const wanted = [answered % 250, (answered + 1) % 250];
      assert.ok(answered === 0 || wanted.includes(found), `${found}, ${answered} in ${round}`);
    }
  }),
);

describe('the machine is lost', () => {
  test(
    'without its log nobody opens the store; with the word it is as of one moment',
    scene(async (here) => {
      const store = await here.open();
      const random = seededRandom(3);
      for (const name of ['d', 'e']) await store.createVdisk(name, MIB);
      let now = { d: 0, e: 0 };
      let kept = now;
      for (let value = 1; value <= 200; value++) {
        const name = random.chance(0.5) ? 'd' : 'e';
        await put(store, 0, value, name);
        now = { ...now, [name]: value };
        if (random.chance(0.3)) await store.vdisk(name).flush();
        if (!random.chance(0.03)) continue;
        await store.consistencyPoint();
        kept = now;
      }
      assert.notDeepEqual(kept, now);
      const far = here.crashed().elsewhere();
      const message = /what was flushed since consistency point \d+ is in the local log/;
      await assert.rejects(far.openRemote(), refused('not-found', message));
      await assert.rejects(far.open(), refused('not-found', /local-log does not hold it/));
      const found = await far.open({ withoutLocalLog: true });
      assert.deepEqual({ d: await get(found, 0, 'd'), e: await get(found, 0, 'e') }, kept);
    }),
  );

  test(
    'a log of which the store has gone on without is refused, and left as it is',
    scene(async (here) => {
      const store = await here.open();
      await store.createVdisk('d', MIB);
      const lost = here.crashed();
      const far = lost.elsewhere();
      await (await far.openRemote({ withoutLocalLog: true })).close();
      const back = new Scene(lost.objects, lost.disk);
      const message = /is the local log of epoch 2, and the store is in epoch 3/;
      for (const options of [{}, { withoutLocalLog: true }]) {
        await assert.rejects(back.open(options), refused('invalid', message));
      }
    }),
  );

  test(
    'who used the word, and died before its first consistency point, has not taken the log away',
    scene(async (here) => {
      const store = await here.open();
      await store.createVdisk('d', MIB);
      await put(store, 1, 5);
      await store.vdisk('d').flush();
      const lost = here.crashed();
      const far = lost.elsewhere();
      const inner = far.objects.inner;
      // Claims the epoch, and comes no further.
      const putNew = inner.putNew.bind(inner);
      let hasClaimed = false;
      inner.putNew = (key, chunks) => {
        if (hasClaimed) return new Promise(() => undefined);
        hasClaimed = key.includes('/epoch/');
        return putNew(key, chunks);
      };
      void far.openRemote({ withoutLocalLog: true });
      while (!hasClaimed) await here.clock.sleep(1);
      await here.clock.sleep(1);
      const back = new Scene(new Gate(inner.duplicate()), lost.disk);
      assert.equal(await get(await back.open(), 1), 5);
    }),
  );
});

describe('fencing', () => {
  const ownership = (name: string, takeOver: boolean): NonNullable<OpenOptions['ownership']> => ({
    owner: { machine: name, program: name, label: name },
    isGone: () => false,
    takeOver,
    staleReadsMsMax: STALE_MS,
  });

  test(
    'a deposed server answers no FLUSH once its successor answers',
    scene(async (here) => {
      // One that stood still: none of its timers has come when it goes on.
      const { clock } = here;
      const late: Clock = {
        nowMs: () => clock.nowMs(),
        wallMs: () => clock.wallMs(),
        setTimer: () => ({ cancel: () => undefined }),
        yield: () => clock.yield(),
      };
      const store = await here.open({ ownership: ownership('a', false), clock: late });
      await store.createVdisk('d', MIB);
      await store.consistencyPoint();
      const far = here.elsewhere();
      const word = { ownership: ownership('b', true), withoutLocalLog: true };
      const opening = far.open(word);
      let lastMs = 0;
      let failure: unknown;
      const client = (async () => {
        for (let value = 2; failure === undefined; value++) {
          await here.clock.sleep(100);
          await put(store, 1, value);
          await store.vdisk('d').flush();
          lastMs = here.clock.nowMs();
        }
      })().catch((error: unknown) => {
        failure = error;
      });
      const successor = await opening;
      const answersMs = here.clock.nowMs();
      assert.equal(await get(successor, 1), 0);
      await client;
      assert.ok(isStoreError(failure, 'fenced'), String(failure));
      assert.ok(lastMs > 0 && lastMs < answersMs, `${lastMs} of ${answersMs}`);
    }),
  );

  test(
    'a successor without the word seals, and claims nothing: the log is still good',
    scene(async (here) => {
      const { objects } = here;
      // Its first consistency point is held up, so that the store names no log yet.
      const putNew = objects.inner.putNew.bind(objects.inner);
      objects.inner.putNew = async (key, chunks) => {
        const outcome = await putNew(key, chunks);
        if (key.includes('/epoch/')) objects.shut();
        return outcome;
      };
      const opening = here.open();
      await here.clock.sleep(1);
      const bid = {
        objects,
        prefix: PREFIX,
        nonce: () => new Uint8Array(16).fill(7),
        owner: undefined,
        admit: (fsinfo: Parameters<typeof admit>[0]) =>
          admit(fsinfo, { log: undefined, isGivenUp: false }, 'it'),
      };
      const state = await findChain(objects, PREFIX);
      const end = new ChainEnd(bid, state);
      await end.advance();
      bid.admit(end.cp.fsinfo);
      objects.inner.putNew = putNew;
      objects.open();
      const store = await opening;
      await store.createVdisk('d', MIB);
      await put(store, 1, 9);
      await store.vdisk('d').flush();
      await assert.rejects(takeOver(bid, state, end), refused('not-found', /local log/));
      await assert.rejects(store.consistencyPoint(), refused('fenced', /taken this store over/));
      assert.equal(await get(await here.crashed().open(), 1), 9);
    }),
  );
});

describe('a bounded lag', () => {
  test(
    'what is older than the bound makes a FLUSH wait for the object store',
    scene(async (here) => {
      const store = await here.open({}, { lagMsMax: 100 });
      await store.createVdisk('d', MIB);
      await store.consistencyPoint();
      here.objects.shut();
      await put(store, 1, 1);
      await store.vdisk('d').flush();
      assert.equal(store.stats().localLog?.lagMs, 0);
      await here.clock.sleep(101);
      assert.equal(Math.round(store.stats().localLog?.lagMs ?? 0), 101);
      await put(store, 2, 2);
      let isAnswered = false;
      const flush = store
        .vdisk('d')
        .flush()
        .then(() => {
          isAnswered = true;
        });
      await here.clock.sleep(5000);
      assert.equal(isAnswered, false);
      assert.equal(store.stats().localLog?.waits, 1);
      here.objects.open();
      await flush;
      assert.deepEqual([store.stats().localLog?.lagMs, store.stats().localLog?.lagBytes], [0, 0]);
      // It is in the object store.
      const far = here.crashed().elsewhere();
      const found = await far.openRemote({ withoutLocalLog: true });
      assert.deepEqual([await get(found, 1), await get(found, 2)], [1, 2]);
    }),
  );

  test(
    'consistency points come in half the bound',
    scene(async (here) => {
      const store = await here.open({}, { lagMsMax: 200 });
      await store.createVdisk('d', MIB);
      await store.consistencyPoint();
      const { cpCount } = store.stats();
      for (let step = 0; step < 100; step++) {
        await put(store, step, 1);
        await store.vdisk('d').flush();
        await here.clock.sleep(10);
      }
      const { localLog, cpCount: cps } = store.stats();
      assert.equal(localLog?.waits, 0);
      assert.ok(cps - cpCount >= 9 && cps - cpCount <= 11, `${cps - cpCount}`);
    }),
  );

  test(
    'a full log makes writers wait, and loses nothing',
    scene(async (here) => {
      const store = await here.open();
      await store.createVdisk('d', 16 * MIB);
      await store.consistencyPoint();
      here.objects.shut();
      let answered = 0;
      const writer = (async () => {
        for (let block = 0; block < 1500; block++) {
          await put(store, block, (block % 250) + 1);
          await store.vdisk('d').flush();
          answered++;
        }
      })();
      await here.clock.sleep(100);
      // Header and block take 8 KiB of 8 MiB.
      assert.ok(answered > 900 && answered < 1024, `${answered}`);
      assert.equal(store.stats().localLog?.waits, 1);
      const killed = await here.crashed().open();
      for (let block = 0; block < answered; block++) {
        assert.equal(await get(killed, block), (block % 250) + 1, `block ${block}`);
      }
      here.objects.open();
      await writer;
      const again = await here.crashed().open();
      for (let block = 0; block < 1500; block++) {
        assert.equal(await get(again, block), (block % 250) + 1, `block ${block}`);
      }
    }),
  );
});

describe('refused', () => {
  test(
    'the log of another store, a file that is none, a log of another size, damaged heads',
    scene(async (here) => {
      await (await here.open()).close();
      const other = await new Scene(new Gate(), here.disk).format();
      await assert.rejects(other.open(), refused('invalid', /is the local log of store/));

      const precious = newDisk();
      await precious.write(0, [new Uint8Array(BLOCK_BYTES).fill(5)]);
      const none = new Scene(here.objects, precious);
      await assert.rejects(none.open(), refused('invalid', /it is no local log/));
      const bytes = new Uint8Array(2 * BLOCK_BYTES);
      await precious.read(0, [bytes]);
      assert.deepEqual([bytes[0], bytes[BLOCK_BYTES]], [5, 0]);

      const store = await here.open();
      await store.createVdisk('d', MIB);
      const { disk, objects } = here.crashed();
      const larger = new MemoryDevice({ sizeBytes: 2 * LOG_BYTES });
      const all = new Uint8Array(LOG_BYTES);
      await disk.read(0, [all]);
      await larger.write(0, [all]);
      const grown = new Scene(objects, larger);
      await assert.rejects(grown.open(), refused('invalid', /of 8 MiB has 16 MiB now/));

      // One head is enough.
      disk.flipBit(60, 1);
      const scarred = new Scene(objects, disk);
      assert.equal((await scarred.crashed().open()).list().length, 1);
      disk.flipBit(BLOCK_BYTES + 60, 1);
      await assert.rejects(
        scarred.open(),
        refused('corrupt', /both heads of the local log are damaged/),
      );
    }),
  );
});
