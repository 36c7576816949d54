import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { MemoryFile } from '../../test/support/memory-file.js';
import { DeferredTarget, MemoryTarget } from '../../test/support/memory-target.js';
import { buildQcow2, type ClusterPlan } from '../../test/support/qcow2-builder.js';
import { isStoreError } from '../base/store-error.js';
import { MIB } from '../base/units.js';
import { seededRandom } from '../env/seeded-random.js';
import type { CopyProgress } from './copy-options.js';
import { importImage } from './import-image.js';
import { openImageFile } from './open-image.js';
import { RawImage } from './raw-image.js';

function bytesOf(target: MemoryTarget): Uint8Array {
  const bytes = new Uint8Array(target.sizeBytes);
  target.read(0, bytes);
  return bytes;
}

async function dataBytes(target: MemoryTarget): Promise<number> {
  const extents = await target.blockStatus(0, target.sizeBytes);
  return extents.reduce((sum, { kind, length }) => sum + (kind === 'data' ? length : 0), 0);
}

/** Runs of zeros and of other bytes, cut at every alignment. */
function someBytes(length: number, seed: number): Uint8Array {
  const random = seededRandom(seed);
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; ) {
    const run = Math.min(length - at, 1 + random.below(40_000));
    if (random.chance(0.5)) random.fill(bytes.subarray(at, at + run));
    at += run;
  }
  return bytes;
}

function raw(bytes: Uint8Array): RawImage {
  return new RawImage(new MemoryFile('disk.raw', bytes));
}

describe('import', () => {
  it('leaves blocks of zeros out, and nothing else', async () => {
    for (let seed = 1; seed <= 20; seed++) {
      const bytes = someBytes(3 * MIB + seed * 512, seed);
      const target = new MemoryTarget({ sizeBytes: bytes.length });
      const report = await importImage(raw(bytes), target, { isBlank: true });
      assert.ok(Buffer.compare(bytesOf(target), bytes) === 0, `seed ${seed}`);
      let blocks = 0;
      for (let at = 0; at < bytes.length; at += 4096) {
        if (bytes.subarray(at, at + 4096).some((byte) => byte !== 0)) blocks++;
      }
      const mapped = await dataBytes(target);
      assert.ok(mapped <= blocks * 4096 && mapped > (blocks - 1) * 4096);
      assert.equal(report.writtenBytes, mapped);
    }
  });

  it('writes zeros over what was there, unless the target is blank', async () => {
    const clusters: ClusterPlan[] = ['data', 'hole', 'zero', 'data', 'packed', 'hole'];
    const { bytes } = buildQcow2({ version: 3, clusterBits: 12, clusters });
    const image = await openImageFile(new MemoryFile('disk.qcow2', bytes));
    const expected = new Uint8Array(image.sizeBytes);
    await image.read(0, expected);
    const target = new MemoryTarget({ sizeBytes: image.sizeBytes + 4096 });
    target.write(0, new Uint8Array(target.sizeBytes).fill(0xee));
    await importImage(image, target);
    assert.deepEqual(bytesOf(target).subarray(0, -4096), expected);
    assert.ok(
      bytesOf(target)
        .subarray(-4096)
        .every((byte) => byte === 0xee),
      'the rest stays',
    );
    assert.equal(await dataBytes(target), 4 * 4096);
  });

  it('tells how far it is', async () => {
    const bytes = someBytes(5 * MIB, 5);
    const told: CopyProgress[] = [];
    const target = new MemoryTarget({ sizeBytes: 5 * MIB });
    await importImage(raw(bytes), target, { onProgress: (progress) => told.push(progress) });
    assert.ok(told.length >= 5);
    told.reduce((before, now) => {
      assert.ok(now.doneBytes > before.doneBytes && now.writtenBytes >= before.writtenBytes);
      return now;
    });
    assert.deepEqual([told.at(-1)?.doneBytes, told.at(-1)?.totalBytes], [5 * MIB, 5 * MIB]);
  });

  it('has several writes under way, and flushes when all are done', async () => {
    const disk = new MemoryTarget({ sizeBytes: 20 * MIB });
    const target = new DeferredTarget(disk);
    const bytes = new Uint8Array(20 * MIB).map((_, at) => 1 + (at >>> 20));
    const importing = importImage(raw(bytes), target);
    await turns();
    assert.ok(target.waiting.length >= 4 && target.waiting.length <= 8);
    assert.ok(target.waiting.every(({ act }) => act === 'write'));
    let lastAct = '';
    for (let count = 0; lastAct !== 'flush'; count++) {
      // The order is of no importance.
      const [work] = target.waiting.splice((count * 3) % target.waiting.length, 1);
      work?.finish();
      lastAct = work?.act ?? '';
      await turns();
    }
    await importing;
    assert.ok(Buffer.compare(bytesOf(disk), bytes) === 0);
  });
});

