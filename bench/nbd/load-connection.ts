/**
 * One connection of the load generator: keeps `depth` requests under way and counts the replies.
 *
 * It costs little, so that the server is what is measured: what a chunk of replies allows to ask
 * is sent in one go, requests lie ready in one buffer (a slot each, used again when its reply is
 * there, so that no byte under way changes), and what is read lands in one buffer and is not looked
 * at. Simple replies only: all servers speak them.
 *
 * Source: proto.md, "Newstyle negotiation", "Request message", "Simple reply message".
 */
import { connect, type Socket } from 'node:net';
import { nowMs, QuickRandom } from '../harness/timing.js';

export interface LoadJob {
  /**
   * write-flush: each write is followed by a FLUSH before the slot goes on. mixed: one in four is a
   * write.
   */
  readonly kind: 'read' | 'write' | 'write-flush' | 'mixed';
  readonly order: 'random' | 'sequential';
  readonly requestBytes: number;
  readonly spanBytes: number;
  /** Requests under way. */
  readonly depth: number;
  /** Ends after so long, or after so many operations. */
  readonly ms?: number;
  readonly operations?: number;
  /** A FLUSH at the end, within the time that counts. */
  readonly endsWithFlush?: boolean;
  readonly seed: number;
}

export interface LoadResult {
  readonly operations: number;
  readonly ms: number;
  /** Longest time that an operation took. */
  readonly worstMs: number;
}

const GREETING_BYTES = 18;
const OPTION_REPLY_BYTES = 20;
const REQUEST_BYTES = 28;
const REPLY_BYTES = 16;
/** What arrives is looked at at once, so that all connections share it. */
const RECEIVED = new Uint8Array(256 * 1024);
const READ = 0;
const WRITE = 1;
const FLUSH = 3;
const OPT_GO = 7;
const REP_ACK = 1;

export class LoadConnection {
  readonly #socket: Socket;
  readonly #header = Buffer.alloc(REPLY_BYTES);
  #onBytes: (bytes: Uint8Array) => void = () => undefined;
  #run: LoadRun | undefined;
  #fail: (error: Error) => void = () => undefined;
  #headerBytes = 0;
  #payloadLeft = 0;

  /** @throws if the server has no such export */
  static async open(socketPath: string, exportName: string): Promise<LoadConnection> {
    const connection = new LoadConnection(socketPath);
    await connection.#handshake(exportName);
    return connection;
  }

  private constructor(socketPath: string) {
    const callback = (count: number): boolean => {
      this.#onBytes(RECEIVED.subarray(0, count));
      return true;
    };
    this.#socket = connect({ path: socketPath, onread: { buffer: RECEIVED, callback } });
    this.#socket.on('error', (error) => this.#fail(error));
    this.#socket.on('close', () => this.#fail(new Error('the server closed the connection')));
  }

