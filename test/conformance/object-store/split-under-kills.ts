/**
 * A clone on a real Ceph: what was answered is there after a kill, before its split and in the
 * middle of it, and the split goes on to its end.
 */
import assert from 'node:assert/strict';
import { setTimeout as sleep } from 'node:timers/promises';
import { MIB } from '../../../src/base/units.js';
import { nbdsh } from '../nbd/nbd-clients.js';
import type { ServerScene } from './server-scene.js';

/** What the client writes, and the rest, which is the golden disk's. */
const WRITTEN_BYTES = 16 * MIB;
const POLL_MS = 20;

const GOLDEN = `
import random
def golden(i): return random.Random(i).randbytes(1 << 20)
`;

export async function splitUnderKills(scene: ServerScene): Promise<void> {
  const { ceph, lab } = scene;
  const golden = await scene.newDisk();
  const write = 'for i in range(64): h.pwrite(golden(i), i << 20)\nh.flush()';
  await nbdsh(scene.uri(golden), `${GOLDEN}${write}`);
  await scene.call('POST', '/v1/snapshots', { items: [{ vdisk: golden, snapshot: 'v1' }] });
  await scene.call('POST', '/v1/clones', { source: `${golden}@v1`, names: ['web'] });
  await lab.last.kill('SIGKILL');
  await scene.start();
  assert.equal((await scene.call('GET', '/v1/vdisks/web')).backing, `${golden}@v1`);

  const writing = scene.write('web', 5);
  await scene.isInTheMiddle(writing);
  const split = { mode: 'copy', rateBytesPerSecond: 16 * MIB };
  await scene.call('POST', '/v1/vdisks/web/split', split);
  await splitIsInTheMiddle(scene);
  await ceph.gateways[1]?.kill();
  await lab.last.kill('SIGKILL');
  await scene.start();
  await scene.expectVerified(writing);
  await splitIsDone(scene);
  ceph.gateways[1]?.start();
  await ceph.gatewayIsUp(1);

  await scene.call('DELETE', `/v1/vdisks/${golden}@v1`);
  await scene.call('DELETE', `/v1/vdisks/${golden}`);
  const first = WRITTEN_BYTES / MIB;
  const read = `for i in range(${first}, 64): assert h.pread(1 << 20, i << 20) == golden(i), i`;
  await nbdsh(scene.uri('web'), `${GOLDEN}${read}`);
}

/** Until a part is filled. */
async function splitIsInTheMiddle(scene: ServerScene): Promise<void> {
  for (;;) {
    const { backing, split } = await scene.call('GET', '/v1/vdisks/web');
    assert.notEqual(backing, null, 'the split is done early');
    const { filledBytes } = split as { filledBytes: number };
    if (filledBytes >= 4 * MIB) return;
    await sleep(POLL_MS);
  }
}

/** It goes on by itself in each life of the server. */
async function splitIsDone(scene: ServerScene): Promise<void> {
  while ((await scene.call('GET', '/v1/vdisks/web')).backing !== null) await sleep(POLL_MS);
}
