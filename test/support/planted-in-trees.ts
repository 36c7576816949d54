/** Faults in pointers and records. */
import { BLOCK_BYTES } from '../../src/base/units.js';
import { FLAG_FILLED } from '../../src/layout/pointer.js';
import { DEFAULT_POLICY } from '../../src/layout/split-policy.js';
import { IN_PLACE, type Planted, wordAt } from './planted-fault.js';

export const POINTERS: readonly Planted[] = [
  {
    name: 'a hole with a filled flag',
    plant: async (surgery) =>
      surgery.editField((await surgery.treeOf('golden')).id, 40, (words) => {
        words[1] = FLAG_FILLED;
      }),
    kinds: ['pointer'],
    says: /golden \(tree \d+\), FBN 40.*hole with a filled flag/,
  },
  {
    name: 'an unknown flag',
    plant: async (surgery) =>
      surgery.editField((await surgery.treeOf('plain')).id, 6, (words) => {
        words[1] = wordAt(words, 1) | 0x0400_0000;
      }),
    kinds: ['pointer'],
    says: /unknown flags/,
  },
  {
    name: 'a checksum without a block',
    plant: async (surgery) =>
      surgery.editField((await surgery.treeOf('golden')).id, 41, (words) => {
        words[2] = 7;
      }),
    kinds: ['pointer'],
    says: /checksum but no block/,
  },
  {
    name: 'a spare word',
    plant: async (surgery) =>
      surgery.editField((await surgery.treeOf('golden')).id, 42, (words) => {
        words[3] = 1;
      }),
    kinds: ['pointer'],
    says: /spare word/,
  },
  {
    name: 'a VBN beyond the store',
    media: IN_PLACE,
    plant: async (surgery) =>
      surgery.editField((await surgery.treeOf('plain')).id, 6, (words) => {
        words[0] = 0x7fff_ffff;
      }),
    kinds: ['pointer'],
    says: /beyond the store/,
  },
  {
    name: 'a VBN in the log ring',
    media: IN_PLACE,
    plant: async (surgery) =>
      surgery.editField((await surgery.treeOf('plain')).id, 6, (words) => {
        words[0] = 100;
      }),
    kinds: ['pointer'],
    says: /VBN 100, a block of fsinfo or the log/,
  },
  {
    name: 'a block beyond the end of its tree',
    plant: async (surgery) => {
      const { id } = await surgery.treeOf('golden');
      const sizeBytes = 12 * BLOCK_BYTES;
      await surgery.editTree(id, { sizeBytes, readThroughLimitBytes: sizeBytes });
    },
    kinds: ['pointer'],
    says: /golden \(tree \d+\), FBN 12.*beyond its end, FBN 12/,
  },
];

