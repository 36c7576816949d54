import assert from 'node:assert/strict';
import { test } from 'node:test';
import { InvariantError, invariant } from './invariant.js';
import { isStoreError, STORE_ERROR_KINDS, StoreError } from './store-error.js';

test('StoreError: has kind, message, cause and name', () => {
  const cause = new Error('EIO');
  for (const kind of STORE_ERROR_KINDS) {
    const error = new StoreError(kind, 'store.keiki: what happened', { cause });
    assert.ok(error instanceof Error);
    assert.equal(error.name, 'StoreError');
    assert.equal(error.kind, kind);
    assert.equal(error.message, 'store.keiki: what happened');
    assert.equal(error.cause, cause);
  }
});

test('isStoreError: tells kinds apart, and other errors from it', () => {
  const error: unknown = new StoreError('corrupt', 'block 7');
  assert.equal(isStoreError(error), true);
  for (const kind of STORE_ERROR_KINDS) assert.equal(isStoreError(error, kind), kind === 'corrupt');
  for (const other of [new Error('corrupt'), { kind: 'corrupt' }, 'corrupt', undefined]) {
    assert.equal(isStoreError(other), false);
    assert.equal(isStoreError(other, 'corrupt'), false);
  }
});

test('STORE_ERROR_KINDS: no kind twice', () => {
  assert.equal(new Set(STORE_ERROR_KINDS).size, STORE_ERROR_KINDS.length);
});

test('invariant: passes or crashes with the rule', () => {
  invariant(true, 'never seen');
  assert.throws(
    () => invariant(false, 'one is one'),
    (error: unknown) => error instanceof InvariantError && error.message === 'one is one',
  );
  assert.equal(isStoreError(new InvariantError('one is one')), false);
});
