/**
 * Extended headers, by a client of our own that is written from the protocol document: Debian's
 * libnbd and qemu are older than they are.
 */
import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DeferredTarget, MemoryTarget } from '../../../test/support/memory-target.js';
import { type TestClient, TestExports, TestServer, turns } from '../../../test/support/nbd-peer.js';
import type { Reply } from '../../../test/support/nbd-replies.js';
import {
  BLOCK_STATUS,
  COMMAND,
  PAYLOAD_LEN,
  pattern,
  read,
  request,
  statusPayload,
  type TestRequest,
  write,
} from '../../../test/support/nbd-script.js';
import { GIB, MIB, TIB } from '../../base/units.js';

const [EINVAL, ENOSPC] = [22, 28];
const REQ_ONE = 8;
const ALL = ['base:allocation', 'qemu:allocation-depth', 'keiki:state'];
const [BASE, DEPTH, STATE] = [1, 2, 3];

function serve(sizeBytes = 64 * MIB, contexts: readonly string[] = ALL) {
  const disk = new MemoryTarget({ name: 'disk', sizeBytes });
  const server = new TestServer(new TestExports([disk]));
  return { disk, server, client: server.enter('disk', { extended: true, contexts }) };
}

/** Extents of one context, as lengths and flags. */
function extentsOf({ contexts }: Reply, id = BASE): [number, number][] {
  return (contexts.get(id) ?? []).map(({ length, flags }) => [length, flags]);
}

describe('extended headers', () => {
  it('are in front of every reply, which echoes the offset bit by bit', async () => {
    const { client } = serve();
    const data = pattern(5000, 1);
    const replies: Reply[] = [];
    for (const fields of [
      write(1n, 4097, data),
      read(2n, 4097, 5000),
      { type: COMMAND.flush, cookie: 3n, offset: 2n ** 64n - 1n },
      { type: COMMAND.trim, cookie: 4n, offset: MIB, length: 8192 },
      { type: COMMAND.zeroes, cookie: 5n, offset: MIB, length: 8192 },
      { type: COMMAND.cache, cookie: 6n, length: 8192 },
      { type: BLOCK_STATUS, cookie: 7n, offset: 512, length: 8192 },
    ]) {
      replies.push(await client.call(fields));
    }
    assert.deepEqual(
      replies.map(({ error, chunks }) => [error, ...chunks]),
      [
        [0, 'none'],
        [0, 'data'],
        [0, 'none'],
        [0, 'none'],
        [0, 'none'],
        [0, 'none'],
        [0, 'status', 'status', 'status'],
      ],
    );
    assert.deepEqual(replies[1]?.data, data);
  });

  it('are in front of errors, which echo the offset, too', async () => {
    const { client } = serve();
    for (const offset of [2n ** 64n - 512n, 2n ** 63n, 2n ** 53n + 1n, 64n * 2n ** 20n]) {
      const length = 512;
      const readReply = await client.call({ type: COMMAND.read, cookie: 1n, offset, length });
      assert.deepEqual([readReply.error, ...readReply.chunks], [EINVAL, 'error']);
      const payload = Buffer.alloc(512);
      const writeReply = await client.call({ type: COMMAND.write, cookie: 2n, offset, payload });
      assert.equal(writeReply.error, ENOSPC);
    }
    assert.equal((await client.call({ type: 77, cookie: 3n, offset: 9n })).error, EINVAL);
  });

  it('carry holes of a read in chunks, and data that comes late', async () => {
    const disk = new MemoryTarget({ name: 'disk', sizeBytes: 64 * MIB });
    const target = new DeferredTarget(disk);
    const client = new TestServer(new TestExports([target])).enter('disk', { extended: true });
    disk.write(MIB, pattern(4096, 1));
    client.ask(read(1n, 4096, 2 * MIB), read(2n, MIB, 4096), write(3n, 0, Buffer.alloc(512)));
    await target.finishAll();
    const replies = new Map(client.replies().map((reply) => [reply.cookie, reply]));
    assert.deepEqual(replies.get(1n)?.chunks, ['hole', 'data', 'hole']);
    assert.deepEqual(replies.get(2n)?.data, pattern(4096, 1));
    assert.deepEqual(replies.get(3n)?.chunks, ['none']);
  });

  it('are not mixed with compact ones', async () => {
    for (const extended of [false, true]) {
      const server = new TestServer(new TestExports([new MemoryTarget({ sizeBytes: MIB })]));
      const client = server.enter('memory', { extended });
      // The other kind of header than what was agreed on.
      client.style = extended ? 'simple' : 'extended';
      client.ask(read(1n, 0, 512), read(2n, 0, 512));
      await turns();
      assert.ok(client.isDone);
      assert.match(server.refusals.join(), /bad request magic/);
    }
  });
});

