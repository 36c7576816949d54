/**
 * The state machine of one connection, without sockets: chunks of bytes in, pieces of bytes out.
 *
 * Life: greeting -> handshake -> transmission -> ending (what was begun is answered, nothing more
 * is read) -> ended. The peer may be gone at any moment: then what is under way ends unanswered.
 *
 * 1. However the stream is cut into chunks, the client sees the same replies.
 * 2. Replies of one turn leave together: at the end of the chunk that brought the requests, or of
 *    the turn in which the disk was done.
 * 3. While a request waits for memory, or the client does not take its replies, nothing is read.
 * 4. Bytes that came behind a STARTTLS in the clear are nobody's: the session ends.
 * 5. `detached` is told once, after the connection is gone and its last request has ended.
 */
import type { Clock, Timer } from '../../env/clock.js';
import type { BufferPool } from './buffer-pool.js';
import { ByteSource } from './byte-source.js';
import type { ExportTable, NbdConnection } from './exports.js';
import { type Agreement, Handshake, type TlsMode } from './handshake.js';
import type { NbdLimits } from './limits.js';
import type { Holder, MemoryAccount, MemoryBudget } from './memory-budget.js';
import { type ByteSink, Outbox } from './outbox.js';
import type { RequestCounts } from './request-work.js';
import type { Step } from './step.js';
import { Transmission } from './transmission.js';

/** In the middle of a long run of requests so many bytes of replies leave already. */
const FLUSH_BYTES = 256 * 1024;

/** The connection as the session sees it: a socket, or a simulated one. */
export interface Peer extends ByteSink {
  /** For people: 'unix', or an address. */
  readonly name: string;
  /** No more chunks, please; some may come all the same. */
  pause(): void;
  resume(): void;
  /** What was handed over leaves in the clear; all that is sent or received later is encrypted. */
  startTls(): void;
  /** Closes once everything handed over is sent. `closed` follows. */
  end(): void;
  /** Closes now. `closed` follows. */
  destroy(): void;
}

export interface SessionOptions {
  readonly id: number;
  readonly exports: ExportTable;
  readonly peer: Peer;
  readonly budget: MemoryBudget;
  readonly pool: BufferPool;
  readonly clock: Clock;
  readonly tls?: TlsMode | undefined;
  /** Why the session was ended by the server, when the client did not ask for it. */
  readonly onRefused: (reason: string) => void;
  /** The connection is gone and nothing of it is under way. */
  readonly onDone: () => void;
}

export interface NbdConnectionInfo {
  readonly id: number;
  readonly peer: string;
  readonly state: SessionState;
  /** Undefined before transmission. */
  readonly exportName: string | undefined;
  readonly requestsInFlight: number;
  readonly heldBytes: number;
  readonly unsentBytes: number;
  readonly counts: Readonly<RequestCounts> | undefined;
}

export type SessionState = 'handshake' | 'transmission' | 'ending' | 'ended';

export class Session implements Holder {
  readonly #options: SessionOptions;
  readonly #peer: Peer;
  readonly #limits: NbdLimits;
  readonly #source = new ByteSource();
  readonly #account: MemoryAccount;
  readonly #outbox: Outbox;
  readonly #handshake: Handshake;
  #transmission: Transmission | undefined;
  #connection: NbdConnection | undefined;
  #state: SessionState = 'handshake';
  #isGone = false;
  #isDone = false;
  #isInputOver = false;
  #isParsing = false;
  #isStalled = false;
  #isPaused = false;
  #isTurnDue = false;
  #movedBytes = 0;
  #handshakeTimer: Timer | undefined;

