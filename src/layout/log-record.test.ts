import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { eachBitFlip } from '../../test/support/bit-flips.js';
import {
  blockTags,
  logEntries,
  PLAIN_RECORD,
  PLAIN_VDISK,
  recordHeads,
  UUID,
} from '../../test/support/layout-values.js';
import { crc32 } from '../base/checksum.js';
import { BLOCK_BYTES, SEGMENT_BYTES } from '../base/units.js';
import { viewOf } from './bytes.js';
import { type LogEntry, logEntryBytes } from './log-entry.js';
import {
  type BlockTag,
  decodeRecord,
  encodeRecordTrailer,
  type LogRecord,
  RECORD_BLOCKS_MAX,
  RECORD_ENTRY_BYTES_MAX,
} from './log-record.js';

const HEAD = { ...PLAIN_RECORD, lineage: 1, epoch: 2, number: 3, cpNumber: 4 };
const TAGS: readonly BlockTag[] = [
  { treeId: 5, fbn: 6, level: 0, crc: 7, kind: 'data' },
  { treeId: 5, fbn: 0, level: 1, crc: 8, kind: 'meta' },
];
const ENTRIES: readonly LogEntry[] = [
  { kind: 'pointers', treeId: 5, fbn: 6, vbn: 3072, crcs: Uint32Array.of(7) },
  { kind: 'vdisk', record: PLAIN_VDISK },
];
/** Head, two tags, a pointers entry and a vdisk entry. */
const TRAILER_BYTES = 80 + 2 * 24 + 40 + 520;

/** The object: as many blocks as there are tags, then the trailer. */
function objectOf(
  tags: readonly BlockTag[],
  entries: readonly LogEntry[],
  head = HEAD,
): Uint8Array {
  const trailer = encodeRecordTrailer(head, tags, entries);
  const object = new Uint8Array(tags.length * BLOCK_BYTES + trailer.length).fill(0x77);
  object.set(trailer, tags.length * BLOCK_BYTES);
  return object;
}

/** A sound object after a change of its trailer, with a checksum that fits again. */
function forged(change: (trailer: DataView, foot: DataView) => void): LogRecord | undefined {
  const object = objectOf(TAGS, ENTRIES);
  const trailer = object.subarray(2 * BLOCK_BYTES);
  const foot = viewOf(object.subarray(-16));
  change(viewOf(trailer), foot);
  const length = Math.min(foot.getUint32(4, true), trailer.length);
  foot.setUint32(8, crc32(trailer.subarray(0, length)), true);
  return decodeRecord(object, UUID);
}

test('every record comes back', () => {
  const some = fc.array(logEntries(0), { maxLength: 12 });
  fc.assert(
    fc.property(
      recordHeads,
      fc.array(blockTags, { maxLength: 50 }),
      some,
      (head, tags, entries) => {
        const object = objectOf(tags, entries, head);
        assert.deepEqual(decodeRecord(object, head.uuid), {
          ...head,
          blocks: tags.length,
          tags,
          entries,
        });
      },
    ),
  );
});

test('the largest record is one segment', () => {
  const tags = Array.from(
    { length: RECORD_BLOCKS_MAX },
    (_, fbn) => ({ ...TAGS[0], fbn }) as BlockTag,
  );
  const range: LogEntry = { kind: 'range', treeId: 1, fbn: 0, blocks: 1, to: 'hole' };
  const entries = new Array(RECORD_ENTRY_BYTES_MAX / logEntryBytes(range)).fill(
    range,
  ) as LogEntry[];
  const object = objectOf(tags, entries);
  assert.equal(object.length, SEGMENT_BYTES);
  assert.equal(decodeRecord(object, UUID)?.entries.length, entries.length);
  assert.throws(() => encodeRecordTrailer(HEAD, [...tags, ...tags], []), {
    name: 'InvariantError',
  });
});

test('every single flipped bit of the trailer is seen, and padding does not matter', () => {
  const object = objectOf(TAGS, ENTRIES);
  const start = 2 * BLOCK_BYTES;
  const foot = object.length - 16;
  const sound = decodeRecord(object, UUID);
  assert.notEqual(sound, undefined);
  const seen = (flipped: Uint8Array, position: string): void =>
    assert.equal(decodeRecord(flipped, UUID), undefined, position);
  eachBitFlip(object, start, start + TRAILER_BYTES, seen);
  eachBitFlip(object, foot, object.length, seen);
  eachBitFlip(object, start + TRAILER_BYTES, foot, (flipped) => {
    assert.deepEqual(decodeRecord(flipped, UUID), sound);
  });
  // The blocks have their checksums in the tags, for who reads them.
  eachBitFlip(object, 0, 8, (flipped) => assert.deepEqual(decodeRecord(flipped, UUID), sound));
});

test('every truncation is refused, and so is an object too long', () => {
  const object = objectOf(TAGS, ENTRIES);
  for (let length = 0; length < object.length; length++) {
    assert.equal(decodeRecord(object.subarray(0, length), UUID), undefined, `${length} bytes`);
    assert.equal(decodeRecord(object.subarray(-length), UUID) === undefined, length !== 0);
  }
  const longer = new Uint8Array(object.length + BLOCK_BYTES);
  longer.set(object);
  longer.set(object.subarray(-16), longer.length - 16);
  assert.equal(decodeRecord(longer, UUID), undefined);
});

test('a record of another store is refused', () => {
  const object = objectOf(TAGS, ENTRIES);
  eachBitFlip(UUID.slice(), 0, 16, (other) => assert.equal(decodeRecord(object, other), undefined));
});

test('lengths and counts that cannot be are refused before anything is kept', () => {
  const hostile = [0, 1, 3, 79, RECORD_BLOCKS_MAX, RECORD_BLOCKS_MAX + 1, 2 ** 31, 2 ** 32 - 1];
  for (const value of hostile) {
    const at = (change: (trailer: DataView, foot: DataView) => void): void =>
      assert.equal(forged(change), undefined, `${value}`);
    at((_, foot) => foot.setUint32(0, value, true));
    at((_, foot) => foot.setUint32(4, value, true));
    at((trailer) => trailer.setUint32(4, value, true));
    at((trailer, foot) => {
      trailer.setUint32(4, value, true);
      foot.setUint32(0, value, true);
    });
    at((trailer) => trailer.setUint32(72, value, true));
  }
});

test('every kind of a record, level and kind of a tag: known or refused', () => {
  for (let value = 0; value < 256; value++) {
    const kind = forged((trailer) => trailer.setUint32(0, value, true));
    assert.equal(kind !== undefined, value >= 1 && value <= 3);
    const level = forged((trailer) => trailer.setUint8(80 + 20, value));
    assert.equal(level !== undefined, value <= 5);
    const tagKind = forged((trailer) => trailer.setUint8(80 + 21, value));
    assert.equal(tagKind !== undefined, value === 1 || value === 2);
  }
});

test('a number of 2^53 or more is refused in every field', () => {
  for (const offset of [24, 32, 40, 48, 80, 88, 104, 112]) {
    for (const value of [2n ** 53n, 2n ** 64n - 1n]) {
      const record = forged((trailer) => trailer.setBigUint64(offset, value, true));
      assert.equal(record, undefined, `${value} at ${offset}`);
    }
  }
});
