/** nbdinfo: every field that it prints, every question that it asks, against disks of a server. */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import type { Extent } from '../../../src/vdisk/block-target.js';
import { GOLDEN_BYTES, HELD_BYTES, HELD_KINDS, HeldDisks } from './held-disks.js';
import { nbdsh, run, runOk } from './nbd-clients.js';

let disks: HeldDisks;
before(async () => {
  disks = await HeldDisks.start();
  await disks.rest(true);
});
after(() => disks.close());

const CONTEXTS = ['base:allocation', 'qemu:allocation-depth', 'keiki:state'];

/** What `nbdinfo --json` has to say of an export, field by field. */
function fieldsOf(name: string, uri: string, sizeBytes: number): object {
  const isReadOnly = name.includes('@');
  return {
    'export-name': name,
    uri,
    contexts: CONTEXTS,
    is_rotational: false,
    is_read_only: isReadOnly,
    can_cache: true,
    can_df: true,
    can_fast_zero: !isReadOnly,
    can_flush: true,
    can_fua: true,
    can_multi_conn: true,
    can_trim: !isReadOnly,
    can_zero: !isReadOnly,
    block_size_minimum: 1,
    block_size_preferred: 4096,
    block_size_maximum: 33_554_432,
    'export-size': sizeBytes,
    'export-size-str': String(sizeBytes),
  };
}

const SERVER = { protocol: 'newstyle-fixed', TLS: false, structured: true };
/** All exports, in the order in which they are listed. */
const EXPORTS: readonly (readonly [string, number])[] = [
  ['clone', HELD_BYTES],
  ['golden', GOLDEN_BYTES],
  ['golden@v1', GOLDEN_BYTES],
  ['splitting', HELD_BYTES],
  ['vdisk', HELD_BYTES],
];

/** nbdinfo shows a URI as it stands, but for what need not be escaped. */
const shown = (uri: string): string => uri.replace('%40', '@');

async function json(...args: string[]): Promise<unknown> {
  return JSON.parse(await runOk('nbdinfo', ['--json', ...args]));
}

const TRANSPORTS = {
  'a unix socket': (name: string) => disks.uri(name),
  TCP: (name: string) => disks.tcpUri(name),
};

for (const [transport, uriOf] of Object.entries(TRANSPORTS)) {
  describe(`nbdinfo over ${transport}`, () => {
    it('prints all of an export', async () => {
      for (const [name, sizeBytes] of EXPORTS) {
        const uri = uriOf(name);
        const fields = fieldsOf(name, shown(uri), sizeBytes);
        const expected = { ...SERVER, exports: [fields] };
        assert.deepEqual(await json('--no-content', uri), expected);
      }
    });

    it('lists all of them', async () => {
      const exports = EXPORTS.map(([name, size]) => fieldsOf(name, shown(uriOf(name)), size));
      assert.deepEqual(await json('--list', uriOf('')), { ...SERVER, exports });
    });

    it('looks into them', async () => {
      await nbdsh(uriOf('vdisk'), "h.pwrite(b'QFI\\xfb' + bytes([0, 0, 0, 3]) + bytes(504), 0)");
      const { exports } = (await json(uriOf('vdisk'))) as { exports: { content: string }[] };
      assert.match(exports[0]?.content ?? '', /QEMU QCOW/);
    });
  });
}

describe('nbdinfo asks one thing', () => {
  /** Its exit code says yes (0) or no (2). */
  const CAN = [
    ...['cache', 'connect', 'df', 'fast-zero', 'flush', 'fua', 'multi-conn', 'read'],
    ...['structured-reply', 'trim', 'write', 'zero'],
  ];
  const WRITING = ['fast-zero', 'trim', 'write', 'zero'];

  for (const name of [...HELD_KINDS, 'golden@v1']) {
    it(`of ${name}: what it can and is, and its size`, async () => {
      const isReadOnly = name.includes('@');
      const uri = disks.uri(name);
      const answers = CAN.map(async (what) => [
        what,
        (await run('nbdinfo', ['--can', what, uri])).code,
      ]);
      const expected = CAN.map((what) => [what, isReadOnly && WRITING.includes(what) ? 2 : 0]);
      assert.deepEqual(await Promise.all(answers), expected);
      for (const what of ['read-only', 'rotational', 'tls']) {
        const { code } = await run('nbdinfo', ['--is', what, uri]);
        assert.equal(code, what === 'read-only' && isReadOnly ? 0 : 2, what);
      }
      const sizeBytes = isReadOnly ? GOLDEN_BYTES : HELD_BYTES;
      assert.equal(await runOk('nbdinfo', ['--size', uri]), `${sizeBytes}\n`);
      const other = disks.tcpUri(name);
      assert.equal(await runOk('nbdinfo', ['--size', other]), `${sizeBytes}\n`);
    });
  }
});

