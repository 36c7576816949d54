import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BLOCK_BYTES, SEGMENT_BLOCKS } from '../../../base/units.js';
import type { LogEntry } from '../../../layout/log-entry.js';
import { GROUP_BLOCKS_MAX, groupHeaderBlocks } from '../../../layout/log-group.js';
import type { LogBatch } from '../../medium.js';
import { withContent } from './log-content.js';

/** Records from this one on are not acknowledged. */
const FIRST_OPEN = 10;

function contentOf(vbn: number): Uint8Array {
  const bytes = new Uint8Array(BLOCK_BYTES);
  new DataView(bytes.buffer).setFloat64(0, vbn);
  return bytes;
}

const blockOf = (vbn: number): Uint8Array | undefined =>
  vbn < FIRST_OPEN * SEGMENT_BLOCKS ? undefined : contentOf(vbn);

function pointers(record: number, fbn: number, count: number): LogEntry {
  const crcs = Uint32Array.from({ length: count }, (_, index) => fbn + index);
  return { kind: 'pointers', treeId: 4, fbn, vbn: record * SEGMENT_BLOCKS, crcs };
}

/** What replay makes of the batches: the block of each FBN, and other entries in their order. */
function replayed(batches: readonly LogBatch[]): string[] {
  return batches.flatMap(({ units, payload }) =>
    units.flat().flatMap((entry) => {
      if (entry.kind === 'pointers') {
        return [...entry.crcs].map((crc, at) => `${entry.fbn + at} ${crc} vbn ${entry.vbn + at}`);
      }
      if (entry.kind !== 'data') return [`${entry.kind}`];
      const block = payload[entry.payloadIndex] as Uint8Array;
      const vbn = new DataView(block.buffer, block.byteOffset).getFloat64(0);
      return [`${entry.fbn} ${entry.crc} vbn ${vbn}`];
    }),
  );
}

test('what is acknowledged stays as it is', () => {
  const batch = { cpNumber: 3, units: [[pointers(9, 5, 20)]], payload: [] };
  assert.deepEqual(withContent([batch], blockOf), [batch]);
});

test('blocks that only memory has go in by content, behind acts, in groups that fit a ring', () => {
  const cut: LogEntry = { kind: 'range', treeId: 4, fbn: 1, blocks: 2, to: 'zero' };
  const own: LogEntry = { kind: 'data', treeId: 4, fbn: 7, crc: 7, payloadIndex: 0 };
  const batch: LogBatch = {
    cpNumber: 3,
    units: [
      [cut, cut],
      [pointers(12, 100, 900)],
      [pointers(3, 50, 2)],
      [pointers(13, 2000, 800)],
      [own],
    ],
    payload: [contentOf(70)],
  };
  const groups = withContent([batch], blockOf);
  const wanted = [
    'range',
    'range',
    ...Array.from({ length: 900 }, (_, at) => `${100 + at} ${100 + at} vbn ${12 * 1024 + at}`),
    `50 50 vbn ${3 * 1024}`,
    `51 51 vbn ${3 * 1024 + 1}`,
    ...Array.from({ length: 800 }, (_, at) => `${2000 + at} ${2000 + at} vbn ${13 * 1024 + at}`),
    '7 7 vbn 70',
  ];
  assert.deepEqual(replayed(groups), wanted);
  assert.equal(groups.length, 2);
  assert.deepEqual(groups[0]?.units[0], [cut, cut], 'a unit stays whole');
  for (const { cpNumber, units, payload } of groups) {
    assert.equal(cpNumber, 3);
    assert.ok(groupHeaderBlocks(units.flat()) + payload.length <= GROUP_BLOCKS_MAX);
  }
});

test("a block is kept as it was, whatever its record's memory is used for next", () => {
  const memory = contentOf(12 * SEGMENT_BLOCKS);
  const batch = { cpNumber: 3, units: [[pointers(12, 100, 1)]], payload: [] };
  const groups = withContent([batch], () => memory);
  memory.fill(0xee);
  assert.deepEqual(groups[0]?.payload, [contentOf(12 * SEGMENT_BLOCKS)]);
});
