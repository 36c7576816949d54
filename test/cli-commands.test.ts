/** Commands beside a server in this process: what each prints, for people and as JSON. */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { MIB } from '../src/base/units.js';
import type { Job, SplitPlan, Stats, Vdisk, Verification } from '../src/control/schemas.js';
import { runCommand } from './support/cli-in-process.js';
import { ControlLab } from './support/control-lab.js';

let lab: ControlLab;

before(async () => {
  lab = await ControlLab.start();
  const disk = Buffer.alloc(4 * MIB);
  disk.fill(1, 0, MIB);
  disk.fill(2, 2 * MIB, 2 * MIB + 4096);
  writeFileSync(join(lab.folder, 'disk'), disk);
  await text(`import ${join(lab.folder, 'disk')} golden`);
  await text('snapshot golden v1');
});

after(() => lab.close());

/** Of a command that has to succeed, and to say nothing on the standard error. */
async function text(line: string): Promise<string> {
  const { code, out, error } = await runCommand(line, lab.apiPath);
  assert.deepEqual([code, error], [0, ''], line);
  return out;
}

async function json<T>(line: string): Promise<T> {
  return JSON.parse(await text(`${line} --json`)) as T;
}

async function refused(line: string, code: number, message: RegExp): Promise<void> {
  const ran = await runCommand(line, lab.apiPath);
  assert.equal(ran.code, code, `${line}: ${ran.error}`);
  assert.match(ran.error, message);
  assert.match(ran.error, /^keiki: .*\n$/, 'one line');
}

test('create, rename, resize and delete say what they did, or give it as JSON', async () => {
  assert.equal(await text('create odd --size 1073741312'), 'odd: 1 GiB (1073741312 bytes)\n');
  await text('delete odd');
  assert.equal(await text('create a --size 1.5M'), 'a: 1.5 MiB\n');
  assert.equal((await json<Vdisk>('create b --size 512')).sizeBytes, 512);
  assert.equal(await text('rename a c'), 'a -> c\n');
  assert.equal(await text('snapshot c@one'), 'c@one\n');
  assert.equal(await text('rename c@one two'), 'c@one -> c@two\n');
  assert.equal((await json<Vdisk>('rename c@two c@three')).name, 'c@three');
  await refused('rename c c@x', 2, /would be a snapshot/);
  assert.equal(await text('resize c --size 2M'), 'c: 1.5 MiB -> 2 MiB\n');
  await refused('resize c --size 1M', 2, /2097152 bytes, more than 1048576.*--shrink/);
  assert.equal((await json<Vdisk>('resize c --size 1M --shrink')).sizeBytes, MIB);
  assert.equal(await text('delete b -q'), '');
  const half = await runCommand('delete c@three none c --json', lab.apiPath);
  assert.deepEqual([half.code, JSON.parse(half.out)], [3, { deleted: ['c@three'] }]);
  assert.deepEqual(await json('delete c'), { deleted: ['c'] });
});

test('list shows all, one with its snapshots, or names', async () => {
  assert.equal(await text('list --names'), 'golden\ngolden@v1\n');
  assert.match(await text('list'), /^NAME +SIZE .*\ngolden +4 MiB .*golden@v1\ngolden@v1 +4 MiB/);
  await refused('list none', 3, /there is no vdisk none/);
  const { vdisks } = await json<{ vdisks: Vdisk[] }>('list golden@v1');
  assert.deepEqual(
    vdisks.map(({ name }) => name),
    ['golden@v1'],
  );
});

test('map and diff show extents with their sums, or the answer of the API', async () => {
  assert.deepEqual((await text('map golden@v1')).split('\n'), [
    '          OFFSET            LENGTH  KIND  DEPTH  FILLED',
    '               0           1048576  data      0',
    '         1048576           1048576  hole      0',
    '         2097152              4096  data      0',
    '         2101248           2093056  hole      0',
    '4 extents, 1 MiB data, 3 MiB hole',
    '',
  ]);
  const map = await json<{ extents: { offset: number; length: number }[] }>(
    'map golden --offset 1M --length 1536K',
  );
  assert.deepEqual(
    map.extents.map(({ offset, length }) => [offset, length]),
    [
      [MIB, MIB],
      [2 * MIB, 4096],
      [2 * MIB + 4096, MIB / 2 - 4096],
    ],
  );
  await text('clone golden@v1 changed');
  await lab.store.vdisk('changed').write(8192, Buffer.alloc(4096, 9));
  const diff = await json<{ from: string; extents: object[] }>('diff golden@v1 changed');
  assert.deepEqual(diff.extents, [{ offset: 8192, length: 4096, kind: 'data' }]);
  assert.match(
    await text('diff golden@v1 changed'),
    /\n +8192 +4096 {2}data\n1 extent, 4 KiB data\n/,
  );
  assert.match(await text('diff golden@v1'), /2 extents, 1 MiB data\n/);
  await refused('diff a b c', 2, /one or two names/);
  await text('delete changed');
});

test('the plan of a split, for both modes or for one', async () => {
  await text('clone golden@v1 planned');
  const lines = (await text('split planned --plan')).split('\n');
  assert.equal(lines[0], 'planned: split from golden@v1, by a scan of its metadata');
  assert.match(lines[1] ?? '', /^ +COPY +SHARE$/);
  assert.ok(
    lines.some((line) => /^reads +1 MiB +0 B$/.test(line)),
    lines.join('\n'),
  );
  assert.equal(lines.at(-2), 'golden@v1 is read by golden, too');
  const plan = await json<SplitPlan>('split planned --plan --mode share --estimate');
  assert.deepEqual([plan.basis, plan.modes.map(({ mode }) => mode)], ['estimate', ['share']]);
  assert.equal((await json<Vdisk>('show planned')).split, null);
  await refused('split planned --estimate', 2, /--estimate goes with --plan/);
  await refused('split golden --plan', 2, /golden has no backing store/);
  await refused('split none --plan', 3, /no vdisk none/);
  await text('delete planned');
});

