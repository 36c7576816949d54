/**
 * Write allocator, active map and usage file beside a plain set of VBNs in use: blocks are placed,
 * let go and abandoned, consistency points run meanwhile, the store is closed, cut and opened
 * again, and it is filled to its last block and emptied.
 *
 * 1. No VBN is given out that is in use, or was freed by a consistency point not yet released.
 * 2. What the map says is in use is what the model says, the metadata and the reserved blocks.
 * 3. The counts in fsinfo are those of the usage file, and that agrees with the map.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { fuzzSeeds } from '../../../test/support/fuzz-seeds.js';
import { crc32 } from '../../base/checksum.js';
import { BLOCK_BYTES, FIELDS_PER_BLOCK, MIB, SEGMENT_BLOCKS } from '../../base/units.js';
import { silentLog } from '../../env/log-sink.js';
import { MemoryDevice } from '../../env/memory-device.js';
import type { Random } from '../../env/random.js';
import { seededRandom } from '../../env/seeded-random.js';
import { systemClock } from '../../env/system-clock.js';
import { METAFILES } from '../../layout/fsinfo.js';
import { POINTER_WORDS, vbnAt, ZERO_VBN } from '../../layout/pointer.js';
import { usageKind, usageLive } from '../../layout/usage-entry.js';
import { Engine } from '../engine.js';
import { formatDevice, openDevice } from './format.js';
import { PendingMap } from './pending-map.js';
import { countPair } from './segment-allocator.js';

const OPTIONS = {
  memoryBytes: 8 * MIB,
  dirtyBytesMax: 4 * MIB,
  cpIntervalMs: 3_600_000,
  clock: systemClock,
  log: silentLog,
};

/** Adds every block of a metafile, and its second copy, to the set. */
async function addBlocksOf(
  device: MemoryDevice,
  words: Uint32Array,
  level: number,
  into: Set<number>,
): Promise<void> {
  const vbn = vbnAt(words, 0);
  if (vbn <= ZERO_VBN) return;
  const block = new Uint32Array(BLOCK_BYTES / 4);
  const bytes = new Uint8Array(block.buffer);
  for (const each of [vbn + SEGMENT_BLOCKS, vbn]) {
    assert.ok(!into.has(each), `VBN ${each} is named once`);
    into.add(each);
    await device.read(each * BLOCK_BYTES, [bytes]);
    assert.equal(crc32(bytes), words[2], `both copies of VBN ${vbn} have their checksum`);
  }
  if (level === 0) return;
  for (let index = 0; index < FIELDS_PER_BLOCK; index++) {
    const at = index * POINTER_WORDS;
    await addBlocksOf(device, block.slice(at, at + POINTER_WORDS), level - 1, into);
  }
}

class Driver {
  readonly #random: Random;
  #device: MemoryDevice;
  #engine: Engine | undefined;
  #live = new Set<number>();
  /** Freed in the generation of this number, and not to be used before it is committed. */
  #freed = new Map<number, Set<number>>();
  /** What is in use in the last durable consistency point. */
  #durable = new Set<number>();
  readonly #reserved = new Set<number>();
  placed = 0;
  refused = 0;

  constructor(seed: number, sizeBytes: number) {
    this.#random = seededRandom(seed);
    this.#device = new MemoryDevice({ sizeBytes });
  }

  async run(steps: number): Promise<void> {
    const request = {
      sizeBytes: this.#device.sizeBytes,
      logBytes: undefined,
      uuid: new Uint8Array(16).fill(7),
      clock: systemClock,
    };
    await formatDevice(this.#device, request);
    await this.#open();
    const { logStart, logBlocks, storeBlocks } = this.#here.medium.fsinfo;
    for (let vbn = 0; vbn < logStart + logBlocks; vbn++) this.#reserved.add(vbn);
    this.#reserved.add(storeBlocks - 2).add(storeBlocks - 1);
    await this.#check();
    for (let step = 0; step < steps; step++) await this.#step(step);
    await this.#empty();
  }

  get #here(): Engine {
    assert.ok(this.#engine !== undefined);
    return this.#engine;
  }

  async #open(): Promise<void> {
    this.#device = this.#device.reopen();
    this.#engine = new Engine(await openDevice(this.#device, silentLog), OPTIONS);
  }

