/** What every block target does, whoever serves it. Run on each kind by block-target.test.ts. */
import assert from 'node:assert/strict';
import { afterEach, beforeEach, describe, test } from 'node:test';
import { isStoreError } from '../../src/base/store-error.js';
import { BLOCK_BYTES, KIB, MIB, SECTOR_BYTES } from '../../src/base/units.js';
import { seededRandom } from '../../src/env/seeded-random.js';
import type { BlockTarget, Extent } from '../../src/vdisk/block-target.js';
import { pattern, readAll, same } from '../support/stores.js';

/** One target, made ready for one test. */
export interface TargetFixture {
  readonly target: BlockTarget;
  /** What it holds now. */
  readonly content: Uint8Array;
  /** Waits; in a simulated world time is moved. */
  settle<T>(promise: Promise<T>): Promise<T>;
  /** The same disk after a crash that comes now; undefined if the fixture cannot do that. */
  crashed?(): Promise<BlockTarget>;
  /** Lets what is going on in the background go on for a while. */
  pause(): Promise<void>;
  end(): Promise<void>;
}

/** Targets have this size: it ends with a part of a block, beyond two level-1 ranges. */
export const TARGET_BYTES = 2 * MIB + 40 * KIB + 3 * SECTOR_BYTES;

/** Runs of the same kind, neighbours merged: from where, and what. */
function kindsOf(extents: readonly Extent[]): string[] {
  return extents
    .filter(({ kind }, index) => kind !== extents[index - 1]?.kind)
    .map(({ offset, kind }) => `${kind} at ${offset}`);
}

