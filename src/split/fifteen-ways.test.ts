/**
 * Fifteen ways to get a split wrong; see docs/DESIGN.md. Each is a test, on both media, in both
 * modes.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import {
  deleteGolden,
  diffText,
  makeClones,
  overwriteFree,
  sparsePattern,
  split,
} from '../../test/support/clones.js';
import {
  isSound,
  MEDIA,
  ofKind,
  pattern,
  readAll,
  reads,
  resized,
  type SimulatedStore,
  same,
  statusText,
  type TestStore,
  type TestStoreOptions,
  withSimulatedStore,
  withStore,
} from '../../test/support/stores.js';
import { BLOCK_BYTES, MIB } from '../base/units.js';
import type { SplitMode } from '../layout/tree-record.js';

const MODES: readonly SplitMode[] = ['copy', 'share'];

/** The test on each medium, in each mode. */
function inEachWay(
  name: string,
  body: (test: TestStore, mode: SplitMode) => Promise<void>,
  options: TestStoreOptions = {},
): void {
  describe(name, () => {
    for (const medium of MEDIA) {
      for (const mode of MODES) {
        test(`${medium}, ${mode}`, () => withStore(medium, options, (store) => body(store, mode)));
      }
    }
  });
}

/** The test in a simulated world: calls to the medium take time and end in any order. */
function inEachWorld(
  name: string,
  seeds: readonly number[],
  body: (test: SimulatedStore, mode: SplitMode, seed: number) => Promise<void>,
): void {
  describe(name, () => {
    for (const medium of MEDIA) {
      for (const mode of MODES) {
        test(`${medium}, ${mode}`, async () => {
          for (const seed of seeds) {
            await withSimulatedStore(medium, seed, {}, (store) => body(store, mode, seed));
          }
        });
      }
    }
  });
}

inEachWorld(
  '1. a write after the scan saw its hole: the fill must not land',
  [1, 2],
  async (sim, mode, seed) => {
    const content = pattern(2 * MIB, seed);
    // Zeros are looked at before they are shared: so a share split waits for the medium, too.
    content.fill(0, 0, BLOCK_BYTES);
    content.fill(0, 256 * BLOCK_BYTES, 257 * BLOCK_BYTES);
    await makeClones(sim.store, content, 'clone');
    const store = await sim.reopen();
    const clone = store.vdisk('clone');
    const expected = content.slice();
    // Blocks of its own, or sharing takes one step; and loaded: writes are answered at once.
    for (const at of [4096, MIB + 4096]) await clone.write(at, content.subarray(at, at + 4096));
    await clone.blockStatus(0, clone.sizeBytes);
    const job = await store.split('clone', { mode, pace: 'now' });
    let turn = 0;
    for (let block = 3; block < 512; block += 5) {
      const bytes = pattern(BLOCK_BYTES, 1000 + block);
      if (block % 2 === 0) {
        await clone.write(block * BLOCK_BYTES, bytes);
        expected.set(bytes, block * BLOCK_BYTES);
      } else {
        await clone.trim(block * BLOCK_BYTES, BLOCK_BYTES);
        expected.fill(0, block * BLOCK_BYTES, (block + 1) * BLOCK_BYTES);
      }
      // A few turns of the promises, or some time: whatever the split waits for passes in between.
      if (++turn % 3 === 0) await sim.world.sleep(0.02);
      else await undefined;
    }
    await job.done;
    await reads(clone, expected);
    const { freeBytes } = store.stats();
    assert.equal(store.show('clone').mappedBytes, 2 * MIB - 53 * BLOCK_BYTES);
    await sim.reopen();
    await reads(sim.store.vdisk('clone'), expected);
    // What was placed for a fill that did not land is free at once, not only after an open.
    assert.ok(sim.store.stats().freeBytes <= freeBytes + 64 * 1024);
  },
);