  async #step(step: number): Promise<void> {
    const random = this.#random;
    switch (random.below(8)) {
      case 0:
      case 1:
      case 2:
        return this.#place(1 + random.below(random.chance(0.3) ? 3000 : 200));
      case 3:
        return this.#free(random.below(random.chance(0.3) ? 3000 : 200));
      case 4:
        return this.#freeRun();
      case 5:
        await this.#consistencyPoint();
        return step % 5 === 0 ? this.#check() : undefined;
      case 6:
        return this.#busyConsistencyPoint();
      default:
        if (random.chance(0.3)) return this.#reopen(random.chance(0.5));
    }
  }

  async #place(count: number): Promise<void> {
    const { medium } = this.#here;
    for (let left = count; left > 0; ) {
      const some = Math.min(left, 1 + this.#random.below(256));
      const demand = { dataBlocks: some, metaBlocks: 0 };
      if (!medium.hasRoom(demand, 'client')) {
        this.refused++;
        return;
      }
      while (!medium.isReady('data', some)) {
        await medium.prepare('data', some);
        if (!medium.hasRoom(demand, 'client')) return;
      }
      const blocks = Array.from({ length: some }, () => new Uint8Array(BLOCK_BYTES));
      const { vbns, written } = medium.place('data', blocks, []);
      const abandons = this.#random.chance(0.1);
      for (const vbn of vbns) {
        assert.ok(!this.#isBusy(vbn), `VBN ${vbn} is given out twice`);
        if (!abandons) this.#live.add(vbn);
      }
      await written;
      for (const vbn of vbns) {
        if (abandons) medium.abandon(vbn, 'data');
        else medium.adopt(vbn, 'data', this.#here.generation);
      }
      this.placed += some;
      left -= some;
    }
  }

  #isBusy(vbn: number): boolean {
    if (this.#live.has(vbn) || this.#reserved.has(vbn)) return true;
    for (const set of this.#freed.values()) if (set.has(vbn)) return true;
    return false;
  }

  #free(count: number): void {
    const live = [...this.#live];
    for (let left = Math.min(count, live.length); left > 0; left--) {
      this.#freeOne(live[this.#random.below(live.length)] as number);
    }
  }

  /** Whole segments become empty, and change their kind. */
  #freeRun(): void {
    const [first] = this.#live;
    if (first === undefined) return;
    const from = Math.floor(first / SEGMENT_BLOCKS) * SEGMENT_BLOCKS;
    const length = (1 + this.#random.below(4)) * SEGMENT_BLOCKS;
    for (let vbn = from; vbn < from + length; vbn++) this.#freeOne(vbn);
  }

  #freeOne(vbn: number): void {
    if (!this.#live.delete(vbn)) return;
    const { generation } = this.#here;
    generation.freeData(1, vbn);
    const set = this.#freed.get(generation.number) ?? new Set();
    set.add(vbn);
    this.#freed.set(generation.number, set);
  }

  async #consistencyPoint(): Promise<void> {
    const { number } = this.#here.generation;
    const live = new Set(this.#live);
    await this.#here.consistencyPoint();
    if (this.#here.medium.fsinfo.cpNumber < number) return;
    this.#durable = live;
    this.#freed.delete(number);
  }

  /** Clients go on while it is written. */
  async #busyConsistencyPoint(): Promise<void> {
    const running = this.#consistencyPoint();
    await Promise.resolve();
    await this.#place(1 + this.#random.below(500));
    this.#free(100);
    await running;
  }

  async #reopen(isClean: boolean): Promise<void> {
    if (isClean) {
      await this.#here.close();
      this.#durable = new Set(this.#live);
    } else {
      // The engine of the life before is left alone on a device of its own.
      this.#device = this.#device.duplicate();
      this.#live = new Set(this.#durable);
    }
    this.#freed = new Map();
    await this.#open();
    if (!isClean) this.#live = new Set(this.#durable);
    await this.#check();
  }

  /** Deletes everything: a full store can be emptied, and all of it comes back. */
  async #empty(): Promise<void> {
    await this.#place(1e9);
    for (const vbn of [...this.#live]) this.#freeOne(vbn);
    await this.#consistencyPoint();
    await this.#here.close();
    this.#freed = new Map();
    await this.#open();
    await this.#check();
    const { freePairs, storeBlocks } = this.#here.medium.fsinfo;
    assert.ok(freePairs >= storeBlocks / (2 * SEGMENT_BLOCKS) - 4, `${freePairs} pairs are free`);
  }

  /** The map, the usage file and fsinfo as they are on the device, against the model. */
  async #check(): Promise<void> {
    const device = this.#device.duplicate();
    const engine = new Engine(await openDevice(device, silentLog), OPTIONS);
    const { fsinfo } = engine.medium;
    const used = new Set(this.#reserved);
    for (const vbn of this.#durable) used.add(vbn);
    const before = used.size;
    const metadata = new Set<number>();
    for (const name of METAFILES) {
      const { words, height } = fsinfo.roots[name];
      await addBlocksOf(device, Uint32Array.from(words), height, metadata);
    }
    for (const vbn of metadata) used.add(vbn);
    assert.equal(used.size, before + metadata.size, 'metadata stands on no other block');
    assert.equal(fsinfo.usedBlocks, used.size);
    const pending = new PendingMap();
    for (const run of fsinfo.pending) pending.addRun(run);
    const counts = { freePairs: 0, dataGaps: 0, metaGaps: 0 };
    for (let segment = 0; segment < fsinfo.storeBlocks / SEGMENT_BLOCKS; segment += 2) {
      const pair = [await usageOf(engine, segment), await usageOf(engine, segment + 1)] as const;
      countPair([pair[0].kind, pair[1].kind], [pair[0].live, pair[1].live], counts, 1);
      for (let half = 0; half < 2; half++) {
        const marked = await bitsOf(engine, segment + half);
        const live = pair[half]?.live as number;
        assert.equal(live, marked.length, `map and usage of segment ${segment + half}`);
        const listed = withPending(marked, segment + half, pending);
        const wanted = Array.from(
          { length: SEGMENT_BLOCKS },
          (_, index) => (segment + half) * SEGMENT_BLOCKS + index,
        ).filter((vbn) => used.has(vbn));
        assert.deepEqual(listed, wanted, `bits of segment ${segment + half}`);
      }
    }
    const { freePairs, dataGaps, metaGaps } = fsinfo;
    assert.deepEqual({ freePairs, dataGaps, metaGaps }, counts);
  }
}

async function usageOf(engine: Engine, segment: number): Promise<{ live: number; kind: number }> {
  const buffer = await engine.editor.load(engine.metafiles.usage, Math.floor(segment / 512));
  if (buffer < 0) return { live: 0, kind: 0 };
  const at = engine.pool.wordStart(buffer) + (segment % 512) * 2;
  const word = engine.pool.wordsOf(buffer)[at] as number;
  return { live: usageLive(word), kind: usageKind(word) };
}

/** The VBNs with what came into use and free since the map was written. */
function withPending(marked: number[], segment: number, pending: PendingMap): number[] {
  const vbns = new Set(marked);
  for (let vbn = segment * SEGMENT_BLOCKS; vbn < (segment + 1) * SEGMENT_BLOCKS; vbn++) {
    if (pending.allocated.has(vbn)) {
      assert.ok(!vbns.has(vbn), `VBN ${vbn} is in the map already`);
      vbns.add(vbn);
    }
    if (pending.freed.has(vbn)) assert.ok(vbns.delete(vbn), `VBN ${vbn} is free already`);
  }
  return [...vbns].sort((a, b) => a - b);
}

/** VBNs of the segment that the active map says are in use. */
async function bitsOf(engine: Engine, segment: number): Promise<number[]> {
  const buffer = await engine.editor.load(engine.metafiles.map, Math.floor(segment / 32));
  if (buffer < 0) return [];
  const at = engine.pool.wordStart(buffer) + (segment % 32) * 32;
  const words = engine.pool.wordsOf(buffer);
  const vbns: number[] = [];
  for (let index = 0; index < SEGMENT_BLOCKS; index++) {
    const word = words[at + (index >>> 5)] as number;
    if ((word & (1 << (index & 31))) !== 0) vbns.push(segment * SEGMENT_BLOCKS + index);
  }
  return vbns;
}

describe('allocator, active map and usage file beside a set', () => {
  test('seeds, on the smallest store', async () => {
    let placed = 0;
    let refused = 0;
    for (const seed of fuzzSeeds(3)) {
      const driver = new Driver(seed, 64 * MIB);
      await driver.run(60);
      placed += driver.placed;
      refused += driver.refused;
    }
    assert.ok(placed > 25_000, `${placed} blocks placed`);
    assert.ok(refused > 2, `${refused} times full`);
  });

  test('a seed on a store with several blocks of the map', async () => {
    await new Driver(1, 264 * MIB).run(30);
  });
});
