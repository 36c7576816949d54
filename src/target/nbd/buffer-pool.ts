/**
 * Owns buffers that are not in use, so that large requests do not make the kernel map and clear
 * fresh memory each time, and small replies share slabs.
 *
 * 1. A buffer has one of the sizes 2^k + 4 KiB, 64 KiB the smallest: a payload of 2^k bytes and a
 *    reply's header fit, and so do sixteen replies of 4 KiB.
 * 2. A buffer is free again when its last reference is gone; it is lent to nobody else before.
 * 3. At most `keptBytesMax` are kept, the most recently used first.
 */
import { invariant } from '../../base/invariant.js';
import { BLOCK_BYTES, KIB, MIB } from '../../base/units.js';
import type { MemoryAccount } from './memory-budget.js';

const SLAB_LOG2 = 16;
export const SLAB_BYTES = 64 * KIB + BLOCK_BYTES;
const KEPT_BYTES_MAX = 64 * MIB;

/** A buffer on loan. */
export interface Loan {
  readonly bytes: Buffer;
  readonly account: MemoryAccount;
  refs: number;
}

/** The size of the buffer that is lent for so many bytes. */
export function sizeOfLoan(bytes: number): number {
  return 2 ** logOf(bytes) + BLOCK_BYTES;
}

function logOf(bytes: number): number {
  const payloadBytes = Math.max(bytes - BLOCK_BYTES, 1);
  return Math.max(SLAB_LOG2, 32 - Math.clz32(payloadBytes - 1));
}

export class BufferPool {
  readonly #free: Buffer[][] = [];
  readonly #keptBytesMax: number;
  #keptBytes = 0;

  constructor(keptBytesMax = KEPT_BYTES_MAX) {
    this.#keptBytesMax = keptBytesMax;
  }

  get keptBytes(): number {
    return this.#keptBytes;
  }

  /** Lends a buffer of at least so many bytes, content unknown; the account has paid for it. */
  lend(bytes: number, account: MemoryAccount): Loan {
    const kept = this.#free[logOf(bytes)]?.pop();
    if (kept === undefined) {
      return { bytes: Buffer.allocUnsafeSlow(sizeOfLoan(bytes)), account, refs: 1 };
    }
    this.#keptBytes -= kept.length;
    return { bytes: kept, account, refs: 1 };
  }

  /** One reference less; with the last one the buffer is free and the account is paid back. */
  release(loan: Loan): void {
    invariant(loan.refs > 0, 'a loan is given back once');
    if (--loan.refs > 0) return;
    const { length } = loan.bytes;
    loan.account.give(length);
    if (this.#keptBytes + length > this.#keptBytesMax) return;
    this.#keptBytes += length;
    const log = logOf(length);
    (this.#free[log] ??= []).push(loan.bytes);
  }
}
