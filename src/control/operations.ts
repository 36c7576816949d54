/**
 * The operations of the control API: what the router serves, the OpenAPI document says, docs/API.md
 * tells and a client calls. One list, so that none of them knows an operation that the others do
 * not.
 */
import { type Static, type TSchema, Type } from 'typebox';
import * as external from './external-schemas.js';
import { AnyName } from './name-schemas.js';
import * as schemas from './schemas.js';

/** Data of a vdisk, byte by byte. */
export const RAW_TYPE = 'application/octet-stream';
/** Data of a vdisk as pieces of data and of zeros: see sparse-stream.ts. */
export const SPARSE_TYPE = 'application/vnd.keiki.sparse';
export const EVENT_STREAM_TYPE = 'text/event-stream';
export const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8';
export const JSON_TYPE = 'application/json';

export const IDEMPOTENCY_KEY_HEADER = 'idempotency-key';

export interface Operation {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** `{x}` is one segment, percent-encoded, and a key of `params`. */
  readonly path: string;
  readonly summary: string;
  readonly params?: TSchema;
  readonly query?: TSchema;
  /** Body in JSON. */
  readonly body?: TSchema;
  /** Types of a body that is a stream. */
  readonly takes?: readonly string[];
  readonly status: 200 | 201 | 202 | 204;
  readonly answer?: TSchema;
  /** Types of an answer that is not JSON alone. */
  readonly gives?: readonly string[];
  /** Beside `invalid`, `unauthorized`, `closed` and `internal`, which any may answer. */
  readonly problems: readonly schemas.ProblemKind[];
  /** Takes an Idempotency-Key. */
  readonly isIdempotent?: true;
}

const name = Type.Object({ name: AnyName });
const jobId = Type.Object({
  id: Type.String({ pattern: '^[a-z]+-[0-9]{1,15}$', examples: ['split-1'] }),
});

