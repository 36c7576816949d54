/**
 * The values of the control API: one schema each, which validates requests, types both ends and
 * stands in the OpenAPI document.
 *
 * 1. Keys are camelCase and end in their unit; sizes and offsets are integers of bytes.
 * 2. A key of an answer is always there; what there is not is null.
 * 3. A key of a request that is not named here is refused.
 */
import { type Static, type TSchema, Type } from 'typebox';
import { STORE_ERROR_KINDS } from '../base/store-error.js';
import { PIB, SECTOR_BYTES } from '../base/units.js';
import { RATE_BYTES_MAX } from '../layout/split-policy.js';
import { READ_BASES } from '../vdisk/in-use.js';
import { Durability, LocalLogStats } from './durability-schemas.js';
import { External, Publication } from './external-schemas.js';
import { AnyName, VdiskName } from './name-schemas.js';
import { ObjectStats } from './object-schemas.js';
import { bytes, count, moment, nullable, oneOf, strict } from './schema-kit.js';

const SizeBytes = Type.Integer({
  minimum: SECTOR_BYTES,
  maximum: PIB,
  multipleOf: SECTOR_BYTES,
  description: 'A multiple of 512, up to 1 PiB',
  examples: [1_073_741_824],
});
const Offset = Type.Integer({ minimum: 0, maximum: PIB, description: 'Bytes from the beginning' });
const Length = Type.Integer({ minimum: 0, maximum: PIB, description: 'Bytes; cut at the end' });

// -- errors

export const PROBLEM_KINDS = [
  ...STORE_ERROR_KINDS,
  'unauthorized',
  'too-large',
  'not-acceptable',
  'cancelled',
  'internal',
] as const;
export type ProblemKind = (typeof PROBLEM_KINDS)[number];

export const Problem = Type.Object({
  type: Type.String({ description: 'urn:keiki:problem:<kind>' }),
  title: Type.String(),
  status: Type.Integer(),
  kind: oneOf(PROBLEM_KINDS, 'Stable: what a program decides by'),
  detail: Type.String({ description: 'For people: object, numbers, next step' }),
  faults: Type.Optional(
    Type.Array(
      Type.Object({
        where: Type.String({ description: 'body, query or path, and a JSON pointer' }),
        message: Type.String(),
      }),
    ),
  ),
  clients: Type.Optional(Type.Array(Type.String(), { description: 'Who has it in use' })),
  holders: Type.Optional(
    Type.Array(
      Type.Object({
        name: Type.String(),
        readThroughBytes: Type.Integer({ minimum: 0, description: 'It still reads through it' }),
        basis: oneOf(READ_BASES, 'at-most: from counters, there was too much to count'),
      }),
      { description: 'What reads through it, and how much' },
    ),
  ),
});

// -- vdisks

const SplitMode = oneOf(['copy', 'share'], 'copy: blocks of its own; share: metadata only');
const Range = Type.Object({ offset: bytes('First byte'), length: bytes('Bytes') });

const SplitPaceName = oneOf(
  ['balanced', 'idle', 'now', 'rate'],
  'balanced: as fast as the latency of clients allows; idle: while no client asks for anything; ' +
    'now: as fast as it can; rate: a bound',
);
const Rate = Type.Integer({ minimum: 0, maximum: RATE_BYTES_MAX, description: 'Bytes a second' });
const TIME = '([01][0-9]|2[0-3]):[0-5][0-9]';
const Window = Type.String({
  pattern: `^(always|${TIME}-${TIME})$`,
  description: 'Time of day (UTC) in which it works: HH:MM-HH:MM; always takes it away',
  examples: ['22:00-06:00'],
});

/** How fast a split may go, as it is asked for. */
const policyOptions = {
  pace: Type.Optional(SplitPaceName),
  rateBytesPerSecond: Type.Optional(Rate),
  floorBytesPerSecond: Type.Optional(Rate),
  window: Type.Optional(Window),
  isReserved: Type.Optional(
    Type.Boolean({ description: 'Space for all of it is set aside first; true by itself' }),
  ),
};
export type PolicyOptions = Static<ReturnType<typeof Type.Object<typeof policyOptions>>>;

