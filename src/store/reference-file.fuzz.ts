/**
 * The reference file beside a Map from VBN to the set of trees that name it: shares, moves and
 * frees in any order, over several generations and openings.
 *
 * 1. After every consistency point each entry has the count and the exclusive-or of its owners; a
 *    block with one owner has none.
 * 2. What is freed is what lost its last owner, no more and no less.
 * 3. A block of the file without an entry is a hole; when nothing is shared the file has no block.
 * 4. sharedBlocks of a tree is the number of its blocks that have an entry, live and in its record.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { fuzzSeeds } from '../../test/support/fuzz-seeds.js';
import { BLOCK_BYTES, MIB } from '../base/units.js';
import { silentLog } from '../env/log-sink.js';
import { MemoryDevice } from '../env/memory-device.js';
import type { Random } from '../env/random.js';
import { seededRandom } from '../env/seeded-random.js';
import { systemClock } from '../env/system-clock.js';
import { HOLE_VBN, vbnAt } from '../layout/pointer.js';
import {
  ownersAt,
  REFERENCE_ENTRIES_PER_BLOCK,
  REFERENCE_WORDS,
} from '../layout/reference-entry.js';
import { Engine } from './engine.js';
import { formatDevice, openDevice } from './in-place/format.js';
import { loadRecords } from './recovery.js';
import type { Tree } from './tree.js';

const OPTIONS = {
  memoryBytes: 4 * MIB,
  dirtyBytesMax: 2 * MIB,
  cpIntervalMs: 3_600_000,
  clock: systemClock,
  log: silentLog,
};
const NOBODY = { put: () => undefined, remove: () => undefined };
const TREES = 6;
const FILE_BLOCKS = (64 * MIB) / BLOCK_BYTES / REFERENCE_ENTRIES_PER_BLOCK;
const BLOCKS = 700;
const OFTEN = 12;

class Driver {
  readonly #random: Random;
  #device = new MemoryDevice({ sizeBytes: 64 * MIB });
  #engine: Engine | undefined;
  /** Trees that name each block. */
  readonly #owners = new Map<number, Set<number>>();
  /** Those of the generation that is being written. */
  #frozen: Map<number, Set<number>> | undefined;
  #placed: readonly number[] = [];

  constructor(seed: number) {
    this.#random = seededRandom(seed);
  }

  get #here(): Engine {
    assert.ok(this.#engine !== undefined);
    return this.#engine;
  }

  async run(): Promise<void> {
    const uuid = new Uint8Array(16).fill(4);
    const request = { sizeBytes: 64 * MIB, logBytes: undefined, uuid, clock: systemClock };
    await formatDevice(this.#device, request);
    await this.#open();
    for (let count = 0; count < TREES; count++) this.#here.addTree(MIB);
    await this.#placeBlocks();
    for (let round = 0; round < 14; round++) {
      for (let count = this.#random.below(120); count > 0; count--) this.#step();
      await this.#consistencyPoint();
      await this.#check();
      if (round % 5 === 4) await this.#reopen();
    }
    await this.#letGoOfAll();
  }

  async #letGoOfAll(): Promise<void> {
    for (const [vbn, owners] of this.#owners) for (const id of [...owners]) this.#letGo(id, vbn);
    await this.#consistencyPoint();
    if (this.#owners.size > 0) await this.#letGoOfAll();
    else await this.#check();
  }

  async #open(): Promise<void> {
    this.#device = this.#device.reopen();
    this.#engine = new Engine(await openDevice(this.#device, silentLog), OPTIONS);
    await loadRecords(this.#here, NOBODY);
  }

  async #reopen(): Promise<void> {
    this.#frozen = this.#copyOwners();
    await this.#here.close();
    await this.#open();
    await this.#check();
  }

  async #placeBlocks(): Promise<void> {
    const { medium, generation } = this.#here;
    while (!medium.isReady('data', BLOCKS)) await medium.prepare('data', BLOCKS);
    const blocks = Array.from({ length: BLOCKS }, () => new Uint8Array(BLOCK_BYTES));
    const { vbns, written } = medium.place('data', blocks, []);
    await written;
    this.#placed = vbns;
    for (const vbn of vbns) {
      medium.adopt(vbn, 'data', generation);
      this.#owners.set(vbn, new Set([this.#draw([1, 2, 3, 4, 5, 6])]));
    }
  }

  #draw<T>(from: readonly T[]): T {
    return from[this.#random.below(from.length)] as T;
  }

  #step(): void {
    const { generation, table } = this.#here;
    const vbns = [...this.#owners.keys()];
    if (vbns.length === 0) return;
    // A few are named, and let go of, again and again.
    const vbn = this.#draw(this.#random.chance(0.5) ? vbns.slice(0, OFTEN) : vbns);
    const owners = this.#owners.get(vbn);
    assert.ok(owners !== undefined);
    const owner = this.#draw([...owners]);
    const others = [1, 2, 3, 4, 5, 6].filter((id) => !owners.has(id));
    const other = others.length === 0 ? undefined : this.#draw(others);
    // Something of the tree changes, too: its record is dirty in this generation.
    const tree = table.get(owner);
    if (tree !== undefined && this.#random.chance(0.3)) {
      this.#here.trees.noteDirty(tree, generation);
      tree.sizeBytes += 4096;
    }
    switch (this.#random.below(5)) {
      case 0:
      case 1:
        if (other === undefined) return;
        generation.share({ vbn, blocks: 1, ownerId: owner, withId: other });
        owners.add(other);
        return;
      case 2:
      case 3:
        if (other === undefined) return;
        generation.move(vbn, owner, other);
        owners.delete(owner);
        owners.add(other);
        return;
      default:
        this.#letGo(owner, vbn);
    }
  }

  /** Who has let go may get the name again, and let go once more, in the same generation. */
  #letGo(id: number, vbn: number): void {
    const owners = this.#owners.get(vbn);
    if (owners?.delete(id) !== true) return;
    this.#here.generation.freeData(id, vbn);
    if (owners.size === 0) this.#owners.delete(vbn);
  }

  #copyOwners(): Map<number, Set<number>> {
    return new Map([...this.#owners].map(([vbn, owners]) => [vbn, new Set(owners)]));
  }

  async #consistencyPoint(): Promise<void> {
    this.#frozen = this.#copyOwners();
    const running = this.#here.consistencyPoint();
    if (this.#random.chance(0.5)) {
      await Promise.resolve();
      // The next generation is at work already.
      for (let count = this.#random.below(60); count > 0; count--) this.#step();
    }
    await running;
  }

  async #check(): Promise<void> {
    const model = this.#frozen ?? this.#owners;
    // What is durable: opened from a copy, as after a cut.
    const copy = this.#device.duplicate();
    const engine = new Engine(await openDevice(copy, silentLog), OPTIONS);
    await loadRecords(engine, NOBODY);
    const shared = new Map<number, number>();
    const files = new Set<number>();
    let live = 0;
    for (const vbn of this.#placed) {
      const owners = model.get(vbn) ?? new Set<number>();
      if (owners.size > 0) live++;
      const entry = await entryOf(engine, vbn);
      if (owners.size > 1) files.add(Math.floor(vbn / REFERENCE_ENTRIES_PER_BLOCK));
      if (owners.size < 2) {
        assert.equal(entry.count, 0, `VBN ${vbn} has no entry`);
        continue;
      }
      assert.equal(entry.count, owners.size, `count of VBN ${vbn}`);
      let xor = 0;
      for (const id of owners) {
        xor ^= id;
        shared.set(id, (shared.get(id) ?? 0) + 1);
      }
      assert.equal(entry.owners, xor, `owners of VBN ${vbn}`);
    }
    await checkHoles(engine, files);
    for (let id = 1; id <= TREES; id++) {
      const tree = engine.table.get(id) as Tree;
      assert.equal(tree.sharedBlocks, shared.get(id) ?? 0, `sharedBlocks of tree ${id}, durable`);
      assert.equal(this.#here.table.get(id)?.sharedBlocks, shared.get(id) ?? 0);
    }
    assert.equal(await this.#dataInUse(engine, model), live, 'freed is what lost its last owner');
  }

  /** How many of the model's blocks the active map says are in use. */
  async #dataInUse(engine: Engine, model: ReadonlyMap<number, unknown>): Promise<number> {
    let count = 0;
    for (const vbn of this.#placed) {
      const segment = Math.floor(vbn / 1024);
      const buffer = await engine.editor.load(engine.metafiles.map, Math.floor(segment / 32));
      const at = engine.pool.wordStart(buffer) + (segment % 32) * 32 + ((vbn % 1024) >>> 5);
      const isSet = ((engine.pool.wordsOf(buffer)[at] as number) & (1 << (vbn & 31))) !== 0;
      assert.equal(isSet, model.has(vbn), `bit of VBN ${vbn}`);
      if (isSet) count++;
    }
    return count;
  }
}