export const OPERATIONS = {
  getServer: {
    method: 'GET',
    path: '/v1/server',
    summary: 'Version, store and addresses of this server',
    status: 200,
    answer: schemas.Server,
    problems: [],
  },
  listVdisks: {
    method: 'GET',
    path: '/v1/vdisks',
    summary: 'All vdisks and snapshots, in order of names',
    status: 200,
    answer: schemas.VdiskList,
    problems: [],
  },
  createVdisk: {
    method: 'POST',
    path: '/v1/vdisks',
    summary: 'A new vdisk that reads as zeros',
    body: schemas.CreateVdisk,
    status: 201,
    answer: schemas.Vdisk,
    problems: ['exists', 'out-of-space', 'too-large'],
    isIdempotent: true,
  },
  getVdisk: {
    method: 'GET',
    path: '/v1/vdisks/{name}',
    summary: 'One vdisk or snapshot',
    params: name,
    status: 200,
    answer: schemas.Vdisk,
    problems: ['not-found'],
  },
  changeVdisk: {
    method: 'PATCH',
    path: '/v1/vdisks/{name}',
    summary: 'Resizes a vdisk, then renames it; a snapshot can be renamed within its vdisk',
    params: name,
    body: schemas.ChangeVdisk,
    status: 200,
    answer: schemas.Vdisk,
    problems: ['not-found', 'exists', 'read-only', 'out-of-space', 'too-large'],
  },
  deleteVdisk: {
    method: 'DELETE',
    path: '/v1/vdisks/{name}',
    summary:
      'Deletes a vdisk or snapshot that no client uses; its space comes back in the background',
    params: name,
    query: schemas.DeleteQuery,
    status: 204,
    problems: ['not-found', 'in-use', 'out-of-space'],
  },
  createExternal: {
    method: 'POST',
    path: '/v1/externals',
    summary: 'A disk image of the server as read-only backing store of clones, without import',
    body: external.CreateExternal,
    status: 201,
    answer: schemas.Vdisk,
    problems: [
      'exists',
      'not-found',
      'unsupported',
      'corrupt',
      'device',
      'out-of-space',
      'too-large',
    ],
    isIdempotent: true,
  },
  relocateExternal: {
    method: 'PUT',
    path: '/v1/externals/{name}/path',
    summary: 'Says where the files of such a backing store are now',
    params: name,
    body: external.Relocate,
    status: 200,
    answer: schemas.Vdisk,
    problems: ['not-found', 'unsupported', 'corrupt', 'device', 'out-of-space', 'too-large'],
  },
  createSnapshots: {
    method: 'POST',
    path: '/v1/snapshots',
    summary: 'Snapshots of one vdisk or of several, as of one moment',
    body: schemas.CreateSnapshots,
    status: 201,
    answer: schemas.VdiskList,
    problems: ['not-found', 'exists', 'out-of-space', 'too-large'],
    isIdempotent: true,
  },
  createClones: {
    method: 'POST',
    path: '/v1/clones',
    summary: 'Writable clones of a snapshot, all or none',
    body: external.CreateClones,
    status: 201,
    answer: schemas.VdiskList,
    problems: [
      'not-found',
      'exists',
      'unsupported',
      'corrupt',
      'device',
      'out-of-space',
      'too-large',
    ],
    isIdempotent: true,
  },
  publishSnapshot: {
    method: 'PUT',
    path: '/v1/vdisks/{name}/publication',
    summary: 'Lets other stores clone the snapshot, and read it from the records of this one',
    params: name,
    status: 200,
    answer: schemas.Vdisk,
    problems: ['not-found', 'exists', 'in-use', 'unsupported', 'corrupt', 'device', 'out-of-space'],
  },
  unpublishSnapshot: {
    method: 'DELETE',
    path: '/v1/vdisks/{name}/publication',
    summary: 'Ends that; refused as long as other stores read it',
    params: name,
    query: external.UnpublishQuery,
    status: 200,
    answer: schemas.Vdisk,
    problems: ['not-found', 'in-use', 'unsupported', 'device', 'out-of-space'],
  },
  listPublications: {
    method: 'GET',
    path: '/v1/publications',
    summary: 'What is published, and which other stores read it',
    status: 200,
    answer: external.PublicationList,
    problems: ['device'],
  },
  splitVdisk: {
    method: 'POST',
    path: '/v1/vdisks/{name}/split',
    summary: 'Separates a clone from its backing store, in the background, as a job',
    params: name,
    body: schemas.StartSplit,
    status: 202,
    answer: schemas.Job,
    problems: ['not-found', 'out-of-space', 'too-large'],
  },
  changeSplit: {
    method: 'PATCH',
    path: '/v1/vdisks/{name}/split',
    summary: 'Another mode or pace for a split that is under way; pauses it, or lets it go on',
    params: name,
    body: schemas.ChangeSplit,
    status: 200,
    answer: schemas.Vdisk,
    problems: ['not-found', 'out-of-space'],
  },
  cancelSplit: {
    method: 'DELETE',
    path: '/v1/vdisks/{name}/split',
    summary: 'Ends a split; what it filled stays, or becomes holes again in the background',
    params: name,
    query: schemas.CancelSplitQuery,
    status: 200,
    answer: schemas.Vdisk,
    problems: ['not-found', 'in-use', 'out-of-space'],
  },
  planSplit: {
    method: 'GET',
    path: '/v1/vdisks/{name}/split-plan',
    summary: 'What a split would read, write and give back, and how long it would take',
    params: name,
    query: schemas.SplitPlanQuery,
    status: 200,
    answer: schemas.SplitPlan,
    problems: ['not-found', 'corrupt', 'device', 'cancelled'],
  },
  mapVdisk: {
    method: 'GET',
    path: '/v1/vdisks/{name}/map',
    summary: 'Where the data is: extents without gaps, and how deep they lie',
    params: name,
    query: schemas.MapQuery,
    status: 200,
    answer: schemas.VdiskMap,
    problems: ['not-found'],
  },
  diff: {
    method: 'GET',
    path: '/v1/diff',
    summary: 'Extents that clients changed after `from` (or since the beginning), up to `to`',
    query: schemas.DiffQuery,
    status: 200,
    answer: schemas.Diff,
    problems: ['not-found'],
  },
  scanVdisk: {
    method: 'GET',
    path: '/v1/vdisks/{name}/scan',
    summary: 'Exact figures, by a walk over its indirect blocks',
    params: name,
    status: 200,
    answer: schemas.Scan,
    problems: ['not-found'],
  },
  verifyVdisk: {
    method: 'POST',
    path: '/v1/vdisks/{name}/verify',
    summary: 'Proves that it names no block of others, or says what speaks against it',
    params: name,
    body: schemas.VerifyVdisk,
    status: 200,
    answer: schemas.Verification,
    problems: [
      'not-found',
      'in-use',
      'corrupt',
      'device',
      'out-of-space',
      'too-large',
      'cancelled',
    ],
  },
  hashVdisk: {
    method: 'GET',
    path: '/v1/vdisks/{name}/content-hash',
    summary: 'Reads all of it, and says what its SHA-256 is',
    params: name,
    status: 200,
    answer: schemas.HashOfContent,
    problems: ['not-found', 'in-use', 'corrupt', 'device', 'cancelled'],
  },
  readData: {
    method: 'GET',
    path: '/v1/vdisks/{name}/data',
    summary: 'Its content as a stream, raw or sparse as Accept says; neither is not-acceptable',
    params: name,
    query: schemas.ReadDataQuery,
    status: 200,
    gives: [RAW_TYPE, SPARSE_TYPE],
    problems: ['not-found', 'not-acceptable'],
  },
  writeData: {
    method: 'PUT',
    path: '/v1/vdisks/{name}/data',
    summary:
      'Writes a stream of content; with createSizeBytes or create into a new vdisk, which is ' +
      'there when all of it is',
    params: name,
    query: schemas.WriteDataQuery,
    takes: [RAW_TYPE, SPARSE_TYPE],
    status: 200,
    answer: schemas.WrittenData,
    problems: ['not-found', 'exists', 'in-use', 'read-only', 'out-of-space', 'cancelled'],
  },
  attachVdisk: {
    method: 'PUT',
    path: '/v1/vdisks/{name}/attachment',
    summary: 'An NBD socket or port of its own, where it is the default export',
    params: name,
    body: schemas.Attach,
    status: 200,
    answer: schemas.Attachment,
    problems: ['not-found', 'in-use', 'too-large'],
  },
  detachVdisk: {
    method: 'DELETE',
    path: '/v1/vdisks/{name}/attachment',
    summary: 'Closes its own socket or port, and the clients there when they are answered',
    params: name,
    status: 204,
    problems: ['not-found'],
  },
  listAttachments: {
    method: 'GET',
    path: '/v1/attachments',
    summary: 'All sockets and ports of single vdisks, with their clients',
    status: 200,
    answer: schemas.AttachmentList,
    problems: [],
  },
  makeConsistencyPoint: {
    method: 'POST',
    path: '/v1/consistency-point',
    summary: 'Makes everything durable; the log is empty afterwards',
    status: 200,
    answer: schemas.ConsistencyPoint,
    problems: [],
  },
  listJobs: {
    method: 'GET',
    path: '/v1/jobs',
    summary: 'Jobs under way, and the last ones that ended',
    status: 200,
    answer: schemas.JobList,
    problems: [],
  },
  getJob: {
    method: 'GET',
    path: '/v1/jobs/{id}',
    summary: 'One job',
    params: jobId,
    status: 200,
    answer: schemas.Job,
    problems: ['not-found'],
  },
  cancelJob: {
    method: 'DELETE',
    path: '/v1/jobs/{id}',
    summary: 'Cancels a job; one that has ended stays as it is',
    params: jobId,
    status: 200,
    answer: schemas.Job,
    problems: ['not-found', 'in-use', 'unsupported'],
  },
  getEvents: {
    method: 'GET',
    path: '/v1/events',
    summary: 'The last events; as an endless stream (SSE) if Accept asks for it',
    status: 200,
    answer: schemas.EventList,
    gives: [JSON_TYPE, EVENT_STREAM_TYPE],
    problems: [],
  },
  getStats: {
    method: 'GET',
    path: '/v1/stats',
    summary: 'Counters and times of store, server and vdisks',
    status: 200,
    answer: schemas.Stats,
    problems: [],
  },
  getMetrics: {
    method: 'GET',
    path: '/metrics',
    summary: 'The same for Prometheus',
    status: 200,
    gives: [METRICS_TYPE],
    problems: [],
  },
  getOpenapi: {
    method: 'GET',
    path: '/v1/openapi.json',
    summary: 'This API as an OpenAPI 3.1 document',
    status: 200,
    answer: Type.Object({}, { description: 'An OpenAPI document' }),
    problems: [],
  },
  getHealth: {
    method: 'GET',
    path: '/healthz',
    summary: 'ok while the store is open; needs no token',
    status: 200,
    answer: schemas.Health,
    problems: ['closed'],
  },
} as const satisfies Record<string, Operation>;

export type OperationId = keyof typeof OPERATIONS;

type Part<K extends OperationId, P extends string> = (typeof OPERATIONS)[K] extends {
  readonly [key in P]: infer S extends TSchema;
}
  ? Static<S>
  : undefined;

/** What an operation is asked with, by part. */
export interface RequestOf<K extends OperationId> {
  readonly params: Part<K, 'params'>;
  readonly query: Part<K, 'query'>;
  readonly body: Part<K, 'body'>;
}

/** What it answers in JSON. */
export type AnswerOf<K extends OperationId> = Part<K, 'answer'>;
