/**
 * Methods and paths of the operations that commands and tools ask for. The compiler holds them
 * against src/control/operations.ts, which is not loaded: its schemas take longer than most
 * commands.
 */
import type {
  EVENT_STREAM_TYPE,
  JSON_TYPE,
  OPERATIONS,
  RAW_TYPE,
  SPARSE_TYPE,
} from '../control/operations.js';

type Operations = typeof OPERATIONS;

export const ROUTES = {
  getServer: { method: 'GET', path: '/v1/server' },
  listVdisks: { method: 'GET', path: '/v1/vdisks' },
  createVdisk: { method: 'POST', path: '/v1/vdisks' },
  getVdisk: { method: 'GET', path: '/v1/vdisks/{name}' },
  changeVdisk: { method: 'PATCH', path: '/v1/vdisks/{name}' },
  deleteVdisk: { method: 'DELETE', path: '/v1/vdisks/{name}' },
  createExternal: { method: 'POST', path: '/v1/externals' },
  relocateExternal: { method: 'PUT', path: '/v1/externals/{name}/path' },
  createSnapshots: { method: 'POST', path: '/v1/snapshots' },
  createClones: { method: 'POST', path: '/v1/clones' },
  publishSnapshot: { method: 'PUT', path: '/v1/vdisks/{name}/publication' },
  unpublishSnapshot: { method: 'DELETE', path: '/v1/vdisks/{name}/publication' },
  listPublications: { method: 'GET', path: '/v1/publications' },
  splitVdisk: { method: 'POST', path: '/v1/vdisks/{name}/split' },
  changeSplit: { method: 'PATCH', path: '/v1/vdisks/{name}/split' },
  cancelSplit: { method: 'DELETE', path: '/v1/vdisks/{name}/split' },
  planSplit: { method: 'GET', path: '/v1/vdisks/{name}/split-plan' },
  mapVdisk: { method: 'GET', path: '/v1/vdisks/{name}/map' },
  diff: { method: 'GET', path: '/v1/diff' },
  scanVdisk: { method: 'GET', path: '/v1/vdisks/{name}/scan' },
  verifyVdisk: { method: 'POST', path: '/v1/vdisks/{name}/verify' },
  hashVdisk: { method: 'GET', path: '/v1/vdisks/{name}/content-hash' },
  readData: { method: 'GET', path: '/v1/vdisks/{name}/data' },
  writeData: { method: 'PUT', path: '/v1/vdisks/{name}/data' },
  attachVdisk: { method: 'PUT', path: '/v1/vdisks/{name}/attachment' },
  detachVdisk: { method: 'DELETE', path: '/v1/vdisks/{name}/attachment' },
  listAttachments: { method: 'GET', path: '/v1/attachments' },
  makeConsistencyPoint: { method: 'POST', path: '/v1/consistency-point' },
  listJobs: { method: 'GET', path: '/v1/jobs' },
  getJob: { method: 'GET', path: '/v1/jobs/{id}' },
  cancelJob: { method: 'DELETE', path: '/v1/jobs/{id}' },
  getEvents: { method: 'GET', path: '/v1/events' },
  getStats: { method: 'GET', path: '/v1/stats' },
} as const satisfies {
  readonly [K in keyof Operations]?: {
    readonly method: Operations[K]['method'];
    readonly path: Operations[K]['path'];
  };
};

export type RouteId = keyof typeof ROUTES;

export const JSON_MEDIA: typeof JSON_TYPE = 'application/json';
export const RAW_MEDIA: typeof RAW_TYPE = 'application/octet-stream';
export const SPARSE_MEDIA: typeof SPARSE_TYPE = 'application/vnd.keiki.sparse';
export const EVENT_MEDIA: typeof EVENT_STREAM_TYPE = 'text/event-stream';
