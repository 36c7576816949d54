/**
 * How long a store waits for an object store that fails: once the patience of a request, however
 * many requests an operation takes. What is counted are requests to a server that never answers:
 * each takes a whole deadline, so that a slow machine makes fewer of them, not more.
 */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, test } from 'node:test';
import { CEPH_KEYS } from '../../test/support/real-ceph.js';
import type { Clock } from '../env/clock.js';
import { PatienceOverError } from '../env/object-store.js';
import { seededRandom } from '../env/seeded-random.js';
import { systemClock } from '../env/system-clock.js';
import { openS3 } from '../objects/open-s3.js';
import type { S3ObjectStore } from '../objects/s3-object-store.js';
import { getPatiently, listPatiently, putText } from '../store/object-log/chain-walk.js';
import { RecordChain } from '../store/object-log/record-chain.js';

const DEADLINE_MS = 50;
const PATIENCE_MS = 300;
/** In turn: those that fit into the patience, and the one that is under way when it ends. */
const REQUESTS_MAX = PATIENCE_MS / DEADLINE_MS + 2;

const open: { server: Server; client: S3ObjectStore }[] = [];

afterEach(() => {
  for (const { server, client } of open.splice(0)) {
    client.close();
    server.closeAllConnections();
    server.close();
  }
});

interface Told {
  readonly clock?: Clock;
  readonly deadlineMs?: number;
  readonly patienceMs?: number;
}

async function clientOf(answer: RequestListener, told: Told = {}) {
  const asked = { count: 0 };
  const server = createServer((request, response) => {
    asked.count++;
    request.resume();
    request.on('end', () => answer(request, response));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = openS3({
    bucket: 'b-1',
    endpoints: [`http://127.0.0.1:${(server.address() as AddressInfo).port}`],
    region: undefined,
    addressing: 'auto',
    requests: 8,
    deadlineMs: DEADLINE_MS,
    patienceMs: PATIENCE_MS,
    clock: systemClock,
    random: seededRandom(1),
    credentials: () => Promise.resolve(CEPH_KEYS),
    ...told,
  });
  open.push({ server, client });
  return { client, asked };
}

const silent: RequestListener = () => undefined;
const isOver = (error: unknown): boolean => error instanceof PatienceOverError;

/** Puts one record. */
function putRecord(client: S3ObjectStore): Promise<void> {
  const uuid = new Uint8Array(16);
  const identity = { uuid, lineage: 0, epoch: 1, nonce: () => uuid, prefix: 'p' };
  const chain = new RecordChain(client, identity, 1);
  chain.close(chain.open(), 'data');
  return chain.acknowledged(1);
}

test('a record, a small object, a read, a list: each ends with one patience', async () => {
  const operations: ((client: S3ObjectStore) => Promise<unknown>)[] = [
    putRecord,
    (client) => putText(client, 'k', 'text'),
    (client) => getPatiently(client, 'k'),
    (client) => listPatiently(client, 'p/', undefined),
  ];
  for (const [index, operation] of operations.entries()) {
    const { client, asked } = await clientOf(silent);
    await assert.rejects(operation(client), isOver, `operation ${index}`);
    assert.ok(asked.count <= REQUESTS_MAX, `operation ${index}: ${asked.count} requests`);
  }
});

test('reads answer, and no put does: it ends all the same', async () => {
  const { client, asked } = await clientOf((request, response) => {
    if (request.method === 'GET') response.writeHead(404).end();
  });
  await assert.rejects(putRecord(client), isOver);
  assert.ok(asked.count <= 2 * REQUESTS_MAX, `${asked.count} requests`);
});

test('reads that wait for others do not begin anew', async () => {
  const { client, asked } = await clientOf(silent);
  const reads = Array.from({ length: 64 }, (_, index) => client.get(`k${index}`));
  for (const { status } of await Promise.allSettled(reads)) assert.equal(status, 'rejected');
  // Eight at a time for as long as the patience lasts; of the others each is asked once.
  assert.ok(asked.count <= 8 * REQUESTS_MAX + 64, `${asked.count} requests`);
});

test('a store that has too much to do is waited for, longer each time', async () => {
  let busy = 40;
  const quick: Clock = {
    nowMs: () => systemClock.nowMs() * 100,
    wallMs: () => systemClock.wallMs(),
    setTimer: (ms, callback, options) => systemClock.setTimer(ms / 100, callback, options),
    yield: () => systemClock.yield(),
  };
  const { client } = await clientOf(
    (request, response) => {
      if (request.method === 'GET') response.writeHead(404).end();
      else response.writeHead(busy-- > 0 ? 503 : 200).end();
    },
    { clock: quick, deadlineMs: 600_000, patienceMs: 3_600_000 },
  );
  await putRecord(client);
});
