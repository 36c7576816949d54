/** libnbd's programs: nbdinfo, nbdcopy, nbdsh. */
import assert from 'node:assert/strict';
import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { after, before, describe, it } from 'node:test';
import { GIB, MIB } from '../../../src/base/units.js';
import { DeferredTarget, MemoryTarget } from '../../support/memory-target.js';
import { nbdsh, run, runOk, type ServedForClients, serveForClients } from './nbd-clients.js';

const disk = new MemoryTarget({ name: 'disk', sizeBytes: 64 * MIB });
const odd = new MemoryTarget({ name: 'odd ä', sizeBytes: 5 * MIB + 512 });
const snapshot = new MemoryTarget({ name: 'golden@v1', sizeBytes: MIB, readOnly: true });
const large = new MemoryTarget({ name: 'large', sizeBytes: 16 * GIB });
const full = new MemoryTarget({ name: 'full', sizeBytes: MIB, piecesMax: 16 });

let served: ServedForClients;
before(async () => {
  served = await serveForClients([disk, odd, snapshot, large, full], 'disk');
});
after(() => served.close());

/** Data at the begin, in the middle and at the end of `length` bytes, holes between. */
function sparseImage(length: number): Buffer {
  const image = Buffer.alloc(length);
  for (const [at, size] of [
    [0, 4096],
    [MIB, 300_000],
    [length - 70_000, 70_000],
  ] as const) {
    for (let index = 0; index < size; index++) image[at + index] = 1 + ((at + index * 7) % 251);
  }
  return image;
}

describe('nbdinfo', () => {
  it('sees what is offered', async () => {
    const uri = served.uri('disk');
    for (const what of ['flush', 'fua', 'multi-conn', 'trim', 'zero', 'fast-zero', 'df', 'cache']) {
      await runOk('nbdinfo', ['--can', what, uri]);
    }
    for (const what of ['connect', 'read', 'write', 'structured-reply']) {
      await runOk('nbdinfo', ['--can', what, uri]);
    }
    assert.equal((await run('nbdinfo', ['--is', 'read-only', uri])).code, 2);
    await runOk('nbdinfo', ['--is', 'read-only', served.uri('golden@v1')]);
    assert.equal((await run('nbdinfo', ['--can', 'write', served.uri('golden@v1')])).code, 2);
    const info = await runOk('nbdinfo', [uri]);
    assert.match(info, /protocol: newstyle-fixed without TLS, using structured packets/);
    assert.match(
      info,
      /block_size_minimum: 1\n.*block_size_preferred: 4096.*\n.*maximum: 33554432/,
    );
    assert.match(info, /base:allocation\n\s*qemu:allocation-depth\n\s*keiki:state/);
  });

  it('lists exports, and finds the default one', async () => {
    const { exports } = JSON.parse(await runOk('nbdinfo', ['--list', '--json', served.uri()])) as {
      exports: { 'export-name': string; 'export-size': number }[];
    };
    assert.deepEqual(
      exports.map((entry) => [entry['export-name'], entry['export-size']]),
      [disk, odd, snapshot, large, full].map(({ name, sizeBytes }) => [name, sizeBytes]),
    );
    assert.equal((await runOk('nbdinfo', ['--size', served.uri()])).trim(), String(64 * MIB));
  });

  it('is told why an export is refused', async () => {
    const { code, stderr } = await run('nbdinfo', [served.uri('nope')]);
    assert.equal(code, 1);
    assert.match(stderr, /No such file or directory for export: nope/);
  });

  it('maps data and holes, and where data comes from', async () => {
    const uri = served.uri('large');
    large.write(9 * GIB, Buffer.alloc(8192, 1));
    const map = await runOk('nbdinfo', ['--map', uri]);
    const rows = map
      .trim()
      .split('\n')
      .map((row) => row.trim().split(/\s+/).slice(0, 3));
    assert.deepEqual(rows, [
      ['0', String(9 * GIB), '3'],
      [String(9 * GIB), '8192', '0'],
      [String(9 * GIB + 8192), String(7 * GIB - 8192), '3'],
    ]);
    const depth = await runOk('nbdinfo', ['--map=qemu:allocation-depth', uri]);
    assert.match(depth, new RegExp(`${9 * GIB} +8192 +1 +local`));
  });
});

