/** Exports to sinks in memory. What qemu-img finds in real files: test/conformance/image. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { MemoryFile } from '../../test/support/memory-file.js';
import { MemoryTarget } from '../../test/support/memory-target.js';
import { isStoreError } from '../base/store-error.js';
import { KIB, MIB } from '../base/units.js';
import type { FileSink, StreamSink } from '../env/file-sink.js';
import { seededRandom } from '../env/seeded-random.js';
import { SparseBytes } from '../env/sparse-bytes.js';
import type { BlockTarget, Extent } from '../vdisk/block-target.js';
import { clusterRuns } from './cluster-runs.js';
import { exportQcow2 } from './export-qcow2.js';
import { exportRaw } from './export-raw.js';
import { openImageFile } from './open-image.js';

/** A file in memory that knows what was written, and when it was synced. */
class MemorySink implements FileSink {
  readonly kind = 'file';
  readonly name = 'sink';
  readonly isBlank: boolean;
  readonly capacityBytes: number | undefined;
  readonly acts: string[] = [];
  sizeBytes = 0;
  writtenBytes = 0;
  failAfterBytes = Number.POSITIVE_INFINITY;
  underWay = 0;
  readonly #bytes = new SparseBytes(4 * KIB);

  constructor(capacityBytes?: number) {
    this.isBlank = capacityBytes === undefined;
    this.capacityBytes = capacityBytes;
    if (capacityBytes === undefined) return;
    this.#bytes.write(0, new Uint8Array(capacityBytes).fill(0xee));
    this.sizeBytes = capacityBytes;
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    this.underWay++;
    await new Promise((resolve) => setImmediate(resolve));
    this.underWay--;
    this.writtenBytes += from.length;
    if (this.writtenBytes > this.failAfterBytes) throw new Error('disk full');
    this.#bytes.write(offset, from);
    this.sizeBytes = Math.max(this.sizeBytes, offset + from.length);
    this.acts.push(offset === 0 ? 'write at 0' : 'write');
  }

  async setSize(sizeBytes: number): Promise<void> {
    this.sizeBytes = Math.max(this.sizeBytes, sizeBytes);
  }

  async sync(): Promise<void> {
    assert.equal(this.underWay, 0);
    this.acts.push('sync');
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  discard(): Promise<void> {
    return Promise.resolve();
  }

  bytes(): Uint8Array {
    const all = new Uint8Array(this.sizeBytes);
    this.#bytes.read(0, all);
    return all;
  }
}

class MemoryPipe implements StreamSink {
  readonly kind = 'stream';
  readonly name = 'pipe';
  readonly parts: Uint8Array[] = [];
  failAfterParts = Number.POSITIVE_INFINITY;

