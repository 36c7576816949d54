/** The server's TLS settings, by file, environment and flags, with libnbd as client. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { MIB } from '../../../src/base/units.js';
import { serve } from '../../../src/main/serve.js';
import { parseServeArguments } from '../../../src/main/serve-arguments.js';
import { DaemonLab, type DaemonOptions } from '../../support/daemon-lab.js';
import { makeCertificates } from './certificates.js';
import { nbdsh, type Outcome, run, runOk } from './nbd-clients.js';

const folder = mkdtempSync(join(tmpdir(), 'nbd-daemon-tls-'));
const file = (name: string): string => join(folder, name);
/** What a client has that knows the authority and has no certificate of its own. */
const strangers = file('strangers');
const TCP = ['--nbd', '127.0.0.1:0'];
const SERVER_FLAGS = [
  ['--nbd-tls-certificate', file('server-cert.pem')],
  ['--nbd-tls-key', file('server-key.pem')],
].flat();

before(async () => {
  await makeCertificates(folder);
  await runOk('mkdir', [strangers]);
  await runOk('cp', [file('ca-cert.pem'), strangers]);
});
after(() => rmSync(folder, { recursive: true }));

/** A server with a vdisk `disk`, and where it listens on TCP. */
async function withDaemon(
  options: DaemonOptions,
  body: (uri: string, lab: DaemonLab) => Promise<void>,
): Promise<void> {
  const lab = new DaemonLab();
  try {
    const daemon = await lab.start(options);
    await lab.call('POST', '/v1/vdisks', { name: 'disk', sizeBytes: 8 * MIB });
    const { nbd } = (await lab.call('GET', '/v1/server')) as { nbd: { uri: string }[] };
    const uri = nbd.map((listener) => listener.uri).find((text) => text.includes('127.0.0.1'));
    assert.ok(uri !== undefined, daemon.log);
    await body(`${uri}disk`, lab);
    assert.equal(await daemon.kill('SIGTERM'), 0);
  } finally {
    await lab.close();
  }
}

function portOf(uri: string): string {
  return /:([0-9]+)\//.exec(uri)?.[1] ?? 'no port';
}

/** Writes, reads and flushes through TLS, with the certificates of this folder. */
async function worksWith(uri: string, certificates: string): Promise<void> {
  await nbdsh(
    '',
    `
h.set_tls(nbd.TLS_REQUIRE)
h.set_tls_certificates('${certificates}')
h.set_export_name('disk')
h.connect_tcp('127.0.0.1', '${portOf(uri)}')
assert h.get_tls_negotiated()
h.pwrite(b'secret' * 1000, 777, nbd.CMD_FLAG_FUA)
assert h.pread(6000, 777) == b'secret' * 1000
h.flush()
h.shutdown()
`,
  );
}

function inTheClear(uri: string): Promise<Outcome> {
  return run('nbdinfo', ['--size', uri.replace('nbds:', 'nbd:')]);
}

