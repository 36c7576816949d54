/**
 * A connection without sockets for tests of the NBD session: keeps what the server sends, and takes
 * it at once or when the test says so.
 */
import assert from 'node:assert/strict';
import type { Clock, Timer } from '../../src/env/clock.js';
import { BufferPool } from '../../src/target/nbd/buffer-pool.js';
import type { ExportTable, NbdConnection } from '../../src/target/nbd/exports.js';
import type { TlsMode } from '../../src/target/nbd/handshake.js';
import { DEFAULT_NBD_LIMITS, type NbdLimits } from '../../src/target/nbd/limits.js';
import { MemoryBudget } from '../../src/target/nbd/memory-budget.js';
import { type Peer, Session } from '../../src/target/nbd/session.js';
import type { BlockTarget } from '../../src/vdisk/block-target.js';
import { type Reply, ReplyReader } from './nbd-replies.js';
import {
  type EnterOptions,
  enter,
  requestOf,
  styleOf,
  type TestRequest,
  type TestStyle,
} from './nbd-script.js';

/** Time that stands still until the test moves it. */
export class ManualClock implements Clock {
  #nowMs = 0;
  readonly #timers = new Set<{ readonly atMs: number; readonly callback: () => void }>();

  nowMs(): number {
    return this.#nowMs;
  }

  wallMs(): number {
    return this.#nowMs;
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    const timer = { atMs: this.#nowMs + delayMs, callback };
    this.#timers.add(timer);
    return { cancel: () => this.#timers.delete(timer) };
  }

  yield(): Promise<void> {
    return turns();
  }

  advance(ms: number): void {
    this.#nowMs += ms;
    for (const timer of [...this.#timers]) {
      if (timer.atMs > this.#nowMs || !this.#timers.delete(timer)) continue;
      timer.callback();
    }
  }
}

/** Lets all promise reactions run. */
export function turns(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

export class TestPeer implements Peer {
  readonly name = 'test';
  /** While true the client takes nothing. */
  isHolding = false;
  isPaused = false;
  isEncrypted = false;
  isEnded = false;
  isDestroyed = false;
  /** One entry for each writev. */
  readonly sent: number[] = [];
  #bytes: Buffer[] = [];
  readonly #held: (() => void)[] = [];
  session: Session | undefined;

  send(pieces: readonly Uint8Array[], sent: () => void): void {
    assert.ok(!this.isEnded, 'nothing is sent after the end');
    this.sent.push(pieces.length);
    // Copied when the socket takes them: a buffer that is used again too early shows.
    const take = (): void => {
      for (const piece of pieces) this.#bytes.push(Buffer.from(piece));
      sent();
    };
    if (this.isHolding) this.#held.push(take);
    else take();
  }

  /** The client takes what was held, and from now on everything. */
  takeHeld(): void {
    this.isHolding = false;
    for (const take of this.#held.splice(0)) take();
    if (this.isEnded) queueMicrotask(() => this.session?.closed());
  }

  pause(): void {
    this.isPaused = true;
  }

  resume(): void {
    this.isPaused = false;
  }

  startTls(): void {
    this.isEncrypted = true;
  }

  end(): void {
    this.isEnded = true;
    if (this.#held.length === 0) queueMicrotask(() => this.session?.closed());
  }

  destroy(): void {
    if (this.isDestroyed) return;
    this.isDestroyed = true;
    queueMicrotask(() => {
      this.#bytes = [];
      for (const take of this.#held.splice(0)) take();
      this.session?.closed();
    });
  }

  /** What has arrived since the last call. */
  takeBytes(): Buffer {
    return Buffer.concat(this.#bytes.splice(0));
  }
}

/** Exports by name, and who was attached and detached. */
export class TestExports implements ExportTable {
  readonly defaultName: string | undefined;
  readonly attachedNames: string[] = [];
  readonly detachedNames: string[] = [];
  readonly connections: NbdConnection[] = [];
  readonly #targets: ReadonlyMap<string, BlockTarget>;

  constructor(targets: readonly BlockTarget[], defaultName?: string) {
    this.#targets = new Map(targets.map((target) => [target.name, target]));
    this.defaultName = defaultName;
  }

  list(): string[] {
    return [...this.#targets.keys()];
  }

  open(name: string): BlockTarget | undefined {
    return this.#targets.get(name);
  }

  attached(connection: NbdConnection): void {
    this.attachedNames.push(connection.exportName);
    this.connections.push(connection);
  }

  detached(connection: NbdConnection): void {
    this.detachedNames.push(connection.exportName);
  }
}

/** A server's shared parts, and connections to it. */
export class TestServer {
  readonly clock = new ManualClock();
  readonly limits: NbdLimits;
  readonly budget: MemoryBudget;
  readonly pool = new BufferPool();
  readonly exports: TestExports;
  readonly refusals: string[] = [];
  #idCount = 0;

  readonly #tls: TlsMode;

  constructor(exports: TestExports, limits: Partial<NbdLimits> = {}, tls: TlsMode = 'off') {
    this.exports = exports;
    this.#tls = tls;
    this.limits = { ...DEFAULT_NBD_LIMITS, ...limits };
    this.budget = new MemoryBudget(this.limits, this.clock);
  }

  connect(): TestClient {
    const peer = new TestPeer();
    const client = new TestClient(peer);
    const session = new Session({
      id: ++this.#idCount,
      exports: this.exports,
      peer,
      budget: this.budget,
      pool: this.pool,
      clock: this.clock,
      tls: this.#tls,
      onRefused: (reason) => this.refusals.push(reason),
      onDone: () => {
        client.isDone = true;
      },
    });
    peer.session = session;
    client.session = session;
    session.start();
    return client;
  }

  /** A client in transmission whose handshake replies were read. */
  enter(name: string, options: EnterOptions = {}): TestClient {
    const client = this.connect();
    client.style = styleOf(options);
    client.send(enter(name, options));
    client.peer.takeBytes();
    assert.equal(client.state, 'transmission');
    return client;
  }
}

export class TestClient {
  readonly peer: TestPeer;
  session: Session | undefined;
  isDone = false;
  /** What it has agreed on. */
  style: TestStyle = 'simple';
  readonly #open = new Map<bigint, TestRequest>();

  constructor(peer: TestPeer) {
    this.peer = peer;
  }

  get state(): string | undefined {
    return this.session?.info.state;
  }

  send(bytes: Uint8Array): void {
    this.session?.receive(bytes);
  }

  ask(...requests: TestRequest[]): void {
    for (const fields of requests) this.#open.set(fields.cookie, fields);
    this.send(Buffer.concat(requests.map((fields) => requestOf(this.style, fields))));
  }

  /** Replies that have arrived. */
  replies(): Reply[] {
    const reader = new ReplyReader(this.peer.takeBytes(), this.style);
    const replies: Reply[] = [];
    while (reader.restBytes > 0) replies.push(reader.reply(this.#open));
    return replies;
  }

  /** Asks, and waits for the one reply. */
  async call(fields: TestRequest): Promise<Reply> {
    this.ask(fields);
    await turns();
    const replies = this.replies();
    const [reply] = replies;
    assert.equal(replies.length, 1);
    assert.ok(reply !== undefined && reply.cookie === fields.cookie);
    return reply;
  }
}