const Split = Type.Object({
  jobId: nullable(Type.String()),
  mode: SplitMode,
  state: oneOf(
    ['filling', 'waiting', 'paused', 'releasing', 'undoing'],
    'waiting: it goes on by itself; paused: when somebody says so; undoing: holes come back',
  ),
  reason: nullable(Type.String({ description: 'What it waits for' })),
  policy: Type.Object({
    pace: SplitPaceName,
    rateBytesPerSecond: nullable(Rate),
    floorBytesPerSecond: Rate,
    window: nullable(Window),
    isReserved: Type.Boolean(),
  }),
  limitedBy: oneOf(
    ['nothing', 'rate', 'clients', 'latency', 'floor'],
    'What bounds its rate now: its own, busy clients (idle), their latency (balanced), its floor',
  ),
  rateBytesPerSecond: nullable(bytes('It may go at now; null: no bound')),
  positionBytes: bytes('Filled up to here'),
  endBytes: bytes('Filled up to here when it is done'),
  filledBytes: bytes('Bytes that were filled, or undone, since the server started'),
  reservedBytes: bytes('Space that is set aside for the rest of it'),
  badRanges: Type.Array(Range, { description: 'What could not be read of the backing store' }),
});

export const Client = Type.Object({
  id: count('Number of the connection'),
  peer: Type.String({ description: "'unix', or address and port" }),
  name: nullable(Type.String({ description: 'Vdisk or snapshot; null during the handshake' })),
  requestsInFlight: count('Requests that are not answered yet'),
  heldBytes: bytes('Memory that the connection holds'),
});

const ContentHash = Type.String({
  pattern: '^sha256:[0-9a-f]{64}$',
  description: 'SHA-256 of all that clients read',
});
const Certificate = Type.Object({
  kind: oneOf(['split', 'verify'], 'split: made at the end of one; verify: asked for'),
  result: oneOf(['proven', 'refuted'], 'refuted: something speaks against it'),
  refutations: count('Findings that speak against it'),
  at: moment('When it was made'),
  cpNumber: count('Consistency point that it speaks of'),
  formerBacking: nullable(
    Type.Object({
      name: nullable(Type.String({ description: 'When it was let go; null if nobody knows' })),
      treeId: count('Number of its tree'),
    }),
  ),
  blocks: count('Pointers to blocks that were looked at'),
  filledCopies: count('Blocks of its own that splits filled in'),
  filledShares: count("Blocks of the backing store's that splits filled in"),
  filledZeros: count('Zeros that splits filled in'),
  compared: count('Of these, the ones that were compared with the backing store, by checksum'),
  excepted: count('The ones that could not be: cut by a limit, or outside of the store'),
  contentHash: nullable(ContentHash),
});

export const Vdisk = Type.Object({
  name: AnyName,
  kind: oneOf(
    ['vdisk', 'snapshot', 'external'],
    'A snapshot is read-only, and so is external: a disk in files outside of the store',
  ),
  sizeBytes: bytes('Size that clients see'),
  backing: nullable(AnyName),
  isMerging: Type.Boolean({
    description:
      'It reads through something that was deleted, and takes that in when nobody else needs it',
  }),
  mappedBytes: bytes('Data that its own tree names'),
  sharedBytes: bytes('Of these, what another tree names, too; what was shared whole, at most'),
  ownBytes: bytes('mappedBytes - sharedBytes'),
  holders: Type.Array(AnyName, { description: 'What reads through it' }),
  split: nullable(Split),
  external: nullable(External),
  published: nullable(
    Type.String({ description: 'What other stores clone the snapshot as, if it is published' }),
  ),
  certificate: nullable(Certificate),
  durability: Durability,
  clientCount: count('NBD clients that have it open'),
  clients: Type.Array(Client, { description: 'Who they are' }),
});

export const VdiskList = Type.Object({ vdisks: Type.Array(Vdisk) });
export const CreateVdisk = Type.Object({ name: VdiskName, sizeBytes: SizeBytes }, strict);
export const ChangeVdisk = Type.Object(
  {
    name: Type.Optional(AnyName),
    sizeBytes: Type.Optional(SizeBytes),
  },
  { ...strict, minProperties: 1 },
);
export const CreateSnapshots = Type.Object(
  {
    items: Type.Array(Type.Object({ vdisk: VdiskName, snapshot: VdiskName }, strict), {
      minItems: 1,
      maxItems: 1000,
    }),
  },
  strict,
);
export const StartSplit = Type.Object({ mode: SplitMode, ...policyOptions }, strict);
export const ChangeSplit = Type.Object(
  {
    mode: Type.Optional(SplitMode),
    isPaused: Type.Optional(Type.Boolean({ description: 'It rests until this is false again' })),
    ...policyOptions,
  },
  { ...strict, minProperties: 1 },
);
export const CancelSplitQuery = Type.Object(
  {
    undo: Type.Optional(oneOf(['true'], 'What it filled becomes holes again')),
  },
  strict,
);