inEachWorld(
  '2. a sub-block write merges with whole blocks only',
  [1, 2],
  async (sim, mode, seed) => {
    const content = pattern(2 * MIB, seed);
    await makeClones(sim.store, content, 'clone');
    const store = await sim.reopen();
    const clone = store.vdisk('clone');
    const expected = content.slice();
    await clone.blockStatus(0, clone.sizeBytes); // loaded, a write of two ranges is one step
    const job = await store.split('clone', { mode, pace: 'now' });
    const writes: (void | Promise<void>)[] = [];
    for (let block = 0; block < 510; block += 3) {
      // Over the border of two blocks: each keeps what it had beside it.
      const at = block * BLOCK_BYTES + BLOCK_BYTES - 700;
      const bytes = pattern(1300, 2000 + block);
      const before = expected.slice(at, at + 1300);
      expected.set(bytes, at);
      const write = clone.write(at, bytes);
      writes.push(write);
      const seen = new Uint8Array(1300);
      await clone.read(at, seen);
      const isOld = Buffer.compare(seen, before) === 0;
      assert.ok(isOld || Buffer.compare(seen, bytes) === 0, `a half of each at byte ${at}`);
      if (block % 2 === 0) await sim.world.sleep(0.05);
    }
    await Promise.all(writes);
    await job.done;
    await reads(clone, expected);
    await deleteGolden(store);
    await reads(clone, expected);
  },
);

inEachWay(
  '3. TRIM in a clone, then split: zeros stay zeros, nothing is inflated',
  async (test, mode) => {
    const { store } = test;
    const content = pattern(4 * MIB, 3);
    // Zeros that were written, not trimmed.
    content.fill(0, 50 * BLOCK_BYTES, 60 * BLOCK_BYTES);
    await makeClones(store, content, 'clone');
    const clone = store.vdisk('clone');
    const zeros: [number, number][] = [
      [10, 20],
      [250, 270],
      [512, 1024],
    ];
    for (const [from, to] of zeros) {
      await clone.trim(from * BLOCK_BYTES, (to - from) * BLOCK_BYTES);
      content.fill(0, from * BLOCK_BYTES, to * BLOCK_BYTES);
    }
    await reads(clone, content, 'before the split');
    await split(store, 'clone', mode);
    await reads(clone, content, 'after the split');
    assert.equal(store.show('clone').mappedBytes, (1024 - 10 - 10 - 20 - 512) * BLOCK_BYTES);
    assert.equal(
      statusText(await clone.blockStatus(0, 256 * BLOCK_BYTES)),
      'data 0f 10, zero 0 10, data 0f 30, zero 0f 10, data 0f 190, zero 0 6',
    );
    await deleteGolden(store);
    await reads(clone, content, 'alone');
  },
);

inEachWay(
  '4. vdisk larger or smaller than its backing store; last blocks in part',
  async (test, mode) => {
    const { store } = test;
    // Ends in the middle of a block, in the second level-1 range.
    const content = pattern(300 * BLOCK_BYTES + 1536, 4);
    const sizes: Record<string, number> = {
      same: content.length,
      larger: 3 * MIB + 512,
      little: content.length + 512,
      smaller: 270 * BLOCK_BYTES + 512,
      least: 512,
    };
    await makeClones(store, content, ...Object.keys(sizes));
    for (const [name, size] of Object.entries(sizes)) await store.resize(name, size);
    const check = async (when: string): Promise<void> => {
      for (const [name, size] of Object.entries(sizes)) {
        await reads(store.vdisk(name), resized(content, size), `${name} ${when}`);
      }
    };
    await check('before the split');
    const jobs = await Promise.all(Object.keys(sizes).map((name) => store.split(name, { mode })));
    await Promise.all(jobs.map((job) => job.done));
    await check('after the split');
    await deleteGolden(store);
    await check('alone');
    // What lies behind the end of a last block in part is zeros, wherever it came from.
    for (const [name, size] of Object.entries(sizes)) {
      await store.resize(name, size + BLOCK_BYTES);
      const wanted = resized(resized(content, size), size + BLOCK_BYTES);
      await reads(store.vdisk(name), wanted, `${name} grown`);
    }
  },
);

inEachWay(
  '5. shrunk and grown again while associated: old data does not come back',
  async (test, mode) => {
    const { store } = test;
    const content = pattern(3 * MIB, 5);
    await makeClones(store, content, 'early', 'late');
    const cut = 290 * BLOCK_BYTES + 1024;
    const expected = resized(content.subarray(0, cut), content.length);
    await store.resize('early', cut);
    await store.resize('early', content.length);
    const job = await store.split('late', { mode });
    await store.resize('late', cut);
    await store.resize('late', content.length);
    for (const name of ['early', 'late']) await reads(store.vdisk(name), expected, `${name} grown`);
    await job.done;
    await split(store, 'early', mode);
    for (const name of ['early', 'late']) {
      await reads(store.vdisk(name), expected, `${name} split`);
      assert.equal(store.show(name).mappedBytes, 291 * BLOCK_BYTES);
    }
  },
);

