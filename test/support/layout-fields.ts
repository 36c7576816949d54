/**
 * Every field of every structure of the format, each written alone: which bytes it changes.
 *
 * The codecs' tests ask that no two fields share a byte; the documents' test asks that
 * docs/FORMAT.md gives each field the bytes it has.
 */
import { BLOCK_BYTES } from '../../src/base/units.js';
import {
  CERTIFICATE_BYTES,
  type CertificateRecord,
  encodeCertificate,
} from '../../src/layout/certificate-record.js';
import {
  type ExternalDescriptor,
  type ExternalFile,
  encodeExternalDescriptor,
} from '../../src/layout/external-descriptor.js';
import {
  encodeFsinfo,
  FEATURE_PENDING,
  type Fsinfo,
  type Metafile,
  PENDING_RUNS_MAX,
  type PendingRun,
} from '../../src/layout/fsinfo.js';
import { encodeLocalLogHead, type LocalLogHead } from '../../src/layout/local-log-head.js';
import { encodeLogEntry, type LogEntry, logEntryBytes } from '../../src/layout/log-entry.js';
import {
  encodeGroupHeader,
  GROUP_HEADER_BYTES,
  type GroupHead,
} from '../../src/layout/log-group.js';
import {
  type BlockTag,
  encodeRecordTrailer,
  type RecordHead,
} from '../../src/layout/log-record.js';
import { FLAG_FILLED, POINTER_WORDS, putPointer } from '../../src/layout/pointer.js';
import {
  encodeManifest,
  encodeRecordList,
  type Manifest,
  PUBLISHED_TREE_BYTES,
  type PublishedTree,
  type RecordRun,
} from '../../src/layout/publication.js';
import { REFERENCE_WORDS, toggleOwner } from '../../src/layout/reference-entry.js';
import { DEFAULT_POLICY, RATE_BYTES_MAX } from '../../src/layout/split-policy.js';
import {
  encodeTreeRecord,
  TREE_RECORD_BYTES,
  type TreeRecord,
} from '../../src/layout/tree-record.js';
import { USAGE_ENTRY_BYTES, usageWord } from '../../src/layout/usage-entry.js';
import {
  encodeVdiskRecord,
  VDISK_RECORD_BYTES,
  type VdiskRecord,
} from '../../src/layout/vdisk-record.js';
import {
  PLAIN_CERTIFICATE,
  PLAIN_DESCRIPTOR,
  PLAIN_FILE,
  PLAIN_FSINFO,
  PLAIN_GROUP,
  PLAIN_MANIFEST,
  PLAIN_PUBLISHED_TREE,
  PLAIN_RECORD,
  PLAIN_TREE,
  PLAIN_VDISK,
  UUID,
} from './layout-values.js';

export interface Structure {
  /** As docs/FORMAT.md calls it. */
  readonly name: string;
  readonly sizeBytes: number;
  /** Field by name: the bytes that differ when it alone is changed. */
  readonly fields: ReadonlyMap<string, readonly number[]>;
  /** Fields that the encoder fills in: constants, lengths, checksums. */
  readonly derived: readonly string[];
}

const MOST = 2 ** 53 - 1;
const U32_MOST = 2 ** 32 - 1;
const OTHER_ID = new Uint8Array(16).fill(0x5f);

function changedBytes(one: Uint8Array, other: Uint8Array): number[] {
  const changed: number[] = [];
  for (let at = 0; at < Math.max(one.length, other.length); at++) {
    if (one[at] !== other[at]) changed.push(at);
  }
  return changed;
}

interface StructureOptions<Value> {
  readonly name: string;
  readonly sizeBytes: number;
  readonly plain: Value;
  readonly encode: (value: Value) => Uint8Array;
  readonly fields: Readonly<Record<string, Partial<Value>>>;
  readonly derived?: readonly string[];
  /** First bytes of derived fields of four bytes, which change with everything. */
  readonly checksumAt?: number;
}

function structure<Value>(options: StructureOptions<Value>): Structure {
  const plain = options.encode(options.plain);
  const crc = options.checksumAt ?? Number.NEGATIVE_INFINITY;
  const fields = new Map<string, readonly number[]>();
  for (const [field, change] of Object.entries(options.fields)) {
    const changed = changedBytes(plain, options.encode({ ...options.plain, ...change }));
    fields.set(
      field,
      changed.filter((at) => at < crc || at >= crc + 4),
    );
  }
  const { name, sizeBytes, derived = [] } = options;
  return { name, sizeBytes, fields, derived };
}