describe('an import that fails', () => {
  it('does not begin if the target is too small', async () => {
    const target = new MemoryTarget({ name: 'small', sizeBytes: 4096 });
    await assert.rejects(importImage(raw(new Uint8Array(8192)), target), (error) => {
      return isStoreError(error, 'invalid') && error.message.includes('small');
    });
  });

  it('ends when nothing is under way any more, with the first failure', async () => {
    const target = new DeferredTarget(new MemoryTarget({ sizeBytes: 20 * MIB }));
    let isOver = false;
    const importing = importImage(raw(new Uint8Array(20 * MIB).fill(1)), target);
    const failed = assert.rejects(importing, /no space/).then(() => {
      isOver = true;
    });
    await turns();
    const [first, ...others] = target.waiting.splice(0);
    first?.fail(new Error('no space'));
    await turns();
    assert.equal(target.waiting.length, 0, 'nothing new begins');
    for (const work of others) {
      assert.equal(isOver, false);
      work.finish();
      await turns();
    }
    await failed;
  });

  it('stops at a signal, with its reason', async () => {
    const abort = new AbortController();
    const target = new DeferredTarget(new MemoryTarget({ sizeBytes: 20 * MIB }));
    const bytes = new Uint8Array(20 * MIB).fill(1);
    const importing = importImage(raw(bytes), target, { signal: abort.signal });
    const failed = assert.rejects(importing, /not wanted/);
    await turns();
    abort.abort(new Error('not wanted'));
    await target.finishAll();
    await failed;
    assert.equal(target.waiting.length, 0);
    await assert.rejects(importImage(raw(bytes), target, { signal: abort.signal }), /not wanted/);
  });

  it('says what is wrong with the image', async () => {
    const { bytes } = buildQcow2({ version: 3, clusterBits: 12, clusters: ['data', 'data'] });
    const image = await openImageFile(new MemoryFile('disk.qcow2', bytes.slice(0, -1)));
    const target = new MemoryTarget({ sizeBytes: image.sizeBytes });
    await assert.rejects(importImage(image, target), /cut off/);
  });

  it('refuses an image of which the clusters overlap', async () => {
    // 512-byte clusters, all of them the same one.
    const clusters = Array.from({ length: 64 }, () => 'data' as const);
    const { bytes, l2Offsets } = buildQcow2({ version: 3, clusterBits: 9, clusters });
    const table = l2Offsets[0] as number;
    const small = bytes.slice(0, table + 2 * 512);
    const view = new DataView(small.buffer);
    for (let index = 0; index < 64; index++)
      view.setBigUint64(table + index * 8, BigInt(table + 512));
    const image = await openImageFile(new MemoryFile('disk.qcow2', small));
    await image.read(0, new Uint8Array(512));
    const target = new MemoryTarget({ sizeBytes: image.sizeBytes });
    await assert.rejects(importImage(image, target), /clusters overlap/);
  });
});

/** Everything that can go on without the target has gone on. */
async function turns(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
}
