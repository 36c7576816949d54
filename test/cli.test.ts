/** The command line beside a real server: processes, sockets, files and signals. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { resolve } from 'node:path';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { GIB, MIB } from '../src/base/units.js';
import type { Attachment, Job, Vdisk } from '../src/control/schemas.js';
import { seededRandom } from '../src/env/seeded-random.js';
import { CliLab, type CliResult } from './support/cli-lab.js';

const lab = new CliLab();
/** Data, a hole of 6 MiB, data, and a last sector of its own. */
const DISK = new Uint8Array(10 * MIB + 512);

before(async () => {
  const random = seededRandom(3);
  random.fill(DISK.subarray(0, 2 * MIB));
  random.fill(DISK.subarray(8 * MIB));
  writeFileSync(lab.path('disk.img'), DISK.subarray(0, 2 * MIB));
  truncateSync(lab.path('disk.img'), 8 * MIB);
  writeFileSync(lab.path('disk.img'), DISK.subarray(8 * MIB), { flag: 'a' });
  mkdirSync(lab.path('images'));
  const tcp = ['--api', '127.0.0.1:0', '--api-token-file', lab.path('token')];
  await lab.serve(...tcp, '--images-folders', lab.path('images'));
});

after(() => lab.close());

function assertEnded({ code, error }: CliResult, expected: number, message: RegExp): void {
  assert.equal(code, expected, error);
  assert.match(error, message);
}

test('the program runs from any folder, by its own name', async () => {
  const environment = { ...process.env, NODE_OPTIONS: '', KEIKI_API: lab.path('api.sock') };
  const options = { cwd: tmpdir(), env: environment };
  const { stdout } = await promisify(execFile)(resolve('bin/keiki'), ['list'], options);
  assert.equal(stdout, 'No vdisk yet: make one with `keiki create NAME --size 20G`.\n');
});

test('an image goes in, and is snapshotted, cloned, shown and listed', async () => {
  const written = await lab.json<object>(`import ${lab.path('disk.img')} golden`);
  assert.deepEqual(written, {
    name: 'golden',
    sizeBytes: DISK.length,
    dataBytes: 4 * MIB + 512,
    zeroBytes: 6 * MIB,
  });
  const piped = await lab.run('import - piped --size 16M', Buffer.alloc(16 * MIB, 7));
  assert.equal(piped.code, 0, piped.error);
  assert.match(piped.out.toString(), /^piped: 16 MiB, 16 MiB of data, in [0-9.:]+( m?s)?$/m);
  // A pipe that says nothing of its size, and ends within a sector.
  const grown = await lab.run('import - grown --json', DISK.subarray(0, 2 * MIB + 100));
  assert.deepEqual(JSON.parse(grown.out.toString()), {
    name: 'grown',
    sizeBytes: 2 * MIB + 512,
    dataBytes: 2 * MIB + 100,
    zeroBytes: 0,
  });
  const both = await lab.json<{ vdisks: Vdisk[] }>('snapshot golden piped v1');
  assert.deepEqual(
    both.vdisks.map(({ name }) => name),
    ['golden@v1', 'piped@v1'],
  );
  const clones = await lab.run('clone golden@v1 web1 web2');
  assert.equal(clones.out.toString(), 'web1: of golden@v1\nweb2: of golden@v1\n');
  const [listed, shown] = await Promise.all([
    lab.json<{ vdisks: Vdisk[] }>('list golden'),
    lab.json<Vdisk>('show web1'),
  ]);
  assert.deepEqual(
    listed.vdisks.map(({ name }) => name),
    ['golden', 'golden@v1'],
  );
  assert.deepEqual([shown.backing, shown.sizeBytes], ['golden@v1', DISK.length]);
});

test('content comes out as it went in: raw, by a pipe, and by way of qcow2', async () => {
  const [raw, pipe, qcow2] = await Promise.all([
    lab.run(`export web1 ${lab.path('raw.img')} -q`),
    lab.run('export golden@v1 -'),
    lab.json<object>(`export golden@v1 ${lab.path('a.qcow2')}`),
  ]);
  assert.deepEqual([raw.code, raw.error, raw.out.length], [0, '', 0]);
  assert.deepEqual(readFileSync(lab.path('raw.img')), Buffer.from(DISK));
  assert.equal(pipe.code, 0, pipe.error);
  assert.deepEqual(pipe.out, Buffer.from(DISK));
  const { format, sizeBytes } = qcow2 as { format: string; sizeBytes: number };
  assert.deepEqual([format, sizeBytes], ['qcow2', DISK.length]);
  const again = await lab.run(`import ${lab.path('a.qcow2')} again`);
  assert.equal(again.code, 0, again.error);
  const out = await lab.run('export again -');
  assert.deepEqual(out.out, Buffer.from(DISK));
  assertEnded(await lab.run(`export web1 ${lab.path('raw.img')}`), 4, /is there already/);
});

