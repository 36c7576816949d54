/**
 * Every error that a server must answer with, as libnbd gets it when it checks nothing itself. Each
 * connection goes on after all of them, and nothing has changed.
 */
import assert from 'node:assert/strict';
import { after, before, describe, it } from 'node:test';
import { STORE_ERROR_KINDS, StoreError } from '../../../src/base/store-error.js';
import { MIB } from '../../../src/base/units.js';
import { DaemonLab } from '../../support/daemon-lab.js';
import { DeferredTarget, MemoryTarget } from '../../support/memory-target.js';
import { nbdsh, runOk, type ServedForClients, serveForClients } from './nbd-clients.js';

const odd = new MemoryTarget({ name: 'odd', sizeBytes: 33 * MIB + 512 });
const snapshot = new MemoryTarget({ name: 'odd@v1', sizeBytes: 33 * MIB + 512, readOnly: true });

let served: ServedForClients;
before(async () => {
  served = await serveForClients([odd, snapshot]);
  odd.write(0, Buffer.alloc(MIB, 7));
  odd.write(odd.sizeBytes - 1024, Buffer.alloc(1024, 9));
});
after(() => served.close());

/**
 * `h` with three contexts, which sends whatever it is told; `calls` to each command at a place, and
 * `fails`, which wants an error.
 */
const ERRORS = (uri: string): string => `
import errno
from errno import EINVAL, ENOSPC, EPERM, ENOTSUP
MIB = 1 << 20
def connect(*contexts, simple=False):
    x = nbd.NBD()
    x.set_strict_mode(0)
    for name in contexts: x.add_meta_context(name)
    if simple: x.set_request_structured_replies(False)
    x.connect_uri('${uri}')
    return x
h = connect('base:allocation', 'keiki:state')
s = h.get_size()
def wait(x, cookie):
    while not x.aio_command_completed(cookie): x.poll(-1)
# By the asynchronous calls, which take any flag, and say what the server has answered.
def read(x, n, o, f): wait(x, x.aio_pread(nbd.Buffer(n), o, flags=f))
def marks(n): return nbd.Buffer.from_bytearray(bytearray(b'!' * n))
def write(x, n, o, f): wait(x, x.aio_pwrite(marks(n), o, flags=f))
def trim(x, n, o, f): wait(x, x.aio_trim(n, o, flags=f))
def zero(x, n, o, f): wait(x, x.aio_zero(n, o, flags=f))
def cache(x, n, o, f): wait(x, x.aio_cache(n, o, flags=f))
def flush(x, n, o, f): wait(x, x.aio_flush(flags=f))
def status(x, n, o, f): wait(x, x.aio_block_status(n, o, lambda *a: 0, flags=f))
calls = [read, write, trim, zero, cache, flush, status]
def code(call, n=4096, o=0, f=0, x=h):
    try: call(x, n, o, f)
    except nbd.Error as e:
        assert 'command failed' in e.string, ('libnbd has not asked the server', e)
        return e.errnum
    return 0
def expect(wanted, call, **place):
    got = code(call, **place)
    assert got == wanted, (call.__name__, place, errno.errorcode.get(got), 'wanted', wanted)
def content(): return b''.join(h.pread(n, o) for o, n in ((0, 32 * MIB), (32 * MIB, s - 32 * MIB)))
`;

async function withErrors(name: string, script: string): Promise<void> {
  await nbdsh('', `${ERRORS(served.uri(name))}${script}`);
}

