/**
 * Whole shares beside a model: a family of large sparse vdisks whose clones are split by sharing,
 * written, trimmed, resized, snapshotted, merged and deleted in any order.
 *
 * 1. Every vdisk and snapshot reads as the model, at every look, also after an open.
 * 2. The offline check finds every name counted, and mappedBytes and sharedBytes as documented.
 * 3. When all is deleted nothing is in use but metafiles.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { fuzzSeeds } from '../../test/support/fuzz-seeds.js';
import { MEDIA, pattern, same, type TestStore, withStore } from '../../test/support/stores.js';
import { isStoreError } from '../base/store-error.js';
import { BLOCK_BYTES, MIB } from '../base/units.js';
import type { Random } from '../env/random.js';
import { seededRandom } from '../env/seeded-random.js';

const SIZES = [600 * MIB, 257 * MIB + 512, 90 * MIB, 5 * MIB + BLOCK_BYTES];
const DISKS_MAX = 9;
const METAFILE_BYTES = 96 * BLOCK_BYTES;

interface Disk {
  readonly name: string;
  readonly isSnapshot: boolean;
  sizeBytes: number;
  /** Seed of each block that is not zeros, and how many of its bytes count. */
  readonly blocks: Map<number, { readonly seed: number; readonly bytes: number }>;
}

/** Of virtual time, for splits that take milliseconds. */
const SPLIT_MS_MAX = 3_600_000;

class Driver {
  readonly #random: Random;
  readonly #test: TestStore;
  readonly #disks = new Map<string, Disk>();
  #number = 0;
  wholeShares = 0;
  tallShares = 0;

  constructor(seed: number, test: TestStore) {
    this.#random = seededRandom(seed);
    this.#test = test;
  }

  async run(steps: number): Promise<void> {
    await this.#used();
    const before = await this.#used();
    await this.#create();
    for (let step = 0; step < steps; step++) await this.#step();
    await this.#look('at the end');
    this.#noteShares();
    for (const { name } of this.#disks.values()) {
      if (!name.includes('@')) await this.#test.store.delete(name, { inUse: 'defer' });
    }
    this.#disks.clear();
    // Blocks of the reference file and of the other metafiles stay once they are there.
    const more = (await this.#used()) - before;
    assert.ok(more <= METAFILE_BYTES, `${more} bytes are still in use`);
  }

  async #used(): Promise<number> {
    const { store } = this.#test;
    for (let turn = 0; turn < 3; turn++) {
      await store.idle();
      await store.consistencyPoint();
    }
    return store.stats().usedBytes;
  }