export const SplitPlanQuery = Type.Object(
  {
    mode: Type.Optional(SplitMode),
    estimate: Type.Optional(
      oneOf(['true'], 'At once, from the counters of the trees, instead of a scan of metadata'),
    ),
  },
  strict,
);
const ModePlan = Type.Object({
  mode: SplitMode,
  readBytes: bytes('Data that is read of backing stores'),
  writeBytes: bytes('Data that is written, at most: blocks of zeros take no space'),
  writeBytesMin: bytes('Data that surely is written'),
  sharedBytes: bytes('Data that the vdisk and the backing store will both name'),
  indirectBlocks: count('Blocks of 4 KiB that are written, each counted once'),
  referenceBlocks: count('Blocks of the reference file likewise'),
  metaBytes: bytes('What both take on the medium, with second copies'),
  usedBytesDuring: bytes('Of the store, at most'),
  usedBytesAfter: bytes('Of the store, at most'),
  fits: Type.Boolean({ description: 'The store has room for it now' }),
  givesBackBytes: nullable(
    bytes('What the deletion of the backing store gives back then; null: nobody knows'),
  ),
  vdiskGivesBackBytes: nullable(
    bytes('What the deletion of its whole vdisk, with all snapshots, gives back then'),
  ),
  rateBytesPerSecond: nullable(
    Type.Number({ minimum: 0, description: 'Of the last splits; null: there was none' }),
  ),
  seconds: nullable(Type.Number({ minimum: 0, description: 'At that rate' })),
});
export const SplitPlan = Type.Object({
  name: AnyName,
  backing: nullable(AnyName),
  otherHolders: Type.Array(AnyName, { description: 'What else reads through the backing store' }),
  basis: oneOf(['scan', 'estimate'], 'scan: exact; estimate: at most, but for what comes back'),
  usedBytes: bytes('Of the store, now'),
  modes: Type.Array(ModePlan, { description: 'One for each mode that was asked for' }),
});

// -- maps

const MapExtent = Type.Object({
  offset: bytes('First byte'),
  length: bytes('Bytes'),
  kind: oneOf(['data', 'zero', 'hole'], 'zero and hole read as zeros; a hole is mapped nowhere'),
  depth: count('Trees between the vdisk and the one that has it; 0: its own'),
  filled: Type.Boolean({ description: 'Put there by a split, not by a client' }),
});
export const VdiskMap = Type.Object({ name: AnyName, extents: Type.Array(MapExtent) });
export const DeleteQuery = Type.Object(
  {
    inUse: Type.Optional(
      oneOf(
        ['refuse', 'defer', 'split'],
        'What others need: refuse (default); defer: the name goes at once, of a vdisk with its ' +
          'snapshots, the space when the last lets go; split: the same, and each clone is split',
      ),
    ),
  },
  strict,
);
export const MapQuery = Type.Object(
  { offset: Type.Optional(Offset), length: Type.Optional(Length) },
  strict,
);

const DiffExtent = Type.Object({
  offset: bytes('First byte'),
  length: bytes('Bytes'),
  kind: oneOf(['data', 'zero'], 'zero: what was there has been zeroed or trimmed'),
});
export const Diff = Type.Object({
  from: nullable(AnyName),
  to: AnyName,
  extents: Type.Array(DiffExtent),
});
export const DiffQuery = Type.Object({ from: Type.Optional(AnyName), to: AnyName }, strict);

export const Scan = Type.Object({
  name: AnyName,
  readThroughBytes: bytes('What it reads from its backing stores'),
  givesBackBytes: bytes('What its deletion gives back'),
});

const FINDING_KINDS = [
  'association',
  'hole',
  'foreign-block',
  'free-block',
  'checksum',
  'content',
] as const;
export const VerifyVdisk = Type.Object({ contentHash: Type.Optional(ContentHash) }, strict);
export const Verification = Type.Object({
  name: AnyName,
  certificate: Certificate,
  findings: Type.Array(
    Type.Object({
      kind: oneOf(FINDING_KINDS, 'What is wrong'),
      fbn: nullable(count('Block of 4 KiB that it is about; null: the vdisk')),
      message: Type.String({ description: 'For people: what, where, and whose block it is' }),
    }),
    { description: 'The first 100' },
  ),
});
export const HashOfContent = Type.Object({
  name: AnyName,
  sizeBytes: bytes('Size of the vdisk'),
  contentHash: ContentHash,
});

