/**
 * Certificates are refutable: one pointer or record is put back by hand in a closed store, and the
 * verification says what is wrong, where, and whose block it is.
 */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  closedScene,
  MEDIA,
  type MediumKind,
  type Specimen,
} from '../../../test/support/check-scenes.js';
import { dataOf } from '../../../test/support/planted-fault.js';
import type { Surgery } from '../../../test/support/store-surgery.js';
import { putPointer } from '../../layout/pointer.js';
import type { Finding, FindingKind } from './findings.js';

interface Fault {
  readonly name: string;
  readonly media?: readonly MediumKind[];
  readonly vdisk: string;
  readonly plant: (surgery: Surgery, specimen: Specimen) => Promise<void>;
  readonly finds: readonly { readonly kind: FindingKind; readonly fbn: number | undefined }[];
  /** Matches the message without the numbers of trees and blocks. */
  readonly says: RegExp;
}

const plain = (message = ''): string =>
  message.replaceAll(/ \(tree \d+\)/g, '').replaceAll(/VBN \d+/g, 'VBN n');

const FAULTS: readonly Fault[] = [
  {
    name: 'a pointer to a block that only the former backing store has',
    vdisk: 'alone',
    plant: async (surgery) => {
      const theirs = await dataOf(surgery, 'v1', 60);
      await surgery.editField((await surgery.treeOf('alone')).id, 60, (words) => {
        putPointer(words, 0, theirs, words[2] ?? 0, 0x0100_0000);
      });
    },
    finds: [{ kind: 'foreign-block', fbn: 60 }],
    says: /^alone, FBN 60, names VBN n, which golden@v1, FBN 60 names too, with no entry in/,
  },
  {
    name: 'a pointer to a block of somebody else, somewhere else',
    vdisk: 'alone',
    plant: async (surgery) => {
      const theirs = await dataOf(surgery, 'plain', 6);
      await surgery.editField((await surgery.treeOf('alone')).id, 500, (words) => {
        putPointer(words, 0, theirs, 7, 0);
      });
    },
    finds: [{ kind: 'foreign-block', fbn: 500 }],
    says: /alone, FBN 500, names VBN n, which plain, FBN 6 names too/,
  },
  {
    name: "a pointer to the former backing store's indirect block",
    vdisk: 'alone',
    plant: async (surgery) => {
      const { id } = await surgery.treeOf('v1');
      const theirs = await surgery.vbnOf(id, 600, 1);
      let crc = 0;
      await surgery.editIndirect(id, 600, 2, (words) => {
        crc = words[2 * 4 + 2] ?? 0;
      });
      await surgery.editIndirect((await surgery.treeOf('alone')).id, 600, 2, (words) => {
        putPointer(words, 2 * 4, theirs, crc, 0);
      });
    },
    finds: [{ kind: 'foreign-block', fbn: 512 }],
    says: /^alone, level-1 block over FBN 512, names VBN n, which golden@v1, level-1 block/,
  },
  {
    name: 'a shared block that the reference file counts too few names for',
    vdisk: 'shared',
    plant: async (surgery) => {
      const shared = await dataOf(surgery, 'shared', 20);
      await surgery.editFile('reference', Math.floor(shared / 256), (words) => {
        words.fill(0, (shared % 256) * 4, (shared % 256) * 4 + 4);
      });
    },
    finds: [{ kind: 'foreign-block', fbn: 20 }],
    says: /shared, FBN 20, names VBN n, which golden@v1, FBN 20 names too/,
  },
  {
    name: 'a third name for a block of two owners',
    vdisk: 'shared',
    plant: async (surgery) => {
      const theirs = await dataOf(surgery, 'shared', 20);
      await surgery.editField((await surgery.treeOf('shared')).id, 700, (words) => {
        putPointer(words, 0, theirs, 7, 0);
      });
    },
    finds: [{ kind: 'foreign-block', fbn: 20 }],
    says: /FBN 20, names VBN n, which .*FBN 700.* name too, with an entry of 2 owners/,
  },
  {
    name: 'a pointer to a block that is free',
    vdisk: 'alone',
    plant: async (surgery, { device }) => {
      // In place a block of a segment of which others are in use; an object log knows records only.
      const vbn = device === undefined ? 5000 * 1024 : (await dataOf(surgery, 'golden', 12)) + 900;
      await surgery.editField((await surgery.treeOf('alone')).id, 12, (words) => {
        putPointer(words, 0, vbn, words[2] ?? 0, 0);
      });
    },
    finds: [{ kind: 'free-block', fbn: 12 }],
    says: /^alone, FBN 12, names VBN n, which is free: it is nobody's$/,
  },
  {
    name: 'a filled pointer with a wrong checksum',
    vdisk: 'alone',
    plant: async (surgery) =>
      surgery.editField((await surgery.treeOf('alone')).id, 12, (words) => {
        words[2] = ((words[2] ?? 0) ^ 1) >>> 0;
      }),
    finds: [{ kind: 'checksum', fbn: 12 }],
    says: /FBN 12: a block with checksum 0x\w+ was filled in, but golden@v1 has 0x\w+ there$/,
  },
  {
    name: 'zeros where the former backing store has a block',
    vdisk: 'alone',
    plant: async (surgery) =>
      surgery.editField((await surgery.treeOf('alone')).id, 12, (words) => {
        words.set([1, 0x0100_0000, 0, 0]);
      }),
    finds: [{ kind: 'checksum', fbn: 12 }],
    says: /FBN 12: zeros were filled in, but golden@v1 has 0x\w{8} there$/,
  },
  {
    name: 'an association that is left',
    vdisk: 'alone',
    plant: async (surgery) => {
      const backing = await surgery.treeOf('v1');
      await surgery.editTree((await surgery.treeOf('alone')).id, { backingId: backing.id });
    },
    finds: [{ kind: 'association', fbn: undefined }],
    says: /^alone reads through golden@v1: it does not stand alone$/,
  },
];

for (const medium of MEDIA) {
  let scene: Promise<Specimen> | undefined;
  const copyOf = async (): Promise<Specimen> => {
    scene ??= closedScene(medium);
    return (await scene).copy();
  };
  const kinds = (findings: readonly Finding[]) => findings.map(({ kind, fbn }) => ({ kind, fbn }));

  for (const { name, vdisk, plant, finds, says, media = MEDIA } of FAULTS) {
    if (!media.includes(medium)) continue;
    test(`${medium}: ${name}`, async () => {
      const specimen = await copyOf();
      await plant(specimen.surgery, specimen);
      const store = await specimen.open();
      const { certificate, findings } = await store.verify(vdisk);
      assert.deepEqual(kinds(findings), finds, findings.map(({ message }) => message).join('\n'));
      assert.match(plain(findings[0]?.message), says);
      assert.equal(certificate.refutations, findings.length);
      // What others have is not refuted by it; and it is kept.
      assert.deepEqual(store.show(vdisk).certificate, certificate);
      await store.close();
      const again = await specimen.open();
      assert.deepEqual(again.show(vdisk).certificate, certificate);
      await again.close();
    });
  }

  test(`${medium}: with nothing planted each is what it is`, async () => {
    const store = await (await copyOf()).open();
    for (const name of ['alone', 'shared', 'golden', 'golden@v1', 'golden@v2']) {
      const { findings } = await store.verify(name);
      assert.deepEqual(findings, [], name);
    }
    for (const name of ['plain', 'deep', 'bare']) {
      const { findings } = await store.verify(name);
      assert.deepEqual(kinds(findings), [{ kind: 'association', fbn: undefined }], name);
    }
    await store.close();
  });
}