describe('libnbd gets an error', () => {
  it('beyond the end, by any command', () =>
    withErrors(
      'odd',
      `
before = content()
PLACES = [(4096, s), (4096, s - 512), (1, s), (512, s - 511), (s, 1), (512, 1 << 62)]
for n, o in PLACES + [(32 * MIB, s - MIB)]:
    for call in (read, trim, cache, status): expect(EINVAL, call, n=n, o=o)
    expect(ENOSPC, zero, n=n, o=o)
    if n <= 32 * MIB: expect(ENOSPC, write, n=n, o=o)
for f in (0, nbd.CMD_FLAG_FUA, nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FAST_ZERO):
    expect(ENOSPC, zero, o=s, f=f)
expect(EINVAL, read, o=s, f=nbd.CMD_FLAG_DF)
expect(EINVAL, status, o=s, f=nbd.CMD_FLAG_REQ_ONE)
for call in calls: expect(0, call, n=512, o=s - 512)
h.pwrite(before[-512:], s - 512)
assert content() == before
`,
    ));

  it('for what is too long, too short, or was not agreed on', () =>
    withErrors(
      'odd',
      `
before = content()
# 64 MiB is the longest payload that libnbd sends, and that is passed over.
for n in (32 * MIB + 1, 64 * MIB):
    for call in (read, write): expect(EINVAL, call, n=n)
expect(EINVAL, read, n=32 * MIB + 1, f=nbd.CMD_FLAG_DF)
expect(EINVAL, status, n=0)
for call in (read, write, trim, zero, cache): expect(0, call, n=0, o=s)
plain = connect()
expect(EINVAL, status, x=plain)
simple = connect(simple=True)
expect(EINVAL, read, f=nbd.CMD_FLAG_DF, x=simple)
for call in (read, trim, cache, status): expect(EINVAL, call, o=s, x=simple)
for call in (write, zero): expect(ENOSPC, call, o=s, x=simple)
expect(0, read, x=simple)
assert content() == before
`,
    ));

  it('for each flag of sixteen that does not go with its command', () =>
    withErrors(
      'odd',
      `
FUA, NO_HOLE, DF, ONE, FAST = (1 << bit for bit in range(5))
takes = {read: FUA | DF, write: FUA, trim: FUA, zero: FUA | NO_HOLE | FAST,
         cache: FUA, flush: FUA, status: FUA | ONE}
for call, flags in takes.items():
    for bit in range(16):
        expect(0 if flags & 1 << bit else EINVAL, call, n=4096, o=8192, f=1 << bit)
        expect(EINVAL, call, n=4096, o=0, f=1 << bit | (DF if call != read else ONE))
assert h.pread(4096, 0) == bytes([7]) * 4096
assert h.pread(4096, 8192) == bytes(4096)
`,
    ));

  it('for zeroes that would not be fast: ENOTSUP, and nothing has changed', () =>
    withErrors(
      'odd',
      `
before = content()
FAST = nbd.CMD_FLAG_FAST_ZERO
for n, o in ((100, 0), (4096, 1), (4095, 0), (4097, 0), (8192, s - 8192 - 1), (511, s - 512)):
    expect(ENOTSUP, zero, n=n, o=o, f=FAST)
NO_HOLE = nbd.CMD_FLAG_NO_HOLE
for f in (NO_HOLE, NO_HOLE | nbd.CMD_FLAG_FUA): expect(ENOTSUP, zero, f=f | FAST)
assert content() == before
# As long as it likes where it is fast: whole blocks, or up to the end.
for n, o in ((4096, 2 * MIB), (s - 4 * MIB, 4 * MIB)): expect(0, zero, n=n, o=o, f=FAST)
`,
    ));

  it('when it writes what is read-only: EPERM, with each flag, beyond the end too', () =>
    withErrors(
      'odd@v1',
      `
assert h.is_read_only() and not h.can_trim() and not h.can_zero() and not h.can_fast_zero()
for o in (0, 1, s - 512, s):
    for f in (0, nbd.CMD_FLAG_FUA):
        for call in (write, trim, zero): expect(EPERM, call, n=512, o=o, f=f)
    for f in (nbd.CMD_FLAG_NO_HOLE, nbd.CMD_FLAG_FAST_ZERO): expect(EPERM, zero, n=512, o=o, f=f)
expect(EPERM, write, n=40 * MIB)
expect(EPERM, write, n=0)
for call in (read, cache, status, flush): expect(0, call, n=512)
assert content() == bytes(s)
`,
    ));
});

