/** Faults in what a store says of its blocks: owners, maps, counters. */
import { SEGMENT_DATA, usageKind, usageLive, usageWord } from '../../src/layout/usage-entry.js';
import { MEDIA } from './check-scenes.js';
import { dataOf, IN_PLACE, OBJECT_LOG, type Planted, wordAt } from './planted-fault.js';
import type { Surgery } from './store-surgery.js';

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

export const COUNTS: readonly Planted[] = [
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

export const MAPS: readonly Planted[] = [
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
    name: 'a wrong count of what a record was put with',
    media: OBJECT_LOG,
    plant: async (surgery) => {
      const record = Math.floor((await dataOf(surgery, 'golden', 12)) / 1024);
      await surgery.editFile('usage', Math.floor(record / 512), (words) => {
        const at = (record % 512) * 2 + 1;
        words[at] = wordAt(words, at) + 1;
      });
    },
    kinds: ['usage'],
    says: /has \d+ blocks, \d+ in the usage file/,
  },
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
