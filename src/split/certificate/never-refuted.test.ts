/** What is sound is not refuted, whatever goes on beside the walk. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { makeClones, split } from '../../../test/support/clones.js';
import { MEDIA, pattern, type TestStore, withStore } from '../../../test/support/stores.js';
import { BLOCK_BYTES, MIB } from '../../base/units.js';

function onEachMedium(name: string, body: (test: TestStore) => Promise<void>): void {
  describe(name, () => {
    for (const medium of MEDIA) test(medium, () => withStore(medium, {}, body));
  });
}

const SIZE_MIB = 12;
const SLOW = { pace: 'rate', rateBytesPerSecond: 2 * MIB } as const;

onEachMedium('a clone copies a shared indirect block during the walk', async (test) => {
  const { store, clock } = test;
  // A walk yields after 32 ranges of a MiB.
  const golden = await store.createVdisk('golden', 70 * MIB);
  for (let at = 0; at < 70; at++) await golden.write(at * MIB, pattern(BLOCK_BYTES, at));
  await store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
  for (const name of ['writer', 'verified']) {
    await store.clone('golden@v1', name);
    await split(store, name, 'share');
  }
  assert.ok(store.stats().splitWholeShares >= 2, 'shared whole');
  // Something for the walk's consistency point, so that its end is seen.
  await golden.write(0, pattern(BLOCK_BYTES, 99));
  const { cpCount } = store.stats();
  const report = store.verify('verified');
  while (store.stats().cpCount === cpCount) await clock.yield();
  await store.vdisk('writer').write(BLOCK_BYTES, pattern(BLOCK_BYTES, 9));
  const { findings } = await report;
  assert.deepEqual(findings, []);
});

onEachMedium('a split from its own past, after one from another', async (test) => {
  const { store, clock } = test;
  await makeClones(store, pattern(SIZE_MIB * MIB, 7), 'clone');
  await split(store, 'clone', 'copy');
  const clone = store.vdisk('clone');
  await clone.write(0, pattern(BLOCK_BYTES, 8));
  await store.snapshot([{ vdisk: 'clone', snapshot: 's' }]);
  await clone.write(MIB, pattern(BLOCK_BYTES, 9));
  // Whoever reads the snapshot keeps it from being merged.
  const changes = store.diff('clone@s', 'clone')[Symbol.asyncIterator]();
  await changes.next();
  await store.delete('clone@s');
  await store.split('clone', { mode: 'copy', ...SLOW });
  await clock.sleep(3000);
  await store.pauseSplit('clone');
  // Its first block is filled in, and not what golden@v1 has.
  const { certificate, findings } = await store.verify('clone');
  assert.deepEqual(findings, []);
  assert.equal(certificate.formerName, 'golden@v1');
  assert.ok(certificate.filledCopies > SIZE_MIB * 256, 'in both of its trees');
  assert.equal(certificate.compared, SIZE_MIB * 256 - 1);
  await changes.return?.(undefined);
});
