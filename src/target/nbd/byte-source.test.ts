import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ByteSource } from './byte-source.js';

const STREAM = Uint8Array.from({ length: 48 }, (_, index) => index + 1);

/** Takes the stream as items of these lengths; each as bytes, however it comes. */
function parse(source: ByteSource, lengths: readonly number[], parsed: number[][]): void {
  while (parsed.length < lengths.length) {
    const length = lengths[parsed.length] ?? 0;
    if (!source.locate(length)) return;
    parsed.push([...source.bytes.subarray(source.at, source.at + length)]);
    source.skip(length);
  }
}

describe('a byte source', () => {
  it('gives the same items for every pair of cuts, settled between chunks or not', () => {
    const lengths = [4, 16, 28];
    const whole: number[][] = [];
    const uncut = new ByteSource();
    uncut.push(STREAM);
    parse(uncut, lengths, whole);
    assert.deepEqual(whole.flat(), [...STREAM]);
    for (let first = 0; first <= STREAM.length; first++) {
      for (let second = first; second <= STREAM.length; second++) {
        for (const isSettled of [true, false]) {
          const source = new ByteSource();
          const parsed: number[][] = [];
          const chunks = [
            STREAM.slice(0, first),
            STREAM.slice(first, second),
            STREAM.slice(second),
          ];
          for (const chunk of chunks) {
            source.push(chunk);
            if (!isSettled) continue;
            parse(source, lengths, parsed);
            source.settle();
          }
          parse(source, lengths, parsed);
          assert.deepEqual(parsed, whole, `cut at ${first} and ${second}`);
          assert.equal(source.availableBytes, 0);
        }
      }
    }
  });

  it('copies and skips across chunks, and tells how much', () => {
    for (let cut = 0; cut <= STREAM.length; cut++) {
      const source = new ByteSource();
      source.push(STREAM.slice(0, cut));
      source.push(STREAM.slice(cut));
      const into = new Uint8Array(30);
      assert.equal(source.copy(into, 5, 20), 20);
      assert.deepEqual(into.subarray(5, 25), STREAM.subarray(0, 20));
      assert.equal(source.skip(20), 20);
      assert.equal(source.availableBytes, 8);
      assert.equal(source.copy(into, 0, 30), 8);
      assert.equal(source.skip(1), 0);
    }
  });

  it('gives a view of the chunk itself, or nothing if the bytes are cut', () => {
    const source = new ByteSource();
    source.push(STREAM);
    assert.equal(source.takeView(10)?.buffer, STREAM.buffer);
    assert.equal(source.takeView(39), undefined);
    assert.equal(source.availableBytes, 38);
    source.push(STREAM);
    assert.equal(source.takeView(39), undefined, 'the bytes are there, in two chunks');
    assert.deepEqual(source.takeView(38), STREAM.subarray(10));
  });

  it('keeps of a chunk only the item that was cut', () => {
    const source = new ByteSource();
    const chunk = Buffer.alloc(64 * 1024, 7);
    source.push(chunk);
    source.skip(chunk.length - 10);
    source.settle();
    assert.equal(source.availableBytes, 10);
    assert.equal(source.bytes.buffer.byteLength, 10);
    chunk.fill(0);
    assert.ok(source.locate(10));
    assert.deepEqual([...source.bytes], new Array(10).fill(7));
  });
});