test('a split is waited for, with the job as the answer', async () => {
  const job = await lab.json<Job>('split web1 --wait');
  assert.deepEqual([job.kind, job.vdisk, job.state], ['split', 'web1', 'done']);
  assert.equal((await lab.api.call('getVdisk', { params: { name: 'web1' } })).backing, null);
});

test('attach gives a vdisk its own socket, which show, list and delete know of', async () => {
  const attachment = await lab.json<Attachment>(`attach web2 --socket ${lab.path('web2.sock')}`);
  assert.equal(attachment.uri, `nbd+unix:///?socket=${lab.path('web2.sock')}`);
  assert.ok(existsSync(lab.path('web2.sock')));
  const [show, refused] = await Promise.all([
    lab.run('show web2'),
    lab.run(`attach web2 --socket ${lab.path('other.sock')}`),
  ]);
  assert.match(show.out.toString(), /lineage {3}web2 -> golden@v1\n/);
  assert.match(show.out.toString(), /attached {2}nbd\+unix:.*, no client there\n/);
  assertEnded(refused, 5, /detach it/);
  const detach = await lab.run('detach web2');
  assert.deepEqual([detach.code, detach.out.toString()], [0, 'web2: detached\n']);
  assert.ok(!existsSync(lab.path('web2.sock')));
});

test('what is refused ends with the code of its kind, and says why', async () => {
  const [gone, taken, used, busy, small] = await Promise.all([
    lab.run('show none'),
    lab.run('create golden --size 1G'),
    lab.run('delete golden@v1'),
    lab.run(`check ${lab.path('store')}`),
    lab.run('resize piped --size 1M'),
  ]);
  assertEnded(gone, 3, /^keiki: there is no vdisk.* none/);
  assertEnded(taken, 4, /^keiki: .*golden/);
  assertEnded(used, 5, /web2.*split or delete them first/);
  assertEnded(busy, 5, /in use by another process/);
  assertEnded(small, 2, /say --shrink/);
});

test('a port wants the token, which a file holds', async () => {
  const { api } = await lab.api.call('getServer', {});
  const address = api.find(({ kind }) => kind === 'tcp');
  assert.ok(address?.kind === 'tcp');
  const at = `--api 127.0.0.1:${address.port}`;
  const [without, withToken] = await Promise.all([
    lab.run(`${at} list`),
    lab.run(`${at} --token-file ${lab.path('token')} list --names`),
  ]);
  assertEnded(without, 11, /a token is needed.*--token-file/);
  assert.equal(withToken.code, 0, withToken.error);
  assert.match(withToken.out.toString(), /^again\ngolden\ngolden@v1\ngrown\n/);
});

test('an import that is interrupted, or cut short, leaves nothing', async () => {
  const importing = lab.start(['import', '-', 'half', '--size', '64M']);
  importing.process.stdin?.write(Buffer.alloc(32 * MIB, 1));
  await importing.until(async () => {
    const { jobs } = await lab.api.call('listJobs', {});
    return jobs.some(({ vdisk, doneBytes }) => vdisk === 'half' && doneBytes > 16 * MIB);
  });
  importing.process.kill('SIGINT');
  assertEnded(await importing.ended, 130, /ended by SIGINT/);
  // Of a pipe that says no size, by a signal that nobody can answer to.
  const killed = lab.start(['import', '-', 'half']);
  killed.process.stdin?.write(Buffer.alloc(32 * MIB, 1));
  const half = async (): Promise<Job | undefined> =>
    (await lab.api.call('listJobs', {})).jobs.find(({ vdisk }) => vdisk === 'half');
  await killed.until(async () => {
    const job = await half();
    return job?.endedAt === null && job.doneBytes > 16 * MIB;
  });
  assert.equal((await half())?.totalBytes, null);
  killed.process.kill('SIGKILL');
  await killed.ended;
  while ((await half())?.endedAt === null);
  writeFileSync(lab.path('cut.qcow2'), readFileSync(lab.path('a.qcow2')).subarray(0, 2 * MIB));
  const [cut, short, long, empty] = await Promise.all([
    lab.run(`import ${lab.path('cut.qcow2')} half`),
    lab.run('import - half --size 4M', Buffer.alloc(MIB)),
    lab.run('import - half --size 1M', Buffer.alloc(4 * MIB)),
    lab.run('import - half', new Uint8Array(0)),
  ]);
  assertEnded(cut, 9, /cut\.qcow2/);
  assertEnded(short, 2, /ended after 1048576 of 4194304 bytes/);
  assertEnded(long, 2, /more than 1 MiB \(1048576 bytes\)/);
  assertEnded(empty, 2, /ended after 0 bytes/);
  const { vdisks } = await lab.api.call('listVdisks', {});
  assert.ok(!vdisks.some(({ name }) => name.includes('half')));
});

