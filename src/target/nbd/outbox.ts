/**
 * Owns the replies of one connection until the peer's socket has taken them.
 *
 * Small replies are made one behind the other in a slab, payload and all: what is answered in one
 * turn leaves as one run of bytes. A large reply has a buffer of its own.
 *
 * 1. Room is reserved, filled, and then committed, cancelled or set aside: one at a time.
 * 2. Room that was set aside (its read is not done yet) is committed or dropped later, once.
 * 3. Replies leave in the order they were committed. A buffer is lent until all its runs have left.
 * 4. After `close` nothing leaves; what is committed is dropped.
 */
import { invariant } from '../../base/invariant.js';
import { type BufferPool, type Loan, SLAB_BYTES, sizeOfLoan } from './buffer-pool.js';
import type { MemoryAccount } from './memory-budget.js';

/** Replies up to this size share slabs; a larger one would leave too much of a slab empty. */
const SHARED_BYTES_MAX = SLAB_BYTES / 2;

/** Where bytes go: a socket, or a simulated peer. */
export interface ByteSink {
  /** Sends the pieces in order; calls back, once, when none of them is needed any more. */
  send(pieces: readonly Uint8Array[], sent: () => void): void;
}

/** Room that was set aside. */
export interface Room {
  readonly loan: Loan;
  readonly at: number;
  readonly length: number;
}

export interface OutboxOptions {
  readonly sink: ByteSink;
  readonly pool: BufferPool;
  readonly account: MemoryAccount;
  /** So many bytes have left and their buffers are free. */
  readonly onSent: (bytes: number) => void;
}

export class Outbox {
  readonly #options: OutboxOptions;
  readonly #pool: BufferPool;
  readonly #account: MemoryAccount;
  #isClosed = false;
  /** The slab in use; `#slabEnd` is where its free part begins. */
  #slab: Loan | undefined;
  #slabEnd = 0;
  /** The room reserved last, and where its bytes are. */
  #loan: Loan | undefined;
  #length = 0;
  at = 0;
  /** Committed bytes, one behind the other, that are no piece yet. */
  #runLoan: Loan | undefined;
  #runStart = 0;
  #runEnd = 0;
  /** Finished runs, a reference to its loan for each. */
  #pieces: Uint8Array[] = [];
  #pieceLoans: Loan[] = [];
  #pieceBytes = 0;
  #sendingBytes = 0;

  constructor(options: OutboxOptions) {
    this.#options = options;
    this.#pool = options.pool;
    this.#account = options.account;
  }

  /** Committed, not yet handed to the sink. */
  get readyBytes(): number {
    return this.#pieceBytes + this.#runEnd - this.#runStart;
  }

  /** Committed, not yet taken by the peer's socket. */
  get unsentBytes(): number {
    return this.#sendingBytes + this.readyBytes;
  }

