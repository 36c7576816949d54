import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DeferredTarget, MemoryTarget } from '../../../test/support/memory-target.js';
import { type TestClient, TestExports, TestServer, turns } from '../../../test/support/nbd-peer.js';
import {
  BLOCK_STATUS,
  COMMAND,
  pattern,
  read,
  type TestRequest,
  write,
} from '../../../test/support/nbd-script.js';
import { StoreError } from '../../base/store-error.js';
import { MIB } from '../../base/units.js';

const SIZE = 4 * MIB + 512;
const [EIO, EINVAL] = [5, 22];
const [FUA, NO_HOLE, DF, REQ_ONE] = [1, 2, 4, 8];

interface Setup {
  readonly server: TestServer;
  readonly disk: MemoryTarget;
  readonly client: TestClient;
}

function structured(contexts: string[] = [], readOnly = false): Setup {
  const disk = new MemoryTarget({ name: 'disk', sizeBytes: SIZE, readOnly });
  const server = new TestServer(new TestExports([disk]));
  return { server, disk, client: server.enter('disk', { structured: true, contexts }) };
}

function deferred(options: { structured?: boolean; contexts?: string[] } = {}) {
  const disk = new MemoryTarget({ name: 'disk', sizeBytes: 64 * MIB });
  const target = new DeferredTarget(disk);
  const server = new TestServer(new TestExports([target]));
  return { server, disk, target, client: server.enter('disk', options) };
}

describe('requests that wait for the disk', () => {
  it('are answered as they complete, with their own bytes', async () => {
    for (const isStructured of [false, true]) {
      const { client, disk, target, server } = deferred({ structured: isStructured });
      disk.write(0, pattern(64 * 1024, 9));
      const requests: TestRequest[] = [];
      for (let index = 0; index < 40; index++) {
        requests.push(read(BigInt(index), index * 100, 1000 + index));
      }
      client.ask(...requests);
      assert.equal(target.waiting.length, 40);
      const order = target.waiting.map((_, index) => (index * 17) % 40);
      for (const index of order) {
        target.waiting[index]?.finish();
        await turns();
      }
      const replies = client.replies();
      assert.deepEqual(
        replies.map(({ cookie }) => Number(cookie)),
        order,
      );
      for (const { cookie, data } of replies) {
        const start = Number(cookie) * 100;
        assert.ok(
          data?.equals(pattern(64 * 1024, 9).subarray(start, start + 1000 + Number(cookie))),
        );
      }
      assert.equal(server.budget.usedBytes, 0);
    }
  });

  it('that end in one turn leave in one writev', async () => {
    const { client, target } = deferred();
    client.ask(...Array.from({ length: 20 }, (_, index) => read(BigInt(index), 0, 512)));
    client.peer.sent.length = 0;
    for (const work of target.waiting.splice(0)) work.finish();
    await turns();
    assert.equal(client.peer.sent.length, 1);
    assert.equal(client.replies().length, 20);
  });

  it('do not keep others waiting', async () => {
    const { client, target } = deferred();
    client.ask(
      read(1n, 0, 512),
      { type: COMMAND.flush, cookie: 2n },
      write(3n, 0, pattern(512, 1)),
    );
    target.waiting[2]?.finish();
    await turns();
    assert.deepEqual(
      client.replies().map(({ cookie }) => cookie),
      [3n],
    );
    await target.finishAll();
    assert.equal(client.replies().length, 2);
  });

  it('carry FUA to the disk where something is written', async () => {
    const { client, target } = deferred();
    client.ask(
      write(1n, 0, Buffer.alloc(1), FUA),
      write(2n, 0, Buffer.alloc(1)),
      { type: COMMAND.trim, cookie: 3n, length: 4096, flags: FUA },
      { type: COMMAND.trim, cookie: 4n, length: 4096 },
      { type: COMMAND.zeroes, cookie: 5n, length: 4096, flags: FUA | NO_HOLE },
      { type: COMMAND.zeroes, cookie: 6n, length: 4096 },
      { type: COMMAND.flush, cookie: 7n, flags: FUA },
      { ...read(8n, 0, 1), flags: FUA },
    );
    assert.deepEqual(
      target.waiting.map(({ act }) => act),
      ['write fua', 'write', 'trim fua', 'trim', 'zeroes fua', 'zeroes', 'flush', 'read'],
    );
    await target.finishAll();
  });

  it('keep the bytes of their chunk until the disk has them', async () => {
    const { client, disk, target, server } = deferred();
    const data = [1, 2, 3].map((seed) => pattern(5000, seed));
    client.ask(...data.map((bytes, index) => write(BigInt(index), index * 5000, bytes)));
    const chunkBytes = 3 * 5028;
    assert.equal(server.budget.usedBytes, chunkBytes, 'the chunk is paid for once');
    target.waiting[1]?.finish();
    await turns();
    assert.ok(server.budget.usedBytes >= chunkBytes);
    await target.finishAll();
    assert.equal(server.budget.usedBytes, 0);
    const stored = Buffer.alloc(15_000);
    disk.read(0, stored);
    assert.ok(stored.equals(Buffer.concat(data)));
  });
});

