/** Entries made by hand: where they lead, and where they must not. */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { deflateRawSync } from 'node:zlib';
import { MemoryFile } from '../../test/support/memory-file.js';
import {
  type BuiltQcow2,
  buildQcow2,
  clusterContent,
  MIXED_DATA,
  MIXED_ZEROS,
  type Qcow2Plan,
} from '../../test/support/qcow2-builder.js';
import { isStoreError } from '../base/store-error.js';
import { openImageFile } from './open-image.js';
import { readQcow2Header } from './qcow2-header.js';
import { loadL1 } from './qcow2-l1.js';
import { type Mapping, Qcow2Tables } from './qcow2-tables.js';
import { CacheTable, SharedCache } from './shared-cache.js';

const ONCE = 1n << 63n;

async function mapping(bytes: Uint8Array, offset: number, length: number): Promise<Mapping> {
  const file = new MemoryFile('disk.qcow2', bytes);
  const cache = new CacheTable(new SharedCache(65_536));
  const header = await readQcow2Header(file);
  const tables = new Qcow2Tables(file, header, await loadL1(file, header), cache);
  return tables.map(await tables.slice(offset), offset, length);
}

/** The image of the plan, with one entry of its first L2 table set. */
function withEntry(
  plan: Qcow2Plan,
  index: number,
  entry: (built: BuiltQcow2) => bigint,
): BuiltQcow2 {
  const built = buildQcow2(plan);
  const at = (built.l2Offsets[0] as number) + index * built.entryBytes;
  new DataView(built.bytes.buffer).setBigUint64(at, entry(built));
  return built;
}

function tells(...mentions: string[]): (error: unknown) => boolean {
  return (error) => {
    assert.ok(isStoreError(error, 'corrupt'), String(error));
    for (const mention of ['disk.qcow2: byte ', ...mentions]) {
      assert.ok(error.message.includes(mention), error.message);
    }
    return true;
  };
}

const PLAN: Qcow2Plan = {
  version: 3,
  clusterBits: 12,
  clusters: ['data', 'data', 'zero', 'zero', 'hole', 'hole', 'data', 'packed'],
};

describe('runs', () => {
  it('are as long as they are of one kind and one piece', async () => {
    const { bytes } = buildQcow2(PLAN);
    const runs: string[] = [];
    for (let at = 0; at < 8 * 4096; ) {
      const run = await mapping(bytes, at, 8 * 4096 - at);
      runs.push(`${run.kind} ${run.length / 4096}`);
      at += run.length;
    }
    assert.deepEqual(runs, ['data 2', 'zero 2', 'unallocated 2', 'data 1', 'compressed 1']);
  });

  it('begin and end anywhere', async () => {
    const built = buildQcow2(PLAN);
    const host = (built.l2Offsets[0] as number) + 4096;
    for (const [offset, length] of [
      [1, 1],
      [4095, 2],
      [100, 8000],
      [4096, 4096],
    ] as const) {
      const run = await mapping(built.bytes, offset, length);
      assert.deepEqual(run, { kind: 'data', length, hostOffset: host + offset });
    }
  });

  it('end where the next cluster lies elsewhere', async () => {
    const { bytes } = withEntry(PLAN, 1, ({ bytes: { length } }) => {
      return ONCE | BigInt(Math.floor(length / 4096 - 1) * 4096);
    });
    assert.equal((await mapping(bytes, 0, 8192)).length, 4096);
  });

  it('of empty tables reach to the next table', async () => {
    // 64 entries a table, 32 KiB of the disk each.
    const clusters = Array.from({ length: 640 }, (_, index) => (index === 400 ? 'data' : 'hole'));
    const { bytes } = buildQcow2({ version: 3, clusterBits: 9, clusters: clusters });
    assert.deepEqual(await mapping(bytes, 1000, 300_000), {
      kind: 'unallocated',
      length: 384 * 512 - 1000,
    });
    assert.equal((await mapping(bytes, 300_000, 20_000)).length, 20_000);
  });
});

