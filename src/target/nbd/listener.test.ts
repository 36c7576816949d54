import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { DeferredTarget, MemoryTarget } from '../../../test/support/memory-target.js';
import { ManualClock, TestExports, turns } from '../../../test/support/nbd-peer.js';
import { ReplyReader } from '../../../test/support/nbd-replies.js';
import { COMMAND, enter, request } from '../../../test/support/nbd-script.js';
import { KIB, MIB } from '../../base/units.js';
import type { LogEvent } from '../../env/log-sink.js';
import type { BlockTarget } from '../../vdisk/block-target.js';
import { type NbdServer, type NbdServerOptions, serveNbd } from './listener.js';

const folder = mkdtempSync(join(tmpdir(), 'nbd-'));
let pathCount = 0;
const newPath = (): string => join(folder, `s${pathCount++}`);

const disk = new MemoryTarget({ name: 'disk', sizeBytes: 64 * MIB });

interface Served {
  readonly server: NbdServer;
  readonly path: string;
  readonly exports: TestExports;
}

async function serve(
  options: Partial<NbdServerOptions> = {},
  target: BlockTarget = disk,
): Promise<Served> {
  const path = newPath();
  const exports = new TestExports([target]);
  return { server: await serveNbd({ exports, socketPath: path, ...options }), path, exports };
}

/** A socket in transmission that has read the handshake's replies. */
async function enterBy(where: string | number): Promise<Socket> {
  const socket = typeof where === 'string' ? connect(where) : connect(where, '127.0.0.1');
  socket.on('error', () => undefined);
  socket.write(enter('disk'));
  await readBytes(socket, 18 + 32 + 20);
  return socket;
}

async function readBytes(socket: Socket, length: number): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let rest = length;
  while (rest > 0) {
    const chunk: unknown = socket.read(Math.min(rest, socket.readableLength));
    if (!(chunk instanceof Buffer)) {
      await once(socket, 'readable');
      continue;
    }
    chunks.push(chunk);
    rest -= chunk.length;
  }
  return Buffer.concat(chunks);
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await turns();
}