test('split in both modes, waited for or not, and cancelled if there is one', async () => {
  await text('clone golden@v1 copy share');
  const copy = await json<Job>('split copy --wait');
  assert.deepEqual([copy.state, copy.doneBytes], ['done', copy.totalBytes]);
  assert.match(await text('split share --mode share --wait'), /^share: split, in [\d.]+ m?s; /);
  const shown = await json<Vdisk & { scan: object }>('show share --exact');
  assert.deepEqual([shown.backing, shown.sharedBytes, shown.ownBytes], [null, MIB + 4096, 0]);
  assert.deepEqual(Object.keys(shown.scan), ['name', 'readThroughBytes', 'givesBackBytes']);
  assert.match(await text('show copy --exact'), /deletion {2}gives 1 MiB \(1052672 bytes\) back/);
  await refused('split copy --cancel', 3, /copy is not being split/);
  await refused('split golden@v1', 2, /A vdisk is meant/);
  await text('delete copy share');
});

test('attach on a port prints lines that clients take', async () => {
  const printed = await text('attach golden@v1 --port 0');
  const [, uri = ''] = /at (nbd:\/\/127\.0\.0\.1:[0-9]+\/), read-only\n/.exec(printed) ?? [];
  assert.ok(printed.includes(`qemu-img info '${uri}'`));
  assert.ok((await text('show golden@v1')).includes(`attached  ${uri}, no client there`));
  await refused('attach golden', 2, /one of --socket PATH and --port/);
  await refused('attach golden --socket /a --port 1', 2, /one of --socket PATH and --port/);
  assert.deepEqual(await json('detach golden@v1'), { detached: ['golden@v1'] });
  await refused('detach golden@v1', 3, /no socket or port of its own/);
});

test('stats and events, for people and as JSON', async () => {
  const stats = await json<Stats>('stats');
  assert.equal(stats.store.totalBytes, 64 * MIB);
  const shown = await text('stats');
  assert.match(shown, /^keiki 1\.2\.3, memory\n {2}space +.* of 64 MiB\n/);
  assert.match(shown, /\nVDISK +OPERATION +COUNT/);
  const { events } = await json<{ events: { type: string }[] }>('events --recent');
  assert.equal(events[0]?.type, 'job', 'the import');
  assert.match(await text('events --recent'), /Z {2}snapshot-created +golden@v1\n/);
  await text(`export golden@v1 ${join(lab.folder, 'out')}`);
  const { jobs } = (await lab.call('GET', '/v1/jobs')).body as unknown as { jobs: Job[] };
  const exported = jobs.filter(({ kind }) => kind === 'export').map(({ state }) => state);
  assert.deepEqual(exported, ['done'], 'the server knows that all of it came');
});

test('completion prints the script of a shell', async () => {
  assert.match(await text('completion bash'), /complete -F _keiki keiki\n$/);
  assert.deepEqual(Object.keys(await json<object>('completion fish')), ['shell', 'script']);
});

test('a server that stops ends those who listen', async () => {
  const other = await ControlLab.start();
  const listening = runCommand('events', other.apiPath);
  while (other.service.plane.events.listenerCount === 0) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  await runCommand('create a --size 1M', other.apiPath);
  await other.close();
  const { code, out, error } = await listening;
  assert.deepEqual([code, error], [12, 'keiki: the server has ended\n']);
  assert.match(out, /vdisk-created +a\n$/);
});

test('verify proves or refutes, show tells it, and a script sees it by the exit code', async () => {
  await text('clone golden@v1 proven through');
  await text('split proven --wait');
  assert.match(
    await text('show proven'),
    / {2}verified {2}proven \(stands alone\), at the end of its split, 20.*Z, as of consistency/,
  );
  assert.match(
    await text('verify proven'),
    /^proven: proven\n {2}when it was asked for, .*\n {2}\d+ pointers looked at\n {2}filled by /,
  );
  const hash = (await text('verify golden@v1 --hash')).trim();
  assert.match(hash, /^sha256:[0-9a-f]{64}$/);
  assert.match(await text(`verify proven --content-hash ${hash}`), new RegExp(`content ${hash}`));
  const refuted = await runCommand('verify through', lab.apiPath);
  assert.equal(refuted.code, 9);
  assert.match(
    refuted.out,
    /^through: refuted\n(?:.*\n)*.*association: through .* reads through golden@v1/,
  );
  const wrong = await runCommand(
    `verify proven --content-hash ${'0'.repeat(64)} --json`,
    lab.apiPath,
  );
  assert.equal(wrong.code, 9);
  assert.equal((JSON.parse(wrong.out) as Verification).findings[0]?.kind, 'content');
  assert.match(await text('show proven'), / {2}verified {2}refuted \(1 finding\)/);
  await refused('verify proven --content-hash abc', 2, /a hash is sha256: and 64 hex/);
  await refused(`verify proven --hash --content-hash ${hash}`, 2, /--hash takes a hash/);
  await refused('verify none', 3, /no vdisk none/);
  await text('delete proven through');
});