describe('TLS of the server', () => {
  it('required, by flags: with a certificate, and not in the clear', async () => {
    await withDaemon(
      { args: [...TCP, '--nbd-tls', 'require', ...SERVER_FLAGS] },
      async (uri, lab) => {
        assert.match(uri, /^nbds:/, 'the API says that it wants TLS');
        await worksWith(uri, strangers);
        const info = await runOk('nbdinfo', [`${uri}?tls-certificates=${strangers}`]);
        assert.match(info, /with TLS/);
        const refused = await inTheClear(uri);
        assert.equal(refused.code, 1);
        assert.match(refused.stderr, /server requires TLS/);
        // The mode of a unix socket says who comes in: no TLS there.
        const local = `nbd+unix:///disk?socket=${lab.path('nbd')}`;
        assert.equal((await runOk('nbdinfo', ['--size', local])).trim(), String(8 * MIB));
      },
    );
  });

  it('allowed, by the environment: the client decides', async () => {
    const environment = {
      KEIKI_NBD: '127.0.0.1:0',
      KEIKI_NBD_TLS: 'allow',
      KEIKI_NBD_TLS_CERTIFICATE: file('server-cert.pem'),
      KEIKI_NBD_TLS_KEY: file('server-key.pem'),
    };
    await withDaemon({ environment }, async (uri) => {
      assert.match(uri, /^nbd:/);
      await worksWith(uri, strangers);
      assert.equal((await inTheClear(uri)).code, 0);
    });
  });

  it('with certificates of clients, by the config file', async () => {
    const config = `[nbd]
listen = ["127.0.0.1:0"]
tls = "require"
tls-certificate = "${file('server-cert.pem')}"
tls-key = "${file('server-key.pem')}"
tls-client-authorities = "${file('ca-cert.pem')}"
`;
    writeFileSync(file('keiki.toml'), config);
    await withDaemon({ args: ['--config', file('keiki.toml')] }, async (uri) => {
      await worksWith(uri, folder);
      await assert.rejects(worksWith(uri, strangers));
      await worksWith(uri, folder);
    });
  });

  it('with pre-shared keys: who has none of them is not served', async () => {
    const key = randomBytes(32).toString('hex');
    writeFileSync(file('keys.psk'), `alice:${key}\n`);
    const psk = ['--nbd-tls', 'require', '--nbd-tls-psk-file', file('keys.psk')];
    await withDaemon({ args: [...TCP, ...psk] }, async (uri) => {
      const sizeFor = (user: string, keys: string): Promise<Outcome> => {
        writeFileSync(file('client.psk'), keys);
        const query = `tls-psk-file=${file('client.psk')}`;
        return run('nbdinfo', ['--size', `${uri.replace('//', `//${user}@`)}?${query}`]);
      };
      assert.equal((await sizeFor('alice', `alice:${key}\n`)).stdout.trim(), String(8 * MIB));
      assert.notEqual((await sizeFor('bob', `bob:${key}\n`)).code, 0);
      const wrong = randomBytes(32).toString('hex');
      assert.notEqual((await sizeFor('alice', `alice:${wrong}\n`)).code, 0);
      assert.notEqual((await inTheClear(uri)).code, 0);
    });
  });

  it('off: a client that insists on it is told so', async () => {
    await withDaemon({ args: TCP }, async (uri) => {
      assert.equal((await inTheClear(uri)).code, 0);
      await assert.rejects(worksWith(uri, strangers), /server refused TLS|no TLS|TLS/);
    });
  });
});

describe('settings that cannot be served', () => {
  const MAIN = resolve('src/cli/main.ts');

  const STORE = ['--store', file('store'), '--size', '64M', '--api', file('api')];

  /** `keiki serve` as people start it, to its end. */
  function serveToEnd(...args: string[]): Promise<Outcome> {
    const all = ['--import', 'tsx', MAIN, 'serve', ...STORE, ...args];
    return new Promise((done) => {
      execFile(process.execPath, all, { timeout: 60_000 }, (error, stdout, stderr) => {
        done({ code: typeof error?.code === 'number' ? error.code : 0, stdout, stderr });
      });
    });
  }

  it('are refused with the reason, before anything is made', async () => {
    writeFileSync(file('bad.psk'), 'alice:0011\n');
    writeFileSync(file('empty.pem'), '');
    const require = [...TCP, '--nbd-tls', 'require'];
    const keyOfClient = ['--nbd-tls-certificate', file('server-cert.pem')];
    const cases: [string[], RegExp][] = [
      [require, /TLS needs a certificate with its key, or pre-shared keys/],
      [[...require, ...SERVER_FLAGS.slice(0, 2)], /certificate and nbd.tls-key go together/],
      [[...require, ...SERVER_FLAGS.slice(2)], /certificate and nbd.tls-key go together/],
      [[...require, '--nbd-tls-psk-file', file('none')], /nbd.tls-psk-file: .*no such file/],
      [[...require, '--nbd-tls-psk-file', file('bad.psk')], /nbd.tls-psk-file, line 1/],
      [[...require, '--nbd-tls-psk-file', file('empty.pem')], /TLS needs a certificate/],
      [
        [...require, ...keyOfClient, '--nbd-tls-key', file('client-key.pem')],
        /TLS cannot be served with what was given/,
      ],
      [[...require, ...keyOfClient, '--nbd-tls-key', file('none')], /nbd.tls-key: .*no such file/],
      [
        [...require, '--nbd-tls-certificate', file('empty.pem'), ...SERVER_FLAGS.slice(2)],
        /TLS cannot be served with what was given/,
      ],
      [
        [...require, ...SERVER_FLAGS, '--nbd-tls-client-authorities', file('empty.pem')],
        /TLS cannot be served with what was given/,
      ],
      [[...TCP, '--nbd-tls', 'perhaps'], /nbd-tls.*off, allow, require/s],
      [[...TCP, ...SERVER_FLAGS], /nbd.tls is off, but nbd.tls-certificate is given/],
      [['--nbd', '0.0.0.0:0'], /open to everybody who reaches it.*--nbd-allow-insecure/],
      [['--nbd', '[::]:0'], /open to everybody/],
      [['--nbd', '0.0.0.0:0', '--nbd-tls', 'allow', ...SERVER_FLAGS], /open to everybody/],
    ];
    for (const [args, reason] of cases) {
      const starting = async (): Promise<number> =>
        serve({ ...parseServeArguments([...STORE, ...args]), environment: {} });
      await assert.rejects(starting, reason, args.join(' '));
    }
    assert.ok(!existsSync(file('store')));
  });

  it('end the command with an exit code and one line', async () => {
    const { code, stderr } = await serveToEnd(...TCP, '--nbd-tls', 'require');
    assert.match(stderr, /^[^\n]*TLS needs a certificate with its key, or pre-shared keys\n$/);
    assert.ok(code > 0 && code < 64, `${code}`);
    assert.ok(!existsSync(file('store')));
  });

  it('are served beyond loopback with TLS, or with the explicit word', async () => {
    const open = ['--nbd', '0.0.0.0:0'];
    for (const args of [
      [...open, '--nbd-tls', 'require', ...SERVER_FLAGS],
      [...open, '--nbd-allow-insecure'],
    ]) {
      const lab = new DaemonLab();
      const daemon = await lab.start({ args });
      assert.equal(await daemon.kill('SIGTERM'), 0);
      await lab.close();
    }
  });
});
