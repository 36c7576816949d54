/** Images that are exported: what qemu-img finds in them, and qemu-nbd as a second opinion. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createReadStream, readFileSync, statSync, writeFileSync } from 'node:fs';
import { after, describe, it } from 'node:test';
import { isStoreError } from '../../../src/base/store-error.js';
import { GIB, KIB, MIB, TIB } from '../../../src/base/units.js';
import { openSink } from '../../../src/env/file-sink.js';
import { seededRandom } from '../../../src/env/seeded-random.js';
import { systemClock } from '../../../src/env/system-clock.js';
import { exportQcow2 } from '../../../src/image/export-qcow2.js';
import { exportRaw } from '../../../src/image/export-raw.js';
import { importImage } from '../../../src/image/import-image.js';
import { importStream } from '../../../src/image/import-stream.js';
import { openImage } from '../../../src/image/open-image.js';
import type { BlockTarget } from '../../../src/vdisk/block-target.js';
import { MemoryTarget } from '../../support/memory-target.js';
import { MEDIA, openTestStore } from '../../support/stores.js';
import { runOk } from '../nbd/nbd-clients.js';
import { ImageFolder, readsAs } from './qemu-images.js';

const folder = new ImageFolder();
after(() => folder.remove());

interface MapEntry {
  readonly start: number;
  readonly length: number;
  readonly data: boolean;
  readonly present: boolean;
}

async function mapOf(path: string): Promise<MapEntry[]> {
  return JSON.parse(await runOk('qemu-img', ['map', '--output=json', path])) as MapEntry[];
}

async function exported(target: BlockTarget, name: string): Promise<string> {
  const path = folder.at(name);
  const sink = await openSink(path);
  await exportQcow2(target, sink);
  await sink.close();
  return path;
}

async function exportedRaw(target: BlockTarget, name: string): Promise<string> {
  const sink = await openSink(folder.at(name));
  await exportRaw(target, sink);
  await sink.close();
  return folder.at(name);
}

function bytesOf(target: MemoryTarget): Uint8Array {
  const bytes = new Uint8Array(target.sizeBytes);
  target.read(0, bytes);
  return bytes;
}

function randomDisk(sizeBytes: number, seed: number): MemoryTarget {
  const random = seededRandom(seed);
  const disk = new MemoryTarget({ sizeBytes });
  for (let count = sizeBytes === 0 ? 60 : 0; count < 60; count++) {
    const offset = random.below(sizeBytes / 512) * 512;
    const length = Math.min(sizeBytes - offset, random.below(300) * 512);
    const bytes = new Uint8Array(length);
    if (random.chance(0.8)) random.fill(bytes);
    disk.write(offset, bytes);
  }
  return disk;
}

describe('export to qcow2', () => {
  for (const sizeBytes of [0, 512, 64 * KIB, 64 * KIB + 512, 9 * MIB + 37 * KIB + 512]) {
    it(`of ${sizeBytes} bytes: sound, no leak, the same bytes`, async () => {
      const disk = randomDisk(sizeBytes, 5 + sizeBytes);
      const path = await exported(disk, `disk-${sizeBytes}.qcow2`);
      assert.match(await runOk('qemu-img', ['check', '-f', 'qcow2', path]), /No errors were found/);
      writeFileSync(folder.at('raw'), bytesOf(disk));
      await runOk('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', folder.at('raw'), path]);
      await readsAs(path, bytesOf(disk));
    });
  }

  it('holes, zeros and data are what qemu-img maps', async () => {
    const { store } = await openTestStore('in-place', systemClock);
    const golden = await store.createVdisk('golden', 8 * MIB);
    await golden.write(0, new Uint8Array(MIB).fill(1));
    await golden.write(4 * MIB, new Uint8Array(128 * KIB).fill(2));
    await store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
    const clone = await store.clone('golden@v1', 'clone');
    await clone.trim(256 * KIB, 256 * KIB);
    await clone.write(6 * MIB, new Uint8Array(64 * KIB));
    const path = await exported(clone, 'clone.qcow2');
    await store.close();
    const map = (await mapOf(path)).map(({ start, length, data, present }) => {
      return [start / KIB, length / KIB, data ? 'data' : present ? 'zero' : 'hole'];
    });
    assert.deepEqual(map, [
      [0, 256, 'data'],
      [256, 256, 'zero'],
      [512, 512, 'data'],
      [1024, 3072, 'hole'],
      [4096, 128, 'data'],
      [4224, 1920, 'hole'],
      [6144, 64, 'zero'],
      [6208, 1984, 'hole'],
    ]);
    assert.ok(statSync(path).blocks * 512 < 2 * MIB, 'it takes the space of its data');
  });

  it('6 TiB with little in them: both formats stay small', async () => {
    const disk = new MemoryTarget({ sizeBytes: 6 * TIB });
    const places = [0, 512 * MIB - 4096, 512 * MIB, 3 * TIB + 512, 6 * TIB - 1024];
    const sparse = new SparseStatus(disk, places);
    for (const place of places) disk.write(place, new Uint8Array(1024).fill(1 + (place % 250)));
    const path = await exported(sparse, 'large.qcow2');
    assert.match(await runOk('qemu-img', ['check', path]), /No errors were found/);
    const raw = await exportedRaw(sparse, 'large.raw');
    assert.equal(statSync(raw).size, 6 * TIB);
    for (const file of [path, raw]) assert.ok(statSync(file).blocks * 512 < 2 * MIB, file);
    const back = new MemoryTarget({ sizeBytes: 6 * TIB });
    const reader = await openImage(path);
    await importImage(reader, back, { isBlank: true });
    await reader.close();
    for (const place of places) {
      const [was, is] = [new Uint8Array(8192), new Uint8Array(8192)];
      const offset = Math.max(0, Math.min(place - 4096, 6 * TIB - 8192));
      disk.read(offset, was);
      back.read(offset, is);
      assert.deepEqual(is, was);
    }
  });

  it('more than one block of reference counts: 2 GiB of file and more', async () => {
    // One block of counts has 32768 clusters.
    const disk = new PatternDisk(2 * GIB + 64 * MIB);
    const path = await exported(disk, 'counts.qcow2');
    assert.match(await runOk('qemu-img', ['check', path]), /No errors were found/);
    await runOk('rm', [path]);
  });
});

/** A disk of which every cluster has one block of data: large, and quick to read. */
class PatternDisk implements BlockTarget {
  readonly name = 'pattern';
  readonly readOnly = true;
  readonly sizeBytes: number;

