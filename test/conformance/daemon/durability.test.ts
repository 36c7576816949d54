/**
 * Rows of docs/DURABILITY.md that concern a server, as real NBD clients see them: a client that
 * vanishes, a killed server, a full store, an unreadable block, a disk that takes no more.
 */
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { it } from 'node:test';
import { BLOCK_BYTES, MIB } from '../../../src/base/units.js';
import { DaemonLab } from '../../support/daemon-lab.js';
import { nbdsh, runOk, start } from '../nbd/nbd-clients.js';

async function withDisk(
  sizeBytes: number,
  act: (lab: DaemonLab, uri: string) => Promise<void>,
): Promise<void> {
  const lab = new DaemonLab();
  try {
    await lab.start();
    await lab.call('POST', '/v1/vdisks', { name: 'disk', sizeBytes });
    await act(lab, `nbd+unix:///disk?socket=${lab.path('nbd')}`);
  } finally {
    await lab.close();
  }
}

const EXPECTS = `
import errno
def fails(call, *codes):
    try: call()
    except nbd.Error as e: assert e.errnum in codes, (e.errnum, e.string)
    else: assert False, 'no error'
`;

it('a client that vanishes: what it had flushed is there, sectors of the rest are old or new', async () => {
  await withDisk(16 * MIB, async (lab, uri) => {
    await nbdsh(uri, "h.pwrite(b'f' * (8 << 20), 0); h.flush()");
    // It writes 'n' over 'f' in pieces that are no whole blocks, and is killed in the middle.
    const script = `
print('begin', flush=True)
while True:
    for i in range(2000): h.aio_pwrite(nbd.Buffer.from_bytearray(bytearray(b'n' * 3584)), i * 3584)
    while h.aio_in_flight() > 0: h.poll(-1)
`;
    const client = start('nbdsh', ['-u', uri, '-c', script]);
    const exited = once(client, 'exit');
    let said = '';
    client.stdout?.on('data', (chunk: Buffer) => {
      said += chunk.toString();
      client.kill('SIGKILL');
    });
    await exited;
    assert.equal(said, 'begin\n');
    for (;;) {
      const { clientCount } = await lab.call('GET', '/v1/vdisks/disk');
      if (clientCount === 0) break;
    }
    await nbdsh(
      uri,
      `
d = bytes(h.pread(8 << 20, 0))
for at in range(0, len(d), 512):
    s = d[at:at + 512]
    assert s in (b'f' * 512, b'n' * 512), (at, s[:8])
assert d[2000 * 3584:] == b'f' * (len(d) - 2000 * 3584)
h.pwrite(b'again', 0); h.flush()
`,
    );
    assert.deepEqual(await lab.call('DELETE', '/v1/vdisks/disk'), {});
  });
});

it('a killed server: what was flushed, and FUA with all before it, is there', async () => {
  await withDisk(16 * MIB, async (lab, uri) => {
    await nbdsh(
      uri,
      `
h.pwrite(b'a' * 100000, 777)
h.flush()
h.pwrite(b'b' * 512, 1 << 20)
h.trim(4096, 8192)
h.pwrite(b'c' * 512, 2 << 20, nbd.CMD_FLAG_FUA)
`,
    );
    await nbdsh(uri, 'h.pwrite(b"d" * 512, 3 << 20)');
    await lab.killAll();
    await lab.start();
    await nbdsh(
      uri,
      `
assert h.pread(7415, 777) == b'a' * 7415
assert h.pread(4096, 8192) == bytes(4096)
assert h.pread(512, 1 << 20) == b'b' * 512
assert h.pread(512, 2 << 20) == b'c' * 512
assert bytes(h.pread(512, 3 << 20)) in (bytes(512), b'd' * 512)
`,
    );
  });
});

it('a full store: ENOSPC, nothing changed, flush and trim work, and space comes back', async () => {
  await withDisk(256 * MIB, async (lab, uri) => {
    const fill = `${EXPECTS}
h.set_strict_mode(0)
def fill():
    for o in range(0, 256 << 20, 1 << 20):
        try: h.pwrite(b'5' * (1 << 20), o)
        except nbd.Error as e:
            assert e.errnum == errno.ENOSPC, (e.errnum, e.string)
            return o
    assert False, 'more than the store has'
end = fill()
assert end > 30 << 20, end
h.flush()
assert h.pread(512, end - 512) == b'5' * 512
assert h.pread(1 << 20, end) == bytes(1 << 20)
fails(lambda: h.pwrite(b'6' * (1 << 20), 200 << 20), errno.ENOSPC)
h.trim(end, 0)
h.flush()
`;
    await nbdsh(uri, fill);
    await lab.call('POST', '/v1/consistency-point');
    await nbdsh(uri, "h.pwrite(b'7' * (16 << 20), 0); h.flush()");
    // fio is told the same, and says so.
    const args = ['--ioengine=nbd', `--uri=${uri}`, '--name=fill', '--rw=write', '--bs=1m'];
    await assert.rejects(runOk('fio', [...args, '--size=256m'], lab.folder), /No space left/);
    assert.deepEqual(await lab.call('DELETE', '/v1/vdisks/disk'), {});
  });
});

it('an unreadable block: EIO for it and for nothing else; writing it again mends it', async () => {
  await withDisk(4 * MIB, async (lab, uri) => {
    await nbdsh(uri, "h.pwrite(b'x' * 12288, 0); h.pwrite(b'q' * 4096, 4096); h.flush()");
    await lab.stop();
    rot(lab.path('store'), Buffer.alloc(BLOCK_BYTES, 'q'));
    await lab.start();
    await nbdsh(
      uri,
      `${EXPECTS}
fails(lambda: h.pread(4096, 4096), errno.EIO)
fails(lambda: h.pread(12288, 0), errno.EIO)
assert h.pread(4096, 0) == b'x' * 4096
assert h.pread(4096, 8192) == b'x' * 4096
h.flush()
h.pwrite(b'm' * 4096, 4096)
h.flush()
assert h.pread(4096, 4096) == b'm' * 4096
`,
    );
  });
});

it('a disk that takes no more: the flush fails, the server ends, the flushed bytes are there', async () => {
  await withDisk(4 * MIB, async (lab, uri) => {
    await nbdsh(uri, "h.pwrite(b'1' * 4096, 0); h.flush()");
    const pid = String(lab.last.process.pid);
    execFileSync('prlimit', ['--pid', pid, '--fsize=4096']);
    await nbdsh(
      uri,
      `${EXPECTS}
h.pwrite(b'2' * 4096, 0)
fails(h.flush, errno.EIO, errno.ESHUTDOWN, errno.ENOTCONN)
`,
    );
    assert.equal(await lab.last.ended, 1);
    await lab.start();
    await nbdsh(uri, "assert bytes(h.pread(4096, 0)) in (b'1' * 4096, b'2' * 4096)");
  });
});

/** Flips a bit in every block of the store with this content. */
function rot(path: string, content: Buffer): void {
  const bytes = readFileSync(path);
  let count = 0;
  for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
    if (!bytes.subarray(at, at + BLOCK_BYTES).equals(content)) continue;
    bytes[at + 17] = (bytes[at + 17] ?? 0) ^ 4;
    count++;
  }
  assert.ok(count > 0, 'the content is in the store');
  writeFileSync(path, bytes);
}
