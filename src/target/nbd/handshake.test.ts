import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { MemoryTarget } from '../../../test/support/memory-target.js';
import { type TestClient, TestExports, TestServer, turns } from '../../../test/support/nbd-peer.js';
import { type OptionReply, ReplyReader } from '../../../test/support/nbd-replies.js';
import {
  BLOCK_STATUS,
  clientFlags,
  infoData,
  metaData,
  option,
} from '../../../test/support/nbd-script.js';
import { StoreError } from '../../base/store-error.js';
import type { BlockTarget } from '../../vdisk/block-target.js';

const STRUCTURED_REPLY = 8;
const EXTENDED_HEADERS = 11;
const ACK = 1;
const UNSUP = 0x80000001;
const INVALID = 0x80000003;
const UNKNOWN = 0x80000006;
const SHUTDOWN = 0x80000007;
const TOO_BIG = 0x80000009;
const TLS_REQD = 0x80000005;
const EXT_HEADER_REQD = 0x8000000a;
/** HAS_FLAGS, FLUSH, FUA, TRIM, WRITE_ZEROES, MULTI_CONN, CACHE, FAST_ZERO. */
const WRITABLE = 0x001 | 0x004 | 0x008 | 0x020 | 0x040 | 0x100 | 0x400 | 0x800;
const READ_ONLY = 0x001 | 0x002 | 0x004 | 0x008 | 0x100 | 0x400;
const DF = 0x080;
const STATUS_PAYLOAD = 0x1000;

const disk = new MemoryTarget({ name: 'disk', sizeBytes: (1 << 20) + 512 });
const snapshot = new MemoryTarget({ name: 'golden@v1', sizeBytes: 4096, readOnly: true });

function serve(targets: BlockTarget[] = [disk, snapshot], defaultName?: string): TestServer {
  return new TestServer(new TestExports(targets, defaultName), { optionsMax: 20 });
}

/** A client that has read the greeting and sent its flags. */
function greeted(server: TestServer, flags = 3): TestClient {
  const client = server.connect();
  assert.equal(new ReplyReader(client.peer.takeBytes()).greeting(), 3);
  client.send(clientFlags(flags));
  return client;
}

function ask(client: TestClient, type: number, data?: Uint8Array): OptionReply[] {
  client.send(option(type, data));
  const reader = new ReplyReader(client.peer.takeBytes());
  const replies = reader.optionReplies();
  assert.ok(replies.every((reply) => reply.option === type));
  assert.equal(reader.restBytes, 0);
  const isDone = replies.at(-1)?.type === ACK;
  if (isDone && type === STRUCTURED_REPLY) client.style = 'structured';
  if (isDone && type === EXTENDED_HEADERS) client.style = 'extended';
  return replies;
}

/** The types of the replies. */
function typesOf(replies: readonly OptionReply[]): number[] {
  return replies.map((reply) => reply.type);
}

function infoExport(replies: readonly OptionReply[]): { sizeBytes: number; flags: number } {
  const data = replies.find((reply) => reply.type === 3 && reply.data.readUInt16BE() === 0)?.data;
  assert.ok(data?.length === 12);
  return { sizeBytes: Number(data.readBigUInt64BE(2)), flags: data.readUInt16BE(10) };
}