describe('the listener', () => {
  it('serves a unix socket and TCP together, and says who is there', async () => {
    const { server, path, exports } = await serve({ port: 0 });
    const sockets = [await enterBy(path), await enterBy(server.port ?? 0)];
    for (const socket of sockets) {
      socket.write(request({ type: COMMAND.read, cookie: 5n, offset: 0, length: 100_000 }));
      const reader = new ReplyReader(await readBytes(socket, 16 + 100_000));
      const reads = new Map([[5n, { type: 0, cookie: 5n, length: 100_000 }]]);
      assert.ok(reader.reply(reads).data?.every((byte) => byte === 0));
    }
    const connections = server.connections();
    assert.deepEqual(
      connections.map(({ state, exportName, counts }) => [state, exportName, counts?.readBytes]),
      [
        ['transmission', 'disk', 100_000],
        ['transmission', 'disk', 100_000],
      ],
    );
    assert.equal(connections[0]?.peer, 'unix');
    assert.match(connections[1]?.peer ?? '', /^127\.0\.0\.1:\d+$/);
    for (const socket of sockets) socket.destroy();
    await until(() => exports.detachedNames.length === 2);
    assert.equal(server.heldBytes(), 0);
    await server.close();
    assert.equal(existsSync(path), false);
  });

  it('replaces a socket file only if nobody listens on it', async () => {
    const { server, path } = await serve();
    const exports = new TestExports([disk]);
    const inUse = { kind: 'in-use' };
    await assert.rejects(serveNbd({ exports, socketPath: path, replaceSocketFile: true }), inUse);
    await assert.rejects(serveNbd({ exports, port: server.port ?? 0, socketPath: path }), inUse);
    (await enterBy(path)).destroy();
    await server.close();
    const script = `require('net').createServer().listen(${JSON.stringify(path)}, () =>
      process.kill(process.pid, 'SIGKILL'))`;
    spawnSync(process.execPath, ['-e', script]);
    assert.ok(existsSync(path), 'a killed server leaves its socket file');
    await assert.rejects(serveNbd({ exports, socketPath: path }), inUse);
    const again = await serveNbd({ exports, socketPath: path, replaceSocketFile: true });
    (await enterBy(path)).destroy();
    await again.close();
  });

  it('says what is wrong with an address', async () => {
    const exports = new TestExports([disk]);
    const nowhere = join(folder, 'no', 'such', 'folder');
    await assert.rejects(serveNbd({ exports, socketPath: nowhere }), { kind: 'device' });
    const first = await serveNbd({ exports, port: 0 });
    const second = serveNbd({ exports, port: first.port ?? 0 });
    await assert.rejects(second, { kind: 'in-use' });
    await first.close();
  });

  it('closes connections beyond the limit, and takes new ones when some have gone', async () => {
    const events: LogEvent[] = [];
    const log = (event: LogEvent): void => void events.push(event);
    const { server, path } = await serve({ limits: { connectionsMax: 3 }, log });
    const sockets = [await enterBy(path), await enterBy(path), await enterBy(path)];
    const extra = connect(path);
    await once(extra, 'close');
    assert.deepEqual(
      events.map(({ event }) => event),
      ['nbd-refused'],
    );
    sockets[0]?.destroy();
    await until(() => server.connections().length === 2);
    (await enterBy(path)).destroy();
    for (const socket of sockets) socket.destroy();
    await server.close();
  });

  it('closes when everything begun is answered', async () => {
    const target = new DeferredTarget(disk);
    const { server, path, exports } = await serve({}, target);
    const idle = await enterBy(path);
    const busy = await enterBy(path);
    const early = connect(path);
    busy.write(request({ type: COMMAND.read, cookie: 1n, length: 512 }));
    await until(() => target.waiting.length === 1 && server.connections().length === 3);
    let isClosed = false;
    const closing = server.close().then(() => {
      isClosed = true;
    });
    for (const socket of [idle, early]) {
      socket.resume();
      await once(socket, 'end');
      socket.end();
    }
    await assert.rejects(once(connect(path), 'connect'));
    assert.equal(isClosed, false);
    await target.finishAll();
    assert.equal((await readBytes(busy, 16 + 512)).readUInt32BE(4), 0);
    busy.end();
    await closing;
    assert.deepEqual(exports.detachedNames, ['disk', 'disk']);
  });

  it('cuts off who does not go in time', async () => {
    const clock = new ManualClock();
    const { server, path } = await serve({ clock });
    const stubborn = await enterBy(path);
    for (let cookie = 0n; cookie < 200n; cookie++) {
      stubborn.write(request({ type: COMMAND.read, cookie, length: MIB }));
    }
    await until(() => (server.connections()[0]?.unsentBytes ?? 0) > MIB);
    const closing = server.close();
    await turns();
    clock.advance(5000);
    await closing;
    assert.equal(server.heldBytes(), 0);
    stubborn.destroy();
  });
});

describe('a client that reads nothing', () => {
  it('holds a bounded part of memory, and up nobody', async () => {
    const { server, path } = await serve();
    const deaf = await enterBy(path);
    for (let cookie = 0n; cookie < 5000n; cookie++) {
      deaf.write(request({ type: COMMAND.read, cookie, length: 64 * KIB }));
    }
    await until(() => (server.connections()[0]?.unsentBytes ?? 0) >= 4 * MIB);
    const other = await enterBy(path);
    for (let round = 0; round < 200; round++) {
      other.write(request({ type: COMMAND.read, cookie: 1n, length: 4096 }));
      await readBytes(other, 16 + 4096);
    }
    assert.ok(server.heldBytes() < 8 * MIB, `${server.heldBytes()} bytes are held`);
    // It was only slow: every reply comes, in order.
    for (let cookie = 0n; cookie < 5000n; cookie++) {
      const reply = await readBytes(deaf, 16 + 64 * KIB);
      assert.equal(reply.readBigUInt64BE(8), cookie);
    }
    for (const socket of [deaf, other]) socket.destroy();
    await until(() => server.connections().length === 0);
    assert.equal(server.heldBytes(), 0);
    await server.close();
  });
});
