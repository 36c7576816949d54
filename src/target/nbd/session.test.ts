import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { DeferredTarget, MemoryTarget } from '../../../test/support/memory-target.js';
import { TestExports, TestServer, turns } from '../../../test/support/nbd-peer.js';
import { ReplyReader } from '../../../test/support/nbd-replies.js';
import {
  BLOCK_STATUS,
  COMMAND,
  enter,
  infoData,
  option,
  read,
  request,
  requestOf,
  statusPayload,
  type TestRequest,
  type TestStyle,
  write,
} from '../../../test/support/nbd-script.js';
import { KIB, MIB } from '../../base/units.js';
import type { NbdLimits } from './limits.js';

function serve(limits: Partial<NbdLimits> = {}, sizeBytes = 64 * MIB) {
  const disk = new MemoryTarget({ name: 'disk', sizeBytes });
  const target = new DeferredTarget(disk);
  const slow = new TestServer(new TestExports([target]), limits);
  const quick = new TestServer(new TestExports([disk]), limits);
  return { disk, target, slow, quick };
}

describe('a stream that is cut', () => {
  /** Options that fail and succeed, requests that fail and succeed, payloads that are skipped. */
  function script(style: TestStyle): Buffer {
    const isSimple = style === 'simple';
    const headers = { structured: !isSimple, extended: style === 'extended' };
    const contexts = { contexts: ['base:allocation', 'keiki:state'] };
    const entering = enter('disk', isSimple ? {} : { ...headers, ...contexts });
    const request = (fields: TestRequest): Buffer => requestOf(style, fields);
    const filter = style === 'extended' ? [statusPayload(4096, [3]), statusPayload(1, [2])] : [];
    return Buffer.concat([
      entering.subarray(0, 4),
      option(99, Buffer.alloc(1)),
      option(6, infoData('x', [3])),
      entering.subarray(4),
      request(write(1n, 10, Buffer.from('abc'))),
      request(write(2n, 2 ** 40, Buffer.from('x'))),
      request(read(3n, 8, 6)),
      request({ type: 77, cookie: 4n, length: 8 }),
      request({ type: isSimple ? COMMAND.zeroes : BLOCK_STATUS, cookie: 5n, length: 12 }),
      ...filter.map((payload) => request({ type: BLOCK_STATUS, cookie: 6n, payload })),
      request({ type: COMMAND.disc, cookie: 7n }),
      Buffer.from('not read'),
    ]);
  }

  async function replay(server: TestServer, chunks: readonly Uint8Array[]): Promise<Buffer> {
    const client = server.connect();
    for (const chunk of chunks) client.send(Buffer.from(chunk));
    while (!client.isDone) await turns();
    return client.peer.takeBytes();
  }

  // Extended: from the end of the handshake on, which is the same for all.
  for (const [style, from] of [
    ['simple', 0],
    ['extended', 180],
  ] as const) {
    it(`gives the same replies for every pair of cuts (${style})`, async () => {
      const bytes = script(style);
      const { quick } = serve();
      const whole = await replay(quick, [bytes]);
      assert.ok(whole.length > 180);
      for (let first = from; first <= bytes.length; first++) {
        const batch: Promise<void>[] = [];
        for (let second = first; second <= bytes.length; second++) {
          const chunks = [
            bytes.subarray(0, first),
            bytes.subarray(first, second),
            bytes.subarray(second),
          ];
          batch.push(
            replay(quick, chunks).then((replies) => {
              assert.ok(replies.equals(whole), `cut at ${first} and ${second}`);
            }),
          );
        }
        await Promise.all(batch);
      }
      assert.equal(quick.budget.usedBytes, 0);
      assert.equal(quick.exports.detachedNames.length, quick.exports.attachedNames.length);
    });
  }

  for (const style of ['simple', 'structured', 'extended'] as const) {
    it(`gives the same replies byte by byte (${style})`, async () => {
      const bytes = script(style);
      const single = [...bytes].map((byte) => Uint8Array.of(byte));
      const { quick } = serve();
      assert.ok((await replay(quick, single)).equals(await replay(quick, [bytes])));
    });
  }
});