  constructor(options: SessionOptions) {
    this.#options = options;
    const { peer, budget, pool, exports } = options;
    this.#peer = peer;
    this.#limits = budget.limits;
    this.#account = budget.open(this);
    const onSent = (bytes: number): void => {
      this.#movedBytes += bytes;
      this.#scheduleTurn();
    };
    this.#outbox = new Outbox({ sink: peer, pool, account: this.#account, onSent });
    this.#handshake = new Handshake({
      exports,
      optionsMax: this.#limits.optionsMax,
      tls: options.tls ?? 'off',
      send: (bytes) => this.#outbox.append(bytes),
    });
  }

  /** Greets the client. */
  start(): void {
    this.#handshake.greet();
    this.#outbox.flush();
    const { handshakeMs } = this.#limits;
    this.#handshakeTimer = this.#options.clock.setTimer(handshakeMs, () => {
      this.evict(`no export was entered in ${handshakeMs} ms`);
    });
  }

  /** The client sent this. The session owns the chunk from here on. */
  receive(chunk: Uint8Array): void {
    this.#movedBytes += chunk.length;
    if (this.#state === 'ending' || this.#state === 'ended') return;
    this.#source.push(chunk);
    if (!this.#isStalled) this.#run();
  }

  /** The client sends no more: what it asked for is answered. */
  endOfInput(): void {
    this.#isInputOver = true;
    if (!this.#isStalled) this.#beginEnding();
  }

  /** The connection is gone: nothing that is sent arrives. */
  closed(): void {
    if (this.#isGone) return;
    this.#isGone = true;
    this.#beginEnding();
    this.#state = 'ended';
    this.#outbox.close();
    this.#transmission?.close();
    this.#endIfDone();
  }

  /** Answers what was begun, then closes. */
  shutdown(): void {
    this.#beginEnding();
  }

  get info(): NbdConnectionInfo {
    return {
      id: this.#options.id,
      peer: this.#peer.name,
      state: this.#state,
      exportName: this.#connection?.exportName,
      requestsInFlight: this.#transmission?.inFlight ?? 0,
      heldBytes: this.#account.usedBytes,
      unsentBytes: this.#outbox.unsentBytes,
      counts: this.#transmission?.counts,
    };
  }

  // What the memory budget asks and tells.

  get movedBytes(): number {
    return this.#movedBytes;
  }

  get awaitsClient(): boolean {
    return this.#outbox.unsentBytes > 0 || (this.#transmission?.awaitsPayload ?? false);
  }

  wake(): void {
    this.#turn();
  }

  evict(reason: string): void {
    if (this.#state === 'ended') return;
    this.#options.onRefused(reason);
    this.#beginEnding();
    this.#peer.destroy();
  }

  /** Parses what there is, as far as it goes, and sends the replies. */
  #run(): void {
    if (this.#isParsing) return;
    this.#isParsing = true;
    this.#isStalled = false;
    const step = this.#parse();
    this.#isParsing = false;
    this.#source.settle();
    this.#outbox.flush();
    if (step === 'disconnect') {
      this.#beginEnding();
    } else if (step === 'stalled') {
      this.#isStalled = true;
      this.#pauseInput(true);
    } else if (step === 'starttls') {
      this.#startTls();
    } else if (step === 'wait') {
      this.#pauseInput(false);
      if (this.#isInputOver) this.#beginEnding();
    } else if (step !== 'next') {
      this.#options.onRefused(step.reason);
      this.#violated();
    }
  }

  #parse(): Step {
    for (;;) {
      if (this.#outbox.readyBytes >= FLUSH_BYTES) this.#outbox.flush();
      if (this.#outbox.unsentBytes >= this.#limits.unsentBytesMax) return 'stalled';
      const step =
        this.#transmission === undefined
          ? this.#handshake.step(this.#source)
          : this.#transmission.step(this.#source);
      if (step !== 'next') return step;
      if (this.#state === 'handshake') this.#enterIfAgreed();
      // A client may be disconnected by what its own request brought about.
      if (this.#state !== 'handshake' && this.#state !== 'transmission') return 'next';
    }
  }

  #enterIfAgreed(): void {
    const { agreement } = this.#handshake;
    if (agreement === undefined) return;
    this.#state = 'transmission';
    this.#handshakeTimer?.cancel();
    this.#transmission = new Transmission({
      agreement,
      outbox: this.#outbox,
      pool: this.#options.pool,
      account: this.#account,
      requestsMax: this.#limits.requestsMax,
      onEnded: () => this.#scheduleTurn(),
    });
    this.#connection = this.#connectionOf(agreement);
    this.#options.exports.attached?.(this.#connection);
  }

  #connectionOf(agreement: Agreement): NbdConnection {
    const info = (): NbdConnectionInfo => this.info;
    return {
      id: this.#options.id,
      peer: this.#peer.name,
      exportName: agreement.name,
      target: agreement.target,
      get requestsInFlight() {
        return info().requestsInFlight;
      },
      get heldBytes() {
        return info().heldBytes;
      },
      disconnect: () => this.shutdown(),
    };
  }

  /** All that ends in this turn is dealt with once, at its end. */
  #scheduleTurn(): void {
    if (this.#isTurnDue) return;
    this.#isTurnDue = true;
    queueMicrotask(() => {
      this.#isTurnDue = false;
      this.#turn();
    });
  }

  #turn(): void {
    if (this.#isStalled) this.#run();
    else this.#outbox.flush();
    if (this.#state === 'ending' || this.#state === 'ended') this.#endIfDone();
  }

  #pauseInput(isPaused: boolean): void {
    if (this.#isPaused === isPaused) return;
    this.#isPaused = isPaused;
    if (isPaused) this.#peer.pause();
    else this.#peer.resume();
  }

  #startTls(): void {
    if (this.#source.availableBytes > 0) {
      this.#options.onRefused('bytes behind STARTTLS in the clear');
      this.#violated();
    } else {
      this.#peer.startTls();
    }
  }

  /** After a violation the stream means nothing any more: replies under way are dropped. */
  #violated(): void {
    if (this.#state === 'ended') return;
    this.#beginEnding();
    if (this.#transmission !== undefined && this.#transmission.inFlight > 0) this.#peer.destroy();
  }

  #beginEnding(): void {
    if (this.#state === 'ending' || this.#state === 'ended') return;
    this.#state = 'ending';
    this.#isStalled = false;
    this.#handshakeTimer?.cancel();
    this.#endIfDone();
  }

  #endIfDone(): void {
    if (this.#transmission !== undefined && this.#transmission.inFlight > 0) return;
    this.#outbox.flush();
    if (this.#state === 'ending') {
      this.#state = 'ended';
      this.#peer.end();
    }
    if (!this.#isGone || this.#isDone) return;
    this.#isDone = true;
    // Replies that were made after the connection was gone took a slab.
    this.#outbox.close();
    this.#account.close();
    if (this.#connection !== undefined) this.#options.exports.detached?.(this.#connection);
    this.#options.onDone();
  }
}
