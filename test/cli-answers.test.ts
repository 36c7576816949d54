import assert from 'node:assert/strict';
import { test } from 'node:test';
import { StoreError } from '../src/base/store-error.js';
import { GIB, MIB } from '../src/base/units.js';
import { formatAttachment } from '../src/cli/commands/attach-commands.js';
import { formatEvent } from '../src/cli/commands/server-commands.js';
import { formatSplitPlan } from '../src/cli/describe-plan.js';
import { formatList, formatVdisk } from '../src/cli/describe-vdisk.js';
import { EXIT_CODES, toFailure } from '../src/cli/failure.js';
import { extentItems } from '../src/cli/json-items.js';
import { sseData } from '../src/cli/sse.js';
import type { Event, SplitPlan, Vdisk } from '../src/control/schemas.js';

async function* cutAt(text: string, cuts: readonly number[]): AsyncGenerator<Uint8Array> {
  const bytes = Buffer.from(text);
  let from = 0;
  for (const to of [...cuts, bytes.length]) {
    yield bytes.subarray(from, to);
    from = to;
  }
}

async function all<T>(items: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const item of items) list.push(item);
  return list;
}

test('items of a list come one by one, wherever the answer is cut', async () => {
  const extents = [{ offset: 0, kind: 'a"}]{[ä\\' }, { offset: 1, deep: { list: [{}] } }, {}];
  const text = JSON.stringify({ name: 'go[{lden', extents });
  for (let at = 0; at <= Buffer.byteLength(text); at++) {
    assert.deepEqual(await all(extentItems(cutAt(text, [at]))), extents, `cut at ${at}`);
  }
  assert.deepEqual(await all(extentItems(cutAt('{"extents":[]}', []))), []);
  await assert.rejects(all(extentItems(cutAt('{"extents":[{"a":1}', []))), /no JSON/);
  await assert.rejects(all(extentItems(cutAt('{"extents":[{a}]}', []))), /no JSON/);
});

test('server-sent events, wherever the stream is cut', async () => {
  const text =
    'retry: 1000\n\nid: 1\nevent: a\ndata: {"a":\ndata:1}\n\n: alive\n\ndata: ä\n\ndata: half';
  for (let at = 0; at <= Buffer.byteLength(text); at++) {
    assert.deepEqual(await all(sseData(cutAt(text, [at]))), ['{"a":\n1}', 'ä'], `cut at ${at}`);
  }
});

const GOLDEN: Vdisk = {
  name: 'golden',
  kind: 'vdisk',
  sizeBytes: 20 * 1024 ** 3,
  backing: 'golden@v1',
  isMerging: false,
  mappedBytes: 3 * 1024 ** 2,
  sharedBytes: 1024 ** 2,
  ownBytes: 2 * 1024 ** 2,
  holders: [],
  split: null,
  external: null,
  published: null,
  certificate: null,
  durability: 'device',
  clientCount: 0,
  clients: [],
};
const SNAPSHOT: Vdisk = {
  ...GOLDEN,
  name: 'golden@v1',
  kind: 'snapshot',
  backing: null,
  holders: ['golden', 'web'],
};
const WEB: Vdisk = {
  ...GOLDEN,
  name: 'web',
  clientCount: 1,
  clients: [{ id: 7, peer: 'unix', name: 'web', requestsInFlight: 0, heldBytes: 0 }],
  split: {
    jobId: 'split-1',
    mode: 'copy',
    state: 'filling',
    reason: null,
    policy: {
      pace: 'balanced',
      rateBytesPerSecond: null,
      floorBytesPerSecond: 1_048_576,
      window: null,
      isReserved: true,
    },
    limitedBy: 'nothing',
    rateBytesPerSecond: null,
    reservedBytes: 0,
    positionBytes: 421,
    endBytes: 1000,
    filledBytes: 400,
    badRanges: [{ offset: 4096, length: 512 }],
  },
};

const plain = (text: string): string => text;

test('a list of vdisks', () => {
  assert.deepEqual(formatList([GOLDEN, SNAPSHOT, WEB], plain).split('\n'), [
    'NAME         SIZE  MAPPED    OWN  SHARED  BACKING    STATE',
    'golden     20 GiB   3 MiB  2 MiB   1 MiB  golden@v1',
    'golden@v1  20 GiB   3 MiB  2 MiB   1 MiB',
    'web        20 GiB   3 MiB  2 MiB   1 MiB  golden@v1  split 42.1 %, 1 client',
  ]);
  const paused = { ...WEB, split: { ...(WEB.split ?? assert.fail()), state: 'paused' as const } };
  assert.match(
    formatList([{ ...paused, isMerging: true }], plain),
    /split paused, backing deleted, 1 cl/,
  );
});

