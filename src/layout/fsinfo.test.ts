import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { eachBitFlip, eachPrefix } from '../../test/support/bit-flips.js';
import { fsinfos, PLAIN_FSINFO } from '../../test/support/layout-values.js';
import { crc32 } from '../base/checksum.js';
import { BLOCK_BYTES } from '../base/units.js';
import { viewOf } from './bytes.js';
import {
  decodeFsinfo,
  EPOCHS_MAX,
  encodeFsinfo,
  FEATURE_PENDING,
  type Fsinfo,
  type FsinfoOutcome,
  mustOpenReadOnly,
  PENDING_RUNS_MAX,
  type PendingRun,
  storeName,
} from './fsinfo.js';

/** The plain block after a change, with a checksum that fits again: a stranger's or a bug's. */
function forged(change: (view: DataView) => void, base: Fsinfo = PLAIN_FSINFO): FsinfoOutcome {
  const bytes = encodeFsinfo(base);
  change(viewOf(bytes));
  viewOf(bytes).setUint32(8, crc32(bytes.subarray(12)), true);
  return decodeFsinfo(bytes);
}

function fsinfoOf(outcome: FsinfoOutcome): Fsinfo {
  assert.equal(outcome.kind, 'ok');
  assert.ok(outcome.kind === 'ok');
  return outcome.fsinfo;
}

const OBJECT_LOG: Fsinfo = { ...PLAIN_FSINFO, medium: 'object-log' };

test('every fsinfo comes back', () => {
  fc.assert(
    fc.property(fsinfos, (info) => {
      const bytes = encodeFsinfo(info);
      assert.equal(bytes.length, BLOCK_BYTES);
      assert.deepEqual(fsinfoOf(decodeFsinfo(bytes)), info);
    }),
  );
});

test('the block begins with KEIKIFS1', () => {
  assert.equal(Buffer.from(encodeFsinfo(PLAIN_FSINFO)).toString('latin1', 0, 8), 'KEIKIFS1');
});

test('every single flipped bit is seen', () => {
  eachBitFlip(encodeFsinfo(PLAIN_FSINFO), 0, BLOCK_BYTES, (flipped, position) => {
    assert.equal(decodeFsinfo(flipped).kind, 'invalid', position);
  });
});

test('every truncation is refused, and so is a block too long', () => {
  const bytes = encodeFsinfo(PLAIN_FSINFO);
  eachPrefix(bytes, (prefix) => assert.equal(decodeFsinfo(prefix).kind, 'invalid'));
  assert.equal(decodeFsinfo(Buffer.concat([bytes, bytes])).kind, 'invalid');
});

test('a block torn between two consistency points at any sector is refused', () => {
  const old = encodeFsinfo({
    ...PLAIN_FSINFO,
    cpNumber: 8,
    epochs: [{ epoch: 1, firstRecord: 1 }],
  });
  const fresh = encodeFsinfo({ ...PLAIN_FSINFO, cpNumber: 10, usedBlocks: 7 });
  for (let sector = 1; sector < 8; sector++) {
    const torn = fresh.slice();
    torn.set(old.subarray(sector * 512), sector * 512);
    const outcome = decodeFsinfo(torn);
    // Sectors that do not differ may come from either: nothing is torn then.
    if (outcome.kind === 'ok') assert.deepEqual(torn, fresh);
  }
  assert.equal(
    decodeFsinfo(Buffer.concat([old.subarray(0, 512), fresh.subarray(512)])).kind,
    'invalid',
  );
});

test('every unknown feature refuses as its mask says', () => {
  for (let bit = 0; bit < 64; bit++) {
    const value = 1n << BigInt(bit);
    const at = (offset: number): FsinfoOutcome =>
      forged((view) => view.setBigUint64(offset, value, true));
    // Known: there is an external tree, shared indirect blocks, a published snapshot.
    assert.equal(at(48).kind, bit < 3 ? 'ok' : 'unsupported', `incompatible bit ${bit}`);
    // Bits from 53 on are no features: a mask is a number below 2^53.
    assert.equal(at(32).kind, bit < 53 ? 'ok' : 'invalid', `compatible bit ${bit}`);
    assert.equal(at(40).kind, bit < 53 ? 'ok' : 'invalid', `read-only compatible bit ${bit}`);
    if (bit < 53) {
      assert.equal(mustOpenReadOnly(fsinfoOf(at(32))), false);
      // Bit 0 is known: some runs are pending.
      assert.equal(mustOpenReadOnly(fsinfoOf(at(40))), bit !== 0);
    }
  }
});

