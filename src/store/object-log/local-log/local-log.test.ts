/** What a consistency point says of the log; the rest is told by src/main/local-log.test.ts. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PLAIN_FSINFO } from '../../../../test/support/layout-values.js';
import { MIB } from '../../../base/units.js';
import { MemoryDevice } from '../../../env/memory-device.js';
import { systemClock } from '../../../env/system-clock.js';
import type { LogBatch } from '../../medium.js';
import { LocalLog } from './local-log.js';

const RING = new Uint8Array(16).fill(9);
const BATCH: LogBatch = {
  cpNumber: 3,
  units: [[{ kind: 'range', treeId: 4, fbn: 1, blocks: 2, to: 'zero' }]],
  payload: [],
};
const nowhere = (): undefined => undefined;

/** A log that the first consistency point has named, and that is marked for the second. */
async function frozenLog(): Promise<LocalLog> {
  const device = new MemoryDevice({ sizeBytes: 4 * MIB });
  const log = await LocalLog.open({ device, clock: systemClock, isUsed: true, lagMsMax: 1e9 });
  await log.begin({ ...PLAIN_FSINFO, medium: 'object-log' }, 2, RING);
  log.freeze(1);
  assert.deepEqual(log.naming(1, false), {
    logUuid: RING,
    localFrom: 1,
    replayPosition: 0,
    clean: false,
  });
  await log.committed(1);
  assert.equal(await log.append([BATCH], nowhere), 'durable');
  log.freeze(2);
  return log;
}

test('the last consistency point names no log, and nothing is added any more', async () => {
  const log = await frozenLog();
  const { logUuid, clean } = log.naming(2, true);
  assert.deepEqual([logUuid, clean], [new Uint8Array(16), true]);
  assert.equal(await log.append([BATCH], nowhere), 'full');
});

test('a FLUSH that was quicker than the last consistency point keeps the log named', async () => {
  const log = await frozenLog();
  assert.equal(await log.append([BATCH], nowhere), 'durable');
  const { logUuid, clean, localFrom } = log.naming(2, true);
  assert.deepEqual([logUuid, clean, localFrom], [RING, false, 2]);
  assert.equal(await log.append([BATCH], nowhere), 'durable');
});
