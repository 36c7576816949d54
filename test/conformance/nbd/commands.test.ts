/**
 * Every command with every flag, by libnbd, beside a copy in the client's memory; and what a server
 * that stops has answered.
 */
import { once } from 'node:events';
import { after, before, describe, it } from 'node:test';
import { HELD_KINDS, HeldDisks } from './held-disks.js';
import { nbdsh, runOk, start } from './nbd-clients.js';

let disks: HeldDisks;
before(async () => {
  disks = await HeldDisks.start();
});
after(() => disks.close());

/** `h` on a disk, and `m` that has to stay its equal: what one act does is done to both. */
const MODEL = (uri: string): string => `
import random
from nbd import CMD_FLAG_DF as DF, CMD_FLAG_FUA as FUA, CMD_FLAG_NO_HOLE as NO_HOLE
from nbd import CMD_FLAG_FAST_ZERO as FAST, CMD_FLAG_REQ_ONE as ONE
MIB = 1 << 20
CONTEXTS = ['base:allocation', 'qemu:allocation-depth', 'keiki:state']
def connect(*contexts, simple=False):
    x = nbd.NBD()
    for name in contexts: x.add_meta_context(name)
    if simple: x.set_request_structured_replies(False)
    x.connect_uri('${uri}')
    return x
h = connect(*CONTEXTS)
s = h.get_size()
def pieces(): return ((o, min(MIB, s - o)) for o in range(0, s, MIB))
m = bytearray().join(h.pread(n, o) for o, n in pieces())
def same(x=h):
    for o, n in pieces(): assert x.pread(n, o) == m[o:o + n], o
def put(d, o, f=0): h.pwrite(d, o, f); m[o:o + len(d)] = d
def zero(n, o, f=0): h.zero(n, o, f); m[o:o + n] = bytes(n)
def trim(n, o, f=0): h.trim(n, o, f); m[o:o + n] = bytes(n)
# Odd ones, across blocks, over data, holes and zeroes, at the end.
RANGES = [(0, 1), (1, 4095), (4095, 2), (4097, 8191), (8 * MIB - 700, 1400), (10 * MIB + 1, 70000),
          (12 * MIB, 4096), (15 * MIB + 4096, 131072), (20 * MIB, 5000), (s - 512, 512), (s - 1, 1),
          (s - 70000, 70000)]
`;

async function withModel(name: string, script: string): Promise<void> {
  await runOk('nbdsh', ['-c', `${MODEL(disks.uri(name))}${script}`]);
}

