import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { systemClock } from './system-clock.js';

test('time grows; wall time is the time of day', () => {
  const before = systemClock.nowMs();
  for (let turn = 0; turn < 1000; turn++) assert.ok(systemClock.nowMs() >= before);
  assert.ok(Math.abs(systemClock.wallMs() - Date.now()) < 60_000);
});

test('a timer calls back once, later; a cancelled one does not', async () => {
  const happened: string[] = [];
  systemClock.setTimer(0, () => happened.push('cancelled')).cancel();
  const work = new Promise<void>((resolve) => {
    systemClock.setTimer(1, () => {
      happened.push('timer');
      resolve();
    });
    happened.push('code after it');
  });
  // The clock's own timers keep no process alive; this one does.
  const alive = setInterval(() => undefined, 1000);
  await work;
  clearInterval(alive);
  assert.deepEqual(happened, ['code after it', 'timer']);
});

test('yield lets other work go first', async () => {
  const happened: string[] = [];
  setImmediate(() => happened.push('other'));
  await systemClock.yield();
  happened.push('after yield');
  assert.deepEqual(happened, ['other', 'after yield']);
});

test('a pending timer keeps no process alive', () => {
  const clock = fileURLToPath(new URL('./system-clock.ts', import.meta.url));
  const code = `import(${JSON.stringify(clock)})
    .then((module) => module.systemClock.setTimer(1e6, () => {}))`;
  const nodeOptions = process.execArgv.filter((option) => !option.startsWith('--test'));
  execFileSync(process.execPath, [...nodeOptions, '-e', code], { timeout: 60_000 });
});
