/**
 * The reader in Python against a store made by hand, beside a model of plain arrays: two readings
 * of docs/FORMAT.md, the codecs' and the reader's, must agree.
 */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { crc32 } from '../../src/base/checksum.js';
import { BLOCK_BYTES, SEGMENT_BLOCKS } from '../../src/base/units.js';
import { seededRandom } from '../../src/env/seeded-random.js';
import type { LogEntry } from '../../src/layout/log-entry.js';
import { makeScene, writeLog } from '../support/handmade-scene.js';
import { bytesOf, type Layer, randomBlock } from '../support/layers.js';
import { PLAIN_TREE, PLAIN_VDISK } from '../support/layout-values.js';
import { type ReaderAnswer, readImage } from './run-reader.js';

const STORE_BLOCKS = 16 * SEGMENT_BLOCKS;
const META_START = 4 * SEGMENT_BLOCKS;
const DAMAGED = 2;

function expectReads(image: Uint8Array, expected: Readonly<Record<string, Layer>>): void {
  const digests = readImage(image, 'sha256', ...Object.keys(expected));
  assert.equal(digests.code, 0, digests.message);
  const lines = digests.output.toString().split('\n');
  for (const [index, [name, layer]] of Object.entries(expected).entries()) {
    const bytes = bytesOf(layer);
    if (lines[index] === sha256(bytes)) continue;
    const { output } = readImage(image, 'cat', name);
    const at = output.findIndex((byte, offset) => byte !== bytes[offset]);
    assert.fail(`${name} differs from byte ${at} on, FBN ${at >>> 12}`);
  }
}

function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

function expectFailure(answer: ReaderAnswer, code: number, message: RegExp): void {
  assert.equal(answer.code, code, answer.message);
  assert.match(answer.message, message);
}

function flip(image: Uint8Array, vbn: number, byte = 77): void {
  const at = vbn * BLOCK_BYTES + byte;
  image[at] = (image[at] ?? 0) ^ 0x10;
}

test('every vdisk and snapshot reads as the model says', () => {
  const { store, layers } = makeScene();
  expectReads(store.finish(), layers);
});

test('list, sha256 and a part of a vdisk', () => {
  const { store, layers } = makeScene();
  const image = store.finish();
  const rows = [
    ['clone', 'vdisk'],
    ['golden', 'vdisk'],
    ['golden@v1', 'snapshot'],
    ['other ö', 'vdisk'],
  ] as const;
  const expected = rows.map(([name, kind]) => `${name}\t${kind}\t${layers[name].sizeBytes}\n`);
  assert.equal(readImage(image, 'list').output.toString(), expected.join(''));
  const bytes = bytesOf(layers.golden);
  const digests = [layers.golden, layers.clone].map((layer) => sha256(bytesOf(layer)));
  const answer = readImage(image, 'sha256', 'golden', 'clone').output.toString();
  assert.equal(answer, `${digests.join('\n')}\n`);
  const limit = 501 * BLOCK_BYTES + 1024;
  const part = readImage(image, 'cat', 'golden', `${limit - 5000}`, '9001');
  assert.deepEqual(part.output, bytes.subarray(limit - 5000, limit + 4001));
});

test('no such name, no such range, no such command', () => {
  const image = makeScene().store.finish();
  expectFailure(readImage(image, 'cat', 'gold'), 1, /no vdisk or snapshot is called gold/);
  expectFailure(readImage(image, 'cat', 'golden', '0', '99999999'), 1, /has 2457600 bytes/);
  expectFailure(readImage(image, 'dance'), 1, /STORE list/);
});

test('metadata is read from its second copy', () => {
  const { store, layers } = makeScene();
  const image = store.finish();
  for (let vbn = META_START; vbn < META_START + SEGMENT_BLOCKS; vbn++) flip(image, vbn);
  expectReads(image, layers);
});

test('metadata with two damaged copies is damage', () => {
  const image = makeScene().store.finish();
  for (let vbn = META_START; vbn < META_START + 2 * SEGMENT_BLOCKS; vbn++) flip(image, vbn);
  expectFailure(readImage(image, 'list'), DAMAGED, /neither copy of metadata block 4\d+ matches/);
});

test('a damaged data block is told with vdisk and FBN', () => {
  const image = makeScene().store.finish();
  // The first block that was placed: FBN 0 of golden@v1, which the clone shares and golden hides.
  flip(image, SEGMENT_BLOCKS);
  expectFailure(readImage(image, 'cat', 'golden@v1'), DAMAGED, /golden@v1: FBN 0: VBN 1024/);
  expectFailure(readImage(image, 'cat', 'clone'), DAMAGED, /clone: FBN 0: VBN 1024/);
  assert.equal(readImage(image, 'cat', 'golden').code, 0);
});