describe('writes of one chunk', () => {
  it('that begin one after the other pay for the chunk each time', async () => {
    const disk = new MemoryTarget({ name: 'disk', sizeBytes: MIB });
    const target = new DeferredTarget(disk);
    const server = new TestServer(new TestExports([target]), { requestsMax: 1 });
    const client = server.enter('disk');
    client.ask(write(1n, 0, pattern(100, 1)), write(2n, 100, pattern(100, 2)));
    for (let round = 0; round < 2; round++) {
      assert.equal(target.waiting.length, 1);
      assert.equal(server.budget.usedBytes, 2 * 128);
      target.waiting.shift()?.finish();
      await turns();
    }
    assert.equal(client.replies().length, 2);
    assert.equal(server.budget.usedBytes, 0);
  });
});

describe('block status', () => {
  const ask = (setup: Setup, offset: number, length: number, flags = 0) =>
    setup.client.call({ type: BLOCK_STATUS, cookie: 7n, offset, length, flags });

  it('tells data from holes, in every context that was set', async () => {
    const setup = structured(['base:allocation', 'qemu:allocation-depth']);
    setup.disk.write(8192, Buffer.alloc(4096, 1));
    const reply = await ask(setup, 100, 20_000);
    assert.deepEqual(reply.chunks, ['status', 'status']);
    assert.deepEqual(reply.contexts.get(1), [
      { length: 8092, flags: 3 },
      { length: 4096, flags: 0 },
      { length: 7812, flags: 3 },
    ]);
    assert.deepEqual(
      reply.contexts.get(2)?.map(({ flags }) => flags),
      [0, 1, 0],
    );
    const one = await ask(setup, 100, 20_000, REQ_ONE);
    assert.deepEqual(one.contexts.get(1), [{ length: 8092, flags: 3 }]);
    assert.deepEqual(one.contexts.get(2), [{ length: 8092, flags: 0 }]);
  });

  it('says which tree has the block, and that a zero block takes no space', async () => {
    const kinds = [
      { kind: 'data', depth: 2, filled: false },
      { kind: 'data', depth: 0, filled: true },
      { kind: 'zero', depth: 1, filled: false },
      { kind: 'hole', depth: 0, filled: false },
    ] as const;
    class Clone extends MemoryTarget {
      override blockStatus(offset: number) {
        const extents = kinds.map((kind, index) => {
          return { ...kind, offset: offset + index * 4096, length: 4096 };
        });
        return Promise.resolve(extents);
      }
    }
    const server = new TestServer(new TestExports([new Clone({ name: 'c', sizeBytes: MIB })]));
    const contexts = ['base:allocation', 'qemu:allocation-depth', 'keiki:state'];
    const client = server.enter('c', { structured: true, contexts });
    const reply = await client.call({ type: BLOCK_STATUS, cookie: 1n, length: 16384 });
    assert.deepEqual(reply.contexts.get(1), [
      { length: 8192, flags: 0 },
      { length: 8192, flags: 3 },
    ]);
    assert.deepEqual(
      reply.contexts.get(2)?.map(({ flags }) => flags),
      [3, 1, 2, 0],
    );
    assert.deepEqual(reply.contexts.get(3), [
      { length: 4096, flags: 0 },
      { length: 4096, flags: 3 },
      { length: 8192, flags: 0 },
    ]);
  });

  it('of a large hole is one extent, of a fragmented disk a bounded answer', async () => {
    const disk = new MemoryTarget({ name: 'disk', sizeBytes: 1024 * MIB });
    const server = new TestServer(new TestExports([disk]));
    const client = server.enter('disk', { structured: true, contexts: ['base:allocation'] });
    const whole = { type: BLOCK_STATUS, cookie: 1n, length: 1024 * MIB };
    const hole = await client.call(whole);
    assert.deepEqual(hole.contexts.get(1), [{ length: 1024 * MIB, flags: 3 }]);
    const single = await client.call({ ...whole, flags: REQ_ONE });
    assert.deepEqual(single.contexts.get(1), [{ length: 1024 * MIB, flags: 3 }]);
    for (let block = 0; block < 3000; block += 2) disk.write(block * 4096, Buffer.alloc(1));
    const some = await client.call(whole);
    const extents = some.contexts.get(1) ?? [];
    assert.equal(extents.length, 1024);
    assert.ok(extents.every(({ length }, index) => length === 4096 && index < 1024));
    const one = await client.call({ ...whole, flags: REQ_ONE });
    assert.deepEqual(one.contexts.get(1), [{ length: 4096, flags: 0 }]);
  });

  it('needs a context of this export, and a length', async () => {
    const none = structured();
    assert.equal((await ask(none, 0, 4096)).error, EINVAL);
    const setup = structured(['base:allocation']);
    assert.equal((await ask(setup, 0, 0)).error, EINVAL);
  });
});

