/** What a consistency point freed is given back only when the reads begun before have ended. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withEngine } from '../../test/support/engines.js';
import { MEDIA } from '../../test/support/stores.js';
import { BLOCK_BYTES, MIB } from '../base/units.js';

for (const medium of MEDIA) {
  test(`${medium}: a consistency point that freed blocks waits for who reads them`, () =>
    withEngine(medium, async ({ acts, clock, engine, vdisk }) => {
      await acts.create('disk', MIB);
      const disk = vdisk('disk');
      await disk.write(0, Buffer.alloc(BLOCK_BYTES, 1));
      await engine.consistencyPoint();
      // A reader has taken the VBN from its pointer; then the block is written again.
      const letGo = engine.loader.hold();
      await disk.write(0, Buffer.alloc(BLOCK_BYTES, 2));
      let isReleased = false;
      const point = engine.consistencyPoint().then(() => {
        isReleased = true;
      });
      await clock.sleep(1000);
      assert.equal(isReleased, false, 'given back under a reader');
      // Readers that come later do not hold it up.
      const letLaterGo = engine.loader.hold();
      letGo();
      await point;
      letLaterGo();
    }));
}
