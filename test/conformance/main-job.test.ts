/**
 * The main job: the quickstart from a killed run to the next, at every stage of it, with the real
 * clients that it uses, until a run comes to its end.
 */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, watch } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, it } from 'node:test';

let folder: string;
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'main-job-'));
});
after(() => rmSync(folder, { recursive: true, force: true }));

interface Ended {
  readonly code: number | undefined;
  readonly output: string;
}

/** Runs the quickstart; kills it with SIGKILL as soon as it says this, or writes the file. */
function quickstart(killAt: { line?: RegExp; file?: string } = {}): Promise<Ended> {
  const args = ['tools/quickstart.ts', `--dir=${folder}`, '--image-mib=64'];
  const story = spawn(process.execPath, ['--import', 'tsx', ...args], {
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

const STAGES = [
  { file: 'disks.keiki' },
  { line: /open the store/ },
  { line: /the image/ },
  { line: /import as golden/ },
  { line: /clone mail/ },
  { line: /Split, while clients go on/ },
  { file: 'flushed.txt' },
  // A kill takes a moment, and the run may have gone on in it.
  { line: /copy split of web|web stands alone/ },
  { line: /share split of mail|mail stands alone/ },
  { line: /The golden disk goes/ },
  { line: /in use: / },
  { line: /Proof/ },
];

it('is killed at each stage, goes on from there, and proves every clone', async () => {
  for (const stage of STAGES) {
    const { code, output } = await quickstart(stage);
    const where = stage.file ?? String(stage.line);
    assert.equal(code, undefined, `the run to be killed at ${where} ended by itself:\n${output}`);
    assert.doesNotMatch(output, /REFUTED|FAILED/);
  }
  const { code, output } = await quickstart();
  assert.equal(code, 0, output);
  assert.match(output, /open the store .* there from a run that was killed/);
  assert.match(output, /the store says: .* was not closed/);
  assert.match(output, /qemu-io reads what an earlier run flushed .* all there/);
  assert.equal([...output.matchAll(/^ +proven /gm)].length, 6, output);
  assert.match(output, /Every clone is what it should be/);
  assert.ok(!existsSync(folder), 'the files of a run that has ended well are deleted');
});

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
