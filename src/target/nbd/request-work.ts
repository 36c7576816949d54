/**
 * Carries out the requests of one connection and answers them, at once or when the target is done.
 *
 * 1. Each request is answered once, with its own cookie; none waits for another one's disk. A read
 *    from memory and a write into memory make no promise.
 * 2. A buffer that the target reads or fills is not lent again before the target is done with it.
 * 3. An error that is no StoreError is a bug and is thrown on: it ends the process.
 *
 * Source: proto.md, "Request types".
 */
import { isStoreError, type StoreError } from '../../base/store-error.js';
import { KIB, MIB } from '../../base/units.js';
import type { BlockTarget, WriteOptions } from '../../vdisk/block-target.js';
import type { BufferPool, Loan } from './buffer-pool.js';
import { ERRNO_OF_KIND } from './errno.js';
import type { Agreement } from './handshake.js';
import type { MemoryAccount } from './memory-budget.js';
import { collectStatus, type MetaContext, statusBytes } from './meta-context.js';
import type { Outbox } from './outbox.js';
import * as nbd from './protocol.js';
import { Replies } from './replies.js';
import type { Refusal } from './request-check.js';
import { readSparse, SPARSE_READ_BYTES_MIN } from './sparse-read.js';
import type { ChunkCodec, ContextStatus, Run } from './wire-chunks.js';
import type * as wire from './wire-transmission.js';

const FUA: WriteOptions = { fua: true };
const NO_FUA: WriteOptions = {};

const CACHE_PIECE_BYTES = 256 * KIB;
const CACHE_BYTES_MAX = 32 * MIB;

export interface RequestWorkOptions {
  readonly agreement: Agreement;
  readonly outbox: Outbox;
  readonly pool: BufferPool;
  readonly account: MemoryAccount;
  /** A request that was not answered at once has been answered now. */
  readonly onEnded: () => void;
}

/** What the client has asked for so far. */
export interface RequestCounts {
  reads: number;
  readBytes: number;
  writes: number;
  writtenBytes: number;
  /** Flush, trim, write zeroes, block status. */
  others: number;
  errors: number;
}

/** A chunk of the stream that pending writes still read from: its bytes are on the account. */
interface PinnedChunk {
  readonly bytes: Uint8Array;
  pins: number;
}

export class RequestWork {
  readonly #options: RequestWorkOptions;
  readonly #target: BlockTarget;
  readonly #outbox: Outbox;
  readonly #replies: Replies;
  #pinned: PinnedChunk | undefined;
  #inFlight = 0;
  readonly counts: RequestCounts = {
    reads: 0,
    readBytes: 0,
    writes: 0,
    writtenBytes: 0,
    others: 0,
    errors: 0,
  };

  constructor(options: RequestWorkOptions) {
    this.#options = options;
    this.#target = options.agreement.target;
    this.#outbox = options.outbox;
    this.#replies = new Replies(options.outbox, options.agreement.style);
  }

  /** Requests that were begun and are not answered. */
  get inFlight(): number {
    return this.#inFlight;
  }

  refuse(id: wire.RequestId, { errno, message }: Refusal): void {
    this.counts.errors++;
    this.#replies.failed(id, errno, message);
  }

