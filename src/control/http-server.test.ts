/** HTTP itself: tokens, methods, bodies, keys that are sent again, streams of events, the end. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { connect } from 'node:net';
import { describe, it } from 'node:test';
import { ControlLab } from '../../test/support/control-lab.js';
import { MIB } from '../base/units.js';
import { EVENT_STREAM_TYPE, OPERATIONS, type Operation } from './operations.js';

async function withLab(act: (lab: ControlLab) => Promise<void>): Promise<void> {
  const lab = await ControlLab.start();
  try {
    await act(lab);
    assert.deepEqual(lab.bugs, []);
  } finally {
    await lab.close();
  }
}

function overTcp(lab: ControlLab, path: string, authorization?: string): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const headers = authorization === undefined ? {} : { authorization };
    const options = { host: '127.0.0.1', port: lab.tcpPort, path, headers };
    httpRequest(options, resolve).on('error', reject).end();
  });
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setImmediate(resolve));
}

/** Reads an event stream until its text matches. */
async function readUntil(response: IncomingMessage, pattern: RegExp): Promise<string> {
  let text = '';
  response.setEncoding('utf8');
  for await (const chunk of response.iterator({ destroyOnReturn: false })) {
    text += String(chunk);
    if (pattern.test(text)) return text;
  }
  return text;
}

