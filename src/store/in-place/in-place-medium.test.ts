import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { BLOCK_BYTES, MIB } from '../../base/units.js';
import { copyThroughMemory } from '../../env/copy-blocks.js';
import type { BlockCopies, Device } from '../../env/device.js';
import { silentLog } from '../../env/log-sink.js';
import { MemoryDevice } from '../../env/memory-device.js';
import { systemClock } from '../../env/system-clock.js';
import { Engine } from '../engine.js';
import { loadRecords, replayLog } from '../recovery.js';
import { ExtentList, type Tree } from '../tree.js';
import { formatDevice, openDevice } from './format.js';

const OPTIONS = {
  memoryBytes: 32 * MIB,
  dirtyBytesMax: 4 * MIB,
  cpIntervalMs: 3_600_000,
  clock: systemClock,
  log: silentLog,
};
const NOBODY = { put: () => undefined, remove: () => undefined };

/** A device whose plain writes wait at a gate, and that tells what happened in which order. */
class GatedDevice implements Device {
  readonly name = 'gated';
  readonly sizeBytes: number;
  readonly #inner: MemoryDevice;
  readonly events: string[] = [];
  #gate: Promise<void> | undefined;
  #openGate: () => void = () => undefined;

  constructor(inner: MemoryDevice) {
    this.#inner = inner;
    this.sizeBytes = inner.sizeBytes;
  }

  closeGate(): void {
    this.#gate = new Promise((resolve) => {
      this.#openGate = resolve;
    });
  }

  openGate(): void {
    this.#openGate();
    this.#gate = undefined;
  }

  read(offset: number, into: readonly Uint8Array[]): Promise<void> {
    return this.#inner.read(offset, into);
  }

  async write(offset: number, from: readonly Uint8Array[]): Promise<void> {
    await this.#gate;
    await this.#inner.write(offset, from);
    this.events.push('write');
  }

  async writeDurable(offset: number, from: readonly Uint8Array[]): Promise<void> {
    await this.#inner.writeDurable(offset, from);
    this.events.push('durable write');
  }

  async sync(): Promise<void> {
    await this.#inner.sync();
    this.events.push('sync');
  }

  copyBlocks(copies: BlockCopies): Promise<readonly number[]> {
    return copyThroughMemory(this, copies);
  }

  close(): Promise<void> {
    return this.#inner.close();
  }
}

async function newDevice(): Promise<MemoryDevice> {
  const device = new MemoryDevice({ sizeBytes: 64 * MIB });
  const uuid = new Uint8Array(16).fill(3);
  const request = { sizeBytes: 64 * MIB, logBytes: undefined, uuid, clock: systemClock };
  await formatDevice(device, request);
  return device.reopen();
}

async function openEngine(device: Device): Promise<Engine> {
  const engine = new Engine(await openDevice(device, silentLog), OPTIONS);
  await loadRecords(engine, NOBODY);
  await replayLog(engine, NOBODY);
  return engine;
}

/** As a client's write of one block does. */
function writeBlock(engine: Engine, tree: Tree, fbn: number, value: number): void {
  assert.ok(engine.trees.pathCost(tree, fbn, engine.generation.number) >= 0);
  engine.trees.dirtyPath(tree, fbn, engine.generation);
  const buffer = engine.pool.take();
  engine.pool.bytes(buffer).fill(value);
  engine.trees.putData(tree, buffer, engine.generation, false);
  engine.pool.unlogged[buffer] = 1;
  tree.unlogged ??= new ExtentList();
  tree.unlogged.push(fbn, 1);
}

