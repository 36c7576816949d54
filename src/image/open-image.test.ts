import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { MemoryFolder } from '../../test/support/memory-file.js';
import { buildQcow2, type Qcow2Plan } from '../../test/support/qcow2-builder.js';
import { isStoreError, type StoreErrorKind } from '../base/store-error.js';
import type { ImageReader } from './image-reader.js';
import { BACKING_DEPTH_MAX, type OpenImageOptions, openImage } from './open-image.js';

const PLAN: Qcow2Plan = { version: 3, clusterBits: 12, clusters: ['data', 'hole', 'zero'] };
const PLAIN = buildQcow2(PLAN).bytes;

function over(name: string, format?: string): Uint8Array {
  const backing = format === undefined ? { name } : { name, format };
  return buildQcow2({ ...PLAN, backing }).bytes;
}

function newFolder(files: Readonly<Record<string, Uint8Array>>): MemoryFolder {
  const folder = new MemoryFolder();
  for (const [path, bytes] of Object.entries(files)) folder.files.set(path, bytes);
  return folder;
}

async function opens(
  folder: MemoryFolder,
  path: string,
  options: OpenImageOptions = {},
): Promise<ImageReader> {
  const reader = await openImage(path, { open: folder.open, ...options });
  await reader.close();
  assert.equal(folder.openCount, 0, 'everything is closed');
  return reader;
}

async function isRefused(
  folder: MemoryFolder,
  path: string,
  kind: StoreErrorKind,
  mention: string,
  options: OpenImageOptions = {},
): Promise<void> {
  await assert.rejects(openImage(path, { open: folder.open, ...options }), (error) => {
    assert.ok(isStoreError(error, kind), String(error));
    assert.ok(error.message.includes(mention), error.message);
    return true;
  });
  assert.equal(folder.openCount, 0, 'a refused image leaves no file open');
}

const MARKS = [
  'KDMV',
  'vhdxfile',
  'conectix',
  'QED\0',
  'LUKS\xba\xbe',
  '\x1f\x8b\x08',
  '\xfd7zXZ\0',
];

describe('the format', () => {
  it('of the first file: as its bytes say, or as the caller does', async () => {
    const folder = newFolder({ '/a': PLAIN, '/b': new Uint8Array(1000), '/c': new Uint8Array(3) });
    assert.equal((await opens(folder, '/a')).format, 'qcow2');
    assert.equal((await opens(folder, '/a', { format: 'raw' })).format, 'raw');
    const raw = await opens(folder, '/b');
    assert.deepEqual([raw.format, raw.sizeBytes, raw.notes.length], ['raw', 1024, 1]);
    assert.equal((await opens(folder, '/c')).sizeBytes, 512);
    await isRefused(folder, '/b', 'corrupt', 'begin', { format: 'qcow2' });
  });

  it('of others is not taken for raw, unless the caller says raw', async () => {
    for (const mark of [
      ...MARKS,
      '\x28\xb5\x2f\xfd',
      'BZh',
      `${'\0'.repeat(64)}\x7f\x10\xda\xbe`,
    ]) {
      const bytes = Uint8Array.from({ length: 4096 }, (_, at) => mark.charCodeAt(at) || 0);
      const folder = newFolder({ '/x': bytes });
      await isRefused(folder, '/x', 'unsupported', 'say format raw');
      assert.equal((await opens(folder, '/x', { format: 'raw' })).format, 'raw');
    }
  });

  it("of a backing file: as its image says; a client's qcow2 header decides nothing", async () => {
    const secret = new Uint8Array(4096).fill(0x55);
    const trap = over('/secret', 'raw');
    const files = { '/disk': trap, '/secret': secret };
    const raw = newFolder({ ...files, '/top': over('disk', 'raw') });
    const reader = await openImage('/top', { open: raw.open });
    const bytes = new Uint8Array(4096);
    // The second cluster is a hole: the disk's own second 4 KiB, not what /secret has there.
    await reader.read(4096, bytes);
    assert.deepEqual(bytes, trap.slice(4096, 8192));
    assert.deepEqual(
      raw.opened.map(({ name }) => name),
      ['/top', '/disk'],
    );
    await reader.close();
    await isRefused(
      newFolder({ ...files, '/top': over('disk') }),
      '/top',
      'unsupported',
      'qemu-img rebase',
    );
    await opens(newFolder({ ...files, '/top': over('disk', 'qcow2') }), '/top');
    await opens(newFolder({ ...files, '/top': over('secret') }), '/top');
  });

  it('of a backing file that is not known', async () => {
    const folder = newFolder({ '/top': over('disk', 'vmdk'), '/disk': new Uint8Array(512) });
    await isRefused(folder, '/top', 'unsupported', "'vmdk'");
  });
});