// -- content

export const ReadDataQuery = Type.Object(
  { offset: Type.Optional(Offset), length: Type.Optional(Length) },
  strict,
);
export const WriteDataQuery = Type.Object(
  {
    offset: Type.Optional(Offset),
    createSizeBytes: Type.Optional(SizeBytes),
    create: Type.Optional(oneOf(['true'], 'A new vdisk, as large as the stream is long')),
  },
  strict,
);
export const WrittenData = Type.Object({
  name: VdiskName,
  sizeBytes: bytes('Size of the vdisk'),
  dataBytes: bytes('Bytes that were written as data'),
  zeroBytes: bytes('Bytes that were written as zeros, without taking space'),
});

// -- attachments

const UnixAddress = Type.Object({ kind: Type.Literal('unix'), path: Type.String() });
const TcpAddress = Type.Object({
  kind: Type.Literal('tcp'),
  host: Type.String(),
  port: Type.Integer(),
});
export const Address = Type.Union([UnixAddress, TcpAddress]);
export type Address = Static<typeof Address>;

export const Attachment = Type.Object({
  vdisk: AnyName,
  address: Address,
  uri: Type.String({
    description: 'What NBD clients take',
    examples: ['nbd+unix:///?socket=/run/x'],
  }),
  readOnly: Type.Boolean(),
  clients: Type.Array(Client),
});
export const AttachmentList = Type.Object({ attachments: Type.Array(Attachment) });
const SocketPath = Type.String({
  pattern: '^/[^\\u0000-\\u001f\\u007f]{1,106}$',
  description: 'Absolute path of a unix socket, at most 107 bytes, no control characters',
  examples: ['/run/keiki/vm1.sock'],
});
const Host = Type.String({
  pattern: '^(localhost|[0-9.]{7,15}|[0-9a-fA-F:.]{2,45})$',
  description: 'An address of this machine; beyond loopback the server must allow it',
  examples: ['127.0.0.1'],
});
export const Attach = Type.Union([
  Type.Object({ socket: SocketPath }, strict),
  Type.Object(
    {
      host: Type.Optional(Host),
      port: Type.Integer({ minimum: 0, maximum: 65_535, description: '0 takes a free one' }),
    },
    strict,
  ),
]);

// -- jobs

const JOB_STATES = ['running', 'paused', 'done', 'failed', 'cancelled'] as const;
export const Job = Type.Object({
  id: Type.String({ examples: ['split-1'] }),
  kind: oneOf(['split', 'import', 'export'], 'What it does'),
  vdisk: AnyName,
  state: oneOf(JOB_STATES, 'The last three are final'),
  reason: nullable(Type.String({ description: 'Why it pauses' })),
  doneBytes: bytes('So far'),
  totalBytes: nullable(bytes('When it is done; null if nobody knows')),
  progress: nullable(Type.Number({ minimum: 0, maximum: 1, description: '1 is done' })),
  rateBytesPerSecond: Type.Number({ minimum: 0, description: 'Of the last seconds' }),
  etaSeconds: nullable(Type.Number({ minimum: 0 })),
  startedAt: moment('When it was started, or taken up by this server'),
  endedAt: nullable(moment('When it came to its final state')),
  error: nullable(Problem),
});
export const JobList = Type.Object({ jobs: Type.Array(Job) });

// -- server, statistics, events

const NbdListener = Type.Object({
  address: Address,
  uri: Type.String({
    description: 'Add the name of a vdisk',
    examples: ['nbd+unix:///?socket=/x'],
  }),
});
export const Server = Type.Object({
  version: Type.String(),
  apiVersion: Type.Literal('v1'),
  pid: nullable(Type.Integer()),
  startedAt: moment('When this server started'),
  uptimeSeconds: Type.Number({ minimum: 0 }),
  store: Type.Object({
    path: Type.String(),
    totalBytes: bytes('Size of the store'),
    usedBytes: bytes('Taken, metadata included'),
    freeBytes: bytes('Free for data'),
    wasRecovered: Type.Boolean({ description: 'It had not been closed before this start' }),
    state: oneOf(['open', 'ended'], 'ended: a write failed; start the server again'),
  }),
  api: Type.Array(Address),
  nbd: Type.Array(NbdListener),
});

