/** Data of vdisks in and out over the API: raw, sparse, new, cut off, cancelled; maps and diffs. */
import assert from 'node:assert/strict';
import { request as httpRequest } from 'node:http';
import { buffer } from 'node:stream/consumers';
import { after, before, describe, it } from 'node:test';
import { type ApiAnswer, ControlLab } from '../../test/support/control-lab.js';
import { KIB, MIB } from '../base/units.js';
import { RAW_TYPE, SPARSE_TYPE } from './operations.js';
import { KINDS_OF_PROBLEM } from './problem.js';
import type { Job, ProblemKind, Vdisk } from './schemas.js';
import { decodeSparse, encodeSparse, type SparsePiece } from './sparse-stream.js';

const SIZE = 4 * MIB;
let lab: ControlLab;

/** Data at the beginning, a hole, data that ends in a part of a block. */
function content(): Buffer {
  const bytes = Buffer.alloc(SIZE);
  for (let at = 0; at < MIB + 5000; at++) bytes[at] = (at * 31) % 251;
  bytes.fill(9, 3 * MIB - 700, 3 * MIB + 300);
  return bytes;
}

function assertProblem(answer: ApiAnswer, kind: ProblemKind, text: RegExp, status?: number): void {
  assert.equal(answer.body.kind, kind, JSON.stringify(answer.body));
  assert.equal(answer.status, status ?? KINDS_OF_PROBLEM[kind].status);
  assert.match(String(answer.body.detail), text);
}

async function read(path: string, accept: string): Promise<Buffer> {
  const response = await lab.open('GET', path, { headers: { accept } });
  assert.equal(response.statusCode, 200);
  assert.equal(response.headers['content-type'], accept);
  return buffer(response);
}

async function* one<T>(...items: T[]): AsyncGenerator<T> {
  for (const item of items) yield await Promise.resolve(item);
}

async function encoded(pieces: SparsePiece[], end: number): Promise<Buffer> {
  return buffer(encodeSparse(one(...pieces), () => end));
}

async function jobs(): Promise<Job[]> {
  return (await lab.call('GET', '/v1/jobs')).body.jobs as Job[];
}

/** Sends a part of a body and goes. */
function sendPart(path: string, bytes: Buffer, then: 'destroy' | 'wait') {
  const request = httpRequest({
    socketPath: lab.apiPath,
    method: 'PUT',
    path,
    headers: { 'content-length': SIZE },
  });
  request.on('error', () => undefined);
  request.write(bytes, () => {
    if (then === 'destroy') request.destroy();
  });
  return request;
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setImmediate(resolve));
}

