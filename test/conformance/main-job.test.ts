/**
 * The main job: the quickstart from a killed run to the next, at every stage of it, with the real
 * clients that it uses, until a run comes to its end; what it does when it is not alone, and that
 * its proofs can fail.
 */
import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  watch,
} from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { json } from 'node:stream/consumers';
import { after, before, it } from 'node:test';

/** Blanks in it, as there may be. */
let base: string;
before(() => {
  // What is built is what the quickstart runs. Where it is up to date this takes a moment.
  execFileSync('sh', ['tools/setup.sh'], { stdio: 'ignore' });
  base = mkdtempSync(join(tmpdir(), 'main job '));
});
after(() => rmSync(base, { recursive: true, force: true }));

interface Ended {
  readonly code: number | undefined;
  readonly output: string;
}

interface KillAt {
  readonly line?: RegExp;
  readonly file?: string;
}

/** Runs the quickstart; kills it with SIGKILL as soon as it says this, or writes the file. */
function quickstart(folder: string, killAt: KillAt = {}, ...args: string[]): Promise<Ended> {
  const program = ['tools/quickstart.ts', `--dir=${folder}`, '--image-mib=64', ...args];
  mkdirSync(folder, { recursive: true });
  const story = spawn(process.execPath, ['--import', 'tsx', ...program], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const watcher = watch(folder, (_, name) => {
    if (name === killAt.file) story.kill('SIGKILL');
  });
  let output = '';
  const read = (chunk: Buffer): void => {
    output += chunk.toString();
    if (killAt.line?.test(output) === true) story.kill('SIGKILL');
  };
  story.stdout.on('data', read);
  story.stderr.on('data', read);
  return new Promise((resolve, reject) => {
    story.on('error', reject);
    story.on('close', (code) => {
      watcher.close();
      resolve({ code: code ?? undefined, output });
    });
  });
}

/** The server that a folder's run talks to. */
async function serverOf(folder: string): Promise<number | undefined> {
  const answer = await call(folder, 'GET', '/v1/server').catch(() => undefined);
  return answer?.pid as number | undefined;
}

function call(
  folder: string,
  method: string,
  path: string,
  body?: Uint8Array,
): Promise<Record<string, unknown>> {
  return new Promise((resolve, reject) => {
    const options = { socketPath: join(folder, 'api.sock'), method, path, agent: false };
    const asking = request(options, (response) => {
      json(response).then((value) => resolve(value as Record<string, unknown>), reject);
    });
    asking.on('error', reject);
    asking.end(body);
  });
}

/** A server on the folder's store and sockets, as a user may start it. */
async function serve(folder: string, environment: NodeJS.ProcessEnv = {}) {
  const args = ['serve', '--store', join(folder, 'disks.keiki'), '--size', '64M'];
  const sockets = ['--api', join(folder, 'api.sock'), '--nbd-socket', join(folder, 'nbd.sock')];
  const child = spawn(process.execPath, ['bin/keiki', ...args, ...sockets], {
    stdio: 'ignore',
    env: { ...process.env, ...environment },
  });
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  while ((await serverOf(folder)) !== child.pid) {
    assert.equal(child.exitCode, null, 'the server ends');
  }
  return { child, ended };
}

const STAGES: readonly KillAt[] = [
  { file: 'disks.keiki' },
  { line: /ready in/ },
  { line: /the disk/ },
  { line: /\$ \S+ import / },
  { line: /\$ \S+ clone / },
  { line: /Split, while clients go on/ },
  { file: 'flushed.txt' },
  // A kill takes a moment, and the run may have gone on in it.
  { line: /\$ \S+ split web |web stands alone/ },
  { line: /\$ \S+ split mail |mail stands alone/ },
  { line: /The golden disk goes/ },
  { line: /the store: / },
  { line: /Proof/ },
  { line: /\$ kill -TERM/ },
];

it('is killed at each stage, goes on from there, and proves every clone', async () => {
  const folder = join(base, 'killed');
  for (const stage of STAGES) {
    const { code, output } = await quickstart(folder, stage);
    const where = stage.file ?? String(stage.line);
    assert.equal(code, undefined, `the run to be killed at ${where} ended by itself:\n${output}`);
    assert.doesNotMatch(output, /REFUTED|FAILED/);
    assert.equal(await serverOf(folder), undefined, `the server outlives a kill at ${where}`);
  }
  const { code, output } = await quickstart(folder);
  assert.equal(code, 0, output);
  assert.match(output, /the store is there from an earlier run/);
  assert.match(output, /qemu-io reads what an earlier run flushed .* all there/);
  assert.match(output, /web is the golden disk with the client's \d+ writes, and nothing else/);
  assert.equal([...output.matchAll(/^ +proven /gm)].length, 6, output);
  assert.match(output, /Every clone is what it should be/);
  assert.ok(!output.includes('\u001b'), 'no colours where there is no terminal');
  assert.ok(!existsSync(folder), 'the files of a run that has ended well are deleted');
});

it('finds what is broken on purpose, and leaves it to look at', async () => {
  const folder = join(base, 'broken');
  const { code } = await quickstart(folder, { line: /Proof/ });
  assert.equal(code, undefined);
  const { child, ended } = await serve(folder);
  // One byte of mail; of web the primary GPT, and the group descriptors of its file system.
  await call(folder, 'PUT', '/v1/vdisks/mail/data?offset=50000000', Buffer.alloc(1, 77));
  await call(folder, 'PUT', '/v1/vdisks/web/data?offset=512', Buffer.alloc(16, 77));
  const descriptors = 1024 * 1024 + 4096;
  await call(folder, 'PUT', `/v1/vdisks/web/data?offset=${descriptors}`, Buffer.alloc(4096, 77));
  child.kill('SIGTERM');
  assert.equal(await ended, 0);
  const found = await quickstart(folder);
  assert.equal(found.code, 1, found.output);
  const refuted = [...found.output.matchAll(/REFUTED {2}(.*)$/gm)].map(([, what]) => what ?? '');
  assert.equal(refuted.length, 3, found.output);
  assert.match(refuted[0] ?? '', /^mail is the golden disk/);
  assert.match(refuted[1] ?? '', /^web is the golden disk with the client's/);
  assert.match(refuted[2] ?? '', /^the partition table and the file system of web/);
  assert.match(found.output, /proven {2}build is the golden disk/);
  assert.match(found.output, /NOT everything is what it should be/);
  assert.ok(existsSync(join(folder, 'disks.keiki')) && existsSync(join(folder, 'server.log')));
});

it('ends a server that an earlier run has left, and touches no other', async () => {
  const folder = join(base, 'left');
  mkdirSync(folder);
  const foreign = await serve(folder);
  const refused = await quickstart(folder);
  assert.equal(refused.code, 1, refused.output);
  assert.match(
    refused.output,
    new RegExp(`no quickstart has started \\(process ${foreign.child.pid}`),
  );
  assert.equal(await serverOf(folder), foreign.child.pid, 'it lives');
  foreign.child.kill('SIGTERM');
  assert.equal(await foreign.ended, 0);
  const left = await serve(folder, { KEIKI_QUICKSTART: folder });
  const { code, output } = await quickstart(folder, { line: /ready in/ });
  assert.equal(code, undefined, output);
  assert.equal(await left.ended, 0, 'it was ended in order');
});

it('runs beside itself, in folders of any length, and twice in one', async () => {
  const long = join(base, 'x'.repeat(120), 'a,b');
  mkdirSync(long, { recursive: true });
  const runs = await Promise.all([
    quickstart(long, {}, '--keep'),
    quickstart(join(base, 'one')),
    quickstart(join(base, 'one')),
  ]);
  for (const { code, output } of runs) assert.equal(code, 0, output);
  assert.equal(runs.filter(({ output }) => output.includes('another run is in this')).length, 1);
  for (const line of storyOfReadme()) assert.match(runs[1]?.output ?? '', line);
  const kept = readdirSync(long).sort().join(' ');
  const store = 'disks.keiki disks.keiki.attachments';
  assert.equal(kept, `${store} flushed.txt golden.img golden.json server.log`);
  assert.match(runs[0]?.output ?? '', /KEIKI_API=\/tmp\/keiki-quickstart-\d+-[0-9a-f]+\/api\.sock/);
  assert.match(runs[0]?.output ?? '', /The store is left as it is/);
  const rest = readdirSync('/tmp').filter((name) => runs[0]?.output.includes(`/tmp/${name}/`));
  assert.deepEqual(
    rest.filter((name) => name.startsWith('keiki-quickstart')),
    [],
  );
  assert.ok(!existsSync(join(base, 'one')));
});

/** Lines of the README's story, with figures that may be others. */
function storyOfReadme(): RegExp[] {
  const [, story = ''] = readFileSync('README.md', 'utf8').split('<!-- story -->');
  const [, text = ''] = story.split('```');
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  assert.ok(lines.length > 10);
  return lines.map((line) => {
    const plain = line.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&');
    const free = plain.replaceAll(/\b\d+(\\\.\d+)?\b( (ms|s|KiB|MiB)\b)?/g, '[0-9.]+( [a-zA-Z]+)?');
    return new RegExp(`^${free}$`, 'm');
  });
}

it('says what is wrong in one line, and exits with 1', async () => {
  const args = ['--import', 'tsx', 'tools/quickstart.ts', '--image-mib=7'];
  const { stderr, code } = await new Promise<{ stderr: string; code: number | null }>((resolve) => {
    const story = spawn(process.execPath, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    let text = '';
    story.stderr.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    story.on('close', (status) => resolve({ stderr: text, code: status }));
  });
  assert.equal(code, 1);
  assert.match(stderr, /quickstart: --image-mib must be a multiple of 8, at least 64\n/);
});