const PLAN: SplitPlan = {
  name: 'web',
  backing: 'golden@v1',
  otherHolders: ['a', 'b', 'c', 'd', 'e', 'f', 'golden'],
  basis: 'scan',
  usedBytes: 4 * GIB,
  modes: [
    {
      mode: 'copy',
      readBytes: 2 * GIB,
      writeBytes: 2 * GIB,
      writeBytesMin: GIB,
      sharedBytes: 0,
      indirectBlocks: 2056,
      referenceBlocks: 0,
      metaBytes: 16 * MIB,
      usedBytesDuring: 7 * GIB,
      usedBytesAfter: 6 * GIB,
      fits: false,
      givesBackBytes: 0,
      vdiskGivesBackBytes: null,
      rateBytesPerSecond: 32 * MIB,
      seconds: 64,
    },
    {
      mode: 'share',
      readBytes: 0,
      writeBytes: 0,
      writeBytesMin: 0,
      sharedBytes: 2 * GIB,
      indirectBlocks: 2056,
      referenceBlocks: 2057,
      metaBytes: 32 * MIB,
      usedBytesDuring: 5 * GIB,
      usedBytesAfter: 5 * GIB,
      fits: true,
      givesBackBytes: 0,
      vdiskGivesBackBytes: 0,
      rateBytesPerSecond: null,
      seconds: null,
    },
  ],
};

test('the plan of a split: what is at most, and what nobody knows', () => {
  assert.deepEqual(formatSplitPlan(PLAN, plain).split('\n'), [
    'web: split from golden@v1, by a scan of its metadata',
    '                       COPY            SHARE',
    'reads                  2 GiB           0 B',
    'writes                 1 GiB to 2 GiB  0 B',
    'shares                 0 B             2 GiB',
    'indirect blocks        2056            2056',
    'reference blocks       0               2057',
    'metadata written       16 MiB          32 MiB',
    'store now              4 GiB           4 GiB',
    'store meanwhile        at most 7 GiB   at most 5 GiB',
    'store afterwards       at most 6 GiB   5 GiB',
    'room for it            no              yes',
    'without golden@v1      0 B             0 B',
    'without all of golden  not known       0 B',
    'speed                  32 MiB/s        not known',
    'time                   1:04            not known',
    'golden@v1 is read by a, b, c, d, e and 2 more, too',
  ]);
  const [copy] = PLAN.modes;
  assert.ok(copy !== undefined);
  const estimate: SplitPlan = { ...PLAN, basis: 'estimate', otherHolders: [], modes: [copy] };
  const deleted = formatSplitPlan({ ...estimate, backing: null }, plain).split('\n');
  assert.match(deleted[0] ?? '', /was deleted, estimated from counters: at most/);
  assert.ok(deleted.includes('comes back        0 B'), deleted.join('\n'));
  const external = formatSplitPlan({ ...estimate, backing: 'debian' }, plain).split('\n');
  assert.ok(external.includes('without debian    0 B'), external.join('\n'));
});

