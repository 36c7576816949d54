/** The server itself: what it is, its jobs, events, statistics and health. */
import { toIsoTime } from '../../env/wall-time.js';
import type { ControlPlane } from '../control-plane.js';
import { type CallOf, type Handlers, StreamAnswer } from '../handler.js';
import { metricsText } from '../metrics.js';
import { openapiDocument } from '../openapi.js';
import { EVENT_STREAM_TYPE, METRICS_TYPE } from '../operations.js';
import { ApiError } from '../problem.js';
import type { Event } from '../schemas.js';
import { statsOf } from '../stats.js';

type ServerHandlers = Pick<
  Handlers,
  | 'getServer'
  | 'makeConsistencyPoint'
  | 'listJobs'
  | 'getJob'
  | 'cancelJob'
  | 'getEvents'
  | 'getStats'
  | 'getMetrics'
  | 'getOpenapi'
  | 'getHealth'
>;

/** A client of the event stream that was cut off comes again after so long. */
const RETRY_MS = 1000;
/** Statistics in the event stream; they also show that the connection lives. */
const STATS_MS = 5000;

export function serverHandlers(plane: ControlPlane): ServerHandlers {
  const { store, jobs, events, options } = plane;
  const openapi = openapiDocument(options.version);

  return {
    getServer: () => {
      const { totalBytes, usedBytes, freeBytes, recovered } = store.stats();
      return {
        version: options.version,
        apiVersion: 'v1',
        pid: options.pid ?? null,
        startedAt: toIsoTime(plane.startedWallMs),
        uptimeSeconds: plane.uptimeSeconds,
        store: {
          path: options.storePath,
          totalBytes,
          usedBytes,
          freeBytes,
          wasRecovered: recovered,
          state: plane.hasEnded ? 'ended' : 'open',
        },
        api: [...plane.api],
        nbd: [...plane.nbd],
      };
    },

    makeConsistencyPoint: async () => {
      await store.consistencyPoint();
      return { cpNumber: store.stats().cpNumber };
    },

    listJobs: () => ({ jobs: jobs.list() }),
    getJob: ({ params: { id } }) => jobs.get(id),
    cancelJob: ({ params: { id } }) => jobs.cancel(id),

    getEvents: (call) => {
      const types = (call.headers.accept ?? '')
        .split(',')
        .map((type) => type.split(';')[0]?.trim());
      if (!types.includes(EVENT_STREAM_TYPE)) return { events: [...events.recent] };
      return new StreamAnswer(EVENT_STREAM_TYPE, eventStream(plane, call));
    },

    getStats: () => statsOf(plane),
    getMetrics: () =>
      new StreamAnswer(
        METRICS_TYPE,
        once(() => metricsText(plane)),
      ),
    getOpenapi: () => openapi,
    getHealth: () => {
      if (plane.hasEnded) throw new ApiError('closed', 'the store has ended: start it again');
      return { status: 'ok' };
    },
  };
}

async function* once(make: () => string): AsyncGenerator<string> {
  yield await Promise.resolve(make());
}

async function* eventStream(
  plane: ControlPlane,
  { headers, signal }: CallOf<'getEvents'>,
): AsyncGenerator<string> {
  const given = headers['last-event-id'];
  const lastId = /^[0-9]{1,15}$/.test(String(given)) ? Number(given) : undefined;
  const listener = plane.events.listen(lastId);
  signal.addEventListener('abort', () => listener.close(), { once: true });
  if (signal.aborted) listener.close();
  plane.tellStats(STATS_MS);
  try {
    yield `retry: ${RETRY_MS}\n\n`;
    while (!listener.isClosed) {
      const events = await listener.take();
      if (events.length > 0) yield events.map(toEventText).join('');
    }
  } finally {
    listener.close();
  }
}

function toEventText(event: Event): string {
  return `id: ${event.id}\nevent: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`;
}