describe('content over the API', () => {
  before(async () => {
    lab = await ControlLab.start();
    await lab.call('POST', '/v1/vdisks', { body: { name: 'v', sizeBytes: SIZE } });
  });

  after(async () => {
    assert.deepEqual(lab.bugs, []);
    await lab.close();
  });

  it('takes raw bytes, and gives them back: whole, in parts, sparse', async () => {
    const bytes = content();
    const put = await lab.call('PUT', '/v1/vdisks/v/data', { body: bytes });
    assert.equal(put.status, 200);
    // Blocks of zeros take no space: 257 of the first run, one at each side of 3 MiB.
    assert.equal(put.body.dataBytes, MIB + 8 * KIB + 8 * KIB);
    assert.equal(put.body.zeroBytes, SIZE - Number(put.body.dataBytes));
    const { body } = await lab.call('GET', '/v1/vdisks/v');
    assert.equal(body.mappedBytes, put.body.dataBytes);
    assert.ok((await read('/v1/vdisks/v/data', RAW_TYPE)).equals(bytes));
    for (const [offset, length] of [
      [0, 1],
      [513, 70_000],
      [MIB - 3, 2 * MIB],
      [SIZE - 1, 100],
      [SIZE, 0],
    ] as const) {
      const part = await read(`/v1/vdisks/v/data?offset=${offset}&length=${length}`, RAW_TYPE);
      assert.ok(part.equals(bytes.subarray(offset, offset + length)), `${offset}`);
    }
    const stream = await read('/v1/vdisks/v/data', SPARSE_TYPE);
    assert.ok(stream.length < MIB + 20 * KIB, 'holes take no bytes');
    const back = Buffer.alloc(SIZE, 1);
    for await (const piece of decodeSparse(one(stream))) {
      if (piece.kind === 'data') back.set(piece.bytes, piece.offset);
      else back.fill(0, piece.offset, piece.offset + piece.length);
    }
    assert.ok(back.equals(bytes));
  });

  it('writes sparse streams, and raw ones at an offset', async () => {
    const data = Buffer.alloc(10_000, 5);
    const pieces: SparsePiece[] = [
      { kind: 'zero', offset: 0, length: 600 },
      { kind: 'data', offset: 8192, bytes: data },
    ];
    const headers = { 'content-type': SPARSE_TYPE };
    const body = await encoded(pieces, SIZE);
    const put = await lab.call('PUT', '/v1/vdisks/v/data', { body, headers });
    assert.deepEqual([put.body.dataBytes, put.body.zeroBytes], [10_000, 600]);
    const raw = await lab.call('PUT', '/v1/vdisks/v/data?offset=2000001', { body: data });
    assert.equal(raw.status, 200);
    const expected = content();
    expected.fill(0, 0, 600);
    expected.set(data, 8192);
    expected.set(data, 2_000_001);
    assert.ok((await read('/v1/vdisks/v/data', RAW_TYPE)).equals(expected));
  });

  it('refuses streams that cannot be meant', async () => {
    const put = (path: string, body: Buffer, type = RAW_TYPE) =>
      lab.call('PUT', path, { body, headers: { 'content-type': type } });
    const path = '/v1/vdisks/v/data';
    assertProblem(await put(path, Buffer.alloc(SIZE + 1)), 'invalid', /goes on beyond/);
    assertProblem(await put(path, Buffer.alloc(9), 'text/plain'), 'invalid', /of type/, 415);
    assertProblem(await put(path, Buffer.alloc(9), SPARSE_TYPE), 'invalid', /another magic/);
    const whole = await encoded([{ kind: 'data', offset: 0, bytes: Buffer.alloc(9) }], 9);
    const cut = whole.subarray(0, -1);
    assertProblem(await put(path, cut, SPARSE_TYPE), 'invalid', /cut off/);
    assertProblem(await put(`${path}?offset=1`, whole, SPARSE_TYPE), 'invalid', /leave offset out/);
    assertProblem(await put('/v1/vdisks/none/data', whole), 'not-found', /none/);
    assertProblem(await put('/v1/vdisks/_keiki.a/data', whole), 'invalid', /server's own/);
    const get = (query: string, accept = RAW_TYPE) =>
      lab.call('GET', `${path}${query}`, { headers: { accept } });
    assertProblem(await get('', '*/*'), 'not-acceptable', /Accept: application/);
    assertProblem(await get(`?offset=${SIZE + 1}`), 'invalid', /beyond/);
    assertProblem(await get('?offset=x'), 'invalid', /query\/offset/);
    assertProblem(await get('?offset=-1'), 'invalid', /query\/offset/);
    assertProblem(await get('?offset=1&offset=2'), 'invalid', /twice/);
    assertProblem(await get('?from=1'), 'invalid', /unknown key "from"/);
  });

  it('imports into a new vdisk, which is there whole or not at all', async () => {
    const bytes = content();
    const path = `/v1/vdisks/new/data?createSizeBytes=${SIZE}`;
    const put = await lab.call('PUT', path, { body: bytes });
    assert.deepEqual([put.status, put.body.name, put.body.sizeBytes], [200, 'new', SIZE]);
    assert.ok((await read('/v1/vdisks/new/data', RAW_TYPE)).equals(bytes));
    assertProblem(await lab.call('PUT', path, { body: bytes }), 'exists', /new exists/);
    const snapshot = '/v1/vdisks/new@s/data?createSizeBytes=512';
    assertProblem(await lab.call('PUT', snapshot, { body: Buffer.alloc(1) }), 'invalid', /no @/);
    const before = lab.store.list().length;
    const hidden = `/v1/vdisks/half/data?createSizeBytes=${SIZE}`;
    sendPart(hidden, bytes.subarray(0, MIB), 'destroy');
    await until(async () =>
      (await jobs()).some(({ vdisk, endedAt }) => vdisk === 'half' && endedAt),
    );
    await until(() => Promise.resolve(lab.store.list().length === before));
    const [job] = (await jobs()).filter(({ vdisk }) => vdisk === 'half');
    assert.equal(job?.state, 'failed');
    const tooLong = await lab.call('PUT', '/v1/vdisks/half/data?createSizeBytes=512', {
      body: Buffer.alloc(1024, 1),
    });
    assertProblem(tooLong, 'invalid', /goes on beyond/);
    assert.equal(lab.store.list().length, before);
  });

  it('imports into a vdisk that is as large as its stream', async () => {
    const create = (name: string, body: Buffer, type = RAW_TYPE) =>
      lab.call('PUT', `/v1/vdisks/${name}/data?create=true`, {
        body,
        headers: { 'content-type': type },
      });
    const bytes = content().subarray(0, MIB + 5001);
    const raw = await create('grown', bytes);
    assert.deepEqual([raw.status, raw.body.sizeBytes], [200, MIB + 5120]);
    const padded = Buffer.concat([bytes, Buffer.alloc(5120 - 5001)]);
    assert.ok((await read('/v1/vdisks/grown/data', RAW_TYPE)).equals(padded));
    // Past every size that it grows to, to data at 5 GiB, and then a hole.
    const at = 5 * 1024 * MIB + 512;
    const pieces: SparsePiece[] = [
      { kind: 'data', offset: 60 * MIB - 7, bytes: Buffer.alloc(6 * MIB, 3) },
      { kind: 'data', offset: at, bytes: Buffer.alloc(70_000, 4) },
    ];
    const sparse = await create('sparse', await encoded(pieces, at + MIB + 1), SPARSE_TYPE);
    assert.deepEqual([sparse.status, sparse.body.sizeBytes], [200, at + MIB + 512]);
    const first = await read(`/v1/vdisks/sparse/data?offset=${60 * MIB - 8}&length=9`, RAW_TYPE);
    assert.deepEqual([...first], [0, 3, 3, 3, 3, 3, 3, 3, 3]);
    const last = await read(`/v1/vdisks/sparse/data?offset=${at + 69_999}`, RAW_TYPE);
    assert.deepEqual([last.length, last[0], last[1]], [MIB + 512 - 69_999, 4, 0]);
    const shrunk = await create('tail', await encoded([], 3 * 1024 * MIB), SPARSE_TYPE);
    assert.equal(shrunk.body.sizeBytes, 3 * 1024 * MIB);
    for (const name of ['grown', 'sparse', 'tail']) {
      assert.equal((await lab.call('DELETE', `/v1/vdisks/${name}`)).status, 204);
    }
  });

  it('leaves nothing of a vdisk that grows with a stream which is refused or cut off', async () => {
    const before = lab.store.list().length;
    const put = (query: string, body: Buffer, type = RAW_TYPE) =>
      lab.call('PUT', `/v1/vdisks/half/data?${query}`, { body, headers: { 'content-type': type } });
    const empty = Buffer.alloc(0);
    assertProblem(await put('create=true', empty), 'invalid', /without a byte/);
    assertProblem(await put('create=yes', empty), 'invalid', /query\/create/);
    const both = await put('create=true&createSizeBytes=512', empty);
    assertProblem(both, 'invalid', /create leaves it to the stream/);
    const beyond = await encoded([{ kind: 'zero', offset: 2 ** 50, length: 512 }], 2 ** 50 + 512);
    assertProblem(await put('create=true', beyond, SPARSE_TYPE), 'invalid', /as no vdisk does/);
    const endless = await encoded([], 2 ** 50 + 512);
    assertProblem(await put('create=true', endless, SPARSE_TYPE), 'invalid', /1 PiB/);
    sendPart('/v1/vdisks/gone/data?create=true', content().subarray(0, MIB), 'destroy');
    await until(async () =>
      (await jobs()).some(({ vdisk, endedAt }) => vdisk === 'gone' && endedAt),
    );
    await until(() => Promise.resolve(lab.store.list().length === before));
  });

  it('shows nobody what is half imported, and cancels it', async () => {
    const request = sendPart(`/v1/vdisks/part/data?createSizeBytes=${SIZE}`, content(), 'wait');
    const answered = new Promise<number | undefined>((resolve) => {
      request.on('response', (response) => resolve(response.statusCode));
    });
    const running = sendPart(
      `/v1/vdisks/slow/data?createSizeBytes=${SIZE}`,
      Buffer.alloc(MIB),
      'wait',
    );
    const slowAnswer = new Promise<number | undefined>((resolve) => {
      running.on('response', (response) => resolve(response.statusCode));
    });
    assert.equal(await answered, 200);
    await until(async () => (await jobs()).some(({ vdisk }) => vdisk === 'slow'));
    const vdisks = (await lab.call('GET', '/v1/vdisks')).body.vdisks as Vdisk[];
    assert.deepEqual(
      vdisks.map(({ name }) => name),
      ['new', 'part', 'v'],
    );
    assert.equal(lab.store.list().length, 4);
    assert.deepEqual(lab.service.plane.exports.list(), ['new', 'part', 'v']);
    const id = (await jobs()).find(({ vdisk }) => vdisk === 'slow')?.id ?? '';
    const cancelled = await lab.call('DELETE', `/v1/jobs/${id}`);
    assert.equal(cancelled.body.state, 'cancelled');
    assert.equal(await slowAnswer, 409);
    assert.equal(lab.store.list().length, 3);
  });

  it('tells maps, differences and exact figures', async () => {
    await lab.call('POST', '/v1/snapshots', { body: { items: [{ vdisk: 'new', snapshot: 's' }] } });
    await lab.store.vdisk('new').write(2 * MIB, Buffer.alloc(4096, 1));
    await lab.store.vdisk('new').trim(0, 4096);
    const { body: map } = await lab.call('GET', '/v1/vdisks/new/map?offset=1048576&length=2097152');
    assert.deepEqual(map, {
      name: 'new',
      extents: [
        { offset: MIB, length: 8192, kind: 'data', depth: 1, filled: false },
        { offset: MIB + 8192, length: MIB - 8192, kind: 'hole', depth: 0, filled: false },
        { offset: 2 * MIB, length: 4096, kind: 'data', depth: 0, filled: false },
        { offset: 2 * MIB + 4096, length: MIB - 8192, kind: 'hole', depth: 0, filled: false },
        { offset: 3 * MIB - 4096, length: 4096, kind: 'data', depth: 1, filled: false },
      ],
    });
    const { body: diff } = await lab.call('GET', '/v1/diff?from=new@s&to=new');
    assert.deepEqual(diff, {
      from: 'new@s',
      to: 'new',
      extents: [
        { offset: 0, length: 4096, kind: 'zero' },
        { offset: 2 * MIB, length: 4096, kind: 'data' },
      ],
    });
    const whole = await lab.call('GET', '/v1/diff?to=new@s');
    assert.equal(whole.body.from, null);
    const { body: scan } = await lab.call('GET', '/v1/vdisks/new/scan');
    assert.equal(scan.readThroughBytes, MIB + 12 * KIB);
    for (const path of ['/v1/vdisks/none/map', '/v1/diff?to=none', '/v1/vdisks/none/scan']) {
      assertProblem(await lab.call('GET', path), 'not-found', /none/);
    }
    assertProblem(await lab.call('GET', '/v1/diff'), 'invalid', /'to'/);
    assertProblem(await lab.call('GET', '/v1/diff?from=v&to=new'), 'invalid', /not in the past/);
    const snapshot = '/v1/vdisks/new@s/data';
    assertProblem(await lab.call('PUT', snapshot, { body: Buffer.alloc(1) }), 'read-only', /clone/);
  });

  it('keeps a vdisk while its data is read, and ends when the reader goes', async () => {
    await lab.call('POST', '/v1/vdisks', { body: { name: 'big', sizeBytes: 1024 * MIB } });
    const headers = { accept: RAW_TYPE };
    const response = await lab.open('GET', '/v1/vdisks/big/data', { headers });
    assertProblem(await lab.call('DELETE', '/v1/vdisks/big'), 'in-use', /a stream of its data/);
    const running = (await jobs()).find(({ vdisk }) => vdisk === 'big');
    assert.equal(running?.state, 'running');
    response.destroy();
    await until(async () => (await lab.call('DELETE', '/v1/vdisks/big')).status === 204);
    const second = (await jobs()).find(({ id }) => id === running?.id);
    assert.equal(second?.state, 'failed');
  });
});
