/**
 * Every kind of fault, planted on purpose: the check names it, and names nothing else. Checksums above
 * what is changed are made right again, so that only what the fault says is wrong.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  closedScene,
  crashedScene,
  jobScene,
  MEDIA,
  type MediumKind,
  type Specimen,
} from '../../../test/support/check-scenes.js';
import type { Surgery } from '../../../test/support/store-surgery.js';
import { BLOCK_BYTES } from '../../base/units.js';
import { FLAG_FILLED } from '../../layout/pointer.js';
import { SEGMENT_DATA, usageKind, usageLive, usageWord } from '../../layout/usage-entry.js';
import { FAULT_KINDS, type FaultKind } from './check-report.js';

interface Planted {
  readonly name: string;
  readonly media?: readonly MediumKind[];
  readonly scene?: 'closed' | 'crashed' | 'share split';
  readonly plant: (surgery: Surgery, specimen: Specimen) => Promise<void>;
  /** Kinds of all faults, and a text that one of the messages has. */
  readonly kinds: readonly FaultKind[];
  readonly says: RegExp;
}

const IN_PLACE: readonly MediumKind[] = ['in-place'];
const OBJECT_LOG: readonly MediumKind[] = ['object-log'];

const wordAt = (words: Uint32Array, at: number): number => words[at] ?? 0;

/** Inverts a bit of the medium, under whatever checksum stands over it. */
async function rot(specimen: Specimen, vbn: number, byte = 5): Promise<void> {
  const { device, objects } = specimen;
  device?.flipBit(vbn * BLOCK_BYTES + byte, 3);
  const record = Math.floor(vbn / 1024);
  const key = `store/log/${record.toString(16).padStart(16, '0')}`;
  objects?.objects.flipBit(key, (vbn % 1024) * BLOCK_BYTES + byte, 3);
}

/** Inverts the active map's bit of the VBN and mends all counts that follow from it. */
async function flipMapBit(surgery: Surgery, vbn: number): Promise<void> {
  let change = 0;
  await surgery.editFile('map', Math.floor(vbn / 32768), (words) => {
    const word = (vbn % 32768) >>> 5;
    words[word] = (wordAt(words, word) ^ (1 << (vbn & 31))) >>> 0;
    change = (wordAt(words, word) & (1 << (vbn & 31))) === 0 ? -1 : 1;
  });
  await surgery.editFsinfo(({ usedBlocks }) => ({ usedBlocks: usedBlocks + change }));
}

const editUsage = (surgery: Surgery, segment: number, edit: (word: number) => number) =>
  surgery.editFile('usage', Math.floor(segment / 512), (words) => {
    const at = (segment % 512) * 2;
    words[at] = edit(wordAt(words, at));
  });

/** A data VBN of the tree called so, and its segment. */
const dataOf = async (surgery: Surgery, name: string, fbn: number) =>
  surgery.vbnOf((await surgery.treeOf(name)).id, fbn);

