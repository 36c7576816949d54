/** A store on a block device: made where there is nothing, refused where something else is. */
import assert from 'node:assert/strict';
import { truncateSync, writeFileSync } from 'node:fs';
import { it } from 'node:test';
import { MIB } from '../../../src/base/units.js';
import { DaemonLab } from '../../support/daemon-lab.js';
import { nbdsh, runOk } from '../nbd/nbd-clients.js';

async function withDevice(act: (lab: DaemonLab, device: string) => Promise<void>): Promise<void> {
  const lab = new DaemonLab();
  writeFileSync(lab.path('disk'), '');
  truncateSync(lab.path('disk'), 300 * MIB);
  const device = (await runOk('losetup', ['--find', '--show', lab.path('disk')])).trim();
  try {
    await act(lab, device);
  } finally {
    await lab.killAll();
    await runOk('losetup', ['--detach', device]);
    await lab.close();
  }
}

/** The size of the lab's other stores would stand before these. */
function serveOn(lab: DaemonLab, device: string, ...args: string[]) {
  const sockets = ['--api', lab.path('api'), '--nbd-socket', lab.path('nbd')];
  return lab.spawn({ args: [...sockets, '--store', device, ...args] });
}

it('a blank device becomes a store of that size, and keeps it over kills', async () => {
  await withDevice(async (lab, device) => {
    const first = serveOn(lab, device, '--size', '256M');
    await first.logged(/store-created: \/dev\/loop\d+ is a new store of 256 MiB\.[\s\S]*ready: /);
    await lab.call('POST', '/v1/vdisks', { name: 'disk', sizeBytes: MIB });
    const uri = `nbd+unix:///disk?socket=${lab.path('nbd')}`;
    await nbdsh(uri, "h.pwrite(b'kept' * 1024, 0, nbd.CMD_FLAG_FUA)");
    await first.kill('SIGKILL');
    // Whatever is said now: it holds a store.
    const second = serveOn(lab, device, '--size', '64M', '--store-erase-device');
    await second.logged(/ready: /);
    assert.doesNotMatch(second.log, /store-created/);
    await nbdsh(uri, "assert h.pread(4096, 0) == b'kept' * 1024");
  });
});

it('a device with a file system or a partition table is refused, until it may be erased', async () => {
  for (const [program, args] of [
    ['mkfs.ext4', ['-q', '-F']],
    ['mkfs.xfs', ['-q', '-f']],
    ['mkswap', []],
    ['sh', ['-c', 'echo "label: gpt" | sfdisk -q --no-reread "$0"']],
  ] as const) {
    await withDevice(async (lab, device) => {
      await runOk(program, [...args, device]);
      const refused = serveOn(lab, device, '--size', '256M');
      assert.equal(await refused.ended, 2, program);
      assert.match(refused.log, /holds no store and is not blank: byte \d+ is not zero/);
      const erased = serveOn(lab, device, '--size', '256M', '--store-erase-device');
      await erased.logged(/store-created[\s\S]*ready: /);
    });
  }
});