test('another version, block size, checksum, medium or log device is unsupported', () => {
  const words: readonly (readonly [number, number])[] = [
    [12, 0],
    [12, 2],
    [56, 512],
    [56, 8192],
    [60, 512],
    [64, 0],
    [64, 2],
    [68, 0],
    [68, 3],
  ];
  for (const [offset, value] of words) {
    const outcome = forged((view) => view.setUint32(offset, value, true));
    assert.equal(outcome.kind, 'unsupported', `${value} at ${offset}`);
  }
  for (let offset = 96; offset < 112; offset++) {
    assert.equal(forged((view) => view.setUint8(offset, 1)).kind, 'unsupported');
  }
});

test('a number of 2^53 or more is refused in every field', () => {
  const offsets = [72, 80, 88, 120, 128, 136, 144, 152, 160, 168, 176, 184, 192, 200];
  for (const offset of offsets) {
    for (const value of [2n ** 53n, 2n ** 64n - 1n]) {
      const outcome = forged((view) => view.setBigUint64(offset, value, true), OBJECT_LOG);
      assert.equal(outcome.kind, 'invalid', `${value} at ${offset}`);
    }
  }
});

test('an in-place store of impossible shape is refused', () => {
  const shapes: readonly (readonly [number, bigint])[] = [
    [120, 1023n],
    [120, 15n * 1024n],
    [120, 2n ** 41n],
    [128, 1n],
    [136, 16n * 1024n - 3n],
    [152, 1024n],
  ];
  for (const [offset, value] of shapes) {
    const change = (view: DataView): void => view.setBigUint64(offset, value, true);
    assert.equal(forged(change).kind, 'invalid', `${value} at ${offset}`);
    if (value < 2n ** 53n) assert.equal(forged(change, OBJECT_LOG).kind, 'ok');
  }
});

test('a root that cannot be one is refused', () => {
  for (let index = 0; index < 5; index++) {
    const at = 256 + index * 32;
    const words = (...values: number[]): FsinfoOutcome =>
      forged((view) => {
        for (const [word, value] of values.entries()) view.setUint32(at + word * 4, value, true);
      });
    assert.equal(words(16 * 1024 - 3, 0, 9, 0, 5).kind, 'ok');
    assert.equal(words(0, 0, 0, 0, 0).kind, 'ok', 'no height where nothing is');
    assert.equal(words(16 * 1024, 0, 9, 0, 1).kind, 'invalid', 'beyond the store');
    assert.equal(words(9, 0x0080_0000, 9, 0, 1).kind, 'invalid', 'far beyond the store');
    assert.equal(words(9, 0x8000_0000, 9, 0, 1).kind, 'invalid', 'in memory only');
    assert.equal(words(9, 0, 9, 1, 1).kind, 'invalid', 'spare word');
    assert.equal(words(9, 0, 9, 0, 6).kind, 'invalid', 'too high');
    assert.equal(words(9, 0, 9, 0, 2 ** 32 - 1).kind, 'invalid', 'far too high');
    assert.equal(words(9, 0, 9, 0, 0).kind, 'invalid', 'a block, but no height');
  }
});

