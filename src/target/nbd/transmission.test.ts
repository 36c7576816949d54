import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DeferredTarget, MemoryTarget } from '../../../test/support/memory-target.js';
import { type TestClient, TestExports, TestServer, turns } from '../../../test/support/nbd-peer.js';
import { BLOCK_STATUS, COMMAND, pattern, read, write } from '../../../test/support/nbd-script.js';
import { STORE_ERROR_KINDS, StoreError } from '../../base/store-error.js';
import { MIB } from '../../base/units.js';
import { ERRNO_OF_KIND } from './errno.js';

const SIZE = 4 * MIB + 512;
const [EPERM, EIO, EINVAL, ENOSPC, ENOTSUP, ESHUTDOWN] = [1, 5, 22, 28, 95, 108];
const [FUA, NO_HOLE, DF, REQ_ONE, FAST_ZERO] = [1, 2, 4, 8, 16];

interface Setup {
  readonly server: TestServer;
  readonly disk: MemoryTarget;
  readonly client: TestClient;
}

function simple(readOnly = false): Setup {
  const disk = new MemoryTarget({ name: 'disk', sizeBytes: SIZE, readOnly });
  const server = new TestServer(new TestExports([disk]));
  return { server, disk, client: server.enter('disk') };
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

describe('requests answered from memory', () => {
  for (const setup of [simple, structured]) {
    it(`are answered before the chunk's call returns, in one piece (${setup.name})`, () => {
      const { client } = setup();
      const [data, more] = [pattern(1000, 1), pattern(4096, 2)];
      client.peer.sent.length = 0;
      client.ask(
        write(1n, 4097, data),
        write(2n, 8192, more),
        read(3n, 4097, 1000),
        read(4n, 0, 4096),
        read(5n, 8192, 4096),
        { type: COMMAND.zeroes, cookie: 6n, offset: 8192, length: 100 },
        read(7n, 8192, 200),
      );
      assert.deepEqual(client.peer.sent, [1]);
      const replies = client.replies();
      assert.deepEqual(
        replies.map(({ cookie, error }) => [cookie, error]),
        [1n, 2n, 3n, 4n, 5n, 6n, 7n].map((cookie) => [cookie, 0]),
      );
      assert.deepEqual(replies[2]?.data, data);
      assert.deepEqual(replies[3]?.data, Buffer.alloc(4096));
      assert.deepEqual(replies[4]?.data, more);
      assert.deepEqual(
        replies[6]?.data,
        Buffer.concat([Buffer.alloc(100), more.subarray(100, 200)]),
      );
    });
  }

  it('echo a cookie bit by bit', () => {
    const { client } = simple();
    const cookies = [0n, 2n ** 64n - 1n, 0x80000000_80000000n, 0x0102030405060708n];
    for (const cookie of cookies) client.ask(read(cookie, 0, 1));
    assert.deepEqual(
      client.replies().map((reply) => reply.cookie),
      cookies,
    );
  });

  it('write a payload from the chunk it came in, and gather it once if it came in many', () => {
    const seen: Uint8Array[] = [];
    class Watched extends MemoryTarget {
      override write(offset: number, data: Uint8Array): void {
        seen.push(data);
        super.write(offset, data);
      }
    }
    const server = new TestServer(new TestExports([new Watched({ name: 'd', sizeBytes: MIB })]));
    const client = server.enter('d');
    const header = Buffer.alloc(28);
    header.writeUInt32BE(0x25609513);
    header.writeUInt16BE(1, 6);
    header.writeUInt32BE(100_000, 24);
    const payload = pattern(100_000, 3);
    const whole = Buffer.concat([header, payload]);
    client.send(whole);
    assert.equal(seen[0]?.buffer, whole.buffer);
    for (let cut = 0; cut < whole.length; cut += 999) client.send(whole.subarray(cut, cut + 999));
    assert.equal(seen.length, 2);
    assert.notEqual(seen[1]?.buffer, whole.buffer);
    assert.ok(payload.equals(seen[1] ?? Buffer.alloc(0)));
    assert.equal(client.replies().length, 2);
    assert.equal(server.budget.usedBytes, 0);
  });

  it('of no bytes succeed, and ask nothing of the disk', async () => {
    for (const setup of [simple, structured]) {
      const { client, disk } = setup();
      disk.isClosed = true;
      for (const type of [COMMAND.read, COMMAND.write, COMMAND.trim, COMMAND.zeroes]) {
        const reply = await client.call({ type, cookie: 9n, offset: SIZE, length: 0 });
        assert.equal(reply.error, 0);
      }
    }
  });

  it('take 32 MiB at once, and no byte more', async () => {
    const disk = new MemoryTarget({ name: 'disk', sizeBytes: 100 * MIB });
    for (const isStructured of [false, true]) {
      const server = new TestServer(new TestExports([disk]));
      const client = server.enter('disk', { structured: isStructured });
      const data = pattern(32 * MIB, 5);
      assert.equal((await client.call(write(1n, 4096, data))).error, 0);
      assert.ok((await client.call(read(2n, 4096, 32 * MIB))).data?.equals(data));
      assert.equal((await client.call(read(3n, 0, 32 * MIB + 1))).error, EINVAL);
      const tooLong = await client.call(write(4n, 0, Buffer.alloc(32 * MIB + 1, 1)));
      assert.equal(tooLong.error, EINVAL);
      assert.equal((await client.call(read(5n, 4096, 1))).data?.[0], data[0]);
      assert.equal(server.budget.usedBytes, 0);
    }
  });
});

describe('requests that are refused', () => {
  it('beyond the end: ENOSPC where something would be written, EINVAL else', async () => {
    for (const setup of [() => simple(), () => structured(['base:allocation'])]) {
      const { client } = setup();
      const cases: [number, number][] = [
        [COMMAND.read, EINVAL],
        [COMMAND.write, ENOSPC],
        [COMMAND.trim, EINVAL],
        [COMMAND.zeroes, ENOSPC],
        [BLOCK_STATUS, EINVAL],
      ];
      const ranges: [number | bigint, number][] = [
        [SIZE - 512, 513],
        [SIZE, 1],
        [SIZE + 1, 1],
        [2n ** 53n, 512],
        [2n ** 63n, 512],
        [2n ** 64n - 512n, 512],
      ];
      for (const [type, errno] of cases) {
        for (const [offset, length] of ranges) {
          const payload = type === COMMAND.write ? Buffer.alloc(length, 1) : undefined;
          const fields = { type, cookie: 1n, offset, length };
          const reply = await client.call(payload === undefined ? fields : { ...fields, payload });
          assert.equal(reply.error, errno, `type ${type}, ${length} bytes at ${offset}`);
        }
      }
      assert.equal((await client.call(read(2n, SIZE - 512, 512))).error, 0);
    }
  });

  it('on a read-only export: EPERM for all that writes', async () => {
    for (const setup of [() => simple(true), () => structured([], true)]) {
      const { client } = setup();
      assert.equal((await client.call(write(1n, 0, Buffer.alloc(70_000, 1)))).error, EPERM);
      assert.equal((await client.call(write(1n, SIZE, Buffer.alloc(1)))).error, EPERM);
      for (const type of [COMMAND.trim, COMMAND.zeroes]) {
        assert.equal((await client.call({ type, cookie: 1n, length: 512 })).error, EPERM);
      }
      assert.equal((await client.call({ type: COMMAND.flush, cookie: 1n })).error, 0);
      assert.ok((await client.call(read(2n, 0, 512))).data?.equals(Buffer.alloc(512)));
    }
  });

  it('for flags that do not go with them, each flag with each request', async () => {
    const allowed = new Map([
      [COMMAND.read, FUA | DF],
      [COMMAND.write, FUA],
      [COMMAND.flush, FUA],
      [COMMAND.trim, FUA],
      [COMMAND.cache, FUA],
      [COMMAND.zeroes, FUA | NO_HOLE | FAST_ZERO],
      [BLOCK_STATUS, FUA | REQ_ONE],
    ]);
    for (const isStructured of [false, true]) {
      const { client } = isStructured ? structured(['base:allocation']) : simple();
      for (const [type, flags] of allowed) {
        for (let bit = 0; bit < 16; bit++) {
          const payload = type === COMMAND.write ? { payload: Buffer.alloc(4096) } : {};
          const fields = { type, flags: 1 << bit, cookie: 1n, length: 4096, ...payload };
          const isDf = type === COMMAND.read && 1 << bit === DF;
          const isStatus = type === BLOCK_STATUS;
          const isRight = (flags & (1 << bit)) !== 0 && (isStructured || !(isDf || isStatus));
          const reply = await client.call(fields);
          assert.equal(reply.error, isRight ? 0 : EINVAL, `type ${type} flag ${1 << bit}`);
        }
      }
    }
  });

  it('if nobody knows them: EINVAL', async () => {
    const { client } = simple();
    for (const type of [BLOCK_STATUS, 8, 9, 255, 0xffff]) {
      assert.equal((await client.call({ type, cookie: 1n, length: 512 })).error, EINVAL);
    }
  });

  it('as fast zeroes unless they are whole blocks without NO_HOLE', async () => {
    const { client } = simple();
    await client.call(write(1n, 0, Buffer.alloc(16384, 7)));
    await client.call(write(1n, SIZE - 4096, Buffer.alloc(4096, 7)));
    const zero = (offset: number, length: number, flags = FAST_ZERO) =>
      client.call({ type: COMMAND.zeroes, cookie: 2n, offset, length, flags });
    assert.equal((await zero(0, 8191)).error, ENOTSUP);
    assert.equal((await zero(1, 4096)).error, ENOTSUP);
    assert.equal((await zero(0, 4096, FAST_ZERO | NO_HOLE)).error, ENOTSUP);
    assert.ok((await client.call(read(3n, 0, 16384))).data?.every((byte) => byte === 7));
    assert.equal((await zero(4096, 8192)).error, 0);
    assert.equal((await zero(0, 8191, NO_HOLE)).error, 0);
    assert.equal((await zero(4 * MIB, 512)).error, 0, 'the last block is cut by the end');
    const after = (await client.call(read(3n, 0, 16384))).data;
    assert.ok(after?.equals(Buffer.concat([Buffer.alloc(12288), Buffer.alloc(4096, 7)])));
  });
});

describe('errors of the disk', () => {
  it('reach the client by kind, with the message if it can be told, and it goes on', async () => {
    for (const isStructured of [false, true]) {
      for (const isLate of [false, true]) {
        for (const kind of STORE_ERROR_KINDS) {
          const { client, target, server } = deferred({ structured: isStructured });
          const requests = [
            read(1n, 0, 512),
            read(2n, 0, MIB),
            write(3n, 0, Buffer.alloc(512)),
            { type: COMMAND.flush, cookie: 4n },
            { type: COMMAND.trim, cookie: 5n, length: 4096 },
            { type: COMMAND.zeroes, cookie: 6n, length: 4096 },
          ];
          if (isLate) {
            client.ask(...requests);
            await turns();
            for (const work of target.waiting.splice(0))
              work.fail(new StoreError(kind, 'worn out'));
          } else {
            target.finishAll = () => Promise.resolve();
            for (const act of ['read', 'write', 'flush', 'trim', 'writeZeroes', 'blockStatus']) {
              Object.defineProperty(target, act, {
                value: () => {
                  throw new StoreError(kind, 'worn out');
                },
              });
            }
            client.ask(...requests);
          }
          await turns();
          const replies = client.replies().sort((a, b) => Number(a.cookie - b.cookie));
          assert.equal(replies.length, requests.length);
          for (const reply of replies) {
            assert.equal(reply.error, ERRNO_OF_KIND[kind]);
            assert.equal(reply.message, isStructured ? 'worn out' : '');
          }
          assert.equal(client.state, 'transmission');
          assert.equal(server.budget.usedBytes, 0);
        }
      }
    }
  });

  it('have the numbers that clients understand', () => {
    assert.deepEqual(ERRNO_OF_KIND, {
      'out-of-space': ENOSPC,
      corrupt: EIO,
      device: EIO,
      'read-only': EPERM,
      'not-found': ESHUTDOWN,
      exists: EINVAL,
      'in-use': EPERM,
      invalid: EINVAL,
      unsupported: EINVAL,
      fenced: ESHUTDOWN,
      closed: ESHUTDOWN,
    });
  });

  it('say no space as no space', async () => {
    const disk = new MemoryTarget({ name: 'disk', sizeBytes: MIB, piecesMax: 4 });
    const client = new TestServer(new TestExports([disk])).enter('disk');
    assert.equal((await client.call(write(1n, 0, Buffer.alloc(16384, 1)))).error, 0);
    assert.equal((await client.call(write(2n, 16384, Buffer.alloc(1)))).error, ENOSPC);
    assert.equal((await client.call(write(3n, 100, Buffer.alloc(100, 2)))).error, 0);
  });
});
