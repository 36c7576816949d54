/** What a server says of itself on an object store: true of this process, and of one that ended. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { readSettings } from './config.js';
import { ownershipOf } from './owner.js';

test('this process lives; one of the same id that began at another time is gone', () => {
  const settings = readSettings({ flags: {}, environment: {}, file: undefined });
  const { owner, isGone, takeOver, staleReadsMsMax } = ownershipOf(settings);
  assert.equal(takeOver, false);
  assert.equal(staleReadsMsMax, 3000);
  assert.ok(owner.label.includes(String(process.pid)));
  assert.equal(isGone(owner.program), false);
  assert.equal(isGone(`${process.pid}.1`), true);
  assert.deepEqual(ownershipOf(settings).owner, owner);
});

test('a process that was killed is gone, and so is a word that is none', async () => {
  const settings = readSettings({ flags: {}, environment: {}, file: undefined });
  const { isGone } = ownershipOf(settings);
  const sleeper = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)']);
  await once(sleeper, 'spawn');
  const { pid } = sleeper;
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const start = stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  assert.equal(isGone(`${pid}.${start}`), false);
  sleeper.kill('SIGKILL');
  await once(sleeper, 'exit');
  assert.equal(isGone(`${pid}.${start}`), true);
  assert.equal(isGone('nobody'), true);
});
