/** A read or a block status that is under way while its vdisk is deleted: right, or refused. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { MEDIA, ofKind, pattern, same, withStore } from '../../test/support/stores.js';
import { MIB } from '../base/units.js';

const BYTES = pattern(MIB, 1);

for (const medium of MEDIA) {
  test(`${medium}: a clone is deleted under its readers`, () =>
    withStore(medium, {}, async (tested) => {
      const golden = await tested.store.createVdisk('golden', MIB);
      await golden.write(0, BYTES);
      await tested.store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
      await tested.store.clone('golden@v1', 'clone');
      // Nothing is in memory: the read has to wait.
      const store = await tested.reopen();
      const clone = store.vdisk('clone');
      const into = new Uint8Array(MIB);
      const reading = Promise.resolve(clone.read(0, into));
      const asking = clone.blockStatus(0, MIB);
      const deleting = store.delete('clone');
      const [read, status] = await Promise.allSettled([reading, asking, deleting]);
      if (read.status === 'rejected') assert.ok(ofKind('not-found')(read.reason));
      else same(into, BYTES, 'the bytes read');
      if (status.status === 'rejected') assert.ok(ofKind('not-found')(status.reason));
      else assert.ok(status.value.every(({ kind }) => kind === 'data'));
    }));
}