function root(name: Metafile): Partial<Fsinfo> {
  // VBN 2^53 - 2, with the one flag of the format.
  const words = [U32_MOST - 1, 0x011f_ffff, U32_MOST, 0] as const;
  return { roots: { ...PLAIN_FSINFO.roots, [name]: { words, height: 5 } } };
}

function fsinfoStructures(): Structure[] {
  const logPlain: Fsinfo = {
    ...PLAIN_FSINFO,
    medium: 'object-log',
    readOnlyCompatible: FEATURE_PENDING,
  };
  const run = { vbn: 2 ** 40 - 1, blocks: 2 ** 16 - 1, isFreed: true } as const;
  const fsinfo = structure<Fsinfo>({
    name: 'fsinfo',
    sizeBytes: BLOCK_BYTES,
    plain: logPlain,
    encode: encodeFsinfo,
    checksumAt: 8,
    derived: ['magic', 'crc', 'blockBytes', 'segmentBlocks', 'checksumKind'],
    fields: {
      uuid: { uuid: OTHER_ID },
      version: { version: U32_MOST },
      compatible: { compatible: MOST },
      readOnlyCompatible: { readOnlyCompatible: MOST },
      incompatible: { incompatible: MOST },
      medium: { medium: 'in-place' },
      cpNumber: { cpNumber: MOST },
      epoch: { epoch: MOST },
      lineage: { lineage: MOST },
      logUuid: { logUuid: OTHER_ID },
      clean: { clean: true },
      storeBlocks: { storeBlocks: MOST },
      logStart: { logStart: MOST },
      logBlocks: { logBlocks: MOST },
      replayFrom: { replayFrom: MOST },
      replayPosition: { replayPosition: MOST },
      localFrom: { localFrom: MOST },
      nextTreeId: { nextTreeId: MOST },
      nextVdiskId: { nextVdiskId: MOST },
      freePairs: { freePairs: MOST },
      dataGaps: { dataGaps: MOST },
      metaGaps: { metaGaps: MOST },
      usedBlocks: { usedBlocks: MOST },
      treeRoot: root('tree'),
      vdiskRoot: root('vdisk'),
      referenceRoot: root('reference'),
      usageRoot: root('usage'),
      mapRoot: root('map'),
      pending: { pending: new Array<PendingRun>(PENDING_RUNS_MAX).fill(run) },
      tail: { epochs: [{ epoch: MOST, firstRecord: MOST }] },
    },
  });
  const oneEpoch = (epoch: number, firstRecord: number): Partial<Fsinfo> => ({
    epochs: [{ epoch, firstRecord }],
  });
  const tail = structure<Fsinfo>({
    name: 'epochs tag',
    sizeBytes: 20,
    plain: { ...logPlain, ...oneEpoch(1, 0) },
    encode: (info) => encodeFsinfo(info).subarray(512, 532),
    derived: ['tag', 'bytes'],
    fields: { epoch: oneEpoch(MOST - 1, 0), firstRecord: oneEpoch(1, MOST) },
  });
  const pendingRun = structure<Fsinfo>({
    name: 'pending run',
    sizeBytes: 8,
    plain: { ...logPlain, pending: [{ ...run, vbn: 0, blocks: 1, isFreed: false }] },
    encode: (info) => encodeFsinfo(info).subarray(416, 424),
    fields: {
      vbn: { pending: [{ ...run, blocks: 1, isFreed: false }] },
      flags: { pending: [{ ...run, vbn: 0, blocks: 1 }] },
      blocks: { pending: [{ ...run, vbn: 0, blocks: 2 ** 16 - 2, isFreed: false }] },
    },
  });
  return [fsinfo, pendingRun, tail];
}

