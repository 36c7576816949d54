/** Of sound stores, whatever state they were left in, the check has nothing to say. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  closedScene,
  crashedScene,
  JOBS,
  jobScene,
  MEDIA,
  Specimen,
} from '../../../test/support/check-scenes.js';
import { makeScene } from '../../../test/support/handmade-scene.js';
import { MIB } from '../../base/units.js';
import { MemoryDevice } from '../../env/memory-device.js';
import type { CheckReport } from './check-report.js';
import { checkDevice } from './checker.js';

function assertSound(report: CheckReport): void {
  assert.deepEqual(
    report.faults.map(({ kind, message }) => `${kind}: ${message}`),
    [],
  );
  assert.equal(report.ok, true);
  assert.equal(report.isComplete, true);
}

for (const medium of MEDIA) {
  test(`${medium}: a closed store is sound, and so is one just opened and cut off`, async () => {
    const closed = await closedScene(medium);
    const report = await closed.check();
    assertSound(report);
    assert.deepEqual([report.counts.vdisks, report.counts.snapshots], [6, 3]);
    assert.ok(report.counts.sharedBlocks > 300, 'the share split left shared blocks');
    const store = await closed.open();
    assertSound(await closed.copy().check());
    await store.close();
    assertSound(await closed.check());
  });

  test(`${medium}: a store with a log to replay is sound`, async () => {
    const crashed = await crashedScene(medium);
    const report = await crashed.check();
    assertSound(report);
    assert.ok(report.counts.logEntries > 5, `${report.counts.logEntries} entries`);
    const store = await crashed.open();
    assertSound(await crashed.copy().check());
    await store.close();
    assertSound(await crashed.check());
  });

  for (const job of JOBS) {
    test(`${medium}: a store cut off in the middle of a ${job} is sound`, async () => {
      const specimen = await jobScene(medium, job);
      assertSound(await specimen.check());
      const store = await specimen.open();
      await store.idle();
      await store.close();
      assertSound(await specimen.check());
    });
  }

  test(`${medium}: skipData reads metadata only, and changes nothing else`, async () => {
    const closed = await closedScene(medium);
    const all = await closed.check();
    const some = await closed.check({ skipData: true });
    assertSound(some);
    const { blocksChecked, ...rest } = some.counts;
    const { blocksChecked: allChecked, ...allRest } = all.counts;
    assert.deepEqual(rest, allRest);
    assert.ok(blocksChecked < allChecked / 4, `${blocksChecked} of ${allChecked} blocks`);
  });

  test(`${medium}: where there is no store, the check says so`, async () => {
    const blank = Specimen.blank(medium, 64 * MIB);
    await assert.rejects(blank.check(), { kind: 'invalid' });
  });
}

test('a store that was made by hand, without the engine, is sound', async () => {
  const image = makeScene().store.finish();
  const device = new MemoryDevice({ sizeBytes: image.length });
  await device.write(0, [image]);
  const report = await checkDevice(device, {});
  assertSound(report);
  assert.ok(report.counts.sharedBlocks > 100, 'a share split is under way in it');
});
