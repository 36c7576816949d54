/** Certificates beside everything else: writers, cancelled splits, power cuts, shared subtrees. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { closedScene, jobScene, type Specimen } from '../../test/support/check-scenes.js';
import { makeClones, split } from '../../test/support/clones.js';
import { withEngine } from '../../test/support/engines.js';
import { dataOf } from '../../test/support/planted-fault.js';
import { duplicate, isSound, MEDIA, pattern, withStore } from '../../test/support/stores.js';
import { BLOCK_BYTES, MIB } from '../base/units.js';
import { systemClock } from '../env/system-clock.js';
import { putPointer } from '../layout/pointer.js';
import { certify } from '../split/certificate/certify.js';
import { openStore } from './open-store.js';

const SIZE = 4 * MIB;

/** So many level-1 ranges that a walk yields often, with a few blocks in each. */
const WIDE_RANGES = 160;

async function writeRange(
  target: { write(offset: number, data: Uint8Array): void | Promise<void> },
  range: number,
  seed: number,
): Promise<void> {
  await target.write(range * MIB, pattern(2 * BLOCK_BYTES, seed));
}

for (const medium of MEDIA) {
  for (const mode of ['copy', 'share'] as const) {
    test(`${medium}: clients write during the walk of a ${mode} clone, and refute nothing`, () =>
      withStore(medium, { sizeBytes: 256 * MIB }, async ({ store, clock }) => {
        await makeClones(store, new Uint8Array(WIDE_RANGES * MIB));
        for (let range = 0; range < WIDE_RANGES; range++) {
          await writeRange(store.vdisk('golden'), range, range);
        }
        await store.snapshot([{ vdisk: 'golden', snapshot: 'v2' }]);
        for (const name of ['clone', 'other']) await store.clone('golden@v2', name);
        await split(store, 'other', 'share');
        await split(store, 'clone', mode);
        let writes = 0;
        let isOver = false;
        const write = async (name: string, seed: number): Promise<void> => {
          for (let turn = seed; !isOver; turn += 7) {
            const target = store.vdisk(name);
            const range = (turn * 13) % (WIDE_RANGES - 1);
            if (turn % 9 === 0) {
              await target.trim(range * MIB, MIB + BLOCK_BYTES);
              await store.idle();
            } else await writeRange(target, range, turn);
            // What was let go is given to somebody else at once.
            if (turn % 3 === 0) await store.consistencyPoint();
            writes++;
            await clock.yield();
          }
        };
        const writers = ['golden', 'clone', 'other'].map((name, index) => write(name, index));
        try {
          for (let round = 0; round < 12; round++) {
            const before = writes;
            const { findings } = await store.verify('clone');
            assert.deepEqual(findings, []);
            assert.ok(writes > before + 3, `${writes - before} writes during the walk`);
          }
        } finally {
          isOver = true;
          await Promise.all(writers);
        }
      }));
  }

  test(`${medium}: what a cancelled split took from a backing store that merged is a change`, () =>
    withStore(medium, {}, async ({ store, source, clock }) => {
      await makeClones(store, pattern(SIZE, 1), 'middle');
      await store.vdisk('middle').write(0, pattern(2 * MIB, 2));
      await store.snapshot([{ vdisk: 'middle', snapshot: 's' }]);
      await store.clone('middle@s', 'clone');
      await store.consistencyPoint();
      const job = await store.split('clone', { mode: 'copy' });
      const aborted = assert.rejects(job.done, /cancelled/);
      while ((job.state()?.filledBytes ?? 0) === 0) await clock.yield();
      await store.cancelSplit('clone');
      await aborted;
      await store.delete('middle', { inUse: 'defer' });
      await store.idle();
      assert.equal(store.show('clone').backing, 'golden@v1');
      const changed = [];
      for await (const { offset, length } of store.diff('golden@v1', 'clone')) {
        changed.push([offset, length]);
      }
      assert.deepEqual(changed, [[0, 2 * MIB]]);
      await split(store, 'clone', 'copy');
      assert.equal(store.show('clone').certificate?.refutations, 0);
      await store.consistencyPoint();
      await isSound(source, 'after the split');
    }));

  test(`${medium}: a snapshot's content is verified while it is split; a written one is not`, () =>
    withStore(medium, {}, async ({ store, clock }) => {
      await makeClones(store, pattern(SIZE, 1), 'clone');
      const contentHash = await store.contentHash('golden@v1');
      await store.snapshot([{ vdisk: 'clone', snapshot: 's' }]);
      const job = await store.split('clone', { mode: 'copy' });
      const during = await store.verify('clone@s', { contentHash });
      assert.ok(during.findings.every(({ kind }) => kind === 'association'));
      await job.done;
      assert.deepEqual((await store.verify('clone', { contentHash })).findings, []);
      const verified = assert.rejects(store.verify('clone', { contentHash }), { kind: 'in-use' });
      for (let turn = 0; turn < 200; turn++) {
        await store.vdisk('clone').write(0, pattern(BLOCK_BYTES, turn));
        await clock.yield();
      }
      await verified;
    }));

  test(`${medium}: whenever the power fails, released and certified are one`, async () => {
    const seen = { neither: 0, both: 0 };
    await withStore(medium, {}, async ({ store, source, clock }) => {
      await makeClones(store, pattern(SIZE, 1), 'clone');
      const job = await store.split('clone', { mode: 'share' });
      // It may be over in a moment: what it was when it began is looked at, too.
      const cuts = [duplicate(source)];
      let isDone = false;
      void job.done.then(() => {
        isDone = true;
      });
      while (!isDone) {
        await clock.yield();
        const state = job.state()?.state;
        if (state !== 'filling') cuts.push(duplicate(source));
      }
      cuts.push(duplicate(source));
      for (const cut of cuts) {
        const after = await openStore(cut, { memoryBytes: 8 * MIB, clock });
        const { backing, certificate } = after.show('clone');
        assert.equal(backing === undefined, certificate !== undefined);
        seen[backing === undefined ? 'both' : 'neither']++;
        await after.idle();
        assert.equal(after.show('clone').backing, undefined);
        assert.deepEqual(
          [after.show('clone').certificate?.refutations, after.show('clone').certificate?.kind],
          [0, 'split'],
        );
        await after.close();
      }
    });
    assert.ok(seen.neither > 0 && seen.both > 0, JSON.stringify(seen));
  });

  test(`${medium}: a split is not released while its certificate is refuted`, async () => {
    const specimen: Specimen = await jobScene(medium, 'copy split');
    const { surgery } = specimen;
    const theirs = await dataOf(surgery, 's', 0);
    await surgery.editField((await surgery.treeOf('clone')).id, 0, (words) => {
      putPointer(words, 0, theirs, words[2] ?? 0, 0x0100_0000);
    });
    const store = await specimen.open();
    for (let turn = 0; store.show('clone').split?.state !== 'waiting'; turn++) {
      assert.ok(turn < 100_000, 'it pauses');
      await systemClock.yield();
    }
    const { split: state, backing, certificate } = store.show('clone');
    assert.match(
      state?.reason ?? '',
      /its certificate has \d+ findings: clone \(tree \d+\), FBN 0/,
    );
    assert.deepEqual([backing, certificate], ['big@s', undefined]);
    await store.close();
  });

  test(`${medium}: a hole that was passed over keeps a split from its release`, async () => {
    const specimen = await jobScene(medium, 'copy split');
    const { surgery } = specimen;
    const { id, split: state, height } = await surgery.treeOf('clone');
    await surgery.editTree(id, { split: state && { ...state, positionFbn: 256 ** height } });
    const store = await specimen.open();
    for (let turn = 0; store.show('clone').split?.state !== 'waiting'; turn++) {
      assert.ok(turn < 100_000, 'it pauses');
      await systemClock.yield();
    }
    const { reason } = store.show('clone').split ?? {};
    assert.match(
      reason ?? '',
      /\d+ findings: clone \(tree \d+\), FBN \d+: still a hole, and big@s \(tree \d+\) has a block/,
    );
    assert.equal(store.show('clone').backing, 'big@s');
    await store.close();
  });

  test(`${medium}: an indirect block with an entry covers all beneath it`, () =>
    withEngine(medium, async ({ engine, reader, resolver, acts, table, vdisk, head }) => {
      await acts.create('golden', SIZE);
      await vdisk('golden').write(0, pattern(SIZE, 1));
      await acts.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
      await acts.clone('golden@v1', 'clone');
      await engine.consistencyPoint();
      const [clone, backing] = [head('clone'), table.get('golden@v1').head];
      const pointers = [0, 1, 2, 3].map((range) => shareLevel1(range));
      await engine.consistencyPoint();
      const request = {
        own: [clone],
        target: clone,
        former: backing,
        others: 'all',
        isStopped: () => false,
      } as const;
      const parts = { engine, reader, resolver };
      const refuted = await certify(parts, table, request);
      assert.deepEqual(
        refuted?.findings.list.map(({ kind, fbn }) => [kind, fbn]),
        [0, 256, 512, 768].map((fbn) => ['foreign-block', fbn]),
      );
      for (const vbn of pointers) {
        engine.generation.share({ vbn, blocks: 1, ownerId: backing.id, withId: clone.id });
        engine.changed();
      }
      for (let round = 0; round < 2; round++) {
        const proven = await certify(parts, table, request);
        assert.deepEqual(proven?.findings.list, [], `round ${round}`);
        // Its own root, and the four: nothing beneath them was looked at.
        assert.equal(proven?.counts.blocks, 5);
      }

      function shareLevel1(range: number): number {
        const fbn = range * 256;
        engine.trees.walk(backing, fbn);
        const vbn = engine.pool.vbn[engine.trees.fieldBuffer] ?? 0;
        const pointer = new Uint32Array(4);
        putPointer(pointer, 0, vbn, engine.pool.crc[engine.trees.fieldBuffer] ?? 0, 0);
        engine.trees.putSubtree(clone, fbn, 1, pointer, engine.generation);
        return vbn;
      }
    }));
}

test('a vdisk that was deleted during its verification is not found', async () => {
  const specimen = await closedScene('in-place');
  const store = await specimen.open();
  const verified = assert.rejects(store.verify('alone'), { kind: 'not-found' });
  await store.delete('alone');
  await verified;
  await assert.rejects(store.verify('golden@none'), { kind: 'not-found' });
  await store.close();
});
