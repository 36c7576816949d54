/**
 * File systems of the kernel on disks of a server: ext4 and xfs over a loop device over nbdfuse,
 * with a tree of files, a trim, their own checks, and SQLite, whose client is killed in between.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { KIB, MIB } from '../../../src/base/units.js';
import type { Random } from '../../../src/env/random.js';
import { seededRandom } from '../../../src/env/seeded-random.js';
import { type FileSystem, MountedVdisk, mayMount } from '../../support/mounted-vdisk.js';
import { runOk } from '../nbd/nbd-clients.js';
import { KINDS, type Kind, ServedDisks } from './served-disks.js';

/** xfs wants 300 MiB; the size is odd, as far as a disk may be. */
const SIZE_BYTES = 320 * MIB + 512;
const FILES = 200;
const FILE_BYTES_MAX = 160 * KIB;
const COMMITS_MIN = 5;
const SQLITE_LOAD = resolve('tools/crash-loop/sqlite-load.py');
const PYTHON = '/usr/bin/python3';
const NEEDS_ROOT = mayMount() ? false : 'needs the right to mount: CI has it';

/** What the tree has to hold, by path. */
type Hashes = Map<string, string>;

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function writeSome(root: string, path: string, random: Random, hashes: Hashes): void {
  const bytes = Buffer.alloc(random.below(FILE_BYTES_MAX));
  random.fill(bytes);
  mkdirSync(join(root, path, '..'), { recursive: true });
  writeFileSync(join(root, path), bytes);
  hashes.set(path, sha256(bytes));
}

/** Many files, of which a third is deleted again, and a third written anew. */
function makeTree(root: string, seed: number): Hashes {
  const random = seededRandom(seed);
  const hashes: Hashes = new Map();
  const paths = Array.from({ length: FILES }, (_, n) => `${n % 7}/${n % 11}/file-${n}`);
  for (const path of paths) writeSome(root, path, random, hashes);
  for (const path of paths) {
    const drawn = random.below(3);
    if (drawn === 0) writeSome(root, path, random, hashes);
    if (drawn !== 1) continue;
    rmSync(join(root, path));
    hashes.delete(path);
  }
  return hashes;
}

function compareTree(root: string, hashes: Hashes): void {
  for (const [path, hash] of hashes) {
    assert.equal(sha256(readFileSync(join(root, path))), hash, path);
  }
}

/** Commits until it is killed, by us. */
async function runKilledWriter(database: string, donePath: string, seed: number): Promise<void> {
  const args = [SQLITE_LOAD, 'write', database, donePath, String(seed)];
  const writer = spawn(PYTHON, args, { stdio: ['ignore', 'ignore', 'inherit'] });
  const committed = (): number =>
    existsSync(donePath) ? readFileSync(donePath, 'utf8').split('done').length - 1 : 0;
  const wanted = committed() + COMMITS_MIN;
  while (committed() < wanted && writer.exitCode === null) {
    await new Promise((done) => setTimeout(done, 5));
  }
  writer.kill('SIGKILL');
  const [, signal] = (await once(writer, 'close')) as unknown[];
  assert.equal(signal, 'SIGKILL');
}

async function tryFileSystem(disks: ServedDisks, kind: Kind, fileSystem: FileSystem, seed: number) {
  const name = await disks.make(kind, SIZE_BYTES);
  const folder = disks.lab.path(name);
  const donePath = `${folder}.done`;
  const mounted = await MountedVdisk.attach(disks.uri(name), folder);
  const database = join(mounted.path, 'items.db');
  try {
    await mounted.makeFileSystem(fileSystem);
    await mounted.mount();
    const hashes = makeTree(mounted.path, seed);
    await runKilledWriter(database, donePath, seed);
    await runKilledWriter(database, donePath, seed + 1);
    await runOk('fstrim', [mounted.path]);
    await mounted.unmount();
    await mounted.checkFileSystem(fileSystem);
    await mounted.mount();
    compareTree(mounted.path, hashes);
    const count = await runOk(PYTHON, [SQLITE_LOAD, 'verify', database, donePath]);
    assert.ok(Number(count) >= 2 * COMMITS_MIN, count);
    assert.ok(statSync(database).size > 0);
  } finally {
    await mounted.release();
  }
  await disks.expectSplit(kind, name);
}

describe('file systems of the kernel', { skip: NEEDS_ROOT }, () => {
  let disks: ServedDisks;
  before(async () => {
    disks = await ServedDisks.start();
  });
  after(() => disks.close());

  for (const [index, kind] of KINDS.entries()) {
    it(`ext4 on a ${kind}`, () => tryFileSystem(disks, kind, 'ext4', 1 + index));
    it(`xfs on a ${kind}`, () => tryFileSystem(disks, kind, 'xfs', 11 + index));
  }
});
