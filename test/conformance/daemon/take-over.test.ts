/** Two servers on one store of objects: one is refused, or the other is deposed, and says so. */
import assert from 'node:assert/strict';
import { it } from 'node:test';
import { DaemonLab } from '../../support/daemon-lab.js';
import { nbdsh } from '../nbd/nbd-clients.js';

/** Of any refusal, where no command line stands around the server. */
const EXIT_REFUSED = 2;
const EXIT_DEPOSED = 14;

it('a second server is refused while the first lives; --take-over deposes it', async () => {
  const lab = new DaemonLab();
  const serve = (name: string, ...args: string[]) => {
    const sockets = ['--api', lab.path(name), '--nbd-socket', lab.path(`${name}.nbd`)];
    const patience = ['--store-stale-reads-ms', '1000'];
    return lab.spawn({
      args: [...sockets, ...patience, '--store', `dir:${lab.path('objects')}`, ...args],
    });
  };
  const uri = (name: string): string => `nbd+unix:///disk?socket=${lab.path(`${name}.nbd`)}`;
  try {
    const first = serve('api', '--size', '1G');
    await first.logged(/ready: /);
    await lab.call('POST', '/v1/vdisks', { name: 'disk', sizeBytes: 65536 });
    await nbdsh(uri('api'), "h.pwrite(b'kept' * 1024, 0, nbd.CMD_FLAG_FUA)");
    const refused = serve('refused');
    assert.equal(await refused.ended, EXIT_REFUSED, refused.log);
    assert.match(refused.log, /process \d+ serves it \(epoch 2\).*--take-over/);
    await nbdsh(uri('api'), "assert h.pread(4096, 0) == b'kept' * 1024");
    const second = serve('second', '--take-over');
    assert.equal(await first.ended, EXIT_DEPOSED);
    assert.match(first.log, /another server has taken this store over, and epoch 2/);
    await second.logged(/ready: /);
    await nbdsh(uri('second'), "assert h.pread(4096, 0) == b'kept' * 1024");
  } finally {
    await lab.killAll();
    await lab.close();
  }
});