describe('a client that does not take its replies', () => {
  it('is not read beyond the limit, and goes on where it stopped', async () => {
    for (const server of [serve({ unsentBytesMax: MIB }).quick]) {
      const client = server.enter('disk');
      const other = server.enter('disk');
      client.peer.isHolding = true;
      const requests = Array.from({ length: 100 }, (_, index) => read(BigInt(index), 0, 64 * KIB));
      client.ask(...requests);
      assert.ok(client.peer.isPaused);
      const { unsentBytes, heldBytes } = client.session?.info ?? { unsentBytes: 0, heldBytes: 0 };
      assert.ok(unsentBytes >= MIB && unsentBytes < MIB + 65 * KIB);
      assert.ok(heldBytes < 2 * MIB);
      assert.equal((await other.call(read(1n, 0, 4096))).error, 0, 'another one is served');
      for (let round = 0; round < 20 && client.peer.isPaused; round++) {
        client.peer.takeHeld();
        await turns();
      }
      assert.equal(client.peer.isPaused, false);
      assert.deepEqual(
        client.replies().map(({ cookie }) => Number(cookie)),
        requests.map((_, index) => index),
      );
      assert.equal(server.budget.usedBytes, 0);
    }
  });
});

describe('requests in flight', () => {
  it('are counted: the next one waits until one has ended', async () => {
    const { slow, target } = serve({ requestsMax: 8 });
    const client = slow.enter('disk');
    client.ask(...Array.from({ length: 20 }, (_, index) => read(BigInt(index), 0, 512)));
    assert.equal(target.waiting.length, 8);
    assert.ok(client.peer.isPaused);
    client.ask(read(20n, 0, 512));
    target.waiting.shift()?.finish();
    await turns();
    assert.equal(target.waiting.length, 8);
    await target.finishAll();
    assert.equal(client.replies().length, 21);
    assert.equal(client.peer.isPaused, false);
  });

  it('hold no more memory than one connection may', async () => {
    const { slow, target } = serve({ connectionBytesMax: 40 * MIB });
    const client = slow.enter('disk');
    client.ask(...Array.from({ length: 30 }, (_, index) => read(BigInt(index), 0, 4 * MIB)));
    assert.equal(target.waiting.length, 9);
    assert.ok(slow.budget.usedBytes <= 40 * MIB);
    let answered = 0;
    while (answered < 30) {
      for (const work of target.waiting.splice(0)) work.finish();
      await turns();
      assert.ok(slow.budget.usedBytes <= 40 * MIB);
      answered += client.replies().length;
    }
    assert.equal(slow.budget.usedBytes, 0);
  });

  it('of all connections hold no more than all may; who waits is served in turn', async () => {
    // Three reads of 16 MiB and their headers fit, and not a slab more.
    const limits = { connectionBytesMax: 34 * MIB, totalBytesMax: 48 * MIB + 32 * KIB };
    const { slow, target } = serve(limits);
    const clients = [1, 2, 3, 4].map(() => slow.enter('disk'));
    for (const client of clients) client.ask(read(1n, 0, 16 * MIB), read(2n, 0, 16 * MIB));
    assert.equal(target.waiting.length, 3);
    assert.ok(clients[2]?.peer.isPaused && clients[3]?.peer.isPaused);
    const small = slow.enter('disk');
    small.ask(read(9n, 0, 64 * KIB));
    assert.equal(target.waiting.length, 4, 'a small request goes on within the floor');
    let answered = 0;
    for (let round = 0; round < 20 && answered < 8; round++) {
      for (const work of target.waiting.splice(0)) work.finish();
      await turns();
      assert.ok(slow.budget.usedBytes <= 48 * MIB + 32 * KIB + 5 * 256 * KIB);
      for (const client of clients) answered += client.replies().length;
    }
    assert.equal(answered, 8);
    assert.equal(small.replies().length, 1);
    assert.equal(slow.budget.usedBytes, 0);
  });
});

