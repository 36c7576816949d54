/** Commands beside servers that answer badly: each ends with a reason, and leaves no half file. */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type RequestListener } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';
import { MIB } from '../src/base/units.js';
import { CommandError } from '../src/cli/failure.js';
import { encodeSparse, type SparsePiece } from '../src/control/sparse-stream.js';
import { seededRandom } from '../src/env/seeded-random.js';
import { openImage } from '../src/image/open-image.js';
import { type Ran, runCommand } from './support/cli-in-process.js';

let folder = '';
before(() => {
  folder = mkdtempSync(join(tmpdir(), 'keiki-bad-'));
});
after(() => rmSync(folder, { recursive: true }));

const SIZE_BYTES = 8 * MIB;
const VDISK = { name: 'a', kind: 'vdisk', sizeBytes: SIZE_BYTES, clientCount: 0 };
const MAP = { name: 'a', extents: [{ offset: 0, length: SIZE_BYTES, kind: 'data' }] };

async function beside(answer: RequestListener, line: string, signal?: AbortSignal): Promise<Ran> {
  const server = createServer(answer);
  const path = join(folder, 'api');
  await new Promise<void>((resolve) => server.listen(path, resolve));
  try {
    return await runCommand(line, path, signal);
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

/** Answers as the API does, but for the data, which `data` sends. */
function exporting(data: RequestListener): RequestListener {
  return (request, response) => {
    const { url = '' } = request;
    if (url.startsWith('/v1/vdisks/a/data')) data(request, response);
    else response.end(JSON.stringify(url.startsWith('/v1/vdisks/a/map') ? MAP : VDISK));
  };
}

const DISK = new Uint8Array(SIZE_BYTES);
seededRandom(5).fill(DISK);

/** The first bytes of the disk as one piece, which no read of an exporter is as long as. */
async function* pieces(dataBytes: number): AsyncGenerator<SparsePiece> {
  yield { kind: 'data', offset: 0, bytes: DISK.subarray(0, dataBytes) };
}

async function sparseBytes(dataBytes: number): Promise<Buffer> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of encodeSparse(pieces(dataBytes), () => SIZE_BYTES)) chunks.push(chunk);
  return Buffer.concat(chunks);
}

test('something else than a keiki server is told', async () => {
  const html = await beside((_request, response) => response.end('<html>'), 'list');
  assert.deepEqual(
    [html.code, html.error],
    [1, 'keiki: the answer is no JSON: is this a keiki server?\n'],
  );
  const busy = await beside((_request, response) => response.writeHead(502).end('no'), 'list');
  assert.deepEqual(
    [busy.code, busy.error],
    [1, 'keiki: the server answers 502: is this a keiki server?\n'],
  );
  const gone = await beside((request) => request.socket.destroy(), 'list');
  assert.equal(gone.code, 1);
  assert.match(gone.error, /has ended the connection: see its log/);
  const cut = await beside((_request, response) => {
    response.writeHead(200, { 'content-length': 100 }).write('{"vdisks":[');
    setImmediate(() => response.destroy());
  }, 'list');
  assert.deepEqual([cut.code, cut.error], [1, 'keiki: the server cut its answer off\n']);
});

test('an export whose data is cut off, or has no end, leaves no file', async () => {
  const whole = await sparseBytes(SIZE_BYTES);
  for (const format of ['raw', 'qcow2']) {
    const path = join(folder, 'out');
    const line = `export a ${path} --format ${format}`;
    const cut = await beside(
      exporting((_request, response) => {
        response.write(whole.subarray(0, 5 * MIB), () => response.destroy());
      }),
      line,
    );
    assert.deepEqual([cut.code, cut.error], [1, 'keiki: the server cut its answer off\n'], format);
    assert.ok(!existsSync(path), format);
    const short = await beside(
      exporting((_request, response) => response.end(whole.subarray(0, -24))),
      line,
    );
    assert.equal(short.code, 2, short.error);
    assert.match(short.error, /it was cut off/);
    assert.ok(!existsSync(path), format);
    const good = await beside(
      exporting((_request, response) => response.end(whole)),
      line,
    );
    assert.deepEqual([good.code, good.error], [0, ''], format);
    const image = await openImage(path);
    const out = new Uint8Array(image.sizeBytes);
    await image.read(0, out);
    await image.close();
    assert.ok(Buffer.from(out).equals(DISK), format);
    rmSync(path);
  }
});

test('what the map calls data and the stream leaves out is zeros', async () => {
  const path = join(folder, 'zeroed');
  const some = await sparseBytes(5 * MIB);
  const answer = exporting((_request, response) => response.end(some));
  const { code, error } = await beside(answer, `export a ${path}`);
  assert.deepEqual([code, error], [0, '']);
  const expected = Buffer.from(DISK).fill(0, 5 * MIB);
  assert.ok(readFileSync(path).equals(expected));
});

test('an export that is interrupted leaves no file', async () => {
  const whole = await sparseBytes(SIZE_BYTES);
  const path = join(folder, 'out');
  const abort = new AbortController();
  const answer = exporting((_request, response) => {
    // And then nothing more.
    response.write(whole.subarray(0, 3 * MIB));
    const look = setInterval(() => {
      if (!existsSync(path)) return;
      clearInterval(look);
      abort.abort(new CommandError('interrupted', 'ended by SIGINT', { exitCode: 130 }));
    }, 1);
    look.unref();
  });
  const { code, error } = await beside(answer, `export a ${path}`, abort.signal);
  assert.deepEqual([code, error], [130, 'keiki: ended by SIGINT\n']);
  assert.ok(!existsSync(path));
});

test('an import that is refused on the way ends with the reason of the server', async () => {
  const path = join(folder, 'disk');
  writeFileSync(path, new Uint8Array(64 * MIB).fill(1));
  const { code, error } = await beside((request, response) => {
    if (request.method === 'GET') {
      response.end('{"vdisks":[]}');
      return;
    }
    request.once('data', () => {
      const problem = { kind: 'out-of-space', detail: 'the store is full' };
      response.writeHead(507, { 'content-type': 'application/problem+json' });
      response.end(JSON.stringify(problem));
    });
  }, `import ${path} a`);
  assert.deepEqual([code, error], [7, 'keiki: the store is full\n']);
});

test('where no server is, the message says how to start one', async () => {
  const nothing = await runCommand('list', join(folder, 'none'));
  const left = join(folder, 'left');
  writeFileSync(left, '');
  const file = await runCommand('list', left);
  for (const { code, error } of [nothing, file]) {
    assert.equal(code, 6, error);
    assert.match(error, /start one with `keiki serve --store FILE --size 64G`, or name another/);
  }
});
