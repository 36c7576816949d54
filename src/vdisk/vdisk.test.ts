/** Reading and writing vdisks, beside a plain buffer. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  MEDIA,
  ofKind,
  pattern,
  readAll,
  reads,
  resized,
  same,
  statusText,
  type TestStore,
  withStore,
} from '../../test/support/stores.js';
import { BLOCK_BYTES, GIB, KIB, MIB, PIB, TIB } from '../base/units.js';
import { seededRandom } from '../env/seeded-random.js';
import type { BlockTarget } from './block-target.js';

function onEachMedium(name: string, body: (test: TestStore) => Promise<void>): void {
  for (const medium of MEDIA) test(`${name} (${medium})`, () => withStore(medium, {}, body));
}

/** Writes the bytes to the target and to its model. */
async function write(
  target: BlockTarget,
  model: Uint8Array,
  offset: number,
  bytes: Uint8Array,
): Promise<void> {
  await target.write(offset, bytes);
  model.set(bytes, offset);
}

describe('read and write', () => {
  onEachMedium('every alignment around borders of blocks and level-1 ranges', async ({ store }) => {
    const size = 2 * MIB + 512;
    const vdisk = await store.createVdisk('a', size);
    const model = new Uint8Array(size);
    const steps = [-4097, -4096, -513, -512, -1, 0, 1, 511, 512, 4095, 4096, 4097];
    const edges = [8 * KIB, MIB, 2 * MIB];
    let seed = 1;
    for (const edge of edges) {
      for (const from of steps) {
        for (const to of steps) {
          const end = Math.min(size, edge + to);
          if (edge + from >= end) continue;
          await write(vdisk, model, edge + from, pattern(end - edge - from, seed++));
        }
      }
      same(await readAll(vdisk), model, `around byte ${edge}`);
      for (const from of steps) {
        for (const to of steps) {
          const end = Math.min(size, edge + to);
          if (edge + from >= end) continue;
          const part = await readAll(vdisk, edge + from, end - edge - from);
          same(part, model.subarray(edge + from, end), `bytes ${edge + from} to ${end}`);
        }
      }
    }
    await store.consistencyPoint();
    await reads(vdisk, model, 'after a consistency point');
  });

  onEachMedium('large writes of any alignment, cold and warm', async (t) => {
    const size = 6 * MIB;
    let vdisk = await t.store.createVdisk('a', size);
    const model = new Uint8Array(size);
    const offsets = [0, 1, 4095, 4096, MIB - 4096, MIB - 1, MIB + 513];
    const lengths = [64 * KIB, 64 * KIB + 1, 68 * KIB - 1, MIB, 2 * MIB + 5000];
    let seed = 1;
    for (const length of lengths) {
      for (const offset of offsets) {
        await write(vdisk, model, offset, pattern(length, seed++));
        if (seed % 7 === 0) await t.store.consistencyPoint();
      }
    }
    await reads(vdisk, model);
    vdisk = (await t.reopen()).vdisk('a');
    await reads(vdisk, model, 'cold');
    for (const offset of [3, MIB + 4097]) {
      await write(vdisk, model, offset, pattern(100 * KIB, seed++));
      await write(vdisk, model, offset + 50 * KIB, pattern(700, seed++));
    }
    await reads(vdisk, model, 'warm');
  });

  onEachMedium(
    'many side by side: each whole, in the end the last of each place',
    async ({ store }) => {
      const size = 4 * MIB;
      const vdisk = await store.createVdisk('a', size);
      const model = new Uint8Array(size);
      const random = seededRandom(5);
      for (let round = 0; round < 8; round++) {
        const writes: (void | Promise<void>)[] = [];
        // Ranges that do not overlap: 16 of them, some large.
        for (let part = 0; part < 16; part++) {
          const start = (part * size) / 16 + random.below(4096);
          const bytes = pattern(1 + random.below(size / 16 - 4096), random.nextU32());
          model.set(bytes, start);
          writes.push(vdisk.write(start, bytes));
        }
        writes.push(store.consistencyPoint());
        await Promise.all(writes);
        await reads(vdisk, model, `round ${round}`);
      }
    },
  );

  onEachMedium('ranges outside are refused, nothing changes', async ({ store }) => {
    const vdisk = await store.createVdisk('a', 1536);
    const refused = ofKind('invalid');
    const bytes = new Uint8Array(1024);
    for (const [offset, length] of [
      [1024, 1024],
      [-1, 10],
      [1537, 0],
      [0.5, 1],
      [2 ** 60, 1],
    ] as const) {
      const part = bytes.subarray(0, length);
      await assert.rejects(async () => vdisk.read(offset, part), refused);
      await assert.rejects(async () => vdisk.write(offset, part), refused);
      await assert.rejects(async () => vdisk.trim(offset, length), refused);
      await assert.rejects(async () => vdisk.writeZeroes(offset, length), refused);
      await assert.rejects(async () => vdisk.blockStatus(offset, length), refused);
    }
    await vdisk.write(1536, new Uint8Array(0));
    await vdisk.read(1536, new Uint8Array(0));
    assert.equal(statusText(await vdisk.blockStatus(0, 1536)), 'hole 0 0.375');
    assert.equal(store.show('a').mappedBytes, 0);
  });
});