describe('backing files', () => {
  it('are found from the folder of the image that names them', async () => {
    const folder = newFolder({
      '/vm/snapshots/top': over('../mid', 'qcow2'),
      '/vm/mid': over('base/./raw', 'raw'),
      '/vm/base/raw': new Uint8Array(512),
    });
    await opens(folder, '/vm/snapshots/top');
    const names = folder.opened.map(({ name }) => name);
    assert.deepEqual(names, ['/vm/snapshots/top', '/vm/mid', '/vm/base/raw']);
  });

  it('may be refused as a whole', async () => {
    const folder = newFolder({
      '/top': over('base', 'raw'),
      '/base': new Uint8Array(512),
      '/a': PLAIN,
    });
    await isRefused(folder, '/top', 'unsupported', "'base'", { backing: 'refuse' });
    assert.equal(folder.opened.length, 1);
    await opens(folder, '/a', { backing: 'refuse' });
  });

  it('have paths, and nothing else', async () => {
    for (const name of [
      'nbd://host/x',
      'json:{"driver":"raw"}',
      'http://host/x',
      'rbd:pool/x',
      '//host/x',
    ]) {
      await isRefused(newFolder({ '/top': over(name, 'raw') }), '/top', 'unsupported', 'by a path');
    }
    const odd = newFolder({ '/top': over('file:./a:b', 'raw'), '/a:b': new Uint8Array(512) });
    await opens(odd, '/top');
  });

  it('are closed if the image over them turns out to be damaged', async () => {
    const { bytes, l1Offset } = buildQcow2({ ...PLAN, backing: { name: 'base', format: 'raw' } });
    new DataView(bytes.buffer).setUint8(l1Offset, 0x7f);
    const folder = newFolder({ '/top': bytes, '/base': new Uint8Array(512) });
    await isRefused(folder, '/top', 'corrupt', 'L1 entry');
    assert.equal(folder.opened.length, 2);
  });

  it('that are not there', async () => {
    await isRefused(newFolder({ '/top': over('gone', 'raw') }), '/top', 'not-found', '/gone');
  });

  it('in a loop: over itself, and the long way round', async () => {
    await isRefused(newFolder({ '/top': over('top', 'qcow2') }), '/top', 'corrupt', 'loop');
    const ring = { '/a': over('b', 'qcow2'), '/b': over('c', 'qcow2'), '/c': over('./b', 'qcow2') };
    await isRefused(newFolder(ring), '/a', 'corrupt', 'loop');
  });

  it('as many as there may be, and not one more', async () => {
    const folder = newFolder({ '/0': PLAIN });
    for (let depth = 1; depth <= BACKING_DEPTH_MAX; depth++) {
      folder.files.set(`/${depth}`, over(`${depth - 1}`, 'qcow2'));
    }
    const deepest = await openImage(`/${BACKING_DEPTH_MAX - 1}`, { open: folder.open });
    await deepest.read(4096, new Uint8Array(4096));
    await deepest.close();
    await isRefused(
      folder,
      `/${BACKING_DEPTH_MAX}`,
      'unsupported',
      `more than ${BACKING_DEPTH_MAX}`,
    );
  });
});

describe('the tables of a chain', () => {
  it('fit in memory, or it is refused', async () => {
    // Of 512-byte clusters, with the largest L1 table there is; it has nothing.
    const count = 4 * 1024 * 1024;
    const large = (name: string): Uint8Array => {
      const plan = { version: 3, clusterBits: 9, clusters: [], backing: { name, format: 'qcow2' } };
      const { bytes, l1Offset } = buildQcow2(plan as Qcow2Plan);
      const all = new Uint8Array(l1Offset + count * 8);
      all.set(bytes);
      const view = new DataView(all.buffer);
      view.setBigUint64(24, BigInt(count * 64 * 512));
      view.setUint32(36, count);
      return all;
    };
    const folder = newFolder({ '/0': PLAIN, '/1': large('0'), '/2': large('1'), '/3': large('2') });
    await isRefused(folder, '/3', 'unsupported', 'larger clusters');
    folder.files.set('/2', over('1', 'qcow2'));
    await opens(folder, '/2');
  });
});

describe('an image that is open', () => {
  it('reads as zeros where a raw file has no whole sector', async () => {
    const folder = newFolder({ '/b': new Uint8Array(1000).fill(7) });
    const reader = await openImage('/b', { open: folder.open });
    const bytes = new Uint8Array(1024).fill(0xee);
    await reader.read(0, bytes);
    assert.deepEqual(bytes, new Uint8Array(1024).fill(7, 0, 1000));
    await reader.read(1010, bytes.fill(0xee).subarray(0, 14));
    assert.ok(bytes.subarray(0, 14).every((byte) => byte === 0));
    await reader.close();
  });

  it('refuses ranges outside it', async () => {
    const folder = newFolder({ '/a': PLAIN, '/b': new Uint8Array(1000) });
    for (const path of ['/a', '/b']) {
      const reader = await openImage(path, { open: folder.open });
      const size = reader.sizeBytes;
      for (const [offset, length] of [
        [-1, 1],
        [size, 1],
        [size - 1, 2],
        [0.5, 1],
      ] as const) {
        await assert.rejects(reader.read(offset, new Uint8Array(length)), /are not within/);
      }
      await reader.read(size, new Uint8Array(0));
      await assert.rejects(
        reader
          .extents(0, size + 1)
          [Symbol.asyncIterator]()
          .next(),
        /not within/,
      );
      await reader.close();
    }
  });

  it('passes a failure of its file on, and goes on afterwards', async () => {
    const folder = newFolder({ '/a': PLAIN });
    const reader = await openImage('/a', { open: folder.open });
    const [file] = folder.opened;
    assert.ok(file !== undefined);
    file.isBroken = true;
    const bytes = new Uint8Array(12_288);
    await assert.rejects(reader.read(0, bytes), (error) => isStoreError(error, 'device'));
    file.isBroken = false;
    await reader.read(0, bytes);
    await reader.close();
  });
});