const POINTERS: readonly Planted[] = [
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
        words[1] = wordAt(words, 1) | 0x0200_0000;
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

const RECORDS: readonly Planted[] = [
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
        split: { mode: 'copy', phase: 'filling', positionFbn: 0, bad: [] },
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

const COUNTS: readonly Planted[] = [
  {
    name: 'a wrong mappedBlocks',
    plant: async (surgery) => {
      const { id, mappedBlocks } = await surgery.treeOf('alone');
      await surgery.editTree(id, { mappedBlocks: mappedBlocks + 1 });
    },
    kinds: ['tree-count'],
    says: /alone \(tree \d+\) has mappedBlocks 501, but 500 are named/,
  },
  {
    name: 'a wrong sharedBlocks',
    plant: async (surgery) => {
      const { id, sharedBlocks } = await surgery.treeOf('shared');
      await surgery.editTree(id, { sharedBlocks: sharedBlocks - 1 });
    },
    kinds: ['tree-count'],
    says: /shared \(tree \d+\) has sharedBlocks/,
  },
  {
    name: 'a reference count one too high',
    plant: async (surgery) => {
      const vbn = await dataOf(surgery, 'shared', 200);
      await surgery.editFile('reference', Math.floor(vbn / 256), (words) => {
        const at = (vbn % 256) * 4;
        words[at] = wordAt(words, at) + 1;
      });
    },
    kinds: ['reference'],
    says: /reference entry of 3 owners.*but 2 trees name it/,
  },
  {
    name: 'a reference entry with another owner',
    plant: async (surgery) => {
      const vbn = await dataOf(surgery, 'shared', 200);
      await surgery.editFile('reference', Math.floor(vbn / 256), (words) => {
        const at = (vbn % 256) * 4 + 2;
        words[at] = wordAt(words, at) ^ 64;
      });
    },
    kinds: ['reference'],
    says: /exclusive-or/,
  },
  {
    name: 'a reference entry for nobody',
    plant: async (surgery) => {
      const vbn = await dataOf(surgery, 'shared', 200);
      await surgery.editFile('reference', Math.floor(vbn / 256), (words) => {
        words[(vbn % 256) * 4 + 1] = 1;
      });
    },
    kinds: ['reference'],
    says: /impossible reference entry/,
  },
  {
    name: 'a shared block without a reference entry',
    plant: async (surgery) => {
      const vbn = await dataOf(surgery, 'shared', 200);
      await surgery.editFile('reference', Math.floor(vbn / 256), (words) => {
        words.fill(0, (vbn % 256) * 4, (vbn % 256) * 4 + 4);
      });
    },
    kinds: ['reference', 'tree-count'],
    says: /named a second time, by tree \d+, and has no reference entry/,
  },
  {
    name: 'a metadata block that is named twice',
    plant: async (surgery) => {
      const { root, height } = await surgery.treeOf('golden');
      await surgery.editTree((await surgery.treeOf('bare')).id, { root, height });
    },
    // Whose blocks hang on it cannot be told then.
    kinds: ['reference', 'tree-count'],
    says: /named twice, and not only as data/,
  },
];

const MAPS: readonly Planted[] = [
  {
    name: 'a leaked block',
    media: IN_PLACE,
    plant: (surgery) => flipMapBit(surgery, 14 * 1024 + 77),
    kinds: ['map-leak'],
    says: /VBN 14413 .*nothing names it/,
  },
  {
    name: 'a data block whose bit is lost',
    media: IN_PLACE,
    plant: async (surgery) => flipMapBit(surgery, await dataOf(surgery, 'golden', 12)),
    kinds: ['map-missing'],
    says: /a data block, is free in the active map/,
  },
  {
    name: 'a metadata block whose bit is lost',
    media: IN_PLACE,
    plant: async (surgery) => flipMapBit(surgery, await surgery.fileVbn('tree', 0)),
    kinds: ['map-missing'],
    says: /a metadata block, is free/,
  },
  {
    name: 'a second copy whose bit is lost',
    media: IN_PLACE,
    plant: async (surgery) => flipMapBit(surgery, (await surgery.fileVbn('tree', 0)) + 1024),
    kinds: ['map-missing'],
    says: /the second copy of a metadata block, is free/,
  },
  {
    name: 'a block of the log whose bit is lost',
    media: IN_PLACE,
    plant: (surgery) => flipMapBit(surgery, 40),
    kinds: ['map-missing'],
    says: /VBN 40 .*a block of fsinfo or the log, is free/,
  },
  {
    name: 'a live count that is wrong',
    plant: async (surgery) => {
      const segment = Math.floor((await dataOf(surgery, 'golden', 12)) / 1024);
      await editUsage(surgery, segment, (word) => usageWord(usageLive(word) - 1, usageKind(word)));
      const { medium, dataGaps } = await surgery.patient.readFsinfo();
      if (medium === 'in-place') await surgery.editFsinfo(() => ({ dataGaps: dataGaps + 1 }));
    },
    kinds: ['usage'],
    says: /live blocks in the usage file/,
  },
  ...MEDIA.map(
    (medium): Planted => ({
      name: 'a kind that is wrong',
      media: [medium],
      plant: async (surgery) => {
        const segment = Math.floor((await surgery.fileVbn('tree', 0)) / 1024);
        await editUsage(surgery, segment, (word) => usageWord(usageLive(word), SEGMENT_DATA));
      },
      // The counters of a pair follow from its kind.
      kinds: medium === 'in-place' ? ['usage', 'counter'] : ['usage'],
      says: /is data in the usage file, but holds metadata/,
    }),
  ),
  {
    name: 'a counter of free pairs that is wrong',
    media: IN_PLACE,
    plant: (surgery) => surgery.editFsinfo(({ freePairs }) => ({ freePairs: freePairs - 1 })),
    kinds: ['counter'],
    says: /has freePairs/,
  },
  {
    name: 'a counter of gaps in data that is wrong',
    media: IN_PLACE,
    plant: (surgery) => surgery.editFsinfo(({ dataGaps }) => ({ dataGaps: dataGaps + 1 })),
    kinds: ['counter'],
    says: /has dataGaps/,
  },
  {
    name: 'a counter of gaps in metadata that is wrong',
    media: IN_PLACE,
    plant: (surgery) => surgery.editFsinfo(({ metaGaps }) => ({ metaGaps: metaGaps + 1 })),
    kinds: ['counter'],
    says: /has metaGaps/,
  },
  {
    name: 'a count of used blocks that is wrong',
    plant: (surgery) => surgery.editFsinfo(({ usedBlocks }) => ({ usedBlocks: usedBlocks + 1 })),
    kinds: ['counter'],
    says: /has usedBlocks/,
  },
];

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