function entryStructures(): Structure[] {
  const words = structure<{ vbn: number; flags: number; crc: number }>({
    name: 'pointer',
    sizeBytes: 16,
    plain: { vbn: 0, flags: 0, crc: 0 },
    encode: ({ vbn, flags, crc }) => {
      const pointer = new Uint32Array(POINTER_WORDS);
      putPointer(pointer, 0, vbn, crc, flags);
      return new Uint8Array(pointer.buffer);
    },
    fields: { vbn: { vbn: MOST }, flags: { flags: FLAG_FILLED }, crc: { crc: U32_MOST } },
    derived: [],
  });
  const reference = structure<{ count: number; owners: number }>({
    name: 'reference entry',
    sizeBytes: 16,
    plain: { count: 0, owners: 0 },
    encode: ({ count, owners }) => {
      const entry = new Uint32Array(REFERENCE_WORDS);
      entry[0] = count;
      toggleOwner(entry, 0, owners);
      return new Uint8Array(entry.buffer);
    },
    fields: { count: { count: U32_MOST }, owners: { owners: MOST } },
  });
  const usage = structure<{ live: number; kind: number; blocks: number }>({
    name: 'usage entry',
    sizeBytes: USAGE_ENTRY_BYTES,
    plain: { live: 0, kind: 0, blocks: 0 },
    encode: ({ live, kind, blocks }) =>
      new Uint8Array(Uint32Array.of(usageWord(live, kind), blocks).buffer),
    fields: { live: { live: 0xffff }, kind: { kind: 0xff }, blocks: { blocks: U32_MOST } },
  });
  return [words, reference, usage];
}

function recordStructures(): Structure[] {
  const policy = DEFAULT_POLICY;
  const filling = { mode: 'copy', phase: 'filling', policy, positionFbn: 0, bad: [] } as const;
  const tree = structure<TreeRecord>({
    name: 'tree record',
    sizeBytes: TREE_RECORD_BYTES,
    plain: { ...PLAIN_TREE, split: filling },
    encode: (record) => {
      const bytes = new Uint8Array(TREE_RECORD_BYTES);
      encodeTreeRecord(record, bytes);
      return bytes;
    },
    fields: {
      id: { id: MOST - 1 },
      state: { state: 'dying' },
      height: { height: 5 },
      splitMode: { split: { ...filling, mode: 'share' } },
      splitPhase: { split: { ...filling, phase: 'paused' } },
      splitPace: { split: { ...filling, policy: { ...policy, pace: 'idle' } } },
      policyFlags: { split: { ...filling, policy: { ...policy, isReserved: false } } },
      floor: { split: { ...filling, policy: { ...policy, floorBytesPerSecond: RATE_BYTES_MAX } } },
      root: { root: [U32_MOST, U32_MOST, U32_MOST, U32_MOST] },
      sizeBytes: { sizeBytes: MOST },
      backingId: { backingId: MOST },
      readThroughLimitBytes: { readThroughLimitBytes: MOST },
      mappedBlocks: { mappedBlocks: MOST },
      sharedBlocks: { sharedBlocks: MOST },
      ownerId: { ownerId: MOST },
      goneBelowFbn: { goneBelowFbn: MOST },
      countedById: { countedById: MOST },
      positionFbn: { split: { ...filling, positionFbn: MOST } },
    },
    // A bad range changes the count too, a rate the pace, a window its flag, and what is external
    // is not split: the test of the record
    // looks at them apart.
    derived: ['badCount', 'bad', 'flags', 'rate', 'window'],
  });
  const vdisk = structure<VdiskRecord>({
    name: 'vdisk record',
    sizeBytes: VDISK_RECORD_BYTES,
    plain: PLAIN_VDISK,
    encode: (record) => {
      const bytes = new Uint8Array(VDISK_RECORD_BYTES);
      encodeVdiskRecord(record, bytes);
      return bytes;
    },
    fields: {
      id: { id: MOST - 1 },
      kind: { kind: 'external' },
      state: { gone: true },
      headTreeId: { headTreeId: MOST },
      ofVdiskId: { ofVdiskId: MOST },
      serial: { serial: OTHER_ID },
      createdCp: { createdCp: MOST },
      createdWallMs: { createdWallMs: MOST },
      publication: { publication: U32_MOST },
      name: { name: 'o' },
    },
    // A certificate brings several of its own fields with it: it is a structure by itself.
    derived: ['nameBytes', 'certificate'],
  });
  const certificate = structure<CertificateRecord>({
    name: 'certificate',
    sizeBytes: CERTIFICATE_BYTES,
    plain: PLAIN_CERTIFICATE,
    encode: (record) => {
      const bytes = new Uint8Array(CERTIFICATE_BYTES);
      encodeCertificate(record, bytes);
      return bytes;
    },
    fields: {
      kind: { kind: 'verify' },
      refutations: { refutations: U32_MOST },
      wallMs: { wallMs: MOST },
      cpNumber: { cpNumber: MOST },
      formerTreeId: { formerTreeId: MOST },
      blocks: { blocks: MOST },
      filledCopies: { filledCopies: MOST },
      filledShares: { filledShares: MOST },
      filledZeros: { filledZeros: MOST },
      compared: { compared: MOST },
      excepted: { excepted: MOST },
    },
    // Each of these changes another field, too: its count or its flag.
    derived: ['hasHash', 'nameBytes', 'contentHash', 'formerName'],
  });
  return [tree, vdisk, certificate];
}