describe('large reads with structured replies', () => {
  it('send holes as holes, and what is too small for that as zeroes', async () => {
    const { client, disk, server } = structured();
    const data = pattern(MIB, 3);
    disk.write(0, data.subarray(0, 4096));
    disk.write(64 * 1024, data.subarray(64 * 1024, 128 * 1024));
    disk.write(128 * 1024 + 8192, data.subarray(128 * 1024 + 8192, 256 * 1024));
    const expected = Buffer.alloc(MIB);
    disk.read(0, expected);
    const reply = await client.call(read(1n, 0, MIB));
    assert.deepEqual(reply.chunks, ['data', 'hole', 'data', 'hole']);
    assert.ok(reply.data?.equals(expected));
    const shifted = await client.call(read(2n, 1, MIB - 5));
    assert.deepEqual(shifted.chunks, ['data', 'hole', 'data', 'hole']);
    assert.ok(shifted.data?.equals(expected.subarray(1, MIB - 4)));
    const hole = await client.call(read(3n, MIB, MIB));
    assert.deepEqual(hole.chunks, ['hole']);
    const full = await client.call(read(4n, 64 * 1024, 192 * 1024));
    assert.deepEqual(full.chunks, ['data']);
    assert.equal(server.budget.usedBytes, 0);
  });

  it('come as one chunk of data with DF', async () => {
    const { client, disk } = structured();
    disk.write(0, pattern(4096, 3));
    const reply = await client.call({ ...read(1n, 0, MIB), flags: DF });
    assert.deepEqual(reply.chunks, ['data']);
    assert.ok(reply.data?.subarray(4096).every((byte) => byte === 0));
  });

  it('that fail in one part lend their buffer only when all parts have ended', async () => {
    const { client, disk, target, server } = deferred({ structured: true });
    for (let index = 0; index < 4; index++) disk.write(index * 256 * 1024, pattern(4096, index));
    client.ask(read(1n, 0, MIB));
    for (const status of target.waiting.splice(0)) status.finish();
    await turns();
    assert.equal(target.waiting.length, 4);
    target.waiting[1]?.fail(new StoreError('corrupt', 'block 64 of disk'));
    await turns();
    assert.equal(client.replies().length, 0, 'three reads still fill the buffer');
    assert.ok(server.budget.usedBytes > MIB);
    target.waiting.splice(1, 1);
    await target.finishAll();
    const [reply] = client.replies();
    assert.deepEqual([reply?.error, reply?.message], [EIO, 'block 64 of disk']);
    assert.equal(server.budget.usedBytes, 0);
  });
});
