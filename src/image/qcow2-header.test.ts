/** Headers made by hand: each field, at each value that it must not have. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { MemoryFile } from '../../test/support/memory-file.js';
import { type BuiltQcow2, buildQcow2, type Qcow2Plan } from '../../test/support/qcow2-builder.js';
import { isStoreError, type StoreErrorKind } from '../base/store-error.js';
import { type Qcow2Header, readQcow2Header } from './qcow2-header.js';

const PLAN: Qcow2Plan = { version: 3, clusterBits: 12, clusters: ['data', 'hole', 'zero', 'data'] };
const BACKING = { name: 'base.img', format: 'raw' };

function read(bytes: Uint8Array): Promise<Qcow2Header> {
  return readQcow2Header(new MemoryFile('disk.qcow2', bytes));
}

/** The image with one field changed; `set` is given a view of the whole file. */
function changed(set: (view: DataView, built: BuiltQcow2) => void, plan = PLAN): Uint8Array {
  const built = buildQcow2(plan);
  set(new DataView(built.bytes.buffer), built);
  return built.bytes;
}

function setCompression(view: DataView, type: number): void {
  view.setBigUint64(72, 8n);
  view.setUint8(104, type);
}

async function isRefused(
  bytes: Uint8Array,
  kind: StoreErrorKind,
  ...mentions: string[]
): Promise<void> {
  await assert.rejects(read(bytes), (error) => {
    assert.ok(isStoreError(error, kind), String(error));
    for (const mention of ['disk.qcow2: byte ', ...mentions]) {
      assert.ok(error.message.includes(mention), error.message);
    }
    return true;
  });
}

describe('a sound header', () => {
  it('of version 3', async () => {
    const built = buildQcow2({ ...PLAN, cutBytes: 512, backing: BACKING });
    assert.deepEqual(await read(built.bytes), {
      version: 3,
      clusterBytes: 4096,
      sizeBytes: 4 * 4096 - 512,
      l1Offset: built.l1Offset,
      l1Count: 1,
      extendedL2: false,
      backing: BACKING,
      notes: [],
    });
  });

  it('of version 2: 72 bytes, extensions and all', async () => {
    const header = await read(buildQcow2({ ...PLAN, version: 2, backing: BACKING }).bytes);
    assert.equal(header.version, 2);
    assert.deepEqual(header.backing, BACKING);
    // What version 3 keeps there is anything in version 2.
    await read(changed((view) => view.setBigUint64(96, 2n ** 63n), { ...PLAN, version: 2 }));
  });

  it('of 104 bytes, without the field of the compression type', async () => {
    const header = await read(changed((view) => view.setUint32(100, 104)));
    assert.equal(header.version, 3);
  });

  it('with notes: dirty, snapshots', async () => {
    const dirty = await read(changed((view) => view.setBigUint64(72, 1n)));
    assert.match(dirty.notes.join(), /not closed in order/);
    const snapshots = await read(changed((view) => view.setUint32(60, 3)));
    assert.match(snapshots.notes.join(), /3 internal snapshots/);
  });

  it('with features that a reader may skip', async () => {
    for (const at of [80, 88]) await read(changed((view) => view.setBigUint64(at, 2n ** 64n - 1n)));
  });

  it('with a table of more entries than the disk needs', async () => {
    const header = await read(changed((view) => view.setUint32(36, 17)));
    assert.equal(header.l1Count, 1);
  });
});

describe('what is not read, and why', () => {
  const cases: readonly (readonly [string, (view: DataView) => void, string])[] = [
    ['version 1', (view) => view.setUint32(4, 1), 'version 1'],
    ['version 4', (view) => view.setUint32(4, 4), 'version 4'],
    ['clusters of 4 MiB', (view) => view.setUint32(20, 22), 'cluster_bits is 22'],
    ['AES', (view) => view.setUint32(32, 1), 'AES'],
    ['LUKS', (view) => view.setUint32(32, 2), 'LUKS'],
    ['another encryption', (view) => view.setUint32(32, 9), 'method 9'],
    ['an external data file', (view) => view.setBigUint64(72, 4n), 'external data file'],
    ['a disk beyond 1 PiB', (view) => view.setBigUint64(24, 2n ** 50n + 512n), '1 PiB'],
    ['half a sector', (view) => view.setBigUint64(24, 513n), 'multiple of 512'],
    ['zstd', (view) => setCompression(view, 1), 'zstd'],
    ['compression 2', (view) => setCompression(view, 2), 'type 2'],
  ];
  for (const [name, set, mention] of cases) {
    it(name, () => isRefused(changed(set), 'unsupported', mention));
  }

  it('every feature that is not known', async () => {
    for (let bit = 5n; bit < 64n; bit++) {
      const bytes = changed((view) => view.setBigUint64(72, 1n << bit));
      await isRefused(bytes, 'unsupported', `feature ${bit} `);
    }
  });

  it('an unknown feature by its name, without what a terminal would obey', async () => {
    const bytes = changed((view) => {
      view.setBigUint64(72, 1n << 40n);
      view.setUint32(112, 0x6803f857);
      view.setUint32(116, 96);
      for (const [at, text] of [
        [120, '\x00\x28\x1b[2Jquantum'],
        [168, '\x01\x28compatible'],
      ] as const) {
        for (let index = 0; index < text.length; index++) {
          view.setUint8(at + index, text.charCodeAt(index));
        }
      }
    });
    await isRefused(bytes, 'unsupported', 'feature 40 ("[2Jquantum")');
  });
});

