import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { linkSync, mkdtempSync, readdirSync, readlinkSync, symlinkSync } from 'node:fs';
import { rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, it } from 'node:test';
import { isStoreError, type StoreErrorKind } from '../base/store-error.js';
import { openFileForReading, openSource } from './file-source.js';

const folder = mkdtempSync(join(tmpdir(), 'keiki-file-source-'));
after(() => rm(folder, { recursive: true }));

let files = 0;
async function newFile(bytes: Uint8Array): Promise<string> {
  const path = join(folder, `file-${++files}`);
  await writeFile(path, bytes);
  return path;
}

function ofKind(kind: StoreErrorKind, ...mentions: string[]): (error: unknown) => boolean {
  return (error) => {
    assert.ok(isStoreError(error, kind), String(error));
    for (const mention of mentions) assert.ok(error.message.includes(mention), error.message);
    return true;
  };
}

function descriptorCount(path: string): number {
  return readdirSync('/proc/self/fd').filter((name) => {
    try {
      return readlinkSync(`/proc/self/fd/${name}`) === path;
    } catch {
      return false;
    }
  }).length;
}

const BYTES = Uint8Array.from({ length: 10_000 }, (_, index) => index % 251);

describe('a file that is read', () => {
  it('at every alignment, many at once', async () => {
    const file = await openFileForReading(await newFile(BYTES));
    assert.equal(file.sizeBytes, BYTES.length);
    const reads = Array.from({ length: 200 }, async (_, index) => {
      const [offset, length] = [index * 49, index % 7 === 0 ? 0 : 1 + ((index * 37) % 200)];
      const into = new Uint8Array(length);
      await file.read(offset, into);
      assert.deepEqual(into, BYTES.slice(offset, offset + length));
    });
    await Promise.all(reads);
    await file.close();
  });

  it('refuses ranges beyond it, and everything once it is closed', async () => {
    const path = await newFile(BYTES);
    const file = await openFileForReading(path);
    for (const [offset, length] of [
      [-1, 1],
      [10_000, 1],
      [9_999, 2],
      [Number.NaN, 1],
    ] as const) {
      await assert.rejects(file.read(offset, new Uint8Array(length)), ofKind('invalid', path));
    }
    const last = file.read(0, new Uint8Array(10_000));
    await Promise.all([file.close(), file.close(), last]);
    assert.equal(descriptorCount(path), 0);
    await assert.rejects(file.read(0, new Uint8Array(1)), ofKind('closed', path));
  });

  it('says so if it was cut off meanwhile', async () => {
    const path = await newFile(BYTES);
    const file = await openFileForReading(path);
    await truncate(path, 5000);
    await file.read(4000, new Uint8Array(1000));
    const told = ofKind('device', path, 'byte 5000', '10000 bytes');
    await assert.rejects(file.read(4000, new Uint8Array(1001)), told);
    await file.close();
  });

  it('is the same under all its names', async () => {
    const path = await newFile(BYTES);
    const [link, symlink] = [`${path}-link`, `${path}-symlink`];
    linkSync(path, link);
    symlinkSync(path, symlink);
    const same = await Promise.all([path, link, symlink].map(openFileForReading));
    const other = await openFileForReading(await newFile(BYTES));
    assert.equal(new Set(same.map(({ identity }) => identity)).size, 1);
    assert.notEqual(other.identity, same[0]?.identity);
    await Promise.all([...same, other].map((file) => file.close()));
  });
});

describe('what is opened', () => {
  it('neither what is not there, nor a folder, nor a pipe as a file', async () => {
    const pipe = join(folder, 'pipe');
    execFileSync('mkfifo', [pipe]);
    await assert.rejects(openFileForReading(join(folder, 'none')), ofKind('not-found'));
    await assert.rejects(openFileForReading(folder), ofKind('invalid'));
    await assert.rejects(openFileForReading(pipe), ofKind('invalid', pipe));
    await assert.rejects(openSource(folder), ofKind('invalid', 'directory'));
    await assert.rejects(openSource(join(folder, 'none')), ofKind('not-found'));
  });

  it('a pipe as a stream, a file as a file', async () => {
    const pipe = join(folder, 'stream');
    execFileSync('mkfifo', [pipe]);
    const writer = spawn('sh', ['-c', `head -c 200000 /dev/zero > ${pipe}`]);
    const source = await openSource(pipe);
    assert.ok(source.kind === 'stream');
    let length = 0;
    for await (const chunk of source.chunks) length += chunk.length;
    assert.equal(length, 200_000);
    assert.equal(writer.exitCode ?? 0, 0);
    const other = await openSource(await newFile(BYTES));
    assert.ok(other.kind === 'file');
    await other.file.close();
  });
});