export function blockTargetContract(name: string, make: () => Promise<TargetFixture>): void {
  describe(`block target contract: ${name}`, () => {
    let fixture: TargetFixture;
    let target: BlockTarget;
    let model: Uint8Array;
    const settle = <T>(work: () => T | Promise<T>): Promise<T> => {
      return fixture.settle((async () => work())());
    };
    const write = async (offset: number, bytes: Uint8Array, fua = false): Promise<void> => {
      const data = bytes.slice();
      await settle(() => target.write(offset, data, { fua }));
      // The caller may use its bytes for something else now.
      data.fill(0x55);
      model.set(bytes, offset);
    };
    const zero = async (
      act: 'trim' | 'writeZeroes',
      offset: number,
      length: number,
    ): Promise<void> => {
      await settle(() => target[act](offset, length));
      model.fill(0, offset, offset + length);
    };
    const check = async (what: string): Promise<void> => {
      same(await settle(() => readAll(target)), model, what);
    };
    beforeEach(async () => {
      fixture = await make();
      target = fixture.target;
      model = fixture.content.slice();
    });
    afterEach(() => fixture.end());

    test('has its size and holds its content', async () => {
      assert.equal(target.sizeBytes, TARGET_BYTES);
      assert.equal(target.readOnly, false);
      await check('content');
    });

    test('reads and writes at every alignment', async () => {
      const edges = [0, BLOCK_BYTES, MIB, 2 * MIB, TARGET_BYTES];
      const steps = [-BLOCK_BYTES - 1, -SECTOR_BYTES, -1, 0, 1, SECTOR_BYTES, BLOCK_BYTES];
      let seed = 1;
      for (const edge of edges) {
        for (const from of steps) {
          for (const to of steps) {
            const start = Math.max(0, edge + from);
            const end = Math.min(TARGET_BYTES, edge + to);
            if (start >= end) continue;
            await write(start, pattern(end - start, seed++));
            const there = await settle(() => readAll(target, start, end - start));
            same(there, model.subarray(start, end), `bytes ${start} to ${end}`);
          }
        }
      }
      await check('all of it');
    });

    test('large requests, in pieces and as a whole', async () => {
      for (const [offset, length] of [
        [0, 64 * KIB],
        [MIB - 1, 128 * KIB + 2],
        [5, 2 * MIB],
        [0, TARGET_BYTES],
        [BLOCK_BYTES, MIB],
      ] as const) {
        await write(offset, pattern(length, offset + length));
        await fixture.pause();
      }
      await check('after large writes');
      const whole = new Uint8Array(TARGET_BYTES);
      await settle(() => target.read(0, whole));
      same(whole, model, 'read in one request');
    });

    for (const act of ['trim', 'writeZeroes'] as const) {
      test(`${act}: the range reads as zeros, its neighbours stay`, async () => {
        for (const [offset, length] of [
          [10, 20],
          [BLOCK_BYTES * 3, BLOCK_BYTES],
          [BLOCK_BYTES * 5 - 1, BLOCK_BYTES * 2 + 2],
          [MIB - 5000, 10_000],
          [MIB, MIB],
          [TARGET_BYTES - 700, 700],
          [0, TARGET_BYTES],
        ] as const) {
          await zero(act, offset, length);
          await check(`${act} of ${length} bytes at ${offset}`);
          await write(Math.max(0, offset - 100), pattern(150, offset));
          await fixture.pause();
        }
        await check('after the writes in between');
      });
    }

    test('block status covers any range, and calls empty only what reads as zeros', async () => {
      await zero('trim', 3 * BLOCK_BYTES, 20 * BLOCK_BYTES);
      await write(MIB, pattern(BLOCK_BYTES, 1));
      for (const [offset, length] of [
        [0, TARGET_BYTES],
        [5 * BLOCK_BYTES, BLOCK_BYTES],
        [SECTOR_BYTES, 3 * BLOCK_BYTES],
        [TARGET_BYTES - SECTOR_BYTES, SECTOR_BYTES],
      ] as const) {
        const extents = await settle(() => target.blockStatus(offset, length));
        let at = offset;
        for (const { offset: from, length: bytes, kind } of extents) {
          assert.equal(from, at);
          assert.ok(bytes > 0);
          at += bytes;
          if (kind === 'data') continue;
          same(model.subarray(from, at), new Uint8Array(bytes), `${kind} at ${from}`);
        }
        assert.equal(at, offset + length);
      }
      const trimmed = await settle(() => target.blockStatus(3 * BLOCK_BYTES, 20 * BLOCK_BYTES));
      assert.ok(
        trimmed.every(({ kind }) => kind !== 'data'),
        'what was trimmed is no data',
      );
      const written = await settle(() => target.blockStatus(MIB, BLOCK_BYTES));
      assert.deepEqual(
        written.map(({ kind }) => kind),
        ['data'],
      );
    });

    test('block status stops at so many extents, and goes on from there', async () => {
      await zero('trim', 3 * BLOCK_BYTES, 20 * BLOCK_BYTES);
      await zero('trim', MIB, 5 * BLOCK_BYTES);
      const whole = await settle(() => target.blockStatus(0, TARGET_BYTES));
      assert.ok(whole.length > 3);
      for (const extentsMax of [1, 2, 3, whole.length]) {
        const parts: Extent[] = [];
        for (let at = 0; at < TARGET_BYTES; ) {
          const rest = TARGET_BYTES - at;
          const some = await settle(() => target.blockStatus(at, rest, extentsMax));
          assert.ok(some.length > 0 && some.length <= extentsMax, `${some.length} extents`);
          for (const extent of some) {
            assert.equal(extent.offset, at);
            at += extent.length;
          }
          parts.push(...some);
        }
        // A split may fill meanwhile; data and what is empty stay.
        assert.deepEqual(kindsOf(parts), kindsOf(whole));
      }
    });

    test('requests beyond the end are invalid, and change nothing', async () => {
      const invalid = (error: unknown): boolean => isStoreError(error, 'invalid');
      const bytes = new Uint8Array(SECTOR_BYTES);
      for (const offset of [TARGET_BYTES - 1, TARGET_BYTES, 2 ** 50]) {
        await assert.rejects(
          settle(() => target.read(offset, bytes)),
          invalid,
        );
        await assert.rejects(
          settle(() => target.write(offset, bytes)),
          invalid,
        );
        await assert.rejects(
          settle(() => target.trim(offset, SECTOR_BYTES)),
          invalid,
        );
        await assert.rejects(
          settle(() => target.writeZeroes(offset, SECTOR_BYTES)),
          invalid,
        );
      }
      await check('unchanged');
    });

    test('what was flushed, or written with FUA, survives a crash', async () => {
      if (fixture.crashed === undefined) return;
      await write(100, pattern(5000, 1));
      await write(MIB - 200, pattern(100 * KIB, 2));
      await zero('trim', 7 * BLOCK_BYTES, 3 * BLOCK_BYTES);
      await settle(() => target.flush());
      const after = await fixture.crashed();
      same(await settle(() => readAll(after)), model, 'after a flush');
      await write(300, pattern(600, 3), true);
      await write(MIB, pattern(200 * KIB, 4), true);
      const again = await fixture.crashed();
      same(await settle(() => readAll(again)), model, 'after FUA');
    });

    test('random requests side by side, beside a plain array', async () => {
      const random = seededRandom(17);
      for (let round = 0; round < 12; round++) {
        const calls: Promise<void>[] = [];
        // One request for each part, so that their order does not matter.
        for (let part = 0; part < 8; part++) {
          const partBytes = Math.floor(TARGET_BYTES / 8);
          const length = 1 + random.below(random.chance(0.3) ? partBytes : 6000);
          const offset = part * partBytes + random.below(partBytes - length + 1);
          if (random.chance(0.25)) {
            calls.push(settle(() => target.trim(offset, length)));
            model.fill(0, offset, offset + length);
          } else {
            const bytes = pattern(length, random.below(2 ** 30));
            calls.push(settle(() => target.write(offset, bytes)));
            model.set(bytes, offset);
          }
        }
        if (round % 3 === 0) calls.push(settle(() => target.flush()));
        await Promise.all(calls);
        await check(`round ${round}`);
        await fixture.pause();
      }
    });
  });
}
