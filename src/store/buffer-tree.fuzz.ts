/**
 * Buffer trees beside a Map from FBN to value: writes, cuts and growth go on while generations are
 * frozen and written; the pool is small, so that blocks leave memory all the time; the store is cut
 * and opened again at its last consistency point.
 *
 * 1. The live tree reads as the model, at every moment.
 * 2. The tree of the last durable consistency point is what the model was at that freeze.
 * 3. mappedBlocks is the number of blocks, less those of dying trees that count here.
 * 4. When all is clean no promise is left over, and no pin.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { fuzzSeeds } from '../../test/support/fuzz-seeds.js';
import { BLOCK_BYTES, heightFor, MIB, SPAN_BLOCKS } from '../base/units.js';
import { silentLog } from '../env/log-sink.js';
import { MemoryDevice } from '../env/memory-device.js';
import { MemoryObjectStore } from '../env/memory-object-store.js';
import type { Random } from '../env/random.js';
import { seededRandom } from '../env/seeded-random.js';
import { systemClock } from '../env/system-clock.js';
import { FLAG_IN_MEMORY, vbnAt, ZERO_VBN } from '../layout/pointer.js';
import { WALK_FIELD, WALK_MISS, WALK_ZERO } from './buffer-tree.js';
import { Engine } from './engine.js';
import { formatDevice, openDevice } from './in-place/format.js';
import type { Medium } from './medium.js';
import { formatObjectLog, openObjectLog } from './object-log/open.js';
import { cutRange, isCutLoaded } from './range-cut.js';
import { loadRecords } from './recovery.js';
import type { Tree } from './tree.js';

const OPTIONS = {
  memoryBytes: MIB,
  dirtyBytesMax: MIB,
  cpIntervalMs: 3_600_000,
  clock: systemClock,
  log: silentLog,
};
const UUID = new Uint8Array(16).fill(9);
const NOBODY = { put: () => undefined, remove: () => undefined };

/** FBNs of a tree near all the borders of its levels. */
function drawFbn(random: Random, height: number): number {
  const span = SPAN_BLOCKS[random.below(height)] as number;
  const end = SPAN_BLOCKS[height] as number;
  return Math.min(end - 1, random.below(3) * span + random.below(random.chance(0.5) ? 4 : 300));
}

const ZERO = -1;
/** What a tree holds: value by FBN; ZERO is a zero pointer, nothing a hole. */
type Content = Map<number, number>;

interface Place {
  open(): Promise<Medium>;
  /** As after a cut of power. */
  cut(): void;
}

class DevicePlace implements Place {
  #device = new MemoryDevice({ sizeBytes: 64 * MIB });

