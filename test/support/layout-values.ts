/**
 * Values of the on-disk format for tests: a plain one of each kind, and arbitrary ones.
 *
 * The arbitrary ones are whatever a codec must bring back as it was, sensible or not.
 */
import fc from 'fast-check';
import {
  BLOCK_BYTES,
  HEIGHT_MAX,
  KIB,
  SEGMENT_BLOCKS,
  STORE_BYTES_MAX,
} from '../../src/base/units.js';
import {
  type CertificateRecord,
  FORMER_NAME_BYTES_MAX,
} from '../../src/layout/certificate-record.js';
import {
  EXTERNAL_FILES_MAX,
  type ExternalDescriptor,
  type ExternalFile,
} from '../../src/layout/external-descriptor.js';
import {
  EPOCHS_MAX,
  FORMAT_VERSION,
  type Fsinfo,
  type MetafileRoot,
} from '../../src/layout/fsinfo.js';
import { type LogEntry, POINTERS_COUNT_MAX } from '../../src/layout/log-entry.js';
import type { GroupHead } from '../../src/layout/log-group.js';
import type { BlockTag, RecordHead } from '../../src/layout/log-record.js';
import type { Manifest, PublishedTree } from '../../src/layout/publication.js';
import { MINUTES_OF_DAY, RATE_BYTES_MAX, type SplitPolicy } from '../../src/layout/split-policy.js';
import { BAD_RANGES_MAX, type TreeRecord } from '../../src/layout/tree-record.js';
import { NAME_BYTES_MAX, type VdiskRecord } from '../../src/layout/vdisk-record.js';

/** FBNs end here: 256^5. */
export const FBN_END = 2 ** 40;
export const UUID: Uint8Array = Uint8Array.from({ length: 16 }, (_, index) => 0xa0 + index);
const NO_ROOT: MetafileRoot = { words: [0, 0, 0, 0], height: 1 };

/** An in-place store of 64 MiB in which nothing is. */
export const PLAIN_FSINFO: Fsinfo = {
  uuid: UUID,
  version: FORMAT_VERSION,
  compatible: 0,
  readOnlyCompatible: 0,
  incompatible: 0,
  medium: 'in-place',
  cpNumber: 0,
  epoch: 0,
  lineage: 0,
  logUuid: new Uint8Array(16),
  clean: false,
  storeBlocks: 16 * SEGMENT_BLOCKS,
  logStart: 2,
  logBlocks: SEGMENT_BLOCKS - 2,
  replayFrom: 0,
  replayPosition: 0,
  localFrom: 0,
  nextTreeId: 0,
  nextVdiskId: 0,
  freePairs: 0,
  dataGaps: 0,
  metaGaps: 0,
  usedBlocks: 0,
  pending: [],
  roots: { tree: NO_ROOT, vdisk: NO_ROOT, reference: NO_ROOT, usage: NO_ROOT, map: NO_ROOT },
  epochs: [],
};

export const PLAIN_TREE: TreeRecord = {
  id: 1,
  state: 'live',
  height: 1,
  root: [0, 0, 0, 0],
  sizeBytes: 0,
  backingId: 0,
  readThroughLimitBytes: 0,
  mappedBlocks: 0,
  sharedBlocks: 0,
  ownerId: 0,
  goneBelowFbn: 0,
  countedById: 0,
  isExternal: false,
  split: undefined,
};

export const PLAIN_VDISK: VdiskRecord = {
  id: 1,
  kind: 'vdisk',
  gone: false,
  name: 'n',
  headTreeId: 0,
  ofVdiskId: 0,
  serial: new Uint8Array(16),
  createdCp: 0,
  createdWallMs: 0,
  certificate: undefined,
  publication: 0,
};

export const PLAIN_CERTIFICATE: CertificateRecord = {
  kind: 'split',
  refutations: 0,
  wallMs: 0,
  cpNumber: 0,
  formerTreeId: 0,
  formerName: '',
  blocks: 0,
  filledCopies: 0,
  filledShares: 0,
  filledZeros: 0,
  compared: 0,
  excepted: 0,
  contentHash: undefined,
};

