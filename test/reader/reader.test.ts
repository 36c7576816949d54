/**
 * The reader in Python against stores that the engine wrote, and whose power was cut: while a split
 * is under way, with a log to replay, after merges.
 *
 * The expected bytes are what clients wrote and flushed, kept in plain arrays beside.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { KIB, MIB } from '../../src/base/units.js';
import { seededRandom } from '../../src/env/seeded-random.js';
import { checkStore } from '../../src/main/check.js';
import { formatStore, MemoryDevice, openStore, type Store } from '../../src/main/library.js';
import { makeScene, writeLog } from '../support/handmade-scene.js';
import { bytesOf } from '../support/layers.js';
import { runReader } from './run-reader.js';

const STORE_BYTES = 64 * MIB;
const GOLDEN_BYTES = 16 * MIB - 1536;
/** No consistency point but those that are asked for, or that acts need. */
const OPTIONS = { memoryBytes: 64 * MIB, cpIntervalMs: 3_600_000 };

let folder = '';
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'keiki-reader-'));
});
after(() => rmSync(folder, { recursive: true }));

/** A store, what its clients wrote, and the power switch. */
class Bench {
  readonly device: MemoryDevice;
  readonly store: Store;
  /** By name: the bytes that a client expects. */
  readonly expected = new Map<string, Buffer>();
  readonly #random = seededRandom(42);

  private constructor(device: MemoryDevice, store: Store) {
    this.device = device;
    this.store = store;
  }

  static async make(): Promise<Bench> {
    const device = new MemoryDevice({ sizeBytes: STORE_BYTES });
    await formatStore({ kind: 'device', device }, { random: seededRandom(1) });
    return new Bench(device, await openStore({ kind: 'device', device }, OPTIONS));
  }

  async create(name: string, sizeBytes: number): Promise<void> {
    await this.store.createVdisk(name, sizeBytes);
    this.expected.set(name, Buffer.alloc(sizeBytes));
  }

  /** Random bytes at any offset. */
  async write(name: string, offset: number, length: number): Promise<void> {
    const data = Buffer.alloc(length);
    this.#random.fill(data);
    await this.store.vdisk(name).write(offset, data);
    this.bytes(name).set(data, offset);
  }

  async zero(name: string, offset: number, length: number): Promise<void> {
    await this.store.vdisk(name).writeZeroes(offset, length);
    this.bytes(name).fill(0, offset, offset + length);
  }

  async resize(name: string, sizeBytes: number): Promise<void> {
    await this.store.resize(name, sizeBytes);
    const bytes = Buffer.alloc(sizeBytes);
    this.bytes(name).copy(bytes);
    this.expected.set(name, bytes);
  }

  async snapshot(vdisk: string, snapshot: string): Promise<void> {
    await this.store.snapshot([{ vdisk, snapshot }]);
    this.expected.set(`${vdisk}@${snapshot}`, Buffer.from(this.bytes(vdisk)));
  }

  async clone(snapshot: string, name: string): Promise<void> {
    await this.store.clone(snapshot, name);
    this.expected.set(name, Buffer.from(this.bytes(snapshot)));
  }

  bytes(name: string): Buffer {
    const bytes = this.expected.get(name);
    assert.ok(bytes !== undefined, name);
    return bytes;
  }

  async flush(): Promise<void> {
    for (const [name] of this.expected) {
      if (!name.includes('@')) await this.store.vdisk(name).flush();
    }
  }

  /** The medium as a power cut at this moment leaves it, in a file; nothing is awaited. */
  cut(device = this.device): string {
    const image = device.duplicate();
    const path = join(folder, 'store');
    const bytes = new Uint8Array(STORE_BYTES);
    void image.read(0, [bytes]);
    writeFileSync(path, bytes);
    return path;
  }

  /** The reader finds the same names and bytes in the file. */
  compare(path: string): void {
    const list = runReader(path, 'list');
    assert.equal(list.code, 0, list.message);
    const names = list.output.toString().match(/^[^\t]+/gm) ?? [];
    assert.deepEqual([...names].sort(), [...this.expected.keys()].sort());
    if (names.length === 0) return;
    const digests = runReader(path, 'sha256', ...this.expected.keys());
    assert.equal(digests.code, 0, digests.message);
    const lines = digests.output.toString().split('\n');
    for (const [index, [name, bytes]] of [...this.expected].entries()) {
      if (lines[index] !== createHash('sha256').update(bytes).digest('hex')) {
        assert.fail(firstDifference(path, name, bytes));
      }
    }
  }
}

function firstDifference(path: string, name: string, bytes: Buffer): string {
  const { output } = runReader(path, 'cat', name);
  const at = output.findIndex((byte, index) => byte !== bytes[index]);
  return `${name} has ${output.length} bytes and differs from byte ${at} on, FBN ${at >>> 12}`;
}