describe('lengths beyond 32 bits', () => {
  const SIZE = 6 * TIB + 512;

  it('trim and zero in one request', async () => {
    for (const type of [COMMAND.trim, COMMAND.zeroes]) {
      const { client, disk } = serve(SIZE);
      const spots = [0, 4 * GIB - 1, 4 * GIB, 5 * TIB, SIZE - 100];
      for (const spot of spots) disk.write(spot, Buffer.from('x'));
      const [offset, length] = [1, SIZE - 51];
      assert.equal((await client.call({ type, cookie: 1n, offset, length })).error, 0);
      const there = spots.map((spot) => {
        const byte = Buffer.alloc(1);
        disk.read(spot, byte);
        return byte.toString('latin1');
      });
      assert.deepEqual(there, ['x', '\0', '\0', '\0', '\0']);
      const beyond = await client.call({ type, cookie: 2n, offset: 512, length: SIZE });
      assert.equal(beyond.error, type === COMMAND.trim ? EINVAL : ENOSPC);
      const huge = await client.call({ type, cookie: 3n, length: 2n ** 64n - 1n });
      assert.equal(huge.error, type === COMMAND.trim ? EINVAL : ENOSPC);
    }
  });

  it('are told by block status in one extent', async () => {
    const { client, disk } = serve(SIZE);
    disk.write(5 * TIB, Buffer.alloc(8192, 1));
    const status = { type: BLOCK_STATUS, cookie: 1n, length: SIZE };
    assert.deepEqual(extentsOf(await client.call(status)), [
      [5 * TIB, 3],
      [8192, 0],
      [TIB - 8192 + 512, 3],
    ]);
    const one = await client.call({ ...status, flags: REQ_ONE });
    assert.deepEqual(extentsOf(one), [[5 * TIB, 3]]);
    assert.equal((await client.call({ ...status, length: SIZE + 1 })).error, EINVAL);
  });

  it('of data are told up to 4 GiB: the client asks on from there', async () => {
    class Full extends MemoryTarget {
      override blockStatus(offset: number, length: number) {
        const extent = { offset, length, kind: 'data' as const, depth: 0, filled: false };
        return Promise.resolve([extent]);
      }
    }
    const server = new TestServer(new TestExports([new Full({ name: 'd', sizeBytes: SIZE })]));
    const client = server.enter('d', { extended: true, contexts: ALL });
    const reply = await client.call({ type: BLOCK_STATUS, cookie: 1n, length: SIZE });
    assert.deepEqual(extentsOf(reply), [[4 * GIB, 0]]);
  });

  it('are too long for what has data: a read and a cache of 4 GiB', async () => {
    const { client } = serve(SIZE);
    const length = 4 * GIB + 512;
    assert.equal((await client.call(read(1n, 0, length))).error, EINVAL);
    assert.equal((await client.call({ type: COMMAND.cache, cookie: 2n, length })).error, 0);
  });
});

describe('payloads', () => {
  it('of a write are taken, whether or not the flag says so', async () => {
    const { client } = serve();
    const data = pattern(3000, 2);
    // Without the payload in `fields` the flag is not set: it follows all the same.
    client.ask({ type: COMMAND.write, cookie: 1n, offset: 7, length: 3000 });
    client.send(data);
    client.ask(write(2n, 10_000, data), read(3n, 7, 3000), read(4n, 10_000, 3000));
    const replies = client.replies().map((reply) => [reply.error, reply.data ?? data]);
    assert.deepEqual(replies, new Array(4).fill([0, data]));
  });

  it('of a request that has none are passed over, and refused', async () => {
    const { client, disk, server } = serve();
    disk.write(0, pattern(8192, 3));
    const types = [COMMAND.read, COMMAND.trim, COMMAND.cache, COMMAND.zeroes, COMMAND.flush, 8, 99];
    for (const type of types) {
      for (const length of [1, 28, 32, 4096, 100_000]) {
        const fields = { type, cookie: 1n, payload: Buffer.alloc(length, 0x21) };
        const reply = await client.call(fields);
        assert.deepEqual([reply.error, reply.cookie], [EINVAL, 1n], `type ${type}, ${length}`);
      }
      const empty = await client.call({ type, flags: PAYLOAD_LEN, cookie: 2n, length: 0 });
      assert.equal(empty.error, EINVAL);
    }
    assert.deepEqual((await client.call(read(3n, 0, 8192))).data, pattern(8192, 3));
    assert.equal(server.budget.usedBytes, 0);
  });

  it('too long to pass over end the connection', async () => {
    for (const [type, length] of [
      [COMMAND.write, 64 * MIB + 1],
      [COMMAND.trim, 64 * MIB + 1],
      [COMMAND.read, 2n ** 64n - 1n],
    ] as const) {
      const { client, server } = serve();
      client.ask({ type, flags: PAYLOAD_LEN, cookie: 1n, length });
      await turns();
      assert.ok(client.isDone);
      assert.match(server.refusals.join(), /a payload of \d+ bytes/);
    }
  });

  it('are not known to compact requests', async () => {
    const disk = new MemoryTarget({ name: 'disk', sizeBytes: MIB });
    const client = new TestServer(new TestExports([disk])).enter('disk');
    const flags = PAYLOAD_LEN;
    client.send(request({ ...write(1n, 0, Buffer.alloc(512)), flags }));
    client.send(request({ type: COMMAND.trim, flags, cookie: 2n, length: 512 }));
    const errors = client.replies().map(({ error }) => error);
    assert.deepEqual(errors, [EINVAL, EINVAL]);
  });
});

