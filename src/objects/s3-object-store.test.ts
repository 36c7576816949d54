/**
 * What answers of HTTP mean, against servers of our own that answer as they are told. The contract
 * itself is run on a real gateway: test/conformance/object-store.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, test } from 'node:test';
import { testS3 } from '../../test/support/s3-client.js';
import { isStoreError } from '../base/store-error.js';
import { AmbiguousPutError } from '../env/object-store.js';
import { seededRandom } from '../env/seeded-random.js';
import { probeObjectStore } from './probe.js';
import type { S3ObjectStore } from './s3-object-store.js';

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

const open: { server: Server; client?: S3ObjectStore }[] = [];

async function serve(answer: Answer): Promise<string> {
  const server = createServer((request, response) => {
    request.resume();
    request.on('end', () => answer(request, response));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  open.push({ server });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function clientOf(...endpoints: string[]): S3ObjectStore {
  const client = testS3({ endpoints, bucket: 'b-1', deadlineMs: 200, patienceMs: 1500 });
  const [first] = open;
  if (first !== undefined) first.client = client;
  return client;
}

afterEach(() => {
  for (const { server, client } of open.splice(0)) {
    client?.close();
    server.closeAllConnections();
    server.close();
  }
});

const status =
  (code: number, body = ''): Answer =>
  (_, response) => {
    response.writeHead(code, { 'x-amz-request-id': 'id-7' }).end(body);
  };
const silent: Answer = () => undefined;
const reset: Answer = (request) => request.socket.destroy();
const isAmbiguous = (error: unknown): boolean => error instanceof AmbiguousPutError;

test('a put is signed, conditional, and has its length', async () => {
  const seen: IncomingMessage[] = [];
  const endpoint = await serve((request, response) => {
    seen.push(request);
    response.end();
  });
  assert.equal(await clientOf(endpoint).putNew('a b/é', [Buffer.from('xyz')]), 'created');
  const [request] = seen;
  assert.equal(request?.url, '/b-1/a%20b/%C3%A9');
  assert.equal(request.headers['if-none-match'], '*');
  assert.equal(request.headers['content-length'], '3');
  const sha256 = '3608bca1e44ea6c4d268eb6db02260269892c0b42b86bbf1e77a6fa16c3c9282';
  assert.equal(request.headers['x-amz-content-sha256'], sha256);
  assert.match(request.headers.authorization ?? '', /^AWS4-HMAC-SHA256 Credential=KEIKITEST\//);
});

test('an outcome that cannot be known is ambiguous, and is not sent twice', async () => {
  const answers = { 500: status(500), 503: status(503), 409: status(409), silent, reset };
  for (const [name, answer] of Object.entries(answers)) {
    let puts = 0;
    const endpoint = await serve((request, response) => {
      puts++;
      answer(request, response);
    });
    await assert.rejects(clientOf(endpoint).putNew('k', []), isAmbiguous, name);
    assert.equal(puts, 1, name);
  }
});

test('412 is an object that exists; other refusals say where, what, and what to do', async () => {
  assert.equal(await clientOf(await serve(status(412))).putNew('k', []), 'exists');
  const denied = '<Error><Code>AccessDenied</Code><Message>no &amp; no</Message></Error>';
  await assert.rejects(clientOf(await serve(status(403, denied))).putNew('k', []), (error) => {
    assert.ok(isStoreError(error, 'invalid'));
    assert.match(error.message, /^s3:\/\/b-1: PUT k answered 403 AccessDenied \(no & no\), /);
    assert.match(error.message, /request id id-7 at http:.*: allow it: docs\/OBJECT-STORE/);
    return true;
  });
});

test('reads go on at the other endpoint, whatever the first one does', async () => {
  const good = await serve((_, response) => void response.end('body'));
  const closed = await serve(silent);
  const [last] = open.splice(-1);
  last?.server.close();
  const bad = [status(500), status(503), silent, reset];
  for (const endpoint of [closed, ...(await Promise.all(bad.map(serve)))]) {
    const client = clientOf(endpoint, good);
    for (let turn = 0; turn < 4; turn++) {
      assert.equal(Buffer.from((await client.get('k')) ?? []).toString(), 'body');
    }
    assert.ok(client.retries >= 1);
    client.close();
  }
});

test('a put that never left goes to the other endpoint; with none left it is an error', async () => {
  const closed = await serve(silent);
  open.splice(-1)[0]?.server.close();
  const good = await serve(status(200));
  const client = clientOf(closed, good);
  for (let turn = 0; turn < 4; turn++) assert.equal(await client.putNew(`k${turn}`, []), 'created');
  await assert.rejects(clientOf(closed).putNew('k', []), (error) => isStoreError(error, 'device'));
});

test('an answer that is cut short, or for another range, is never given on', async () => {
  const short = await serve((request, response) => {
    response.writeHead(200, { 'content-length': '10' }).write('1234');
    setImmediate(() => request.socket.destroy());
  });
  await assert.rejects(clientOf(short).get('k'), (error) => isStoreError(error, 'device'));
  const other = await serve((_, response) => {
    response.writeHead(206, { 'content-range': 'bytes 0-3/10' }).end('1234');
  });
  await assert.rejects(clientOf(other).get('k', 4, 4), /answered with "bytes 0-3\/10"/);
});

test('a server that accepts the condition and ignores it is refused by the probe', async () => {
  const objects = new Map<string, string>();
  const endpoint = await serve((request, response) => {
    const key = request.url ?? '';
    if (request.method === 'GET' && !objects.has(key)) response.writeHead(404);
    if (request.method === 'PUT') objects.set(key, '');
    response.end(objects.get(key));
  });
  const ways = [clientOf(endpoint)];
  const probing = probeObjectStore({ prefix: 'p', random: seededRandom(1), ways });
  await assert.rejects(probing, /16 of 16 creates of one key were all told/);
});