/** golden with a snapshot, a clone of that, and changes of both. */
async function makeFamily(): Promise<Bench> {
  const bench = await Bench.make();
  await bench.create('golden', GOLDEN_BYTES);
  for (let at = 0; at < 15 * MIB; at += 256 * KIB) await bench.write('golden', at, 100 * KIB);
  await bench.write('golden', GOLDEN_BYTES - 700, 700);
  await bench.zero('golden', 3 * MIB, 1 * MIB + 300);
  await bench.snapshot('golden', 'v1');
  await bench.clone('golden@v1', 'clone');
  await bench.write('clone', 5000, 3);
  await bench.write('clone', 2 * MIB + 100, 20_000);
  await bench.zero('clone', 6 * MIB - 10, 200 * KIB);
  await bench.write('golden', 700 * KIB, 4096);
  return bench;
}

test('right after the format there is nothing, and after a close all', async () => {
  const bench = await Bench.make();
  bench.compare(bench.cut());
  await bench.create('golden', 5 * MIB);
  await bench.write('golden', 4096, 1 * MIB);
  await bench.store.close();
  bench.compare(bench.cut(bench.device.reopen()));
});

test('all in the log: snapshot, clone, writes, zeroes', async () => {
  const bench = await makeFamily();
  await bench.flush();
  bench.compare(bench.cut());
  await bench.store.close();
});

test('a consistency point, and a log over it', async () => {
  const bench = await makeFamily();
  await bench.store.consistencyPoint();
  await bench.write('clone', 9 * MIB, 300_000);
  await bench.write('clone', 9 * MIB + 8192, 4096);
  await bench.zero('golden', 0, 64 * KIB);
  await bench.resize('clone', 7 * MIB + 1024);
  await bench.resize('clone', 13 * MIB);
  await bench.snapshot('clone', 'half');
  await bench.write('clone', 7 * MIB, 4096);
  await bench.store.rename('golden', 'silver');
  for (const [from, to] of [
    ['golden', 'silver'],
    ['golden@v1', 'silver@v1'],
  ] as const) {
    bench.expected.set(to, bench.bytes(from));
    bench.expected.delete(from);
  }
  await bench.flush();
  bench.compare(bench.cut());
  await bench.store.close();
});

/** Where the split of `clone` stands in a store that is opened after a cut now. */
async function positionAfterCut(bench: Bench): Promise<number> {
  const device = bench.device.duplicate();
  const store = await openStore({ kind: 'device', device }, OPTIONS);
  const { split } = store.show('clone');
  await store.close();
  return split?.positionBytes ?? 0;
}

for (const mode of ['copy', 'share'] as const) {
  test(`a clone amid a ${mode} split, with writes in the log, then released`, async () => {
    const bench = await makeFamily();
    await bench.store.consistencyPoint();
    const job = await bench.store.split('clone', { mode });
    let inTheMiddle = 0;
    for (let turn = 0; job.state() !== undefined && inTheMiddle < 2; turn++) {
      // What is filled so far is in the tree, and these writes are in the log.
      await bench.store.consistencyPoint();
      await bench.write('clone', (turn * 1_234_567) % (15 * MIB), 5000);
      await bench.flush();
      const path = bench.cut();
      const position = await positionAfterCut(bench);
      if (position === 0 || position >= bench.bytes('clone').length) continue;
      inTheMiddle++;
      bench.compare(path);
    }
    assert.notEqual(inTheMiddle, 0, 'the power was cut in the middle');
    await job.done;
    await bench.flush();
    bench.compare(bench.cut());
    await bench.store.close();
  });
}

test('a deleted snapshot on its way down, and after it', async () => {
  const bench = await makeFamily();
  await bench.store.delete('clone');
  bench.expected.delete('clone');
  await bench.store.delete('golden@v1');
  bench.expected.delete('golden@v1');
  const idle = bench.store.idle().then(() => 'idle' as const);
  for (let turn = 0; turn < 3; turn++) {
    await bench.write('golden', turn * 3 * MIB + 17, 9000);
    await bench.flush();
    bench.compare(bench.cut());
    const step = bench.store.consistencyPoint().then(() => 'goes on' as const);
    if ((await Promise.race([idle, step])) === 'idle') break;
  }
  await idle;
  await bench.store.consistencyPoint();
  bench.compare(bench.cut());
  await bench.store.close();
});

test('the engine takes a store made by hand from the document as the reader does', async () => {
  const scene = makeScene();
  writeLog(scene, 1);
  const image = scene.store.finish();
  const device = new MemoryDevice({ sizeBytes: image.length });
  await device.write(0, [image]);
  const expectSame = async (store: Store): Promise<void> => {
    for (const [name, layer] of Object.entries(scene.layers)) {
      const bytes = Buffer.alloc(layer.sizeBytes);
      await store.vdisk(name).read(0, bytes);
      assert.ok(bytes.equals(bytesOf(layer)), name);
    }
  };
  assert.deepEqual((await checkStore({ kind: 'device', device })).faults, []);
  const store = await openStore({ kind: 'device', device }, OPTIONS);
  await expectSame(store);
  // The split that is under way goes to its end, and the merge.
  await store.idle();
  await expectSame(store);
  await store.close();
  assert.deepEqual((await checkStore({ kind: 'device', device: device.reopen() })).faults, []);
});