test('fsinfo: any valid one of the newest slot will do, then the other slot', () => {
  const { store, layers } = makeScene();
  const image = store.finish();
  flip(image, 1);
  flip(image, 0);
  expectReads(image, { golden: layers.golden });
  flip(image, STORE_BLOCKS - 1);
  // Only consistency point 4 is left, in which nothing was.
  assert.deepEqual(readImage(image, 'list').output.toString(), '');
  flip(image, STORE_BLOCKS - 2);
  expectFailure(readImage(image, 'list'), DAMAGED, /no valid fsinfo/);
});

test('a store with a feature that the reader does not know is refused', () => {
  const image = makeScene().store.finish();
  for (const vbn of [0, 1, STORE_BLOCKS - 2, STORE_BLOCKS - 1]) {
    const block = image.subarray(vbn * BLOCK_BYTES, (vbn + 1) * BLOCK_BYTES);
    block[48] = 1;
    new DataView(block.buffer, block.byteOffset).setUint32(8, crc32(block.subarray(12)), true);
  }
  expectFailure(readImage(image, 'list'), 3, /incompatible features/);
});

test('a file that is too short, or no store at all', () => {
  const image = makeScene().store.finish();
  const short = image.subarray(0, image.length - BLOCK_BYTES);
  expectFailure(readImage(short, 'list'), DAMAGED, /shorter than its store/);
  expectFailure(readImage(new Uint8Array(BLOCK_BYTES), 'list'), DAMAGED, /no valid fsinfo/);
});

test('the log is replayed in order', () => {
  const scene = makeScene();
  writeLog(scene, 1);
  expectReads(scene.store.finish(), scene.layers);
});

test('the log is followed around the end of the ring, over old groups', () => {
  const scene = makeScene();
  const garbage = randomBlock(seededRandom(10));
  const entries = Array.from({ length: 10 }, (_, payloadIndex): LogEntry => {
    return { kind: 'data', treeId: 2, fbn: 0, crc: crc32(garbage), payloadIndex };
  });
  // 92 groups of 11 blocks: 10 of the ring's 1022 are left.
  for (let sequence = 100; sequence < 192; sequence++) {
    scene.store.addGroup(sequence, entries, new Array<Uint8Array>(10).fill(garbage));
  }
  scene.store.beginLog(192);
  const groups = writeLog(scene, 192);
  const turns = groups.filter((vbn, index) => vbn < (groups[index - 1] ?? 0));
  assert.deepEqual(turns, [2], 'one group stands at the start of the ring');
  expectReads(scene.store.finish(), scene.layers);
});

test('snapshot, resize, rename, removal and a new vdisk come from the log', () => {
  const { store, layers } = makeScene();
  const { golden } = layers;
  const random = seededRandom(8);
  const bytes = randomBlock(random);
  const v2: Layer = { ...golden, content: new Map(golden.content) };
  const sizeBytes = 70_000 * BLOCK_BYTES;
  const head: Layer = { content: new Map(), sizeBytes, backing: v2, limitBytes: 600 * BLOCK_BYTES };
  head.content.set(69_999, bytes);
  const record = { ...PLAIN_TREE, id: 9, height: 2, sizeBytes: 600 * BLOCK_BYTES, backingId: 2 };
  const tree = { ...record, readThroughLimitBytes: 600 * BLOCK_BYTES, ownerId: 2 };
  const crc = crc32(bytes);
  const { limitBytes: readThroughLimitBytes } = layers.clone;
  const grown = { sizeBytes: 900 * BLOCK_BYTES, readThroughLimitBytes };
  const snapshot = { ...PLAIN_VDISK, id: 9, kind: 'snapshot' as const, ofVdiskId: 2 };
  store.addGroup(
    1,
    [
      { kind: 'tree', record: tree },
      { kind: 'vdisk', record: { ...snapshot, name: 'v2', headTreeId: 2 } },
      { kind: 'vdisk', record: { ...PLAIN_VDISK, id: 2, name: 'golden', headTreeId: 9 } },
    ],
    [],
  );
  store.addGroup(
    2,
    [
      { kind: 'tree', record: { ...tree, sizeBytes, height: 3 } },
      { kind: 'data', treeId: 9, fbn: 69_999, crc, payloadIndex: 0 },
      { kind: 'vdisk', record: { ...PLAIN_VDISK, id: 4, name: 'other ö', gone: true } },
      { kind: 'vdisk', record: { ...PLAIN_VDISK, id: 3, name: 'renamed', headTreeId: 3 } },
      // Room for more under the same root.
      { kind: 'tree', record: { ...PLAIN_TREE, ...grown, id: 3, height: 4, backingId: 1 } },
    ],
    [bytes],
  );
  layers.clone.sizeBytes = grown.sizeBytes;
  const image = store.finish();
  const names = readImage(image, 'list')
    .output.toString()
    .split('\n')
    .map((line) => line.split('\t')[0]);
  assert.deepEqual(names, ['golden', 'golden@v1', 'golden@v2', 'renamed', '']);
  const expected = { 'golden@v2': v2, renamed: layers.clone };
  expectReads(image, { ...expected, 'golden@v1': layers['golden@v1'] });
  // The rest of golden's 273 MiB is zeros.
  for (const [offset, length] of [
    [598 * BLOCK_BYTES, 5 * BLOCK_BYTES],
    [69_998 * BLOCK_BYTES, 2 * BLOCK_BYTES],
  ] as const) {
    const part = readImage(image, 'cat', 'golden', `${offset}`, `${length}`);
    assert.deepEqual(part.output, bytesOf(head).subarray(offset, offset + length));
  }
});

