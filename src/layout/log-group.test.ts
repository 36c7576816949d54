import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { eachBitFlip, eachPrefix } from '../../test/support/bit-flips.js';
import {
  groupHeads,
  logEntries,
  PLAIN_GROUP,
  PLAIN_TREE,
  UUID,
} from '../../test/support/layout-values.js';
import { crc32 } from '../base/checksum.js';
import { BLOCK_BYTES } from '../base/units.js';
import { viewOf } from './bytes.js';
import type { LogEntry } from './log-entry.js';
import {
  decodeGroupHeader,
  encodeGroupHeader,
  GROUP_BLOCKS_MAX,
  GROUP_HEADER_BYTES,
  groupHeaderBlocks,
  type LogGroup,
  peekGroupHeaderBytes,
  repairGroupHeader,
} from './log-group.js';

const ENTRIES: readonly LogEntry[] = [
  { kind: 'data', treeId: 3, fbn: 7, crc: 0x1234_5678, payloadIndex: 0 },
  { kind: 'data', treeId: 3, fbn: 9, crc: 0x1234_5679, payloadIndex: 1 },
  { kind: 'range', treeId: 3, fbn: 100, blocks: 50, to: 'zero' },
  { kind: 'tree', record: PLAIN_TREE },
];
const HEAD = { ...PLAIN_GROUP, sequence: 12, epoch: 2, cpNumber: 4, syncedThrough: 11 };
const HEADER_BYTES = GROUP_HEADER_BYTES + 3 * 32 + 264;

/** A sound header after a change, with a checksum that fits again. */
function forged(change: (view: DataView) => void): LogGroup | undefined {
  const bytes = encodeGroupHeader(HEAD, ENTRIES, 2);
  change(viewOf(bytes));
  const headerBytes = Math.min(viewOf(bytes).getUint32(56, true), bytes.length);
  viewOf(bytes).setUint32(4, crc32(bytes.subarray(8, headerBytes)), true);
  return decodeGroupHeader(bytes, UUID);
}

test('every group comes back', () => {
  fc.assert(
    fc.property(groupHeads, fc.array(logEntries(7), { maxLength: 40 }), (head, entries) => {
      const bytes = encodeGroupHeader(head, entries, 7);
      const headerBlocks = groupHeaderBlocks(entries);
      assert.equal(bytes.length, headerBlocks * BLOCK_BYTES);
      const { uuid, ...numbers } = head;
      const group = { ...numbers, headerBlocks, payloadBlocks: 7, entries };
      assert.deepEqual(decodeGroupHeader(bytes, uuid), group);
      const first = bytes.subarray(0, BLOCK_BYTES);
      assert.equal(Math.ceil((peekGroupHeaderBytes(first) ?? 0) / BLOCK_BYTES), headerBlocks);
    }),
  );
});

test('every single flipped bit of the header is seen, and padding does not matter', () => {
  const bytes = encodeGroupHeader(HEAD, ENTRIES, 2);
  const sound = decodeGroupHeader(bytes, UUID);
  eachBitFlip(bytes, 0, HEADER_BYTES, (flipped, position) => {
    assert.equal(decodeGroupHeader(flipped, UUID), undefined, position);
  });
  eachBitFlip(bytes, HEADER_BYTES, bytes.length, (flipped) => {
    assert.deepEqual(decodeGroupHeader(flipped, UUID), sound);
  });
});

test('a header of several blocks: every flipped bit is seen, and every torn sector', () => {
  const crcs = Uint32Array.from({ length: 1024 }, (_, index) => index + 1);
  const entries: LogEntry[] = [0, 1, 2].map((index) => {
    return { kind: 'pointers', treeId: 1, fbn: index * 1024, vbn: 9000, crcs };
  });
  const bytes = encodeGroupHeader(HEAD, entries, 0);
  const headerBytes = peekGroupHeaderBytes(bytes) ?? 0;
  eachBitFlip(bytes, 0, headerBytes, (flipped, position) => {
    assert.equal(decodeGroupHeader(flipped, UUID), undefined, position);
  });
  for (let sector = 0; sector * 512 < headerBytes; sector++) {
    const torn = bytes.slice().fill(0, sector * 512, sector * 512 + 512);
    assert.equal(decodeGroupHeader(torn, UUID), undefined, `sector ${sector}`);
  }
});

test('every truncation below the header’s bytes is refused', () => {
  eachPrefix(encodeGroupHeader(HEAD, ENTRIES, 2), (prefix) => {
    const group = decodeGroupHeader(prefix, UUID);
    assert.equal(group === undefined, prefix.length < HEADER_BYTES, `${prefix.length} bytes`);
  });
});

test('a group of another store is refused', () => {
  const bytes = encodeGroupHeader(HEAD, ENTRIES, 2);
  eachBitFlip(UUID.slice(), 0, 16, (other) => {
    assert.equal(decodeGroupHeader(bytes, other), undefined);
  });
});

