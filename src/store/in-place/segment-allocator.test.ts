/** What the allocator promises (`fits`) it can keep, whatever happens while it waits. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { isStoreError, StoreError } from '../../base/store-error.js';
import { SEGMENT_BLOCKS } from '../../base/units.js';
import { seededRandom } from '../../env/seeded-random.js';
import type { TagKind } from '../../layout/log-record.js';
import { SEGMENT_RESERVED } from '../../layout/usage-entry.js';
import { SegmentAllocator } from './segment-allocator.js';

/** A store of so many empty pairs, of which the map is read slowly. */
class Scene {
  readonly allocator: SegmentAllocator;
  promised = { dataBlocks: 0, metaBlocks: 0 };
  readonly #busy = new Map<number, Uint32Array>();
  readonly #loaded = new Set<number>();
  /** Loads that wait for `letGo`. */
  readonly #waiting: { segment: number; settle: (error?: StoreError) => void }[] = [];
  isSlow = false;

  constructor(pairs: number) {
    this.allocator = new SegmentAllocator(
      {
        loadChunk: () =>
          Promise.resolve({ occupied: new Uint16Array(512), kind: new Uint8Array(512) }),
        loadBits: (segment) => this.#load(segment),
        busyBits: (segment) => (this.#loaded.has(segment) ? this.#bits(segment) : undefined),
        promised: () => this.promised,
      },
      pairs * 2,
      { freePairs: pairs, dataGaps: 0, metaGaps: 0 },
      'scene',
    );
  }

  #bits(segment: number): Uint32Array {
    return (this.#busy.get(segment) ?? new Uint32Array(32)).slice();
  }

  #load(segment: number): Promise<void> {
    if (!this.isSlow) {
      this.#loaded.add(segment);
      return Promise.resolve();
    }
    return new Promise((resolve, reject) => {
      const settle = (error?: StoreError): void => {
        if (error === undefined) this.#loaded.add(segment);
        if (error === undefined) resolve();
        else reject(error);
      };
      this.#waiting.push({ segment, settle });
    });
  }

  get waitingCount(): number {
    return this.#waiting.length;
  }

