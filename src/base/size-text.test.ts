import assert from 'node:assert/strict';
import { test } from 'node:test';
import { parseSize } from './size-text.js';
import { formatBytes, GIB, KIB, MIB, PIB, TIB } from './units.js';

test('parseSize: what people write', () => {
  const cases: [string, number][] = [
    ['0', 0],
    ['512', 512],
    ['512b', 512],
    ['4k', 4 * KIB],
    ['4 KiB', 4 * KIB],
    ['20G', 20 * GIB],
    ['1.5T', 1.5 * TIB],
    ['64MiB', 64 * MIB],
    ['1P', PIB],
    [' 2g ', 2 * GIB],
  ];
  for (const [text, bytes] of cases) assert.equal(parseSize(text), bytes, text);
});

test('parseSize: what is no size, or not a clear one', () => {
  const texts = ['', 'G', '-1', '1e3', '1,5G', '4 KB', '20GB', '0.3', '9999999P', '1..5G', 'NaN'];
  for (const text of texts) assert.equal(parseSize(text), undefined, text);
});

test('parseSize reads what formatBytes writes', () => {
  for (const bytes of [0, 512, KIB, 1.5 * MIB, 3 * GIB, PIB]) {
    assert.equal(parseSize(formatBytes(bytes)), bytes);
  }
});