describe('the handshake', () => {
  it('lists exports in order', () => {
    const replies = ask(greeted(serve()), 3);
    assert.deepEqual(typesOf(replies), [2, 2, ACK]);
    assert.equal(replies[0]?.data.toString('utf8', 4), 'disk');
    assert.equal(replies[1]?.data.toString('utf8', 4), 'golden@v1');
    assert.deepEqual(typesOf(ask(greeted(serve()), 3, Buffer.alloc(1))), [INVALID]);
  });

  it('tells about an export without entering it', () => {
    const server = serve();
    const client = greeted(server);
    const replies = ask(client, 6, infoData('disk'));
    assert.deepEqual(typesOf(replies), [3, ACK]);
    assert.deepEqual(infoExport(replies), { sizeBytes: (1 << 20) + 512, flags: WRITABLE });
    const readOnly = infoExport(ask(client, 6, infoData('golden@v1')));
    assert.deepEqual(readOnly, { sizeBytes: 4096, flags: READ_ONLY });
    assert.equal(client.state, 'handshake');
    assert.deepEqual(server.exports.attachedNames, []);
  });

  it('gives name and block sizes to who asks, and ignores other requests', () => {
    const replies = ask(greeted(serve()), 6, infoData('disk', [3, 1, 2, 77]));
    assert.deepEqual(typesOf(replies), [3, 3, 3, ACK]);
    const byType = new Map(replies.map(({ data }) => [data.length && data.readUInt16BE(), data]));
    assert.equal(byType.get(1)?.toString('utf8', 2), 'disk');
    assert.equal(byType.get(3)?.toString('hex'), '0003' + '00000001' + '00001000' + '02000000');
  });

  it('enters by GO, and tells the owner', () => {
    const server = serve();
    const client = greeted(server);
    assert.deepEqual(typesOf(ask(client, 7, infoData('disk'))), [3, ACK]);
    assert.equal(client.state, 'transmission');
    assert.deepEqual(server.exports.attachedNames, ['disk']);
  });

  it('offers DF once replies are structured, to INFO and GO alike', () => {
    const client = greeted(serve());
    assert.deepEqual(typesOf(ask(client, 8)), [ACK]);
    assert.equal(infoExport(ask(client, 6, infoData('disk'))).flags, WRITABLE | DF);
    assert.equal(infoExport(ask(client, 7, infoData('disk'))).flags, WRITABLE | DF);
    assert.deepEqual(typesOf(ask(greeted(serve()), 8, Buffer.alloc(2))), [INVALID]);
  });

  it('finds the default export: the configured one, or the only one, else none', () => {
    const only = infoExport(ask(greeted(serve([snapshot])), 7, infoData('')));
    assert.equal(only.sizeBytes, 4096);
    const chosen = ask(greeted(serve([disk, snapshot], 'golden@v1')), 7, infoData('', [1]));
    assert.equal(infoExport(chosen).sizeBytes, 4096);
    assert.equal(chosen.at(-2)?.data.toString('utf8', 2), 'golden@v1');
    assert.deepEqual(typesOf(ask(greeted(serve()), 7, infoData(''))), [UNKNOWN]);
    assert.deepEqual(typesOf(ask(greeted(serve([])), 7, infoData(''))), [UNKNOWN]);
    assert.deepEqual(typesOf(ask(greeted(serve([disk], 'gone')), 7, infoData(''))), [UNKNOWN]);
  });

  it('refuses an unknown export with a message, and goes on', () => {
    const client = greeted(serve());
    const replies = ask(client, 7, infoData('nope'));
    assert.deepEqual(typesOf(replies), [UNKNOWN]);
    assert.equal(replies[0]?.data.toString(), "no export is named 'nope'");
    assert.deepEqual(typesOf(ask(client, 7, infoData('disk'))), [3, ACK]);
  });

  it('tells what the owner says when an export cannot be opened', () => {
    class Failing extends TestExports {
      override open(name: string): BlockTarget | undefined {
        throw new StoreError(name === 'a' ? 'closed' : 'corrupt', `'${name}' is out of order`);
      }
    }
    const client = greeted(new TestServer(new Failing([disk])));
    const replies = ask(client, 7, infoData('a'));
    assert.deepEqual(typesOf(replies), [SHUTDOWN]);
    assert.equal(replies[0]?.data.toString(), "'a' is out of order");
    assert.deepEqual(typesOf(ask(client, 7, infoData('b'))), [UNKNOWN]);
  });

  it('enters by EXPORT_NAME, with zeroes unless they were declined', () => {
    for (const [flags, zeroes] of [
      [0, 124],
      [1, 124],
      [2, 0],
      [3, 0],
    ] as const) {
      const client = greeted(serve(), flags);
      client.send(option(1, Buffer.from('disk')));
      const bytes = client.peer.takeBytes();
      assert.equal(bytes.length, 10 + zeroes);
      assert.equal(Number(bytes.readBigUInt64BE()), (1 << 20) + 512);
      assert.equal(bytes.readUInt16BE(8), WRITABLE);
      assert.ok(bytes.subarray(10).every((byte) => byte === 0));
      assert.equal(client.state, 'transmission');
    }
  });

  it('closes when EXPORT_NAME asks for what is not there', async () => {
    for (const name of ['nope', 'a\0b', 'x'.repeat(4097)]) {
      const server = serve();
      const client = greeted(server);
      client.send(option(1, Buffer.from(name)));
      await turns();
      assert.equal(client.peer.takeBytes().length, 0);
      assert.ok(client.isDone && client.peer.isEnded);
      assert.equal(server.refusals.length, 1);
    }
  });

  it('answers ABORT, whatever its data, and closes', async () => {
    const client = greeted(serve());
    client.send(Buffer.concat([option(2, Buffer.alloc(9)), option(3)]));
    const reader = new ReplyReader(client.peer.takeBytes());
    assert.deepEqual(typesOf(reader.optionReplies()), [ACK]);
    assert.equal(reader.restBytes, 0);
    await turns();
    assert.ok(client.isDone);
  });

  it('says of every other option that it does not know it', () => {
    const server = new TestServer(new TestExports([disk]));
    const client = greeted(server);
    // 4 was withdrawn, 5 is TLS.
    for (const type of [0, 4, 5, 12, 1000, 0x7fffffff, 0xffffffff]) {
      assert.deepEqual(typesOf(ask(client, type)), [UNSUP]);
      assert.deepEqual(typesOf(ask(client, type, Buffer.alloc(100_000, 0xff))), [UNSUP]);
    }
    assert.deepEqual(typesOf(ask(client, 7, infoData('disk'))), [3, ACK]);
  });

  it('agrees to extended headers, after structured replies or without', () => {
    for (const isStructured of [false, true]) {
      const client = greeted(serve());
      if (isStructured) ask(client, STRUCTURED_REPLY);
      assert.deepEqual(typesOf(ask(client, EXTENDED_HEADERS, Buffer.alloc(1))), [INVALID]);
      const before = isStructured ? WRITABLE | DF : WRITABLE;
      assert.equal(infoExport(ask(client, 6, infoData('disk'))).flags, before);
      assert.deepEqual(typesOf(ask(client, EXTENDED_HEADERS)), [ACK]);
      assert.deepEqual(typesOf(ask(client, STRUCTURED_REPLY)), [EXT_HEADER_REQD]);
      const contexts = ask(client, 10, metaData('disk', ['base:allocation']));
      assert.deepEqual(typesOf(contexts), [4, ACK]);
      const flags = WRITABLE | DF | STATUS_PAYLOAD;
      assert.equal(infoExport(ask(client, 6, infoData('disk'))).flags, flags);
      assert.equal(infoExport(ask(client, 7, infoData('disk'))).flags, flags);
    }
  });

  it('closes when EXPORT_NAME comes after extended headers', async () => {
    const server = serve();
    const client = greeted(server);
    ask(client, EXTENDED_HEADERS);
    client.send(option(1, Buffer.from('disk')));
    await turns();
    assert.equal(client.peer.takeBytes().length, 0);
    assert.ok(client.isDone);
    assert.match(server.refusals.join(), /EXPORT_NAME with extended headers/);
  });

  it('answers requests that do not add up, and goes on', () => {
    const client = greeted(serve());
    assert.deepEqual(typesOf(ask(client, 7)), [INVALID]);
    assert.deepEqual(typesOf(ask(client, 6, Buffer.from('ffffffff0000', 'hex'))), [INVALID]);
    assert.deepEqual(typesOf(ask(client, 7, infoData('a\0b'))), [INVALID]);
    assert.deepEqual(typesOf(ask(client, 6, Buffer.alloc(70_000))), [TOO_BIG]);
    assert.deepEqual(typesOf(ask(client, 7, infoData('disk'))), [3, ACK]);
  });
});