  format(): Promise<void> {
    const request = { sizeBytes: 64 * MIB, logBytes: undefined, uuid: UUID, clock: systemClock };
    return formatDevice(this.#device, request);
  }

  open(): Promise<Medium> {
    this.#device = this.#device.reopen();
    return openDevice(this.#device, silentLog);
  }

  cut(): void {
    this.#device = this.#device.duplicate();
  }
}

class ObjectPlace implements Place {
  #objects = new MemoryObjectStore();
  readonly #random = seededRandom(3);

  readonly #nonce = (): Uint8Array => {
    const bytes = new Uint8Array(16);
    this.#random.fill(bytes);
    return bytes;
  };

  format(): Promise<void> {
    const request = { sizeBytes: 64 * MIB, uuid: UUID, nonce: this.#nonce };
    return formatObjectLog(this.#objects, 'p', request);
  }

  open(): Promise<Medium> {
    return openObjectLog(this.#objects, 'p', this.#nonce);
  }

  cut(): void {
    const { objects } = this.#objects;
    this.#objects = new MemoryObjectStore({ objects: objects.clone() });
  }
}

class Driver {
  readonly #random: Random;
  readonly #place: Place;
  #engine: Engine | undefined;
  readonly #contents = new Map<number, Content>();
  /** What each consistency point holds: the contents when its generation was frozen. */
  readonly #frozen = new Map<number, Map<number, Content>>();
  #value = 1;
  cuts = 0;
  consistencyPoints = 0;

  constructor(seed: number, place: Place) {
    this.#random = seededRandom(seed);
    this.#place = place;
  }

  get #here(): Engine {
    assert.ok(this.#engine !== undefined);
    return this.#engine;
  }

  #trees(): Tree[] {
    return [...this.#here.table.all()].filter((tree) => this.#contents.has(tree.id));
  }

  async run(steps: number): Promise<void> {
    await this.#open();
    for (let height = 1; height <= 5; height++) {
      const tree = this.#here.addTree((SPAN_BLOCKS[height] as number) * BLOCK_BYTES);
      this.#contents.set(tree.id, new Map());
    }
    for (let step = 0; step < steps; step++) await this.#step();
    await this.#consistencyPoint();
    await this.#checkAll();
  }

  async #open(): Promise<void> {
    const medium = await this.#place.open();
    const freezeLog = medium.freezeLog.bind(medium);
    medium.freezeLog = (cpNumber) => {
      this.#frozen.set(cpNumber, this.#copyContents());
      freezeLog(cpNumber);
    };
    this.#engine = new Engine(medium, OPTIONS);
    await loadRecords(this.#here, NOBODY);
  }

  async #step(): Promise<void> {
    const random = this.#random;
    const trees = this.#trees();
    const tree = trees[random.below(trees.length)] as Tree;
    const draw = random.below(100);
    if (draw < 55) await this.#write(tree, drawFbn(random, tree.height), 1 + random.below(12));
    else if (draw < 75) await this.#cut(tree);
    else if (draw < 78) this.#grow(tree);
    else if (draw < 86) await this.#checkSome(tree);
    else if (draw < 92) await this.#consistencyPoint();
    else if (draw < 98) await this.#busyConsistencyPoint();
    else await this.#restart();
  }

  async #write(tree: Tree, from: number, count: number): Promise<void> {
    const engine = this.#here;
    for (let fbn = from; fbn < Math.min(tree.capacityFbn, from + count); fbn++) {
      for (;;) {
        engine.pool.makeFree(2 * tree.height + 4);
        const cost = engine.trees.pathCost(tree, fbn, engine.generation.number);
        if (cost < 0) await engine.loader.loadMeta(engine.trees.missVbn, engine.trees.missCrc);
        else if (!engine.medium.hasRoom({ dataBlocks: 1, metaBlocks: cost }, 'client')) return;
        else break;
      }
      const metaBefore = engine.trees.dirtyMetaCount;
      const cost = engine.trees.pathCost(tree, fbn, engine.generation.number);
      engine.trees.dirtyPath(tree, fbn, engine.generation);
      assert.equal(engine.trees.dirtyMetaCount, metaBefore + cost, 'the path costs what it said');
      const buffer = engine.pool.take();
      const value = this.#value++;
      const start = engine.pool.wordStart(buffer);
      engine.pool.wordsOf(buffer).fill(value, start, start + BLOCK_BYTES / 4);
      engine.trees.putData(tree, buffer, engine.generation, false);
      this.#contentOf(tree).set(fbn, value);
    }
  }

  #contentOf(tree: Tree): Content {
    const content = this.#contents.get(tree.id);
    assert.ok(content !== undefined);
    return content;
  }

  async #cut(tree: Tree): Promise<void> {
    const engine = this.#here;
    const random = this.#random;
    const from = drawFbn(random, tree.height);
    const far = random.chance(0.3) ? tree.capacityFbn : from + 1 + random.below(3000);
    const to = Math.min(tree.capacityFbn, far);
    for (;;) {
      engine.pool.makeFree(4 * tree.height + 8);
      if (isCutLoaded(engine, tree, from, to)) break;
      await engine.loader.loadMeta(engine.trees.missVbn, engine.trees.missCrc);
    }
    const kind = random.chance(0.5) ? 'hole' : 'zero';
    cutRange(engine, tree, from, to, kind);
    const content = this.#contentOf(tree);
    for (const fbn of [...content.keys()]) if (fbn >= from && fbn < to) content.delete(fbn);
    // Without a backing store nobody can tell a zero pointer from a hole: some are looked at.
    if (kind === 'zero')
      for (let fbn = from; fbn < Math.min(to, from + 3); fbn++) content.set(fbn, ZERO);
  }