describe('trim and write zeroes', () => {
  for (const cloned of [false, true]) {
    onEachMedium(`cuts across levels${cloned ? ', in a clone' : ''}`, async (t) => {
      const { store } = t;
      // Three level-2 ranges of 256 MiB; data at their borders.
      const size = 600 * MIB;
      let vdisk = await store.createVdisk('a', size);
      const spots = [0, MIB, 255 * MIB, 256 * MIB, 257 * MIB, 511 * MIB, 512 * MIB, 599 * MIB];
      const models = spots.map((_, index) => pattern(MIB, index + 1));
      for (const [index, at] of spots.entries()) await vdisk.write(at, models[index] as Uint8Array);
      if (cloned) {
        await store.snapshot([{ vdisk: 'a', snapshot: 's' }]);
        vdisk = await store.clone('a@s', 'c');
      }
      const cuts: [number, number][] = [
        [100, 200],
        [5000, 4096 * 10],
        [MIB - 5000, 10_000],
        [255 * MIB + 4096, MIB - 8192],
        [255 * MIB + 777, 2 * MIB],
        [256 * MIB - 4096, MIB + 4096],
        [400 * MIB, 112 * MIB + 4096],
        [599 * MIB + 100, MIB - 100],
      ];
      for (const [number, [offset, length]] of cuts.entries()) {
        if (number % 2 === 0) await vdisk.trim(offset, length);
        else await vdisk.writeZeroes(offset, length);
        for (const [index, at] of spots.entries()) {
          const from = Math.max(offset, at) - at;
          const to = Math.min(offset + length, at + MIB) - at;
          if (from < to) (models[index] as Uint8Array).fill(0, from, to);
          const bytes = await readAll(vdisk, at, MIB);
          same(bytes, models[index] as Uint8Array, `cut ${number}, spot ${at / MIB} MiB`);
        }
        if (number % 3 === 0) await store.consistencyPoint();
      }
      await store.idle();
      vdisk = (await t.reopen()).vdisk(cloned ? 'c' : 'a');
      for (const [index, at] of spots.entries()) {
        same(await readAll(vdisk, at, MIB), models[index] as Uint8Array, `spot ${at / MIB} MiB`);
      }
      await vdisk.trim(0, size);
      await t.store.idle();
      await t.store.consistencyPoint();
      assert.equal(t.store.show(vdisk.name).mappedBytes, 0);
      for (const at of spots) same(await readAll(vdisk, at, MIB), new Uint8Array(MIB), 'trimmed');
    });
  }

  onEachMedium('trim gives space back, now and in the background', async ({ store }) => {
    const vdisk = await store.createVdisk('a', 16 * MIB);
    await store.consistencyPoint();
    const before = store.stats().usedBytes;
    await vdisk.write(0, pattern(16 * MIB, 1));
    await store.consistencyPoint();
    assert.ok(store.stats().usedBytes >= before + 16 * MIB);
    await vdisk.trim(0, 16 * MIB);
    await store.idle();
    await store.consistencyPoint();
    await store.consistencyPoint();
    assert.ok(store.stats().usedBytes <= before + 64 * KIB);
  });
});

describe('heights', () => {
  const sizes = [1024, MIB, MIB + 1024, 256 * MIB, 256 * MIB + 1024, 64 * GIB, 64 * GIB + 1024];
  onEachMedium('1 to 5: first and last bytes, and around each border', async (t) => {
    for (const [number, size] of [...sizes, 16 * TIB, 16 * TIB + 1024, PIB].entries()) {
      const name = `d${number}`;
      const vdisk = await t.store.createVdisk(name, size);
      const places = [0, MIB, 256 * MIB, 64 * GIB, 16 * TIB, size]
        .flatMap((at) => [at - 300, at])
        .filter((at) => at >= 0 && at + 300 <= size);
      for (const at of places) await vdisk.write(at, pattern(300, at % 1009));
      if (number % 2 === 0) await t.store.consistencyPoint();
      for (const at of places)
        same(await readAll(vdisk, at, 300), pattern(300, at % 1009), `${at}`);
      const extents = await vdisk.blockStatus(0, size);
      assert.equal(
        extents.reduce((sum, { length }) => sum + length, 0),
        size,
      );
      assert.ok(extents.length <= 2 * places.length + 1);
    }
    const store = await t.reopen();
    for (const [number, size] of [...sizes, 16 * TIB, 16 * TIB + 1024, PIB].entries()) {
      const vdisk = store.vdisk(`d${number}`);
      same(await readAll(vdisk, size - 300, 300), pattern(300, (size - 300) % 1009), `d${number}`);
      await store.delete(`d${number}`);
    }
    await store.idle();
  });
});

