/** nbdcopy both ways, with each of its ways to ask, against disks of a server. */
import assert from 'node:assert/strict';
import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { after, before, describe, it } from 'node:test';
import { KIB, MIB } from '../../../src/base/units.js';
import { seededRandom } from '../../../src/env/seeded-random.js';
import { HELD_BYTES, HELD_KINDS, HeldDisks } from './held-disks.js';
import { run, runOk } from './nbd-clients.js';

let disks: HeldDisks;
let source: string;
let image: Buffer;
before(async () => {
  disks = await HeldDisks.start();
  source = disks.lab.path('source');
  image = sparseImage(7);
  writeFileSync(source, '');
  for (const [at, length] of DATA) {
    writeFileSync(source, '', { flag: 'a' });
    truncateSync(source, at);
    writeFileSync(source, image.subarray(at, at + length), { flag: 'a' });
  }
  assert.equal(statSync(source).size, HELD_BYTES);
  assert.ok(statSync(source).blocks * 512 < 8 * MIB, 'the source is sparse');
});
after(() => disks.close());

/**
 * At the begin, across blocks, and up to the end, which is no whole block. Behind 15 MiB a clone in
 * mid-split has still to be filled.
 */
const DATA = [
  [0, 100_000],
  [3 * MIB + 512, 2 * MIB],
  [9 * MIB, 4096],
  [13 * MIB - 1, 512],
  [HELD_BYTES - 70_000, 70_000],
] as const;

function sparseImage(seed: number): Buffer {
  const bytes = Buffer.alloc(HELD_BYTES);
  const random = seededRandom(seed);
  for (const [at, length] of DATA) random.fill(bytes.subarray(at, at + length));
  return bytes;
}

/** The content of a disk, as a file that nbdcopy made; how much of it takes space. */
async function copyOut(
  name: string,
  ...options: string[]
): Promise<{ bytes: Buffer; used: number }> {
  const target = disks.lab.path(`${name}.out`);
  writeFileSync(target, '');
  truncateSync(target, HELD_BYTES);
  await runOk('nbdcopy', [...options, disks.uri(name), target]);
  return { bytes: readFileSync(target), used: statSync(target).blocks * 512 };
}

async function expectImage(name: string): Promise<void> {
  const { bytes } = await copyOut(name);
  assert.ok(bytes.equals(image), `${name} is not what was copied into it`);
}

const OUT: readonly (readonly string[])[] = [
  ['--connections=4', '--threads=2'],
  ['--synchronous'],
  ['--no-extents', '--request-size=65536'],
  ['--request-size=4096', '--requests=128', '--connections=1'],
  ['--request-size=33554432', '--queue-size=67108864'],
  ['--sparse=0', '--allocated'],
];

for (const name of HELD_KINDS) {
  describe(`nbdcopy of ${name}`, () => {
    it('brings the same out, however it asks, sparse', async () => {
      const { bytes } = await copyOut(name, '--connections=1', '--synchronous', '--no-extents');
      for (const options of name === 'splitting' ? OUT : OUT.slice(0, 3)) {
        const { bytes: other, used } = await copyOut(name, ...options);
        assert.ok(other.equals(bytes), options.join(' '));
        assert.ok(used < 16 * MIB, `${options.join(' ')}: ${used} bytes`);
      }
    });
  });
}

const IN: readonly (readonly string[])[] = [
  ['--connections=4', '--flush'],
  ['--allocated', '--request-size=65536', '--connections=2'],
  ['--synchronous', '--flush'],
  ['--request-size=33554432', '--queue-size=67108864', '--sparse=0'],
];

/** So much of a disk is mapped in its own tree. */
async function mappedBytes(name: string): Promise<number> {
  return Number((await disks.ask('GET', `/v1/vdisks/${name}`)).mappedBytes);
}

// Copies overwrite all of their target: a clone in mid-split has nothing left to fill after one.
for (const name of ['vdisk', 'clone']) {
  describe(`nbdcopy to ${name}`, () => {
    for (const options of IN) {
      it(options.join(' '), async () => {
        const fresh = `${name}-${IN.indexOf(options)}`;
        if (name === 'vdisk') {
          await disks.ask('POST', '/v1/vdisks', { name: fresh, sizeBytes: HELD_BYTES });
        } else {
          await disks.ask('POST', '/v1/clones', { source: 'golden@v1', names: [fresh] });
          await disks.ask('PATCH', `/v1/vdisks/${fresh}`, { sizeBytes: HELD_BYTES });
        }
        await runOk('nbdcopy', [...options, source, disks.uri(fresh)]);
        await expectImage(fresh);
        // A zero that was asked for as one takes no block, in a clone neither.
        const mapped = await mappedBytes(fresh);
        const isWhole = options.includes('--sparse=0');
        assert.equal(mapped > 36 * MIB, isWhole, `${mapped} bytes are mapped`);
        assert.ok(isWhole || mapped < 8 * MIB, `${mapped} bytes are mapped`);
      });
    }
  });
}

describe('nbdcopy', () => {
  it('leaves alone what it is told to be zero', async () => {
    await disks.ask('POST', '/v1/vdisks', { name: 'fresh', sizeBytes: HELD_BYTES });
    await runOk('nbdcopy', ['--destination-is-zero', source, disks.uri('fresh')]);
    await expectImage('fresh');
    const mapped = await mappedBytes('fresh');
    assert.ok(mapped < 3 * MIB, `${mapped} bytes are mapped`);
  });

  it('copies from disk to disk, each with four connections', async () => {
    await disks.ask('POST', '/v1/clones', { source: 'golden@v1', names: ['target'] });
    await disks.ask('PATCH', '/v1/vdisks/target', { sizeBytes: HELD_BYTES });
    for (const name of [...HELD_KINDS, 'vdisk-0']) {
      const args = ['--connections=4', '--flush', `--request-size=${256 * KIB}`];
      await runOk('nbdcopy', [...args, disks.uri(name), disks.tcpUri('target')]);
      await runOk('qemu-img', [
        ...['compare', '-q', '-f', 'raw', '-F', 'raw'],
        ...[disks.uri(name), disks.uri('target')],
      ]);
    }
  });

  it('streams out of a disk and into one', async () => {
    await disks.ask('POST', '/v1/vdisks', { name: 'piped', sizeBytes: HELD_BYTES });
    const script = 'nbdcopy "$1" - | nbdcopy --flush - "$2"';
    const uris = [disks.uri('vdisk-0'), disks.uri('piped')];
    await runOk('sh', ['-c', script, 'sh', ...uris]);
    await expectImage('piped');
    await runOk('nbdcopy', [disks.uri('splitting'), 'null:']);
  });

  it('is refused by a snapshot, and by a disk that is too small', async () => {
    const isRefused = async (target: string, message: RegExp): Promise<void> => {
      const { code, stderr } = await run('nbdcopy', [source, disks.uri(target)]);
      assert.equal(code, 1);
      assert.match(stderr, message);
    };
    await isRefused('golden@v1', /read.?only/i);
    await isRefused('golden', /(smaller|size)/);
  });
});