describe('TLS', () => {
  const START = 5;

  function tlsClient(mode: 'allow' | 'require'): { server: TestServer; client: TestClient } {
    const server = new TestServer(new TestExports([disk, snapshot]), {}, mode);
    return { server, client: greeted(server) };
  }

  it('is begun after one reply; what was agreed in the clear is forgotten', () => {
    const { client } = tlsClient('allow');
    ask(client, 8);
    ask(client, EXTENDED_HEADERS);
    assert.deepEqual(typesOf(ask(client, START)), [ACK]);
    assert.ok(client.peer.isEncrypted);
    assert.deepEqual(typesOf(ask(client, 10, metaData('disk', ['base:allocation']))), [INVALID]);
    const flags = infoExport(ask(client, 6, infoData('disk'))).flags;
    assert.equal(flags, WRITABLE);
    assert.deepEqual(typesOf(ask(client, START)), [INVALID]);
    assert.deepEqual(typesOf(ask(client, 7, infoData('disk'))), [3, ACK]);
  });

  it('takes no data', () => {
    const { client } = tlsClient('allow');
    assert.deepEqual(typesOf(ask(client, START, Buffer.alloc(1))), [INVALID]);
    assert.ok(!client.peer.isEncrypted);
    assert.deepEqual(typesOf(ask(client, 7, infoData('disk'))), [3, ACK]);
  });

  it('is not begun over bytes that came behind it in the clear', async () => {
    for (const rest of [option(3), Buffer.from([22])]) {
      const { server, client } = tlsClient('allow');
      client.send(Buffer.concat([option(START), rest]));
      assert.ok(!client.peer.isEncrypted);
      assert.match(server.refusals.join(), /STARTTLS/);
      await turns();
      assert.ok(client.isDone);
    }
  });

  it('where it is required, comes before everything else', async () => {
    const { client } = tlsClient('require');
    for (const [type, data] of [[3], [8], [6, infoData('disk')], [7, infoData('disk')]] as const) {
      assert.deepEqual(typesOf(ask(client, type, data)), [TLS_REQD]);
    }
    assert.deepEqual(typesOf(ask(client, 10, metaData('disk', []))), [TLS_REQD]);
    assert.deepEqual(typesOf(ask(client, 11)), [TLS_REQD]);
    assert.deepEqual(typesOf(ask(client, START)), [ACK]);
    assert.deepEqual(typesOf(ask(client, 3)), [2, 2, ACK]);
    const named = tlsClient('require');
    named.client.send(option(1, Buffer.from('disk')));
    await turns();
    assert.ok(named.client.isDone);
    assert.match(named.server.refusals.join(), /without TLS/);
    assert.deepEqual(typesOf(ask(tlsClient('require').client, 2)), [ACK]);
  });
});