describe('nbdcopy', () => {
  it('copies in over four connections and out again, sparse', async () => {
    const source = join(served.folder, 'source');
    const target = join(served.folder, 'target');
    for (const { name, sizeBytes } of [disk, odd]) {
      writeFileSync(source, sparseImage(sizeBytes));
      const uri = served.uri(encodeURIComponent(name));
      await runOk('nbdcopy', ['--flush', '--connections=4', source, uri]);
      writeFileSync(target, '');
      truncateSync(target, sizeBytes);
      await runOk('nbdcopy', [uri, target]);
      assert.ok(readFileSync(target).equals(readFileSync(source)));
      assert.ok(statSync(target).blocks * 512 < 2 * MIB);
    }
  });

  it('copies from one export to another', async () => {
    await runOk('nbdcopy', [served.uri('golden@v1'), served.uri('disk')]);
  });
});

describe('nbdsh', () => {
  it('reads and writes at any byte, with every flag', async () => {
    await nbdsh(
      served.uri('disk'),
      `
b = bytes(range(250)) * 4
h.pwrite(b, 4097)
assert h.pread(1000, 4097) == b
h.pwrite(b, 33333, nbd.CMD_FLAG_FUA)
h.flush()
h.zero(65536, 0, nbd.CMD_FLAG_NO_HOLE | nbd.CMD_FLAG_FUA)
assert h.pread(65536, 0) == bytes(65536)
h.pwrite(b'x' * 65536, 0)
h.zero(8192, 4096, nbd.CMD_FLAG_FAST_ZERO)
h.trim(4096, 16384, nbd.CMD_FLAG_FUA)
assert h.pread(65536, 0) == b'x' * 4096 + bytes(8192) + b'x' * 4096 + bytes(4096) + b'x' * 45056
`,
    );
  });

  it('gets the errors that the protocol asks for, and goes on after each', async () => {
    const errors = `
import errno
h.set_strict_mode(0)
def fails(code, call):
    try: call()
    except nbd.Error as e: assert e.errnum == code, (e.errnum, e.string)
    else: assert False, 'no error'
s = h.get_size()
`;
    await nbdsh(
      served.uri('odd%20%C3%A4'),
      `${errors}
fails(errno.EINVAL, lambda: h.pread(4096, s))
fails(errno.EINVAL, lambda: h.pread(4096, s - 512))
fails(errno.ENOSPC, lambda: h.pwrite(bytearray(4096), s - 512))
fails(errno.ENOSPC, lambda: h.zero(4096, s))
fails(errno.EINVAL, lambda: h.trim(4096, s - 512))
h.cache(4096, 0)
fails(errno.EINVAL, lambda: h.cache(4096, s))
fails(errno.EINVAL, lambda: h.pread(40 << 20, 0))
fails(errno.EINVAL, lambda: h.pread(512, 0, nbd.CMD_FLAG_REQ_ONE))
fails(errno.ENOTSUP, lambda: h.zero(100, 0, nbd.CMD_FLAG_FAST_ZERO))
assert len(h.pread(512, s - 512)) == 512
`,
    );
    await nbdsh(
      served.uri('golden%40v1'),
      `${errors}
fails(errno.EPERM, lambda: h.pwrite(bytearray(4096), 0))
fails(errno.EPERM, lambda: h.zero(4096, 0))
fails(errno.EPERM, lambda: h.trim(4096, 0))
h.flush()
assert h.pread(512, 0) == bytes(512)
`,
    );
    await nbdsh(
      served.uri('full'),
      `${errors}
h.pwrite(b'x' * 65536, 0)
fails(errno.ENOSPC, lambda: h.pwrite(b'x', 65536))
h.pwrite(b'y' * 65536, 0)
h.trim(4096, 0)
h.pwrite(b'x', 65536)
`,
    );
  });

  it('reads with simple replies too, and by the oldest handshake', async () => {
    const script = (setting: string): string => `
import nbd
h = nbd.NBD()
${setting}
h.connect_unix('${served.socketPath}')
h.pwrite(b'abc' * 1000, 12345)
assert h.pread(3000, 12345) == b'abc' * 1000
assert not h.get_structured_replies_negotiated()
h.shutdown()
`;
    await runOk('nbdsh', ['-c', script('h.set_request_structured_replies(False)')]);
    for (const flags of ['0', 'nbd.HANDSHAKE_FLAG_NO_ZEROES']) {
      await runOk('nbdsh', ['-c', script(`h.set_handshake_flags(${flags})`)]);
    }
  });

  it('haggles about options as long as it likes', async () => {
    await runOk('nbdsh', [
      '-c',
      `
h.set_opt_mode(True)
h.connect_unix('${served.socketPath}')
names = []
assert h.opt_list(lambda name, text: names.append(name)) == 5
assert names[2] == 'golden@v1', names
h.set_export_name('golden@v1')
h.opt_info()
assert h.get_size() == 1 << 20 and h.is_read_only()
contexts = []
h.opt_list_meta_context(lambda name: contexts.append(name))
assert contexts == ['base:allocation', 'qemu:allocation-depth', 'keiki:state'], contexts
h.set_export_name('nope')
try: h.opt_info()
except nbd.Error as e: assert e.errno == 'ENOENT', e.errno
else: assert False
h.set_export_name('disk')
h.opt_go()
assert h.get_size() == 64 << 20
h.shutdown()
h2 = nbd.NBD()
h2.set_opt_mode(True)
h2.connect_unix('${served.socketPath}')
h2.opt_abort()
`,
    ]);
  });

  it('reads holes as chunks, and everything as one with DF', async () => {
    await nbdsh(
      served.uri('disk'),
      `
h.zero(4 << 20, 0)
h.pwrite(b'z' * 4096, 1 << 20)
chunks = []
b = h.pread_structured(2 << 20, 0, lambda d, o, s, e: chunks.append((o, s)))
assert b == bytes(1 << 20) + b'z' * 4096 + bytes((1 << 20) - 4096)
assert [s for o, s in chunks] == [nbd.READ_HOLE, nbd.READ_DATA, nbd.READ_HOLE], chunks
chunks = []
h.pread_structured(2 << 20, 0, lambda d, o, s, e: chunks.append(s), nbd.CMD_FLAG_DF)
assert chunks == [nbd.READ_DATA], chunks
`,
    );
  });

  it('sees on one connection at once what was flushed on another', async () => {
    await runOk('nbdsh', [
      '-c',
      `
import random
hs = [nbd.NBD() for _ in range(4)]
for x in hs: x.connect_uri('${served.uri('disk')}')
for i in range(300):
    a, b, c = random.sample(hs, 3)
    o = random.randrange(0, 4096) * 4096
    d = bytes([random.randrange(256)]) * 4096
    a.pwrite(d, o)
    b.flush()
    assert c.pread(4096, o) == d
for x in hs: x.shutdown()
`,
    ]);
  });

  it('keeps 64 requests of up to 32 MiB in flight', async () => {
    await nbdsh(
      served.uri('disk'),
      `
d = bytes(range(256)) * (128 * 1024)
h.pwrite(d, 0)
assert h.pread(32 << 20, 0) == d
bufs = []
for i in range(64):
    b = nbd.Buffer(1 << 20)
    bufs.append(b)
    h.aio_pread(b, (i % 32) << 20)
while h.aio_in_flight() > 0: h.poll(-1)
`,
    );
  });
});

describe('a disk that waits', () => {
  it('is not in the way: later requests are answered first', async () => {
    const slow = new DeferredTarget(new MemoryTarget({ name: 'slow', sizeBytes: MIB }));
    const own = await serveForClients([slow]);
    const client = nbdsh(
      own.uri('slow'),
      `
order = []
for i in range(3):
    h.aio_pread(nbd.Buffer(512), i * 512, lambda e, i=i: order.append(i) or 1)
while h.aio_in_flight() > 0: h.poll(-1)
assert order == [2, 0, 1], order
`,
    );
    while (slow.waiting.length < 3) await new Promise((resolve) => setImmediate(resolve));
    for (const index of [2, 0, 1]) slow.waiting[index]?.finish();
    await client;
    await own.close();
  });
});