  async write(from: Uint8Array): Promise<void> {
    const copy = from.slice();
    await new Promise((resolve) => setImmediate(resolve));
    if (this.parts.length >= this.failAfterParts) throw new Error('nobody reads');
    this.parts.push(copy);
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

function someDisk(sizeBytes: number, seed: number): MemoryTarget {
  const random = seededRandom(seed);
  const disk = new MemoryTarget({ sizeBytes });
  for (let count = 0; count < 30; count++) {
    const offset = random.below(sizeBytes / 512) * 512;
    const bytes = new Uint8Array(Math.min(sizeBytes - offset, random.below(400) * 512));
    if (random.chance(0.7)) random.fill(bytes);
    disk.write(offset, bytes);
  }
  return disk;
}

function bytesOf(target: MemoryTarget): Uint8Array {
  const bytes = new Uint8Array(target.sizeBytes);
  target.read(0, bytes);
  return bytes;
}

const isSame = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

describe('export to raw', () => {
  it('to a file: every byte, and no block of zeros', async () => {
    for (let seed = 1; seed <= 10; seed++) {
      const disk = someDisk(9 * MIB + seed * 512, seed);
      const sink = new MemorySink();
      const report = await exportRaw(disk, sink);
      assert.ok(isSame(sink.bytes(), bytesOf(disk)));
      assert.equal(report.writtenBytes, sink.writtenBytes);
      let blocks = 0;
      const bytes = bytesOf(disk);
      for (let at = 0; at < bytes.length; at += 4096) {
        if (bytes.subarray(at, at + 4096).some((byte) => byte !== 0)) blocks++;
      }
      assert.ok(sink.writtenBytes <= blocks * 4096);
      assert.equal(sink.acts.at(-1), 'sync');
    }
  });

  it('to a device with old bytes: zeros, too', async () => {
    const disk = someDisk(3 * MIB, 2);
    const sink = new MemorySink(4 * MIB);
    await exportRaw(disk, sink);
    assert.ok(isSame(sink.bytes().subarray(0, 3 * MIB), bytesOf(disk)));
    assert.ok(
      sink
        .bytes()
        .subarray(3 * MIB)
        .every((byte) => byte === 0xee),
    );
    await assert.rejects(exportRaw(disk, new MemorySink(2 * MIB)), /does not fit/);
  });

  it('to a pipe: every byte, in order', async () => {
    const disk = someDisk(12 * MIB + 512, 3);
    const pipe = new MemoryPipe();
    await exportRaw(disk, pipe);
    assert.ok(isSame(Buffer.concat(pipe.parts), bytesOf(disk)));
  });

  it('fails with the sink, or with the signal', async () => {
    const disk = someDisk(12 * MIB, 4);
    const sink = new MemorySink();
    sink.failAfterBytes = MIB;
    await assert.rejects(exportRaw(disk, sink), /disk full/);
    assert.equal(sink.underWay, 0);
    const pipe = new MemoryPipe();
    pipe.failAfterParts = 3;
    await assert.rejects(exportRaw(disk, pipe), /nobody reads/);
    const signal = AbortSignal.abort(new Error('enough'));
    await assert.rejects(exportRaw(disk, new MemorySink(), { signal }), /enough/);
    await assert.rejects(exportRaw(disk, new MemoryPipe(), { signal }), /enough/);
  });
});

describe('export to qcow2', () => {
  it('is read as it was, and is as small as it can be', async () => {
    for (let seed = 1; seed <= 10; seed++) {
      const disk = someDisk(9 * MIB + seed * 512, seed);
      const sink = new MemorySink();
      await exportQcow2(disk, sink);
      const image = await openImageFile(new MemoryFile('sink', sink.bytes()));
      const bytes = new Uint8Array(image.sizeBytes);
      await image.read(0, bytes);
      assert.ok(isSame(bytes, bytesOf(disk)));
      let clusters = 0;
      for (let at = 0; at < bytes.length; at += 64 * KIB) {
        if (bytes.subarray(at, at + 64 * KIB).some((byte) => byte !== 0)) clusters++;
      }
      // Header, L1 table, one L2 table, counts: a table and a block.
      assert.equal(sink.sizeBytes, (clusters + 5) * 64 * KIB);
    }
  });

  it('writes the header between two syncs, and nothing behind it', async () => {
    const sink = new MemorySink();
    await exportQcow2(someDisk(MIB, 1), sink);
    assert.deepEqual(sink.acts.slice(-3), ['sync', 'write at 0', 'sync']);
    assert.equal(sink.acts.filter((act) => act === 'write at 0').length, 1);
  });

  it('leaves no header if it fails', async () => {
    const disk = someDisk(9 * MIB, 1);
    const sink = new MemorySink();
    sink.failAfterBytes = MIB;
    await assert.rejects(exportQcow2(disk, sink), /disk full/);
    assert.ok(!sink.acts.includes('write at 0'));
    assert.equal(sink.underWay, 0);
  });

  it('not to a pipe, and not to a device', async () => {
    for (const sink of [new MemoryPipe(), new MemorySink(MIB)]) {
      await assert.rejects(exportQcow2(someDisk(MIB, 1), sink), (error) => {
        return isStoreError(error, 'invalid') && error.message.includes('export raw');
      });
    }
  });
});

/** A disk that is nothing but its block status. */
function withStatus(kinds: readonly Extent['kind'][], blockBytes: number): BlockTarget {
  const disk = new MemoryTarget({ sizeBytes: kinds.length * blockBytes });
  const status = (offset: number, length: number): Promise<Extent[]> => {
    const extents = kinds.map((kind, index): Extent => {
      return { offset: index * blockBytes, length: blockBytes, kind, depth: 0, filled: false };
    });
    const inside = extents.filter(({ offset: at }) => at >= offset && at < offset + length);
    // As the contract allows: not all at once.
    return Promise.resolve(inside.slice(0, 3));
  };
  return Object.assign(disk, { blockStatus: status });
}

describe('clusters of a disk', () => {
  it('every disk of seven blocks, in clusters of one, two, three and seven', async () => {
    const names = ['hole', 'zero', 'data'] as const;
    for (let code = 0; code < 3 ** 7; code++) {
      const kinds = Array.from(
        { length: 7 },
        (_, at) => names[Math.floor(code / 3 ** at) % 3] ?? 'hole',
      );
      for (const size of [1, 2, 3, 7]) {
        const expected: string[] = [];
        for (let at = 0; at < 7; at += size) {
          const part = kinds.slice(at, at + size);
          expected.push(part.includes('data') ? 'data' : part.includes('zero') ? 'zero' : 'hole');
        }
        const found: string[] = [];
        for await (const run of clusterRuns(withStatus(kinds, 4096), size * 4096, undefined)) {
          assert.equal(run.first, found.length);
          for (let count = 0; count < run.count; count++) found.push(run.kind);
        }
        assert.deepEqual(found, expected);
      }
    }
  });
});