inEachWay(
  '6. the backing store keeps its blocks when its clone is split, and dies',
  async (test, mode) => {
    const { store } = test;
    const content = pattern(2 * MIB, 6);
    await makeClones(store, content, 'clone');
    await split(store, 'clone', mode);
    const shared = mode === 'share' ? 2 * MIB : 0;
    assert.equal(store.show('golden@v1').mappedBytes, 2 * MIB);
    assert.equal(store.show('golden@v1').sharedBytes, shared);
    assert.equal(store.show('clone').sharedBytes, shared);
    const clone = store.vdisk('clone');
    await clone.write(0, new Uint8Array(MIB).fill(1));
    await overwriteFree(store);
    await reads(store.vdisk('golden@v1'), content, 'after the clone was written to');
    await store.delete('clone');
    await store.idle();
    await overwriteFree(store);
    await test.reopen();
    await reads(test.store.vdisk('golden@v1'), content, 'after the clone died');
    assert.equal(test.store.show('golden@v1').sharedBytes, shared);
  },
);

inEachWay(
  '7. snapshots of the clone, before and during the split, keep their bytes',
  async (test, mode) => {
    const { store } = test;
    const content = sparsePattern(7);
    await makeClones(store, content, 'clone');
    const clone = store.vdisk('clone');
    const write = async (block: number, seed: number): Promise<void> => {
      const bytes = pattern(3 * BLOCK_BYTES, seed);
      await clone.write(block * BLOCK_BYTES, bytes);
      content.set(bytes, block * BLOCK_BYTES);
    };
    await write(5, 71);
    await store.snapshot([{ vdisk: 'clone', snapshot: 'before' }]);
    const before = content.slice();
    await write(6, 72);
    const job = await store.split('clone', { mode });
    await test.clock.yield();
    assert.notEqual(job.state(), undefined, 'the split is at work');
    await store.snapshot([{ vdisk: 'clone', snapshot: 'during' }]);
    const during = content.slice();
    assert.notEqual(job.state(), undefined, 'the split is still at work');
    await write(2000, 73);
    await write(4, 74);
    await job.done;
    await deleteGolden(store);
    await reads(store.vdisk('clone@before'), before);
    await reads(store.vdisk('clone@during'), during);
    await reads(clone, content);
    // Their merges take the filled blocks along.
    await store.delete('clone@before');
    await store.delete('clone@during');
    await store.idle();
    await overwriteFree(store);
    await reads(clone, content, 'after the merges');
  },
);

inEachWay('8. a fill is not a change: a diff across a split is empty', async (test, mode) => {
  const { store } = test;
  const content = sparsePattern(8);
  content.fill(0, 0, 4 * BLOCK_BYTES);
  await makeClones(store, content, 'clone');
  const clone = store.vdisk('clone');
  await clone.write(9 * BLOCK_BYTES, pattern(BLOCK_BYTES, 81));
  assert.equal(await diffText(store, 'golden@v1', 'clone'), 'data 9+1');
  const job = await store.split('clone', { mode });
  while (job.state()?.filledBytes === 0) await test.clock.yield();
  assert.ok((job.state()?.filledBytes ?? 0) > 0, 'something is filled');
  assert.equal(await diffText(store, 'golden@v1', 'clone'), 'data 9+1', 'in mid-split');
  await store.snapshot([{ vdisk: 'clone', snapshot: 'a' }]);
  await job.done;
  await store.snapshot([{ vdisk: 'clone', snapshot: 'b' }]);
  assert.equal(await diffText(store, 'clone@a', 'clone@b'), '');
  // What a client writes over a filled block, even a part of it, is a change.
  await clone.write(100 * BLOCK_BYTES + 10, new Uint8Array(1));
  assert.equal(await diffText(store, 'clone@a', 'clone'), 'data 100+1');
});