export const OPERATION_NAMES = ['read', 'write', 'zero', 'flush', 'status'] as const;
export type OperationName = (typeof OPERATION_NAMES)[number];
const OperationStats = Type.Object({
  operation: oneOf(OPERATION_NAMES, 'zero: trim and write zeroes; status: block status'),
  count: count('Since the server started'),
  errors: count('Of these, how many failed'),
  bytes: bytes('Moved'),
  seconds: Type.Number({ minimum: 0, description: 'Sum of their times' }),
  p50Ms: nullable(Type.Number({ description: 'Half of them took no longer' })),
  p99Ms: nullable(Type.Number({ description: '99 of 100 took no longer' })),
});
export const Stats = Type.Object({
  at: moment('When they were taken'),
  store: Type.Object({
    totalBytes: bytes('Size of the store'),
    usedBytes: bytes('Taken, metadata included'),
    freeBytes: bytes('Free for data'),
    memoryBytes: bytes('Buffers in memory'),
    dirtyBuffers: count('Blocks that wait for a consistency point'),
    blocksRead: count('Blocks read from the medium: what memory did not have'),
    blocksHealed: count('Damaged metadata blocks mended from their second copy'),
    cpNumber: count('Number of the last consistency point'),
    cpCount: count('Consistency points since the start'),
    cpBlocksWritten: count('Blocks they wrote'),
    cpMs: Type.Number({ minimum: 0, description: 'Milliseconds that they took together' }),
    cpInProgress: Type.Boolean(),
    logGroups: count('Groups written to the log'),
    background: nullable(oneOf(['free', 'merge'], 'What the background job is at')),
    splitsActive: count('Splits at work'),
    splitsCompleted: count('Splits that were completed since the start'),
    splitBlocksFilled: count('Blocks they filled'),
    splitBackingBlocksRead: count('Blocks of backing stores they read'),
    localLog: nullable(LocalLogStats),
  }),
  objects: nullable(ObjectStats),
  nbd: Type.Object({
    connections: count('Clients that are connected'),
    heldBytes: bytes('Memory held for them'),
  }),
  vdisks: Type.Array(Type.Object({ name: AnyName, operations: Type.Array(OperationStats) })),
});

export const EVENT_TYPES = [
  'vdisk-created',
  'vdisk-changed',
  'vdisk-deleted',
  'vdisk-verified',
  'snapshot-created',
  'clone-created',
  'job',
  'attached',
  'detached',
  'client-connected',
  'client-disconnected',
  'stats',
  'lost',
] as const;
export const Event = Type.Object({
  id: count('Grows by one; what Last-Event-ID takes'),
  type: oneOf(EVENT_TYPES, 'lost: events before this one are not there any more'),
  at: moment('When it happened'),
  data: Type.Record(Type.String(), Type.Unknown(), { description: 'The object it is about' }),
});
export const EventList = Type.Object({ events: Type.Array(Event) });

export const ConsistencyPoint = Type.Object({ cpNumber: count('The one that was made') });
export const Health = Type.Object({ status: Type.Literal('ok') });

export type DiffExtent = Static<typeof DiffExtent>;
export type MapExtent = Static<typeof MapExtent>;
export type Vdisk = Static<typeof Vdisk>;
export type Split = Static<typeof Split>;
export type Certificate = Static<typeof Certificate>;
export type Verification = Static<typeof Verification>;
export type Client = Static<typeof Client>;
export type Attachment = Static<typeof Attachment>;
export type Attach = Static<typeof Attach>;
export type Job = Static<typeof Job>;
export type Server = Static<typeof Server>;
export type Stats = Static<typeof Stats>;
export type Event = Static<typeof Event>;
export type Problem = Static<typeof Problem>;
export type SplitPlan = Static<typeof SplitPlan>;

/** Names in the OpenAPI document. */
export const COMPONENTS = {
  Address,
  Attachment,
  Certificate,
  Client,
  Diff,
  Event,
  Job,
  MapExtent,
  Problem,
  Publication,
  Server,
  Split,
  SplitPlan,
  Stats,
  Vdisk,
  Verification,
} as const satisfies Record<string, TSchema>;
