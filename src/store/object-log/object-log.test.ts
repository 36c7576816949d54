/** Stores on an object store: order, fencing, recovery from every cut, deletion of dead records. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { SimulatedObjectStore } from '../../../sim/world/simulated-object-store.js';
import { VirtualClock } from '../../../sim/world/virtual-clock.js';
import { isStoreError } from '../../base/store-error.js';
import { BLOCK_BYTES, MIB, SEGMENT_BLOCKS } from '../../base/units.js';
import type { Clock } from '../../env/clock.js';
import { silentLog } from '../../env/log-sink.js';
import { MemoryObjectStore } from '../../env/memory-object-store.js';
import type { ObjectStore } from '../../env/object-store.js';
import { seededRandom } from '../../env/seeded-random.js';
import { systemClock } from '../../env/system-clock.js';
import { FLAG_IN_MEMORY, vbnAt, ZERO_VBN } from '../../layout/pointer.js';
import { WALK_FIELD, WALK_MISS } from '../buffer-tree.js';
import { Engine } from '../engine.js';
import { loadRecords, replayLog } from '../recovery.js';
import { ExtentList, type Tree } from '../tree.js';
import { numberKey, putText, walkChain } from './chain-walk.js';
import { epochText } from './epoch-object.js';
import { ObjectLogMedium } from './object-log-medium.js';
import { formatObjectLog, openObjectLog } from './open.js';
import { RecordChain, recordKey } from './record-chain.js';

const NOBODY = { put: () => undefined, remove: () => undefined };
const PREFIX = 'p';

function nonceFrom(seed: number): () => Uint8Array {
  const random = seededRandom(seed);
  return () => {
    const bytes = new Uint8Array(16);
    random.fill(bytes);
    return bytes;
  };
}

let opened = 0;

async function openEngine(objects: ObjectStore, clock: Clock): Promise<Engine> {
  const medium = await openObjectLog(objects, PREFIX, nonceFrom(1000 + opened++));
  const engine = new Engine(medium, {
    memoryBytes: 4 * MIB,
    dirtyBytesMax: 4 * MIB,
    cpIntervalMs: 3_600_000,
    clock,
    log: silentLog,
  });
  await loadRecords(engine, NOBODY);
  await replayLog(engine, NOBODY);
  await engine.consistencyPoint();
  return engine;
}

/** An opener that died may have claimed the epoch with a put that landed late: open once more. */
async function openPatiently(objects: ObjectStore, clock: Clock): Promise<Engine> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await openEngine(objects, clock);
    } catch (error) {
      if (attempt === 4 || !isStoreError(error, 'fenced')) throw error;
    }
  }
}

function format(objects: ObjectStore): Promise<void> {
  const uuid = new Uint8Array(16).fill(2);
  return formatObjectLog(objects, PREFIX, { sizeBytes: 64 * MIB, uuid, nonce: nonceFrom(1) });
}

async function newMemoryStore(): Promise<MemoryObjectStore> {
  const objects = new MemoryObjectStore();
  await format(objects);
  return objects;
}

/** As an act does: a tree, its record in the log. */
async function addTree(engine: Engine): Promise<Tree> {
  const tree = engine.addTree(MIB);
  const record = { ...tree.toRecord(), root: [0, 0, 0, 0] as const };
  await engine.logAct([{ kind: 'tree', record }]);
  return tree;
}

async function load(engine: Engine, tree: Tree, fbn: number): Promise<void> {
  const { trees, loader } = engine;
  while (trees.pathCost(tree, fbn, engine.generation.number) < 0) {
    await loader.loadMeta(trees.missVbn, trees.missCrc);
  }
}

async function writeBlock(engine: Engine, tree: Tree, fbn: number, value: number): Promise<void> {
  await load(engine, tree, fbn);
  engine.trees.dirtyPath(tree, fbn, engine.generation);
  const buffer = engine.pool.take();
  engine.pool.bytes(buffer).fill(value);
  engine.trees.putData(tree, buffer, engine.generation, false);
  engine.pool.unlogged[buffer] = 1;
  tree.unlogged ??= new ExtentList();
  tree.unlogged.push(fbn, 1);
}

