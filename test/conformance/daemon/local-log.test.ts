/**
 * Durability `local` with a real server over a directory store: killed while a client flushes, it
 * is as it was with its local log, and refused without it.
 */
import assert from 'node:assert/strict';
import { existsSync, readFileSync, renameSync } from 'node:fs';
import { it } from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { DaemonLab } from '../../support/daemon-lab.js';
import { nbdsh } from '../nbd/nbd-clients.js';

/** Of any refusal, where no command line stands around the server. */
const EXIT_REFUSED = 2;
const BLOCKS = 256;

/** Writes write i, flushes it and says so, until the server is gone. */
const CLIENT = `
import struct
def run(first, told):
    i = first
    try:
        while True:
            h.pwrite(struct.pack('<Q', i) * 512, i % ${BLOCKS} * 4096)
            h.flush()
            with open(told, 'w') as f: f.write('%09d' % i)
            i += 1
    except nbd.Error:
        pass
`;

/** Each block holds its last write up to the last one that was flushed, or the one behind it. */
const VERIFY = `
import struct
def verify(last):
    for block in range(${BLOCKS}):
        bytes = h.pread(4096, block * 4096)
        found = struct.unpack('<Q', bytes[:8])[0]
        assert bytes == bytes[:8] * 512, (block, found)
        least = last - (last - block) % ${BLOCKS}
        assert found == last + 1 or found == max(least, 0), (block, found, last)
`;

function toldBy(path: string): number {
  return existsSync(path) ? Number(readFileSync(path, 'utf8')) : 0;
}

it('a server that is killed while a client flushes; its machine is lost', async () => {
  const lab = new DaemonLab();
  const uri = `nbd+unix:///disk?socket=${lab.path('nbd')}`;
  const store = ['--store', `dir:${lab.path('objects')}`, '--api', lab.path('api')];
  const sockets = ['--nbd-socket', lab.path('nbd')];
  const local = ['--durability', 'local', '--local-log', lab.path('log')];
  const limits = ['--local-log-size', '16M', '--local-lag-ms', '60000'];
  const serve = (...args: string[]) => lab.spawn({ args: [...store, ...sockets, ...args] });
  const told = lab.path('told');
  try {
    for (let round = 1; round <= 3; round++) {
      const server = serve(...local, ...limits);
      await server.logged(/ready: /);
      if (round === 1) {
        await lab.call('POST', '/v1/vdisks', { name: 'disk', sizeBytes: BLOCKS * 4096 });
        const { durability } = await lab.call('GET', '/v1/vdisks/disk');
        assert.equal(durability, 'local');
      }
      const last = toldBy(told);
      if (round > 1) await nbdsh(uri, `${VERIFY}\nverify(${last})`);
      const client = nbdsh(uri, `${CLIENT}\nrun(${last + 1}, ${JSON.stringify(told)})`);
      while (toldBy(told) < last + 300) await sleep(5);
      assert.equal(await server.kill('SIGKILL'), 'SIGKILL');
      await client;
    }
    const lost = lab.path('lost');
    renameSync(lab.path('log'), lost);
    const refused = serve();
    assert.equal(await refused.ended, EXIT_REFUSED, refused.log);
    assert.match(refused.log, /in the local log of the server of epoch \d+.*--without-local-log/);
    // The log is found again: it is recovered, and needed no more.
    const remote = serve('--local-log', lost);
    await remote.logged(/ready: /);
    await nbdsh(uri, `${VERIFY}\nverify(${toldBy(told)})`);
    const { store: stats } = await lab.call('GET', '/v1/stats');
    assert.equal((stats as { localLog: unknown }).localLog, null);
    assert.equal(await remote.kill('SIGKILL'), 'SIGKILL');
    const anywhere = serve();
    await anywhere.logged(/ready: /);
    await nbdsh(uri, `${VERIFY}\nverify(${toldBy(told)})`);
  } finally {
    await lab.close();
  }
});