test('one vdisk: lineage, split, holders, attachment', () => {
  const attachment = {
    vdisk: 'web',
    address: { kind: 'unix' as const, path: '/run/w' },
    uri: 'nbd+unix:///?socket=/run/w',
    readOnly: false,
    clients: [{ id: 7, peer: 'unix', name: 'web', requestsInFlight: 0, heldBytes: 0 }],
  };
  const splitJob = {
    id: 'split-1',
    kind: 'split' as const,
    vdisk: 'web',
    state: 'running' as const,
    reason: null,
    doneBytes: 421,
    totalBytes: 1000,
    progress: 0.421,
    rateBytesPerSecond: 1024 ** 2,
    etaSeconds: 61,
    startedAt: '',
    endedAt: null,
    error: null,
  };
  const all = [GOLDEN, SNAPSHOT, WEB];
  const scan = { readThroughBytes: 1024, givesBackBytes: 512 };
  assert.deepEqual(
    formatVdisk({ vdisk: WEB, all, attachment, splitJob, scan }, plain).split('\n'),
    [
      'web',
      '  kind      vdisk',
      '  size      20 GiB (21474836480 bytes)',
      '  mapped    3 MiB (3145728 bytes): 2 MiB of its own, 1 MiB shared',
      '  sparse    99.9 % of its size is not mapped here',
      '  flush     answered when it is on the device of the store',
      '  through   1 KiB (1024 bytes) read from backing stores',
      '  deletion  gives 512 bytes back',
      '  lineage   web -> golden@v1',
      '  split     copy, filling at 42.1 %, 400 B filled',
      '  pace      balanced',
      '  job       split-1, 1 MiB/s, ETA 1:01',
      '  bad       512 bytes at 4096 cannot be read from the backing store',
      '  clients   7 (unix socket)',
      '  attached  nbd+unix:///?socket=/run/w, clients 7 (unix socket)',
    ],
  );
  const none = { attachment: undefined, splitJob: undefined, scan: undefined };
  const snapshot = formatVdisk({ vdisk: SNAPSHOT, all, ...none }, plain);
  assert.match(snapshot, /kind {5}snapshot, read-only\n/);
  assert.match(snapshot, /read by {2}golden, web/);
  assert.match(formatVdisk({ vdisk: GOLDEN, all, ...none }, plain), /snapshots {2}golden@v1/);
});

test('the lines for clients of an attachment', () => {
  const unix = {
    vdisk: 'web',
    address: { kind: 'unix' as const, path: '/run/a,b' },
    uri: 'nbd+unix:///?socket=/run/a,b',
    readOnly: false,
    clients: [],
  };
  const lines = formatAttachment(unix);
  assert.match(lines, /-drive 'file=nbd\+unix:\/\/\/\?socket=\/run\/a,,b,format=raw,if=virtio'/);
  assert.match(lines, /nbd-client -unix '\/run\/a,b' \/dev\/nbd0/);
  assert.match(lines, /nbdfuse mnt\/web\.img 'nbd\+unix:/);
  const quoted = { kind: 'unix' as const, path: "/vm's x" };
  assert.match(formatAttachment({ ...unix, address: quoted }), /-unix '\/vm'\\''s x' \/dev\/nbd0/);
  const address = { kind: 'tcp' as const, host: '127.0.0.1', port: 10_810 };
  const tcp = formatAttachment({ ...unix, address, uri: 'nbd://127.0.0.1:10810/', readOnly: true });
  assert.match(tcp, /read-only/);
  assert.match(tcp, /readonly=on/);
  assert.match(tcp, /nbd-client 127\.0\.0\.1 10810 \/dev\/nbd0/);
  assert.match(tcp, /nbdfuse -r /);
});

test('events in a line each', () => {
  const line = (type: Event['type'], data: Record<string, unknown>): string =>
    formatEvent({ id: 1, type, at: 'T', data }).replace(/^T\s+/, '');
  assert.equal(line('vdisk-created', { name: 'a', sizeBytes: 1 }), 'vdisk-created        a');
  const job = { id: 'split-1', vdisk: 'a', state: 'running', progress: 0.999 };
  assert.equal(line('job', job), 'job                  split-1 a running 99 %');
  const renamed = { name: 'b', formerName: 'a' };
  assert.equal(line('vdisk-changed', renamed), 'vdisk-changed        a -> b');
  assert.equal(line('vdisk-changed', { name: 'a', formerName: 'a' }), 'vdisk-changed        a');
  assert.equal(line('lost', { count: 3 }), 'lost                 3');
});

test('errors end with the code of their kind', () => {
  const failure = toFailure(new StoreError('in-use', 'busy'));
  assert.deepEqual(failure, { exitCode: EXIT_CODES['in-use'], message: 'busy' });
  const pipe = Object.assign(new Error('x'), { code: 'EPIPE' });
  const broken = toFailure(new StoreError('device', 'x', { cause: pipe }));
  assert.deepEqual(broken, { exitCode: 141, message: undefined });
  const system = Object.assign(new Error('EACCES: x'), { code: 'EACCES' });
  assert.deepEqual(toFailure(system), { exitCode: 1, message: 'EACCES: x' });
  const bug = toFailure(new TypeError('x'));
  assert.equal(bug.exitCode, 70);
  assert.match(bug.message ?? '', /this is a bug: TypeError: x\n/);
});
