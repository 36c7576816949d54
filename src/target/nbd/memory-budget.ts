/**
 * Owns the count of bytes that connections hold in buffers, and says who may take more.
 *
 * 1. An account stays within `connectionBytesMax`, but for what is forced: replies, which are
 *    small, and chunks that have arrived already. One request alone is always let in.
 * 2. Beyond `floorBytes` an account takes from what all share, `totalBytesMax`; within it, it
 *    always may.
 * 3. Who is refused waits in order and is woken, in a turn of its own, when bytes come back.
 * 4. While somebody waits, an account above its floor whose client has moved no byte for `stallMs`
 *    is closed: no client holds up the others.
 */
import { invariant } from '../../base/invariant.js';
import { MIB } from '../../base/units.js';
import type { Clock, Timer } from '../../env/clock.js';
import type { NbdLimits } from './limits.js';
import { REQUEST_BYTES_MAX } from './protocol.js';

/** The largest request, and the small replies and chunks beside it. */
const CONNECTION_BYTES_MIN = REQUEST_BYTES_MAX + MIB;

/** The owner of an account, as the budget sees it. */
export interface Holder {
  /** Bytes are free again: try what was refused. */
  wake(): void;
  /** Counts what the client sends and takes: standing still means that it does neither. */
  readonly movedBytes: number;
  /** True if it is the client, not the disk, that is waited for. */
  readonly awaitsClient: boolean;
  evict(reason: string): void;
}

export class MemoryBudget {
  readonly limits: NbdLimits;
  readonly #clock: Clock;
  readonly #accounts = new Set<MemoryAccount>();
  readonly #waiting = new Set<MemoryAccount>();
  #usedBytes = 0;
  #isWakeDue = false;
  #stallTimer: Timer | undefined;

  constructor(limits: NbdLimits, clock: Clock) {
    const { connectionBytesMax, totalBytesMax } = limits;
    invariant(
      connectionBytesMax >= CONNECTION_BYTES_MIN,
      'a connection can hold the largest request',
    );
    invariant(totalBytesMax >= connectionBytesMax, 'one connection fits into the budget');
    this.limits = limits;
    this.#clock = clock;
  }

  get usedBytes(): number {
    return this.#usedBytes;
  }

  open(holder: Holder): MemoryAccount {
    const account = new MemoryAccount(this, holder);
    this.#accounts.add(account);
    return account;
  }

  /** For MemoryAccount. True if the bytes are the account's now; else it is woken later. */
  take(account: MemoryAccount, bytes: number): boolean {
    const { connectionBytesMax, totalBytesMax, floorBytes } = this.limits;
    const after = account.usedBytes + bytes;
    // Its own replies will free what it holds: nothing to wait for from others.
    if (after > connectionBytesMax && account.usedBytes > 0) return false;
    if (after > floorBytes && this.#usedBytes > 0 && this.#usedBytes + bytes > totalBytesMax) {
      this.#waiting.add(account);
      this.#stallTimer ??= this.#watch();
      return false;
    }
    this.#waiting.delete(account);
    this.force(account, bytes);
    return true;
  }

  force(account: MemoryAccount, bytes: number): void {
    account.usedBytes += bytes;
    this.#usedBytes += bytes;
  }

  give(account: MemoryAccount, bytes: number): void {
    account.usedBytes -= bytes;
    this.#usedBytes -= bytes;
    invariant(account.usedBytes >= 0, 'an account gives back what it took, once');
    if (this.#waiting.size === 0 || this.#isWakeDue) return;
    this.#isWakeDue = true;
    queueMicrotask(() => this.#wake());
  }

  close(account: MemoryAccount): void {
    this.#accounts.delete(account);
    this.#waiting.delete(account);
  }

  #wake(): void {
    this.#isWakeDue = false;
    // Who is refused again keeps its place.
    for (const account of [...this.#waiting]) {
      if (this.#usedBytes >= this.limits.totalBytesMax) return;
      account.holder.wake();
    }
  }

  #watch(): Timer {
    const before = new Map<MemoryAccount, number>();
    for (const account of this.#accounts) before.set(account, account.holder.movedBytes);
    return this.#clock.setTimer(this.limits.stallMs, () => {
      this.#stallTimer = undefined;
      if (this.#waiting.size === 0) return;
      for (const [account, movedBytes] of before) {
        const { holder } = account;
        const isStill = holder.movedBytes === movedBytes && holder.awaitsClient;
        if (isStill && account.usedBytes > this.limits.floorBytes) {
          holder.evict('the client moved no byte while others waited for the memory it holds');
        }
      }
      this.#stallTimer = this.#watch();
    });
  }
}

/** What one connection holds. */
export class MemoryAccount {
  readonly #budget: MemoryBudget;
  readonly holder: Holder;
  /** Written by the budget. */
  usedBytes = 0;

  constructor(budget: MemoryBudget, holder: Holder) {
    this.#budget = budget;
    this.holder = holder;
  }

  /** Takes the bytes, or takes none and answers false: the holder is woken, or wakes itself. */
  take(bytes: number): boolean {
    return this.#budget.take(this, bytes);
  }

  /** Takes the bytes in any case. */
  force(bytes: number): void {
    this.#budget.force(this, bytes);
  }

  give(bytes: number): void {
    this.#budget.give(this, bytes);
  }

  /** No more is taken; what is held comes back by `give`. */
  close(): void {
    this.#budget.close(this);
  }
}