  letGo(error?: StoreError): void {
    for (const { settle } of this.#waiting.splice(0)) settle(error);
  }

  take(kind: TagKind): number {
    const vbn = this.allocator.take(kind);
    const segment = Math.floor(vbn / SEGMENT_BLOCKS);
    const bits = this.#busy.get(segment) ?? new Uint32Array(32);
    const index = vbn % SEGMENT_BLOCKS;
    bits[index >>> 5] = (bits[index >>> 5] as number) | (1 << (index & 31));
    this.#busy.set(segment, bits);
    return vbn;
  }

  release(vbn: number): void {
    const segment = Math.floor(vbn / SEGMENT_BLOCKS);
    const bits = this.#bits(segment);
    const index = vbn % SEGMENT_BLOCKS;
    bits[index >>> 5] = (bits[index >>> 5] as number) & ~(1 << (index & 31));
    this.#busy.set(segment, bits);
    this.allocator.release(segment, 1);
  }
}

async function turns(): Promise<void> {
  for (let turn = 0; turn < 20; turn++) await Promise.resolve();
}

describe('segment allocator', () => {
  test('a pair that is being opened is not promised to anybody else', async () => {
    const scene = new Scene(1);
    scene.isSlow = true;
    const { allocator } = scene;
    assert.ok(allocator.fits(0, 1));
    const prepared = allocator.prepare('data', 1);
    await turns();
    assert.equal(scene.waitingCount, 1);
    assert.equal(allocator.fits(0, 1), false, 'the last pair is on its way to data');
    assert.ok(allocator.fits(2048, 0));
    scene.letGo();
    await prepared;
    assert.ok(allocator.isReady('data', SEGMENT_BLOCKS));
  });

  test('a pair that could not be opened is free again', async () => {
    const scene = new Scene(1);
    scene.isSlow = true;
    const { allocator } = scene;
    for (const kind of ['data', 'meta'] as const) {
      const prepared = allocator.prepare(kind, 1);
      await turns();
      scene.letGo(new StoreError('corrupt', 'the map'));
      await assert.rejects(prepared, (error) => isStoreError(error, 'corrupt'));
      assert.deepEqual(allocator.counts, { freePairs: 1, dataGaps: 0, metaGaps: 0 });
    }
    assert.ok(allocator.fits(0, 1024));
  });

  test('data leaves the pairs that metadata was promised', async () => {
    const scene = new Scene(2);
    scene.promised = { dataBlocks: 0, metaBlocks: 1025 };
    await assert.rejects(scene.allocator.prepare('data', 1), (error) =>
      isStoreError(error, 'out-of-space'),
    );
    scene.promised = { dataBlocks: 1, metaBlocks: 1024 };
    await scene.allocator.prepare('data', 1);
    await scene.allocator.prepare('meta', 1024);
  });

  test('gaps that came about in the segment that is open are room', async () => {
    const scene = new Scene(1);
    await scene.allocator.prepare('meta', 1024);
    const vbns = Array.from({ length: 1020 }, () => scene.take('meta'));
    for (const vbn of vbns) scene.release(vbn);
    assert.ok(scene.allocator.fits(0, 1024));
    await scene.allocator.prepare('meta', 1024);
    assert.equal(new Set(Array.from({ length: 1024 }, () => scene.take('meta'))).size, 1024);
    assert.equal(scene.allocator.fits(0, 1), false);
  });

  test('reserved segments are never given out', async () => {
    const scene = new Scene(2);
    await scene.allocator.load(0);
    scene.allocator.occupy(0, SEGMENT_BLOCKS, SEGMENT_RESERVED);
    assert.deepEqual(scene.allocator.counts, { freePairs: 1, dataGaps: 1024, metaGaps: 0 });
    await scene.allocator.prepare('data', 3 * SEGMENT_BLOCKS);
    for (let count = 0; count < 3 * SEGMENT_BLOCKS; count++) {
      assert.ok(scene.take('data') >= SEGMENT_BLOCKS);
    }
    assert.equal(scene.allocator.fits(1, 0), false);
  });

  test('whatever fits is found, in any order of promises and places', async () => {
    for (let seed = 1; seed <= 12; seed++) {
      const random = seededRandom(seed);
      const scene = new Scene(6);
      const live: Record<TagKind, number[]> = { data: [], meta: [] };
      for (let step = 0; step < 250; step++) {
        const more = { data: random.below(700), meta: random.below(250) };
        const { dataBlocks, metaBlocks } = scene.promised;
        if (scene.allocator.fits(dataBlocks + more.data, metaBlocks + more.meta)) {
          scene.promised = {
            dataBlocks: dataBlocks + more.data,
            metaBlocks: metaBlocks + more.meta,
          };
        }
        for (const kind of random.chance(0.5) ? (['data', 'meta'] as const) : (['meta'] as const)) {
          const name = kind === 'data' ? 'dataBlocks' : 'metaBlocks';
          for (let left = random.below(scene.promised[name] + 1); left > 0; ) {
            const some = Math.min(left, 100);
            await scene.allocator.prepare(kind, some);
            for (let count = 0; count < some; count++) live[kind].push(scene.take(kind));
            scene.promised = { ...scene.promised, [name]: scene.promised[name] - some };
            left -= some;
          }
          if (live[kind].length < 900 && !random.chance(0.2)) continue;
          const from = random.below(live[kind].length + 1);
          for (const vbn of live[kind].splice(from, 1 + random.below(1500))) scene.release(vbn);
        }
      }
      assert.equal(new Set([...live.data, ...live.meta]).size, live.data.length + live.meta.length);
      for (const kind of ['data', 'meta'] as const) {
        for (const vbn of live[kind].splice(0)) scene.release(vbn);
      }
      const { freePairs } = scene.allocator.counts;
      assert.ok(freePairs >= 2, `${freePairs} pairs are free, the others are open`);
    }
  });
});
