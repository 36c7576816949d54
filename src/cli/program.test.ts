import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Output, type Sink } from './output.js';
import { COMMANDS, parseArguments } from './program.js';

class TextSink implements Sink {
  text = '';

  write(text: string | Uint8Array, done: () => void): boolean {
    this.text += Buffer.from(text).toString();
    done();
    return true;
  }
}

async function parse(line: string) {
  const out = new TextSink();
  const output = new Output({ out, error: out, environment: {} });
  const words = line.split(' ').filter((word) => word !== '');
  const wanted = await parseArguments(words, '1.2.3', output);
  return { out: out.text, wanted };
}

async function wantedOf(line: string) {
  const { wanted } = await parse(line);
  assert.ok(wanted !== undefined, line);
  const { row, input, globals } = wanted;
  return { name: row.name, given: input.arguments, flags: input.flags, globals, raw: input.raw };
}

test('every command has its help, with its usage, flags and an example', async () => {
  for (const { name, usage, flags, examples } of COMMANDS) {
    const { out, wanted } = await parse(`${name} --help`);
    assert.equal(wanted, undefined);
    assert.ok(out.startsWith(`Usage: keiki ${name} ${usage}`.trimEnd()), name);
    for (const flag of flags) assert.ok(out.includes(`--${flag.name}`), `${name} --${flag.name}`);
    for (const example of examples) assert.ok(out.includes(`  $ ${example}`), example);
    assert.ok(out.includes('--api PATH|HOST:PORT'), 'and the global ones');
    assert.ok(examples.length > 0);
    assert.equal((await parse(`help ${name}`)).out, out);
  }
  const { out } = await parse('--help');
  for (const { name, summary } of COMMANDS) {
    assert.match(out, new RegExp(`\\n {2}${name} +${summary.slice(0, 20)}`), name);
  }
  assert.equal((await parse('--version')).out, '1.2.3\n');
});

test('arguments and flags are checked and converted', async () => {
  const create = await wantedOf('create a --size 20G');
  assert.deepEqual([create.given, create.flags.size], [['a'], 20 * 1024 ** 3]);
  const clone = await wantedOf('clone golden@v1 a b c');
  assert.deepEqual(clone.given, ['golden@v1', ['a', 'b', 'c']]);
  const slow = { pace: 'rate', rateBytesPerSecond: 50 * 1024 ** 2 };
  assert.deepEqual((await wantedOf('split a --pace rate=50M')).flags.pace, slow);
  assert.equal((await wantedOf('split a --mode=share --wait')).flags.wait, true);
  assert.deepEqual((await wantedOf('list')).given, [undefined]);
  const attach = await wantedOf('attach a --port [::1]:10');
  assert.deepEqual(attach.flags.port, { host: '::1', port: 10 });
  assert.deepEqual((await wantedOf('export a -')).given, ['a', '-']);
});

test('global flags stand before or behind the command, and the last one counts', async () => {
  for (const line of [
    '--api /a --json list',
    'list --json --api /a',
    '--api /b list --api /a --json',
  ]) {
    const { globals } = await wantedOf(line);
    assert.deepEqual(globals, { api: '/a', json: true }, line);
  }
});

test('what the server takes goes to it as it stands', async () => {
  const serve = await wantedOf('--api /x serve --store f --size 64G --nbd a:1 --nbd b:2 --api c:3');
  const raw = '--api /x --store f --size 64G --nbd a:1 --nbd b:2 --api c:3';
  assert.equal(serve.raw.join(' '), raw);
});

test('what cannot be meant is refused in one line, with what to read', async () => {
  const refused: readonly (readonly [string, RegExp])[] = [
    ['frob', /^unknown command 'frob'; see `keiki --help`$/],
    ['creat a', /Did you mean create\?/],
    ['show', /^NAME is missing; see `keiki show --help`$/],
    ['create a', /^--size SIZE is missing; see `keiki create --help`$/],
    ['create a@b --size 1G', /^NAME "a@b": A vdisk is meant/],
    ['create a --size 1x', /^--size "1x": A size is a number/],
    ['create a b --size 1G', /^too many words: create takes 1, not 2;/],
    ['create a --size', /^--size wants SIZE behind it;/],
    ['split a --mode move', /^--mode "move": Allowed choices are copy, share;/],
    ['list --frob', /unknown option '--frob'/],
    ['split a --mode move', /Allowed choices are copy, share/],
    ['completion tcsh', /Allowed choices are bash, zsh, fish/],
    ['map a --offset -1', /argument missing|A number of bytes/],
    ['attach a --port 65536', /PORT or HOST:PORT/],
  ];
  for (const [line, message] of refused) {
    await assert.rejects(parse(line), (error: Error & { kind?: string }) => {
      assert.equal(error.kind, 'usage', line);
      assert.match(error.message, message);
      assert.ok(!error.message.includes('\n'), error.message);
      return true;
    });
  }
  await assert.rejects(parse(''), /^CommandError: which command\?\n\nUsage: keiki COMMAND/);
});