export const PLAIN_PUBLISHED_TREE: PublishedTree = {
  root: [0, 0, 0, 0],
  height: 1,
  readThroughLimitBytes: 0,
};

export const PLAIN_MANIFEST: Manifest = {
  uuid: new Uint8Array(16),
  name: 'n',
  sizeBytes: 0,
  cpNumber: 0,
  wallMs: 0,
  trees: [PLAIN_PUBLISHED_TREE],
};

export const PLAIN_FILE: ExternalFile = {
  path: '/f',
  sizeBytes: 0,
  modifiedSeconds: 0,
  modifiedNs: 0,
  headCrc: 0,
  tailCrc: 0,
};

export const PLAIN_DESCRIPTOR: ExternalDescriptor = {
  format: 'raw',
  sizeBytes: 0,
  files: [PLAIN_FILE],
};

export const PLAIN_GROUP: GroupHead = {
  uuid: UUID,
  sequence: 0,
  epoch: 0,
  cpNumber: 0,
  syncedThrough: 0,
};

export const PLAIN_RECORD: RecordHead = {
  kind: 'data',
  uuid: UUID,
  lineage: 0,
  epoch: 0,
  number: 0,
  cpNumber: 0,
  nonce: new Uint8Array(16),
};

/** The same values in every run. */
fc.configureGlobal({ seed: 1 });

/** Objects as literals make them, which deepEqual tells from those without a prototype. */
function recordOf<T>(model: { [K in keyof T]: fc.Arbitrary<T[K]> }): fc.Arbitrary<T> {
  return fc.record(model, { noNullPrototype: true });
}

/** Any number of the format, its ends often. */
const number = fc.oneof(fc.constantFrom(0, 1, 2 ** 32 - 1, 2 ** 32, 2 ** 53 - 1), fc.maxSafeNat());
const positive = fc.oneof(
  fc.constantFrom(1, 2 ** 53 - 1),
  fc.integer({ min: 1, max: 2 ** 53 - 1 }),
);
const u32 = fc.oneof(fc.constantFrom(0, 2 ** 32 - 1), fc.nat(2 ** 32 - 1));
const sixteen = fc.uint8Array({ minLength: 16, maxLength: 16 });

/** Words of a pointer that may stand on disk in a store of this many VBNs. */
export function pointerWords(
  vbnEnd: number,
): fc.Arbitrary<readonly [number, number, number, number]> {
  return fc
    .tuple(fc.integer({ min: 0, max: vbnEnd - 1 }), u32, fc.boolean())
    .map(([vbn, crc, filled]) => [
      vbn % 2 ** 32,
      Math.floor(vbn / 2 ** 32) + (filled ? 0x0100_0000 : 0),
      vbn <= 1 ? 0 : crc,
      0,
    ]);
}

const metafileRoot = (vbnEnd: number): fc.Arbitrary<MetafileRoot> =>
  recordOf({ words: pointerWords(vbnEnd), height: fc.integer({ min: 1, max: HEIGHT_MAX }) });

/** Epochs rise. */
const epochs = fc
  .uniqueArray(positive, { maxLength: EPOCHS_MAX })
  .map((list) => list.sort((a, b) => a - b))
  .chain((list) =>
    fc
      .array(number, { minLength: list.length, maxLength: list.length })
      .map((first) => list.map((epoch, index) => ({ epoch, firstRecord: first[index] ?? 0 }))),
  );