inEachWorld(
  '9. the reference on a backing store is durable before the clone can be seen',
  [1, 2],
  async (sim, mode, seed) => {
    const content = pattern(MIB, seed);
    await makeClones(sim.store, content);
    const { store, world } = sim;
    const acts = [store.clone('golden@v1', 'clone'), store.delete('golden@v1')];
    for (const act of acts) act.catch(() => undefined);
    const isSeen = (): boolean => store.list().some((info) => info.name === 'clone');
    while (!isSeen()) await world.sleep(0.01);
    // In the moment that it can be seen, it survives a power cut, and so does what it reads
    // through.
    await sim.cut(seed);
    await reads(sim.store.vdisk('clone'), content, 'after the cut');
    await Promise.all([sim.store.idle(), world.sleep(100)]);
    if (sim.store.show('clone').backing !== undefined) await split(sim.store, 'clone', mode);
    await reads(sim.store.vdisk('clone'), content, 'after the split');
  },
);

describe('10. a clone of a clone of a clone, split in any order', () => {
  const orders = ['123', '132', '213', '231', '312', '321'];
  for (const medium of MEDIA) {
    for (const mode of MODES) {
      test(`${medium}, ${mode}`, async () => {
        for (const order of orders) {
          await withStore(medium, {}, (store) => splitInOrder(store, mode, order));
        }
      });
    }
  }
});

async function splitInOrder(test: TestStore, mode: SplitMode, order: string): Promise<void> {
  const { store } = test;
  const contents = new Map<string, Uint8Array>();
  const content = pattern(40 * BLOCK_BYTES, 10);
  let from = 'golden';
  await makeClones(store, content);
  for (const name of ['1', '2', '3']) {
    const clone = await store.clone(`${from}@v1`, name);
    const own = pattern(4 * BLOCK_BYTES, Number(name));
    await clone.write(Number(name) * 7 * BLOCK_BYTES, own);
    content.set(own, Number(name) * 7 * BLOCK_BYTES);
    await clone.trim((Number(name) * 7 + 2) * BLOCK_BYTES, BLOCK_BYTES);
    content.fill(0, (Number(name) * 7 + 2) * BLOCK_BYTES, (Number(name) * 7 + 3) * BLOCK_BYTES);
    await store.snapshot([{ vdisk: name, snapshot: 'v1' }]);
    contents.set(name, content.slice());
    from = name;
  }
  const check = async (when: string): Promise<void> => {
    for (const [name, bytes] of contents) await reads(store.vdisk(name), bytes, `${name} ${when}`);
  };
  for (const name of order) {
    await split(store, name, mode);
    await check(`after the split of ${name}, in order ${order}`);
  }
  for (const name of ['golden', '1', '2', '3']) await store.delete(`${name}@v1`);
  await store.idle();
  await store.delete('golden');
  await store.idle();
  const waste = await store.createVdisk('waste', 4 * MIB);
  await waste.write(0, new Uint8Array(4 * MIB).fill(0xee));
  await check('alone');
  await test.reopen();
  for (const [name, bytes] of contents) await reads(test.store.vdisk(name), bytes);
}

describe('11. out of space halfway: wait with a reason, keep what is filled, go on later', () => {
  for (const medium of MEDIA) {
    test(`${medium}, copy`, () => withStore(medium, {}, (store) => fillUp(store, 'copy')));
    test(`${medium}, share needs no space for data`, () =>
      withStore(medium, {}, (store) => fillUp(store, 'share')));
  }
});