describe('metadata contexts', () => {
  const names = (replies: readonly OptionReply[]): string[] =>
    replies.slice(0, -1).map(({ data }) => `${data.readUInt32BE()} ${data.toString('utf8', 4)}`);

  it('need structured replies', () => {
    const client = greeted(serve());
    assert.deepEqual(typesOf(ask(client, 10, metaData('disk', ['base:allocation']))), [INVALID]);
    assert.deepEqual(typesOf(ask(client, 9, metaData('disk', []))), [INVALID]);
  });

  it('are listed: all, by namespace, by name', () => {
    const list = (queries: string[]): string[] => {
      const client = greeted(serve());
      ask(client, 8);
      return names(ask(client, 9, metaData('disk', queries)));
    };
    assert.deepEqual(list([]), ['0 base:allocation', '0 qemu:allocation-depth', '0 keiki:state']);
    assert.deepEqual(list(['base:']), ['0 base:allocation']);
    assert.deepEqual(list(['keiki:']), ['0 keiki:state']);
    assert.deepEqual(list(['qemu:', 'x-other:thing']), ['0 qemu:allocation-depth']);
    assert.deepEqual(list(['base:allocation', 'base:']), ['0 base:allocation']);
    assert.deepEqual(list(['base:alloc', 'base', '', ':', 'BASE:']), []);
  });

  it('are set by exact name, the last time counts', () => {
    const client = greeted(serve());
    ask(client, 8);
    const set = (...queries: string[]): string[] =>
      names(ask(client, 10, metaData('disk', queries)));
    assert.deepEqual(set('base:allocation', 'qemu:allocation-depth'), [
      '1 base:allocation',
      '2 qemu:allocation-depth',
    ]);
    assert.deepEqual(set('base:', 'x-y:z'), []);
    assert.deepEqual(set(), []);
  });

  it('count only for the export they were set for, and not after a SET that failed', async () => {
    const status = { type: BLOCK_STATUS, cookie: 1n, length: 512 };
    for (const [last, errno] of [
      [metaData('disk', ['base:allocation']), 0],
      [metaData('golden@v1', ['base:allocation']), 22],
      [metaData('nope', ['base:allocation']), 22],
      [Buffer.alloc(3), 22],
      [Buffer.alloc(70_000), 22],
    ] as const) {
      const client = greeted(serve());
      ask(client, 8);
      ask(client, 10, metaData('disk', ['base:allocation']));
      ask(client, 10, last);
      ask(client, 7, infoData('disk'));
      assert.equal((await client.call(status)).error, errno);
    }
  });

  it('of an export that is not there are refused', () => {
    const client = greeted(serve());
    ask(client, 8);
    assert.deepEqual(typesOf(ask(client, 10, metaData('nope', ['base:allocation']))), [UNKNOWN]);
    assert.deepEqual(typesOf(ask(client, 10, Buffer.alloc(3))), [INVALID]);
  });
});

