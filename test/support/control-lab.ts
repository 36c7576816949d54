/** A store in memory with its servers on unix sockets, and a client of the control API. */
import { mkdtempSync, rmSync } from 'node:fs';
import { request as httpRequest, type IncomingMessage } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { json } from 'node:stream/consumers';
import { MIB } from '../../src/base/units.js';
import type { LogEvent } from '../../src/env/log-sink.js';
import { MemoryDevice } from '../../src/env/memory-device.js';
import { seededRandom } from '../../src/env/seeded-random.js';
import { systemClock } from '../../src/env/system-clock.js';
import { formatStore, openStore, type StoreSource } from '../../src/main/open-store.js';
import { Service, type ServiceOptions } from '../../src/main/service.js';
import type { Store } from '../../src/main/store.js';
import { nbdMemory } from '../../src/target/nbd/listener.js';

export interface ApiAnswer {
  readonly status: number;
  readonly type: string | undefined;
  /** JSON. */
  readonly body: Readonly<Record<string, unknown>>;
}

export interface ApiOptions {
  /** Sent as JSON, if it is no Buffer and no string. */
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

const TOKEN = 'correct-horse-battery';

export class ControlLab {
  readonly folder: string;
  readonly store: Store;
  readonly service: Service;
  readonly log: LogEvent[];
  readonly bugs: unknown[];
  readonly token = TOKEN;

  constructor(parts: {
    readonly folder: string;
    readonly store: Store;
    readonly service: Service;
    readonly log: LogEvent[];
    readonly bugs: unknown[];
  }) {
    this.folder = parts.folder;
    this.store = parts.store;
    this.service = parts.service;
    this.log = parts.log;
    this.bugs = parts.bugs;
  }

  static async start(
    options: Partial<ServiceOptions> & {
      readonly device?: MemoryDevice;
      readonly source?: StoreSource;
    } = {},
  ): Promise<ControlLab> {
    const folder = mkdtempSync(join(tmpdir(), 'keiki-api-'));
    const cpIntervalMs = 3_600_000;
    const store = await openStore(
      options.source ?? { kind: 'device', device: options.device ?? (await newStoreDevice()) },
      { memoryBytes: 8 * MIB, cpIntervalMs },
    );
    const log: LogEvent[] = [];
    const bugs: unknown[] = [];
    const service = await startOrClose(store, {
      store,
      clock: systemClock,
      random: seededRandom(1),
      log: (event) => log.push(event),
      memory: nbdMemory(),
      version: '1.2.3',
      pid: 1,
      storePath: 'memory',
      socketMode: 0o600,
      allowInsecure: false,
      api: [
        { address: { kind: 'unix', path: join(folder, 'api') }, token: undefined },
        { address: { kind: 'tcp', host: '127.0.0.1', port: 0 }, token: TOKEN },
      ],
      nbd: [{ kind: 'unix', path: join(folder, 'nbd') }],
      drainMs: 1000,
      onBug: (error) => bugs.push(error),
      ...options,
    });
    return new ControlLab({ folder, store, service, log, bugs });
  }

  get nbdPath(): string {
    return join(this.folder, 'nbd');
  }

  get apiPath(): string {
    return join(this.folder, 'api');
  }

  get tcpPort(): number {
    for (const address of this.service.plane.api) if (address.kind === 'tcp') return address.port;
    return 0;
  }

  /** Sends a request over the unix socket; its answer has not been read. */
  open(method: string, path: string, options: ApiOptions = {}): Promise<IncomingMessage> {
    const { body, headers = {} } = options;
    const isRaw = body === undefined || Buffer.isBuffer(body) || typeof body === 'string';
    const bytes = isRaw ? body : JSON.stringify(body);
    const type = isRaw ? {} : { 'content-type': 'application/json' };
    return new Promise((resolve, reject) => {
      const request = httpRequest(
        { socketPath: this.apiPath, method, path, headers: { ...type, ...headers } },
        resolve,
      );
      request.on('error', reject);
      request.end(bytes);
    });
  }

  async call(method: string, path: string, options: ApiOptions = {}): Promise<ApiAnswer> {
    const response = await this.open(method, path, options);
    const type = response.headers['content-type'];
    const isEmpty = response.statusCode === 204 || method === 'HEAD';
    if (isEmpty) response.resume();
    const body = isEmpty ? {} : ((await json(response)) as ApiAnswer['body']);
    return { status: response.statusCode ?? 0, type, body };
  }

  async close(): Promise<void> {
    await this.service.close();
    await this.store.close();
    rmSync(this.folder, { recursive: true });
  }
}

/** A new store, closed. */
export async function newStoreDevice(): Promise<MemoryDevice> {
  const device = new MemoryDevice({ sizeBytes: 64 * MIB });
  await formatStore({ kind: 'device', device });
  return device.reopen();
}

async function startOrClose(store: Store, options: ServiceOptions): Promise<Service> {
  try {
    return await Service.start(options);
  } catch (error) {
    await store.close();
    throw error;
  }
}