  #grow(tree: Tree): void {
    const engine = this.#here;
    if (tree.height === 5 || engine.table.size > 40) return;
    engine.trees.noteDirty(tree, engine.generation);
    tree.sizeBytes = (SPAN_BLOCKS[tree.height + 1] as number) * BLOCK_BYTES;
    engine.trees.grow(tree, heightFor(tree.sizeBytes), engine.generation);
  }

  #copyContents(): Map<number, Content> {
    return new Map([...this.#contents].map(([id, content]) => [id, new Map(content)]));
  }

  async #consistencyPoint(): Promise<void> {
    await this.#here.consistencyPoint();
    this.consistencyPoints++;
  }

  /** Clients change the very trees that are being written. */
  async #busyConsistencyPoint(): Promise<void> {
    const running = this.#consistencyPoint();
    for (let count = this.#random.below(12); count > 0; count--) {
      const trees = this.#trees();
      const tree = trees[this.#random.below(trees.length)] as Tree;
      if (this.#random.chance(0.7)) await this.#write(tree, drawFbn(this.#random, tree.height), 9);
      else await this.#cut(tree);
      if (this.#random.chance(0.3)) this.#grow(tree);
      if (this.#random.chance(0.3)) await systemClock.yield();
      if (this.#random.chance(0.2)) await this.#checkSome(tree);
    }
    await running;
  }

  async #restart(): Promise<void> {
    this.cuts++;
    this.#place.cut();
    await this.#open();
    this.#contents.clear();
    const durable = this.#frozen.get(this.#here.medium.fsinfo.cpNumber) ?? [];
    for (const [id, content] of durable) this.#contents.set(id, new Map(content));
    await this.#checkAll();
    if (this.#contents.size === 0) {
      const tree = this.#here.addTree(MIB);
      this.#contents.set(tree.id, new Map());
    }
  }

  async #checkSome(tree: Tree): Promise<void> {
    const content = this.#contentOf(tree);
    const known = [...content.keys()];
    for (let count = 0; count < 20; count++) {
      const fbn = known[this.#random.below(Math.max(1, known.length))];
      if (fbn !== undefined) await this.#checkOne(tree, fbn);
      await this.#checkOne(tree, drawFbn(this.#random, tree.height));
    }
  }

  async #checkAll(): Promise<void> {
    const engine = this.#here;
    for (const tree of this.#trees()) {
      const content = this.#contentOf(tree);
      for (const fbn of content.keys()) await this.#checkOne(tree, fbn);
      const mapped = [...content.values()].filter((value) => value !== ZERO).length;
      assert.ok(tree.mappedBlocks >= mapped, 'mappedBlocks counts what dying trees hold, too');
    }
    if (engine.generation.isEmpty && engine.frozenGeneration === undefined) {
      assert.equal(engine.trees.dirtyDataCount, 0);
      assert.equal(engine.trees.dirtyMetaCount, 0);
      assert.equal(engine.pool.dirtyCount, 0);
      assert.ok(engine.pool.pins.every((pins) => pins === 0));
    }
  }

  async #checkOne(tree: Tree, fbn: number): Promise<void> {
    const engine = this.#here;
    const expected = this.#contentOf(tree).get(fbn);
    for (;;) {
      const found = engine.trees.walk(tree, fbn);
      if (found === WALK_MISS) {
        await engine.loader.loadMeta(engine.trees.missVbn, engine.trees.missCrc);
        continue;
      }
      if (found !== WALK_FIELD) {
        assert.ok(expected === undefined || expected === ZERO);
        if (expected === ZERO) assert.ok(found === WALK_ZERO || tree.backing === undefined);
        return;
      }
      return this.#checkField(fbn, expected);
    }
  }

  async #checkField(fbn: number, expected: number | undefined): Promise<void> {
    const { trees, pool, loader } = this.#here;
    const words = trees.fieldWords;
    const at = trees.fieldAt;
    if (((words[at + 1] as number) & FLAG_IN_MEMORY) !== 0) {
      const buffer = words[at] as number;
      assert.equal(pool.wordsOf(buffer)[pool.wordStart(buffer)], expected, `FBN ${fbn}`);
      return;
    }
    const vbn = vbnAt(words, at);
    if (vbn <= ZERO_VBN) {
      assert.ok(expected === undefined || expected === ZERO, `FBN ${fbn} is not empty`);
      return;
    }
    const bytes = new Uint8Array(BLOCK_BYTES);
    assert.equal(await loader.readData(vbn, [bytes], [words[at + 2] as number]), -1);
    assert.equal(new Uint32Array(bytes.buffer)[0], expected, `FBN ${fbn}`);
  }
}

describe('buffer trees beside a Map', () => {
  const places = { 'in place': () => new DevicePlace(), 'object log': () => new ObjectPlace() };
  for (const [name, newPlace] of Object.entries(places)) {
    test(`${name}: seeds`, async () => {
      let cuts = 0;
      let consistencyPoints = 0;
      for (const seed of fuzzSeeds(2)) {
        const place = newPlace();
        await place.format();
        const driver = new Driver(seed, place);
        await driver.run(400);
        cuts += driver.cuts;
        consistencyPoints += driver.consistencyPoints;
      }
      assert.ok(cuts > 4, `${cuts} cuts`);
      assert.ok(consistencyPoints > 70, `${consistencyPoints} consistency points`);
    });
  }
});