/** @param fbns  blocks of the file that have an entry */
async function checkHoles(engine: Engine, fbns: ReadonlySet<number>): Promise<void> {
  const file = engine.metafiles.reference;
  if (fbns.size === 0) assert.equal(vbnAt(file.root, 0), HOLE_VBN, 'the file has no block');
  for (let fbn = 0; fbn < Math.min(file.capacityFbn, FILE_BLOCKS); fbn++) {
    const isThere = (await engine.editor.load(file, fbn)) >= 0;
    assert.equal(isThere, fbns.has(fbn), `block ${fbn} of the reference file`);
  }
}

async function entryOf(engine: Engine, vbn: number): Promise<{ count: number; owners: number }> {
  const file = engine.metafiles.reference;
  const fbn = Math.floor(vbn / REFERENCE_ENTRIES_PER_BLOCK);
  const buffer = fbn >= file.capacityFbn ? -1 : await engine.editor.load(file, fbn);
  if (buffer < 0) return { count: 0, owners: 0 };
  const words = engine.pool.wordsOf(buffer);
  const at = engine.pool.wordStart(buffer) + (vbn % REFERENCE_ENTRIES_PER_BLOCK) * REFERENCE_WORDS;
  return { count: words[at] as number, owners: ownersAt(words, at) };
}

describe('reference file beside a Map', () => {
  test('seeds', async () => {
    for (const seed of fuzzSeeds(3)) await new Driver(seed).run();
  });
});
