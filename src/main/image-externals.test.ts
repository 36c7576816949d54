/** External backing stores in files of the real file system: what is found out, what is said. */
import assert from 'node:assert/strict';
import {
  copyFile,
  mkdtemp,
  open,
  rename,
  rm,
  stat,
  unlink,
  utimes,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { buildChain } from '../../test/support/qcow2-builder.js';
import { ofKind, pattern, reads, same } from '../../test/support/stores.js';
import { BLOCK_BYTES, KIB, MIB } from '../base/units.js';
import type { LogEvent } from '../env/log-sink.js';
import { MemoryDevice } from '../env/memory-device.js';
import { formatStore, openStore } from './open-store.js';
import type { Store } from './store.js';

class Lab {
  readonly folder: string;
  readonly events: LogEvent[] = [];
  store: Store;
  #device: MemoryDevice;

  constructor(folder: string, device: MemoryDevice, store: Store) {
    this.folder = folder;
    this.#device = device;
    this.store = store;
  }

  path(name: string): string {
    return join(this.folder, name);
  }

  async reopen(): Promise<Store> {
    await this.store.close();
    this.#device = this.#device.reopen();
    const source = { kind: 'device', device: this.#device } as const;
    this.store = await openStore(source, { log: (event) => this.events.push(event) });
    return this.store;
  }
}

async function withLab(body: (lab: Lab) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'keiki-external-'));
  const device = new MemoryDevice({ sizeBytes: 64 * MIB });
  try {
    await formatStore({ kind: 'device', device });
    const lab = new Lab(
      folder,
      device,
      await openStore({ kind: 'device', device: device.reopen() }),
    );
    await body(lab);
    await lab.store.close();
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Writes into the file, and gives it the time of before. */
async function edit(path: string, at: number, byte: number, keepTime: boolean): Promise<void> {
  const { atime, mtime } = await stat(path);
  const file = await open(path, 'r+');
  await file.write(Uint8Array.of(byte), 0, 1, at);
  await file.close();
  if (keepTime) await utimes(path, atime, mtime);
}

/** top.qcow2 over base.qcow2, and what a disk of them reads as. */
async function writeChain(lab: Lab): Promise<Uint8Array> {
  const { base, top, disk } = buildChain('base.qcow2');
  await writeFile(lab.path('base.qcow2'), base);
  await writeFile(lab.path('top.qcow2'), top);
  return disk;
}

test('a raw file: read, split, and gone', async () => {
  await withLab(async (lab) => {
    const path = lab.path('disk.raw');
    const bytes = pattern(MIB + 512, 1);
    await writeFile(path, bytes);
    await lab.store.createExternal('image', path);
    const clone = await lab.store.clone('image', 'clone');
    await reads(clone, bytes);
    assert.deepEqual(lab.store.show('image').external, {
      format: 'raw',
      files: [path],
      trouble: undefined,
    });
    const store = await lab.reopen();
    await reads(store.vdisk('clone'), bytes);
    await (await store.split('clone', { mode: 'copy' })).done;
    await store.delete('image');
    await unlink(path);
    await lab.reopen();
    await reads(lab.store.vdisk('clone'), bytes);
  });
});

test('a qcow2 file with the one behind it', async () => {
  await withLab(async (lab) => {
    const disk = await writeChain(lab);
    await lab.store.createExternal('image', lab.path('top.qcow2'));
    const { external } = lab.store.show('image');
    assert.deepEqual(external?.files, [lab.path('top.qcow2'), lab.path('base.qcow2')]);
    const clone = await lab.store.clone('image', 'clone');
    await reads(clone, disk);
    const kinds = (await clone.blockStatus(0, disk.length)).map(({ kind, length }) => [
      kind,
      length / BLOCK_BYTES,
    ]);
    assert.deepEqual(kinds, [
      ['data', 32],
      ['hole', 16],
      ['data', 15.875],
    ]);
    await lab.reopen();
    await reads(lab.store.vdisk('clone'), disk);
    // The file behind it is another one now.
    await writeFile(lab.path('base.qcow2'), new Uint8Array(64 * KIB));
    const changed = ofKind('corrupt', 'base.qcow2');
    await assert.rejects(async () => lab.store.vdisk('clone').read(0, new Uint8Array(10)), changed);
  });
});

test('a missing file: the store opens, and says what is missing; it comes back', async () => {
  await withLab(async (lab) => {
    const path = lab.path('disk.raw');
    const bytes = pattern(MIB, 2);
    await writeFile(path, bytes);
    await lab.store.createExternal('image', path);
    await lab.store.clone('image', 'clone');
    await rename(path, lab.path('elsewhere'));
    const store = await lab.reopen();
    await store.lookAtExternal('image');
    assert.match(store.show('image').external?.trouble ?? '', /disk\.raw.*put it back/);
    const warned = lab.events.filter(({ event }) => event === 'external-trouble');
    assert.equal(warned.length, 1, 'once, not at every read');
    const clone = store.vdisk('clone');
    await assert.rejects(async () => clone.read(0, new Uint8Array(1)), ofKind('device', path));
    await rename(lab.path('elsewhere'), path);
    await reads(clone, bytes);
    assert.equal(store.show('image').external?.trouble, undefined);
    assert.ok(lab.events.some(({ event }) => event === 'external-back'));
  });
});

test('a file that is changed while it is read, or before: never mixed bytes', async () => {
  await withLab(async (lab) => {
    const path = lab.path('disk.raw');
    const bytes = pattern(MIB, 3);
    await writeFile(path, bytes);
    await lab.store.createExternal('image', path);
    const clone = await lab.store.clone('image', 'clone');
    await reads(clone, bytes);
    // In its middle: size and both ends stay.
    await edit(path, MIB / 2, 0x55, false);
    const changed = ofKind('corrupt', 'it was written to');
    const into = new Uint8Array(BLOCK_BYTES);
    await assert.rejects(async () => clone.read(0, into), changed);
    await assert.rejects(async () => clone.write(5, into.subarray(0, 9)), changed);
    await clone.write(BLOCK_BYTES, into);
    await lab.reopen();
    await assert.rejects(async () => lab.store.vdisk('clone').read(0, into), changed);
  });
});

test('each thing that tells of a change: size, first bytes, last bytes, time', async () => {
  await withLab(async (lab) => {
    const path = lab.path('disk.raw');
    const copy = lab.path('copy');
    const bytes = pattern(MIB, 4);
    await writeFile(path, bytes);
    const { atime, mtime } = await stat(path);
    await utimes(path, atime, mtime);
    await copyFile(path, copy);
    await lab.store.createExternal('image', path);
    await lab.store.clone('image', 'clone');
    const readIt = async (): Promise<void> => {
      await lab.store.vdisk('clone').read(MIB / 2, new Uint8Array(10));
    };
    await readIt();
    const changes: [() => Promise<void>, RegExp][] = [
      [() => edit(path, 5, 0xff ^ (bytes[5] as number), true), /its first bytes/],
      [() => edit(path, MIB - 5, 0xff ^ (bytes[MIB - 5] as number), true), /its last bytes/],
      [() => writeFile(path, bytes.subarray(0, MIB - 512)), /1048064 bytes, not 1048576/],
      [() => utimes(path, atime, new Date(1e12)), /it was written to/],
    ];
    for (const [change, says] of changes) {
      await change();
      await assert.rejects(readIt, says);
      // As it was, though in another file.
      await unlink(path);
      await copyFile(copy, path);
      await utimes(path, atime, mtime);
      await readIt();
    }
  });
});

test('touched, renamed, its rights changed: the same bytes, and no fuss', async () => {
  await withLab(async (lab) => {
    const path = lab.path('disk.raw');
    const bytes = pattern(2 * MIB, 5);
    await writeFile(path, bytes);
    const { atime, mtime } = await stat(path);
    await utimes(path, atime, mtime);
    await lab.store.createExternal('image', path);
    const clone = await lab.store.clone('image', 'clone');
    let isOver = false;
    const touching = (async () => {
      for (let turn = 0; turn < 5 && !isOver; turn++) {
        await utimes(path, atime, mtime); // changes ctime alone
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
    })();
    const parts = Array.from({ length: 64 }, async (_, index) => {
      const into = new Uint8Array(32 * KIB);
      await clone.read(index * 32 * KIB, into);
      same(into, bytes.subarray(index * 32 * KIB, (index + 1) * 32 * KIB), `part ${index}`);
    });
    await Promise.all(parts).finally(() => {
      isOver = true;
    });
    await touching;
    await reads(clone, bytes);
  });
});

test('relocate: a copy, another disk, and one that is trusted', async () => {
  await withLab(async (lab) => {
    const disk = await writeChain(lab);
    const { store } = lab;
    await store.createExternal('image', lab.path('top.qcow2'));
    await store.clone('image', 'clone');
    const raw = lab.path('same.raw');
    await writeFile(raw, disk);
    await assert.rejects(
      store.relocate('image', raw, { format: 'raw' }),
      ofKind('invalid', 'trust'),
    );
    const other = lab.path('other.raw');
    await writeFile(other, new Uint8Array(MIB));
    const trust = { format: 'raw', trust: true } as const;
    await assert.rejects(store.relocate('image', other, trust), ofKind('invalid', 'another disk'));
    await assert.rejects(store.relocate('image', lab.path('none')), ofKind('not-found'));
    await assert.rejects(store.relocate('clone', raw, trust), ofKind('invalid', 'no external'));
    await unlink(lab.path('top.qcow2'));
    await store.relocate('image', raw, trust);
    await reads(store.vdisk('clone'), disk);
    await rename(raw, lab.path('moved.raw'));
    await store.relocate('image', lab.path('moved.raw'));
    await lab.reopen();
    await reads(lab.store.vdisk('clone'), disk);
    assert.deepEqual(lab.store.show('image').external?.files, [lab.path('moved.raw')]);
  });
});

test('what cannot become one: too small, no image, damaged, not there', async () => {
  await withLab(async (lab) => {
    const { store } = lab;
    const path = lab.path('file');
    await writeFile(path, '');
    await assert.rejects(store.createExternal('a', path), ofKind('invalid', 'cannot have 0 bytes'));
    await writeFile(path, 'KDMV, and what VMware has behind it');
    await assert.rejects(store.createExternal('a', path), ofKind('unsupported'));
    await assert.rejects(store.createExternal('a', path, { format: 'qcow2' }));
    await assert.rejects(store.createExternal('a', lab.folder), ofKind('invalid'));
    await assert.rejects(store.createExternal('a@b', path, { format: 'raw' }), ofKind('invalid'));
    assert.deepEqual(store.list(), []);
  });
});