  /** False, and nothing has happened, if there is no memory for the reply now. */
  read(request: wire.Request): boolean {
    const { length } = request;
    if (!this.#outbox.reserve(this.#replies.readHeaderBytes + length)) return false;
    this.counts.reads++;
    this.counts.readBytes += length;
    if (length === 0) {
      this.#outbox.cancel();
      this.#replies.done(request, true);
      return true;
    }
    const { chunks } = this.#replies;
    const isSparse = length >= SPARSE_READ_BYTES_MIN && (request.flags & nbd.NBD_CMD_FLAG_DF) === 0;
    if (chunks !== undefined && isSparse) this.#readSparse(request, chunks);
    else this.#readWhole(request);
    return true;
  }

  /** Writes a payload that lies in a loan of its own, or in this chunk of the stream. */
  write(request: wire.Request, data: Uint8Array, from: Loan | Uint8Array): void {
    const loan = from instanceof Uint8Array ? undefined : from;
    this.counts.writes++;
    this.counts.writtenBytes += data.length;
    let writing: void | Promise<void>;
    try {
      writing = this.#target.write(request.offset, data, optionsOf(request));
    } catch (error) {
      if (loan !== undefined) this.#options.pool.release(loan);
      this.#fail(request, toStoreError(error));
      return;
    }
    if (writing === undefined) {
      if (loan !== undefined) this.#options.pool.release(loan);
      this.#replies.done(request);
      return;
    }
    const pinned = from instanceof Uint8Array ? this.#pin(from) : undefined;
    const id = idOf(request);
    this.#follow(writing, (failure) => {
      if (loan !== undefined) this.#options.pool.release(loan);
      if (pinned !== undefined) this.#unpin(pinned);
      this.#end(id, failure);
    });
  }

  /** A write, trim or write-zeroes of no bytes. */
  nothing(id: wire.RequestId): void {
    this.#replies.done(id);
  }

  /** Flush, trim, write zeroes, cache. */
  other(request: wire.Request): void {
    this.counts.others++;
    let working: void | Promise<void>;
    try {
      working = this.#begin(request);
    } catch (error) {
      this.#fail(request, toStoreError(error));
      return;
    }
    if (working === undefined) {
      this.#replies.done(request);
      return;
    }
    const id = idOf(request);
    this.#follow(working, (failure) => this.#end(id, failure));
  }

  /**
   * What these contexts say of the range. False, and nothing has happened, if there is no memory
   * for the answer now.
   */
  status(request: wire.Request, contexts: readonly MetaContext[]): boolean {
    const { flags, offset, length } = request;
    const isOne = (flags & nbd.NBD_CMD_FLAG_REQ_ONE) !== 0;
    const range = { offset, length, isOne };
    const { account } = this.#options;
    const heldBytes = statusBytes(contexts, range);
    if (!account.take(heldBytes)) return false;
    this.counts.others++;
    const id = idOf(request);
    const asking = collectStatus(this.#target, contexts, range);
    let statuses: readonly ContextStatus[] = [];
    const known = asking.then((answer) => {
      statuses = answer;
    });
    this.#follow(known, (failure) => {
      account.give(heldBytes);
      if (failure === undefined) this.#replies.status(id, statuses);
      else this.#fail(id, failure);
    });
    return true;
  }

  #readWhole(request: wire.Request): void {
    const outbox = this.#outbox;
    const { bytes, at } = outbox;
    const { offset, length } = request;
    const start = at + this.#replies.readHeaderBytes;
    let reading: void | Promise<void>;
    try {
      reading = this.#target.read(offset, bytes.subarray(start, start + length));
    } catch (error) {
      outbox.cancel();
      this.#fail(request, toStoreError(error));
      return;
    }
    const run: Run = { offset, length, isLast: true };
    if (reading === undefined) {
      this.#replies.putReadHeader(bytes, at, request, run);
      outbox.commit();
      return;
    }
    const room = outbox.setAside();
    const id = idOf(request);
    this.#follow(reading, (failure) => {
      if (failure === undefined) {
        this.#replies.putReadHeader(bytes, at, id, run);
        outbox.commitRoom(room);
      } else {
        outbox.dropRoom(room);
        this.#fail(id, failure);
      }
    });
  }

  #readSparse(request: wire.Request, chunks: ChunkCodec): void {
    const outbox = this.#outbox;
    const { bytes, at } = outbox;
    const room = outbox.setAside();
    const id = idOf(request);
    const { offset, length } = request;
    const into = bytes.subarray(at, at + room.length);
    let replyBytes = 0;
    const reading = readSparse({ target: this.#target, id, chunks, offset, length, into });
    const filled = reading.then((filledBytes) => {
      replyBytes = filledBytes;
    });
    this.#follow(filled, (failure) => {
      if (failure === undefined) {
        outbox.commitRoom(room, replyBytes);
      } else {
        outbox.dropRoom(room);
        this.#fail(id, failure);
      }
    });
  }

  #begin(request: wire.Request): void | Promise<void> {
    const { type, offset, length } = request;
    if (type === nbd.NBD_CMD_FLUSH) return this.#target.flush();
    if (length === 0) return undefined;
    if (type === nbd.NBD_CMD_CACHE) return this.#cache(offset, length);
    if (type === nbd.NBD_CMD_TRIM) return this.#target.trim(offset, length, optionsOf(request));
    return this.#target.writeZeroes(offset, length, optionsOf(request));
  }

  /**
   * Reads the range and forgets it: the target's own buffers keep what they have room for. A piece
   * at a time; more than they can hold is not worth reading.
   */
  async #cache(offset: number, length: number): Promise<void> {
    const bytes = new Uint8Array(Math.min(length, CACHE_PIECE_BYTES));
    this.#options.account.force(bytes.length);
    try {
      const end = offset + Math.min(length, CACHE_BYTES_MAX);
      for (let at = offset; at < end; at += bytes.length) {
        await this.#target.read(at, bytes.subarray(0, Math.min(bytes.length, end - at)));
      }
    } finally {
      this.#options.account.give(bytes.length);
    }
  }

  /** A write that waits keeps the whole chunk in memory: the account pays for it, once. */
  #pin(chunk: Uint8Array): PinnedChunk {
    if (this.#pinned?.bytes !== chunk) {
      this.#pinned = { bytes: chunk, pins: 0 };
      this.#options.account.force(chunk.length);
    }
    this.#pinned.pins++;
    return this.#pinned;
  }

  #unpin(pinned: PinnedChunk): void {
    if (--pinned.pins > 0) return;
    this.#options.account.give(pinned.bytes.length);
    if (this.#pinned === pinned) this.#pinned = undefined;
  }

  /** Calls back when the work has ended, well or not. */
  #follow(work: Promise<void>, ended: (failure: StoreError | undefined) => void): void {
    this.#inFlight++;
    const settle = (failure: StoreError | undefined): void => {
      this.#inFlight--;
      ended(failure);
      this.#options.onEnded();
    };
    void work.then(
      () => settle(undefined),
      (error: unknown) => settle(toStoreError(error)),
    );
  }

  #end(id: wire.RequestId, failure: StoreError | undefined): void {
    if (failure === undefined) this.#replies.done(id);
    else this.#fail(id, failure);
  }

  #fail(id: wire.RequestId, { kind, message }: StoreError): void {
    this.counts.errors++;
    this.#replies.failed(id, ERRNO_OF_KIND[kind], message);
  }
}

function optionsOf({ flags }: wire.Request): WriteOptions {
  return (flags & nbd.NBD_CMD_FLAG_FUA) === 0 ? NO_FUA : FUA;
}

/** The request object is filled again for the next one: who waits keeps the id. */
function idOf({ cookieHigh, cookieLow, offsetHigh, offsetLow }: wire.RequestId): wire.RequestId {
  return { cookieHigh, cookieLow, offsetHigh, offsetLow };
}

/** Operating errors are answered; anything else is a bug and goes on. */
function toStoreError(error: unknown): StoreError {
  if (isStoreError(error)) return error;
  throw error;
}
