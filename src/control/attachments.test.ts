/** Who uses a vdisk: NBD clients on the common socket and on sockets of single vdisks. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, statSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { ControlLab } from '../../test/support/control-lab.js';
import { COMMAND, enter, request } from '../../test/support/nbd-script.js';
import { MIB } from '../base/units.js';
import { describeAddress } from '../env/listen.js';
import { nbdUri } from './nbd-uri.js';
import type { Attachment, Stats, Vdisk } from './schemas.js';

const PATH = '/v1/vdisks/v/attachment';
/** Greeting, reply to GO with the export, its acknowledgement. */
const HANDSHAKE_BYTES = 18 + 32 + 20;

/** An NBD client in transmission. */
async function enterBy(where: string | number, name: string): Promise<Socket> {
  const socket = typeof where === 'string' ? connect(where) : connect(where, '127.0.0.1');
  socket.on('error', () => undefined);
  socket.write(enter(name));
  await readBytes(socket, HANDSHAKE_BYTES);
  return socket;
}

async function readBytes(socket: Socket, length: number): Promise<void> {
  for (let rest = length; rest > 0; ) {
    const chunk: unknown = socket.read(Math.min(rest, socket.readableLength));
    if (chunk instanceof Buffer) rest -= chunk.length;
    else await once(socket, 'readable');
  }
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setImmediate(resolve));
}

async function withVdisk(act: (lab: ControlLab) => Promise<void>): Promise<void> {
  const lab = await ControlLab.start();
  await lab.call('POST', '/v1/vdisks', { body: { name: 'v', sizeBytes: MIB } });
  try {
    await act(lab);
    assert.deepEqual(lab.bugs, []);
  } finally {
    await lab.close();
  }
}

