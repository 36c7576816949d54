/** qemu's programs, nbdkit's client plugin, fio. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { MIB } from '../../../src/base/units.js';
import { MemoryTarget } from '../../support/memory-target.js';
import { run, runOk, type ServedForClients, serveForClients } from './nbd-clients.js';

const disk = new MemoryTarget({ name: 'disk', sizeBytes: 64 * MIB });
let served: ServedForClients;
let uri: string;
let source: string;

before(async () => {
  served = await serveForClients([disk]);
  uri = served.uri('disk');
  source = join(served.folder, 'source');
  const image = Buffer.alloc(64 * MIB);
  for (let at = MIB; at < 4 * MIB; at++) image[at] = 1 + (at % 255);
  image.fill(9, 64 * MIB - 65536);
  writeFileSync(source, image);
});
after(() => served.close());

/** qemu-io tells failures on its output and exits with 0 or 1 as it likes. */
async function qemuIo(...commands: string[]): Promise<void> {
  const args = commands.flatMap((command) => ['-c', command]);
  const { code, stdout, stderr } = await run('qemu-io', ['-f', 'raw', '-t', 'none', ...args, uri]);
  assert.ok(code === 0 && !/failed|Pattern|rror:/.test(stdout + stderr), stdout + stderr);
}

describe('qemu-img', () => {
  it('converts in, compares, maps', async () => {
    const args = ['convert', '-n', '-W', '-m', '8', '-f', 'raw', '-O', 'raw', source, uri];
    await runOk('qemu-img', args);
    await runOk('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', source, uri]);
    const map = JSON.parse(await runOk('qemu-img', ['map', '--output=json', '-f', 'raw', uri])) as {
      start: number;
      length: number;
      data: boolean;
      zero: boolean;
    }[];
    assert.deepEqual(
      map.filter(({ data }) => data).map(({ start, length }) => [start, length]),
      [
        [MIB, 3 * MIB],
        [64 * MIB - 65536, 65536],
      ],
    );
    assert.ok(map.every(({ data, zero }) => data !== zero));
  });

  it('converts to qcow2 and back', async () => {
    const image = join(served.folder, 'image.qcow2');
    await runOk('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', uri, image]);
    await runOk('qemu-img', ['check', image]);
    await runOk('qemu-img', ['compare', '-f', 'raw', '-F', 'qcow2', source, image]);
    await runOk('qemu-img', ['convert', '-n', '-f', 'qcow2', '-O', 'raw', image, uri]);
    await runOk('qemu-img', ['compare', '-f', 'raw', '-F', 'raw', source, uri]);
  });

  it('writes at depth 64 with a flush now and then', async () => {
    const args = ['bench', '-w', '-c', '4000', '-d', '64', '-s', '4096', '--flush-interval=100'];
    await runOk('qemu-img', [...args, '-t', 'none', '-f', 'raw', uri]);
  });
});

describe('qemu-io', () => {
  it('writes with FUA, zeroes with and without unmap, discards', () =>
    qemuIo(
      'write -f -P 1 0 64k',
      'read -P 1 0 64k',
      'write -z 4k 8k',
      'read -P 0 4k 8k',
      'write -z -u 16k 16k',
      'read -P 0 16k 16k',
      'discard 32k 16k',
      'read -P 1 48k 16k',
      'flush',
    ));

  it('reads what it wrote at odd offsets, and 32 MiB at once', () =>
    qemuIo(
      'write -P 5 511 1025',
      'read -P 5 511 1025',
      'write -P 8 0 32M',
      'read -P 8 0 32M',
      'aio_write -P 3 0 1M',
      'aio_write -P 4 1M 1M',
      'aio_flush',
      'read -P 3 0 1M',
      'read -P 4 1M 1M',
    ));
});

describe('clients that die', () => {
  it('in mid-request leave nothing behind', async () => {
    for (let round = 0; round < 5; round++) {
      const args = ['bench', '-w', '-c', '1000000', '-d', '64', '-s', '65536', '-t', 'none'];
      const client = spawn('/usr/bin/qemu-img', [...args, '-f', 'raw', uri], { stdio: 'ignore' });
      const isWriting = (): boolean =>
        served.server.connections().some(({ counts }) => (counts?.writes ?? 0) > 50);
      while (!isWriting()) await new Promise((resolve) => setImmediate(resolve));
      client.kill('SIGKILL');
      await once(client, 'exit');
    }
    while (served.server.connections().length > 0) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    assert.equal(served.server.heldBytes(), 0);
    assert.equal(served.exports.detachedNames.length, served.exports.attachedNames.length);
    assert.equal((await runOk('nbdinfo', ['--size', uri])).trim(), String(64 * MIB));
  });
});

describe("nbdkit's nbd plugin", () => {
  it('passes everything on, for a client behind it', async () => {
    await runOk('nbdcopy', [source, uri]);
    const copy = join(served.folder, 'copy');
    const target = `socket=${served.socketPath}`;
    const script = `nbdcopy "$uri" ${copy} && nbdinfo --map "$uri" | grep -c .`;
    const args = ['-U', '-', 'nbd', target, 'export=disk', '--run', script];
    assert.ok(Number((await runOk('nbdkit', args)).trim()) >= 3);
    assert.ok(readFileSync(copy).equals(readFileSync(source)));
  });
});

describe('fio', () => {
  const fio = async (name: string, ...args: string[]): Promise<void> => {
    const all = ['--ioengine=nbd', `--uri=${uri}`, `--name=${name}`, ...args];
    await runOk('fio', all, served.folder);
  };

  it('verifies random blocks of mixed sizes', () =>
    fio(
      'mixed',
      '--rw=randwrite',
      '--bssplit=512/20:4k/40:12k/20:64k/10:1m/10',
      '--size=32m',
      '--verify=crc32c',
      '--iodepth=16',
      '--random_generator=lfsr',
    ));

  it('verifies four connections at once, with flushes', () =>
    fio(
      'jobs',
      '--rw=randwrite',
      '--bs=8k',
      '--size=8m',
      '--numjobs=4',
      '--offset_increment=16m',
      '--fsync=32',
      '--verify=md5',
      '--iodepth=8',
      '--group_reporting=1',
    ));
});