async function readBlock(engine: Engine, tree: Tree, fbn: number): Promise<number> {
  const { trees, loader, pool } = engine;
  let found = trees.walk(tree, fbn);
  while (found === WALK_MISS) {
    await loader.loadMeta(trees.missVbn, trees.missCrc);
    found = trees.walk(tree, fbn);
  }
  if (found !== WALK_FIELD) return 0;
  const words = trees.fieldWords;
  const at = trees.fieldAt;
  if (((words[at + 1] as number) & FLAG_IN_MEMORY) !== 0) {
    return pool.bytes(words[at] as number)[0] as number;
  }
  const vbn = vbnAt(words, at);
  if (vbn <= ZERO_VBN) return 0;
  const bytes = new Uint8Array(BLOCK_BYTES);
  assert.equal(await loader.readData(vbn, [bytes], [words[at + 2] as number]), -1);
  return bytes[0] as number;
}

describe('object log: life', () => {
  test('without its id object a store is damaged, and nobody is told to format it', async () => {
    const empty = new MemoryObjectStore();
    const open = (objects: ObjectStore) => openObjectLog(objects, PREFIX, nonceFrom(1));
    await assert.rejects(open(empty), (error) => isStoreError(error, 'invalid'));
    for (const bit of [0, 7, 8 * 31, 8 * 32 - 1]) {
      const objects = await newMemoryStore();
      objects.objects.flipBit(numberKey(PREFIX, 'id'), Math.floor(bit / 8), bit % 8);
      await assert.rejects(open(objects), (error) => isStoreError(error, 'corrupt'));
    }
    const objects = await newMemoryStore();
    objects.objects.delete(numberKey(PREFIX, 'id'));
    await assert.rejects(open(objects), (error) => isStoreError(error, 'corrupt'));
  });

  test('formatting twice is refused and changes nothing', async () => {
    const objects = await newMemoryStore();
    const { count } = objects.objects;
    await assert.rejects(format(objects), (error) => isStoreError(error, 'exists'));
    assert.equal(objects.objects.count, count);
  });

  test('no store, too small, too large', async () => {
    const objects = new MemoryObjectStore();
    await assert.rejects(openObjectLog(objects, PREFIX, nonceFrom(1)), (error) =>
      isStoreError(error, 'invalid'),
    );
    for (const sizeBytes of [64 * MIB - 1, 2 ** 53]) {
      const request = { sizeBytes, uuid: new Uint8Array(16), nonce: nonceFrom(1) };
      await assert.rejects(formatObjectLog(objects, PREFIX, request), (error) =>
        isStoreError(error, 'invalid'),
      );
    }
    assert.equal(objects.objects.count, 0);
  });

  test('flushed blocks are there after the process is gone', async () => {
    const objects = await newMemoryStore();
    const engine = await openEngine(objects, systemClock);
    const tree = await addTree(engine);
    for (let fbn = 0; fbn < 50; fbn++) await writeBlock(engine, tree, fbn, 1 + fbn);
    await engine.writer.flush([tree]);
    await writeBlock(engine, tree, 3, 200);
    const after = await openEngine(objects, systemClock);
    const found = after.table.get(tree.id) as Tree;
    for (let fbn = 0; fbn < 50; fbn++) assert.equal(await readBlock(after, found, fbn), 1 + fbn);
  });

  test('the second opener takes over; the first is fenced for good', async () => {
    const objects = await newMemoryStore();
    const first = await openEngine(objects, systemClock);
    const tree = await addTree(first);
    await writeBlock(first, tree, 1, 11);
    await first.writer.flush([tree]);
    const second = await openEngine(objects, systemClock);
    await writeBlock(first, tree, 1, 12);
    await assert.rejects(first.writer.flush([tree]), (error) => isStoreError(error, 'fenced'));
    assert.throws(
      () => first.consistencyPoint(),
      (error) => isStoreError(error, 'fenced'),
    );
    assert.throws(
      () => first.assertAlive(),
      (error) => isStoreError(error, 'fenced'),
    );
    const found = second.table.get(tree.id) as Tree;
    assert.equal(await readBlock(second, found, 1), 11);
    await writeBlock(second, found, 1, 13);
    await second.writer.flush([found]);
    const third = await openEngine(objects, systemClock);
    assert.equal(await readBlock(third, third.table.get(tree.id) as Tree, 1), 13);
  });

  test('two seal at once: whoever gets the epoch, nothing is lost', async () => {
    const objects = await newMemoryStore();
    const first = await openEngine(objects, systemClock);
    const tree = await addTree(first);
    await writeBlock(first, tree, 1, 11);
    await first.writer.flush([tree]);
    // Another server has sealed where the chain ends, and is gone before it claims the epoch.
    const other = new MemoryObjectStore({ objects: objects.objects.clone() });
    await openObjectLog(other, PREFIX, nonceFrom(77));
    for (const key of other.objects.list(`${PREFIX}/log/`)) {
      const bytes = other.objects.get(key);
      if (bytes !== undefined) objects.objects.create(key, bytes);
    }
    const second = await openEngine(objects, systemClock);
    const found = second.table.get(tree.id) as Tree;
    assert.equal(await readBlock(second, found, 1), 11);
    await writeBlock(second, found, 2, 22);
    await second.writer.flush([found]);
    const third = await openEngine(objects, systemClock);
    assert.equal(await readBlock(third, third.table.get(tree.id) as Tree, 2), 22);
  });

  test('the chain goes on at the first SEAL although the epoch names a later one', async () => {
    const objects = await newMemoryStore();
    const medium = await openObjectLog(objects, PREFIX, nonceFrom(5));
    // Epoch 1 was sealed at 2 and is continued by epoch 2; say that epoch 2 names SEAL 3.
    const key = numberKey(PREFIX, 'epoch', 2);
    objects.objects.delete(key);
    await putText(objects, key, epochText({ base: 1, first: 1026, sealed: 3 }, nonceFrom(7)()));
    const walk = walkChain(objects, PREFIX, medium.fsinfo);
    const seal = await walk.next();
    assert.equal(seal.done === true ? undefined : seal.value.record.kind, 'seal');
    assert.deepEqual(await walk.next(), { done: true, value: 1026 });
  });

  test('a late SEAL in the part of a newer epoch ends that one', async () => {
    const objects = await newMemoryStore();
    const { fsinfo } = await openObjectLog(objects, PREFIX, nonceFrom(5));
    // Epoch 2 begins at 1026; there a SEAL lands that says epoch 1.
    const identity = {
      uuid: fsinfo.uuid,
      lineage: 0,
      epoch: 1,
      nonce: nonceFrom(6),
      prefix: PREFIX,
    };
    const late = new RecordChain(objects, identity, 1026);
    late.close(late.open(), 'seal');
    await late.acknowledged(1026);
    const ends: unknown[] = [];
    for (const epochMax of [1, 2, 3]) {
      if (epochMax === 3) {
        const text = epochText({ base: 1, first: 5000, sealed: 1027 }, nonceFrom(7)());
        await putText(objects, numberKey(PREFIX, 'epoch', 3), text);
      }
      const walk = walkChain(objects, PREFIX, fsinfo, epochMax);
      let step = await walk.next();
      while (step.done !== true) step = await walk.next();
      ends.push(step.value);
    }
    assert.deepEqual(ends, [3, 1027, 5000]);
    const engine = await openEngine(objects, systemClock);
    await addTree(engine);
    const again = await openEngine(objects, systemClock);
    assert.equal(again.table.size, 1);
  });

  test('a record of an earlier epoch in the part of a newer one is refused', async () => {
    const objects = await newMemoryStore();
    const { fsinfo } = await openObjectLog(objects, PREFIX, nonceFrom(5));
    const { uuid } = fsinfo;
    const identity = { uuid, lineage: 0, epoch: 1, nonce: nonceFrom(6), prefix: PREFIX };
    const late = new RecordChain(objects, identity, 1026);
    late.close(late.open(), 'data');
    await late.acknowledged(1026);
    await assert.rejects(openEngine(objects, systemClock), (error) =>
      isStoreError(error, 'corrupt'),
    );
  });

  test('a consistency point does not wait for a record opened meanwhile', async () => {
    const objects = await newMemoryStore();
    const engine = await openEngine(objects, systemClock);
    const tree = await addTree(engine);
    await writeBlock(engine, tree, 0, 1);
    const running = engine.consistencyPoint();
    let isRunning = true;
    const placing = (async () => {
      const tag = { treeId: tree.id, fbn: 9, level: 0, crc: 0, kind: 'data' } as const;
      for (; isRunning; await systemClock.yield()) {
        const { vbns } = engine.medium.place('data', [new Uint8Array(BLOCK_BYTES)], [tag]);
        for (const vbn of vbns) engine.medium.abandon(vbn, 'data');
      }
    })();
    try {
      await running;
    } finally {
      isRunning = false;
      await placing;
    }
  });

  test('behind a FLUSH whose blocks could not be placed none is answered', async () => {
    const objects = await newMemoryStore();
    const engine = await openEngine(objects, systemClock);
    const tree = await addTree(engine);
    await engine.writer.flush([tree]);
    const { medium } = engine;
    assert.ok(medium instanceof ObjectLogMedium);
    await putText(objects, recordKey(PREFIX, medium.vbnEnd / SEGMENT_BLOCKS), 'of somebody else');
    const tag = { treeId: tree.id, fbn: 9, level: 0, crc: 0, kind: 'data' } as const;
    await medium.placeApart([new Uint8Array(BLOCK_BYTES)], [tag]).written;
    for (let turn = 0; turn < 100; turn++) await Promise.resolve();
    await writeBlock(engine, tree, 1, 1);
    const isFenced = (error: unknown): boolean => isStoreError(error, 'fenced');
    await assert.rejects(engine.writer.flush([tree]), isFenced);
    // Nothing is left to collect: all of it counts as logged.
    await assert.rejects(engine.writer.flush([tree]), isFenced);
  });

  test('dead records are deleted: the store does not grow with overwrites', async () => {
    const objects = await newMemoryStore();
    const engine = await openEngine(objects, systemClock);
    const tree = await addTree(engine);
    const counts: number[] = [];
    for (let round = 1; round <= 20; round++) {
      for (let fbn = 0; fbn < 256; fbn++) await writeBlock(engine, tree, fbn, round);
      await engine.writer.flush([tree]);
      await engine.consistencyPoint();
      counts.push(objects.objects.count);
    }
    assert.ok((counts[19] as number) <= (counts[5] as number) + 2, counts.join(' '));
    const after = await openEngine(objects, systemClock);
    for (let fbn = 0; fbn < 256; fbn++) {
      assert.equal(await readBlock(after, after.table.get(tree.id) as Tree, fbn), 20);
    }
  });
});