describe('libnbd is told how the store has failed', () => {
  /** As docs/PROTOCOLS.md has it. */
  const EXPECTED: Readonly<Record<(typeof STORE_ERROR_KINDS)[number], string>> = {
    'out-of-space': 'ENOSPC',
    corrupt: 'EIO',
    device: 'EIO',
    'read-only': 'EPERM',
    'not-found': 'ESHUTDOWN',
    exists: 'EINVAL',
    'in-use': 'EPERM',
    invalid: 'EINVAL',
    unsupported: 'EINVAL',
    fenced: 'ESHUTDOWN',
    closed: 'ESHUTDOWN',
  };
  for (const headers of ['structured', 'simple'] as const) {
    it(`by each command and each kind, with ${headers} replies`, async () => {
      const failing = new DeferredTarget(new MemoryTarget({ name: 'failing', sizeBytes: 4 * MIB }));
      const own = await serveForClients([failing]);
      const isSimple = headers === 'simple';
      const client = nbdsh(
        '',
        `${ERRORS(own.uri('failing'))}
x = connect(simple=True) if ${isSimple ? 'True' : 'False'} else h
for name in '${STORE_ERROR_KINDS.map((kind) => EXPECTED[kind]).join(' ')}'.split():
    for call in calls[:${isSimple ? 6 : 7}]: expect(getattr(errno, name), call, n=262144, x=x)
    expect(0, read, x=x)
`,
      );
      let isOver = false;
      const ended = client.finally(() => {
        isOver = true;
      });
      // What fails, and how: six or seven commands of a kind, then one that succeeds.
      let count = 0;
      const commands = isSimple ? 6 : 7;
      while (!isOver) {
        for (const work of failing.waiting.splice(0)) {
          const index = count++;
          const kind = STORE_ERROR_KINDS[Math.floor(index / (commands + 1))] ?? 'invalid';
          if (index % (commands + 1) === commands) work.finish();
          else work.fail(new StoreError(kind, `planted: ${kind}`));
        }
        await new Promise((resolve) => setImmediate(resolve));
      }
      await ended;
      assert.equal(count, STORE_ERROR_KINDS.length * (commands + 1));
      await own.close();
    });
  }
});

describe('a store that is full', () => {
  const lab = new DaemonLab();
  before(() => lab.start({ args: ['--size', '64M'] }));
  after(() => lab.close());

  const uri = (name: string): string => `nbd+unix:///${name}?socket=${lab.path('nbd')}`;

  /** Fills it up, and makes room again by each of the ways there are. */
  const FULL = `
r = random.Random(1)
def same():
    for o, d in done.items(): assert h.pread(len(d), o) == d, o
n = 262144
done = {}
for o in range(0, s, n):
    d = r.randbytes(n)
    try: h.pwrite(d, o)
    except nbd.Error as e:
        assert e.errnum == ENOSPC, e
        break
    done[o] = d
else: assert False, 'it never was full'
assert 30 * MIB < len(done) * n < 64 * MIB, len(done)
same()
expect(ENOSPC, write, n=32 * MIB, o=64 * MIB)
expect(ENOSPC, write, n=32 * MIB, o=64 * MIB, f=nbd.CMD_FLAG_FUA)
for call in (flush, read, status, cache): expect(0, call)
for give in (h.trim, h.zero):
    gone = list(done)[-32:]
    for o in gone:
        give(n, o)
        assert h.pread(n, o) == bytes(n)
        del done[o]
    h.flush()
    for o in gone:
        d = r.randbytes(n // 2)
        h.pwrite(d, o, nbd.CMD_FLAG_FUA)
        done[o] = d
same()
h.trim(s, 0)
h.flush()
assert h.pread(n, 0) == bytes(n)
`;

  it('says so to a vdisk, and to a clone, and takes writes again when there is room', async () => {
    const call = async (path: string, body: object): Promise<void> => {
      const answer = await lab.call('POST', path, body);
      assert.ok(!('detail' in answer), JSON.stringify(answer));
    };
    await call('/v1/vdisks', { name: 'vdisk', sizeBytes: 128 * MIB });
    await runOk('nbdsh', ['-c', `import random${ERRORS(uri('vdisk'))}${FULL}`]);
    await nbdsh(uri('vdisk'), "h.pwrite(b'golden' * 100000, 5)");
    await call('/v1/snapshots', { items: [{ vdisk: 'vdisk', snapshot: 'v1' }] });
    await call('/v1/clones', { source: 'vdisk@v1', names: ['clone'] });
    await runOk('nbdsh', ['-c', `import random${ERRORS(uri('clone'))}${FULL}`]);
    await nbdsh(uri('vdisk'), "assert h.pread(600000, 5) == b'golden' * 100000");
  });
});
