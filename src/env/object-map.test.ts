import assert from 'node:assert/strict';
import { test } from 'node:test';
import { isStoreError } from '../base/store-error.js';
import { compareKeys, ObjectMap } from './object-map.js';

test('compareKeys: as the UTF-8 bytes, for every pair', () => {
  const characters = ['', '\0', ' ', 'a', 'b', '\u007f', '\u0080', 'é', '\ud7ff', '\ue000'];
  characters.push('\uffff', '\u{10000}', '\u{10ffff}', '\u{1f600}');
  const keys = characters.flatMap((first) => characters.map((second) => first + second));
  for (const a of keys) {
    for (const b of keys) {
      const expected = Math.sign(Buffer.compare(Buffer.from(a), Buffer.from(b)));
      assert.equal(Math.sign(compareKeys(a, b)), expected, JSON.stringify([a, b]));
    }
  }
});

test('clone: independent, also under rot', () => {
  const objects = new ObjectMap();
  objects.create('a', new Uint8Array([1]));
  objects.list('');
  const clone = objects.clone();
  clone.create('b', new Uint8Array([2]));
  clone.flipBit('a', 0, 7);
  objects.delete('a');
  objects.create('c', new Uint8Array([3]));
  assert.deepEqual(objects.list(''), ['c']);
  assert.deepEqual(clone.list(''), ['a', 'b']);
  assert.deepEqual([...(clone.get('a') ?? [])], [0x81]);
  assert.equal(clone.count, 2);
});

test('flipBit: only where a byte is', () => {
  const objects = new ObjectMap();
  objects.create('a', new Uint8Array([1]));
  for (const [key, offset] of [['a', 1] as const, ['b', 0] as const]) {
    assert.throws(
      () => objects.flipBit(key, offset, 0),
      (error) => isStoreError(error, 'not-found'),
    );
  }
});
