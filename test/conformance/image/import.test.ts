/** Images made by qemu-img, in every way that it knows, are read byte by byte as it reads them. */
import assert from 'node:assert/strict';
import {
  closeSync,
  copyFileSync,
  openSync,
  readFileSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { after, describe, it } from 'node:test';
import { isStoreError, type StoreErrorKind } from '../../../src/base/store-error.js';
import { KIB, MIB } from '../../../src/base/units.js';
import { openImage } from '../../../src/image/open-image.js';
import { runOk } from '../nbd/nbd-clients.js';
import { ImageFolder, readsAs } from './qemu-images.js';

const folder = new ImageFolder();
after(() => folder.remove());

/** Not a multiple of any cluster size above 512. */
const SIZE = 9 * MIB + 37 * KIB + 512;

/** Pieces of every alignment, neighbours with other bytes, the very end. */
const WRITES = [
  'write -P 1 0 4k',
  'write -P 2 1M 100k',
  'write -P 3 5000k 513k',
  'write -P 4 1234944 512',
  'write -P 5 8M 64k',
  `write -P 6 ${SIZE - 512} 512`,
];
const ZEROES = ['write -z 1M 32k', 'write -z -u 5120k 64k', 'discard 5440k 128k'];

const OPTIONS: readonly (readonly string[])[] = [
  ['compat=0.10'],
  ['compat=0.10', 'cluster_size=512'],
  ['compat=0.10', 'cluster_size=2M'],
  ['compat=1.1'],
  ['cluster_size=512'],
  ['cluster_size=4k'],
  ['cluster_size=2M'],
  ['refcount_bits=1'],
  ['refcount_bits=64'],
  ['lazy_refcounts=on'],
  ['preallocation=metadata'],
  ['preallocation=metadata', 'cluster_size=512'],
  ['preallocation=falloc'],
  ['preallocation=full'],
  ['extended_l2=on'],
  ['extended_l2=on', 'cluster_size=16k'],
  ['extended_l2=on', 'cluster_size=2M'],
  ['extended_l2=on', 'preallocation=metadata'],
];

const isV2 = (options: readonly string[]): boolean => options.includes('compat=0.10');
const nameOf = (options: readonly string[]): string => options.join('-').replaceAll('=', '_');

describe('qcow2, written by qemu-io', () => {
  for (const options of OPTIONS) {
    it(options.join(', '), async () => {
      const name = nameOf(options);
      const path = await folder.create(name, SIZE, ...options);
      await folder.io(name, isV2(options) ? WRITES : [...WRITES, ...ZEROES]);
      await readsAs(path, await folder.rawBytes(name));
    });
  }

  it('empty, and of no size', async () => {
    await readsAs(await folder.create('empty', MIB), Buffer.alloc(MIB));
    await readsAs(await folder.create('none', 0), Buffer.alloc(0));
  });

  it('not closed in order, with lazy reference counts', async () => {
    const path = await folder.create('dirty', SIZE, 'lazy_refcounts=on');
    const args = ['-c', 'write -P 9 1M 1M', '-c', 'flush', '-c', 'sigraise 9', path];
    await runOk('sh', ['-c', `qemu-io ${args.map((arg) => `'${arg}'`).join(' ')} || true`]);
    const reader = await openImage(path);
    assert.ok(reader.notes.some((note) => note.includes('not closed in order')));
    await reader.close();
    const expected = Buffer.alloc(SIZE);
    expected.fill(9, MIB, 2 * MIB);
    await readsAs(path, expected);
  });

  it('with internal snapshots: as it is now, and says so', async () => {
    const path = await folder.create('snapshots', SIZE);
    await folder.io('snapshots', WRITES);
    await runOk('qemu-img', ['snapshot', '-c', 'one', path]);
    await folder.io('snapshots', ['write -P 77 0 2M']);
    const reader = await openImage(path);
    assert.ok(reader.notes.some((note) => note.includes('1 internal snapshots')));
    await reader.close();
    await readsAs(path, await folder.rawBytes('snapshots'));
  });

  it('with a bitmap, which is of no interest', async () => {
    const path = await folder.create('bitmap', SIZE);
    await folder.io('bitmap', WRITES);
    await runOk('qemu-img', ['bitmap', '--add', path, 'changes']);
    await readsAs(path, await folder.rawBytes('bitmap'));
  });
});

/** Bytes that compress somewhat, with holes, and some that do not. */
function someDisk(): Buffer {
  const disk = Buffer.alloc(SIZE);
  for (let at = MIB; at < 4 * MIB; at++) disk[at] = (at >>> 7) ^ (at % 7);
  let state = 12345;
  for (let at = 5 * MIB; at < 6 * MIB; at++) {
    state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
    disk[at] = state >>> 16;
  }
  disk.fill(9, SIZE - 700);
  return disk;
}

describe('qcow2, written by qemu-img convert', () => {
  const disk = someDisk();
  const raw = folder.at('some-disk');
  writeFileSync(raw, disk);

  const convert = async (name: string, ...flags: string[]): Promise<string> => {
    const path = folder.at(name);
    await runOk('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', ...flags, raw, path]);
    return path;
  };

  for (const options of [
    'cluster_size=64k',
    'cluster_size=512',
    'cluster_size=2M',
    'compat=0.10',
  ]) {
    it(`compressed, ${options}`, async () => {
      await readsAs(await convert(`compressed-${options}`, '-c', '-o', options), disk);
    });
  }

  it('compressed, extended_l2', async () => {
    await readsAs(await convert('compressed-extended', '-c', '-o', 'extended_l2=on'), disk);
  });

  it('compressed, then written over and zeroed in part', async () => {
    const path = await convert('compressed-mixed', '-c');
    await folder.io('compressed-mixed', [
      'write -P 8 1060k 100k',
      'write -z 2M 64k',
      'write -P 7 5120k 4k',
    ]);
    await readsAs(path, await folder.rawBytes('compressed-mixed'));
  });

  it('plain, and a disk with holes has them', async () => {
    const extents = await readsAs(await convert('plain'), disk);
    const mapped = extents.filter(({ kind }) => kind === 'data');
    assert.ok(mapped.reduce((sum, { length }) => sum + length, 0) < 5 * MIB);
  });

  it('cut off anywhere: refused, or what is left is right, never other bytes', async () => {
    const path = await convert('whole', '-c');
    const whole = readFileSync(path);
    for (let part = 0; part < 40; part++) {
      const cut = folder.at('cut');
      copyFileSync(path, cut);
      truncateSync(cut, Math.floor((whole.length * part) / 40));
      await isWholeOrRefused(cut, disk);
    }
  });

  it('zstd is refused, with the command that helps; zlib in its place is read', async () => {
    const path = await convert('zstd', '-c', '-o', 'compression_type=zstd');
    await assert.rejects(openImage(path), ofKind('unsupported', 'zstd', 'compression_type=zlib'));
  });
});

