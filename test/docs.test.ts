/** The documents say what the program does: tables of docs/ beside the constants and codecs. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { STORE_ERROR_KINDS } from '../src/base/store-error.js';
import {
  BLOCK_BYTES,
  FIELDS_PER_BLOCK,
  HEIGHT_MAX,
  KIB,
  SEGMENT_BLOCKS,
} from '../src/base/units.js';
import { CERTIFICATE_OFFSET } from '../src/layout/certificate-record.js';
import {
  DESCRIPTOR_BLOCKS_MAX,
  DESCRIPTOR_FBN,
  EXTERNAL_FILES_MAX,
  encodeExternalDescriptor,
} from '../src/layout/external-descriptor.js';
import {
  EPOCHS_MAX,
  encodeFsinfo,
  FORMAT_VERSION,
  METAFILES,
  PENDING_RUNS_MAX,
} from '../src/layout/fsinfo.js';
import { encodeLogEntry, type LogEntry, POINTERS_COUNT_MAX } from '../src/layout/log-entry.js';
import {
  encodeGroupHeader,
  GROUP_BLOCKS_MAX,
  GROUP_HEADER_BYTES,
} from '../src/layout/log-group.js';
import {
  encodeRecordTrailer,
  RECORD_BLOCKS_MAX,
  RECORD_ENTRY_BYTES_MAX,
  type RecordKind,
  type TagKind,
} from '../src/layout/log-record.js';
import { POINTER_BYTES } from '../src/layout/pointer.js';
import { REFERENCE_ENTRIES_PER_BLOCK } from '../src/layout/reference-entry.js';
import { DEFAULT_POLICY, type SplitPace } from '../src/layout/split-policy.js';
import {
  BAD_RANGES_MAX,
  encodeTreeRecord,
  type SplitMode,
  type SplitPhase,
  type SplitRecord,
  TREE_RECORD_BYTES,
  type TreeRecord,
  type TreeState,
} from '../src/layout/tree-record.js';
import {
  SEGMENT_DATA,
  SEGMENT_FREE,
  SEGMENT_META,
  SEGMENT_MIRROR,
  SEGMENT_RESERVED,
  USAGE_ENTRY_BYTES,
} from '../src/layout/usage-entry.js';
import {
  encodeVdiskRecord,
  NAME_BYTES_MAX,
  VDISK_RECORD_BYTES,
  type VdiskRecord,
} from '../src/layout/vdisk-record.js';
import { STRUCTURES } from './support/layout-fields.js';
import {
  PLAIN_CERTIFICATE,
  PLAIN_DESCRIPTOR,
  PLAIN_FSINFO,
  PLAIN_GROUP,
  PLAIN_RECORD,
  PLAIN_TREE,
  PLAIN_VDISK,
} from './support/layout-values.js';

const FORMAT = document('FORMAT.md');

function document(name: string): string {
  return readFileSync(new URL(`../docs/${name}`, import.meta.url), 'utf8');
}

/** Cells of the first table behind the text; its head and rule are left out. */
function tableBehind(text: string, mark: string): string[][] {
  const start = text.indexOf(mark);
  assert.ok(start >= 0, `the document has ${mark}`);
  const rows: string[][] = [];
  for (const line of text.slice(start).split('\n').slice(1)) {
    if (line.startsWith('|'))
      rows.push(
        line
          .split('|')
          .slice(1, -1)
          .map((cell) => cell.trim()),
      );
    else if (rows.length > 0) break;
  }
  return rows.slice(2);
}

function marks(kind: string): string[] {
  return [...FORMAT.matchAll(new RegExp(`<!-- ${kind}: (.*) -->`, 'g'))].map(
    (found) => found[1] ?? '',
  );
}

test('ERRORS.md lists the kinds of errors', () => {
  const kinds = tableBehind(document('ERRORS.md'), '<!-- kinds -->').map(([kind]) => kind);
  assert.deepEqual(
    kinds,
    STORE_ERROR_KINDS.map((kind) => `\`${kind}\``),
  );
});

test('the numbers of FORMAT.md are those of the program', () => {
  const numbers = {
    FORMAT_VERSION,
    BLOCK_BYTES,
    SEGMENT_BLOCKS,
    FIELDS_PER_BLOCK,
    HEIGHT_MAX,
    POINTER_BYTES,
    TREE_RECORD_BYTES,
    VDISK_RECORD_BYTES,
    NAME_BYTES_MAX,
    BAD_RANGES_MAX,
    USAGE_ENTRY_BYTES,
    REFERENCE_ENTRY_BYTES: BLOCK_BYTES / REFERENCE_ENTRIES_PER_BLOCK,
    DESCRIPTOR_FBN,
    DESCRIPTOR_BLOCKS_MAX,
    EXTERNAL_FILES_MAX,
    EPOCHS_MAX,
    PENDING_RUNS_MAX,
    GROUP_HEADER_BYTES,
    GROUP_BLOCKS_MAX,
    POINTERS_COUNT_MAX,
    RECORD_BLOCKS_MAX,
    RECORD_ENTRY_BYTES_MAX,
  };
  const table = tableBehind(FORMAT, '<!-- numbers -->').map(([name, value]) => [
    name,
    Number(value),
  ]);
  assert.deepEqual(Object.fromEntries(table), numbers);
});

