/**
 * Every kind of fault, planted on purpose: the check names it, and names nothing else. Checksums
 * above what is changed are made right again, so that only what the fault says is wrong.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  closedScene,
  crashedScene,
  jobScene,
  MEDIA,
  type Specimen,
} from '../../../test/support/check-scenes.js';
import {
  dataOf,
  IN_PLACE,
  OBJECT_LOG,
  type Planted,
  rot,
} from '../../../test/support/planted-fault.js';
import { COUNTS, MAPS } from '../../../test/support/planted-in-counts.js';
import { POINTERS, RECORDS } from '../../../test/support/planted-in-trees.js';
import { BLOCK_BYTES } from '../../base/units.js';
import { FAULT_KINDS } from './check-report.js';

const DAMAGE: readonly Planted[] = [
  {
    name: 'a rotten data block',
    plant: async (surgery, specimen) => rot(specimen, await dataOf(surgery, 'golden', 12)),
    kinds: ['data-damaged'],
    says: /^golden \(tree \d+\), FBN 12 \(bytes 49152 to 53247\): VBN \d+ of .* is damaged/,
  },
  {
    name: 'a rotten first copy',
    media: IN_PLACE,
    plant: async (surgery, specimen) => rot(specimen, await surgery.fileVbn('tree', 0)),
    kinds: ['metadata-copy'],
    says: /the tree file, FBN 0 of memory: its first copy, VBN \d+, is damaged/,
  },
  {
    name: 'a rotten second copy',
    media: IN_PLACE,
    plant: async (surgery, specimen) => rot(specimen, (await surgery.fileVbn('map', 0)) + 1024),
    kinds: ['metadata-copy'],
    says: /the active map, FBN 0 of memory: its second copy/,
  },
  {
    name: 'both copies of an indirect block',
    media: IN_PLACE,
    plant: async (surgery, specimen) => {
      const vbn = await surgery.vbnOf((await surgery.treeOf('alone')).id, 0, 1);
      await rot(specimen, vbn);
      await rot(specimen, vbn + 1024);
    },
    kinds: ['metadata-lost'],
    says: /alone \(tree \d+\), level-1 block over FBN 0.*so is its second copy/,
  },
  {
    name: 'an indirect block of an object log',
    media: OBJECT_LOG,
    plant: async (surgery, specimen) =>
      rot(specimen, await surgery.vbnOf((await surgery.treeOf('alone')).id, 0, 1)),
    kinds: ['metadata-lost'],
    says: /alone \(tree \d+\), level-1 block over FBN 0/,
  },
  ...[0, 1, 16382, 16383].map(
    (block): Planted => ({
      name: `fsinfo in block ${block}`,
      media: IN_PLACE,
      plant: (_surgery, specimen) => rot(specimen, block, 80),
      kinds: ['fsinfo-damaged'],
      says: new RegExp(`fsinfo block ${block} of memory, for CP \\d+, is damaged: wrong checksum`),
    }),
  ),
];

const SPECIAL: readonly Planted[] = [
  {
    name: 'twins of fsinfo that differ',
    media: IN_PLACE,
    plant: async (surgery, specimen) => {
      const before = specimen.copy();
      await surgery.editFsinfo(({ replayPosition }) => ({ replayPosition: replayPosition + 1 }));
      const { cpNumber } = await surgery.patient.readFsinfo();
      const old = new Uint8Array(BLOCK_BYTES);
      const front = (cpNumber % 2) * BLOCK_BYTES;
      await before.device?.read(front, [old]);
      await specimen.device?.write(front, [old]);
    },
    kinds: ['fsinfo-differs'],
    says: /both of CP \d+ and not the same/,
  },
  {
    name: 'an fsinfo in the wrong slot',
    media: IN_PLACE,
    plant: async (surgery, specimen) => {
      const { cpNumber } = await surgery.patient.readFsinfo();
      const bytes = new Uint8Array(BLOCK_BYTES);
      await specimen.device?.read((cpNumber % 2) * BLOCK_BYTES, [bytes]);
      await specimen.device?.write(((cpNumber + 1) % 2) * BLOCK_BYTES, [bytes]);
    },
    kinds: ['fsinfo-differs'],
    says: /of the other slot/,
  },
  {
    name: 'a CP record that is missing',
    media: OBJECT_LOG,
    plant: async (_surgery, { objects }) => {
      const keys = (await objects?.list('store/log/')) ?? [];
      objects?.objects.delete(keys.at(-1) ?? '');
    },
    kinds: ['fsinfo-lost'],
    says: /CP record \d+ is missing or damaged/,
  },
  {
    name: 'a data record that is missing',
    media: OBJECT_LOG,
    plant: async (surgery, { objects }) => {
      const record = Math.floor((await dataOf(surgery, 'plain', 6)) / 1024);
      objects?.objects.delete(`store/log/${record.toString(16).padStart(16, '0')}`);
    },
    kinds: ['data-damaged', 'record'],
    says: /record \d+ of memory\/store is missing/,
  },
  {
    name: 'a log group that is damaged',
    media: IN_PLACE,
    scene: 'crashed',
    plant: async (surgery, specimen) => {
      const { logStart, replayPosition } = await surgery.patient.readFsinfo();
      const vbn = logStart + replayPosition;
      await rot(specimen, vbn, 200);
      await rot(specimen, vbn, 201);
    },
    kinds: ['log'],
    says: /group \d+ at ring block \d+ is damaged, but group \d+ after it is sound/,
  },
  {
    name: 'a block that only the log names',
    scene: 'crashed',
    plant: async (_surgery, specimen) => {
      const { device, objects } = specimen;
      const store = await specimen.copy().open();
      const bytes = new Uint8Array(BLOCK_BYTES);
      await store.vdisk('golden').read(1030 * BLOCK_BYTES, bytes);
      await store.close();
      if (device !== undefined) {
        const block = new Uint8Array(BLOCK_BYTES);
        for (let vbn = 0; vbn < device.sizeBytes / BLOCK_BYTES; vbn++) {
          await device.read(vbn * BLOCK_BYTES, [block]);
          if (Buffer.compare(block, bytes) === 0) await rot(specimen, vbn);
        }
      }
      for (const key of (await objects?.list('store/log/')) ?? []) {
        const object = (await objects?.get(key)) ?? new Uint8Array();
        const at = Buffer.from(object).indexOf(bytes);
        if (at >= 0) objects?.objects.flipBit(key, at + 5, 3);
      }
    },
    kinds: ['data-damaged'],
    says: /golden \(tree \d+\), FBN 1030/,
  },
  {
    name: 'a log behind a store that was closed in order',
    scene: 'crashed',
    plant: (surgery) => surgery.editFsinfo(() => ({ clean: true })),
    kinds: ['log'],
    says: /says that the store was closed in order/,
  },
  {
    name: 'a split that has passed over a hole',
    scene: 'share split',
    plant: async (surgery) => {
      const tree = (await surgery.trees()).find(({ split }) => split !== undefined);
      const { id, split, height } = tree ?? assert.fail('a split is under way');
      const positionFbn = 256 ** height;
      await surgery.editTree(id, { split: split && { ...split, positionFbn } });
    },
    kinds: ['split'],
    says: /clone \(tree \d+\): its split has come to FBN \d+, but FBN \d+ still reads big@s/,
  },
];

const ALL = [...POINTERS, ...RECORDS, ...COUNTS, ...MAPS, ...DAMAGE, ...SPECIAL];

for (const medium of MEDIA) {
  const scenes = new Map<string, Promise<Specimen>>();
  const sceneOf = (name: Planted['scene'] = 'closed'): Promise<Specimen> => {
    let scene = scenes.get(name);
    if (scene === undefined) {
      if (name === 'closed') scene = closedScene(medium);
      else scene = name === 'crashed' ? crashedScene(medium) : jobScene(medium, name);
      scenes.set(name, scene);
    }
    return scene;
  };
  for (const { name, media = MEDIA, scene, plant, kinds, says } of ALL) {
    if (!media.includes(medium)) continue;
    test(`${medium}: ${name}`, async () => {
      const specimen = (await sceneOf(scene)).copy();
      await plant(specimen.surgery, specimen);
      const report = await specimen.check();
      const found = report.faults.map((fault) => `${fault.kind}: ${fault.message}`);
      const unique = new Set(report.faults.map((fault) => fault.kind));
      assert.deepEqual([...unique].sort(), [...new Set(kinds)].sort(), found.join('\n'));
      assert.ok(
        report.faults.some(({ message }) => says.test(message)),
        `none says ${says}:\n${found.join('\n')}`,
      );
      assert.equal(report.ok, false);
    });
  }
}

test('every kind of fault is planted here', () => {
  const planted = new Set(ALL.flatMap(({ kinds }) => kinds));
  assert.deepEqual([...planted].sort(), [...FAULT_KINDS].sort());
});