export const RECORDS: readonly Planted[] = [
  {
    name: 'a tree record that cannot be decoded',
    plant: async (surgery) =>
      surgery.editSlot('tree', (await surgery.treeOf('deep')).id, (bytes) => {
        bytes[9] = 77;
      }),
    kinds: ['tree-record', 'vdisk-record'],
    says: /tree record \d+ makes no sense/,
  },
  {
    name: 'two trees with one id',
    plant: async (surgery) => {
      const { id } = await surgery.treeOf('golden');
      await surgery.editTree((await surgery.treeOf('deep')).id, { id });
    },
    kinds: ['tree-record', 'vdisk-record'],
    says: /id \d+, which is there already/,
  },
  {
    name: 'a tree id that is not given out',
    plant: async (surgery) => {
      const ids = (await surgery.trees()).map(({ id }) => id);
      await surgery.editFsinfo(() => ({ nextTreeId: Math.max(...ids) }));
    },
    kinds: ['tree-record'],
    says: /not given out yet/,
  },
  {
    name: 'a tree too low for its size',
    plant: async (surgery) =>
      surgery.editTree((await surgery.treeOf('golden')).id, { sizeBytes: 512 * 1024 * 1024 }),
    kinds: ['tree-record'],
    says: /height 2 is too low/,
  },
  {
    name: 'a size that is no multiple of 512',
    plant: async (surgery) =>
      surgery.editTree((await surgery.treeOf('golden')).id, { sizeBytes: 8 * 1024 * 1024 + 1 }),
    kinds: ['tree-record'],
    says: /its size is 8388609/,
  },
  {
    name: 'a limit beyond the size',
    plant: async (surgery) =>
      surgery.editTree((await surgery.treeOf('deep')).id, {
        readThroughLimitBytes: 4 * 1024 * 1024,
      }),
    kinds: ['tree-record'],
    says: /reads through up to byte 4194304, but has/,
  },
  {
    name: 'a limit beyond the backing tree',
    plant: async (surgery) =>
      surgery.editTree((await surgery.treeOf('plain')).id, {
        sizeBytes: 9 * 1024 * 1024,
        readThroughLimitBytes: 9 * 1024 * 1024,
      }),
    kinds: ['lineage'],
    says: /its backing tree has 8388608/,
  },
  {
    name: 'a live tree that is half gone',
    plant: async (surgery) =>
      surgery.editTree((await surgery.treeOf('deep')).id, { goneBelowFbn: 256 }),
    kinds: ['tree-record'],
    says: /it lives, and is gone below 256/,
  },
  {
    name: 'an owner that is another one',
    plant: async (surgery) => {
      const { ownerId } = await surgery.treeOf('golden');
      await surgery.editTree((await surgery.treeOf('deep')).id, { ownerId });
    },
    kinds: ['tree-record', 'vdisk-record'],
    says: /belongs to vdisk record \d+, whose tree is/,
  },
  {
    name: 'a backing tree that is missing',
    plant: async (surgery) =>
      surgery.editTree((await surgery.treeOf('deep')).id, { backingId: 4711 }),
    kinds: ['lineage'],
    says: /deep \(tree \d+\) reads through tree 4711, which is missing/,
  },
  {
    name: 'a lineage in a circle',
    plant: async (surgery) => {
      const { backingId } = await surgery.treeOf('plain');
      const v1 = (await surgery.tree(backingId)).backingId;
      await surgery.editTree(v1, { backingId, readThroughLimitBytes: 4096 });
    },
    kinds: ['lineage'],
    says: /through itself/,
  },
  {
    name: 'a snapshot that its vdisk does not read through',
    plant: async (surgery) =>
      surgery.editTree((await surgery.treeOf('plain')).id, { backingId: 0 }),
    kinds: ['lineage'],
    says: /snapshot plain@s .*not in the past/,
  },
  {
    name: 'a split from nowhere',
    plant: async (surgery) =>
      surgery.editTree((await surgery.treeOf('alone')).id, {
        split: { mode: 'copy', phase: 'filling', policy: DEFAULT_POLICY, positionFbn: 0, bad: [] },
      }),
    kinds: ['split'],
    says: /from no backing store/,
  },
  {
    name: 'a vdisk record that cannot be decoded',
    plant: async (surgery) =>
      surgery.editSlot('vdisk', (await surgery.treeOf('deep')).ownerId, (bytes) => {
        bytes[8] = 9;
      }),
    kinds: ['vdisk-record', 'tree-record'],
    says: /vdisk record \d+ makes no sense/,
  },
  {
    name: 'a head tree that is missing',
    plant: (surgery) => surgery.editVdisk('deep', { headTreeId: 4711 }),
    kinds: ['vdisk-record', 'tree-record'],
    says: /vdisk deep .*names tree 4711, which is missing/,
  },
  {
    name: 'a vdisk that is marked as gone',
    plant: (surgery) => surgery.editVdisk('deep', { gone: true }),
    kinds: ['vdisk-record'],
    says: /marked as removed/,
  },
  {
    name: 'a snapshot of nothing',
    plant: (surgery) => surgery.editVdisk('s', { ofVdiskId: 4711 }),
    kinds: ['vdisk-record'],
    says: /the past of vdisk record 4711, which is missing/,
  },
  {
    name: 'two vdisks of one name',
    plant: (surgery) => surgery.editVdisk('deep', { name: 'golden' }),
    kinds: ['name'],
    says: /two called golden/,
  },
];