describe('a client that sits on memory others wait for', () => {
  const limits = { connectionBytesMax: 34 * MIB, totalBytesMax: 34 * MIB, stallMs: 1000 };

  it('is cut off if it neither sends its payload nor takes its replies', async () => {
    for (const how of ['payload', 'replies']) {
      const { quick } = serve(limits);
      const sitting = quick.enter('disk');
      const waiting = quick.enter('disk');
      if (how === 'payload') {
        sitting.send(request(write(1n, 0, Buffer.alloc(32 * MIB))).subarray(0, 1000));
      } else {
        sitting.peer.isHolding = true;
        sitting.ask(read(1n, 0, 32 * MIB));
      }
      waiting.ask(read(1n, 0, 8 * MIB));
      assert.ok(waiting.peer.isPaused);
      quick.clock.advance(999);
      assert.equal(sitting.peer.isDestroyed, false);
      quick.clock.advance(1);
      await turns();
      assert.ok(sitting.isDone && sitting.peer.isDestroyed);
      assert.equal(waiting.replies().length, 1);
      assert.match(quick.refusals.join(), /moved no byte/);
      assert.equal(quick.budget.usedBytes, 0);
    }
  });

  it('is left alone while it moves, while the disk is slow, or nobody waits', async () => {
    const { quick, slow, target } = serve(limits);
    const moving = quick.enter('disk');
    const bytes = request(write(1n, 0, Buffer.alloc(32 * MIB)));
    moving.send(bytes.subarray(0, 1000));
    quick.clock.advance(100_000);
    assert.equal(moving.peer.isDestroyed, false, 'nobody waits');
    const waiting = quick.enter('disk');
    waiting.ask(read(1n, 0, 8 * MIB));
    for (let at = 1000; at < 10_000; at += 1000) {
      moving.send(bytes.subarray(at, at + 1000));
      quick.clock.advance(1000);
    }
    assert.equal(moving.peer.isDestroyed, false, 'it moves');
    moving.send(bytes.subarray(10_000));
    await turns();
    assert.equal(waiting.replies().length, 1);

    const patient = slow.enter('disk');
    const other = slow.enter('disk');
    patient.ask(read(1n, 0, 32 * MIB));
    other.ask(read(1n, 0, 8 * MIB));
    slow.clock.advance(10_000);
    assert.equal(patient.peer.isDestroyed, false, 'the disk is slow');
    await target.finishAll();
    assert.equal(patient.replies().length + other.replies().length, 2);
  });
});

describe('the end of a connection', () => {
  const inFlight = (): TestRequest[] => [read(1n, 0, 512), write(2n, 0, Buffer.alloc(512, 1))];

  for (const how of ['DISC', 'end of input', 'shutdown', 'disconnect by the owner']) {
    it(`by ${how} comes when everything begun is answered`, async () => {
      const { slow, target } = serve();
      const client = slow.enter('disk');
      client.ask(...inFlight());
      if (how === 'DISC') client.ask({ type: COMMAND.disc, cookie: 3n });
      else if (how === 'end of input') client.session?.endOfInput();
      else if (how === 'shutdown') client.session?.shutdown();
      else slow.exports.connections[0]?.disconnect();
      client.ask(read(4n, 0, 512));
      await turns();
      assert.equal(client.peer.isEnded, false);
      assert.deepEqual(slow.exports.detachedNames, []);
      await target.finishAll();
      assert.deepEqual(
        client.replies().map(({ cookie, error }) => [cookie, error]),
        [
          [1n, 0],
          [2n, 0],
        ],
      );
      assert.ok(client.peer.isEnded && client.isDone);
      assert.deepEqual(slow.exports.detachedNames, ['disk']);
      assert.equal(slow.budget.usedBytes, 0);
    });
  }

  it('by end of input answers what waits behind a limit too', async () => {
    const { slow, target } = serve({ requestsMax: 1 });
    const client = slow.enter('disk');
    client.ask(...inFlight());
    client.session?.endOfInput();
    await target.finishAll();
    assert.equal(client.replies().length, 2);
    assert.ok(client.isDone);
  });

  it('by the client being gone is told when the disk is done, and nothing leaks', async () => {
    for (const structured of [false, true]) {
      const { slow, target } = serve();
      const client = slow.enter('disk', { structured, contexts: ['base:allocation'] });
      client.ask(
        ...inFlight(),
        read(3n, 0, MIB),
        { type: COMMAND.flush, cookie: 4n },
        { type: BLOCK_STATUS, cookie: 5n, length: 4096 },
      );
      // A payload is half here, too.
      client.send(request(write(6n, 0, Buffer.alloc(MIB))).subarray(0, 5000));
      client.peer.destroy();
      await turns();
      assert.equal(client.isDone, false, 'the disk still works for it');
      assert.deepEqual(slow.exports.detachedNames, []);
      await target.finishAll();
      assert.ok(client.isDone);
      assert.deepEqual(slow.exports.detachedNames, ['disk']);
      assert.equal(slow.budget.usedBytes, 0);
    }
  });

  it('by a bad magic number drops the stream at once', async () => {
    const { slow, target } = serve();
    const client = slow.enter('disk');
    client.ask(read(1n, 0, 512));
    const bad = request(read(2n, 0, 512));
    bad[0] = 0;
    client.send(bad);
    await turns();
    assert.ok(client.peer.isDestroyed);
    assert.deepEqual(slow.refusals, ['bad request magic']);
    await target.finishAll();
    assert.ok(client.isDone);
    assert.equal(slow.budget.usedBytes, 0);
  });

  it('comes for a write so long that its payload is not worth skipping', async () => {
    const { quick } = serve();
    const client = quick.enter('disk');
    client.send(request({ type: COMMAND.write, cookie: 1n, length: 64 * MIB + 1 }));
    await turns();
    assert.ok(client.isDone);
    assert.match(quick.refusals.join(), /a payload of 67108865 bytes/);
  });

  it('leaves nothing behind in a session that had sent nothing', async () => {
    const { quick } = serve();
    const client = quick.connect();
    client.session?.endOfInput();
    await turns();
    assert.ok(client.isDone);
    assert.deepEqual(quick.exports.attachedNames, []);
    assert.equal(quick.budget.usedBytes, 0);
  });
});