interface Row {
  readonly offset: number;
  readonly bytes: number;
  readonly field: string;
}

function fieldTable(name: string): Row[] {
  return tableBehind(FORMAT, `<!-- fields: ${name} -->`).map(([offset, bytes, field]) => {
    return { offset: Number(offset), bytes: Number(bytes), field: field ?? '' };
  });
}

test('every table of fields is of a structure, and every structure has a table', () => {
  const names = [...STRUCTURES.map(({ name }) => name), 'record foot'];
  assert.deepEqual(marks('fields').sort(), names.sort());
});

for (const { name, sizeBytes, fields, derived } of STRUCTURES) {
  test(`${name}: FORMAT.md gives every byte to one field, and each field the bytes it has`, () => {
    const rows = fieldTable(name);
    let end = 0;
    for (const { offset, bytes, field } of rows) {
      assert.equal(offset, end, `${field} begins where the field before ends`);
      end = offset + bytes;
    }
    assert.equal(end, sizeBytes);
    const named = rows.map(({ field }) => field).filter((field) => field !== 'spare');
    assert.deepEqual(named.sort(), [...fields.keys(), ...derived].sort());
    for (const { offset, bytes, field } of rows) {
      const changed = fields.get(field) ?? [];
      for (const at of changed)
        assert.ok(at >= offset && at < offset + bytes, `${field}, byte ${at}`);
    }
  });
}

test('the magics and the foot of a record stand where FORMAT.md says', () => {
  const latin = (bytes: Uint8Array, offset: number, length: number): string =>
    Buffer.from(bytes).toString('latin1', offset, offset + length);
  const magicOf = (name: string): Row => {
    const row = fieldTable(name).find(({ field }) => field === 'magic');
    assert.ok(row !== undefined);
    return row;
  };
  const magic = (name: string, bytes: Uint8Array): string => {
    const { offset, bytes: length } = magicOf(name);
    return latin(bytes, offset, length);
  };
  assert.ok(FORMAT.includes(`the text \`${magic('fsinfo', encodeFsinfo(PLAIN_FSINFO))}\``));
  assert.ok(FORMAT.includes(`\`${magic('group header', encodeGroupHeader(PLAIN_GROUP, [], 0))}\``));
  const descriptor = encodeExternalDescriptor(PLAIN_DESCRIPTOR);
  assert.ok(FORMAT.includes(`the text \`${magic('external descriptor', descriptor)}\``));
  const tag = { treeId: 1, fbn: 0, crc: 0, level: 0, kind: 'data' } as const;
  const trailer = encodeRecordTrailer(PLAIN_RECORD, [tag], []);
  const foot = trailer.subarray(-16);
  assert.ok(FORMAT.includes(`the text \`${magic('record foot', foot)}\``));
  const view = new DataView(foot.buffer, foot.byteOffset);
  assert.deepEqual([view.getUint32(0, true), view.getUint32(4, true)], [1, 80 + 24]);
  assert.deepEqual(
    fieldTable('record foot').map(({ offset, field }) => [offset, field]),
    [
      [0, 'blocks'],
      [4, 'trailerBytes'],
      [8, 'crc'],
      [12, 'magic'],
    ],
  );
});

const SPLIT: SplitRecord = {
  mode: 'copy',
  phase: 'filling',
  policy: DEFAULT_POLICY,
  positionFbn: 0,
  bad: [],
};

