import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync } from 'node:fs';
import { readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { isStoreError, type StoreErrorKind } from '../base/store-error.js';
import { MIB } from '../base/units.js';
import { openFileDevice } from './file-device.js';
import { type FileSink, openSink } from './file-sink.js';

const folder = mkdtempSync(join(tmpdir(), 'keiki-file-sink-'));
after(() => rm(folder, { recursive: true }));

let files = 0;
function newPath(): string {
  return join(folder, `sink-${++files}`);
}

function ofKind(kind: StoreErrorKind, ...mentions: string[]): (error: unknown) => boolean {
  return (error) => {
    assert.ok(isStoreError(error, kind), String(error));
    for (const mention of mentions) assert.ok(error.message.includes(mention), error.message);
    return true;
  };
}

async function fileSink(path: string, overwrite = false): Promise<FileSink> {
  const sink = await openSink(path, { overwrite });
  assert.ok(sink.kind === 'file');
  return sink;
}

describe('a file that is written', () => {
  it('has holes where nothing was written', async () => {
    const path = newPath();
    const sink = await fileSink(path);
    assert.equal(sink.isBlank, true);
    await sink.setSize(16 * MIB);
    await sink.write(8 * MIB + 100, new Uint8Array(50).fill(7));
    await sink.sync();
    await sink.close();
    const bytes = await readFile(path);
    assert.equal(bytes.length, 16 * MIB);
    assert.ok(bytes.subarray(8 * MIB + 100, 8 * MIB + 150).every((byte) => byte === 7));
    assert.equal(
      bytes.reduce((sum, byte) => sum + byte, 0),
      350,
    );
    assert.ok((await stat(path)).blocks * 512 < MIB);
  });

  it('is a new one, unless told to overwrite; then nothing old is left', async () => {
    const path = newPath();
    await writeFile(path, 'precious');
    await assert.rejects(openSink(path), ofKind('exists', path, 'overwrite'));
    assert.equal(await readFile(path, 'utf8'), 'precious');
    const sink = await fileSink(path, true);
    await sink.setSize(4);
    await sink.close();
    assert.deepEqual([...(await readFile(path))], [0, 0, 0, 0]);
  });

  it('is not a store that is open', async () => {
    const path = newPath();
    const device = await openFileDevice(path, { create: { sizeBytes: MIB, preallocate: false } });
    await assert.rejects(openSink(path, { overwrite: true }), ofKind('in-use', path));
    assert.equal((await stat(path)).size, MIB);
    await device.close();
  });

  it('goes away when it is discarded', async () => {
    const path = newPath();
    const sink = await fileSink(path);
    await sink.write(0, new Uint8Array(100));
    await sink.discard();
    await assert.rejects(stat(path));
  });

  it('names what cannot be opened or written', async () => {
    await assert.rejects(openSink(folder), ofKind('invalid', 'directory'));
    await assert.rejects(openSink(join(newPath(), 'x')), ofKind('not-found'));
    const sink = await fileSink(newPath());
    await assert.rejects(sink.setSize(2 ** 63), ofKind('device', 'truncate'));
    await sink.close();
    await assert.rejects(sink.write(0, new Uint8Array(1)), ofKind('device', 'write at 0'));
  });
});

describe('a device that is full', () => {
  it('says that there is no space', async () => {
    const sink = await openSink('/dev/full');
    assert.ok(sink.kind === 'stream');
    await assert.rejects(sink.write(new Uint8Array(10)), ofKind('device', '/dev/full', 'full'));
    await sink.close();
  });
});

describe('a pipe that is written', () => {
  it('gets all bytes in order', async () => {
    const [pipe, copy] = [newPath(), newPath()];
    execFileSync('mkfifo', [pipe]);
    const reader = spawn('sh', ['-c', `cat ${pipe} > ${copy}`], { stdio: 'ignore' });
    const sink = await openSink(pipe);
    assert.ok(sink.kind === 'stream');
    for (let value = 1; value <= 20; value++) await sink.write(new Uint8Array(99_999).fill(value));
    await sink.close();
    await once(reader, 'exit');
    assert.equal(readFileSync(copy).length, 20 * 99_999);
    assert.ok(readFileSync(copy).every((byte, at) => byte === 1 + Math.floor(at / 99_999)));
  });
});
