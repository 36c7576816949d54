import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { describeApiAddress, findApiAddress, parseApiAddress, readToken } from './api-address.js';

test('an address is a path or a host and a port', () => {
  const unix = (path: string) => ({ kind: 'unix', path });
  const tcp = (host: string, port: number) => ({ kind: 'tcp', host, port });
  assert.deepEqual(parseApiAddress('/run/x.sock'), unix('/run/x.sock'));
  assert.deepEqual(parseApiAddress('./x'), unix('./x'));
  assert.deepEqual(parseApiAddress('unix:x'), unix('x'));
  assert.deepEqual(parseApiAddress('localhost:80'), tcp('localhost', 80));
  assert.deepEqual(parseApiAddress(':8080'), tcp('127.0.0.1', 8080));
  assert.deepEqual(parseApiAddress('[::1]:1'), tcp('::1', 1));
  assert.deepEqual(parseApiAddress('http://10.0.0.1:65535/'), tcp('10.0.0.1', 65_535));
  for (const text of ['', 'x', 'unix:', 'h:0', 'h:65536', '::1:80', 'http://h/a', 'a b:1']) {
    assert.equal(parseApiAddress(text), undefined, text);
  }
  assert.equal(describeApiAddress({ kind: 'tcp', host: '::1', port: 5 }), '[::1]:5');
});

test('the flag wins over the variable, and that over the default', () => {
  const userId = 7;
  const environment = { KEIKI_API: '/a, b:1', XDG_RUNTIME_DIR: '/run/user/7' };
  const find = (given: string | undefined, variables: Readonly<Record<string, string>>): string =>
    describeApiAddress(findApiAddress({ given, environment: variables, userId }));
  assert.equal(find('/b', environment), '/b');
  assert.equal(find(undefined, environment), '/a');
  assert.equal(find(undefined, { ...environment, KEIKI_API: '' }), '/run/user/7/keiki/api.sock');
  assert.equal(find(undefined, {}), '/tmp/keiki-7/api.sock');
  assert.throws(() => find('x', {}), /--api: "x" is no HOST:PORT, and no path: that has a slash/);
  assert.throws(() => find(undefined, { KEIKI_API: 'x' }), /KEIKI_API: "x"/);
});

test('a token is one word in a file', () => {
  const folder = mkdtempSync(join(tmpdir(), 'keiki-token-'));
  try {
    const path = join(folder, 'token');
    writeFileSync(path, ' word \n');
    assert.equal(readToken(path), 'word');
    assert.equal(readToken(undefined), undefined);
    assert.equal(readToken(''), undefined);
    for (const text of ['', 'two words', 'a\nb']) {
      writeFileSync(path, text);
      assert.throws(() => readToken(path), /holds no token/, text);
    }
    assert.throws(() => readToken(join(folder, 'none')), /cannot be read/);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