describe('compressed clusters', () => {
  it('have an offset and sectors of as many bits as the cluster size says', async () => {
    for (let clusterBits = 9; clusterBits <= 21; clusterBits++) {
      const plan = { version: 3, clusterBits, clusters: ['data', 'hole', 'hole', 'data'] } as const;
      const offsetBits = BigInt(62 - (clusterBits - 8));
      const sectorsMax = 2 ** (clusterBits - 8) - 1;
      for (const sectors of new Set([0, 1, sectorsMax])) {
        const built = withEntry(plan, 1, ({ clusterBytes }) => {
          return (1n << 62n) | (BigInt(sectors) << offsetBits) | BigInt(clusterBytes + 777);
        });
        const host = built.clusterBytes + 777;
        const run = await mapping(built.bytes, built.clusterBytes + 5, 100);
        const end = (Math.floor(host / 512) + 1 + sectors) * 512;
        assert.deepEqual(run, {
          kind: 'compressed',
          length: 100,
          hostOffset: host,
          hostBytes: Math.min(end, built.bytes.length) - host,
          skipBytes: 5,
        });
      }
    }
  });

  it('outside the file, or in the header, are refused', async () => {
    for (const at of [0n, 4095n, 2n ** 40n, 2n ** 52n]) {
      const { bytes } = withEntry(PLAN, 1, () => (1n << 62n) | at);
      await assert.rejects(mapping(bytes, 4096, 1), tells('compressed data', 'disk byte 4096'));
    }
  });

  it('that give less or more than a cluster, or nothing, are refused', async () => {
    const read = async (stream: Uint8Array): Promise<void> => {
      const built = withEntry(PLAN, 1, ({ bytes }) => {
        const sectors = BigInt(Math.ceil(stream.length / 512));
        return (1n << 62n) | (sectors << 58n) | BigInt(bytes.length);
      });
      const bytes = Buffer.concat([built.bytes, stream]);
      const image = await openImageFile(new MemoryFile('disk.qcow2', new Uint8Array(bytes)));
      await image.read(4096, new Uint8Array(4096)).finally(() => image.close());
    };
    const content = clusterContent(1, 4096);
    await read(deflateRawSync(content));
    // Behind the stream may be anything: the next cluster.
    await read(Buffer.concat([deflateRawSync(content), Buffer.alloc(300, 0xee)]));
    const told = tells('compressed data');
    await assert.rejects(read(deflateRawSync(content.subarray(1))), told);
    await assert.rejects(read(deflateRawSync(Buffer.concat([content, content]))), told);
    await assert.rejects(read(deflateRawSync(content).subarray(0, 40)), told);
    await assert.rejects(read(Buffer.alloc(600, 0xff)), told);
  });
});

describe('subclusters', () => {
  const plan: Qcow2Plan = {
    version: 3,
    clusterBits: 14,
    extendedL2: true,
    clusters: ['data', 'mixed', 'zero', 'data'],
  };

  it('are data, zeros or nothing, each for itself', async () => {
    const built = buildQcow2(plan);
    for (let index = 0; index < 32; index++) {
      const run = await mapping(built.bytes, 16_384 + index * 512 + 3, 1);
      const isData = ((MIXED_DATA >>> index) & 1) === 1;
      const isZero = ((MIXED_ZEROS >>> index) & 1) === 1;
      assert.equal(run.kind, isData ? 'data' : isZero ? 'zero' : 'unallocated');
      const host = (built.l2Offsets[0] as number) + 2 * 16_384 + index * 512 + 3;
      if (run.kind === 'data') assert.equal(run.hostOffset, host);
    }
    assert.equal((await mapping(built.bytes, 0, 20_000)).length, 16_384);
  });

  it('that are both, have no place, or a zero flag as well, are refused', async () => {
    const { bytes, l2Offsets } = buildQcow2(plan);
    const at = (l2Offsets[0] as number) + 16;
    const cases: readonly (readonly [bigint, bigint, string])[] = [
      [BigInt(bytes.length - 16_384), 0x0000000100000001n, 'both data and zeros'],
      [0n, 1n, 'without a place'],
      [1n, 0n, 'zero flag'],
    ];
    for (const [entry, map, mention] of cases) {
      const view = new DataView(bytes.slice().buffer);
      view.setBigUint64(at, entry);
      view.setBigUint64(at + 8, map);
      await assert.rejects(mapping(new Uint8Array(view.buffer), 16_384, 1), tells(mention));
    }
  });
});

describe('entries that lead nowhere', () => {
  const cases: readonly (readonly [string, (built: BuiltQcow2) => bigint, string])[] = [
    ['within a cluster', ({ bytes }) => BigInt(bytes.length - 3584), 'within a cluster'],
    ['beyond the file', () => 1n << 40n, 'cut off'],
    ['into the L1 table', ({ l1Offset }) => BigInt(l1Offset), 'where a table is'],
    ['into an L2 table', ({ l2Offsets }) => BigInt(l2Offsets[0] as number), 'where a table is'],
  ];
  for (const [name, entry, mention] of cases) {
    it(name, async () => {
      const { bytes } = withEntry(PLAN, 1, (built) => entry(built) & ~0x1ffn);
      await assert.rejects(mapping(bytes, 4096, 1), tells(mention, 'disk byte 4096'));
      await mapping(bytes, 0, 4096);
    });
  }

  it('with a reserved bit, each of them', async () => {
    for (const bit of [1n, 2n, 3n, 4n, 5n, 6n, 7n, 8n, 56n, 57n, 58n, 59n, 60n, 61n]) {
      const { bytes } = withEntry(PLAN, 1, () => 1n << bit);
      await assert.rejects(mapping(bytes, 4096, 1), tells('reserved bits'));
    }
  });

  it('with a zero flag in version 2', async () => {
    const { bytes } = withEntry({ ...PLAN, version: 2 }, 1, () => 1n);
    await assert.rejects(mapping(bytes, 4096, 1), tells('version 2'));
  });

  it('cut off: the last byte that the disk needs is missing; what it does not need may be', async () => {
    const { bytes } = buildQcow2({ ...PLAN, clusters: ['data'], cutBytes: 1024 });
    await mapping(bytes.slice(0, -1024), 0, 3072);
    await assert.rejects(mapping(bytes.slice(0, -1025), 0, 3072), tells('cut off'));
  });
});