for (const name of HELD_KINDS) {
  describe(`libnbd on ${name}`, () => {
    it('READ, with DF and without, with chunks and without', () =>
      withModel(
        name,
        `
simple = connect(simple=True)
same(simple)
for o, n in RANGES + [(0, 32 * MIB), (s - 32 * MIB, 32 * MIB), (7 * MIB + 5, 6 * MIB)]:
    for flags in (0, DF):
        chunks = []
        chunk = lambda d, at, kind, e: chunks.append((at, len(d), kind))
        d = h.pread_structured(n, o, chunk, flags)
        assert d == m[o:o + n], (o, n, flags)
        if flags == DF: assert chunks == [(o, n, nbd.READ_DATA)], chunks
        # Hole chunks come without their length: each chunk begins where one has ended.
        starts = sorted(at for at, _, _ in chunks)
        assert starts[0] == o and len(set(starts)) == len(starts), chunks
        for at, length, kind in chunks: assert kind == nbd.READ_DATA or m[at] == 0, chunks
    assert simple.pread(n, o) == m[o:o + n]
holes = []
h.pread_structured(8 * MIB, 6 * MIB, lambda d, at, kind, e: holes.append(kind))
assert nbd.READ_HOLE in holes and nbd.READ_DATA in holes, holes
`,
      ));

    it('WRITE, TRIM, WRITE_ZEROES, FLUSH and CACHE with each of their flags', () =>
      withModel(
        name,
        `
r = random.Random(1)
for flags in (0, FUA):
    for o, n in RANGES:
        put(r.randbytes(n), o, flags)
        h.cache(n, o)
    same()
    for o, n in RANGES: trim(n, o + (1 if o + n < s else 0), flags)
    same()
    for hole in (0, NO_HOLE):
        for o, n in RANGES: put(r.randbytes(n), o, 0)
        for o, n in RANGES: zero(n, o, flags | hole)
        same()
    for o, n in ((0, 4096), (8 * MIB, 5 * MIB), (s - 512 - 8192, 8704), (12 * MIB, MIB)):
        put(r.randbytes(n), o)
        zero(n, o, flags | FAST)
    same()
    h.flush()
same(connect())
`,
      ));

    it('BLOCK_STATUS of three contexts at once, and REQ_ONE', () =>
      withModel(
        name,
        `
r = random.Random(2)
for i in range(12): put(r.randbytes(4096), (r.randrange(s) >> 12 << 12) % (s - 4096))
put(b'end', s - 3)
trim(2 * MIB, 5 * MIB)
h.flush()
def ask(x, o, n, flags=0):
    found = {}
    def extents(context, at, entries, e):
        assert at == o and context not in found
        found[context] = list(zip(entries[::2], entries[1::2]))
        return 0
    x.block_status(n, o, extents, flags)
    return found
for o, n in RANGES + [(0, s), (1, s - 1), (5 * MIB + 3, 9 * MIB)]:
    found = ask(h, o, n)
    assert sorted(found) == sorted(CONTEXTS), found.keys()
    for context, entries in found.items():
        at = o
        for index, (length, flags) in enumerate(entries):
            assert length > 0
            assert index == 0 or entries[index - 1][1] != flags, entries
            if context == 'base:allocation' and flags & 2: assert not any(m[at:at + length]), at
            at += length
        # All of it, for these are few extents; "MAY describe more" is for the last one alone.
        assert at >= o + n and at - entries[-1][0] < o + n
    one = ask(h, o, n, ONE)
    for context in CONTEXTS:
        length, flags = one[context][0]
        assert len(one[context]) == 1 and 0 < length <= n
        assert found[context][0][1] == flags and length <= found[context][0][0]
assert list(ask(connect('keiki:state'), 0, 4096)) == ['keiki:state']
assert list(ask(connect('base:allocation', 'qemu:no-such'), 0, 4096)) == ['base:allocation']
`,
      ));
  });
}

// Of a clone in mid-split that would be the end of its split.
for (const name of ['vdisk', 'clone']) {
  describe(`libnbd on all of ${name}`, () => {
    it('the longest WRITE, TRIM and WRITE_ZEROES of the whole disk', () =>
      withModel(
        name,
        `
r = random.Random(3)
put(r.randbytes(32 * MIB), 12345, FUA)
same()
trim(s - 1, 0, FUA)
same()
put(r.randbytes(MIB), 3 * MIB)
zero(s - 1, 1)
same(connect())
`,
      ));
  });
}

describe('a server that stops', () => {
  /** Writes sectors of their number at depth 32 until the server goes; keeps what was answered. */
  const WRITER = (uri: string, answeredFile: string): string => `
h.connect_uri('${uri}')
done = set()
told = False
def write(i):
    def ended(e):
        if e.value == 0: done.add(i)
        return 1
    sector = bytearray(i.to_bytes(4, 'little') * 128)
    h.aio_pwrite(nbd.Buffer.from_bytearray(sector), i * 512, ended)
i = 0
try:
    while i < 60000:
        while h.aio_in_flight() < 32:
            write(i)
            i += 1
        h.poll(-1)
        if len(done) > 2000 and not told:
            print('writing', flush=True)
            told = True
except nbd.Error: pass
with open('${answeredFile}', 'w') as file: file.write(' '.join(map(str, sorted(done))))
`;

  it('keeps all that it has answered, of every client', async () => {
    const clients = HELD_KINDS.map((name) => {
      const answeredFile = disks.lab.path(`${name}.answered`);
      const child = start('nbdsh', ['-c', WRITER(disks.uri(name), answeredFile)]);
      const isWriting = once(child.stdout ?? child, 'data');
      return { name, answeredFile, isWriting, ended: once(child, 'close') };
    });
    for (const { isWriting } of clients) await isWriting;
    await disks.lab.stop();
    await disks.lab.start({ args: ['--size', '512M'] });
    for (const { name, answeredFile, ended } of clients) {
      await ended;
      const script = `
m = h.pread(60000 * 512, 0)
answered = [int(word) for word in open('${answeredFile}').read().split()]
for i in answered: assert m[i * 512:i * 512 + 512] == i.to_bytes(4, 'little') * 128, i
assert 2000 < len(answered) < 60000, len(answered)
`;
      await nbdsh(disks.uri(name), script);
    }
  });
});
