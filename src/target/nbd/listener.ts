/**
 * Serves NBD on a unix socket, on TCP, or both: owns the sockets, one session for each.
 *
 * 1. A connection beyond `connectionsMax` is closed at once.
 * 2. Replies handed over in one go leave in one writev; a socket's buffers are given back when the
 *    kernel has taken the bytes, or when the socket is gone.
 * 3. `close` takes no new connections, answers what was begun, and resolves when the last
 *    connection is gone. A client that does not take its last replies and go in `drainMs` is cut
 *    off; the disk is waited for.
 * 4. A socket file is replaced only if nobody listens on it.
 */
import { connect, createServer, type Server, type Socket } from 'node:net';
import { invariant } from '../../base/invariant.js';
import { StoreError } from '../../base/store-error.js';
import type { Clock, Timer } from '../../env/clock.js';
import { type LogSink, silentLog } from '../../env/log-sink.js';
import { systemClock } from '../../env/system-clock.js';
import { BufferPool } from './buffer-pool.js';
import type { ExportTable } from './exports.js';
import { DEFAULT_NBD_LIMITS, type NbdLimits } from './limits.js';
import { MemoryBudget } from './memory-budget.js';
import { type NbdConnectionInfo, type Peer, Session } from './session.js';

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
  /** Deletes a socket file; without it a file that is left over is the caller's to delete. */
  readonly removeSocketFile?: (path: string) => Promise<void>;
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
  readonly #budget: MemoryBudget;
  readonly #pool = new BufferPool();
  readonly #servers: Server[] = [];
  readonly #sessions = new Map<number, Session>();
  #connectionCount = 0;
  #isClosing = false;
  #onIdle: (() => void) | undefined;

  constructor(options: NbdServerOptions) {
    this.#options = options;
    this.#limits = { ...DEFAULT_NBD_LIMITS, ...options.limits };
    this.#clock = options.clock ?? systemClock;
    this.#log = options.log ?? silentLog;
    this.#budget = new MemoryBudget(this.#limits, this.#clock);
  }

  async listen(): Promise<void> {
    const { socketPath, host, port } = this.#options;
    invariant(socketPath !== undefined || port !== undefined, 'a server listens somewhere');
    if (socketPath !== undefined) await this.#listenOnPath(socketPath);
    if (port !== undefined) await this.#listenOnPort(host ?? '127.0.0.1', port);
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
    return this.#budget.usedBytes;
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

  async #listenOnPath(path: string): Promise<void> {
    try {
      await this.#listenOn({ path });
      return;
    } catch (error) {
      if (!isSystemError(error, 'EADDRINUSE')) throw toListenError(path, error);
    }
    const { removeSocketFile } = this.#options;
    if (removeSocketFile === undefined || (await isListening(path))) {
      throw new StoreError('in-use', `socket ${path} is there already: another server's?`);
    }
    await removeSocketFile(path);
    try {
      await this.#listenOn({ path });
    } catch (error) {
      throw toListenError(path, error);
    }
  }

  async #listenOnPort(host: string, port: number): Promise<void> {
    try {
      await this.#listenOn({ host, port });
    } catch (error) {
      throw toListenError(`${host}:${port}`, error);
    }
  }

  #listenOn(where: { path: string } | { host: string; port: number }): Promise<void> {
    const server = createServer({ allowHalfOpen: true, noDelay: true, keepAlive: true });
    server.on('connection', (socket: Socket) => this.#accept(socket));
    return new Promise((resolve, reject) => {
      server.once('error', reject);
      server.listen(where, () => {
        server.off('error', reject);
        // Running out of descriptors, say: the server goes on with the connections it has.
        server.on('error', (error) => this.#warn('nbd-accept-failed', error.message));
        this.#servers.push(server);
        resolve();
      });
    });
  }

  #accept(socket: Socket): void {
    if (this.#isClosing || this.#sessions.size >= this.#limits.connectionsMax) {
      this.#warn('nbd-refused', `a connection beyond ${this.#limits.connectionsMax} was closed`);
      socket.destroy();
      return;
    }
    const id = ++this.#connectionCount;
    const peer = new SocketPeer(socket, this.#clock, this.#limits.drainMs);
    const session = new Session({
      id,
      peer,
      exports: this.#options.exports,
      budget: this.#budget,
      pool: this.#pool,
      clock: this.#clock,
      onRefused: (reason) => this.#warn('nbd-cut-off', `client ${id} (${peer.name}): ${reason}`),
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

/** A socket as a session's peer. */
class SocketPeer implements Peer {
  readonly name: string;
  readonly #socket: Socket;
  readonly #clock: Clock;
  readonly #lingerMs: number;
  #lingerTimer: Timer | undefined;

  constructor(socket: Socket, clock: Clock, lingerMs: number) {
    this.#socket = socket;
    this.#clock = clock;
    this.#lingerMs = lingerMs;
    const { remoteAddress, remotePort } = socket;
    this.name = remoteAddress === undefined ? 'unix' : `${remoteAddress}:${remotePort}`;
  }

  attach(session: Session): void {
    const socket = this.#socket;
    socket.on('data', (chunk: Buffer) => session.receive(chunk));
    socket.on('end', () => session.endOfInput());
    // 'close' follows; what went wrong is the client's business.
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.#lingerTimer?.cancel();
      session.closed();
    });
  }

  send(pieces: readonly Uint8Array[], sent: () => void): void {
    const lastIndex = pieces.length - 1;
    if (lastIndex > 0) this.#socket.cork();
    for (const [index, piece] of pieces.entries()) {
      if (index < lastIndex) this.#socket.write(piece);
      // Called once in any case, with an error if the socket is gone.
      else this.#socket.write(piece, () => sent());
    }
    if (lastIndex > 0) this.#socket.uncork();
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** Half-closes, so that the last replies arrive; a client that does not go then is cut off. */
  end(): void {
    if (this.#socket.destroyed) return;
    this.#socket.end();
    this.#socket.resume();
    this.#lingerTimer ??= this.#clock.setTimer(this.#lingerMs, () => this.destroy());
  }

  destroy(): void {
    this.#socket.destroy();
  }
}

/** True if somebody answers on the socket. */
function isListening(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path);
    probe.once('connect', () => {
      probe.destroy();
      resolve(true);
    });
    // Refused: the file is there, nobody is behind it. Anything else: leave it alone.
    probe.once('error', (error) => resolve(!isSystemError(error, 'ECONNREFUSED')));
  });
}

function isSystemError(error: unknown, code: string): boolean {
  return error instanceof Error && 'code' in error && error.code === code;
}

function toListenError(where: string, error: unknown): StoreError {
  const message = error instanceof Error ? error.message : String(error);
  const kind = isSystemError(error, 'EADDRINUSE') ? 'in-use' : 'device';
  return new StoreError(kind, `cannot listen on ${where}: ${message}`, { cause: error });
}