  constructor(sizeBytes: number) {
    this.sizeBytes = sizeBytes;
  }

  read(offset: number, into: Uint8Array): void {
    for (let at = 0; at < into.length; at += 64 * KIB) into[at] = 1 + ((offset + at) % 255);
  }

  write(): void {
    throw new Error('read-only');
  }

  trim(): void {
    throw new Error('read-only');
  }

  writeZeroes(): void {
    throw new Error('read-only');
  }

  flush(): Promise<void> {
    return Promise.resolve();
  }

  blockStatus(offset: number, length: number): ReturnType<BlockTarget['blockStatus']> {
    return Promise.resolve([{ offset, length, kind: 'data', depth: 0, filled: false }]);
  }
}

/** The memory target's block status looks at every piece; this one knows where something is. */
class SparseStatus extends MemoryTarget {
  readonly #disk: MemoryTarget;
  readonly #places: readonly number[];

  constructor(disk: MemoryTarget, places: readonly number[]) {
    super({ sizeBytes: disk.sizeBytes });
    this.#disk = disk;
    this.#places = places.map((place) => place - (place % 4096));
  }

  override read(offset: number, into: Uint8Array): void {
    this.#disk.read(offset, into);
  }

  override blockStatus(offset: number, length: number): ReturnType<BlockTarget['blockStatus']> {
    const place = this.#places.find((at) => at + 4096 > offset && at < offset + length);
    const isData = place !== undefined && place <= offset;
    const end = isData ? place + 4096 : Math.min(place ?? offset + length, offset + length);
    const kind = isData ? 'data' : 'hole';
    return Promise.resolve([{ offset, length: end - offset, kind, depth: 0, filled: false }]);
  }
}