async function isWholeOrRefused(path: string, disk: Buffer): Promise<void> {
  try {
    const reader = await openImage(path, { format: 'qcow2' });
    const bytes = new Uint8Array(disk.length);
    await reader.read(0, bytes).finally(() => reader.close());
    assert.ok(Buffer.compare(bytes, disk) === 0);
  } catch (error) {
    assert.ok(isStoreError(error, 'corrupt'), String(error));
    assert.ok(error.message.startsWith(`${path}: byte `), error.message);
  }
}

function ofKind(kind: StoreErrorKind, ...mentions: string[]): (error: unknown) => boolean {
  return (error) => {
    assert.ok(isStoreError(error, kind), String(error));
    for (const mention of mentions) assert.ok(error.message.includes(mention), error.message);
    return true;
  };
}

describe('raw files', () => {
  it('sparse, of an odd size, and behind an overlay', async () => {
    const path = folder.at('odd.raw');
    const disk = Buffer.alloc(40 * MIB + 1001);
    disk.fill(5, 20 * MIB + 3, 20 * MIB + 9);
    disk[disk.length - 1] = 9;
    await runOk('truncate', ['-s', `${disk.length}`, path]);
    const file = openSync(path, 'r+');
    writeSync(file, disk, 20 * MIB, 512, 20 * MIB);
    writeSync(file, disk, disk.length - 1, 1, disk.length - 1);
    closeSync(file);
    const expected = Buffer.concat([disk, Buffer.alloc(40 * MIB + 1024 - disk.length)]);
    const holes = (await readsAs(path, expected)).filter(({ kind }) => kind === 'hole');
    assert.ok(holes.reduce((sum, { length }) => sum + length, 0) > 39 * MIB);
    await folder.create('over-odd', 41 * MIB, `backing_file=${path}`, 'backing_fmt=raw');
    await folder.io('over-odd', ['write -P 8 40M 512', 'write -P 7 0 4k']);
    const extents = await readsAs(folder.at('over-odd'), await folder.rawBytes('over-odd'));
    assert.ok(extents.some(({ kind, length }) => kind === 'hole' && length > 15 * MIB));
  });
});