describe('in-place medium', () => {
  test('a place that is used again brings no old bytes back from memory', async () => {
    const engine = await openEngine(await newDevice());
    const { medium, pool } = engine;
    const tree = engine.addTree(MIB);
    writeBlock(engine, tree, 0, 1);
    await engine.consistencyPoint();
    engine.trees.walk(tree, 0);
    const vbn = engine.trees.fieldWords[engine.trees.fieldAt] as number;
    assert.ok(pool.find(vbn) >= 0, 'the block stays in memory');
    engine.trees.dirtyPath(tree, 0, engine.generation);
    const { fieldWords, fieldAt } = engine.trees;
    engine.trees.letGoField(tree, fieldWords, fieldAt, engine.generation);
    fieldWords.fill(0, fieldAt, fieldAt + 4);
    await engine.consistencyPoint();
    await engine.consistencyPoint();
    for (let given = -1; given !== vbn; ) {
      while (!medium.isReady('data', 1)) await medium.prepare('data', 1);
      const { vbns, written } = medium.place('data', [new Uint8Array(BLOCK_BYTES)], []);
      await written;
      given = vbns[0] as number;
      medium.adopt(given, 'data', engine.generation);
    }
    assert.equal(pool.find(vbn), -1);
  });

  test('a FLUSH waits for blocks that a consistency point is writing', async () => {
    const inner = await newDevice();
    const device = new GatedDevice(inner);
    const engine = await openEngine(device);
    const tree = engine.addTree(MIB);
    await engine.consistencyPoint();
    writeBlock(engine, tree, 0, 7);
    device.closeGate();
    const running = engine.consistencyPoint();
    // The block has its VBN now, and its write is held up.
    for (let turn = 0; turn < 3; turn++) await systemClock.yield();
    device.events.length = 0;
    let isFlushed = false;
    const flushed = engine.writer.flush([tree]).then(() => {
      isFlushed = true;
      device.events.push('flushed');
    });
    for (let turn = 0; turn < 3; turn++) await systemClock.yield();
    assert.equal(isFlushed, false, 'the block is not on the device yet');
    device.openGate();
    await flushed;
    const { events } = device;
    assert.ok(events.indexOf('write') < events.indexOf('sync'), events.join(', '));
    assert.ok(events.indexOf('sync') < events.indexOf('durable write'), events.join(', '));
    await running;
  });

  test('a FLUSH of dirty blocks is one durable write, with their content', async () => {
    const inner = await newDevice();
    const device = new GatedDevice(inner);
    const engine = await openEngine(device);
    const tree = engine.addTree(MIB);
    await engine.consistencyPoint();
    writeBlock(engine, tree, 5, 9);
    device.events.length = 0;
    await engine.writer.flush([tree]);
    assert.deepEqual(device.events, ['durable write']);
    const after = await openEngine(inner.duplicate());
    const found = after.table.get(tree.id) as Tree;
    await after.consistencyPoint();
    after.trees.walk(found, 5);
    const vbn = after.trees.fieldWords[after.trees.fieldAt] as number;
    const bytes = new Uint8Array(BLOCK_BYTES);
    await after.medium.readBlocks(vbn, [bytes]);
    assert.ok(bytes.every((byte) => byte === 9));
  });

  test('FLUSHes of one turn share a group', async () => {
    const engine = await openEngine(await newDevice());
    const tree = engine.addTree(MIB);
    await engine.consistencyPoint();
    const before = engine.stats.logGroups;
    const flushes: Promise<void>[] = [];
    for (let fbn = 0; fbn < 20; fbn++) {
      writeBlock(engine, tree, fbn, fbn);
      flushes.push(engine.writer.flush([tree]));
    }
    await Promise.all(flushes);
    assert.ok(engine.stats.logGroups - before <= 2);
  });

  test('a log that is full: the FLUSH becomes a consistency point', async () => {
    const engine = await openEngine(await newDevice());
    const tree = engine.addTree(16 * MIB);
    await engine.consistencyPoint();
    const before = engine.medium.fsinfo.cpNumber;
    // The ring has 1,022 blocks; dirty blocks go into it by content.
    for (let round = 0; round < 3; round++) {
      for (let fbn = 0; fbn < 500; fbn++) writeBlock(engine, tree, fbn, round);
      await engine.writer.flush([tree]);
    }
    assert.ok(engine.medium.fsinfo.cpNumber > before);
  });
});