export const fsinfos: fc.Arbitrary<Fsinfo> = recordOf({
  medium: fc.constantFrom('in-place' as const, 'object-log' as const),
  pairs: fc.integer({ min: 1, max: STORE_BYTES_MAX / BLOCK_BYTES / SEGMENT_BLOCKS / 2 }),
}).chain(({ medium, pairs }) => {
  const storeBlocks = pairs * 2 * SEGMENT_BLOCKS;
  const root = metafileRoot(medium === 'in-place' ? storeBlocks : 2 ** 53 - 1);
  const logBlocks = fc.integer({ min: 0, max: storeBlocks - 4 });
  return recordOf({
    uuid: sixteen,
    version: fc.constant(FORMAT_VERSION),
    compatible: number,
    readOnlyCompatible: number,
    incompatible: fc.constantFrom(0, 1, 2, 3),
    medium: fc.constant(medium),
    cpNumber: number,
    epoch: number,
    lineage: number,
    logUuid: fc.constant(new Uint8Array(16)),
    clean: fc.boolean(),
    storeBlocks: fc.constant(storeBlocks),
    logStart: fc.constant(2),
    logBlocks,
    replayFrom: number,
    replayPosition: fc.constant(0),
    localFrom: number,
    nextTreeId: number,
    nextVdiskId: number,
    freePairs: number,
    dataGaps: number,
    metaGaps: number,
    usedBlocks: number,
    pending: fc.constant([]),
    roots: recordOf({ tree: root, vdisk: root, reference: root, usage: root, map: root }),
    epochs,
  });
});

const rate = fc.integer({ min: 0, max: RATE_BYTES_MAX / KIB }).map((kib) => kib * KIB);
const minute = fc.integer({ min: 0, max: MINUTES_OF_DAY - 1 });
const splitWindow = recordOf({ fromMinute: minute, toMinute: minute }).filter(
  ({ fromMinute, toMinute }) => fromMinute !== toMinute,
);

const splitPolicies: fc.Arbitrary<SplitPolicy> = recordOf({
  pace: fc.constantFrom('balanced' as const, 'idle' as const, 'now' as const, 'rate' as const),
  rateBytesPerSecond: rate,
  floorBytesPerSecond: rate,
  window: fc.option(splitWindow, { nil: undefined }),
  isReserved: fc.boolean(),
}).map((policy) => {
  const rateBytesPerSecond = policy.pace === 'rate' ? Math.max(KIB, policy.rateBytesPerSecond) : 0;
  return { ...policy, rateBytesPerSecond };
});

const split = recordOf({
  mode: fc.constantFrom('copy' as const, 'share' as const),
  phase: fc.constantFrom(
    'filling' as const,
    'releasing' as const,
    'paused' as const,
    'undoing' as const,
  ),
  policy: splitPolicies,
  positionFbn: number,
  bad: fc.array(recordOf({ fbn: number, blocks: u32 }), { maxLength: BAD_RANGES_MAX }),
});

export const treeRecords: fc.Arbitrary<TreeRecord> = recordOf({
  id: positive,
  state: fc.constantFrom('live' as const, 'deleting' as const, 'dying' as const),
  height: fc.integer({ min: 1, max: HEIGHT_MAX }),
  root: fc.tuple(u32, u32, u32, u32),
  sizeBytes: number,
  backingId: number,
  readThroughLimitBytes: number,
  mappedBlocks: number,
  sharedBlocks: number,
  ownerId: number,
  goneBelowFbn: number,
  countedById: number,
  isExternal: fc.boolean(),
  split: fc.option(split, { nil: undefined }),
}).map((record) => {
  // An external tree ends its lineage.
  return record.isExternal ? { ...record, backingId: 0, split: undefined } : record;
});

const encoder = new TextEncoder();
const names = fc
  .string({ unit: 'binary', minLength: 1, maxLength: NAME_BYTES_MAX })
  .filter((name) => encoder.encode(name).length <= NAME_BYTES_MAX);

export const certificates: fc.Arbitrary<CertificateRecord> = recordOf({
  kind: fc.constantFrom('split' as const, 'verify' as const),
  refutations: u32,
  wallMs: number,
  cpNumber: number,
  formerTreeId: number,
  formerName: names.filter((name) => encoder.encode(name).length <= FORMER_NAME_BYTES_MAX),
  blocks: number,
  filledCopies: number,
  filledShares: number,
  filledZeros: number,
  compared: number,
  excepted: number,
  contentHash: fc.option(fc.uint8Array({ minLength: 32, maxLength: 32 }), { nil: undefined }),
});

