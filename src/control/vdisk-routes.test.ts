/** Every route of vdisks, snapshots, clones and splits, with good and bad input. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { type ApiAnswer, ControlLab } from '../../test/support/control-lab.js';
import { MIB } from '../base/units.js';
import { ApiError, KINDS_OF_PROBLEM, PROBLEM_TYPE } from './problem.js';
import type { Job, ProblemKind, SplitPlan, Vdisk } from './schemas.js';
import { planSplit } from './split-plan.js';

let lab: ControlLab;

function assertProblem(answer: ApiAnswer, kind: ProblemKind, text: RegExp, status?: number): void {
  assert.equal(answer.body.kind, kind, JSON.stringify(answer.body));
  assert.equal(answer.type, PROBLEM_TYPE);
  assert.equal(answer.status, status ?? KINDS_OF_PROBLEM[kind].status);
  assert.equal(answer.body.status, answer.status);
  assert.equal(answer.body.type, `urn:keiki:problem:${kind}`);
  assert.match(String(answer.body.detail), text);
}

async function create(name: string, sizeBytes: number = MIB): Promise<void> {
  const { status } = await lab.call('POST', '/v1/vdisks', { body: { name, sizeBytes } });
  assert.equal(status, 201);
}

async function snapshot(vdisk: string, name: string): Promise<void> {
  const body = { items: [{ vdisk, snapshot: name }] };
  assert.equal((await lab.call('POST', '/v1/snapshots', { body })).status, 201);
}

async function names(): Promise<string[]> {
  const { body } = await lab.call('GET', '/v1/vdisks');
  return (body.vdisks as Vdisk[]).map(({ name }) => name);
}

async function jobDone(id: string): Promise<Job> {
  for (;;) {
    const { body } = await lab.call('GET', `/v1/jobs/${id}`);
    const job = body as unknown as Job;
    if (job.endedAt !== null) return job;
  }
}

describe('vdisks over the API', () => {
  before(async () => {
    lab = await ControlLab.start();
  });

  after(async () => {
    assert.deepEqual(lab.bugs, []);
    await lab.close();
  });

  it('creates, shows, lists and deletes', async () => {
    const body = { name: 'one', sizeBytes: 512 };
    const made = await lab.call('POST', '/v1/vdisks', { body });
    assert.equal(made.status, 201);
    const expected: Vdisk = {
      name: 'one',
      kind: 'vdisk',
      sizeBytes: 512,
      backing: null,
      isMerging: false,
      mappedBytes: 0,
      sharedBytes: 0,
      ownBytes: 0,
      holders: [],
      split: null,
      external: null,
      published: null,
      certificate: null,
      durability: 'device',
      clientCount: 0,
      clients: [],
    };
    assert.deepEqual(made.body, expected);
    assert.deepEqual((await lab.call('GET', '/v1/vdisks/one')).body, expected);
    assert.deepEqual(await names(), ['one']);
    assertProblem(await lab.call('POST', '/v1/vdisks', { body }), 'exists', /one exists/);
    assert.equal((await lab.call('DELETE', '/v1/vdisks/one')).status, 204);
    assertProblem(await lab.call('DELETE', '/v1/vdisks/one'), 'not-found', /vdisk one/);
    assertProblem(await lab.call('GET', '/v1/vdisks/one'), 'not-found', /vdisk one/);
  });

  it('deletes what clones read through, if it is told what becomes of them', async () => {
    await create('g');
    await lab.store.vdisk('g').write(0, new Uint8Array(8192).fill(7));
    await snapshot('g', 's');
    const body = { source: 'g@s', names: ['x', 'y'] };
    assert.equal((await lab.call('POST', '/v1/clones', { body })).status, 201);
    const remove = (query: string): Promise<ApiAnswer> =>
      lab.call('DELETE', `/v1/vdisks/g${query}`);
    assertProblem(await remove(''), 'in-use', /snapshots: delete g@s/);
    assertProblem(await remove('?inUse=refuse'), 'in-use', /snapshots/);
    assertProblem(await remove('?inUse=force'), 'invalid', /inUse/);
    const refused = await lab.call('DELETE', '/v1/vdisks/g@s');
    assertProblem(refused, 'in-use', /3 others \(g reads 8 KiB, x 8 KiB, y 8 KiB\)/);
    const holder = (name: string) => ({ name, readThroughBytes: 8192, basis: 'counted' });
    assert.deepEqual(refused.body.holders, [holder('g'), holder('x'), holder('y')]);
    await lab.call('PUT', '/v1/vdisks/g%40s/attachment', { body: { port: 0 } });
    const attachments = async (): Promise<unknown> =>
      (await lab.call('GET', '/v1/attachments')).body.attachments;
    assert.equal(((await attachments()) as unknown[]).length, 1);
    assert.equal((await remove('?inUse=split')).status, 204);
    assert.deepEqual(await attachments(), []);
    assert.deepEqual(await names(), ['x', 'y']);
    for (const name of ['x', 'y']) {
      for (;;) {
        const { backing, isMerging } = (await lab.call('GET', `/v1/vdisks/${name}`)).body;
        assert.equal(backing, null);
        if (isMerging === false) break;
      }
      assert.equal((await lab.call('DELETE', `/v1/vdisks/${name}`)).status, 204);
    }
  });

  it('plans a split, and stops when its client is gone', async () => {
    await create('g', 64 * MIB);
    await lab.store.vdisk('g').write(0, new Uint8Array(MIB).fill(1));
    await snapshot('g', 's');
    const body = { source: 'g@s', names: ['x'] };
    assert.equal((await lab.call('POST', '/v1/clones', { body })).status, 201);
    const path = '/v1/vdisks/x/split-plan';
    const { status, body: plan } = await lab.call('GET', path);
    assert.equal(status, 200);
    const { modes, usedBytes, ...rest } = plan as unknown as SplitPlan;
    assert.deepEqual(rest, { name: 'x', backing: 'g@s', otherHolders: ['g'], basis: 'scan' });
    assert.equal(usedBytes, lab.store.stats().usedBytes);
    const [copy, share] = modes;
    assert.deepEqual([copy?.mode, copy?.readBytes, share?.sharedBytes], ['copy', MIB, MIB]);
    assert.deepEqual([copy?.seconds, copy?.rateBytesPerSecond], [null, null]);
    const one = await lab.call('GET', `${path}?mode=share&estimate=true`);
    const { modes: only, basis } = one.body as unknown as SplitPlan;
    assert.deepEqual([basis, only.length, only[0]?.sharedBytes], ['estimate', 1, MIB]);
    assert.equal(only[0]?.givesBackBytes, null);
    assertProblem(await lab.call('GET', `${path}?mode=both`), 'invalid', /mode/);
    assertProblem(await lab.call('GET', `${path}?estimate=yes`), 'invalid', /estimate/);
    assertProblem(await lab.call('GET', '/v1/vdisks/g/split-plan'), 'invalid', /no backing store/);
    assertProblem(await lab.call('GET', '/v1/vdisks/n/split-plan'), 'not-found', /vdisk n/);
    const gone = new AbortController();
    const left = planSplit(lab.store, 'x', {}, gone.signal);
    gone.abort();
    await assert.rejects(left, (error) => error instanceof ApiError && error.kind === 'cancelled');
    for (const name of ['x', 'g%40s', 'g']) await lab.call('DELETE', `/v1/vdisks/${name}`);
  });

  it('refuses what cannot be meant, and says where', async () => {
    const cases: [unknown, RegExp][] = [
      [{}, /body: must have required property 'name'/],
      [{ name: 'x' }, /'sizeBytes'/],
      [{ name: 'x', sizeBytes: 0 }, /body\/sizeBytes: must be >= 512/],
      [{ name: 'x', sizeBytes: 1000 }, /multiple of 512/],
      [{ name: 'x', sizeBytes: 2 ** 51 }, /must be <= /],
      [{ name: 'x', sizeBytes: '1G' }, /must be integer/],
      [{ name: 'x', sizeBytes: 512.5 }, /must be integer/],
      [{ name: 'x', sizeBytes: 1e300 }, /body\/sizeBytes/],
      [{ name: 'x@y', sizeBytes: 512 }, /body\/name: must match/],
      [{ name: '', sizeBytes: 512 }, /body\/name/],
      [{ name: 'a/b', sizeBytes: 512 }, /body\/name/],
      [{ name: 'x'.repeat(256), sizeBytes: 512 }, /body\/name/],
      [{ name: null, sizeBytes: 512 }, /body\/name: must be string/],
      [{ name: 'x', sizeBytes: 512, size: 1 }, /unknown key "size"/],
      [{ name: '_keiki.x', sizeBytes: 512 }, /the server's own/],
      [[], /body: must be object/],
      [null, /body: must be object/],
    ];
    for (const [body, text] of cases) {
      assertProblem(await lab.call('POST', '/v1/vdisks', { body }), 'invalid', text);
    }
    assert.deepEqual(await names(), []);
  });

  it('resizes and renames', async () => {
    await create('one');
    await snapshot('one', 's');
    const path = '/v1/vdisks/one';
    const grown = await lab.call('PATCH', path, { body: { sizeBytes: 2 * MIB, name: 'two' } });
    assert.equal(grown.status, 200);
    assert.equal(grown.body.name, 'two');
    assert.equal(grown.body.sizeBytes, 2 * MIB);
    const moved = await lab.call('PATCH', '/v1/vdisks/two%40s', { body: { name: 'two@t' } });
    assert.equal(moved.body.name, 'two@t');
    assert.deepEqual(await names(), ['two', 'two@t']);
    await create('three');
    const bad: [string, unknown, ProblemKind, RegExp][] = [
      ['two', { name: 'three' }, 'exists', /three exists/],
      ['two', {}, 'invalid', /fewer than 1/],
      ['two', { name: 'a@b' }, 'invalid', /no name/],
      ['two@t', { name: 'three@t' }, 'invalid', /stays with its vdisk/],
      ['two@t', { sizeBytes: 512 }, 'read-only', /snapshot/],
      ['none', { sizeBytes: 512 }, 'not-found', /none/],
      ['two', { name: '_keiki.y' }, 'invalid', /server's own/],
    ];
    for (const [name, body, kind, text] of bad) {
      assertProblem(await lab.call('PATCH', `/v1/vdisks/${name}`, { body }), kind, text);
    }
    for (const name of ['two@t', 'two', 'three']) {
      assert.equal((await lab.call('DELETE', `/v1/vdisks/${name}`)).status, 204);
    }
  });

  it('takes snapshots of several vdisks at once, or of none', async () => {
    await create('a');
    await create('b');
    const items = [
      { vdisk: 'a', snapshot: 's' },
      { vdisk: 'b', snapshot: 's' },
    ];
    const taken = await lab.call('POST', '/v1/snapshots', { body: { items } });
    assert.equal(taken.status, 201);
    assert.deepEqual(await names(), ['a', 'a@s', 'b', 'b@s']);
    const more = [
      { vdisk: 'a', snapshot: 't' },
      { vdisk: 'none', snapshot: 't' },
    ];
    const call = (body: unknown) => lab.call('POST', '/v1/snapshots', { body });
    assertProblem(await call({ items: more }), 'not-found', /none/);
    assertProblem(await call({ items }), 'exists', /a@s/);
    assertProblem(await call({ items: [] }), 'invalid', /fewer than 1/);
    assertProblem(await call({ items: [{ vdisk: 'a@s', snapshot: 't' }] }), 'invalid', /vdisk/);
    assert.deepEqual(await names(), ['a', 'a@s', 'b', 'b@s']);
    assertProblem(await lab.call('DELETE', '/v1/vdisks/a'), 'in-use', /a@s/);
    for (const name of ['a@s', 'b@s', 'a', 'b']) await lab.call('DELETE', `/v1/vdisks/${name}`);
  });

  it('makes clones, all or none, and splits one as a job', async () => {
    await create('golden');
    await lab.store.vdisk('golden').write(0, Buffer.alloc(64 * 1024, 7));
    await snapshot('golden', 'v1');
    const call = (body: unknown) => lab.call('POST', '/v1/clones', { body });
    const made = await call({ source: 'golden@v1', names: ['c1', 'c2'] });
    assert.equal(made.status, 201);
    const [first] = made.body.vdisks as Vdisk[];
    assert.equal(first?.backing, 'golden@v1');
    assertProblem(await call({ source: 'golden@v1', names: ['c3', 'c1'] }), 'exists', /c1/);
    assertProblem(await call({ source: 'golden@v2', names: ['c3'] }), 'not-found', /golden@v2/);
    assertProblem(await call({ source: 'golden', names: ['c3'] }), 'invalid', /no snapshot/);
    assert.deepEqual(await names(), ['c1', 'c2', 'golden', 'golden@v1']);
    const holders = (await lab.call('GET', '/v1/vdisks/golden@v1')).body.holders;
    assert.deepEqual(holders, ['c1', 'c2', 'golden']);
    for (const mode of ['copy', 'share'] as const) {
      const name = mode === 'copy' ? 'c1' : 'c2';
      const split = await lab.call('POST', `/v1/vdisks/${name}/split`, { body: { mode } });
      assert.equal(split.status, 202);
      const job = await jobDone(String(split.body.id));
      assert.deepEqual([job.state, job.progress, job.vdisk, job.error], ['done', 1, name, null]);
      assert.equal((await lab.call('GET', `/v1/vdisks/${name}`)).body.backing, null);
      const again = await lab.call('POST', `/v1/vdisks/${name}/split`, { body: { mode } });
      assertProblem(again, 'invalid', /nothing to split/);
    }
    const bad = await lab.call('POST', '/v1/vdisks/c1/split', { body: { mode: 'move' } });
    assertProblem(bad, 'invalid', /must be one of \["copy","share"\]/);
    for (const name of ['c1', 'c2', 'golden@v1', 'golden']) {
      assert.equal((await lab.call('DELETE', `/v1/vdisks/${name}`)).status, 204);
    }
  });

  it('shows a split that waits for space, and cancels it: the association stays', async () => {
    const full = await ControlLab.start();
    const body = { name: 'golden', sizeBytes: 40 * MIB };
    await full.call('POST', '/v1/vdisks', { body });
    const golden = full.store.vdisk('golden');
    for (let at = 0; at < 32 * MIB; at += MIB) await golden.write(at, Buffer.alloc(MIB, 7));
    const items = [{ vdisk: 'golden', snapshot: 'v1' }];
    await full.call('POST', '/v1/snapshots', { body: { items } });
    await full.call('POST', '/v1/clones', { body: { source: 'golden@v1', names: ['c'] } });
    const begin = (options: object) =>
      full.call('POST', '/v1/vdisks/c/split', { body: { mode: 'copy', ...options } });
    assertProblem(await begin({}), 'out-of-space', /takes up to 32/);
    const start = () => begin({ isReserved: false });
    const { id } = (await start()).body;
    assert.equal((await start()).body.id, id);
    for (;;) {
      const { body: job } = await full.call('GET', `/v1/jobs/${String(id)}`);
      if (job.state !== 'paused') continue;
      assert.equal(job.reason, 'out of space');
      break;
    }
    const cancelled = await full.call('DELETE', `/v1/jobs/${String(id)}`);
    assert.deepEqual([cancelled.status, cancelled.body.state], [200, 'cancelled']);
    const clone = await full.call('GET', '/v1/vdisks/c');
    assert.deepEqual([clone.body.backing, clone.body.split], ['golden@v1', null]);
    const again = await full.call('DELETE', `/v1/jobs/${String(id)}`);
    assert.equal(again.body.state, 'cancelled');
    const read = Buffer.alloc(MIB);
    for (let at = 0; at < 32 * MIB; at += MIB) {
      await full.store.vdisk('c').read(at, read);
      assert.ok(read.every((byte) => byte === 7));
    }
    assert.deepEqual(full.bugs, []);
    await full.close();
  });

  it('pauses a split, lets it go on in another pace, and undoes it', async () => {
    await create('golden', 8 * MIB);
    await lab.store.vdisk('golden').write(0, Buffer.alloc(8 * MIB, 7));
    await snapshot('golden', 'v1');
    await lab.call('POST', '/v1/clones', { body: { source: 'golden@v1', names: ['c'] } });
    const path = '/v1/vdisks/c/split';
    const change = (body: unknown) => lab.call('PATCH', path, { body });
    assertProblem(await change({ isPaused: true }), 'invalid', /not being split/);
    const slow = { mode: 'copy', pace: 'rate', rateBytesPerSecond: MIB, window: 'always' };
    const { id } = (await lab.call('POST', path, { body: slow })).body;
    const paused = await change({ isPaused: true, window: '22:00-06:00', pace: 'idle' });
    const { state, policy } = (paused.body as unknown as Vdisk).split ?? assert.fail();
    assert.equal(state, 'paused');
    assert.deepEqual(policy, {
      pace: 'idle',
      rateBytesPerSecond: null,
      floorBytesPerSecond: MIB,
      window: '22:00-06:00',
      isReserved: true,
    });
    const job = await lab.call('GET', `/v1/jobs/${String(id)}`);
    assert.deepEqual([job.body.state, job.body.reason], ['paused', 'paused']);
    assertProblem(await change({}), 'invalid', /fewer than 1|properties/);
    assertProblem(await change({ window: '25:00-26:00' }), 'invalid', /window/);
    assertProblem(await change({ pace: 'rate' }), 'invalid', /needs a rate/);
    assertProblem(await lab.call('DELETE', `${path}?undo=yes`), 'invalid', /undo/);
    const undone = await lab.call('DELETE', `${path}?undo=true`);
    assert.equal(undone.status, 200);
    assert.equal((await jobDone(String(id))).state, 'cancelled');
    await lab.store.idle();
    const clone = (await lab.call('GET', '/v1/vdisks/c')).body;
    assert.deepEqual([clone.split, clone.backing, clone.mappedBytes], [null, 'golden@v1', 0]);
    for (const name of ['c', 'golden@v1', 'golden']) await lab.call('DELETE', `/v1/vdisks/${name}`);
  });

  it('says that the store is full as what it is', async () => {
    const full = await ControlLab.start();
    await full.call('POST', '/v1/vdisks', { body: { name: 'v', sizeBytes: 256 * MIB } });
    const answer = await full.call('PUT', '/v1/vdisks/v/data', { body: Buffer.alloc(80 * MIB, 1) });
    assertProblem(answer, 'out-of-space', /full/);
    assert.equal((await full.call('GET', '/v1/server')).status, 200);
    await full.close();
  });
});

it('takes up splits, and does not stumble over one that has ended meanwhile', async () => {
  lab = await ControlLab.start();
  try {
    const golden = await lab.store.createVdisk('golden', 4 * MIB);
    await golden.write(0, new Uint8Array(4 * MIB).fill(1));
    await lab.store.snapshot([{ vdisk: 'golden', snapshot: 's' }]);
    for (const name of ['a', 'b', 'c']) {
      await lab.store.clone('golden@s', name);
      await lab.store.split(name, { mode: 'share' });
    }
    const { plane } = lab.service;
    const resuming = plane.resumeSplits();
    // The first one is being taken up: the others end before it is their turn.
    await lab.store.cancelSplit('b');
    await lab.store.delete('c');
    await resuming;
    await lab.store.idle();
    assert.ok((await names()).includes('a'));
    assert.deepEqual(lab.bugs, []);
  } finally {
    await lab.close();
  }
});
