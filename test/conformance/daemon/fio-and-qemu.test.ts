/**
 * fio's verification, and qemu-nbd as a second opinion on what is exported, against disks of a
 * server: sizes are any multiple of 512, up to 6 TiB.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { MIB, TIB } from '../../../src/base/units.js';
import { nbdsh, runOk } from '../nbd/nbd-clients.js';
import { KINDS, type Kind, ServedDisks } from './served-disks.js';

const SIZES = [64 * MIB + 512, 6 * TIB];
const MAIN = resolve('src/cli/main.ts');

let disks: ServedDisks;
before(async () => {
  disks = await ServedDisks.start();
});
after(() => disks.close());

async function fio(name: string, ...options: string[]): Promise<void> {
  const all = ['--ioengine=nbd', `--uri=${disks.uri(name)}`, '--name=job', ...options];
  await runOk('fio', all, disks.lab.folder);
}

/** The last 48 MiB, so that the end of the disk is among it. */
async function verifyWithFio(kind: Kind, sizeBytes: number): Promise<void> {
  const name = await disks.make(kind, sizeBytes);
  const place = [`--offset=${sizeBytes - 48 * MIB}`, '--size=48m', '--blockalign=512'];
  await fio(
    name,
    ...place,
    '--rw=randwrite',
    '--bsrange=512-96k',
    '--bs_unaligned=0',
    '--io_size=24m',
    '--norandommap=0',
    '--random_generator=lfsr',
    '--verify=sha256',
    '--iodepth=24',
    '--fsync=48',
  );
  await fio(
    name,
    ...place,
    '--rw=randrw',
    '--rwmixread=30',
    '--bs=4k',
    '--io_size=12m',
    '--verify=crc32c',
    '--verify_backlog=64',
    '--iodepth=16',
  );
  await fio(name, ...place, '--rw=randtrim', '--bs=64k', '--io_size=8m', '--iodepth=8');
  await disks.expectSplit(kind, name);
}

describe("fio's verification", () => {
  for (const kind of KINDS) {
    for (const sizeBytes of SIZES) {
      it(`${kind} of ${sizeBytes} bytes`, () => verifyWithFio(kind, sizeBytes));
    }
  }
});

/** What qemu-nbd reads from our qcow2 file is what our own server serves. */
async function compareExport(kind: Kind, sizeBytes: number): Promise<void> {
  const name = await disks.make(kind, sizeBytes);
  await nbdsh(
    disks.uri(name),
    `
s = h.get_size()
for o in (0, 5000, 1 << 20, 33 << 20, s - 70000): h.pwrite(bytes([1 + o % 250]) * 70000, o)
h.zero(1 << 20, 8 << 20)
h.trim(1 << 20, 40 << 20)
h.flush()
`,
  );
  const image = disks.lab.path(`${name}.qcow2`);
  const socket = disks.lab.path(`${name}.sock`);
  const command = ['--import', 'tsx', MAIN, '--api', disks.lab.path('api')];
  await runOk(process.execPath, [...command, 'export', name, image], resolve('.'));
  await runOk('qemu-img', ['check', '-q', image]);
  // Written when it listens; its socket is there a moment before.
  const ready = ['--pid-file', `${socket}.pid`];
  const server = spawn('qemu-nbd', ['-r', '-t', '-f', 'qcow2', '-k', socket, ...ready, image]);
  const closed = once(server, 'close');
  try {
    while (!existsSync(`${socket}.pid`) && server.exitCode === null) await sleep(5);
    const other = `nbd+unix:///?socket=${socket}`;
    await runOk('qemu-img', ['compare', '-q', '-f', 'raw', '-F', 'raw', disks.uri(name), other]);
  } finally {
    server.kill();
    await closed;
  }
  await disks.expectSplit(kind, name);
}

describe('qemu-nbd', () => {
  for (const kind of KINDS) {
    it(`serves what was exported of a ${kind}`, () => compareExport(kind, 64 * MIB + 512));
  }
});