describe('the control server', () => {
  it('asks for the token on TCP, on every path but the health check', async () => {
    await withLab(async (lab) => {
      const paths = ['/v1/vdisks', '/metrics', '/v1/nothing', '/', '/v1/openapi.json'];
      const wrong = [undefined, 'Bearer', 'Bearer x', `Basic ${lab.token}`, `Bearer ${lab.token}x`];
      for (const path of paths) {
        for (const header of wrong) {
          const response = await overTcp(lab, path, header);
          response.resume();
          assert.equal(response.statusCode, 401, `${path} ${header}`);
          assert.equal(response.headers['www-authenticate'], 'Bearer');
        }
      }
      for (const header of [`Bearer ${lab.token}`, `bearer  ${lab.token}`]) {
        const response = await overTcp(lab, '/v1/vdisks', header);
        response.resume();
        assert.equal(response.statusCode, 200);
      }
      const health = await overTcp(lab, '/healthz');
      health.resume();
      assert.equal(health.statusCode, 200);
    });
  });

  it('knows its paths and methods', async () => {
    await withLab(async (lab) => {
      const cases: [string, string, number, string | undefined][] = [
        ['GET', '/', 404, undefined],
        ['GET', '/v1/vdisks/', 400, undefined],
        ['GET', '/v1/vdisks/a/b', 404, undefined],
        ['GET', '/v1/vdisks/%ff', 404, undefined],
        ['GET', '/v1/vdisks/..%2f..%2fetc', 400, undefined],
        ['GET', '/v1/vdisks/%00', 400, undefined],
        ['GET', '/v2/vdisks', 404, undefined],
        ['POST', '/v1/server', 405, 'GET, HEAD, OPTIONS'],
        ['PUT', '/v1/vdisks/v', 405, 'DELETE, GET, HEAD, OPTIONS, PATCH'],
        ['PROPFIND', '/v1/vdisks', 405, 'GET, HEAD, OPTIONS, POST'],
        ['OPTIONS', '/v1/vdisks', 204, 'GET, HEAD, OPTIONS, POST'],
        ['GET', '/v1/server?x=1', 400, undefined],
        ['HEAD', '/v1/server', 200, undefined],
        ['HEAD', '/metrics', 200, undefined],
        ['HEAD', '/v1/vdisks/none', 404, undefined],
      ];
      for (const [method, path, status, allow] of cases) {
        const response = await lab.open(method, path);
        response.resume();
        assert.equal(response.statusCode, status, `${method} ${path}`);
        assert.equal(response.headers.allow, allow, `${method} ${path}`);
        await once(response, 'end');
      }
    });
  });

  it('refuses bodies that are no JSON, too long, or of another type', async () => {
    await withLab(async (lab) => {
      const json = { 'content-type': 'application/json' };
      const cases: [string, Record<string, string>, number][] = [
        ['{', json, 400],
        ['', json, 400],
        ['\xff', json, 400],
        ['"x"', json, 400],
        ['['.repeat(20_000), json, 400],
        ['{"name":"a","sizeBytes":512}', {}, 415],
        ['{"name":"a","sizeBytes":512}', { 'content-type': 'text/json' }, 415],
        ['{"__proto__":{"name":"a"},"sizeBytes":512}', json, 400],
        [' '.repeat(1024 * 1024 + 1), json, 413],
        [' '.repeat(17 * 1024 * 1024), json, 413],
      ];
      for (const [text, headers, status] of cases) {
        const body = Buffer.from(text, 'latin1');
        const answer = await lab.call('POST', '/v1/vdisks', { body, headers });
        assert.equal(answer.status, status, text.slice(0, 40));
      }
      const type = 'application/json; charset=utf-8';
      const body = Buffer.from(`${' '.repeat(1000)}{"name":"ok","sizeBytes":512}`);
      const good = await lab.call('POST', '/v1/vdisks', {
        body,
        headers: { 'content-type': type },
      });
      assert.equal(good.status, 201);
      assert.equal((await lab.call('GET', '/v1/vdisks')).status, 200);
    });
  });

  it('answers a request that is sent again with its key as it did before', async () => {
    await withLab(async (lab) => {
      const create = (name: string, key: string) =>
        lab.call('POST', '/v1/vdisks', {
          body: { name, sizeBytes: 512 },
          headers: { 'idempotency-key': key },
        });
      const [first, second] = await Promise.all([create('a', 'k1'), create('a', 'k1')]);
      assert.deepEqual([first.status, second.status], [201, 201]);
      assert.deepEqual(second.body, first.body);
      assert.equal((await create('a', 'k1')).status, 201);
      assert.equal((await create('a', 'k2')).status, 409);
      assert.equal((await create('b', 'k1')).status, 422);
      assert.equal((await create('b', 'x'.repeat(201))).status, 400);
      // What failed may be tried again: the key is free.
      await lab.call('DELETE', '/v1/vdisks/a');
      assert.equal((await create('a', 'k2')).status, 201);
      const events = (await lab.call('GET', '/v1/events')).body.events as { type: string }[];
      assert.equal(events.filter(({ type }) => type === 'vdisk-created').length, 2);
    });
  });

  it('streams events, and those again that a client missed', async () => {
    await withLab(async (lab) => {
      const headers = { accept: EVENT_STREAM_TYPE };
      const stream = await lab.open('GET', '/v1/events', { headers });
      assert.equal(stream.headers['content-type'], EVENT_STREAM_TYPE);
      await lab.call('POST', '/v1/vdisks', { body: { name: 'a', sizeBytes: 512 } });
      await lab.call('PATCH', '/v1/vdisks/a', { body: { name: 'b' } });
      await lab.call('DELETE', '/v1/vdisks/b');
      const text = await readUntil(stream, /vdisk-deleted.*\n.*\n\n/);
      assert.match(
        text,
        /^retry: 1000\n\nid: 1\nevent: vdisk-created\ndata: \{"id":1,.*"name":"a"/,
      );
      assert.match(text, /id: 2\nevent: vdisk-changed\ndata: .*"formerName":"a"/);
      assert.match(text, /id: 3\nevent: vdisk-deleted\ndata: .*"data":\{"name":"b"\}\}\n\n$/);
      stream.destroy();
      const late = { ...headers, 'last-event-id': '1' };
      const again = await lab.open('GET', '/v1/events', { headers: late });
      const missed = await readUntil(again, /vdisk-deleted/);
      assert.doesNotMatch(missed, /vdisk-created/);
      assert.match(missed, /vdisk-changed/);
      again.destroy();
      await until(() => lab.service.plane.events.listenerCount === 0);
    });
  });

  it('waits for no slow reader of events, and bounds what it keeps for one', async () => {
    await withLab(async (lab) => {
      const socket = connect(lab.apiPath);
      socket.write(`GET /v1/events HTTP/1.1\r\nHost: x\r\nAccept: ${EVENT_STREAM_TYPE}\r\n\r\n`);
      await until(() => lab.service.plane.events.listenerCount === 1);
      socket.pause();
      const big = { name: 'x'.repeat(4000) };
      for (let count = 0; count < 5000; count++) {
        lab.service.plane.events.add('vdisk-changed', big);
        if (count % 50 === 0) await new Promise((resolve) => setImmediate(resolve));
      }
      // It gets what fitted, then how many it lost, then the newest.
      let text = '';
      let isWhole = false;
      socket.on('data', (chunk) => {
        text += chunk.toString();
        isWhole ||= chunk.includes('"id":5000,');
      });
      socket.resume();
      await until(() => isWhole);
      const lost = Number(/event: lost\ndata: .*?"count":([0-9]+)/.exec(text)?.[1]);
      const told = text.split('event: vdisk-changed').length - 1;
      assert.equal(lost + told, 5000);
      assert.ok(lost > 1000, `${lost} lost`);
      socket.destroy();
      await until(() => lab.service.plane.events.listenerCount === 0);
    });
  });

  it('lets requests under way end when it closes, and takes no new ones', async () => {
    const lab = await ControlLab.start({ drainMs: 60_000 });
    const headers = { accept: EVENT_STREAM_TYPE };
    const events = await lab.open('GET', '/v1/events', { headers });
    events.resume();
    const path = '/v1/vdisks/new/data?createSizeBytes=1048576';
    const ending = httpRequest({ socketPath: lab.apiPath, method: 'PUT', path });
    const answer = once(ending, 'response') as Promise<IncomingMessage[]>;
    ending.write(Buffer.alloc(1000));
    await until(() => lab.service.plane.jobs.runningCount === 1);
    const closed = lab.service.close();
    await once(events, 'end');
    ending.end(Buffer.alloc(1000));
    assert.equal((await answer)[0]?.statusCode, 200);
    await closed;
    await assert.rejects(lab.call('GET', '/healthz'), /ENOENT|ECONNREFUSED|EPIPE/);
    await lab.close();
  });

  it('cuts off requests that do not end in time', async () => {
    const lab = await ControlLab.start({ drainMs: 20 });
    await lab.call('POST', '/v1/vdisks', { body: { name: 'v', sizeBytes: MIB } });
    const path = '/v1/vdisks/v/data';
    const stuck = httpRequest({ socketPath: lab.apiPath, method: 'PUT', path });
    const failure = once(stuck, 'error');
    stuck.write(Buffer.alloc(1000));
    await until(() => lab.service.plane.jobs.runningCount === 1);
    await lab.service.close();
    await failure;
    await until(() => lab.service.plane.jobs.runningCount === 0);
    await lab.close();
  });

  it('answers many at once', async () => {
    await withLab(async (lab) => {
      const names = Array.from({ length: 100 }, (_, index) => `v${index}`);
      const create = (name: string) =>
        lab.call('POST', '/v1/vdisks', { body: { name, sizeBytes: 512 } });
      const made = await Promise.all(names.flatMap((name) => [create(name), create(name)]));
      const statuses = made.map(({ status }) => status);
      assert.equal(statuses.filter((status) => status === 201).length, 100);
      assert.equal(statuses.filter((status) => status === 409).length, 100);
      const gone = await Promise.all(names.map((name) => lab.call('DELETE', `/v1/vdisks/${name}`)));
      assert.ok(gone.every(({ status }) => status === 204));
    });
  });

  it('says what its schemas say, whatever the operation', async () => {
    await withLab(async (lab) => {
      const { Ajv } = await import('ajv');
      const ajv = new Ajv({ strict: false });
      await lab.call('POST', '/v1/vdisks', { body: { name: 'golden', sizeBytes: MIB } });
      await lab.store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
      await lab.store.clone('golden@v1', 'web');
      for (const operation of Object.values<Operation>(OPERATIONS)) {
        if (operation.method !== 'GET' || operation.answer === undefined) continue;
        const name = operation === OPERATIONS.planSplit ? 'web' : 'golden';
        const path = operation.path.replace('{name}', name).replace('{id}', 'split-1');
        const query = operation.path === '/v1/diff' ? '?to=golden' : '';
        const { status, body } = await lab.call('GET', path + query);
        if (operation.path === '/v1/jobs/{id}') continue;
        assert.equal(status, 200, path);
        assert.ok(ajv.validate(operation.answer, body), `${path}: ${ajv.errorsText()}`);
      }
    });
  });
});
