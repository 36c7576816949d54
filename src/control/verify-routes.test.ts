/** Certificates over the API. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, before, test } from 'node:test';
import { ControlLab } from '../../test/support/control-lab.js';
import { KIB, MIB } from '../base/units.js';
import type { Certificate, Event, Vdisk, Verification } from './schemas.js';

const SIZE = 2 * MIB;
const CONTENT = Buffer.alloc(SIZE);
CONTENT.fill(1, 0, 40 * KIB);
CONTENT.fill(2, MIB, MIB + 8 * KIB);
const HASH = `sha256:${createHash('sha256').update(CONTENT).digest('hex')}`;

let lab: ControlLab;

before(async () => {
  lab = await ControlLab.start();
  const golden = await lab.store.createVdisk('golden', SIZE);
  await golden.write(0, CONTENT.subarray(0, 40 * KIB));
  await golden.write(MIB, CONTENT.subarray(MIB, MIB + 8 * KIB));
  await lab.store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
  for (const name of ['copied', 'shared', 'clone']) await lab.store.clone('golden@v1', name);
  await (await lab.store.split('copied', { mode: 'copy' })).done;
  await (await lab.store.split('shared', { mode: 'share' })).done;
});

after(async () => {
  assert.deepEqual(lab.bugs, []);
  await lab.close();
});

async function verify(name: string, body: object = {}): Promise<Verification> {
  const answer = await lab.call('POST', `/v1/vdisks/${name}/verify`, { body });
  assert.equal(answer.status, 200, JSON.stringify(answer.body));
  return answer.body as unknown as Verification;
}

async function certificateOf(name: string): Promise<Certificate | null> {
  return ((await lab.call('GET', `/v1/vdisks/${name}`)).body as unknown as Vdisk).certificate;
}

test('a split ends with a certificate, which the vdisk shows', async () => {
  const { at, cpNumber, ...copied } = (await certificateOf('copied')) ?? assert.fail('none');
  assert.match(at, /^20\d\d-\d\d-\d\dT[\d:.]+Z$/);
  assert.ok(cpNumber > 0);
  const { formerBacking } = copied;
  assert.equal(formerBacking?.name, 'golden@v1');
  assert.deepEqual(copied, {
    kind: 'split',
    result: 'proven',
    refutations: 0,
    formerBacking,
    // 12 of data, two of level 1, one of level 2.
    blocks: 15,
    filledCopies: 12,
    filledShares: 0,
    filledZeros: 0,
    compared: 12,
    excepted: 0,
    contentHash: null,
  });
  const shared = await certificateOf('shared');
  // Shared as a whole: what lies beneath the root is named through it, and is not looked at.
  assert.deepEqual([shared?.filledCopies, shared?.filledShares, shared?.blocks], [0, 0, 1]);
  for (const name of ['golden', 'golden@v1', 'clone'])
    assert.equal(await certificateOf(name), null);
});

test('verify proves, is kept, and is told as an event', async () => {
  const { certificate, findings, name } = await verify('copied', { contentHash: HASH });
  assert.deepEqual([name, findings], ['copied', []]);
  assert.deepEqual([certificate.kind, certificate.result], ['verify', 'proven']);
  assert.deepEqual([certificate.compared, certificate.contentHash], [12, HASH]);
  assert.equal(certificate.formerBacking?.name, 'golden@v1');
  assert.deepEqual(await certificateOf('copied'), certificate);
  const { body } = await lab.call('GET', '/v1/events');
  const event = (body.events as Event[]).filter(({ type }) => type === 'vdisk-verified').at(-1);
  assert.deepEqual(event?.data, { name, certificate, findings });
});

test('what reads through another, and what has other content, is refuted', async () => {
  const clone = await verify('clone');
  assert.equal(clone.certificate.result, 'refuted');
  assert.deepEqual(
    clone.findings.map(({ kind, fbn }) => [kind, fbn]),
    [['association', null]],
  );
  const wrong = `sha256:${'0'.repeat(64)}`;
  const { certificate, findings } = await verify('shared', { contentHash: wrong });
  assert.equal(certificate.result, 'refuted');
  assert.deepEqual(
    findings.map(({ kind }) => kind),
    ['content'],
  );
  assert.match(findings[0]?.message ?? '', new RegExp(`SHA-256 ${HASH.slice(7)}`));
});

test('the hash of a content is that of its bytes, of a snapshot as well', async () => {
  for (const name of ['golden@v1', 'shared', 'clone']) {
    const { body } = await lab.call('GET', `/v1/vdisks/${encodeURIComponent(name)}/content-hash`);
    assert.deepEqual(body, { name, sizeBytes: SIZE, contentHash: HASH });
  }
});

test('what cannot be meant is refused', async () => {
  const bad = await lab.call('POST', '/v1/vdisks/copied/verify', {
    body: { contentHash: 'md5:1' },
  });
  assert.deepEqual([bad.status, bad.body.kind], [400, 'invalid']);
  for (const path of ['/v1/vdisks/none/verify', '/v1/vdisks/copied@none/verify']) {
    const none = await lab.call('POST', path, { body: {} });
    assert.deepEqual([none.status, none.body.kind], [404, 'not-found']);
  }
});

test('a rename keeps the certificate, a clone and a snapshot begin without one', async () => {
  const before = await certificateOf('copied');
  await lab.call('PATCH', '/v1/vdisks/copied', { body: { name: 'renamed' } });
  assert.deepEqual(await certificateOf('renamed'), before);
  await lab.store.snapshot([{ vdisk: 'renamed', snapshot: 's' }]);
  await lab.store.clone('renamed@s', 'fresh');
  assert.deepEqual(await certificateOf('renamed'), before);
  assert.equal(await certificateOf('renamed@s'), null);
  assert.equal(await certificateOf('fresh'), null);
});
