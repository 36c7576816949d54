/** Attachments after the end of their server: which come back, which do not, and what is said. */
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, it } from 'node:test';
import { type ApiAnswer, ControlLab, newStoreDevice } from '../../test/support/control-lab.js';
import { StoreError } from '../base/store-error.js';
import { MIB } from '../base/units.js';
import type { MemoryDevice } from '../env/memory-device.js';
import { type AttachmentKeeper, decodeKept } from './kept-attachments.js';
import type { Attachment } from './schemas.js';

const folder = mkdtempSync(join(tmpdir(), 'keiki-kept-'));
after(() => rmSync(folder, { recursive: true }));

/** Keeps in memory all that was ever saved. */
class MemoryKeeper implements AttachmentKeeper {
  readonly name = 'the list';
  readonly texts: string[] = [];
  isReadOnly = false;

  load(): Promise<string | undefined> {
    return Promise.resolve(this.texts.at(-1));
  }

  save(text: string): Promise<void> {
    if (this.isReadOnly) return Promise.reject(new StoreError('device', 'the list is read-only'));
    this.texts.push(text);
    return Promise.resolve();
  }

  /** Vdisks of the list that was saved last, or so many before. */
  vdisks(before = 0): string[] {
    return decodeKept(this.texts.at(-1 - before) ?? '', 'it').map(({ vdisk }) => vdisk);
  }
}

class Life {
  readonly keeper = new MemoryKeeper();
  readonly #device: MemoryDevice;

  constructor(device: MemoryDevice) {
    this.#device = device;
  }

  /** A store with v and v@s. */
  static async begin(): Promise<Life> {
    const life = new Life(await newStoreDevice());
    await life.serve(async (lab) => {
      await lab.call('POST', '/v1/vdisks', { body: { name: 'v', sizeBytes: MIB } });
      const items = [{ vdisk: 'v', snapshot: 's' }];
      await lab.call('POST', '/v1/snapshots', { body: { items } });
    });
    return life;
  }

  /** One server on the store, from start to end. */
  async serve(act: (lab: ControlLab) => Promise<void>): Promise<void> {
    const device = this.#device.reopen();
    const lab = await ControlLab.start({ device, attachmentKeeper: this.keeper });
    try {
      await act(lab);
      assert.deepEqual(lab.bugs, []);
    } finally {
      await lab.close();
    }
  }
}

function attach(lab: ControlLab, name: string, body: object): Promise<ApiAnswer> {
  return lab.call('PUT', `/v1/vdisks/${name}/attachment`, { body });
}

function detach(lab: ControlLab, name: string): Promise<ApiAnswer> {
  return lab.call('DELETE', `/v1/vdisks/${name}/attachment`);
}

async function list(lab: ControlLab): Promise<Pick<Attachment, 'vdisk' | 'uri'>[]> {
  const { body } = await lab.call('GET', '/v1/attachments');
  return (body.attachments as Attachment[]).map(({ vdisk, uri }) => ({ vdisk, uri }));
}

function logged(lab: ControlLab): string[] {
  return lab.log.map(({ event, message }) => `${event}: ${message}`);
}

it('are there again after a restart, at the same addresses, under their names of now', async () => {
  const life = await Life.begin();
  const socket = join(folder, 'v.sock');
  let before: Pick<Attachment, 'vdisk' | 'uri'>[] = [];
  await life.serve(async (lab) => {
    assert.equal((await attach(lab, 'v', { socket })).status, 200);
    assert.equal((await attach(lab, 'v@s', { port: 0 })).status, 200);
    await lab.call('PATCH', '/v1/vdisks/v', { body: { name: 'w' } });
    // While the rename lasts, both names are kept: a crash may come before it or behind it.
    assert.deepEqual(life.keeper.vdisks(1), ['v', 'v@s', 'w', 'w@s']);
    before = await list(lab);
    assert.deepEqual(
      before.map(({ vdisk }) => vdisk),
      ['w', 'w@s'],
    );
  });
  assert.ok(!existsSync(socket));
  await life.serve(async (lab) => {
    assert.deepEqual(await list(lab), before);
    assert.deepEqual(logged(lab), [
      `attachment-restored: w: at ${before[0]?.uri}`,
      `attachment-restored: w@s: at ${before[1]?.uri}`,
    ]);
    assert.equal((await detach(lab, 'w')).status, 204);
    assert.equal((await lab.call('DELETE', '/v1/vdisks/w@s')).status, 204);
  });
  await life.serve(async (lab) => assert.deepEqual(await list(lab), []));
});

