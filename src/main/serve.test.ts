/** The server as a process: how it starts, what ends it, and what is there afterwards. */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, linkSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { describe, it } from 'node:test';
import { DaemonLab } from '../../test/support/daemon-lab.js';
import { MIB } from '../base/units.js';
import { openStore } from './open-store.js';
import { serve } from './serve.js';
import { parseServeArguments } from './serve-arguments.js';

async function withLab(act: (lab: DaemonLab) => Promise<void>): Promise<void> {
  const lab = new DaemonLab();
  try {
    await act(lab);
  } finally {
    await lab.close();
  }
}

async function vdiskNames(lab: DaemonLab): Promise<unknown> {
  const { vdisks } = await lab.call('GET', '/v1/vdisks');
  return (vdisks as { name: string }[]).map(({ name }) => name);
}

/** The split of an earlier server is a job again, unless it was over. */
async function splitDone(lab: DaemonLab): Promise<void> {
  for (;;) {
    const { jobs } = await lab.call('GET', '/v1/jobs');
    const [job] = jobs as { kind: string; vdisk: string; state: string }[];
    if (job === undefined || job.state === 'done') return;
    assert.deepEqual([job.kind, job.vdisk], ['split', 'c']);
  }
}

describe('keiki serve', () => {
  it('gives vdisks their own sockets and ports again after SIGKILL', async () => {
    await withLab(async (lab) => {
      const first = await lab.start();
      for (const name of ['a', 'b']) {
        await lab.call('POST', '/v1/vdisks', { name, sizeBytes: MIB });
      }
      const socket = lab.path('a.sock');
      await lab.call('PUT', '/v1/vdisks/a/attachment', { socket });
      await lab.call('PUT', '/v1/vdisks/b/attachment', { port: 0 });
      const before = await lab.call('GET', '/v1/attachments');
      assert.equal((before.attachments as unknown[]).length, 2);
      assert.equal(await first.kill('SIGKILL'), 'SIGKILL');

      const second = await lab.start();
      assert.match(second.log, /attachment-restored: a: at .*a\.sock\n.*attachment-restored: b: /);
      assert.deepEqual(await lab.call('GET', '/v1/attachments'), before);
      const client = connect(socket);
      const [greeting] = (await once(client, 'data')) as [Buffer];
      assert.equal(greeting.toString('latin1', 0, 8), 'NBDMAGIC');
      client.destroy();
      // Killed between the end of a vdisk and that of what is kept for it.
      const kept = readFileSync(lab.path('store.attachments'));
      await lab.call('DELETE', '/v1/vdisks/b');
      await second.kill('SIGKILL');
      writeFileSync(lab.path('store.attachments'), kept);
      const third = await lab.start();
      assert.match(third.log, /warn {2}attachment-dropped: b is not there any more/);
      const { attachments } = await lab.call('GET', '/v1/attachments');
      assert.deepEqual(
        (attachments as { vdisk: string }[]).map(({ vdisk }) => vdisk),
        ['a'],
      );
      assert.equal(statSync(lab.path('store.attachments')).mode & 0o777, 0o600);
    });
  });

  it('makes a store, ends on SIGTERM, recovers after SIGKILL, ends with its disk', async () => {
    await withLab(async (lab) => {
      const first = await lab.start();
      assert.match(first.log, /store-created: .* new store of 64 MiB/);
      assert.equal(statSync(lab.path('api')).mode & 0o777, 0o600);
      assert.equal(statSync(lab.path('nbd')).mode & 0o777, 0o600);
      await lab.call('POST', '/v1/vdisks', { name: 'g', sizeBytes: 16 * MIB });
      await lab.call('POST', '/v1/snapshots', { items: [{ vdisk: 'g', snapshot: 's' }] });
      assert.equal(await first.kill('SIGTERM'), 0);
      assert.match(first.log, /stopping: .*SIGTERM.*\n.*stopped: /);
      assert.equal(existsSync(lab.path('api')), false);

      const second = await lab.start();
      assert.doesNotMatch(second.log, /store-recovered|store-created/);
      assert.deepEqual(await vdiskNames(lab), ['g', 'g@s']);
      await lab.call('POST', '/v1/clones', { source: 'g@s', names: ['c'] });
      await lab.call('POST', '/v1/vdisks/c/split', { mode: 'copy' });
      // The split is a job as well: the upload is the second one.
      await lab.stuckUpload('/v1/vdisks/half/data?createSizeBytes=1048576', 2);
      // Another server finds the store taken, and touches nothing.
      const args = ['--store', lab.path('store'), '--api', lab.path('api2')];
      const options = parseServeArguments([...args, '--nbd-socket', lab.path('nbd2')]);
      await assert.rejects(serve({ ...options, environment: {} }), /in use by another process/);
      assert.equal(existsSync(lab.path('api2')), false);
      assert.equal(await second.kill('SIGKILL'), 'SIGKILL');
      assert.ok(existsSync(lab.path('api')), 'its socket file is left');

      const third = await lab.start();
      assert.match(third.log, /store-recovered: .* log entries applied/);
      assert.deepEqual(await vdiskNames(lab), ['c', 'g', 'g@s']);
      const server = await lab.call('GET', '/v1/server');
      assert.equal((server.store as { wasRecovered: boolean }).wasRecovered, true);
      await splitDone(lab);

      // The disk takes no more: the store ends, and the server with it.
      execFileSync('prlimit', ['--pid', String(third.process.pid), '--fsize=4096']);
      const refused = await lab.call('POST', '/v1/vdisks', { name: 'late', sizeBytes: MIB });
      assert.equal(refused.kind, 'device');
      assert.equal(await third.ended, 1);
      assert.match(third.log, /error store-stopped: .*\n.*stopping: .*the store has ended/);
      const store = await openStore(lab.path('store'));
      assert.deepEqual(
        store.list().map(({ name, backing }) => [name, backing]),
        [
          ['c', undefined],
          ['g', 'g@s'],
          ['g@s', undefined],
        ],
      );
      await store.close();
    });
  });

  it('refuses settings before it touches anything', async () => {
    await withLab(async (lab) => {
      writeFileSync(lab.path('c.toml'), '[log]\nlevle = "warn"\n');
      writeFileSync(lab.path('short'), 'abc\n', { mode: 0o600 });
      const cases: [string[], RegExp][] = [
        [['--config', lab.path('c.toml')], /c.toml: there is no setting log.levle/],
        [['--config', lab.path('none.toml')], /none.toml/],
        [['--api', '127.0.0.1:0'], /needs a token: give --api-token-file/],
        [['--api', ':0', '--api-token-file', lab.path('short')], /holds no token/],
        [['--nbd', '0.0.0.0:0'], /open to everybody/],
        [['--nbd-socket', `/${'x'.repeat(200)}`], /longer than the 107 bytes/],
        [['--api', lab.path('api'), '--nbd-socket', lab.path('nbd')], /to make a store .*--size/],
      ];
      for (const [args, text] of cases) {
        const options = parseServeArguments([...args, '--store', lab.path('store')]);
        const environment = { XDG_RUNTIME_DIR: lab.folder };
        await assert.rejects(serve({ ...options, environment }), text);
      }
      await assert.rejects(
        serve({ configPath: undefined, flags: {}, environment: {} }),
        /which store/,
      );
      assert.equal(existsSync(lab.path('store')), false);
    });
  });

  it('takes sockets from systemd, tells it how it is, ends at once on a second signal', async () => {
    await withLab(async (lab) => {
      const server = createServer();
      await new Promise<void>((resolve) => server.listen(lab.path('bound'), resolve));
      const { fd } = (server as unknown as { _handle: { fd: number } })._handle;
      // Closing it here removes its file; the socket itself stays, under its other name.
      linkSync(lab.path('bound'), lab.path('api'));
      // In the place of systemd-notify: writes down what it was told.
      const told = lab.path('told');
      writeFileSync(lab.path('systemd-notify'), `#!/bin/sh\necho "$1" >> "${told}"\n`, {
        mode: 0o755,
      });
      const daemon = lab.spawn({
        args: [
          '--nbd-socket',
          lab.path('nbd'),
          '--log-format',
          'json',
          '--server-drain-ms',
          '60000',
        ],
        descriptors: [fd],
        environment: {
          PATH: `${lab.folder}:${process.env.PATH}`,
          LISTEN_FDS: '1',
          LISTEN_FDNAMES: 'api',
          NOTIFY_SOCKET: lab.path('notify'),
        },
      });
      server.close();
      await daemon.logged(/"event":"ready"/);
      const { api } = await lab.call('GET', '/v1/server');
      assert.deepEqual(api, [{ kind: 'unix', path: lab.path('bound') }]);
      await lab.call('POST', '/v1/vdisks', { name: 'a', sizeBytes: MIB });
      await lab.stuckUpload('/v1/vdisks/a/data');
      daemon.process.kill('SIGTERM');
      await daemon.logged(/"event":"stopping"/);
      assert.equal(await daemon.kill('SIGTERM'), 128 + 15);
      assert.deepEqual(readFileSync(told, 'utf8'), 'READY=1\nSTOPPING=1\n');
      for (const line of daemon.log.trim().split('\n')) {
        const event = JSON.parse(line) as { level: string; event: string };
        assert.equal(event.level, 'info', line);
      }
    });
  });
});
