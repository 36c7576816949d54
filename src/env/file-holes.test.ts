import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { open, rm, truncate } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { MIB, TIB } from '../base/units.js';
import type { ByteRange } from './file-holes.js';
import { openFileForReading } from './file-source.js';

const folder = mkdtempSync(join(tmpdir(), 'keiki-file-holes-'));
after(() => rm(folder, { recursive: true }));

const SIZE = 2 * TIB + 512;
const PLACES = [0, 3 * MIB, 70 * MIB, TIB, SIZE - 512];

async function sparseFile(name: string): Promise<string> {
  const path = join(folder, name);
  const file = await open(path, 'w');
  await file.truncate(SIZE);
  for (const place of PLACES) await file.write(new Uint8Array(512).fill(7), 0, 512, place);
  await file.close();
  return path;
}

async function rangesOf(path: string, offset: number, length: number): Promise<ByteRange[]> {
  const file = await openFileForReading(path);
  const ranges: ByteRange[] = [];
  for await (const range of file.dataRanges(offset, length)) ranges.push(range);
  await file.close();
  return ranges;
}

const total = (ranges: readonly ByteRange[]): number =>
  ranges.reduce((sum, { length }) => sum + length, 0);

test('every written place is in a range, and little else is', async () => {
  const path = await sparseFile('sparse');
  const ranges = await rangesOf(path, 0, SIZE);
  for (const place of PLACES) {
    const isFound = ranges.some(({ offset, length }) => {
      return offset <= place && place + 512 <= offset + length;
    });
    assert.ok(isFound, `byte ${place}`);
  }
  assert.ok(total(ranges) < MIB);
  for (const [index, { offset, length }] of ranges.entries()) {
    const next = ranges[index + 1];
    assert.ok(length > 0 && (next === undefined || offset + length <= next.offset));
  }
});

test('a part of the file: from there, and not beyond it', async () => {
  const path = await sparseFile('part');
  assert.deepEqual(await rangesOf(path, MIB, MIB), []);
  assert.deepEqual(await rangesOf(path, 3 * MIB + 100, 200), [
    { offset: 3 * MIB + 100, length: 200 },
  ]);
  assert.deepEqual(await rangesOf(path, 0, 0), []);
});

test('a file that is shorter now: what is missing counts as data, so that it is missed', async () => {
  const path = await sparseFile('cut');
  const file = await openFileForReading(path);
  await truncate(path, 10 * MIB);
  const ranges: ByteRange[] = [];
  for await (const range of file.dataRanges(0, SIZE)) ranges.push(range);
  const last = ranges.at(-1);
  assert.equal((last?.offset ?? 0) + (last?.length ?? 0), SIZE);
  await file.close();
});

test('nobody reads on: the process that looks ends', async () => {
  const file = await openFileForReading(await sparseFile('left'));
  for await (const range of file.dataRanges(0, SIZE)) {
    assert.equal(range.offset, 0);
    break;
  }
  await file.close();
});

test('without Perl all of it is data', async () => {
  const path = await sparseFile('no-perl');
  const before = process.env.PATH;
  process.env.PATH = folder;
  const ranges = await rangesOf(path, 5, SIZE - 5).finally(() => {
    process.env.PATH = before;
  });
  assert.deepEqual(ranges, [{ offset: 5, length: SIZE - 5 }]);
});

test('a file without holes is not asked', async () => {
  const path = join(folder, 'full');
  const file = await open(path, 'w');
  await file.write(new Uint8Array(MIB).fill(1));
  await file.sync();
  await file.close();
  assert.deepEqual(await rangesOf(path, 10, 100), [{ offset: 10, length: 100 }]);
});