describe('what a connection tells of itself', () => {
  it('is its state and what it has done', async () => {
    const { slow, target } = serve();
    const client = slow.enter('disk');
    client.ask(read(1n, 0, 512), write(2n, 0, Buffer.alloc(100)), read(3n, 2 ** 50, 1));
    assert.deepEqual(client.session?.info, {
      id: 1,
      peer: 'test',
      state: 'transmission',
      exportName: 'disk',
      requestsInFlight: 2,
      heldBytes: slow.budget.usedBytes,
      unsentBytes: 0,
      counts: { reads: 1, readBytes: 512, writes: 1, writtenBytes: 100, others: 0, errors: 1 },
    });
    await target.finishAll();
    assert.equal(client.session?.info.requestsInFlight, 0);
  });

  it('sees a disk that grows or shrinks under it', async () => {
    const { quick, disk } = serve();
    const client = quick.enter('disk');
    disk.sizeBytes = 128 * MIB;
    assert.equal((await client.call(read(1n, 100 * MIB, 512))).error, 0);
    disk.sizeBytes = MIB;
    assert.equal((await client.call(read(1n, 2 * MIB, 512))).error, 22);
  });

  it('that was resized shows its size to the next client, its end to all at once', async () => {
    const { quick, disk } = serve();
    const old = quick.enter('disk', { structured: true });
    const sizeOfNext = (): number => {
      const client = quick.connect();
      client.send(enter('disk'));
      const reader = new ReplyReader(client.peer.takeBytes());
      reader.greeting();
      const [info] = reader.optionReplies();
      return Number(info?.data.readBigUInt64BE(2));
    };
    for (const sizeBytes of [128 * MIB, MIB + 512]) {
      disk.sizeBytes = sizeBytes;
      assert.equal(sizeOfNext(), sizeBytes);
      for (const [fields, errno] of [
        [read(1n, sizeBytes - 512, 1024), 22],
        [write(2n, sizeBytes, Buffer.alloc(512)), 28],
        [{ type: COMMAND.trim, cookie: 3n, offset: sizeBytes, length: 512 }, 22],
        [{ type: COMMAND.zeroes, cookie: 4n, offset: sizeBytes - 1, length: 2 }, 28],
      ] as const) {
        const { error, message } = await old.call(fields);
        assert.equal(error, errno);
        assert.match(message, new RegExp(`end beyond 'disk' \\(${sizeBytes} bytes\\)`));
      }
      assert.equal((await old.call(write(5n, sizeBytes - 512, Buffer.alloc(512)))).error, 0);
    }
  });
});

describe('a bug of the disk', () => {
  it('is not answered as if it were an error of operation', () => {
    const { quick, disk } = serve();
    const client = quick.enter('disk');
    disk.read = () => {
      throw new TypeError('a bug');
    };
    assert.throws(() => client.ask(read(1n, 0, 512)), /a bug/);
  });
});

it('a greeting goes out before the client says anything', () => {
  const { quick } = serve();
  const client = quick.connect();
  assert.equal(new ReplyReader(client.peer.takeBytes()).greeting(), 3);
});