  #handshake(exportName: string): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#fail = reject;
      let received = Buffer.alloc(0);
      let isGreeted = false;
      this.#onBytes = (bytes) => {
        received = Buffer.concat([received, bytes]);
        if (!isGreeted) {
          if (received.length < GREETING_BYTES) return;
          isGreeted = true;
          received = received.subarray(GREETING_BYTES);
          this.#socket.write(goRequest(exportName));
        }
        const outcome = goOutcome(received);
        if (outcome === undefined) return;
        this.#onBytes = (replies) => this.#receive(replies);
        if (outcome === REP_ACK) resolve();
        else reject(new Error(`${exportName}: option reply ${outcome.toString(16)}`));
      };
    });
  }

  /** Does the job; one at a time. */
  run(job: LoadJob): Promise<LoadResult> {
    return new Promise((resolve, reject) => {
      this.#fail = reject;
      const send = (bytes: Uint8Array): void => void this.#socket.write(bytes);
      this.#run = new LoadRun(job, send, (result) => {
        this.#run = undefined;
        resolve(result);
      });
      this.#run.start();
    });
  }

  close(): void {
    this.#fail = () => undefined;
    this.#socket.destroy();
  }

  #receive(bytes: Uint8Array): void {
    const run = this.#run;
    if (run === undefined) {
      this.#fail(new Error('a reply that nobody asked for'));
      return;
    }
    let at = 0;
    for (;;) {
      const skipped = Math.min(this.#payloadLeft, bytes.length - at);
      this.#payloadLeft -= skipped;
      at += skipped;
      if (this.#payloadLeft > 0) break;
      if (this.#headerBytes === REPLY_BYTES) {
        this.#headerBytes = 0;
        run.done(this.#header.readUInt32BE(12));
      }
      if (at === bytes.length) break;
      const part = Math.min(REPLY_BYTES - this.#headerBytes, bytes.length - at);
      this.#header.set(bytes.subarray(at, at + part), this.#headerBytes);
      this.#headerBytes += part;
      at += part;
      if (this.#headerBytes < REPLY_BYTES) break;
      const error = this.#header.readUInt32BE(4);
      if (error !== 0) {
        this.#fail(new Error(`the server answered with error ${error}`));
        return;
      }
      this.#payloadLeft = run.payloadBytesOf(this.#header.readUInt32BE(12));
    }
    run.sendReady();
  }
}

function goRequest(exportName: string): Buffer {
  const name = Buffer.from(exportName);
  const bytes = Buffer.alloc(4 + 16 + 4 + name.length + 2);
  bytes.writeUInt32BE(3, 0); // fixed newstyle, no zeroes
  bytes.write('IHAVEOPT', 4, 'latin1');
  bytes.writeUInt32BE(OPT_GO, 12);
  bytes.writeUInt32BE(6 + name.length, 16);
  bytes.writeUInt32BE(name.length, 20);
  name.copy(bytes, 24);
  return bytes;
}

/** Type of the last option reply; undefined if it is not all there. */
function goOutcome(bytes: Buffer): number | undefined {
  for (let at = 0; bytes.length >= at + OPTION_REPLY_BYTES; ) {
    const type = bytes.readUInt32BE(at + 12);
    at += OPTION_REPLY_BYTES + bytes.readUInt32BE(at + 16);
    if (at <= bytes.length && (type === REP_ACK || type >= 0x8000_0000)) return type;
  }
  return undefined;
}

/** One job under way on one connection. */
class LoadRun {
  readonly #job: LoadJob;
  readonly #send: (bytes: Uint8Array) => void;
  readonly #ended: (result: LoadResult) => void;
  readonly #random: QuickRandom;
  readonly #slotBytes: number;
  readonly #requests: Buffer;
  /** Per slot: when its operation began, and what was asked last. */
  readonly #beganMs: Float64Array;
  readonly #asked: Uint8Array;
  readonly #isReady: Uint8Array;
  #underWay = 0;
  #begun = 0;
  #operations = 0;
  #worstMs = 0;
  #startMs = 0;
  #nextBlock = 0;

  constructor(
    job: LoadJob,
    send: (bytes: Uint8Array) => void,
    ended: (result: LoadResult) => void,
  ) {
    const { depth, kind, requestBytes, seed } = job;
    this.#job = job;
    this.#send = send;
    this.#ended = ended;
    this.#random = new QuickRandom(seed);
    this.#slotBytes = REQUEST_BYTES + (kind === 'read' ? 0 : requestBytes);
    this.#requests = Buffer.alloc(depth * this.#slotBytes);
    this.#beganMs = new Float64Array(depth);
    this.#asked = new Uint8Array(depth);
    this.#isReady = new Uint8Array(depth);
    for (let at = 0; at < this.#requests.length; at += 4) {
      this.#requests.writeUInt32LE(this.#random.below(2 ** 32), at);
    }
  }

  start(): void {
    this.#startMs = nowMs();
    for (let slot = 0; slot < this.#job.depth; slot++) this.#begin(slot);
    this.sendReady();
  }

  /** Bytes behind the header of the reply to what this slot asked. */
  payloadBytesOf(slot: number): number {
    return this.#asked[slot] === READ ? this.#job.requestBytes : 0;
  }

  /** The reply to what this slot asked is there. */
  done(slot: number): void {
    this.#underWay--;
    if (this.#job.kind === 'write-flush' && this.#asked[slot] === WRITE) {
      this.#ask(slot, FLUSH, 0);
      return;
    }
    if (this.#isOver && this.#asked[slot] === FLUSH && this.#job.kind !== 'write-flush') {
      this.#end();
      return;
    }
    this.#operations++;
    this.#worstMs = Math.max(this.#worstMs, nowMs() - (this.#beganMs[slot] as number));
    this.#begin(slot);
    if (this.#underWay > 0) return;
    if (this.#job.endsWithFlush === true) this.#ask(slot, FLUSH, 0);
    else this.#end();
  }

  /** Sends what has become ready, slots that lie side by side in one piece. */
  sendReady(): void {
    const { depth } = this.#job;
    for (let slot = 0; slot < depth; slot++) {
      if (this.#isReady[slot] === 0) continue;
      const from = slot * this.#slotBytes;
      let to = from;
      // What leaves room in its slot ends the piece: a FLUSH, a read among writes.
      for (let isFull = true; slot < depth && isFull && this.#isReady[slot] === 1; slot++) {
        this.#isReady[slot] = 0;
        const bytes = this.#requestBytes(this.#asked[slot] as number);
        isFull = bytes === this.#slotBytes;
        to = slot * this.#slotBytes + bytes;
      }
      slot--;
      this.#send(this.#requests.subarray(from, to));
    }
  }

  #requestBytes(command: number): number {
    return command === WRITE ? REQUEST_BYTES + this.#job.requestBytes : REQUEST_BYTES;
  }

  get #isOver(): boolean {
    const { ms = Number.POSITIVE_INFINITY, operations = Number.POSITIVE_INFINITY } = this.#job;
    return this.#begun >= operations || nowMs() - this.#startMs >= ms;
  }

  #begin(slot: number): void {
    const { kind, order, requestBytes, spanBytes } = this.#job;
    if (this.#isOver) return;
    this.#begun++;
    this.#beganMs[slot] = nowMs();
    const blocks = spanBytes / requestBytes;
    const block = order === 'random' ? this.#random.below(blocks) : this.#nextBlock++ % blocks;
    const isRead = kind === 'read' || (kind === 'mixed' && this.#random.below(4) > 0);
    this.#ask(slot, isRead ? READ : WRITE, block * requestBytes);
  }

  #ask(slot: number, command: number, offset: number): void {
    const bytes = this.#requests;
    const at = slot * this.#slotBytes;
    bytes.writeUInt32BE(0x25609513, at);
    bytes.writeUInt32BE(command, at + 4);
    bytes.writeUInt32BE(0, at + 8);
    bytes.writeUInt32BE(slot, at + 12);
    bytes.writeUInt32BE(Math.floor(offset / 2 ** 32), at + 16);
    bytes.writeUInt32BE(offset % 2 ** 32, at + 20);
    bytes.writeUInt32BE(command === FLUSH ? 0 : this.#job.requestBytes, at + 24);
    // No two writes of a slot are equal.
    if (command === WRITE) bytes.writeUInt32LE(this.#begun, at + REQUEST_BYTES);
    this.#asked[slot] = command;
    this.#isReady[slot] = 1;
    this.#underWay++;
  }

  #end(): void {
    this.#ended({
      operations: this.#operations,
      ms: nowMs() - this.#startMs,
      worstMs: this.#worstMs,
    });
  }
}