describe('a large L1 table', () => {
  /** More entries than are read at once, descending; the file has no bytes behind the tables. */
  function largeTable(count: number): { bytes: Uint8Array; view: DataView; l1Offset: number } {
    const l1Offset = 1024;
    const bytes = new Uint8Array(l1Offset + count * 8 + count * 512);
    bytes.set(buildQcow2({ version: 3, clusterBits: 9, clusters: [] }).bytes);
    const view = new DataView(bytes.buffer);
    view.setBigUint64(24, BigInt(count * 64 * 512));
    view.setUint32(36, count);
    for (let index = 0; index < count; index++) {
      view.setBigUint64(l1Offset + index * 8, BigInt(bytes.length - (index + 1) * 512));
    }
    return { bytes, view, l1Offset };
  }
  const COUNT = 3 * 65_536 - 64;

  it('has every table found, and data in each of them refused', async () => {
    const { bytes, view } = largeTable(COUNT);
    for (const index of [0, 1, 65_535, 65_536, 140_000, COUNT - 1]) {
      const table = bytes.length - (index + 1) * 512;
      for (const other of [0, 77_777, COUNT - 1]) {
        view.setBigUint64(table, BigInt(bytes.length - (other + 1) * 512));
        await assert.rejects(mapping(bytes, index * 32_768, 1), tells('where a table is'));
      }
      view.setBigUint64(table, 0n);
      assert.equal((await mapping(bytes, index * 32_768, 1)).kind, 'unallocated');
    }
  });

  it('names no table twice, however far apart', async () => {
    const { bytes, view, l1Offset } = largeTable(COUNT);
    for (const [one, other] of [
      [0, COUNT - 1],
      [65_535, 65_536],
      [10, 70_000],
      [1, 2],
    ] as const) {
      const before = view.getBigUint64(l1Offset + other * 8);
      view.setBigUint64(l1Offset + other * 8, view.getBigUint64(l1Offset + one * 8));
      await assert.rejects(mapping(bytes, 0, 1), tells('twice'));
      view.setBigUint64(l1Offset + other * 8, before);
    }
    await mapping(bytes, 0, 1);
  });
});

describe('L1 entries that lead nowhere', () => {
  const clusters = Array.from({ length: 128 }, () => 'data' as const);
  const plan: Qcow2Plan = { version: 3, clusterBits: 9, clusters };
  const cases: readonly (readonly [string, (built: BuiltQcow2) => bigint, string])[] = [
    [
      'to the table of the entry before',
      ({ l2Offsets }) => BigInt(l2Offsets[0] as number),
      'twice',
    ],
    ['into the L1 table', ({ l1Offset }) => BigInt(l1Offset), 'where the L1 table is'],
    ['beyond the file', ({ bytes }) => BigInt(bytes.length), 'cut off'],
    ['far beyond it', () => (1n << 56n) - 512n, 'cut off'],
    ['with bit 0', ({ l2Offsets }) => BigInt(l2Offsets[1] as number) | 1n, 'reserved'],
    ['with bit 8', ({ l2Offsets }) => BigInt(l2Offsets[1] as number) | 256n, 'reserved'],
    ['with bit 56', ({ l2Offsets }) => BigInt(l2Offsets[1] as number) | (1n << 56n), 'reserved'],
    ['with bit 62', ({ l2Offsets }) => BigInt(l2Offsets[1] as number) | (1n << 62n), 'reserved'],
  ];
  for (const [name, entry, mention] of cases) {
    it(name, async () => {
      const built = buildQcow2(plan);
      new DataView(built.bytes.buffer).setBigUint64(built.l1Offset + 8, entry(built));
      await assert.rejects(mapping(built.bytes, 0, 1), tells(mention));
    });
  }

  it('within a cluster', async () => {
    const built = buildQcow2({ ...plan, clusterBits: 12, clusters: ['data'] });
    const table = BigInt(built.l2Offsets[0] as number) + 512n;
    new DataView(built.bytes.buffer).setBigUint64(built.l1Offset, table);
    await assert.rejects(mapping(built.bytes, 0, 1), tells('within a cluster'));
  });
});
