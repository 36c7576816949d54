/**
 * NBD connections of libnbd, in a process of their own (libnbd-clients.py): requests on any of
 * them, many at once, answered in any order.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { StoreError, type StoreErrorKind } from '../../src/base/store-error.js';

/** The libnbd binding belongs to Debian's own Python. */
const PYTHON = '/usr/bin/python3';
const PROGRAM = join(import.meta.dirname, 'libnbd-clients.py');
const REQUEST_BYTES = 36;
const ANSWER_BYTES = 12;
const FLAG_FUA = 1;

const OPERATIONS = {
  open: 'o',
  close: 'c',
  read: 'r',
  write: 'w',
  trim: 't',
  zero: 'z',
  flush: 'f',
  status: 's',
} as const;

export interface NbdRequest {
  readonly operation: keyof typeof OPERATIONS;
  readonly connection: number;
  readonly offset?: number;
  readonly length?: number;
  readonly fua?: boolean;
  /** What is written, or the URI to connect to. */
  readonly data?: Uint8Array;
}

/** What an errno of an NBD server means; every other one is the end of the connection. */
const KINDS: ReadonlyMap<number, StoreErrorKind> = new Map([
  [1, 'read-only'],
  [2, 'not-found'],
  [5, 'corrupt'],
  [22, 'invalid'],
  [28, 'out-of-space'],
  [108, 'not-found'],
]);

interface Waiting {
  readonly what: string;
  resolve(data: Buffer): void;
  reject(error: Error): void;
}

export class LibnbdClients {
  readonly #process: ChildProcess;
  readonly #waiting = new Map<number, Waiting>();
  #received: Buffer = Buffer.alloc(0);
  #said = '';
  #lastNumber = 0;
  #lastConnection = 0;

  constructor() {
    this.#process = spawn(PYTHON, [PROGRAM], { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#process.stdin?.on('error', () => undefined);
    this.#process.stdout?.on('data', (chunk: Buffer) => this.#receive(chunk));
    this.#process.stderr?.on('data', (chunk: Buffer) => {
      this.#said += chunk.toString();
    });
    this.#process.on('error', (error) => this.#end(`${PYTHON}: ${error.message}`));
    this.#process.on('close', () => this.#end(`the libnbd clients have ended: ${this.#said}`));
  }

  /** Connects to the export. @throws {StoreError} not-found, closed */
  async open(uri: string): Promise<number> {
    const connection = ++this.#lastConnection;
    await this.ask({ operation: 'open', connection, data: Buffer.from(uri) });
    return connection;
  }

  /** @throws {StoreError} what the server answered; closed: the connection is gone */
  ask({ operation, connection, offset = 0, length = 0, fua, data }: NbdRequest): Promise<Buffer> {
    const number = ++this.#lastNumber;
    const header = Buffer.alloc(REQUEST_BYTES);
    header.writeUInt32LE(number, 0);
    header.writeUInt32LE(connection, 4);
    header.write(OPERATIONS[operation], 8);
    header[9] = fua === true ? FLAG_FUA : 0;
    header.writeUInt32LE(data?.length ?? 0, 12);
    header.writeBigUInt64LE(BigInt(offset), 20);
    header.writeBigUInt64LE(BigInt(length), 28);
    return new Promise((resolve, reject) => {
      const what = `${operation} ${offset}+${data?.length ?? length}`;
      this.#waiting.set(number, { what, resolve, reject });
      // In one piece, copied: the caller may use its buffer again.
      this.#process.stdin?.write(data === undefined ? header : Buffer.concat([header, data]));
    });
  }

  async close(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return;
    const ended = once(this.#process, 'close');
    this.#process.kill('SIGKILL');
    await ended;
  }

  #receive(chunk: Buffer): void {
    let bytes = this.#received.length === 0 ? chunk : Buffer.concat([this.#received, chunk]);
    while (bytes.length >= ANSWER_BYTES) {
      const end = ANSWER_BYTES + bytes.readUInt32LE(8);
      if (bytes.length < end) break;
      this.#answer(bytes.readUInt32LE(0), bytes.readUInt32LE(4), bytes.subarray(ANSWER_BYTES, end));
      bytes = bytes.subarray(end);
    }
    this.#received = bytes;
  }

  #answer(number: number, errno: number, data: Buffer): void {
    const waiting = this.#waiting.get(number);
    if (waiting === undefined) throw new Error(`an answer to request ${number}, which has none`);
    this.#waiting.delete(number);
    if (errno === 0) waiting.resolve(data);
    else waiting.reject(new StoreError(KINDS.get(errno) ?? 'closed', `${waiting.what}: ${errno}`));
  }

  #end(why: string): void {
    for (const { what, reject } of this.#waiting.values()) {
      reject(new StoreError('closed', `${what}: ${why}`));
    }
    this.#waiting.clear();
  }
}
