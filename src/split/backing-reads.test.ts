/** Memory of reads that is used again. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { withEngine } from '../../test/support/engines.js';
import { pattern } from '../../test/support/stores.js';
import { FIELDS_PER_BLOCK, MIB } from '../base/units.js';
import { BackingReads, ReadMemory } from './backing-reads.js';
import { loadHoles } from './special-load.js';

test('a piece is not used again while a block that nobody waits for is on its way there', async () => {
  await withEngine('in-place', async (parts) => {
    const { acts, vdisk, head, engine } = parts;
    const content = pattern(MIB, 1);
    await acts.create('golden', MIB);
    await vdisk('golden').write(0, content);
    await acts.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
    await acts.clone('golden@v1', 'clone');
    await engine.consistencyPoint();
    const memory = new ReadMemory();
    const { holes } = await loadHoles(parts, head('clone'), {
      base: 0,
      first: 0,
      end: FIELDS_PER_BLOCK,
    });
    assert.equal(holes.length, 256);
    const reads = new BackingReads(memory);
    const loading = reads.load(parts, head('clone'), 0, holes);
    const released = reads.release();
    // Another step asks meanwhile: it gets memory of its own.
    const other = memory.take().fill(0xff);
    await released;
    const piece = memory.take();
    assert.ok(piece.equals(content), 'what was read is in the piece that came back');
    assert.ok(other.every((byte) => byte === 0xff));
    await loading;
  });
});