describe('attachments', () => {
  it('refuses to delete a vdisk that clients have open, and names them', async () => {
    await withVdisk(async (lab) => {
      const client = await enterBy(lab.nbdPath, 'v');
      const { body: open } = await lab.call('GET', '/v1/vdisks/v');
      const held = { requestsInFlight: 0, heldBytes: 0 };
      assert.deepEqual(open.clients, [{ id: 1, peer: 'unix', name: 'v', ...held }]);
      assert.equal(open.clientCount, 1);
      const refused = await lab.call('DELETE', '/v1/vdisks/v');
      assert.equal(refused.status, 409);
      assert.equal(refused.body.kind, 'in-use');
      assert.deepEqual(refused.body.clients, ['NBD client 1 (unix)']);
      // Under its new name it is as much in use, and counted on.
      await lab.call('PATCH', '/v1/vdisks/v', { body: { name: 'w' } });
      client.write(request({ type: COMMAND.read, cookie: 1n, offset: 0, length: 512 }));
      await readBytes(client, 16 + 512);
      assert.equal((await lab.call('DELETE', '/v1/vdisks/w')).body.kind, 'in-use');
      const put = await lab.call('PUT', '/v1/vdisks/w/data', { body: Buffer.alloc(512) });
      assert.equal(put.body.kind, 'in-use');
      const stats = await lab.call('GET', '/v1/stats');
      const [vdisk] = stats.body.vdisks as Stats['vdisks'];
      assert.equal(vdisk?.name, 'w');
      const [read] = vdisk.operations;
      assert.deepEqual([read?.operation, read?.count, read?.bytes], ['read', 1, 512]);
      client.destroy();
      await until(async () => (await lab.call('DELETE', '/v1/vdisks/w')).status === 204);
    });
  });

  it('gives a vdisk a socket of its own, where it is the default export', async () => {
    await withVdisk(async (lab) => {
      const socket = join(lab.folder, 'v.sock');
      const attached = await lab.call('PUT', PATH, { body: { socket } });
      assert.deepEqual(attached.body, {
        vdisk: 'v',
        address: { kind: 'unix', path: socket },
        uri: `nbd+unix:///?socket=${socket}`,
        readOnly: false,
        clients: [],
      });
      assert.equal(statSync(socket).mode & 0o777, 0o600);
      const client = await enterBy(socket, '');
      const { body } = await lab.call('GET', '/v1/attachments');
      const [attachment] = body.attachments as Attachment[];
      assert.deepEqual(
        attachment?.clients.map(({ name, peer }) => [name, peer]),
        [['v', 'unix']],
      );
      assert.equal((await lab.call('DELETE', '/v1/vdisks/v')).body.kind, 'in-use');
      // Numbers are of one kind, whichever socket a client came by.
      const other = await enterBy(lab.nbdPath, 'v');
      const { clients } = (await lab.call('GET', '/v1/vdisks/v')).body as unknown as Vdisk;
      assert.deepEqual(
        clients.map(({ id }) => id),
        [1, 2],
      );
      other.destroy();
      await until(() => lab.service.plane.exports.clientCount === 1);
      const again = await lab.call('PUT', PATH, { body: { socket: `${socket}2` } });
      assert.equal(again.body.kind, 'in-use');
      const gone = once(client.resume(), 'close');
      assert.equal((await lab.call('DELETE', PATH)).status, 204);
      await gone;
      assert.equal(existsSync(socket), false);
      assert.equal((await lab.call('DELETE', PATH)).body.kind, 'not-found');
      const events = (await lab.call('GET', '/v1/events')).body.events as { type: string }[];
      assert.deepEqual(events.map(({ type }) => type).slice(1), [
        'attached',
        ...['client-connected', 'client-connected', 'client-disconnected'],
        'client-disconnected',
        'detached',
      ]);
    });
  });

  it('takes any path of a socket, and writes it as clients can read it', async () => {
    await withVdisk(async (lab) => {
      const socket = join(lab.folder, "a vm's é.sock");
      const { body } = await lab.call('PUT', PATH, { body: { socket } });
      assert.equal(body.uri, `nbd+unix:///?socket=${lab.folder}/a%20vm%27s%20%C3%A9.sock`);
      (await enterBy(socket, '')).destroy();
    });
  });

  it('gives a vdisk a port, on loopback only; the port goes with the vdisk', async () => {
    await withVdisk(async (lab) => {
      const { body } = await lab.call('PUT', PATH, { body: { port: 0 } });
      const { port } = body.address as { port: number };
      assert.equal(body.uri, `nbd://127.0.0.1:${port}/`);
      (await enterBy(port, '')).destroy();
      await until(() => lab.service.plane.exports.clientCount === 0);
      assert.equal((await lab.call('DELETE', '/v1/vdisks/v')).status, 204);
      assert.deepEqual((await lab.call('GET', '/v1/attachments')).body, { attachments: [] });
      await assert
        .rejects(
          enterBy(port, '').then(() => undefined),
          undefined,
        )
        .catch(() => undefined);
    });
  });

  it('refuses addresses that cannot be used', async () => {
    await withVdisk(async (lab) => {
      const cases: [unknown, string, RegExp][] = [
        [{ socket: 'relative' }, 'invalid', /body\/socket/],
        [{ socket: `/${'x'.repeat(107)}` }, 'invalid', /body\/socket/],
        [{ socket: '/a\nb' }, 'invalid', /body\/socket/],
        [{ socket: `/${'é'.repeat(60)}` }, 'invalid', /has 121 bytes.* at most 107/],
        [{ socket: '/no/such/folder/x' }, 'invalid', /cannot listen/],
        [{ socket: lab.nbdPath }, 'in-use', /another server/],
        [{ host: '0.0.0.0', port: 0 }, 'invalid', /not loopback/],
        [{ host: 'example.org', port: 0 }, 'invalid', /body/],
        [{ port: 70_000 }, 'invalid', /<= 65535/],
        [{ host: '127.0.0.1' }, 'invalid', /'port'/],
        [{ port: 0, socket: '/x' }, 'invalid', /unknown key/],
      ];
      for (const [body, kind, text] of cases) {
        const answer = await lab.call('PUT', PATH, { body });
        assert.equal(answer.body.kind, kind, JSON.stringify(body));
        assert.match(String(answer.body.detail), text);
      }
      const none = await lab.call('PUT', '/v1/vdisks/none/attachment', { body: { port: 0 } });
      assert.equal(none.status, 404);
    });
  });

  it('writes addresses as clients take them', () => {
    assert.equal(
      nbdUri({ kind: 'unix', path: '/a b/c' }, 'x@y'),
      'nbd+unix:///x%40y?socket=/a%20b/c',
    );
    assert.equal(nbdUri({ kind: 'tcp', host: '::1', port: 9 }, ''), 'nbd://[::1]:9/');
    assert.equal(describeAddress({ kind: 'tcp', host: '::1', port: 9 }), '[::1]:9');
    assert.equal(describeAddress({ kind: 'descriptor', descriptor: 3 }), 'descriptor 3');
  });
});