test('a reader that goes ends a command quietly', async () => {
  await lab.api.call('createVdisk', { body: { name: 'large', sizeBytes: GIB } });
  const exporting = lab.start(['export', 'large', '-']);
  exporting.process.stdout?.once('data', () => exporting.process.stdout?.destroy());
  const { code, error } = await exporting.ended;
  assert.deepEqual([code, error], [141, '']);
});

test('clones of an image file that is not imported; a split takes it in', async () => {
  const path = lab.path('images/disk.raw');
  copyFileSync(lab.path('disk.img'), path);
  assertEnded(await lab.run(`external ${lab.path('disk.img')} image`), 2, /images\.folders/);
  const made = await lab.json<Vdisk>(`external ${path} image --format raw`);
  assert.equal(made.kind, 'external');
  assert.deepEqual(made.external, { format: 'raw', files: [path], trouble: null });
  const clones = await lab.run('clone image thin');
  assert.equal(clones.out.toString(), 'thin: of image\n');
  await lab.run(`export thin ${lab.path('thin.img')} --format raw`);
  assert.deepEqual(readFileSync(lab.path('thin.img')), Buffer.from(DISK));
  renameSync(path, lab.path('images/moved.raw'));
  assert.notEqual((await lab.run(`export thin ${lab.path('none.img')} --format raw`)).code, 0);
  assert.match((await lab.run('show image')).out.toString(), /trouble/);
  const moved = await lab.json<Vdisk>(`relocate image ${lab.path('images/moved.raw')}`);
  assert.equal(moved.external?.trouble, null);
  assertEnded(await lab.run('delete image'), 5, /thin/);
  await lab.run('split thin --wait');
  assert.equal((await lab.json<Vdisk>('show thin')).backing, null);
  assert.equal((await lab.run('delete image')).code, 0);
  renameSync(lab.path('images/moved.raw'), lab.path('images/gone.raw'));
  await lab.run(`export thin ${lab.path('split.img')} --format raw`);
  assert.deepEqual(readFileSync(lab.path('split.img')), Buffer.from(DISK));
  assert.equal((await lab.run('delete thin')).code, 0);
});

test('events come as they happen, one JSON object a line', async () => {
  const events = lab.start(['events', '--json']);
  await events.until(async () => {
    // Again and again, as nobody knows when it begins to listen.
    await lab.api.call('createSnapshots', { body: { items: [{ vdisk: 'large', snapshot: 's' }] } });
    await lab.api.call('deleteVdisk', { params: { name: 'large@s' }, query: {} });
    return events.out.toString().split('\n').length > 2;
  });
  events.process.kill('SIGTERM');
  const { code, out } = await events.ended;
  assert.equal(code, 143);
  const [line = ''] = out.toString().split('\n');
  const event = JSON.parse(line) as { type: string; data: { name: string } };
  assert.match(event.type, /^(snapshot-created|vdisk-deleted)$/);
  assert.equal(event.data.name, 'large@s');
});

test('the server ends on SIGTERM; then its store can be checked, and commands say so', async () => {
  lab.server?.process.kill('SIGTERM');
  assertEnded((await lab.server?.ended) ?? assert.fail(), 0, /Everything is durable/);
  const [report, list] = await Promise.all([
    lab.json<{ ok: boolean; counts: { vdisks: number; snapshots: number } }>(
      `check ${lab.path('store')}`,
    ),
    lab.run('list'),
  ]);
  assert.deepEqual([report.ok, report.counts.vdisks, report.counts.snapshots], [true, 7, 2]);
  assertEnded(list, 6, /^keiki: no server at .*api\.sock .*keiki serve --store/);
});