test('lengths and counts that cannot be are refused before anything is kept', () => {
  for (const headerBytes of [
    0,
    95,
    97,
    HEADER_BYTES - 8,
    HEADER_BYTES + 8,
    4096,
    4097,
    2 ** 32 - 1,
  ]) {
    assert.equal(
      forged((view) => view.setUint32(56, headerBytes, true)),
      undefined,
    );
  }
  for (const payload of [0, 1, GROUP_BLOCKS_MAX, 2 ** 32 - 1]) {
    assert.equal(
      forged((view) => view.setUint32(60, payload, true)),
      undefined,
      `${payload} blocks`,
    );
  }
  assert.notEqual(
    forged((view) => view.setUint32(60, GROUP_BLOCKS_MAX - 1, true)),
    undefined,
  );
  for (const entries of [0, 3, 5, 2 ** 32 - 1]) {
    assert.equal(
      forged((view) => view.setUint32(64, entries, true)),
      undefined,
    );
  }
});

test('a peek gives no length that a group cannot have', () => {
  const bytes = encodeGroupHeader(HEAD, ENTRIES, 2);
  const most = GROUP_BLOCKS_MAX * BLOCK_BYTES;
  for (const length of [0, 95, 96, most, most + 1, 2 ** 32 - 1]) {
    viewOf(bytes).setUint32(56, length, true);
    const isLength = length >= 96 && length <= most;
    assert.equal(peekGroupHeaderBytes(bytes), isLength ? length : undefined);
  }
  assert.equal(peekGroupHeaderBytes(new Uint8Array(BLOCK_BYTES)), undefined);
});

test('a number of 2^53 or more is refused in every field', () => {
  for (const offset of [24, 32, 40, 48]) {
    for (const value of [2n ** 53n, 2n ** 64n - 1n]) {
      const change = (view: DataView): void => view.setBigUint64(offset, value, true);
      assert.equal(forged(change), undefined, `${value} at ${offset}`);
    }
  }
});

test('a group cannot say that later ones are durable', () => {
  assert.equal(
    forged((view) => view.setBigUint64(48, 13n, true)),
    undefined,
  );
});

test('what a decoder would refuse is never written', () => {
  const encode = (change: object, payloadBlocks: number): Uint8Array =>
    encodeGroupHeader({ ...HEAD, ...change }, ENTRIES, payloadBlocks);
  const bug = { name: 'InvariantError' };
  assert.throws(() => encode({}, 1), bug, 'an entry without its payload');
  assert.throws(() => encode({}, GROUP_BLOCKS_MAX), bug, 'too large');
  assert.throws(() => encode({ syncedThrough: 13 }, 2), bug);
  assert.throws(() => encode({ sequence: 2 ** 53 }, 2), bug);
});

const decode = (bytes: Uint8Array): LogGroup | undefined => decodeGroupHeader(bytes, UUID);

test('every single wrong bit of a header is mended, in the bytes too', () => {
  const bytes = encodeGroupHeader(HEAD, ENTRIES, 2);
  const sound = decode(bytes);
  const covered = bytes.slice(0, HEADER_BYTES);
  eachBitFlip(bytes, 0, HEADER_BYTES, (flipped, position) => {
    const mended = flipped.slice();
    assert.deepEqual(repairGroupHeader(mended, decode), sound, position);
    assert.deepEqual(mended.subarray(0, HEADER_BYTES), covered, position);
  });
});

test('two wrong bits are never mended into another header', () => {
  const bytes = encodeGroupHeader(HEAD, ENTRIES, 2);
  const bit = fc.nat(HEADER_BYTES * 8 - 1);
  fc.assert(
    fc.property(fc.uniqueArray(bit, { minLength: 2, maxLength: 2 }), (bits) => {
      const damaged = bytes.slice();
      for (const at of bits) damaged[at >>> 3] = (damaged[at >>> 3] ?? 0) ^ (1 << (at & 7));
      assert.equal(repairGroupHeader(damaged, decode), undefined);
    }),
    { numRuns: 1000 },
  );
});

test('what is no header stays none: zeros, data, every torn sector, another store', () => {
  assert.equal(repairGroupHeader(new Uint8Array(BLOCK_BYTES), decode), undefined);
  assert.equal(repairGroupHeader(new Uint8Array(BLOCK_BYTES).fill(0x4b), decode), undefined);
  const crcs = Uint32Array.from({ length: 1000 }, (_, index) => index + 1);
  const entry: LogEntry = { kind: 'pointers', treeId: 1, fbn: 0, vbn: 9000, crcs };
  const bytes = encodeGroupHeader(HEAD, [entry], 0);
  for (let sector = 0; sector < 8; sector++) {
    const torn = bytes.slice().fill(0, sector * 512, sector * 512 + 512);
    assert.equal(repairGroupHeader(torn, decode), undefined, `sector ${sector}`);
  }
  const other = encodeGroupHeader({ ...HEAD, uuid: new Uint8Array(16) }, ENTRIES, 2);
  assert.equal(repairGroupHeader(other, decode), undefined);
});
