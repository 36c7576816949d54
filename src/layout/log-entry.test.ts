import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { eachBitFlip } from '../../test/support/bit-flips.js';
import { FBN_END, logEntries, PLAIN_TREE, PLAIN_VDISK } from '../../test/support/layout-values.js';
import { viewOf } from './bytes.js';
import {
  decodeLogEntries,
  encodeLogEntry,
  type LogEntry,
  logEntryBytes,
  POINTERS_COUNT_MAX,
} from './log-entry.js';

const ONE_OF_EACH: readonly LogEntry[] = [
  { kind: 'data', treeId: 3, fbn: 7, crc: 0x1234_5678, payloadIndex: 2 },
  { kind: 'pointers', treeId: 3, fbn: 8, vbn: 5000, crcs: Uint32Array.of(1, 2, 3) },
  { kind: 'range', treeId: 3, fbn: 100, blocks: 50, to: 'zero' },
  { kind: 'range', treeId: 3, fbn: 200, blocks: 50, to: 'hole' },
  { kind: 'tree', record: PLAIN_TREE },
  { kind: 'vdisk', record: PLAIN_VDISK },
];

/** The entries from byte 8 on, over old bytes that must not shine through. */
function encoded(entries: readonly LogEntry[]): Uint8Array {
  let bytes = 0;
  for (const entry of entries) bytes += logEntryBytes(entry);
  const into = new Uint8Array(8 + bytes).fill(0xee);
  let at = 8;
  for (const entry of entries) {
    const end = encodeLogEntry(entry, into, at);
    assert.equal(end, at + logEntryBytes(entry));
    assert.equal(end % 8, 0);
    at = end;
  }
  assert.equal(at, into.length);
  return into;
}

function decoded(bytes: Uint8Array, count: number): LogEntry[] | undefined {
  return decodeLogEntries(bytes, 8, bytes.length, count);
}

/** One entry after its image was changed. */
function forged(entry: LogEntry, change: (view: DataView) => void): LogEntry[] | undefined {
  const bytes = encoded([entry]);
  change(viewOf(bytes.subarray(8)));
  return decoded(bytes, 1);
}

test('all entries come back in order', () => {
  fc.assert(
    fc.property(fc.array(logEntries(1000), { maxLength: 20 }), (entries) => {
      assert.deepEqual(decoded(encoded(entries), entries.length), entries);
    }),
  );
});

test('the longest pointers entry comes back; one more is a bug', () => {
  const crcs = Uint32Array.from({ length: POINTERS_COUNT_MAX }, (_, index) => index);
  const entry: LogEntry = { kind: 'pointers', treeId: 1, fbn: 0, vbn: 2, crcs };
  assert.deepEqual(decoded(encoded([entry]), 1), [entry]);
  const longer = new Uint32Array(POINTERS_COUNT_MAX + 1);
  assert.throws(() => encoded([{ ...entry, crcs: longer }]), { name: 'InvariantError' });
});

test('every truncation and every wrong count is refused', () => {
  const bytes = encoded(ONE_OF_EACH);
  for (let end = 8; end < bytes.length; end++) {
    assert.equal(decodeLogEntries(bytes, 8, end, ONE_OF_EACH.length), undefined, `${end} bytes`);
  }
  for (const count of [0, 1, 5, 7, 1000, 2 ** 32 - 1])
    assert.equal(decoded(bytes, count), undefined);
});

test('every kind and every length of an entry: the right one or refused', () => {
  // Enough bytes behind the entry, so that no length is refused for want of them.
  const bytes = new Uint8Array(65536 + 8);
  for (const [index, entry] of ONE_OF_EACH.entries()) {
    const own = logEntryBytes(entry);
    encodeLogEntry(entry, bytes.fill(0), 8);
    for (let length = 0; length < 65536; length++) {
      viewOf(bytes).setUint16(10, length, true);
      const outcome = decodeLogEntries(bytes, 8, 8 + length, 1);
      assert.equal(outcome !== undefined, length === own, `entry ${index} of ${length} bytes`);
    }
    for (const kind of [0, 6, 255, 256, 65535]) {
      const outcome = forged(entry, (view) => view.setUint16(0, kind, true));
      assert.equal(outcome, undefined, `kind ${kind}`);
    }
  }
});

test('every count of a pointers entry but the right one is refused, or fits the same bytes', () => {
  const entry = ONE_OF_EACH[1] as LogEntry;
  for (let count = 0; count < 2 ** 32; count = count * 2 + 1) {
    const outcome = forged(entry, (view) => view.setUint32(4, count, true));
    // Three checksums are padded to the bytes of four: a checksum above has to see that.
    assert.equal(outcome !== undefined, count === 3 || count === 4, `${count} pointers`);
  }
});

test('numbers of 2^53 or more, and FBNs and VBNs beyond the end, are refused', () => {
  for (const entry of ONE_OF_EACH.slice(0, 4)) {
    const offsets = entry.kind === 'data' ? [8, 16] : [8, 16, 24];
    for (const offset of offsets) {
      for (const value of [2n ** 53n, 2n ** 64n - 1n]) {
        const outcome = forged(entry, (view) => view.setBigUint64(offset, value, true));
        assert.equal(outcome, undefined, `${entry.kind}: ${value} at ${offset}`);
      }
    }
    const size = entry.kind === 'data' ? 1 : entry.kind === 'range' ? 50 : 3;
    const at = (fbn: number): LogEntry[] | undefined =>
      forged(entry, (view) => view.setBigUint64(16, BigInt(fbn), true));
    assert.notEqual(at(FBN_END - size), undefined);
    assert.equal(at(FBN_END - size + 1), undefined);
  }
  const vbn = forged(ONE_OF_EACH[1] as LogEntry, (view) => {
    view.setBigUint64(24, 2n ** 53n - 3n, true);
  });
  assert.equal(vbn, undefined);
});

test('what a range becomes is zero or hole, nothing else', () => {
  const range = ONE_OF_EACH[2] as LogEntry;
  for (const to of [0, 3, 2 ** 32 - 1]) {
    assert.equal(
      forged(range, (view) => view.setUint32(4, to, true)),
      undefined,
    );
  }
});

test('a damaged or free record inside an entry is refused', () => {
  for (const entry of ONE_OF_EACH.slice(4)) {
    assert.equal(
      forged(entry, (view) => view.setBigUint64(8, 0n, true)),
      undefined,
      'free',
    );
    assert.equal(
      forged(entry, (view) => view.setUint8(16, 9)),
      undefined,
      'damaged',
    );
  }
});

test('no flipped bit makes the decoder throw', () => {
  const bytes = encoded(ONE_OF_EACH);
  eachBitFlip(bytes, 8, bytes.length, (flipped) => decoded(flipped, ONE_OF_EACH.length));
});

test('what a decoder would refuse is never written', () => {
  const wrong: readonly LogEntry[] = [
    { kind: 'data', treeId: 1, fbn: FBN_END, crc: 0, payloadIndex: 0 },
    { kind: 'range', treeId: 1, fbn: 1, blocks: FBN_END, to: 'hole' },
    { kind: 'pointers', treeId: 1, fbn: FBN_END, vbn: 2, crcs: Uint32Array.of(1) },
  ];
  for (const entry of wrong) assert.throws(() => encoded([entry]), { name: 'InvariantError' });
});