  /** The buffer of the room reserved last: fill `length` bytes from `at`. */
  get bytes(): Buffer {
    invariant(this.#loan !== undefined, 'room is filled after it was reserved');
    return this.#loan.bytes;
  }

  /** Makes room; false if there is no memory for it now. */
  reserve(length: number): boolean {
    const bytes = this.#missingBytes(length);
    if (bytes > 0 && !this.#account.take(bytes)) return false;
    this.#place(length);
    return true;
  }

  /** Makes room in any case: for the small replies that end requests and so free memory. */
  reserveForced(length: number): void {
    const bytes = this.#missingBytes(length);
    if (bytes > 0) this.#account.force(bytes);
    this.#place(length);
  }

  /** The reserved room is filled: it leaves with the next flush. */
  commit(): void {
    const loan = this.#reserved();
    this.#append(loan, this.at, this.#length);
    if (loan !== this.#slab) this.#pool.release(loan);
  }

  /** The reserved room is not needed. */
  cancel(): void {
    const loan = this.#reserved();
    if (loan === this.#slab) this.#slabEnd = this.at;
    else this.#pool.release(loan);
  }

  /** The reserved room is being filled; others may be reserved meanwhile. */
  setAside(): Room {
    const loan = this.#reserved();
    if (loan === this.#slab) loan.refs++;
    return { loan, at: this.at, length: this.#length };
  }

  /** Room that was set aside is filled, its first `length` bytes at least. */
  commitRoom(room: Room, length = room.length): void {
    this.#append(room.loan, room.at, length);
    this.#pool.release(room.loan);
  }

  dropRoom(room: Room): void {
    this.#pool.release(room.loan);
  }

  /** Commits a copy of these bytes, which are few. */
  append(bytes: Uint8Array): void {
    this.reserveForced(bytes.length);
    this.bytes.set(bytes, this.at);
    this.commit();
  }

  /** Hands everything committed to the sink. */
  flush(): void {
    this.#closeRun();
    if (this.#pieces.length === 0) return;
    const pieces = this.#pieces;
    const loans = this.#pieceLoans;
    const bytes = this.#pieceBytes;
    this.#pieces = [];
    this.#pieceLoans = [];
    this.#pieceBytes = 0;
    this.#sendingBytes += bytes;
    this.#options.sink.send(pieces, () => {
      this.#sendingBytes -= bytes;
      for (const loan of loans) this.#pool.release(loan);
      // A slab that holds nothing any more goes back: the next connection finds it warm.
      if (this.#slab?.refs === 1) this.#returnSlab();
      this.#options.onSent(bytes);
    });
  }

  close(): void {
    this.#closeRun();
    for (const loan of this.#pieceLoans) this.#pool.release(loan);
    this.#pieces = [];
    this.#pieceLoans = [];
    this.#pieceBytes = 0;
    this.#returnSlab();
    this.#isClosed = true;
  }

  /** Bytes of the buffer that this room would take anew. */
  #missingBytes(length: number): number {
    if (length > SHARED_BYTES_MAX) return sizeOfLoan(length);
    const hasRoom = this.#slab !== undefined && this.#slabEnd + length <= SLAB_BYTES;
    return hasRoom ? 0 : SLAB_BYTES;
  }

  #place(length: number): void {
    this.#length = length;
    if (length > SHARED_BYTES_MAX) {
      this.#loan = this.#pool.lend(length, this.#account);
      this.at = 0;
      return;
    }
    if (this.#slab === undefined || this.#slabEnd + length > SLAB_BYTES) {
      this.#returnSlab();
      this.#slab = this.#pool.lend(SLAB_BYTES, this.#account);
    }
    this.#loan = this.#slab;
    this.at = this.#slabEnd;
    this.#slabEnd += length;
  }

  #reserved(): Loan {
    const loan = this.#loan;
    invariant(loan !== undefined, 'room is committed, cancelled or set aside once');
    this.#loan = undefined;
    return loan;
  }

  /** Adds to the run, or begins another; the run holds a reference of its own. */
  #append(loan: Loan, at: number, length: number): void {
    if (this.#isClosed || length === 0) return;
    if (this.#runLoan === loan && this.#runEnd === at) {
      this.#runEnd += length;
      return;
    }
    this.#closeRun();
    loan.refs++;
    this.#runLoan = loan;
    this.#runStart = at;
    this.#runEnd = at + length;
  }

  #closeRun(): void {
    if (this.#runLoan === undefined) return;
    this.#pieces.push(this.#runLoan.bytes.subarray(this.#runStart, this.#runEnd));
    this.#pieceLoans.push(this.#runLoan);
    this.#pieceBytes += this.#runEnd - this.#runStart;
    this.#runLoan = undefined;
    this.#runStart = 0;
    this.#runEnd = 0;
  }

  #returnSlab(): void {
    if (this.#slab !== undefined) this.#pool.release(this.#slab);
    this.#slab = undefined;
    this.#slabEnd = 0;
  }
}