describe('a hostile client in the handshake', () => {
  async function isCutOff(bytes: Uint8Array, reason: RegExp): Promise<void> {
    const server = serve();
    const client = server.connect();
    client.send(bytes);
    await turns();
    assert.ok(client.isDone, 'the connection is closed');
    assert.match(server.refusals.join(), reason);
    assert.equal(server.budget.usedBytes, 0);
  }

  it('is cut off for each unknown flag', async () => {
    for (let bit = 2; bit < 32; bit++) {
      await isCutOff(clientFlags((1 << bit) >>> 0), /unknown client flags/);
    }
  });

  it('is cut off when an option does not begin as it must', async () => {
    const bad = option(3);
    bad[7] = 0;
    await isCutOff(Buffer.concat([clientFlags(), bad]), /IHAVEOPT/);
  });

  it('is cut off for data of a length that nobody means', async () => {
    const header = option(7);
    for (const length of [(1 << 20) + 1, 0x7fffffff, 0xffffffff]) {
      header.writeUInt32BE(length, 12);
      await isCutOff(Buffer.concat([clientFlags(), header]), /bytes of data/);
    }
  });

  it('is cut off for a flood of options', async () => {
    const flood = Buffer.concat([clientFlags(), ...new Array<Buffer>(21).fill(option(3))]);
    await isCutOff(flood, /more than 20 options/);
  });

  it('is cut off when it takes too long', async () => {
    const server = serve();
    const [idle, busy] = [server.connect(), server.connect()];
    busy.send(Buffer.concat([clientFlags(), option(7, infoData('disk'))]));
    server.clock.advance(29_999);
    await turns();
    assert.equal(idle.state, 'handshake');
    server.clock.advance(1);
    await turns();
    assert.ok(idle.isDone && idle.peer.isDestroyed);
    assert.equal(busy.state, 'transmission');
    assert.deepEqual(server.refusals, ['no export was entered in 30000 ms']);
  });

  it('is not read while it does not take the replies', () => {
    const exports = new TestExports(
      Array.from({ length: 2000 }, (_, index) => {
        return new MemoryTarget({ name: `disk-${index}`, sizeBytes: 512 });
      }),
    );
    const server = new TestServer(exports, { unsentBytesMax: 100_000 });
    const client = greeted(server);
    client.peer.isHolding = true;
    client.send(Buffer.concat(new Array<Buffer>(500).fill(option(3))));
    assert.ok(client.peer.isPaused);
    const heldBytes = server.budget.usedBytes;
    assert.ok(heldBytes < 400_000, `${heldBytes} bytes are held`);
    client.peer.takeHeld();
  });
});