  #noteShares(): void {
    const { splitWholeShares, splitTallShares } = this.#test.store.stats();
    this.wholeShares += splitWholeShares;
    this.tallShares += splitTallShares;
  }

  #draw<T>(from: readonly T[]): T {
    return from[this.#random.below(from.length)] as T;
  }

  #pick(isSnapshot: boolean): Disk | undefined {
    const disks = [...this.#disks.values()].filter((disk) => disk.isSnapshot === isSnapshot);
    return disks.length === 0 ? undefined : this.#draw(disks);
  }

  async #step(): Promise<void> {
    const draw = this.#random.below(100);
    if (draw < 30) await this.#write();
    else if (draw < 38) await this.#trim();
    else if (draw < 48) await this.#snapshot();
    else if (draw < 60) await this.#clone();
    else if (draw < 78) await this.#split();
    else if (draw < 81) await this.#undo();
    else if (draw < 85) await this.#resize();
    else if (draw < 92) await this.#delete();
    else if (draw < 95) await this.#test.store.consistencyPoint();
    else if (draw < 98) await this.#look('on the way');
    else await this.#reopen();
  }

  /** Nothing is refused but what a full table of this test, or a race of its own, explains. */
  async #try(body: () => Promise<unknown>): Promise<boolean> {
    try {
      await body();
      return true;
    } catch (error) {
      if (isStoreError(error, 'invalid') || isStoreError(error, 'in-use')) return false;
      throw error;
    }
  }

  async #create(): Promise<void> {
    const name = `d${this.#number++}`;
    const sizeBytes = this.#draw(SIZES);
    await this.#test.store.createVdisk(name, sizeBytes);
    const disk: Disk = { name, isSnapshot: false, sizeBytes, blocks: new Map() };
    this.#disks.set(name, disk);
    for (let count = 30; count > 0; count--) await this.#writeTo(disk);
  }

  async #write(): Promise<void> {
    const disk = this.#pick(false);
    if (disk === undefined) await this.#create();
    else await this.#writeTo(disk);
  }

  async #writeTo(disk: Disk): Promise<void> {
    const end = Math.floor(disk.sizeBytes / BLOCK_BYTES);
    // Near the borders of level-1 and level-2 ranges, too.
    const first = this.#random.chance(0.5)
      ? this.#random.below(end)
      : Math.min(end - 1, this.#random.below(3) * 65_536 + this.#random.below(600));
    const count = Math.min(end - first, 1 + this.#random.below(3));
    const bytes = new Uint8Array(count * BLOCK_BYTES);
    for (let index = 0; index < count; index++) {
      const seed = 1 + this.#random.below(1_000_000);
      bytes.set(pattern(BLOCK_BYTES, seed), index * BLOCK_BYTES);
      disk.blocks.set(first + index, { seed, bytes: BLOCK_BYTES });
    }
    await this.#test.store.vdisk(disk.name).write(first * BLOCK_BYTES, bytes);
  }

  async #trim(): Promise<void> {
    const disk = this.#pick(false);
    if (disk === undefined) return;
    const end = Math.floor(disk.sizeBytes / BLOCK_BYTES);
    const first = this.#random.below(end);
    const blocks = this.#draw([3, 700, 70_000, 200_000]);
    const count = Math.min(end - first, 1 + this.#random.below(blocks));
    for (const block of [...disk.blocks.keys()]) {
      if (block >= first && block < first + count) disk.blocks.delete(block);
    }
    await this.#test.store.vdisk(disk.name).trim(first * BLOCK_BYTES, count * BLOCK_BYTES);
  }

  async #snapshot(): Promise<void> {
    const disk = this.#pick(false);
    if (disk === undefined || this.#disks.size >= DISKS_MAX) return;
    const snapshot = `s${this.#number++}`;
    await this.#test.store.snapshot([{ vdisk: disk.name, snapshot }]);
    const name = `${disk.name}@${snapshot}`;
    this.#disks.set(name, { ...disk, name, isSnapshot: true, blocks: new Map(disk.blocks) });
  }

  async #clone(): Promise<void> {
    const of = this.#pick(true);
    if (of === undefined || this.#disks.size >= DISKS_MAX) return;
    const name = `d${this.#number++}`;
    await this.#test.store.clone(of.name, name);
    this.#disks.set(name, { ...of, name, isSnapshot: false, blocks: new Map(of.blocks) });
    // Untouched: this is what is shared whole.
    if (this.#random.chance(0.5)) await this.#splitOne(name);
  }

  async #split(): Promise<void> {
    const disk = this.#pick(false);
    if (disk !== undefined) await this.#splitOne(disk.name);
  }

  async #splitOne(name: string): Promise<void> {
    const mode = this.#random.chance(0.85) ? 'share' : 'copy';
    await this.#try(async () => {
      const job = await this.#test.store.split(name, { mode, pace: 'now' });
      job.done.catch(() => undefined);
      if (this.#random.chance(0.6)) await this.#ended(job.done, name);
      else for (let turn = this.#random.below(9); turn > 0; turn--) await this.#test.clock.yield();
    });
  }

  /** One whose certificate is refuted would try again, for ever. */
  async #ended(done: Promise<void>, name: string): Promise<void> {
    const { clock, store } = this.#test;
    const isLate = clock.sleep(SPLIT_MS_MAX).then(() => 'late');
    if ((await Promise.race([done, isLate])) !== 'late') return;
    assert.fail(`the split of ${name} does not end: ${store.show(name).split?.reason}`);
  }

  async #undo(): Promise<void> {
    const disk = this.#pick(false);
    if (disk === undefined) return;
    await this.#try(() => this.#test.store.cancelSplit(disk.name, { undo: true }));
  }

  async #resize(): Promise<void> {
    const disk = this.#pick(false);
    if (disk === undefined) return;
    const sizeBytes = this.#draw(SIZES);
    await this.#test.store.resize(disk.name, sizeBytes);
    const end = Math.min(disk.sizeBytes, sizeBytes);
    disk.sizeBytes = sizeBytes;
    for (const [block, { seed, bytes }] of [...disk.blocks]) {
      const left = Math.min(bytes, end - block * BLOCK_BYTES);
      if (left <= 0) disk.blocks.delete(block);
      else disk.blocks.set(block, { seed, bytes: left });
    }
  }

  async #delete(): Promise<void> {
    if (this.#disks.size < 3) return;
    const disk = this.#draw([...this.#disks.values()]);
    if (!(await this.#try(() => this.#test.store.delete(disk.name, { inUse: 'defer' })))) return;
    for (const { name } of [...this.#disks.values()]) {
      if (name === disk.name || name.startsWith(`${disk.name}@`)) this.#disks.delete(name);
    }
    if (this.#random.chance(0.5)) await this.#test.store.idle();
  }

  async #look(when: string): Promise<void> {
    for (const disk of this.#disks.values()) await this.#compare(disk);
    await this.#test.store.consistencyPoint();
    await this.#test.check(when);
  }

  async #compare({ name, sizeBytes, blocks }: Disk): Promise<void> {
    const target = this.#test.store.vdisk(name);
    assert.equal(target.sizeBytes, sizeBytes);
    const end = Math.floor(sizeBytes / BLOCK_BYTES);
    const looked = new Set([...blocks.keys()].flatMap((block) => [block, block + 1]));
    for (let count = 0; count < 10; count++) looked.add(this.#random.below(end));
    for (const block of looked) {
      if (block >= end) continue;
      const expected = new Uint8Array(BLOCK_BYTES);
      const held = blocks.get(block);
      if (held !== undefined) expected.set(pattern(BLOCK_BYTES, held.seed).subarray(0, held.bytes));
      const bytes = new Uint8Array(BLOCK_BYTES).fill(0xaa);
      await target.read(block * BLOCK_BYTES, bytes);
      same(bytes, expected, `block ${block} of ${name}`);
    }
  }

  async #reopen(): Promise<void> {
    this.#noteShares();
    await this.#test.reopen();
    await this.#look('after an open');
  }
}

describe('whole shares beside a model', () => {
  for (const medium of MEDIA) {
    test(`${medium}: seeds`, async () => {
      let wholeShares = 0;
      let tallShares = 0;
      for (const seed of fuzzSeeds(6)) {
        await withStore(medium, { memoryBytes: 4 * MIB }, async (store) => {
          const driver = new Driver(seed, store);
          await driver.run(150);
          wholeShares += driver.wholeShares;
          tallShares += driver.tallShares;
        });
      }
      assert.ok(wholeShares > 20, `${wholeShares} blocks shared whole`);
      assert.ok(tallShares > 10, `${tallShares} of them tall`);
    });
  }
});
