import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { MemoryTarget } from '../../test/support/memory-target.js';
import { isStoreError, type StoreErrorKind } from '../base/store-error.js';
import { GIB, MIB } from '../base/units.js';
import { seededRandom } from '../env/seeded-random.js';
import { type ImportStreamOptions, importStream } from './import-stream.js';

/** A pipe that gives the bytes in chunks of these sizes, again and again. */
class Pipe {
  readonly name = 'pipe';
  readonly chunks: AsyncIterable<Uint8Array>;
  isClosed = false;

  constructor(bytes: Uint8Array, sizes: readonly number[]) {
    this.chunks = this.#give(bytes, sizes);
  }

  async *#give(bytes: Uint8Array, sizes: readonly number[]): AsyncGenerator<Uint8Array> {
    try {
      for (let at = 0, index = 0; at < bytes.length; index++) {
        const size = sizes[index % sizes.length] as number;
        // The pipe uses its buffer again: who keeps a chunk loses it.
        const chunk = bytes.slice(at, at + size);
        yield chunk;
        chunk.fill(0xdd);
        at += size;
      }
    } finally {
      this.isClosed = true;
    }
  }
}

function someBytes(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  seededRandom(3).fill(bytes.subarray(length / 4, length / 2));
  // No zeros where the last piece, a short one, would find those of the piece before.
  for (let at = 0; at < length; at += MIB) bytes.fill(9, at, at + 4096);
  bytes.fill(7, length - 5);
  return bytes;
}

function bytesOf(target: MemoryTarget): Uint8Array {
  const bytes = new Uint8Array(target.sizeBytes);
  target.read(0, bytes);
  return bytes;
}

describe('import from a pipe', () => {
  it('in chunks of any size', async () => {
    const bytes = someBytes(3 * MIB + 512);
    for (const sizes of [[1000], [65_536], [MIB], [3 * MIB], [1, 511, 70_000, 2 * MIB]]) {
      const target = new MemoryTarget({ sizeBytes: bytes.length });
      const pipe = new Pipe(bytes, sizes);
      const report = await importStream(pipe, target, { isBlank: true });
      assert.deepEqual(bytesOf(target), bytes);
      assert.equal(report.sizeBytes, bytes.length);
      assert.ok(report.writtenBytes < MIB);
      assert.equal(pipe.isClosed, true);
    }
  });

  it('over other bytes, zeros and all', async () => {
    const bytes = someBytes(2 * MIB);
    const target = new MemoryTarget({ sizeBytes: bytes.length });
    target.write(0, new Uint8Array(bytes.length).fill(0xee));
    await importStream(new Pipe(bytes, [65_536]), target);
    assert.deepEqual(bytesOf(target), bytes);
  });

  it('of a size that nobody knows: the target grows with it, and fits at the end', async () => {
    const target = new MemoryTarget({ sizeBytes: 512 });
    const sizes: number[] = [];
    const resize = async (sizeBytes: number): Promise<void> => {
      sizes.push(sizeBytes);
      target.sizeBytes = sizeBytes;
    };
    const bytes = someBytes(5 * MIB + 100);
    const report = await importStream(new Pipe(bytes, [65_536]), target, { resize, isBlank: true });
    assert.deepEqual(sizes, [MIB + GIB, 5 * MIB + 512]);
    assert.equal(report.sizeBytes, 5 * MIB + 512);
    assert.deepEqual(bytesOf(target).subarray(0, bytes.length), bytes);
    assert.ok(
      bytesOf(target)
        .subarray(bytes.length)
        .every((byte) => byte === 0),
    );
    const empty = importStream(new Pipe(new Uint8Array(0), [1]), target, { resize });
    await assert.rejects(empty, /without a byte/);
  });
});

describe('a pipe that is refused', () => {
  const fails = async (
    bytes: Uint8Array,
    options: ImportStreamOptions,
    kind: StoreErrorKind,
    mention: string,
  ): Promise<void> => {
    const target = new MemoryTarget({ sizeBytes: 4 * MIB });
    const pipe = new Pipe(bytes, [65_536]);
    await assert.rejects(importStream(pipe, target, options), (error) => {
      assert.ok(isStoreError(error, kind), String(error));
      assert.ok(error.message.includes(mention), error.message);
      return true;
    });
  };

  it('ends too early, or too late, by a byte', async () => {
    const sizeBytes = 3 * MIB;
    await fails(someBytes(sizeBytes - 1), { sizeBytes }, 'invalid', `after ${sizeBytes - 1} of`);
    await fails(someBytes(sizeBytes + 1), { sizeBytes }, 'invalid', `more than the ${sizeBytes}`);
    await fails(someBytes(sizeBytes), {}, 'invalid', `of ${4 * MIB} bytes`);
    await fails(someBytes(8 * MIB), {}, 'invalid', 'more than');
    await fails(someBytes(100), { sizeBytes: 5 * MIB }, 'invalid', 'make it larger');
  });

  it('has another format, unless the caller says raw', async () => {
    const bytes = someBytes(4 * MIB);
    bytes.set([0x51, 0x46, 0x49, 0xfb]);
    await fails(bytes, {}, 'unsupported', 'save it to a file');
    const target = new MemoryTarget({ sizeBytes: 4 * MIB });
    await importStream(new Pipe(bytes, [65_536]), target, { format: 'raw' });
    bytes.set([0x1f, 0x8b, 0x08, 0]);
    await fails(bytes, {}, 'unsupported', 'gzip');
  });

  it('breaks: its error, after what is under way', async () => {
    const chunks = (async function* (): AsyncGenerator<Uint8Array> {
      yield new Uint8Array(2 * MIB).fill(1);
      throw new Error('the line is dead');
    })();
    const target = new MemoryTarget({ sizeBytes: 4 * MIB });
    await assert.rejects(importStream({ name: 'pipe', chunks }, target), /the line is dead/);
  });

  it('gives nothing: a signal ends the wait', async () => {
    const never: AsyncIterable<Uint8Array> = {
      [Symbol.asyncIterator]: () => ({ next: () => new Promise(() => undefined) }),
    };
    const abort = new AbortController();
    const target = new MemoryTarget({ sizeBytes: MIB });
    const importing = importStream({ name: 'pipe', chunks: never }, target, {
      signal: abort.signal,
    });
    const failed = assert.rejects(importing, /enough/);
    await new Promise((resolve) => setImmediate(resolve));
    abort.abort(new Error('enough'));
    await failed;
    const { signal } = abort;
    await assert.rejects(
      importStream({ name: 'pipe', chunks: never }, target, { signal }),
      /enough/,
    );
  });
});
