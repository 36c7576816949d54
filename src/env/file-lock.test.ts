import assert from 'node:assert/strict';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readlinkSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { isStoreError, type StoreErrorKind } from '../base/store-error.js';
import { BLOCK_BYTES, MIB } from '../base/units.js';
import { type OpenFileOptions, openFileDevice } from './file-device.js';

const folder = mkdtempSync(join(tmpdir(), 'keiki-file-lock-'));
after(() => rm(folder, { recursive: true }));

let files = 0;
function newPath(): string {
  return join(folder, `store-${++files}`);
}

const SPARSE: OpenFileOptions = { create: { sizeBytes: 8 * MIB, preallocate: false } };

function ofKind(kind: StoreErrorKind, ...mentions: string[]): (error: unknown) => boolean {
  return (error) => {
    assert.ok(isStoreError(error, kind), String(error));
    for (const mention of mentions) assert.ok(error.message.includes(mention), error.message);
    return true;
  };
}

/** Another process that opens the path and then holds it until it is killed. */
async function startHolder(path: string, options: OpenFileOptions = {}): Promise<ChildProcess> {
  const module = fileURLToPath(new URL('./file-device.ts', import.meta.url));
  const code = `import(${JSON.stringify(module)})
    .then((module) => module.openFileDevice(${JSON.stringify(path)}, ${JSON.stringify(options)}))
    .then(() => { process.stdout.write('open'); setInterval(() => {}, 1000); });`;
  const nodeOptions = process.execArgv.filter((option) => !option.startsWith('--test'));
  const holder = spawn(process.execPath, [...nodeOptions, '-e', code], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  await once(holder.stdout, 'data');
  return holder;
}

/** Descriptors of this process on the path. */
function descriptorsOf(path: string): string[] {
  return readdirSync('/proc/self/fd').filter((name) => {
    try {
      return readlinkSync(`/proc/self/fd/${name}`) === path;
    } catch {
      return false;
    }
  });
}

describe('file lock', () => {
  test('a second opener of this process is refused until the first closes', async () => {
    const path = newPath();
    const first = await openFileDevice(path, SPARSE);
    await assert.rejects(openFileDevice(path), ofKind('in-use', path));
    await assert.rejects(openFileDevice(path, { readOnly: true }), ofKind('in-use', path));
    assert.equal(descriptorsOf(path).length, 2);
    await first.write(0, [new Uint8Array(BLOCK_BYTES)]);
    await first.close();
    await (await openFileDevice(path)).close();
  });

  test('checkers share, and keep a writer out', async () => {
    const path = newPath();
    await (await openFileDevice(path, SPARSE)).close();
    const checkers = [
      await openFileDevice(path, { readOnly: true }),
      await openFileDevice(path, { readOnly: true }),
    ];
    await assert.rejects(openFileDevice(path), ofKind('in-use', path));
    await checkers[0]?.close();
    await assert.rejects(openFileDevice(path), ofKind('in-use', path));
    await checkers[1]?.close();
    await (await openFileDevice(path)).close();
  });

  test('another process keeps us out until it is killed, and not longer', async () => {
    const path = newPath();
    const holder = await startHolder(path, SPARSE);
    try {
      for (let attempt = 0; attempt < 3; attempt++) {
        await assert.rejects(openFileDevice(path), ofKind('in-use', path));
      }
    } finally {
      holder.kill('SIGKILL');
      await once(holder, 'exit');
    }
    await (await openFileDevice(path)).close();
  });

  test('we keep another process out', async () => {
    const path = newPath();
    const device = await openFileDevice(path, SPARSE);
    const other = spawn('flock', ['-n', path, 'true']);
    assert.equal((await once(other, 'exit'))[0], 1);
    await device.close();
    const again = spawn('flock', ['-n', path, 'true']);
    assert.equal((await once(again, 'exit'))[0], 0);
  });

  test('a process that we start does not keep the lock after us', async () => {
    const path = newPath();
    const device = await openFileDevice(path, SPARSE);
    const other = spawn('sleep', ['60']);
    await once(other, 'spawn');
    await device.close();
    await (await openFileDevice(path)).close();
    other.kill('SIGKILL');
  });

  test('without the command flock it says what to install', async () => {
    const path = newPath();
    const { PATH } = process.env;
    process.env.PATH = folder;
    try {
      await assert.rejects(openFileDevice(path, SPARSE), ofKind('unsupported', 'util-linux'));
    } finally {
      process.env.PATH = PATH;
    }
    assert.deepEqual(descriptorsOf(path), []);
    await (await openFileDevice(path, SPARSE)).close();
  });
});