describe('through a store', () => {
  for (const medium of MEDIA) {
    it(`${medium}: an image of qemu-img comes out as it went in`, async () => {
      const { store } = await openTestStore(medium, systemClock);
      const path = await folder.create(`in-${medium}.qcow2`, 20 * MIB + 512);
      const writes = [
        'write -P 1 0 3M',
        'write -P 2 5000k 513k',
        'write -z 1M 64k',
        'write -P 3 20M 512',
      ];
      await folder.io(`in-${medium}.qcow2`, writes);
      const reader = await openImage(path);
      const golden = await store.createVdisk('golden', reader.sizeBytes);
      await importImage(reader, golden, { isBlank: true });
      await reader.close();
      assert.equal(store.show('golden').mappedBytes, 3 * MIB - 64 * KIB + 516 * KIB + 4 * KIB);
      await store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
      await golden.write(0, new Uint8Array(MIB).fill(9));
      const out = await exported(store.vdisk('golden@v1'), `out-${medium}.qcow2`);
      await store.close();
      assert.match(await runOk('qemu-img', ['check', out]), /No errors were found/);
      await runOk('qemu-img', ['compare', path, out]);
    });
  }
});

describe('export to raw', () => {
  it('to a file, sparsely; to a pipe, whole', async () => {
    const disk = randomDisk(20 * MIB + 512, 77);
    const path = await exportedRaw(disk, 'plain.raw');
    assert.ok(readFileSync(path).equals(bytesOf(disk)));
    assert.ok(statSync(path).blocks * 512 < 8 * MIB);
    const pipe = folder.at('pipe');
    await runOk('mkfifo', [pipe]);
    const reading = runOk('sh', ['-c', `cat ${pipe} > ${folder.at('piped.raw')}`]);
    const sink = await openSink(pipe);
    await exportRaw(disk, sink);
    await sink.close();
    await reading;
    assert.ok(readFileSync(folder.at('piped.raw')).equals(bytesOf(disk)));
    const stream = { name: 'piped', chunks: createReadStream(folder.at('piped.raw')) };
    const back = new MemoryTarget({ sizeBytes: disk.sizeBytes });
    await importStream(stream, back, { isBlank: true });
    assert.ok(Buffer.compare(bytesOf(back), bytesOf(disk)) === 0);
  });

  it('to a pipe whose reader ends: an error, and nothing hangs', async () => {
    const pipe = folder.at('short-pipe');
    await runOk('mkfifo', [pipe]);
    const reading = runOk('sh', ['-c', `head -c 100000 ${pipe} > /dev/null`]);
    const sink = await openSink(pipe);
    await assert.rejects(exportRaw(randomDisk(20 * MIB, 78), sink), (error) => {
      return isStoreError(error, 'device') && error.message.includes(pipe);
    });
    await sink.close();
    await reading;
  });
});

describe('qemu-nbd, a second opinion', () => {
  it('serves what was exported, and what is imported from it', async () => {
    const disk = randomDisk(9 * MIB, 99);
    const path = await exported(disk, 'served.qcow2');
    const socket = folder.at('socket');
    // Written when it listens; its socket is there a moment before.
    const pid = `${socket}.pid`;
    const args = ['-f', 'qcow2', '-r', '-t', '-k', socket, '--pid-file', pid, path];
    const server = spawn('qemu-nbd', args, { stdio: 'inherit' });
    try {
      const copy = folder.at('served.raw');
      const wait = `until [ -e ${pid} ]; do sleep 0.05; done`;
      await runOk('sh', ['-c', `${wait}; nbdcopy 'nbd+unix:///?socket=${socket}' ${copy}`]);
      assert.ok(readFileSync(copy).equals(bytesOf(disk)));
    } finally {
      server.kill();
    }
  });
});
