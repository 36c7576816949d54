import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GIB, MIB } from '../base/units.js';
import {
  formatCount,
  formatDuration,
  formatElapsed,
  formatExactly,
  formatRate,
  formatShare,
  formatSize,
} from './figures.js';
import { Output, type Sink } from './output.js';
import { Progress } from './progress.js';
import { formatFacts, formatTable } from './table.js';

class TextSink implements Sink {
  text = '';
  failure: Error | undefined;
  readonly isTTY: boolean;
  readonly columns = 100;

  constructor(isTTY: boolean) {
    this.isTTY = isTTY;
  }

  write(text: string | Uint8Array, done: (error?: unknown) => void): boolean {
    this.text += Buffer.from(text).toString();
    done(this.failure);
    return true;
  }
}

function newOutput(isTTY: boolean, environment: Readonly<Record<string, string>> = {}) {
  const [out, error] = [new TextSink(isTTY), new TextSink(isTTY)];
  return { out, error, output: new Output({ out, error, environment }) };
}

test('columns are aligned, and those that are empty are left out', () => {
  const columns = [
    { title: 'NAME' },
    { title: 'SIZE', align: 'right' as const },
    { title: 'NONE' },
    { title: 'STATE' },
  ];
  const rows = [
    ['a', '1 B', '', 'x'],
    ['longer', '20 GiB', '', ''],
  ];
  assert.deepEqual(formatTable(columns, rows).split('\n'), [
    'NAME      SIZE  STATE',
    'a          1 B  x',
    'longer  20 GiB',
  ]);
  assert.equal(
    formatFacts([
      ['a', '1'],
      ['bcd', '2'],
    ]),
    '  a    1\n  bcd  2',
  );
});

test('figures', () => {
  const share = (done: number, total: number): string => formatShare(done, total);
  assert.deepEqual(
    [share(0, 10), share(1, 3), share(9999, 10_000), share(10, 10), share(0, 0)],
    ['0 %', '33.3 %', '99.9 %', '100 %', '100 %'],
  );
  const times = [0, 0.2, 59.1, 3599, 3661, 86_400 + 3 * 3600 + 240].map(formatDuration);
  assert.deepEqual(times, ['0:00', '0:01', '1:00', '59:59', '1:01:01', '1 d 03:04']);
  assert.deepEqual([0, 0.095, 0.9994, 0.9996, 9.94, 9.96, 61].map(formatElapsed), [
    '1 ms',
    '95 ms',
    '999 ms',
    '1.0 s',
    '9.9 s',
    '0:10',
    '1:01',
  ]);
  assert.deepEqual([512, 1.5 * MIB, 20 * GIB, GIB - 512, 5 * MIB + 512].map(formatSize), [
    '512 B',
    '1.5 MiB',
    '20 GiB',
    '1 GiB (1073741312 bytes)',
    '5 MiB (5243392 bytes)',
  ]);
  assert.equal(formatRate(1.5 * MIB), '1.5 MiB/s');
  assert.equal(formatExactly(20 * GIB), '20 GiB (21474836480 bytes)');
  assert.equal(formatExactly(512), '512 bytes');
  assert.deepEqual([formatCount(1, 'block'), formatCount(2, 'block')], ['1 block', '2 blocks']);
});

test('colours are for terminals, and not with NO_COLOR', () => {
  assert.equal(newOutput(true).output.style('red', 'x'), '\x1b[31mx\x1b[0m');
  assert.equal(newOutput(false).output.style('red', 'x'), 'x');
  assert.equal(newOutput(true, { NO_COLOR: '1' }).output.style('red', 'x'), 'x');
  assert.equal(newOutput(true, { NO_COLOR: '' }).output.style('red', 'x'), '\x1b[31mx\x1b[0m');
  assert.equal(newOutput(true, { TERM: 'dumb' }).output.style('red', 'x'), 'x');
});

test('a reader that has gone is a failure of its own', async () => {
  const { out, output } = newOutput(false);
  await output.print('a');
  assert.equal(out.text, 'a\n');
  out.failure = Object.assign(new Error('gone'), { code: 'EPIPE' });
  await assert.rejects(output.print('b'), { name: 'CommandError', kind: 'broken-pipe' });
  out.failure = new Error('other');
  await assert.rejects(output.print('b'), /other/);
});

test('on a terminal progress is one line with a bar, which goes', () => {
  const { error, output } = newOutput(true);
  let nowMs = 0;
  const progress = new Progress('import a', output, () => nowMs);
  const update = (atMs: number, doneBytes: number): void => {
    nowMs = atMs;
    progress.update({ doneBytes, totalBytes: GIB });
  };
  update(0, 0);
  update(999, 100 * MIB);
  assert.deepEqual(error.text, '', 'nothing within a second');
  update(1000, 256 * MIB);
  const line = 'import a: [######------------------] 25 %, 256 MiB of 1 GiB, 256 MiB/s, ETA 0:03';
  assert.equal(error.text, `\r\x1b[K${line}`);
  update(1050, 300 * MIB);
  assert.equal(error.text, `\r\x1b[K${line}`, 'ten times a second at most');
  progress.end();
  output.tell('done');
  assert.equal(error.text, `\r\x1b[K${line}\r\x1b[Kdone\n`);
});

test('elsewhere it is a line every five seconds', () => {
  const { error, output } = newOutput(false);
  let nowMs = 0;
  const progress = new Progress('export a', output, () => nowMs);
  for (; nowMs <= 11_000; nowMs += 500) {
    progress.update({ doneBytes: (nowMs / 500) * MIB, totalBytes: undefined });
  }
  progress.end();
  assert.deepEqual(error.text.split('\n'), [
    'export a: 10 MiB, 2 MiB/s',
    'export a: 20 MiB, 2 MiB/s',
    '',
  ]);
});

test('what it is told about rate, ETA and pauses is shown', () => {
  const { error, output } = newOutput(false);
  let nowMs = 0;
  const progress = new Progress('split a', output, () => nowMs);
  const state = { doneBytes: 0, totalBytes: 100 };
  nowMs = 5000;
  progress.update({ ...state, rateBytesPerSecond: 10, etaSeconds: 65 });
  nowMs = 10_000;
  progress.update({ ...state, note: 'pauses: out of space' });
  assert.deepEqual(error.text.split('\n'), [
    'split a: 0 %, 0 B of 100 B, 10 B/s, ETA 1:05',
    'split a: 0 %, 0 B of 100 B, pauses: out of space',
    '',
  ]);
  const silent = new Progress('a', undefined, () => nowMs);
  silent.update(state);
  silent.end();
});
