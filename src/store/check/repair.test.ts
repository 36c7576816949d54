/** Repair writes damaged copies of metadata and fsinfo again, from the sound ones, nothing else. */
import assert from 'node:assert/strict';
import { before, test } from 'node:test';
import { closedScene, type Specimen } from '../../../test/support/check-scenes.js';
import { BLOCK_BYTES, MIB } from '../../base/units.js';
import type { MemoryDevice } from '../../env/memory-device.js';

let closed: Specimen;
before(async () => {
  closed = await closedScene('in-place');
});

function deviceOf(specimen: Specimen): MemoryDevice {
  return specimen.device ?? assert.fail('the store is in place');
}

async function contentOf(specimen: Specimen): Promise<Buffer> {
  const device = deviceOf(specimen);
  const bytes = Buffer.alloc(device.sizeBytes);
  for (let at = 0; at < bytes.length; at += MIB) {
    await device.read(at, [bytes.subarray(at, at + MIB)]);
  }
  return bytes;
}

/** Block numbers that have two copies, the first of each. */
async function copiedBlocks(specimen: Specimen): Promise<number[]> {
  const { surgery } = specimen;
  const { id } = await surgery.treeOf('alone');
  return [
    await surgery.fileVbn('tree', 0),
    await surgery.fileVbn('vdisk', 0),
    await surgery.fileVbn('usage', 0),
    await surgery.fileVbn('map', 0),
    await surgery.vbnOf(id, 0, 2),
    await surgery.vbnOf(id, 300, 1),
  ];
}

test('every damaged copy of metadata is written again, whichever of the two it is', async () => {
  const specimen = closed.copy();
  const sound = await contentOf(specimen);
  const blocks = await copiedBlocks(specimen);
  for (const [index, vbn] of blocks.entries()) {
    deviceOf(specimen).flipBit((vbn + (index % 2) * 1024) * BLOCK_BYTES + 77, 2);
  }
  const found = await specimen.check();
  assert.deepEqual(
    found.faults.map(({ kind, repaired }) => [kind, repaired]),
    blocks.map(() => ['metadata-copy', false]),
  );
  const repaired = await specimen.check({ repair: true });
  assert.equal(repaired.ok, false);
  assert.deepEqual(
    repaired.faults.map(({ kind, repaired }) => [kind, repaired]),
    blocks.map(() => ['metadata-copy', true]),
  );
  assert.match(repaired.faults[0]?.message ?? '', /it was written again from its copy$/);
  assert.deepEqual((await specimen.check()).faults, []);
  assert.ok((await contentOf(specimen)).equals(sound), 'the store is what it was, byte for byte');
});

test('each fsinfo slot is written again from its twin', async () => {
  const sound = await contentOf(closed);
  for (const block of [0, 1, 16382, 16383]) {
    const specimen = closed.copy();
    deviceOf(specimen).flipBit(block * BLOCK_BYTES + 180, 0);
    const { faults } = await specimen.check({ repair: true });
    assert.deepEqual(
      faults.map(({ kind, repaired }) => [kind, repaired]),
      [['fsinfo-damaged', true]],
    );
    assert.deepEqual((await specimen.check()).faults, []);
    assert.ok((await contentOf(specimen)).equals(sound), `block ${block} is what it was`);
  }
});

test('what has no sound copy is left alone', async () => {
  const specimen = closed.copy();
  const device = deviceOf(specimen);
  const { surgery } = specimen;
  const { id } = await surgery.treeOf('alone');
  const [data, indirect] = [await surgery.vbnOf(id, 3), await surgery.vbnOf(id, 300, 1)];
  // Both copies of the older fsinfo: the newer one is what is checked.
  const older = ((await surgery.patient.readFsinfo()).cpNumber + 1) % 2;
  for (const vbn of [data, indirect, indirect + 1024, older, 16382 + older]) {
    device.flipBit(vbn * BLOCK_BYTES + 77, 2);
  }
  const damaged = await contentOf(specimen);
  const { faults, isComplete } = await specimen.check({ repair: true });
  assert.deepEqual(faults.map(({ kind, repaired }) => `${kind} ${repaired}`).sort(), [
    'data-damaged false',
    'fsinfo-damaged false',
    'fsinfo-damaged false',
    'metadata-lost false',
  ]);
  assert.equal(isComplete, false);
  assert.ok((await contentOf(specimen)).equals(damaged), 'nothing was written');
});

test('without repair nothing is ever written', async () => {
  const specimen = closed.copy();
  for (const vbn of await copiedBlocks(specimen)) {
    deviceOf(specimen).flipBit(vbn * BLOCK_BYTES + 77, 2);
  }
  deviceOf(specimen).flipBit(180, 0);
  const damaged = await contentOf(specimen);
  await specimen.check();
  assert.ok((await contentOf(specimen)).equals(damaged));
});

test('a power cut between the twins of an fsinfo is no fault, and counted', async () => {
  const specimen = closed.copy();
  const device = deviceOf(specimen);
  const { cpNumber } = await specimen.surgery.patient.readFsinfo();
  const slot = cpNumber % 2;
  // The twin as it was one round before: a sound fsinfo of CP n - 2.
  await specimen.surgery.editFsinfo((fsinfo) => ({ cpNumber: fsinfo.cpNumber - 2 }));
  const twin = new Uint8Array(BLOCK_BYTES);
  await device.read((16382 + slot) * BLOCK_BYTES, [twin]);
  const cut = closed.copy();
  await deviceOf(cut).write((16382 + slot) * BLOCK_BYTES, [twin]);
  const report = await cut.check({ repair: true });
  assert.deepEqual(report.faults, []);
  assert.equal(report.counts.staleFsinfos, 1);
  const after = new Uint8Array(BLOCK_BYTES);
  await deviceOf(cut).read((16382 + slot) * BLOCK_BYTES, [after]);
  assert.deepEqual(after, twin, 'opening the store brings it up to date, not the check');
});

test('of many faults the first thousand are listed and all are counted', async () => {
  const specimen = closed.copy();
  await specimen.surgery.editFile('map', 0, (words) => words.fill(0xffff_ffff, 160, 256));
  const report = await specimen.check();
  assert.equal(report.faults.length, 1000);
  assert.ok(report.faultCount > 3000, `${report.faultCount} faults`);
});