describe('block status of chosen contexts', () => {
  const ask = (client: TestClient, payload: Buffer, more: Partial<TestRequest> = {}) =>
    client.call({ type: BLOCK_STATUS, cookie: 1n, payload, ...more });

  it('tells these only, for the length in the payload', async () => {
    const { client, disk } = serve(6 * TIB);
    disk.write(8192, Buffer.alloc(4096, 1));
    for (const ids of [[BASE], [STATE], [DEPTH, BASE], [STATE, BASE, DEPTH]]) {
      const reply = await ask(client, statusPayload(5 * TIB, ids), { offset: 4096 });
      assert.equal(reply.error, 0);
      assert.deepEqual([...reply.contexts.keys()], [...ids].sort());
    }
    const reply = await ask(client, statusPayload(16384, [STATE]), { offset: 4096 });
    assert.deepEqual(extentsOf(reply, STATE), [
      [4096, 0],
      [4096, 1],
      [8192, 0],
    ]);
    const one = await ask(client, statusPayload(2 ** 40, [BASE]), { flags: REQ_ONE });
    assert.deepEqual(extentsOf(one), [[8192, 3]]);
  });

  it('is refused for contexts that were not selected, or twice, or none', async () => {
    const { client } = serve(64 * MIB, ['base:allocation', 'keiki:state']);
    const payloads = [
      statusPayload(512, [DEPTH]),
      statusPayload(512, [BASE, DEPTH]),
      statusPayload(512, [BASE, BASE]),
      statusPayload(512, [0xffffffff]),
      statusPayload(512, []),
      statusPayload(512, [BASE, STATE, BASE]),
      statusPayload(512, [BASE]).subarray(0, 11),
      statusPayload(512, [BASE, STATE]).subarray(0, 13),
      Buffer.alloc(1),
      Buffer.alloc(4096, 1),
    ];
    for (const payload of payloads) {
      const { error, message } = await ask(client, payload);
      assert.equal(error, EINVAL, payload.toString('hex', 0, 32));
      assert.match(message, /context/);
    }
    assert.equal((await ask(client, statusPayload(512, [STATE, BASE]))).error, 0);
    const none = serve(64 * MIB, []);
    assert.equal((await ask(none.client, statusPayload(512, [BASE]))).error, EINVAL);
  });

  it('is refused beyond the end, and for no bytes', async () => {
    const { client } = serve();
    for (const length of [0, 64 * MIB + 1, 2n ** 64n - 1n]) {
      assert.equal((await ask(client, statusPayload(length, [BASE]))).error, EINVAL);
    }
    const atEnd = { offset: 64 * MIB - 512 };
    assert.equal((await ask(client, statusPayload(513, [BASE]), atEnd)).error, EINVAL);
    assert.equal((await ask(client, statusPayload(512, [BASE]), atEnd)).error, 0);
  });

  it('waits for memory with its payload, and what follows waits behind it', async () => {
    const target = new DeferredTarget(new MemoryTarget({ name: 'disk', sizeBytes: TIB }));
    const exports = new TestExports([target]);
    const server = new TestServer(exports, { connectionBytesMax: 33 * MIB });
    const client = server.enter('disk', { extended: true, contexts: ALL });
    client.ask(
      read(1n, 0, 32 * MIB - 4096),
      ...Array.from({ length: 8 }, (_, index) => {
        const payload = statusPayload(TIB, [BASE, DEPTH, STATE]);
        return { type: BLOCK_STATUS, cookie: BigInt(index + 2), payload };
      }),
      read(20n, 0, 1),
    );
    await turns();
    const inFlight = client.session?.info.requestsInFlight ?? 0;
    assert.ok(client.peer.isPaused, 'the client is not read');
    assert.ok(inFlight > 1 && inFlight < 10, `${inFlight} requests were begun`);
    await target.finishAll();
    const cookies = client.replies().map(({ cookie, error }) => [Number(cookie), error]);
    const sorted = cookies.sort(([a = 0], [b = 0]) => a - b);
    assert.deepEqual(
      sorted,
      [1, 2, 3, 4, 5, 6, 7, 8, 9, 20].map((cookie) => [cookie, 0]),
    );
    assert.equal(server.budget.usedBytes, 0);
  });
});
