/** External backing stores in the offline check: sound ones, and what can be wrong with them. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { externalScene, MEDIA } from '../../../test/support/check-scenes.js';
import { type Planted, rot } from '../../../test/support/planted-fault.js';
import { MIB } from '../../base/units.js';
import { DESCRIPTOR_FBN } from '../../layout/external-descriptor.js';

const FAULTS: readonly Planted[] = [
  {
    name: 'a rotten descriptor',
    plant: async (surgery, specimen) => {
      const { id } = await surgery.treeOf('image');
      await rot(specimen, await surgery.vbnOf(id, DESCRIPTOR_FBN));
    },
    kinds: ['data-damaged', 'tree-record'],
    says: /image \(tree \d+\): its descriptor cannot be read/,
  },
  {
    name: 'another size than its image',
    plant: async (surgery) => {
      const change = { sizeBytes: MIB - 512, readThroughLimitBytes: MIB - 512 };
      await surgery.editTree((await surgery.treeOf('image')).id, change);
    },
    kinds: ['tree-record', 'lineage'],
    says: /its descriptor says 1048576 bytes, its record 1048064/,
  },
  {
    name: 'a limit that is not its size',
    plant: async (surgery) =>
      surgery.editTree((await surgery.treeOf('image')).id, { readThroughLimitBytes: 4096 }),
    kinds: ['tree-record'],
    says: /it reads its file up to byte 4096, but has 1048576/,
  },
  {
    name: 'a tree without its flag',
    plant: async (surgery) =>
      surgery.editTree((await surgery.treeOf('image')).id, { isExternal: false }),
    kinds: ['tree-record', 'pointer'],
    says: /image \(tree \d+\) is not external, but its record is of kind external/,
  },
  {
    name: 'a flag on the tree of a vdisk',
    plant: async (surgery) =>
      surgery.editTree((await surgery.treeOf('clone')).id, { isExternal: true, backingId: 0 }),
    kinds: ['tree-record'],
    says: /clone \(tree \d+\): it has a block at FBN 0, where its descriptor is not/,
  },
  {
    name: 'a feature that is not announced',
    plant: (surgery) => surgery.editFsinfo(() => ({ incompatible: 0 })),
    kinds: ['tree-record'],
    says: /does not announce its external trees/,
  },
];

for (const kind of MEDIA) {
  test(`${kind}: a store with an external backing store has no fault`, async () => {
    const report = await (await externalScene(kind)).check();
    assert.deepEqual(report.faults, []);
    const { vdisks, snapshots, externals } = report.counts;
    assert.deepEqual([vdisks, snapshots, externals], [1, 0, 1]);
  });

  for (const { name, plant, kinds, says } of FAULTS) {
    test(`${kind}: ${name}`, async () => {
      const specimen = await externalScene(kind);
      await plant(specimen.surgery, specimen);
      const { faults } = await specimen.check();
      const messages = faults.map(({ message }) => message).join('\n');
      assert.match(messages, says);
      assert.deepEqual(new Set(faults.map((fault) => fault.kind)), new Set(kinds), messages);
    });
  }
}