function encodedEntry(entry: LogEntry): Uint8Array {
  const bytes = new Uint8Array(logEntryBytes(entry));
  encodeLogEntry(entry, bytes, 0);
  return bytes;
}

function logStructures(): Structure[] {
  const derived = ['kind', 'bytes'];
  const data = structure<LogEntry & { readonly kind: 'data' }>({
    name: 'data entry',
    sizeBytes: 32,
    plain: { kind: 'data', treeId: 0, fbn: 0, crc: 0, payloadIndex: 0 },
    encode: encodedEntry,
    fields: {
      crc: { crc: U32_MOST },
      tree: { treeId: MOST },
      fbn: { fbn: 2 ** 40 - 1 },
      payloadIndex: { payloadIndex: U32_MOST },
    },
    derived,
  });
  const pointers = structure<LogEntry & { readonly kind: 'pointers' }>({
    name: 'pointers entry',
    sizeBytes: 40,
    plain: { kind: 'pointers', treeId: 0, fbn: 0, vbn: 0, crcs: Uint32Array.of(0, 0) },
    encode: encodedEntry,
    fields: {
      tree: { treeId: MOST },
      fbn: { fbn: 2 ** 40 - 2 },
      vbn: { vbn: MOST - 2 },
      crcs: { crcs: Uint32Array.of(U32_MOST, U32_MOST) },
    },
    derived: [...derived, 'count'],
  });
  const range = structure<LogEntry & { readonly kind: 'range' }>({
    name: 'range entry',
    sizeBytes: 32,
    plain: { kind: 'range', treeId: 0, fbn: 0, blocks: 0, to: 'zero' },
    encode: encodedEntry,
    fields: {
      to: { to: 'hole' },
      tree: { treeId: MOST },
      fbn: { fbn: 2 ** 40 },
      blocks: { blocks: 2 ** 40 },
    },
    derived,
  });
  const group = structure<GroupHead>({
    name: 'group header',
    sizeBytes: GROUP_HEADER_BYTES,
    plain: { ...PLAIN_GROUP, sequence: MOST },
    encode: (head) => encodeGroupHeader(head, [], 0).subarray(0, GROUP_HEADER_BYTES),
    checksumAt: 4,
    fields: {
      uuid: { uuid: OTHER_ID },
      sequence: { sequence: 0 },
      epoch: { epoch: MOST },
      cpNumber: { cpNumber: MOST },
      syncedThrough: { syncedThrough: MOST },
    },
    derived: ['magic', 'crc', 'headerBytes', 'payloadBlocks', 'entries'],
  });
  return [data, pointers, range, group];
}

function objectStructures(): Structure[] {
  const trailer = structure<RecordHead>({
    name: 'record trailer',
    sizeBytes: 80,
    plain: PLAIN_RECORD,
    encode: (head) => encodeRecordTrailer(head, [], []).subarray(0, 80),
    fields: {
      kind: { kind: 'seal' },
      uuid: { uuid: OTHER_ID },
      lineage: { lineage: MOST },
      epoch: { epoch: MOST },
      number: { number: MOST },
      cpNumber: { cpNumber: MOST },
      nonce: { nonce: OTHER_ID },
    },
    derived: ['blocks', 'entries'],
  });
  const tag = structure<BlockTag>({
    name: 'block tag',
    sizeBytes: 24,
    plain: { treeId: 0, fbn: 0, crc: 0, level: 0, kind: 'data' },
    encode: (one) => encodeRecordTrailer(PLAIN_RECORD, [one], []).subarray(80, 104),
    fields: {
      tree: { treeId: MOST },
      fbn: { fbn: MOST },
      crc: { crc: U32_MOST },
      level: { level: 5 },
      kind: { kind: 'meta' },
    },
  });
  return [trailer, tag];
}

