/** TLS with libnbd, by certificates and by pre-shared keys. */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { isStoreError } from '../../../src/base/store-error.js';
import { MIB } from '../../../src/base/units.js';
import { checkTls, type NbdTls, parseKeyFile } from '../../../src/target/nbd/tls.js';
import { MemoryTarget } from '../../support/memory-target.js';
import { makeCertificates } from './certificates.js';
import { nbdsh, run, runOk, type ServedForClients, serveForClients } from './nbd-clients.js';

const folder = mkdtempSync(join(tmpdir(), 'nbd-tls-'));
const file = (name: string): string => join(folder, name);
const text = (name: string): string => readFileSync(file(name), 'utf8');
const disk = new MemoryTarget({ name: 'disk', sizeBytes: 8 * MIB });

async function withServer(
  tls: NbdTls,
  body: (served: ServedForClients) => Promise<void>,
): Promise<void> {
  const served = await serveForClients([disk], 'disk', tls);
  try {
    await body(served);
  } finally {
    await served.close();
  }
}

const WORK = `
assert h.get_tls_negotiated()
data = bytes(range(256)) * 4096
for turn in range(4):
    h.pwrite(data, turn * len(data), nbd.CMD_FLAG_FUA)
for turn in range(4):
    assert h.pread(len(data), turn * len(data)) == data
h.flush()
`;

describe('TLS', () => {
  before(() => makeCertificates(folder));
  after(() => rmSync(folder, { recursive: true }));

  const certificate = () => ({ chain: text('server-cert.pem'), key: text('server-key.pem') });
  const withCertificate = (script: string): string => `
h.set_tls(nbd.TLS_REQUIRE)
h.set_tls_certificates('${folder}')
${script}`;

  it('with a certificate: libnbd reads and writes', async () => {
    await withServer({ mode: 'require', certificate: certificate() }, async (served) => {
      const connect = `h.connect_unix('${served.socketPath}')\n`;
      await nbdsh('', withCertificate(connect + WORK));
      const plain = await run('nbdinfo', [served.uri('disk')]);
      assert.notEqual(plain.code, 0);
      assert.match(plain.stderr, /server replied with error/);
    });
  });

  it('allowed, not required: both kinds of clients at once', async () => {
    await withServer({ mode: 'allow', certificate: certificate() }, async (served) => {
      const connect = `h.connect_unix('${served.socketPath}')\n`;
      await Promise.all([
        nbdsh('', withCertificate(connect + WORK)),
        runOk('nbdinfo', [served.uri('disk')]),
      ]);
    });
  });

  it('a client needs a certificate of the authority that the server names', async () => {
    const tls = { certificate: certificate(), clientAuthorities: text('ca-cert.pem') };
    await withServer({ mode: 'require', ...tls }, async (served) => {
      const connect = `h.connect_unix('${served.socketPath}')\n`;
      await nbdsh('', withCertificate(connect + WORK));
      const without = mkdtempSync(join(tmpdir(), 'nbd-tls-'));
      writeFileSync(join(without, 'ca-cert.pem'), text('ca-cert.pem'));
      const script = withCertificate(connect).replace(folder, without);
      await assert.rejects(nbdsh('', `${script}h.pread(512, 0)`));
      rmSync(without, { recursive: true });
    });
  });

  it('with a pre-shared key: the right one only', async () => {
    const key = randomBytes(32).toString('hex');
    writeFileSync(file('keys.psk'), `# users\nalice:${key}\n`);
    const keys = parseKeyFile(text('keys.psk'), 'keys.psk');
    await withServer({ mode: 'require', keys }, async (served) => {
      const connect = (user: string): string => `
h.set_tls(nbd.TLS_REQUIRE)
h.set_tls_psk_file('${file('client.psk')}')
h.set_tls_username('${user}')
h.connect_unix('${served.socketPath}')
`;
      writeFileSync(file('client.psk'), `alice:${key}\nmallory:${key}\n`);
      await nbdsh('', connect('alice') + WORK);
      await assert.rejects(nbdsh('', connect('mallory')));
      writeFileSync(file('client.psk'), `alice:${randomBytes(32).toString('hex')}\n`);
      await assert.rejects(nbdsh('', connect('alice')));
    });
  });

  it('what cannot work is refused before anybody connects', () => {
    const invalid = (error: unknown): boolean => isStoreError(error, 'invalid');
    const mixed = { chain: text('server-cert.pem'), key: text('client-key.pem') };
    assert.throws(() => checkTls({ mode: 'allow', certificate: mixed }), invalid);
    assert.throws(() => checkTls({ mode: 'allow' }), invalid);
    checkTls({ mode: 'allow', certificate: certificate() });
    for (const line of ['alice', ':00112233445566778899aabbccddeeff', 'alice:0011', 'a:xyz']) {
      assert.throws(() => parseKeyFile(`# one\n${line}\n`, 'keys'), /keys, line 2/);
    }
  });
});