interface Run {
  readonly offset: number;
  readonly length: number;
  readonly type: number;
}

/** What each context says of an extent of the control API's map. */
const FLAGS: Readonly<Record<string, (extent: Extent) => number>> = {
  'base:allocation': ({ kind }) => (kind === 'data' ? 0 : 3),
  'qemu:allocation-depth': ({ kind, depth }) => (kind === 'hole' ? 0 : depth + 1),
  'keiki:state': ({ kind, depth, filled }) => {
    if (kind === 'hole' || depth > 0) return 0;
    if (filled) return 3;
    return kind === 'zero' ? 2 : 1;
  },
};

function merged(extents: readonly Extent[], flagsOf: (extent: Extent) => number): Run[] {
  const runs: Run[] = [];
  for (const extent of extents) {
    const { offset, length } = extent;
    const type = flagsOf(extent);
    const last = runs.at(-1);
    if (last?.type !== type) runs.push({ offset, length, type });
    else runs[runs.length - 1] = { ...last, length: last.length + length };
  }
  return runs;
}

/** Of these, `nbdinfo --totals` says the name as well. */
const NAMES: Readonly<Record<string, readonly string[]>> = {
  'base:allocation': ['data', '', '', 'hole,zero'],
  'qemu:allocation-depth': ['absent', 'local', 'backing depth 2'],
  'keiki:state': ['', '', '', ''],
};

function totalsOf(runs: readonly Run[], names: readonly string[]): string[] {
  const types = [...new Set(runs.map(({ type }) => type))].sort((a, b) => a - b);
  return types.map((type) => {
    const all = runs.filter((each) => each.type === type);
    const bytes = all.reduce((sum, { length }) => sum + length, 0);
    return `${bytes} ${type} ${names[type] ?? ''}`.trim();
  });
}

describe('nbdinfo maps', () => {
  /** So that the map has every kind of block: own data, zeroes, holes; and they are small. */
  const DOTS = `
for i in range(40): h.pwrite(b'own', (i * 97 << 12) + 5)
h.zero(3 << 20, (1 << 20) + 4096)
h.trim(1 << 20, 13 << 20)
h.flush()
`;
  for (const name of HELD_KINDS) {
    it(`${name} as it is, by each context`, async () => {
      await nbdsh(disks.uri(name), DOTS);
      const { extents } = await disks.ask('GET', `/v1/vdisks/${name}/map`);
      const kinds = new Set<number>();
      for (const [context, flagsOf] of Object.entries(FLAGS)) {
        const expected = merged(extents as readonly Extent[], flagsOf);
        const map = (await json(`--map=${context}`, disks.uri(name))) as Run[];
        const runs = map.map(({ offset, length, type }) => ({ offset, length, type }));
        assert.deepEqual(runs, expected, context);
        const totals = await runOk('nbdinfo', [`--map=${context}`, '--totals', disks.tcpUri(name)]);
        const rows = totals.trim().split('\n');
        const found = rows.map((row) => row.trim().replace(/ +[\d.]+% +/, ' '));
        const names = NAMES[context] ?? [];
        assert.deepEqual(
          found.map((row) => row.replace(/ +/g, ' ')),
          totalsOf(expected, names),
        );
        if (context === 'keiki:state') for (const { type } of expected) kinds.add(type);
      }
      const inClone = name === 'vdisk' ? [0, 1] : name === 'clone' ? [0, 1, 2] : [0, 1, 2, 3];
      assert.deepEqual([...kinds].sort(), inClone);
    });
  }

  it('a hole and an end that are no whole blocks', async () => {
    const map = (await json('--map', disks.uri('vdisk'))) as Run[];
    const last = map.at(-1);
    assert.equal((last?.offset ?? 0) + (last?.length ?? 0), HELD_BYTES);
    assert.equal(HELD_BYTES % 4096, 512);
  });

  it('nothing, of a context that is not there', async () => {
    const { code, stderr } = await run('nbdinfo', [
      '--map=qemu:dirty-bitmap:x',
      disks.uri('vdisk'),
    ]);
    assert.equal(code, 1);
    assert.match(stderr, /does not support metadata context/);
  });
});
