/** qemu-img and qemu-io, with each of their ways to ask, against disks of a server. */
import assert from 'node:assert/strict';
import { truncateSync, writeFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { MIB } from '../../../src/base/units.js';
import { GOLDEN_BYTES, HELD_BYTES, HELD_KINDS, HeldDisks } from './held-disks.js';
import { run, runOk } from './nbd-clients.js';

let disks: HeldDisks;
before(async () => {
  disks = await HeldDisks.start();
});
after(() => disks.close());

const RAW = ['-f', 'raw'];

/** qemu-io tells failures on its output and exits with 0 or 1 as it likes. */
async function qemuIo(uri: string, ...commands: string[]): Promise<string> {
  const args = commands.flatMap((command) => ['-c', command]);
  const { code, stdout, stderr } = await run('qemu-io', [...RAW, '-t', 'none', ...args, uri]);
  assert.ok(code === 0 && !/failed|Pattern|rror:/.test(stdout + stderr), stdout + stderr);
  return stdout;
}

/** As text, for disks of one server are compared in mid-work. */
async function compare(one: string, other: string, otherFormat = 'raw'): Promise<void> {
  await runOk('qemu-img', ['compare', '-q', ...RAW, '-F', otherFormat, one, other]);
}

for (const name of HELD_KINDS) {
  describe(`qemu-io on ${name}`, () => {
    it('writes in every way it has, and reads it back', async () => {
      await qemuIo(
        disks.uri(name),
        ...['write -P 1 0 64k', 'write -f -P 2 64k 64k', 'writev -P 3 128k 4k 512 8k 60k'],
        ...['writev -f -P 4 256k 64k 64k', 'aio_write -P 5 1M 1M', 'aio_write -f -P 6 2M 512'],
        ...['aio_write -z 3M 64k', 'aio_write -z -u 4M 1M', 'aio_flush'],
        ...['write -z 8k 4k', 'write -z -u 16k 8k', 'write -z -f 32k 4k', 'write -z -u -f 40k 512'],
        ...['write -z -u -n 96k 4k', 'discard 100k 8k', 'discard 5M 1M', 'flush'],
        ...['read -P 1 0 8k', 'read -P 0 8k 4k', 'read -P 1 12k 4k', 'read -P 0 16k 8k'],
        ...['read -P 1 24k 8k', 'read -P 0 32k 4k', 'read -P 1 36k 4k', 'read -P 0 40k 512'],
        ...[
          'read -P 1 41472 23552',
          'read -P 2 64k 32k',
          'read -P 0 96k 12k',
          'read -P 2 108k 20k',
        ],
        ...['readv -P 3 128k 512 4k 60k 8k', 'read -P 4 256k 128k', 'aio_read -P 5 1M 512k 512k'],
        ...['read -P 6 2M 512', 'read -P 0 3M 64k', 'read -P 0 4M 2M', 'aio_flush'],
        ...['read -P 0 -s 512 -l 1024 4M 4k'],
        // The end, which is no whole block.
        ...[`write -f -P 8 ${HELD_BYTES - 1024} 1k`, `write -z -u ${HELD_BYTES - 512} 512`],
        ...[`read -P 8 ${HELD_BYTES - 1024} 512`, `read -P 0 ${HELD_BYTES - 512} 512`],
      );
    });

    it('says what is allocated, and how long it is, also when it is opened again', async () => {
      const out = await qemuIo(
        disks.uri(name),
        ...['length', 'alloc 0 512', 'alloc 4M 1M', 'map', 'reopen -r', 'read -P 1 0 8k'],
        ...['reopen -w', 'write -P 9 0 512', 'reopen -c none', 'read -P 9 0 512', 'close'],
      );
      // In MiB, rounded: a multiple of 512 shows as what it is by info alone.
      assert.match(out, /^36 MiB\n/);
      assert.match(out, /^512\/512 bytes allocated at offset 0 bytes$/m);
      // To qemu all of a raw disk is allocated in its one layer: what counts is that it ends right.
      assert.match(out, /^1048576\/1048576 bytes allocated at offset 4 MiB$/m);
      assert.match(out, /^36 MiB \(0x2400200\) bytes +allocated at offset 0 bytes \(0x0\)$/m);
    });

    it('is refused beyond the end, and goes on', async () => {
      const commands = [`read ${HELD_BYTES} 512`, `write ${HELD_BYTES - 512} 1k`, 'read 0 512'];
      const args = commands.flatMap((command) => ['-c', command]);
      const { stdout, stderr } = await run('qemu-io', [...RAW, ...args, disks.uri(name)]);
      assert.equal((stdout + stderr).match(/failed: Input\/output error/g)?.length, 2, stderr);
      assert.match(stdout, /read 512\/512 bytes at offset 0/);
      // -n alone wants zeroes that keep their space, and quickly: nothing here can be kept.
      const noFast = ['-c', 'write -q -z -n 0 4k', '-c', 'write -q -z -n -u 0 4k', disks.uri(name)];
      const answers = await run('qemu-io', [...RAW, '-t', 'none', ...noFast]);
      assert.equal(answers.stdout, 'write failed: Operation not supported\n', answers.stderr);
    });
  });

  describe(`qemu-img on ${name}`, () => {
    it('info, measure, check', async () => {
      for (const uri of [disks.uri(name), disks.tcpUri(name)]) {
        const info = await runOk('qemu-img', ['info', '--output=json', ...RAW, uri]);
        const { format, 'virtual-size': size } = JSON.parse(info) as Record<string, unknown>;
        assert.deepEqual({ format, size }, { format: 'raw', size: HELD_BYTES });
      }
      const args = ['measure', '--output=json', '-O', 'qcow2', ...RAW, disks.uri(name)];
      const { required, 'fully-allocated': all } = JSON.parse(await runOk('qemu-img', args)) as {
        required: number;
        'fully-allocated': number;
      };
      assert.ok(required < 20 * MIB && all > HELD_BYTES, `${required} of ${all} bytes`);
      const { code, stderr } = await run('qemu-img', ['check', ...RAW, disks.uri(name)]);
      assert.equal(code, 63);
      assert.match(stderr, /does not support checks/);
    });

    it('convert out as qcow2 and back, compare, dd', async () => {
      const uri = disks.uri(name);
      const image = disks.lab.path(`${name}.qcow2`);
      await runOk('qemu-img', [
        'convert',
        '-c',
        '-W',
        '-m',
        '4',
        ...RAW,
        '-O',
        'qcow2',
        uri,
        image,
      ]);
      await runOk('qemu-img', ['check', '-q', image]);
      await compare(uri, image, 'qcow2');
      const again = `${name}-again`;
      await disks.ask('POST', '/v1/clones', { source: 'golden@v1', names: [again] });
      await disks.ask('PATCH', `/v1/vdisks/${again}`, { sizeBytes: HELD_BYTES });
      const target = disks.tcpUri(again);
      await runOk('qemu-img', ['convert', '-n', '-f', 'qcow2', '-O', 'raw', image, target]);
      await compare(uri, target);
      const part = disks.lab.path(`${name}.part`);
      // What is skipped counts, too, in qemu's dd.
      const dd = ['bs=1M', 'skip=7', 'count=16', `if=${uri}`, `of=${part}`];
      await runOk('qemu-img', ['dd', ...RAW, '-O', 'raw', ...dd]);
      const cmp = 'nbdcopy "$1" - | cmp -n 9437184 -i 7340032:0 - "$2"';
      await runOk('sh', ['-c', cmp, 'sh', uri, part]);
    });

    it('bench: writes with flushes at depth 32, reads, and leaves what it says', async () => {
      const bench = ['bench', '-q', '-t', 'none', ...RAW];
      const size = ['-s', '4096', '-S', '12288', '-d', '32'];
      const writing = ['-w', '--pattern=171', '-c', '900', '--flush-interval=90', ...size];
      await runOk('qemu-img', [...bench, ...writing, '-o', '4096', disks.uri(name)]);
      await runOk('qemu-img', [...bench, '-c', '900', ...size, disks.uri(name)]);
      const reads = [0, 1, 450, 898, 899].map((i) => `read -P 171 ${4096 + i * 12_288} 4k`);
      await qemuIo(disks.uri(name), ...reads);
    });
  });
}

describe('qemu-img', () => {
  it('finds the first byte that differs, and the longer one of two', async () => {
    const [one, other] = [disks.uri('vdisk-again'), disks.uri('clone')];
    const args = (a: string, b: string): string[] => ['compare', ...RAW, '-F', 'raw', a, b];
    await qemuIo(one, 'write -z 0 36M');
    await qemuIo(other, 'write -z 0 36M', 'write -P 1 20000000 1');
    const { code, stdout } = await run('qemu-img', args(one, other));
    assert.equal(code, 1);
    // It compares sectors.
    assert.match(stdout, /Content mismatch at offset 19999744!/);
    const strict = await run('qemu-img', [...args(one, disks.uri('golden')), '-s']);
    assert.equal(strict.code, 1);
    assert.match(strict.stdout, /size mismatch/);
  });

  it('maps holes and data', async () => {
    await qemuIo(disks.uri('vdisk-again'), 'write -z -u 0 36M', 'write -P 1 1M 64k');
    const map = await runOk('qemu-img', ['map', '--output=json', ...RAW, disks.uri('vdisk-again')]);
    const runs = (JSON.parse(map) as { start: number; length: number; data: boolean }[]).filter(
      ({ data }) => data,
    );
    assert.deepEqual(
      runs.map(({ start, length }) => [start, length]),
      [[MIB, 65_536]],
    );
  });

  it('grows a copy of a snapshot, which it may only read', async () => {
    const image = disks.lab.path('grown');
    writeFileSync(image, '');
    truncateSync(image, HELD_BYTES);
    const snapshot = disks.uri('golden@v1');
    await runOk('qemu-img', ['convert', '-n', ...RAW, '-O', 'raw', snapshot, image]);
    await compare(snapshot, image);
    const written = await run('qemu-io', [...RAW, '-c', 'write 0 512', snapshot]);
    assert.match(written.stdout + written.stderr, /Permission denied/);
    const info = await runOk('qemu-img', ['info', ...RAW, snapshot]);
    assert.match(info, new RegExp(`\\(${GOLDEN_BYTES} bytes\\)`));
  });
});
