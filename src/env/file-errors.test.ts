import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { StoreErrorKind } from '../base/store-error.js';
import { deviceError, openError } from './file-errors.js';

function systemError(code: string): Error {
  return Object.assign(new Error(`${code}: as the system says`), { code });
}

test('openError: a kind that tells what to do, and the path', () => {
  const kinds: [string, StoreErrorKind][] = [
    ['ENOENT', 'not-found'],
    ['EEXIST', 'exists'],
    ['EBUSY', 'in-use'],
    ['ETXTBSY', 'in-use'],
    ['EROFS', 'read-only'],
    ['EISDIR', 'invalid'],
    ['EACCES', 'device'],
    ['EPERM', 'device'],
    ['EIO', 'device'],
  ];
  for (const [code, kind] of kinds) {
    const cause = systemError(code);
    const error = openError('/path/of/store', cause);
    assert.equal(error.kind, kind, code);
    assert.ok(error.message.includes('/path/of/store'));
    assert.equal(error.cause, cause);
  }
  assert.match(openError('p', systemError('EACCES')).message, /allowed/);
});

test('deviceError: a full host is a device error that says what is full', () => {
  for (const code of ['ENOSPC', 'EDQUOT']) {
    const error = deviceError('p', 'write at byte 0', systemError(code));
    assert.equal(error.kind, 'device');
    assert.match(error.message, /^p: write at byte 0 failed: .*file system that holds it is full/);
  }
  const error = deviceError('p', 'sync', systemError('EIO'));
  assert.equal(error.message, 'p: sync failed: EIO: as the system says');
  assert.equal(deviceError('p', 'sync', 'text').message, 'p: sync failed: text');
});