test('the tail: unknown tags are skipped, damaged ones refused', () => {
  const epochs = [
    { epoch: 3, firstRecord: 1 },
    { epoch: 4, firstRecord: 2000 },
  ];
  const base = { ...OBJECT_LOG, epochs };
  const shifted = forged((view) => {
    const tag = new Uint8Array(view.buffer, 512, 36).slice();
    new Uint8Array(view.buffer, 512 + 11, 36).set(tag);
    view.setUint16(512, 77, true);
    view.setUint16(514, 7, true);
  }, base);
  assert.deepEqual(fsinfoOf(shifted).epochs, epochs);
  for (const length of [1, 15, 17, 31, 33, (EPOCHS_MAX + 1) * 16, 3584, 65535]) {
    const outcome = forged((view) => view.setUint16(514, length, true), base);
    assert.equal(outcome.kind, 'invalid', `a table of ${length} bytes`);
  }
  const unknown = forged((view) => {
    view.setUint16(512, 77, true);
    view.setUint16(514, 65535, true);
  });
  assert.equal(unknown.kind, 'invalid', 'an unknown tag beyond the block');
  for (const epoch of [0n, 3n, 2n ** 53n]) {
    const outcome = forged((view) => view.setBigUint64(532, epoch, true), base);
    assert.equal(outcome.kind, 'invalid', `epoch ${epoch} behind epoch 3`);
  }
  const first = forged((view) => view.setBigUint64(524, 2n ** 53n, true), base);
  assert.equal(first.kind, 'invalid');
});

test('pending runs come back; one that cannot be is refused', () => {
  const pending: PendingRun[] = [
    { vbn: 2 * 1024, blocks: 3, isFreed: false },
    { vbn: 6 * 1024 + 1000, blocks: 24, isFreed: true },
    { vbn: 15 * 1024 - 3, blocks: 1, isFreed: false },
  ];
  const [first = assert.fail('there are runs')] = pending;
  const base = { ...PLAIN_FSINFO, readOnlyCompatible: FEATURE_PENDING, pending };
  assert.deepEqual(fsinfoOf(decodeFsinfo(encodeFsinfo(base))).pending, pending);
  const most = { ...base, pending: new Array<PendingRun>(PENDING_RUNS_MAX).fill(first) };
  assert.deepEqual(fsinfoOf(decodeFsinfo(encodeFsinfo(most))).pending, most.pending);
  const run = (vbn: number, flags: number, blocks: number): FsinfoOutcome =>
    forged((view) => {
      view.setUint32(416, vbn, true);
      view.setUint8(421, flags);
      view.setUint16(422, blocks, true);
    }, base);
  assert.equal(run(6 * 1024, 0, 1024).kind, 'ok');
  assert.equal(run(6 * 1024, 0, 1025).kind, 'invalid', 'beyond its segment');
  assert.equal(run(5 * 1024, 1, 1).kind, 'invalid', 'metadata in an odd segment');
  assert.equal(run(1000, 0, 1).kind, 'invalid', 'in the log');
  assert.equal(run(15 * 1024 - 3, 0, 2).kind, 'invalid', 'a second copy over fsinfo');
  assert.equal(run(6 * 1024, 2, 1).kind, 'invalid', 'an unknown flag');
  const bare = forged((view) => view.setBigUint64(40, 0n, true), base);
  assert.equal(bare.kind, 'invalid', 'without the mask that keeps others from writing');
  for (const wrong of [
    { ...base, pending: [...most.pending, ...pending] },
    { ...PLAIN_FSINFO, pending },
  ]) {
    assert.throws(() => encodeFsinfo(wrong), { name: 'InvariantError' });
  }
});

test('no bytes with a right checksum make the decoder throw', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.integer({ min: 12, max: BLOCK_BYTES - 1 }), fc.nat(255))),
      (changes) => {
        forged((view) => {
          for (const [at, byte] of changes) view.setUint8(at, byte);
        });
      },
    ),
  );
});

test('what a decoder would refuse is never written', () => {
  const root = { words: [9, 0x8000_0000, 0, 0] as const, height: 1 };
  const wrong: readonly Partial<Fsinfo>[] = [
    { storeBlocks: 1000 },
    { cpNumber: 2 ** 53 },
    { roots: { ...PLAIN_FSINFO.roots, map: root } },
    {
      epochs: Array.from({ length: EPOCHS_MAX + 1 }, (_, i) => ({ epoch: i + 1, firstRecord: 1 })),
    },
  ];
  for (const change of wrong) {
    assert.throws(() => encodeFsinfo({ ...PLAIN_FSINFO, ...change }), { name: 'InvariantError' });
  }
});

test('a store is named by the first digits of its id', () => {
  assert.equal(storeName(PLAIN_FSINFO), 'a0a1a2a3');
});