function externalStructures(): Structure[] {
  const descriptor = structure<ExternalDescriptor>({
    name: 'external descriptor',
    sizeBytes: 40 + 48,
    plain: PLAIN_DESCRIPTOR,
    encode: encodeExternalDescriptor,
    fields: {
      format: { format: 'qcow2' },
      sizeBytes: { sizeBytes: MOST },
      fileList: { files: [{ ...PLAIN_FILE, headCrc: U32_MOST }] },
    },
    derived: ['magic', 'bytes', 'files'],
  });
  const file = structure<ExternalFile>({
    name: 'external file',
    sizeBytes: 48,
    plain: PLAIN_FILE,
    encode: (each) => encodeExternalDescriptor({ ...PLAIN_DESCRIPTOR, files: [each] }).subarray(40),
    fields: {
      sizeBytes: { sizeBytes: MOST },
      modifiedSeconds: { modifiedSeconds: MOST },
      modifiedNs: { modifiedNs: 999_999_999 },
      headCrc: { headCrc: U32_MOST },
      tailCrc: { tailCrc: U32_MOST },
      path: { path: '/g' },
    },
    derived: ['bytes', 'pathBytes'],
  });
  return [descriptor, file];
}

function localLogStructures(): Structure[] {
  const id = (value: number): Uint8Array => new Uint8Array(16).fill(value);
  const head = structure<LocalLogHead>({
    name: 'local log head',
    sizeBytes: BLOCK_BYTES,
    plain: {
      store: id(1),
      generation: 0,
      deviceBlocks: 0,
      ring: id(2),
      epoch: 0,
      ringBefore: id(3),
    },
    encode: encodeLocalLogHead,
    checksumAt: 8,
    derived: ['magic', 'magic2', 'crc', 'version'],
    fields: {
      store: { store: OTHER_ID },
      generation: { generation: MOST },
      deviceBlocks: { deviceBlocks: MOST },
      ring: { ring: OTHER_ID },
      epoch: { epoch: MOST },
      ringBefore: { ringBefore: OTHER_ID },
    },
  });
  return [head];
}

function publicationStructures(): Structure[] {
  const manifest = structure<Manifest>({
    name: 'manifest',
    sizeBytes: 108,
    plain: PLAIN_MANIFEST,
    encode: encodeManifest,
    checksumAt: 104,
    fields: {
      uuid: { uuid: OTHER_ID },
      sizeBytes: { sizeBytes: MOST },
      cpNumber: { cpNumber: MOST },
      wallMs: { wallMs: MOST },
      name: { name: 'o' },
      treeList: { trees: [{ ...PLAIN_PUBLISHED_TREE, height: 5 }] },
    },
    derived: ['magic', 'trees', 'nameBytes', 'crc'],
  });
  const tree = structure<PublishedTree>({
    name: 'published tree',
    sizeBytes: PUBLISHED_TREE_BYTES,
    plain: PLAIN_PUBLISHED_TREE,
    encode: (each) => encodeManifest({ ...PLAIN_MANIFEST, trees: [each] }).subarray(72, 104),
    fields: {
      root: { root: [U32_MOST, U32_MOST, U32_MOST, U32_MOST] },
      readThroughLimitBytes: { readThroughLimitBytes: MOST },
      height: { height: 5 },
    },
  });
  const list = structure<{ readonly uuid: Uint8Array; readonly run: RecordRun }>({
    name: 'record list',
    sizeBytes: 52,
    plain: { uuid: UUID, run: { first: 1, count: 1 } },
    encode: ({ uuid, run }) => encodeRecordList(uuid, [run]),
    checksumAt: 48,
    fields: {
      uuid: { uuid: OTHER_ID },
      first: { run: { first: MOST - 1, count: 1 } },
      count: { run: { first: 1, count: MOST - 1 } },
    },
    derived: ['magic', 'runs', 'crc'],
  });
  return [manifest, tree, list];
}

export const STRUCTURES: readonly Structure[] = [
  ...localLogStructures(),
  ...fsinfoStructures(),
  ...entryStructures(),
  ...recordStructures(),
  ...externalStructures(),
  ...logStructures(),
  ...objectStructures(),
  ...publicationStructures(),
];
