import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GIB, MIB } from '../base/units.js';
import { type ConfigSources, parseAddress, readSettings } from './config.js';
import { parseServeArguments, SERVE_FLAGS } from './serve-arguments.js';
import { flagOf, SETTING_KEYS, variableOf } from './settings.js';

const toml = (text: string): ConfigSources['file'] => ({ path: 'keiki.toml', text });
const NOTHING: ConfigSources = { flags: {}, environment: {}, file: undefined };

test('without anything every setting has its default, or none', () => {
  const settings = readSettings(NOTHING);
  assert.equal(settings['store.path'], undefined);
  assert.equal(settings['store.memory'], 256 * MIB);
  assert.equal(settings['api.socket-mode'], 0o600);
  assert.deepEqual(settings['nbd.listen'], []);
  assert.equal(settings['log.format'], 'text');
  assert.deepEqual(Object.keys(settings), SETTING_KEYS);
});

test('flags win over the environment, that over the file, that over the default', () => {
  const file = toml('[store]\nmemory = "1G"\npath = "/file"\n[log]\nlevel = "warn"');
  const environment = { KEIKI_STORE: '/variable', KEIKI_LOG_LEVEL: 'error', KEIKI_SIZE: '' };
  const settings = readSettings({ flags: { 'store.path': '/flag' }, environment, file });
  assert.equal(settings['store.path'], '/flag');
  assert.equal(settings['log.level'], 'error');
  assert.equal(settings['store.memory'], GIB);
  assert.equal(settings['store.size'], undefined);
});

test('every kind of setting takes what it should', () => {
  const file = toml(`
    [store]
    size = 1073741824
    preallocate = true
    cp-interval-ms = 250
    [nbd]
    socket = "/a"
    listen = [":1", "[::1]:2"]
    socket-mode = "0660"`);
  const settings = readSettings({ ...NOTHING, file });
  assert.equal(settings['store.size'], GIB);
  assert.equal(settings['store.preallocate'], true);
  assert.equal(settings['store.cp-interval-ms'], 250);
  assert.deepEqual(settings['nbd.socket'], ['/a']);
  assert.deepEqual(settings['nbd.listen'], [':1', '[::1]:2']);
  assert.equal(settings['nbd.socket-mode'], 0o660);
  const environment = { KEIKI_NBD: '127.0.0.1:1, :2', KEIKI_NBD_ALLOW_INSECURE: 'true' };
  const others = readSettings({ ...NOTHING, environment });
  assert.deepEqual(others['nbd.listen'], ['127.0.0.1:1', ':2']);
  assert.equal(others['nbd.allow-insecure'], true);
});

test('what cannot be meant is refused, and told by its name where it stands', () => {
  const cases: [Partial<ConfigSources>, RegExp][] = [
    [
      { file: toml('[store]\nsize = "64GB"') },
      /keiki.toml: store.size cannot be "64GB": .* 64 MiB/,
    ],
    [{ file: toml('[store]\nsize = 1.5') }, /store.size cannot be 1.5/],
    [{ file: toml('[store]\nsize = "1M"') }, /store.size/],
    [{ file: toml('[store]\npath = 7') }, /store.path cannot be 7: it takes path/],
    [{ flags: { 'api.listen': ['a.sock'] } }, /--api cannot be .*a path with a slash: \.\/x/],
    [{ file: toml('[store]\npreallocate = "yes"') }, /preallocate .* true or false/],
    [{ file: toml('[log]\nlevel = "loud"') }, /log.level .* debug, info, warn, error/],
    [{ file: toml('[api]\nsocket-mode = 600') }, /socket-mode .* octal/],
    [{ file: toml('[api]\nlisten = ["nowhere"]') }, /api.listen .* address/],
    [{ file: toml('[store]\npaht = "/a"') }, /no setting store.paht; there is store.path, /],
    [{ file: toml('[nbd]\nlevel = "warn"') }, /no setting nbd.level; there is log.level/],
    [{ file: toml('path = "/a"') }, /"path" stands outside of any \[section\]/],
    [{ file: toml('[store]\npath = ') }, /keiki.toml: line 2, column 8/],
    [{ file: toml('[__proto__]\npath = "/a"') }, /no setting|outside|redefine/],
    [{ environment: { KEIKI_SIZE: '-1' } }, /KEIKI_SIZE cannot be "-1"/],
    [{ flags: { 'nbd.listen': ['host'] } }, /--nbd cannot be/],
  ];
  for (const [sources, text] of cases) {
    assert.throws(
      () => readSettings({ ...NOTHING, ...sources }),
      (error: unknown) => {
        assert.ok(error instanceof Error && 'kind' in error && error.kind === 'invalid');
        assert.match(error.message, text);
        return true;
      },
    );
  }
});

test('parseAddress: paths, hosts and ports', () => {
  const cases: [string, unknown][] = [
    ['/run/x.sock', { kind: 'unix', path: '/run/x.sock' }],
    ['./x', { kind: 'unix', path: './x' }],
    ['unix:x', { kind: 'unix', path: 'x' }],
    ['127.0.0.1:80', { kind: 'tcp', host: '127.0.0.1', port: 80 }],
    ['tcp:localhost:0', { kind: 'tcp', host: 'localhost', port: 0 }],
    ['[::1]:80', { kind: 'tcp', host: '::1', port: 80 }],
    [':80', { kind: 'tcp', host: '127.0.0.1', port: 80 }],
    ['::1:80', undefined],
    ['host', undefined],
    ['host:65536', undefined],
    ['host:', undefined],
    ['', undefined],
  ];
  for (const [text, address] of cases) assert.deepEqual(parseAddress(text), address, text);
});

test('every setting has a flag and a variable, no two the same', () => {
  const names = SERVE_FLAGS.map(({ name }) => name);
  assert.equal(new Set(names).size, SETTING_KEYS.length + 1);
  assert.equal(new Set(SETTING_KEYS.map(variableOf)).size, SETTING_KEYS.length);
  assert.deepEqual(
    ['store.path', 'store.size', 'nbd.socket', 'nbd.listen', 'api.listen'].map((key) =>
      flagOf(key as 'store.path'),
    ),
    ['store', 'size', 'nbd-socket', 'nbd', 'api'],
  );
});

test('parseServeArguments: flags, the last one wins, lists grow', () => {
  const args = ['--store', 'a', '--store=b', '--nbd', ':1', '--nbd', ':2', '--config', 'c.toml'];
  assert.deepEqual(parseServeArguments([...args, '--nbd-allow-insecure']), {
    configPath: 'c.toml',
    flags: { 'store.path': 'b', 'nbd.listen': [':1', ':2'], 'nbd.allow-insecure': true },
  });
  for (const bad of [['--stroe', 'a'], ['extra'], ['--store'], ['--nbd-allow-insecure=1']]) {
    assert.throws(() => parseServeArguments(bad), { kind: 'invalid' });
  }
});