/** For each table of codes: what the codec writes for a name. */
const CODES: Readonly<Record<string, readonly (readonly [string, number | undefined])[]>> = {
  medium: (['in-place', 'object-log'] as const).map((medium) => {
    return [medium, encodeFsinfo({ ...PLAIN_FSINFO, medium })[68]];
  }),
  'tree state': (['live', 'deleting', 'dying'] satisfies TreeState[]).map((state) => {
    return [state, treeBytes({ state })[8]];
  }),
  'split mode': (['copy', 'share'] satisfies SplitMode[]).map((mode) => {
    return [mode, treeBytes({ split: { ...SPLIT, mode } })[10]];
  }),
  'split phase': (['filling', 'releasing', 'paused', 'undoing'] satisfies SplitPhase[]).map(
    (phase) => {
      return [phase, treeBytes({ split: { ...SPLIT, phase } })[11]];
    },
  ),
  'split pace': (['balanced', 'idle', 'now', 'rate'] satisfies SplitPace[]).map((pace) => {
    const policy = { ...DEFAULT_POLICY, pace, rateBytesPerSecond: pace === 'rate' ? KIB : 0 };
    return [pace, treeBytes({ split: { ...SPLIT, policy } })[13]];
  }),
  'vdisk kind': (['vdisk', 'snapshot', 'external'] as const).map((kind) => [
    kind,
    vdiskBytes({ kind })[8],
  ]),
  'certificate kind': (['split', 'verify'] as const).map((kind) => [
    kind,
    vdiskBytes({ certificate: { ...PLAIN_CERTIFICATE, kind } })[CERTIFICATE_OFFSET],
  ]),
  'external format': (['raw', 'qcow2', 'published'] as const).map((format) => {
    return [format, encodeExternalDescriptor({ ...PLAIN_DESCRIPTOR, format })[12]];
  }),
  'vdisk state': [
    ['there', vdiskBytes({ gone: false })[9]],
    ['gone', vdiskBytes({ gone: true })[9]],
  ],
  'segment kind': [
    ['free', SEGMENT_FREE],
    ['data', SEGMENT_DATA],
    ['metadata', SEGMENT_META],
    ['mirror', SEGMENT_MIRROR],
    ['reserved', SEGMENT_RESERVED],
  ],
  'entry kind': (
    [
      { kind: 'data', treeId: 0, fbn: 0, crc: 0, payloadIndex: 0 },
      { kind: 'pointers', treeId: 0, fbn: 0, vbn: 0, crcs: new Uint32Array(0) },
      { kind: 'range', treeId: 0, fbn: 0, blocks: 0, to: 'zero' },
      { kind: 'tree', record: PLAIN_TREE },
      { kind: 'vdisk', record: PLAIN_VDISK },
    ] satisfies LogEntry[]
  ).map((entry) => {
    const bytes = new Uint8Array(1024);
    encodeLogEntry(entry, bytes, 0);
    return [entry.kind, bytes[0]];
  }),
  'record kind': (['data', 'cp', 'seal'] satisfies RecordKind[]).map((kind) => {
    return [kind, encodeRecordTrailer({ ...PLAIN_RECORD, kind }, [], [])[0]];
  }),
  'tag kind': (['data', 'meta'] satisfies TagKind[]).map((kind) => {
    const tag = { treeId: 1, fbn: 0, crc: 0, level: 0, kind };
    return [kind, encodeRecordTrailer(PLAIN_RECORD, [tag], [])[80 + 21]];
  }),
};

function treeBytes(change: Partial<TreeRecord>): Uint8Array {
  const bytes = new Uint8Array(TREE_RECORD_BYTES);
  encodeTreeRecord({ ...PLAIN_TREE, ...change }, bytes);
  return bytes;
}

function vdiskBytes(change: Partial<VdiskRecord>): Uint8Array {
  const bytes = new Uint8Array(VDISK_RECORD_BYTES);
  encodeVdiskRecord({ ...PLAIN_VDISK, ...change }, bytes);
  return bytes;
}

test('the codes of FORMAT.md are those that the program writes', () => {
  assert.deepEqual(marks('codes').sort(), Object.keys(CODES).sort());
  for (const [name, codes] of Object.entries(CODES)) {
    const table = tableBehind(FORMAT, `<!-- codes: ${name} -->`);
    assert.deepEqual(
      table.map(([code, word]) => [word, Number(code)]),
      codes,
      name,
    );
  }
});

test('the roots of the metafiles stand in the order of FORMAT.md', () => {
  const roots = fieldTable('fsinfo').filter(({ field }) => field.endsWith('Root'));
  assert.deepEqual(
    roots.map(({ field }) => field),
    METAFILES.map((name) => `${name}Root`),
  );
});

test('every link of FORMAT.md to itself has its section', () => {
  const anchors = [...FORMAT.matchAll(/^#+ (.*)$/gm)].map(([, title]) =>
    (title ?? '')
      .toLowerCase()
      .replace(/[^a-z0-9 -]/g, '')
      .replaceAll(' ', '-'),
  );
  for (const [, anchor] of FORMAT.matchAll(/\(#([^)]*)\)/g)) {
    assert.ok(anchors.includes(anchor ?? ''), `#${anchor}`);
  }
});

test('the glossary is in order, each word once', () => {
  const words = tableBehind(document('GLOSSARY.md'), '# Glossary').map(([word]) => word ?? '');
  assert.ok(words.length > 40);
  const sorted = words.toSorted((a, b) => (a.toLowerCase() < b.toLowerCase() ? -1 : 1));
  assert.deepEqual(words, sorted);
  assert.equal(new Set(words).size, words.length);
});