async function fillUp(test: TestStore, mode: SplitMode): Promise<void> {
  const { store, clock } = test;
  const content = pattern(12 * MIB, 11);
  await makeClones(store, content, 'clone');
  const clone = store.vdisk('clone');
  const ballast = await store.createVdisk('ballast', 64 * MIB);
  for (let at = 0; store.stats().freeBytes > 6 * MIB; at += MIB) {
    await ballast.write(at, pattern(MIB, at));
  }
  await store.consistencyPoint();
  const job = await store.split('clone', { mode, isReserved: mode === 'share' });
  await store.idle();
  if (mode === 'share') {
    assert.equal(job.state(), undefined, 'a share split finds room');
    await reads(clone, content);
    return;
  }
  const paused = job.state();
  assert.equal(paused?.state, 'waiting');
  assert.equal(paused.reason, 'out of space');
  assert.ok(paused.filledBytes > MIB, 'something was filled');
  assert.equal(store.show('clone').mappedBytes, paused.filledBytes, 'and is kept');
  await reads(clone, content, 'paused');
  // Clients that need no new block in the end go on: here over what the split had filled.
  for (let block = 0; block < 100; block++) {
    const bytes = pattern(BLOCK_BYTES, block);
    await clone.write(block * BLOCK_BYTES, bytes);
    content.set(bytes, block * BLOCK_BYTES);
    if (block % 20 === 0) await store.consistencyPoint();
  }
  await reads(clone, content, 'written to while paused');
  await clock.sleep(10_000);
  assert.ok(job.state() !== undefined, 'there still is no space');
  await assert.rejects(async () => {
    for (let at = 48 * MIB; ; at += MIB) await ballast.write(at, pattern(MIB, 1));
  }, ofKind('out-of-space'));
  await store.delete('ballast');
  await store.idle();
  await store.consistencyPoint();
  // It looks again by itself.
  await job.done;
  await deleteGolden(store);
  await reads(clone, content, 'alone');
}

describe('12. an unreadable backing block: skip it, list it, refuse the release, do not spin', () => {
  for (const medium of MEDIA) {
    test(`${medium}, copy`, () => withStore(medium, {}, skipUnreadable));
  }
});

async function skipUnreadable(test: TestStore): Promise<void> {
  const golden = pattern(3 * MIB, 12);
  const content = golden.slice();
  await makeClones(test.store, content, 'clone');
  const store = await test.reopen();
  const bad = [5, 6, 7, 255, 256, 600];
  const rot = (block: number): void => {
    const from = block * BLOCK_BYTES;
    assert.equal(test.rot(golden.subarray(from, from + BLOCK_BYTES)), 1);
  };
  for (const block of bad) rot(block);
  const job = await store.split('clone', { mode: 'copy' });
  await store.idle();
  const paused = job.state();
  assert.equal(paused?.state, 'waiting');
  assert.equal(paused.reason, '6 blocks of the backing store cannot be read');
  assert.deepEqual(
    paused.badRanges.map(({ offset, length }) => [offset / BLOCK_BYTES, length / BLOCK_BYTES]),
    [
      [5, 3],
      [255, 2],
      [600, 1],
    ],
  );
  assert.equal(store.show('clone').backing, 'golden@v1', 'the association stays');
  assert.equal(store.show('clone').mappedBytes, 3 * MIB - 6 * BLOCK_BYTES, 'all else is filled');
  const { bytesRead } = test;
  const { eventsRun } = test.clock;
  await test.clock.sleep(59_000);
  assert.equal(test.bytesRead, bytesRead, 'nothing is tried again for a minute');
  assert.ok(test.clock.eventsRun < eventsRun + 10, 'nothing spins');
  await test.clock.sleep(3_600_000 * 24);
  assert.ok(test.bytesRead > bytesRead, 'then it is');
  assert.ok(test.bytesRead < bytesRead + 40 * 6 * MIB, 'at a human pace');
  assert.equal(job.state()?.state, 'waiting');
  const clone = store.vdisk('clone');
  await assert.rejects(
    async () => clone.read(600 * BLOCK_BYTES, new Uint8Array(10)),
    ofKind('corrupt', 'block 600'),
  );
  // One block comes back, the others are overwritten: then there is nothing to refuse.
  rot(600);
  for (const block of bad.slice(0, -1)) {
    const bytes = pattern(BLOCK_BYTES, block);
    await clone.write(block * BLOCK_BYTES, bytes);
    content.set(bytes, block * BLOCK_BYTES);
  }
  await split(store, 'clone', 'copy');
  assert.equal(store.show('clone').backing, undefined);
  await reads(clone, content);
  // What is left of the damage belongs to golden.
  for (const block of bad.slice(0, -1)) rot(block);
}