test('a torn last group is the end of the log; one below the synced mark is damage', () => {
  const scene = makeScene();
  const groups = writeLog(scene, 1);
  const image = scene.store.finish();
  for (const [index, vbn] of groups.entries()) {
    const torn = image.slice();
    torn.fill(0, vbn * BLOCK_BYTES, vbn * BLOCK_BYTES + 512);
    const answer = readImage(torn, 'list');
    if (index === groups.length - 1) assert.equal(answer.code, 0, answer.message);
    else expectFailure(answer, DAMAGED, new RegExp(`log group ${index + 1} is damaged`));
  }
  const payload = ((groups[0] ?? 0) + 3) * BLOCK_BYTES;
  image.fill(0, payload, payload + 512);
  expectFailure(readImage(image, 'list'), DAMAGED, /log group 1 is damaged/);
});

test('a group of an earlier run of the program is not taken for the next one', () => {
  const { store, layers } = makeScene();
  const bytes = randomBlock(seededRandom(12));
  const crc = crc32(bytes);
  const data: LogEntry = { kind: 'data', treeId: 2, fbn: 7, crc, payloadIndex: 0 };
  store.addGroup(1, [data], [bytes], { epoch: 2 });
  // Lost with a crash, before the run that wrote group 1; it says that nothing was durable.
  store.addGroup(2, [{ ...data, fbn: 8 }], [bytes], { epoch: 1, syncedThrough: 0 });
  layers.golden.content.set(7, bytes);
  expectReads(store.finish(), { golden: layers.golden });
});

test('one wrong bit in the header and in each payload block of a group is mended', () => {
  const scene = makeScene();
  const groups = writeLog(scene, 1);
  const image = scene.store.finish();
  // Magic, checksum, length, uuid, an entry; and a payload block of the last group.
  for (const [index, byte] of [1, 6, 57, 9, 100].entries()) flip(image, groups[index] ?? 0, byte);
  flip(image, (groups.at(-1) ?? 0) + 2, 4095);
  expectReads(image, scene.layers);
});

test('every wrong bit in the length of a header of several blocks is mended', () => {
  const scene = makeScene();
  const bytes = randomBlock(seededRandom(11));
  const crc = crc32(bytes);
  const data: LogEntry = { kind: 'data', treeId: 2, fbn: 7, crc, payloadIndex: 0 };
  const vbn = scene.store.addGroup(1, new Array<LogEntry>(200).fill(data), [bytes]);
  const image = scene.store.finish();
  for (const byte of [56, 57, 58, 59]) {
    flip(image, vbn, byte);
    const offset = `${7 * BLOCK_BYTES}`;
    assert.deepEqual(readImage(image, 'cat', 'golden', offset, '4096').output, Buffer.from(bytes));
    flip(image, vbn, byte);
  }
});

test('a group whose consistency point is there already is passed over', () => {
  const scene = makeScene();
  const bytes = randomBlock(seededRandom(9));
  const { golden } = scene.layers;
  const crc = crc32(bytes);
  const data: LogEntry = { kind: 'data', treeId: 2, fbn: 7, crc, payloadIndex: 0 };
  scene.store.addGroup(1, [{ ...data, fbn: 8 }], [bytes], { cpNumber: 5 });
  scene.store.addGroup(2, [data], [bytes]);
  golden.content.set(7, bytes);
  expectReads(scene.store.finish(), { golden });
});

test('a group that was not known to be durable may be missing', () => {
  const scene = makeScene();
  const bytes = randomBlock(seededRandom(9));
  const data = (treeId: number): LogEntry => {
    return { kind: 'data', treeId, fbn: 0, crc: crc32(bytes), payloadIndex: 0 };
  };
  const lost = scene.store.addGroup(1, [data(2)], [bytes], { syncedThrough: 0 });
  scene.store.addGroup(2, [data(3)], [bytes], { syncedThrough: 0 });
  const image = scene.store.finish();
  image.fill(0, lost * BLOCK_BYTES, lost * BLOCK_BYTES + 512);
  // Group 2 was under way when the power went: neither was acknowledged.
  expectReads(image, { golden: scene.layers.golden, clone: scene.layers.clone });
});