describe('object log: cuts', () => {
  /** Writes and flushes until the power fails; tells what was flushed last, for each block. */
  async function work(engine: Engine, told: Map<number, number>, issued: Map<number, number>) {
    const tree = engine.table.get(1) ?? (await addTree(engine));
    let value = Math.max(0, ...issued.values());
    for (let round = 0; round < 9; round++) {
      const written = new Map<number, number>();
      for (let count = 0; count < 6; count++) {
        const fbn = (round * 5 + count * 3) % 17;
        value++;
        issued.set(fbn, value);
        await writeBlock(engine, tree, fbn, value);
        written.set(fbn, value);
      }
      if (round % 3 === 2) await engine.consistencyPoint();
      else await engine.writer.flush([tree]);
      for (const [fbn, flushed] of written) told.set(fbn, flushed);
    }
  }

  async function check(engine: Engine, told: ReadonlyMap<number, number>): Promise<void> {
    const tree = engine.table.get(1);
    for (const [fbn, value] of told) {
      assert.ok(tree !== undefined, 'the tree was durable');
      const found = await readBlock(engine, tree, fbn);
      assert.ok(found >= value, `block ${fbn} is ${found}, flushed was ${value}`);
    }
  }

  test('power cut at every put, and in the recovery: what was flushed is there', async () => {
    let recoveries = 0;
    for (let at = 1; ; at++) {
      const clock = new VirtualClock();
      const random = seededRandom(at);
      let objects = new SimulatedObjectStore({ clock, random, lateMsMax: 30 });
      await clock.run(format(objects));
      objects = objects.anotherClient();
      if (at % 2 === 0) objects.faultRates = { lostRequest: 0.1, lostResponse: 0.1, latePut: 0.1 };
      const told = new Map<number, number>();
      const issued = new Map<number, number>();
      let wasCut = false;
      for (const cut of [at, 1 + (at % 4)]) {
        const life = clock.machine();
        const stopped = new Promise<'cut'>((resolve) => {
          objects.cutAtPut(cut, () => resolve('cut'));
        });
        const running = openPatiently(objects, life).then(async (engine) => {
          await check(engine, told);
          await work(engine, told, issued);
        });
        const outcome = await clock.run(Promise.race([running, stopped]));
        if (outcome !== 'cut') break;
        wasCut = true;
        recoveries++;
        life.powerOff();
        objects = objects.cutClient();
      }
      if (!wasCut) break;
      const engine = await clock.run(openPatiently(objects, clock.machine()));
      await clock.run(check(engine, told));
    }
    assert.ok(recoveries > 35, `${recoveries} cuts`);
  });
});