inEachWay('13. siblings splitting together read each backing block once', async (test, mode) => {
  const content = pattern(7 * MIB, 13);
  const names = ['a', 'b', 'c', 'd'];
  await makeClones(test.store, content, ...names);
  const store = await test.reopen();
  const before = test.bytesRead;
  const jobs = await Promise.all(names.map((name) => store.split(name, { mode })));
  await Promise.all(jobs.map((job) => job.done));
  const blocks = store.stats().splitBackingBlocksRead;
  assert.equal(blocks, mode === 'copy' ? content.length / BLOCK_BYTES : 0);
  const metadata = test.bytesRead - before - blocks * BLOCK_BYTES;
  assert.ok(metadata < (test.medium === 'in-place' ? MIB : 2 * MIB), `${metadata} bytes more`);
  for (const name of names) await reads(store.vdisk(name), content);
});

inEachWay(
  '14. a split does not flood a consistency point with dirty buffers and so stall clients',
  async (test, mode) => {
    const content = pattern(20 * MIB, 14);
    await makeClones(test.store, content, 'clone');
    const store = await test.reopen();
    const other = await store.createVdisk('other', MIB);
    await other.write(0, new Uint8Array(BLOCK_BYTES));
    const job = await store.split('clone', { mode, pace: 'now' });
    let dirtyMax = 0;
    let waits = 0;
    for (let turn = 0; job.state() !== undefined; turn++) {
      if (other.write((turn % 16) * BLOCK_BYTES, new Uint8Array(BLOCK_BYTES)) !== undefined)
        waits++;
      dirtyMax = Math.max(dirtyMax, store.stats().dirtyBuffers);
      await (turn % 2 === 0 ? undefined : test.clock.yield());
    }
    await job.done;
    // 20 level-1 blocks, what is above them, and twice what the client writes.
    assert.ok(dirtyMax < 80, `${dirtyMax} dirty buffers`);
    assert.equal(waits, 0, 'no client waits');
    await reads(store.vdisk('clone'), content);
  },
  { memoryBytes: 4 * MIB, dirtyBytesMax: 2 * MIB },
);

describe('15. power fails at any write, and again during recovery', () => {
  for (const medium of MEDIA) {
    for (const mode of MODES) {
      test(`${medium}, ${mode}`, async () => {
        let isThrough = false;
        // A share split does the same writes but for the data: some of them are enough.
        const stride = mode === 'copy' ? 1 : 3;
        for (let at = 1; !isThrough; at += stride) {
          await withSimulatedStore(medium, 1000 + at, {}, async (sim) => {
            isThrough = await splitWithCut(sim, mode, at);
          });
        }
      });
    }
  }
});

/**
 * Power fails at the `at`-th write from the start of a split; true if the split was through before.
 */
async function splitWithCut(sim: SimulatedStore, mode: SplitMode, at: number): Promise<boolean> {
  const content = pattern(24 * BLOCK_BYTES, 15);
  const golden = content.slice();
  await makeClones(sim.store, content, 'clone');
  const clone = sim.store.vdisk('clone');
  const { machine } = sim;
  let isCut = false;
  const cut = new Promise<void>((resolve) => {
    machine.cutAtCall(machine.callsIssued + at, () => {
      isCut = true;
      resolve();
    });
  });
  let flushed = content.slice();
  const work = async (): Promise<void> => {
    const job = await sim.store.split('clone', { mode });
    const bytes = pattern(BLOCK_BYTES, at);
    await clone.write(7 * BLOCK_BYTES, bytes);
    content.set(bytes, 7 * BLOCK_BYTES);
    await clone.flush();
    flushed = content.slice();
    await job.done;
    await sim.store.delete('golden@v1');
    await sim.store.idle();
  };
  await Promise.race([work(), cut]);
  const isThrough = !isCut;
  sim.machine.powerOff();
  const left = sim.machine.next();
  if (at % 3 === 0) await isSound(left.duplicate(), `cut at write ${at}`);
  const store = await sim.cut(at % 3);
  const there = await readAll(store.vdisk('clone'));
  // The one write may be there although it was not flushed.
  there.set(flushed.subarray(7 * BLOCK_BYTES, 8 * BLOCK_BYTES), 7 * BLOCK_BYTES);
  same(there, flushed, `clone, cut at write ${at}`);
  await reads(store.vdisk('golden'), golden, `golden, cut at write ${at}`);
  await store.idle();
  await store.consistencyPoint();
  await sim.check(`cut at write ${at}, and everything done`);
  return isThrough;
}
