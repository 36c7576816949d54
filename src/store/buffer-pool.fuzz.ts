/** The buffer pool beside Maps: what is clean under which VBN, what is dirty, what is pinned. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { fuzzSeeds } from '../../test/support/fuzz-seeds.js';
import type { Random } from '../env/random.js';
import { seededRandom } from '../env/seeded-random.js';
import {
  BUFFER_CLEAN,
  BUFFER_DIRTY,
  BUFFER_FREE,
  BufferPool,
  SLAB_BUFFERS,
} from './buffer-pool.js';

/** So many VBNs that two turns of a small pool evict some of them. */
const VBNS = 900;

class Driver {
  readonly #random: Random;
  readonly #pool = new BufferPool(2 * SLAB_BUFFERS);
  /** What a buffer holds: its stamp is in its first and last word. */
  readonly #stamps = new Map<number, number>();
  readonly #clean = new Map<number, number>();
  readonly #dirty = new Set<number>();
  readonly #pins = new Map<number, number>();
  #stamp = 0;
  evicted = 0;

  constructor(seed: number) {
    this.#random = seededRandom(seed);
  }

  run(): void {
    for (let step = 0; step < 4000; step++) {
      this.#step();
      if (step % 400 === 399) this.#check();
    }
  }

  #step(): void {
    const random = this.#random;
    const vbn = 2 + random.below(VBNS) * (random.chance(0.1) ? 2 ** 33 : 1);
    switch (random.below(7)) {
      case 0:
      case 1:
        this.#load(vbn);
        break;
      case 2:
        this.#makeDirty(vbn);
        break;
      case 3:
        this.#settle(vbn);
        break;
      case 4:
        this.#pinSome(vbn);
        break;
      case 5:
        this.#unpinOne();
        break;
      default:
        this.#pool.dropVbn(vbn);
        this.#clean.delete(vbn);
        this.#check1(vbn);
    }
  }

  /** What the loader does. */
  #load(vbn: number): void {
    if (this.#find(vbn) >= 0) return;
    const buffer = this.#take();
    this.#pool.setClean(buffer, vbn, this.#stamps.get(buffer) ?? 0);
    if (vbn % 5 === 0) this.#pool.noteMeta(buffer);
    this.#clean.set(vbn, buffer);
    this.#pool.unpin(buffer);
    this.#pins.delete(buffer);
  }

  #take(): number {
    const buffer = this.#pool.take();
    assert.ok(buffer > 0, 'buffer 0 is never given out');
    assert.ok(!this.#dirty.has(buffer), 'a dirty buffer is not given out again');
    assert.equal(this.#pins.get(buffer), undefined, 'a pinned buffer is not given out again');
    for (const [vbn, held] of this.#clean) {
      if (held !== buffer) continue;
      this.#clean.delete(vbn);
      this.evicted++;
    }
    const stamp = ++this.#stamp;
    const words = this.#pool.wordsOf(buffer);
    const start = this.#pool.wordStart(buffer);
    words[start] = stamp;
    words[start + 1023] = stamp;
    this.#stamps.set(buffer, stamp);
    this.#pins.set(buffer, 1);
    return buffer;
  }

  /** A clean block becomes dirty, or a new one. */
  #makeDirty(vbn: number): void {
    if (this.#dirty.size > SLAB_BUFFERS) return;
    const clean = this.#find(vbn);
    if (clean >= 0 && (this.#pins.get(clean) ?? 0) === 0) {
      this.#pool.setDirty(clean, 1);
      this.#clean.delete(vbn);
      this.#dirty.add(clean);
    } else {
      const buffer = this.#take();
      this.#pool.setDirty(buffer, 1);
      this.#pool.unpin(buffer);
      this.#pins.delete(buffer);
      this.#dirty.add(buffer);
    }
  }

  /** A dirty block gets its VBN, or is let go. */
  #settle(vbn: number): void {
    const [buffer] = this.#dirty;
    if (buffer === undefined) return;
    this.#dirty.delete(buffer);
    if (this.#random.chance(0.2)) {
      this.#pool.drop(buffer);
      assert.equal(this.#pool.state[buffer], BUFFER_FREE);
      return;
    }
    this.#pool.setClean(buffer, vbn, this.#stamps.get(buffer) ?? 0);
    if (vbn % 5 === 0) this.#pool.noteMeta(buffer);
    this.#clean.set(vbn, buffer);
  }

  #pinSome(vbn: number): void {
    const buffer = this.#find(vbn);
    if (buffer < 0 || this.#pins.size > 100) return;
    this.#pool.pin(buffer);
    this.#pins.set(buffer, (this.#pins.get(buffer) ?? 0) + 1);
  }

  #unpinOne(): void {
    // Some stay pinned for long, so that the clock's hand comes by.
    const [first] = this.#pins;
    if (first === undefined || this.#pins.size < 30) return;
    const [buffer, count] = first;
    assert.equal(
      this.#stampOf(buffer),
      this.#stamps.get(buffer),
      'a pinned buffer keeps its bytes',
    );
    this.#pool.unpin(buffer);
    if (count === 1) this.#pins.delete(buffer);
    else this.#pins.set(buffer, count - 1);
  }

  #stampOf(buffer: number): number | undefined {
    const start = this.#pool.wordStart(buffer);
    const words = this.#pool.wordsOf(buffer);
    assert.equal(words[start], words[start + 1023]);
    return words[start];
  }

  #find(vbn: number): number {
    this.#check1(vbn);
    return this.#pool.find(vbn);
  }

  /** What the pool finds is what the model knows; it may have evicted what nobody holds. */
  #check1(vbn: number): void {
    const found = this.#pool.find(vbn);
    const known = this.#clean.get(vbn);
    if (found >= 0) {
      assert.equal(found, known);
      assert.equal(this.#stampOf(found), this.#stamps.get(found));
      assert.equal(this.#pool.state[found], BUFFER_CLEAN);
    } else if (known !== undefined) {
      assert.ok(!this.#pins.has(known), 'a pinned buffer is not evicted');
      this.#clean.delete(vbn);
      this.evicted++;
    }
  }

  #check(): void {
    for (const vbn of [...this.#clean.keys()]) this.#check1(vbn);
    for (const buffer of this.#dirty) {
      assert.equal(this.#pool.state[buffer], BUFFER_DIRTY);
      assert.equal(this.#stampOf(buffer), this.#stamps.get(buffer));
    }
    assert.equal(this.#pool.dirtyCount, this.#dirty.size);
    const needed = this.#dirty.size + this.#pins.size + 2 * SLAB_BUFFERS;
    const allocated = this.#pool.bytesAllocated / 4096;
    assert.ok(allocated <= needed + SLAB_BUFFERS, 'the pool grows only when it must');
  }
}

describe('buffer pool beside Maps', () => {
  test('seeds', () => {
    let evicted = 0;
    for (const seed of fuzzSeeds(12)) {
      const driver = new Driver(seed);
      driver.run();
      evicted += driver.evicted;
    }
    assert.ok(evicted > 1000, `${evicted} evictions`);
  });

  test('makeFree: so many takes evict nothing', () => {
    const pool = new BufferPool(SLAB_BUFFERS);
    for (let vbn = 2; vbn < 2 + SLAB_BUFFERS - 1; vbn++) {
      const buffer = pool.take();
      pool.setClean(buffer, vbn, 0);
      pool.unpin(buffer);
    }
    pool.makeFree(50);
    const before = Array.from({ length: 300 }, (_, index) => pool.find(2 + index));
    for (let count = 0; count < 50; count++) pool.take();
    const after = Array.from({ length: 300 }, (_, index) => pool.find(2 + index));
    assert.deepEqual(after, before);
    assert.ok(before.filter((buffer) => buffer >= 0).length >= SLAB_BUFFERS - 60);
  });

  test('metadata outlasts a flood of data, and goes when it is too much', () => {
    const pool = new BufferPool(4 * SLAB_BUFFERS);
    const put = (vbn: number, isMeta: boolean): void => {
      const buffer = pool.take();
      pool.setClean(buffer, vbn, 0);
      if (isMeta) pool.noteMeta(buffer);
      pool.unpin(buffer);
    };
    const kept = (from: number, count: number): number =>
      Array.from({ length: count }, (_, at) => from + at).filter((vbn) => pool.find(vbn) >= 0)
        .length;
    for (let at = 0; at < 100; at++) put(1000 + at, true);
    for (let at = 0; at < 20 * SLAB_BUFFERS; at++) put(1_000_000 + at, false);
    assert.equal(kept(1000, 100), 100);
    // It is a quarter that metadata may have for itself.
    for (let at = 0; at < 20 * SLAB_BUFFERS; at++) put(2_000_000 + at, true);
    assert.ok(kept(1000, 100) < 100);
    assert.equal(pool.bytesAllocated, 4 * SLAB_BUFFERS * 4096);
    for (let at = 0; at < 20 * SLAB_BUFFERS; at++) put(3_000_000 + at, false);
    assert.ok(kept(3_000_000 + 17 * SLAB_BUFFERS, 3 * SLAB_BUFFERS) >= 2.5 * SLAB_BUFFERS);
    assert.ok(kept(2_000_000, 20 * SLAB_BUFFERS) <= SLAB_BUFFERS);
  });

  test('nearly all of it dirty: what a step loads stays until it has all that it needs', () => {
    const pool = new BufferPool(2 * SLAB_BUFFERS);
    for (let count = 0; count < 2 * SLAB_BUFFERS - 32; count++) pool.setDirty(pool.take(), 1);
    const paths = Array.from({ length: 16 }, (_, at) => 1000 + at);
    for (const vbn of paths) {
      pool.makeFree(28);
      const buffer = pool.take();
      pool.setClean(buffer, vbn, 0);
      pool.noteMeta(buffer);
      pool.unpin(buffer);
    }
    pool.makeFree(28);
    assert.ok(paths.every((vbn) => pool.find(vbn) >= 0));
    assert.equal(pool.bytesAllocated, 3 * SLAB_BUFFERS * 4096);
  });

  test('when nothing can be evicted the pool grows', () => {
    const pool = new BufferPool(SLAB_BUFFERS);
    const taken = new Set<number>();
    for (let count = 0; count < 3 * SLAB_BUFFERS; count++) taken.add(pool.take());
    assert.equal(taken.size, 3 * SLAB_BUFFERS);
    for (const buffer of taken) pool.unpin(buffer);
    assert.throws(() => pool.unpin([...taken][0] as number), /unpinned as often/);
  });
});
