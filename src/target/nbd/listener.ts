/**
 * Serves NBD on a unix socket, on TCP, or both: owns the sockets, one session for each.
 *
 * 1. A connection beyond `connectionsMax` is closed at once.
 * 2. Replies handed over in one go leave in one writev; a socket's buffers are given back when the
 *    kernel has taken the bytes, or when the socket is gone.
 * 3. `close` takes no new connections, answers what was begun, and resolves when the last
 *    connection is gone. A client that does not take its last replies and go in `drainMs` is cut
 *    off; the disk is waited for.
 * 4. A socket file is replaced only if nobody listens on it (env/listen.ts).
 */
import { createServer, type Server, type Socket } from 'node:net';
import { invariant } from '../../base/invariant.js';
import type { Clock } from '../../env/clock.js';
import { type ListenAddress, listenAt } from '../../env/listen.js';
import { type LogSink, silentLog } from '../../env/log-sink.js';
import { systemClock } from '../../env/system-clock.js';
import { BufferPool } from './buffer-pool.js';
import type { ExportTable } from './exports.js';
import { DEFAULT_NBD_LIMITS, type NbdLimits } from './limits.js';
import { MemoryBudget } from './memory-budget.js';
import { type NbdConnectionInfo, Session } from './session.js';
import { SocketPeer } from './socket-peer.js';
import type { NbdTls } from './tls.js';

export interface NbdServerOptions {
  readonly exports: ExportTable;
  /** Listens on this unix socket. */
  readonly socketPath?: string;
  /** Listens on this TCP port too; 0 takes a free one. */
  readonly port?: number;
  /** Address for TCP; 127.0.0.1 by default. */
  readonly host?: string;
  readonly limits?: Partial<NbdLimits>;
  readonly clock?: Clock;
  readonly log?: LogSink;
  /** Replace a socket file that a server which is gone has left; else it is refused. */
  readonly replaceSocketFile?: boolean;
  /** Listens here, too. */
  readonly addresses?: readonly ListenAddress[];
  /** Memory of all servers that share it; default its own. */
  readonly memory?: NbdMemory;
  /** Default: none. */
  readonly tls?: NbdTls | undefined;
}

/** What the connections of one server, or of several, have together. */
export interface NbdMemory {
  readonly budget: MemoryBudget;
  readonly pool: BufferPool;
  /** A number for a new connection that none had before. */
  nextId(): number;
}

/** @param limits  hold for each server that takes this memory */
export function nbdMemory(limits: Partial<NbdLimits> = {}, clock = systemClock): NbdMemory {
  const budget = new MemoryBudget({ ...DEFAULT_NBD_LIMITS, ...limits }, clock);
  let lastId = 0;
  return { budget, pool: new BufferPool(), nextId: () => ++lastId };
}

export interface NbdServer {
  /** The TCP port in use, if there is one. */
  readonly port: number | undefined;
  connections(): NbdConnectionInfo[];
  /** Bytes that all connections hold in buffers. */
  heldBytes(): number;
  close(): Promise<void>;
}

/**
 * Starts to listen.
 *
 * @throws {StoreError} in-use: somebody listens there; device: the address cannot be used
 */
export async function serveNbd(options: NbdServerOptions): Promise<NbdServer> {
  const listener = new Listener(options);
  try {
    await listener.listen();
  } catch (error) {
    await listener.close();
    throw error;
  }
  return listener;
}

class Listener implements NbdServer {
  readonly #options: NbdServerOptions;
  readonly #limits: NbdLimits;
  readonly #clock: Clock;
  readonly #log: LogSink;
  readonly #memory: NbdMemory;
  readonly #servers: Server[] = [];
  readonly #sessions = new Map<number, Session>();
  #isClosing = false;
  #onIdle: (() => void) | undefined;

  constructor(options: NbdServerOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#log = options.log ?? silentLog;
    this.#memory = options.memory ?? nbdMemory(options.limits, this.#clock);
    this.#limits = this.#memory.budget.limits;
  }

  async listen(): Promise<void> {
    const { socketPath, host, port, replaceSocketFile = false, addresses = [] } = this.#options;
    const all = [...addresses];
    if (socketPath !== undefined) {
      all.push({ kind: 'unix', path: socketPath, replaceStale: replaceSocketFile });
    }
    if (port !== undefined) all.push({ kind: 'tcp', host: host ?? '127.0.0.1', port });
    invariant(all.length > 0, 'a server listens somewhere');
    for (const address of all) await this.#listenAt(address);
  }

  get port(): number | undefined {
    for (const server of this.#servers) {
      const address = server.address();
      if (typeof address === 'object' && address !== null) return address.port;
    }
    return undefined;
  }

  connections(): NbdConnectionInfo[] {
    return [...this.#sessions.values()].map((session) => session.info);
  }

  heldBytes(): number {
    return this.#memory.budget.usedBytes;
  }

  async close(): Promise<void> {
    this.#isClosing = true;
    const closed = this.#servers.map((server) => new Promise((done) => server.close(done)));
    for (const session of this.#sessions.values()) session.shutdown();
    if (this.#sessions.size > 0) {
      await new Promise<void>((resolve) => {
        this.#onIdle = resolve;
      });
    }
    await Promise.all(closed);
  }

  async #listenAt(address: ListenAddress): Promise<void> {
    const server = createServer({ allowHalfOpen: true, noDelay: true, keepAlive: true });
    server.on('connection', (socket: Socket) => this.#accept(socket));
    await listenAt(server, address);
    // Running out of descriptors, say: the server goes on with the connections it has.
    server.on('error', (error) => this.#warn('nbd-accept-failed', error.message));
    this.#servers.push(server);
  }

  #accept(socket: Socket): void {
    if (this.#isClosing || this.#sessions.size >= this.#limits.connectionsMax) {
      this.#warn('nbd-refused', `a connection beyond ${this.#limits.connectionsMax} was closed`);
      socket.destroy();
      return;
    }
    const id = this.#memory.nextId();
    const { tls } = this.#options;
    const onRefused = (reason: string): void =>
      this.#warn('nbd-cut-off', `client ${id} (${peer.name}): ${reason}`);
    const peer = new SocketPeer({
      socket,
      clock: this.#clock,
      lingerMs: this.#limits.drainMs,
      tls,
      onRefused,
    });
    const session = new Session({
      id,
      peer,
      tls: tls?.mode,
      exports: this.#options.exports,
      ...this.#memory,
      clock: this.#clock,
      onRefused,
      onDone: () => {
        this.#sessions.delete(id);
        if (this.#sessions.size === 0) this.#onIdle?.();
      },
    });
    this.#sessions.set(id, session);
    peer.attach(session);
    session.start();
  }

  #warn(event: string, message: string): void {
    this.#log({ level: 'warn', event, message });
  }
}