describe('resize', () => {
  onEachMedium('both ways, with last blocks in part: what was cut never comes back', async (t) => {
    let size = 3 * MIB;
    let { store } = t;
    let vdisk = await store.createVdisk('a', size);
    let model = pattern(size, 1);
    await vdisk.write(0, model);
    const random = seededRandom(9);
    const sizes = [MIB + 512, 2 * MIB, 2 * MIB + 1024, 2 * MIB + 512, 300 * MIB, 512, 4096, 4608];
    for (let turn = 0; turn < 24; turn++) sizes.push(512 * (1 + random.below(8 * 1024)));
    for (const [turn, next] of sizes.entries()) {
      await store.resize('a', next);
      assert.equal(vdisk.sizeBytes, next);
      model = resized(model, Math.min(next, 4 * MIB));
      size = Math.min(next, 4 * MIB);
      same(await readAll(vdisk, 0, size), model, `turn ${turn}: ${next} bytes`);
      if (turn % 3 === 0) await store.consistencyPoint();
      if (turn % 3 !== 2)
        await write(vdisk, model, Math.max(0, size - 700), pattern(Math.min(size, 700), turn));
      if (turn === 20) {
        store = await t.reopen();
        vdisk = store.vdisk('a');
      }
    }
    await store.idle();
    await reads(vdisk, model.subarray(0, vdisk.sizeBytes));
  });

  onEachMedium('shrink and grow over a backing store', async (t) => {
    const { store } = t;
    const golden = pattern(2 * MIB + 1536, 1);
    const vdisk = await store.createVdisk('golden', golden.length);
    await vdisk.write(0, golden);
    await store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
    const clone = await store.clone('golden@v1', 'c');
    let model: Uint8Array = golden.slice();
    for (const size of [golden.length + 512, 4 * MIB, MIB + 1024, MIB + 2048, 3 * MIB, 512, MIB]) {
      await store.resize('c', size);
      model = resized(model, size);
      await reads(clone, model, `c with ${size} bytes`);
      if (size === 3 * MIB) await write(clone, model, MIB + 100, pattern(5000, 3));
    }
    assert.equal(store.show('c').sizeBytes, MIB);
    await reads(store.vdisk('golden@v1'), golden);
  });

  onEachMedium(
    'a clone of a shrunk disk does not see what lies behind its end',
    async ({ store }) => {
      const content = pattern(MIB, 1);
      const vdisk = await store.createVdisk('golden', MIB);
      await vdisk.write(0, content);
      await store.resize('golden', 10 * BLOCK_BYTES + 512);
      await store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
      const clone = await store.clone('golden@v1', 'c');
      await store.resize('c', MIB);
      const model = resized(content.subarray(0, 10 * BLOCK_BYTES + 512), MIB);
      await reads(clone, model);
      // And not in the vdisk itself, whose past the snapshot is.
      await store.resize('golden', MIB);
      await reads(vdisk, model);
      await clone.write(10 * BLOCK_BYTES + 2048, pattern(10, 2));
      model.set(pattern(10, 2), 10 * BLOCK_BYTES + 2048);
      await reads(clone, model, 'a part of the masked block written');
    },
  );
});

describe('flush', () => {
  onEachMedium('what was flushed, or written with FUA, is there after a crash', async (t) => {
    const vdisk = await t.store.createVdisk('a', 4 * MIB);
    const model = new Uint8Array(4 * MIB);
    let clone: BlockTarget = vdisk;
    let cloneModel = model;
    for (let turn = 0; turn < 12; turn++) {
      const at = turn * 300_000;
      if (turn === 5) {
        await t.store.snapshot([{ vdisk: 'a', snapshot: 's' }]);
        clone = await t.store.clone('a@s', 'c');
        cloneModel = model.slice();
      }
      const target = turn % 2 === 0 ? vdisk : clone;
      const itsModel = turn % 2 === 0 ? model : cloneModel;
      const bytes = pattern(turn % 3 === 0 ? 200_000 : 5000, turn);
      itsModel.set(bytes, at);
      const fua = turn % 4 < 2;
      await target.write(at, bytes, { fua });
      await target.trim(at + 1000, 20_000, { fua });
      itsModel.fill(0, at + 1000, at + 21_000);
      if (!fua) await target.flush();
      const after = await t.crashed();
      assert.ok(after.store.stats().recovered);
      same(await readAll(after.store.vdisk(target.name)), itsModel, `turn ${turn}`);
      await after.store.close();
    }
  });

  onEachMedium('a clone flushes what it reads through', async (t) => {
    const vdisk = await t.store.createVdisk('a', MIB);
    const bytes = pattern(100 * KIB, 1);
    await vdisk.write(0, bytes.subarray(0, 50 * KIB));
    await vdisk.write(50 * KIB, bytes.subarray(50 * KIB));
    await t.store.snapshot([{ vdisk: 'a', snapshot: 's' }]);
    const clone = await t.store.clone('a@s', 'c');
    await clone.flush();
    const after = await t.crashed();
    same(await readAll(after.store.vdisk('c'), 0, bytes.length), bytes, 'through the clone');
  });
});