describe('backing files', () => {
  const base = someDisk().subarray(0, 5 * MIB + 512);
  writeFileSync(folder.at('base.raw'), base);

  const overlay = async (
    name: string,
    below: string,
    format: string,
    size: number,
    ...more: string[]
  ): Promise<string> => {
    const options = [`backing_file=${below}`, `backing_fmt=${format}`, ...more];
    return folder.create(name, size, ...options);
  };

  for (const options of [[], ['cluster_size=512'], ['extended_l2=on'], ['compat=0.10']]) {
    const title = nameOf(options) || 'plain';
    it(`three of different sizes over raw: ${title}`, async () => {
      const [one, two, three] = [`${title}-1`, `${title}-2`, `${title}-3`];
      await overlay(one, 'base.raw', 'raw', 7 * MIB, ...options);
      await folder.io(one, ['write -P 21 1M 70k', 'write -P 22 6M 512']);
      await overlay(two, one, 'qcow2', 3 * MIB + 512, ...options);
      await folder.io(two, ['write -P 23 1060k 9k']);
      if (options[0] !== 'compat=0.10') await folder.io(two, ['write -z 1500k 100k']);
      const path = await overlay(three, folder.at(two), 'qcow2', 8 * MIB, ...options);
      await folder.io(three, ['write -P 24 2M 1536', `write -P 25 ${8 * MIB - 512} 512`]);
      await readsAs(folder.at(one), await folder.rawBytes(one));
      await readsAs(folder.at(two), await folder.rawBytes(two));
      const expected = await folder.rawBytes(three);
      await readsAs(path, expected);
      // The smallest cache there is: everything is loaded again and again.
      await readsAs(path, expected, { cacheBytes: 1 });
    });
  }

  it('a compressed base under an overlay', async () => {
    const args = ['-c', '-f', 'raw', '-O', 'qcow2', folder.at('base.raw'), folder.at('base.qcow2')];
    await runOk('qemu-img', ['convert', ...args]);
    const path = await overlay('over-compressed', 'base.qcow2', 'qcow2', 6 * MIB);
    await folder.io('over-compressed', ['write -P 31 2M 5k']);
    await readsAs(path, await folder.rawBytes('over-compressed'));
  });

  it('a backing file that is not there, and a loop', async () => {
    await overlay('lost', 'base.raw', 'raw', MIB);
    await runOk('qemu-img', ['rebase', '-u', '-b', 'gone.raw', '-F', 'raw', folder.at('lost')]);
    await assert.rejects(openImage(folder.at('lost')), ofKind('not-found', 'gone.raw'));
    await overlay('ring-1', 'base.raw', 'raw', MIB);
    await overlay('ring-2', 'ring-1', 'qcow2', MIB);
    await runOk('qemu-img', ['rebase', '-u', '-b', 'ring-2', '-F', 'qcow2', folder.at('ring-1')]);
    await assert.rejects(openImage(folder.at('ring-2')), ofKind('corrupt', 'loop'));
  });
});

describe('what is refused', () => {
  it('encrypted images and external data files', async () => {
    // LUKS takes qemu-img seconds, on a busy machine too many: qcow2-header.test.ts has its header.
    const path = folder.at('aes');
    const options = ['-f', 'qcow2', '-o', 'encrypt.format=aes,encrypt.key-secret=s'];
    const secret = ['--object', 'secret,id=s,data=abc'];
    await runOk('qemu-img', ['create', '-q', ...secret, ...options, path, '1M']);
    await assert.rejects(openImage(path), ofKind('unsupported', 'AES'));
    await folder.create('external', MIB, `data_file=${folder.at('data.raw')}`);
    await assert.rejects(openImage(folder.at('external')), ofKind('unsupported', 'external data'));
  });

  it('other formats, unless their bytes are meant', async () => {
    for (const format of ['vmdk', 'vhdx', 'vdi', 'qed', 'qcow']) {
      const path = folder.at(`other.${format}`);
      await runOk('qemu-img', ['create', '-q', '-f', format, path, '1M']);
      await assert.rejects(openImage(path), ofKind('unsupported'), format);
      const bytes = readFileSync(path);
      const reader = await openImage(path, { format: 'raw' });
      const first = new Uint8Array(512);
      await reader.read(0, first);
      assert.deepEqual(Buffer.from(first), bytes.subarray(0, 512));
      await reader.close();
    }
  });
});