it('end with their vdisk, also if the server ends between the two', async () => {
  const life = await Life.begin();
  await life.serve(async (lab) => {
    await attach(lab, 'v@s', { port: 0 });
    await attach(lab, 'v', { socket: join(folder, 'v.sock') });
    // The vdisk goes, and what is kept cannot be changed any more.
    life.keeper.isReadOnly = true;
    assert.equal((await lab.call('DELETE', '/v1/vdisks/v@s')).status, 204);
    assert.match(logged(lab).join(), /attachment-kept: v@s is deleted: the list is read-only/);
    life.keeper.isReadOnly = false;
  });
  assert.deepEqual(life.keeper.vdisks(), ['v@s', 'v']);
  await life.serve(async (lab) => {
    assert.deepEqual(
      (await list(lab)).map(({ vdisk }) => vdisk),
      ['v'],
    );
    assert.match(logged(lab)[0] ?? '', /^attachment-dropped: v@s is not there any more/);
    assert.deepEqual(life.keeper.vdisks(), ['v']);
  });
});

it('wait for the next start where their address is taken, or go elsewhere', async () => {
  const life = await Life.begin();
  const socket = join(folder, 'taken.sock');
  await life.serve(async (lab) => void (await attach(lab, 'v', { socket })));
  const other = createServer().listen(socket);
  await once(other, 'listening');
  await life.serve(async (lab) => {
    assert.deepEqual(await list(lab), []);
    assert.match(logged(lab)[0] ?? '', /^attachment-failed: v: .*taken\.sock.*: the next start/);
    // The rename finds what waits, too.
    await lab.call('PATCH', '/v1/vdisks/v', { body: { name: 'w' } });
  });
  assert.deepEqual(life.keeper.vdisks(), ['w']);
  await life.serve(async (lab) => {
    const elsewhere = await attach(lab, 'w', { socket: `${socket}2` });
    assert.equal(elsewhere.status, 200);
    assert.deepEqual(life.keeper.vdisks(), ['w']);
    assert.match(life.keeper.texts.at(-1) ?? '', /taken\.sock2"/);
    await detach(lab, 'w');
    await attach(lab, 'w', { socket: `${socket}2` });
  });
  other.close();
  const third = createServer().listen(`${socket}2`);
  await once(third, 'listening');
  await life.serve(async (lab) => {
    assert.deepEqual(await list(lab), []);
    assert.equal((await detach(lab, 'w')).status, 204);
    assert.deepEqual(life.keeper.vdisks(), []);
    assert.equal((await detach(lab, 'w')).body.kind, 'not-found');
  });
  third.close();
});

it('are not there if they cannot be kept, and a list that is none is refused', async () => {
  const life = await Life.begin();
  const socket = join(folder, 'v.sock');
  await life.serve(async (lab) => {
    life.keeper.isReadOnly = true;
    const refused = await attach(lab, 'v', { socket });
    assert.deepEqual([refused.status, refused.body.detail], [500, 'the list is read-only']);
    assert.ok(!existsSync(socket));
    assert.deepEqual(await list(lab), []);
    life.keeper.isReadOnly = false;
  });
  for (const text of ['', '{', '{"version":2,"attachments":[]}', '{"version":1}']) {
    life.keeper.texts.push(text);
    await assert.rejects(
      life.serve(() => Promise.resolve()),
      /the list holds no list of attachments of this version: mend it, or delete it/,
    );
  }
});