export const vdiskRecords: fc.Arbitrary<VdiskRecord> = recordOf({
  id: positive,
  kind: fc.constantFrom('vdisk' as const, 'snapshot' as const, 'external' as const),
  gone: fc.boolean(),
  name: names,
  headTreeId: number,
  ofVdiskId: number,
  serial: sixteen,
  createdCp: number,
  createdWallMs: number,
  certificate: fc.option(certificates, { nil: undefined }),
  publication: u32,
});

const externalFiles: fc.Arbitrary<ExternalFile> = recordOf({
  path: names,
  sizeBytes: number,
  modifiedSeconds: fc.nat(),
  modifiedNs: fc.nat(999_999_999),
  headCrc: u32,
  tailCrc: u32,
});

export const externalDescriptors: fc.Arbitrary<ExternalDescriptor> = recordOf({
  format: fc.constantFrom('raw' as const, 'qcow2' as const, 'published' as const),
  sizeBytes: number,
  files: fc.array(externalFiles, { minLength: 1, maxLength: EXTERNAL_FILES_MAX }),
});

const fbnAndBlocks = (blocksMax: number): fc.Arbitrary<readonly [number, number]> =>
  fc
    .integer({ min: 0, max: FBN_END - 1 })
    .chain((fbn) =>
      fc.tuple(fc.constant(fbn), fc.integer({ min: 0, max: Math.min(blocksMax, FBN_END - fbn) })),
    );

const pointersEntry: fc.Arbitrary<LogEntry> = fbnAndBlocks(POINTERS_COUNT_MAX).chain(
  ([fbn, blocks]) =>
    recordOf({
      kind: fc.constant('pointers' as const),
      treeId: number,
      fbn: fc.constant(fbn),
      vbn: fc.integer({ min: 0, max: 2 ** 53 - 1 - blocks }),
      crcs: fc.uint32Array({ minLength: blocks, maxLength: blocks }),
    }),
);

const rangeEntry: fc.Arbitrary<LogEntry> = fc
  .tuple(number, fbnAndBlocks(FBN_END), fc.constantFrom('zero' as const, 'hole' as const))
  .map(([treeId, [fbn, blocks], to]) => ({ kind: 'range', treeId, fbn, blocks, to }));

/** @param payloadBlocks data entries name payload blocks below this; none if 0 */
export function logEntries(payloadBlocks: number): fc.Arbitrary<LogEntry> {
  const others: fc.Arbitrary<LogEntry>[] = [
    pointersEntry,
    rangeEntry,
    treeRecords.map((record) => ({ kind: 'tree', record })),
    vdiskRecords.map((record) => ({ kind: 'vdisk', record })),
  ];
  if (payloadBlocks === 0) return fc.oneof(...others);
  const data: fc.Arbitrary<LogEntry> = recordOf({
    kind: fc.constant('data' as const),
    treeId: number,
    fbn: fc.integer({ min: 0, max: FBN_END - 1 }),
    crc: u32,
    payloadIndex: fc.integer({ min: 0, max: payloadBlocks - 1 }),
  });
  return fc.oneof(data, ...others);
}

export const groupHeads: fc.Arbitrary<GroupHead> = fc.tuple(number, number).chain(([one, other]) =>
  recordOf({
    uuid: sixteen,
    sequence: fc.constant(Math.max(one, other)),
    epoch: number,
    cpNumber: number,
    syncedThrough: fc.constant(Math.min(one, other)),
  }),
);

export const recordHeads: fc.Arbitrary<RecordHead> = recordOf({
  kind: fc.constantFrom('data' as const, 'cp' as const, 'seal' as const),
  uuid: sixteen,
  lineage: number,
  epoch: number,
  number,
  cpNumber: number,
  nonce: sixteen,
});

export const blockTags: fc.Arbitrary<BlockTag> = recordOf({
  treeId: number,
  fbn: number,
  level: fc.integer({ min: 0, max: HEIGHT_MAX }),
  crc: u32,
  kind: fc.constantFrom('data' as const, 'meta' as const),
});
