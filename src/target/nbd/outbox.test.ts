import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { ManualClock } from '../../../test/support/nbd-peer.js';
import { MIB } from '../../base/units.js';
import { BufferPool, SLAB_BYTES, sizeOfLoan } from './buffer-pool.js';
import { DEFAULT_NBD_LIMITS } from './limits.js';
import { MemoryBudget } from './memory-budget.js';
import { Outbox } from './outbox.js';

function make() {
  const pool = new BufferPool();
  const budget = new MemoryBudget(DEFAULT_NBD_LIMITS, new ManualClock());
  const account = budget.open({
    wake: () => undefined,
    evict: () => undefined,
    movedBytes: 0,
    awaitsClient: false,
  });
  const writes: Buffer[][] = [];
  const held: (() => void)[] = [];
  const send = (pieces: readonly Uint8Array[], sent: () => void): void => {
    writes.push(pieces.map((piece) => Buffer.from(piece)));
    held.push(sent);
  };
  const outbox = new Outbox({ sink: { send }, pool, account, onSent: () => undefined });
  const sent = (): void => {
    for (const callback of held.splice(0)) callback();
  };
  return { pool, budget, account, outbox, writes, sent };
}

function fill(outbox: Outbox, length: number, byte: number): void {
  assert.ok(outbox.reserve(length));
  outbox.bytes.fill(byte, outbox.at, outbox.at + length);
}

describe('the outbox', () => {
  it('makes one run of replies that were committed one after the other', () => {
    const { outbox, writes, budget, sent } = make();
    for (let byte = 1; byte <= 5; byte++) {
      fill(outbox, 1000, byte);
      outbox.commit();
    }
    outbox.flush();
    assert.deepEqual(
      writes.map((pieces) => pieces.map((piece) => piece.length)),
      [[5000]],
    );
    assert.equal(budget.usedBytes, SLAB_BYTES);
    sent();
    assert.equal(budget.usedBytes, 0);
  });

  it('sends what was committed around room that is still being filled, and that room later', () => {
    const { outbox, writes, budget, sent } = make();
    fill(outbox, 10, 1);
    outbox.commit();
    fill(outbox, 10, 2);
    const room = outbox.setAside();
    fill(outbox, 10, 3);
    outbox.commit();
    fill(outbox, 10, 9);
    outbox.cancel();
    fill(outbox, 10, 4);
    outbox.commit();
    outbox.flush();
    sent();
    assert.equal(budget.usedBytes, SLAB_BYTES, 'the room keeps its slab');
    outbox.commitRoom(room);
    outbox.flush();
    sent();
    assert.equal(
      Buffer.concat(writes.flat()).toString('hex'),
      ['01', '03', '04', '02'].map((byte) => byte.repeat(10)).join(''),
    );
    assert.equal(budget.usedBytes, 0);
  });

  it('takes another slab when one is full, and a buffer of its own for a large reply', () => {
    const { outbox, writes, budget, sent } = make();
    for (let index = 0; index < 17; index++) {
      fill(outbox, 4124, index);
      outbox.commit();
    }
    fill(outbox, MIB + 28, 77);
    outbox.commit();
    fill(outbox, 16, 78);
    outbox.commit();
    assert.equal(budget.usedBytes, 2 * SLAB_BYTES + sizeOfLoan(MIB + 28));
    outbox.flush();
    assert.deepEqual(
      writes[0]?.map((piece) => piece.length),
      [16 * 4124, 4124, MIB + 28, 16],
    );
    sent();
    assert.equal(budget.usedBytes, 0);
  });

  it('drops what comes after close, and lets go of everything', () => {
    const { outbox, writes, budget, sent } = make();
    fill(outbox, 10, 1);
    const room = outbox.setAside();
    fill(outbox, MIB, 2);
    const large = outbox.setAside();
    fill(outbox, 10, 3);
    outbox.commit();
    outbox.flush();
    fill(outbox, 10, 4);
    outbox.commit();
    outbox.close();
    sent();
    outbox.commitRoom(room);
    outbox.dropRoom(large);
    outbox.append(Uint8Array.of(5));
    outbox.flush();
    outbox.close();
    assert.equal(writes.length, 1);
    assert.equal(budget.usedBytes, 0);
  });

  it('refuses room that the account may not take, and forces small replies', () => {
    const { outbox, account } = make();
    account.force(63 * MIB);
    assert.equal(outbox.reserve(MIB), false);
    assert.equal(account.usedBytes, 63 * MIB);
    account.force(2 * MIB);
    outbox.append(Uint8Array.of(1));
    assert.equal(account.usedBytes, 65 * MIB + SLAB_BYTES);
  });
});

describe('the buffer pool', () => {
  it('lends buffers that fit, and the same one again', () => {
    const { pool, account } = make();
    for (const bytes of [1, 65536, 69632, 69633, MIB, MIB + 28, MIB + 4097, 32 * MIB + 28]) {
      const size = sizeOfLoan(bytes);
      assert.ok(size >= bytes && size <= Math.max(2 * bytes, SLAB_BYTES), `${bytes} in ${size}`);
      account.force(size);
      const loan = pool.lend(bytes, account);
      assert.equal(loan.bytes.length, size);
      pool.release(loan);
      account.force(size);
      const again = pool.lend(bytes, account);
      assert.equal(again.bytes, loan.bytes);
      pool.release(again);
      assert.throws(() => pool.release(again), /given back once/);
    }
    assert.equal(account.usedBytes, 0);
  });

  it('keeps no more than it should', () => {
    const { account } = make();
    const pool = new BufferPool(2 * MIB);
    const loans = [1, 2, 3, 4].map(() => {
      account.force(sizeOfLoan(MIB));
      return pool.lend(MIB, account);
    });
    for (const loan of loans) pool.release(loan);
    assert.equal(pool.keptBytes, sizeOfLoan(MIB));
  });
});