describe('what cannot be', () => {
  const cases: readonly (readonly [string, (view: DataView, built: BuiltQcow2) => void, string])[] =
    [
      ['another beginning', (view) => view.setUint8(0, 0x52), 'begin'],
      ['clusters of 256 bytes', (view) => view.setUint32(20, 8), 'cluster_bits is 8'],
      ['a short header', (view) => view.setUint32(100, 96), 'header_length is 96'],
      ['an odd header', (view) => view.setUint32(100, 108), 'header_length is 108'],
      ['a header beyond its cluster', (view) => view.setUint32(100, 4104), 'header_length'],
      ['the corrupt bit', (view) => view.setBigUint64(72, 2n), 'marked as corrupt'],
      ['a type without its bit', (view) => view.setUint8(104, 1), 'not set'],
      ['a bit without its type', (view) => view.setBigUint64(72, 8n), 'is set'],
      ['subclusters of 128 bytes', (view) => view.setBigUint64(72, 16n), 'too small'],
      ['counts in the middle', (view) => view.setBigUint64(48, 4097n), 'refcount_table_offset'],
      [
        'counts beyond the file',
        (view) => view.setBigUint64(48, 2n ** 40n),
        'refcount_table_offset',
      ],
      ['counts of 128 bits', (view) => view.setUint32(96, 7), 'refcount_order'],
      ['a disk beyond 2^53', (view) => view.setBigUint64(24, 2n ** 60n), 'beyond 2^53'],
      ['an enormous L1 table', (view) => view.setUint32(36, 0xffffffff), 'l1_size'],
      ['a small L1 table', (view) => view.setUint32(36, 0), 'needs 1'],
      ['an L1 table in the header', (view) => view.setBigUint64(40, 0n), 'l1_table_offset is 0'],
      ['an L1 table in the middle', (view) => view.setBigUint64(40, 4104n), 'l1_table_offset'],
      ['an L1 table beyond the file', (view) => view.setBigUint64(40, 2n ** 30n), 'cut off'],
      ['an L1 table beyond 2^53', (view) => view.setBigUint64(40, 2n ** 63n), 'beyond 2^53'],
      [
        'an L1 table that ends beyond the file',
        (view, { bytes }) => {
          view.setBigUint64(40, BigInt(bytes.length - 4096));
          view.setUint32(36, 513);
        },
        'cut off',
      ],
      ['a name beyond the cluster', (view) => view.setBigUint64(8, 4090n), 'first cluster'],
      ['a name of 1024 bytes', (view) => view.setUint32(16, 1024), 'at most 1023'],
      ['an extension beyond the header', (view) => view.setUint32(116, 5000), 'header extension'],
      ['a name with a zero byte', (view) => view.setUint8(140, 0), 'control characters'],
    ];
  for (const [name, set, mention] of cases) {
    it(name, () => isRefused(changed(set, { ...PLAN, backing: BACKING }), 'corrupt', mention));
  }

  it('a name that is not UTF-8', async () => {
    const bytes = changed((view) => view.setUint8(140, 0xff), { ...PLAN, backing: BACKING });
    await isRefused(bytes, 'unsupported', 'UTF-8');
  });

  it('a file that ends anywhere within the header', async () => {
    const { bytes } = buildQcow2(PLAN);
    for (let length = 0; length < 112; length++) {
      await isRefused(bytes.slice(0, length), 'corrupt');
    }
  });

  it('a size of the disk for which the largest L1 table is too small', async () => {
    // 512-byte clusters: 32 KiB of the disk for each entry.
    const plan = { ...PLAN, clusterBits: 9 };
    const bytes = changed((view) => view.setBigUint64(24, 2n ** 50n), plan);
    await isRefused(bytes, 'corrupt', 'l1_size');
  });
});
