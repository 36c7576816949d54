/** What the claims of the method say, claim by claim, and where the code does it. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { makeClones, sparsePattern } from '../../test/support/clones.js';
import { type TestEngine, withEngine } from '../../test/support/engines.js';
import { MEDIA, pattern, readAll, reads, same, withStore } from '../../test/support/stores.js';
import { crc32 } from '../base/checksum.js';
import { BLOCK_BYTES, FIELDS_PER_BLOCK, MIB } from '../base/units.js';
import { HOLE_VBN, POINTER_WORDS, vbnAt } from '../layout/pointer.js';
import type { SplitMode } from '../layout/tree-record.js';
import { USAGE_ENTRIES_PER_BLOCK, usageLive } from '../layout/usage-entry.js';
import { WALK_FIELD } from '../store/buffer-tree.js';
import type { Tree } from '../store/tree.js';
import { ClientLoad } from '../vdisk/client-load.js';
import { BackingReads, ReadMemory } from './backing-reads.js';
import { fillFields } from './fill.js';
import { type Fields, isHoleField, loadHoles } from './special-load.js';
import { SplitJobs } from './split-jobs.js';

const SIZE = 2 * MIB;
const content = pattern(SIZE, 1);
/** Blocks that the clone has of its own before its split. */
const OWN = [3, 4, 300];

function onEachMedium(name: string, body: (test: TestEngine) => Promise<void>): void {
  describe(name, () => {
    for (const medium of MEDIA) {
      test(medium, () =>
        withEngine(medium, async (parts) => {
          await makeScene(parts);
          await body(parts);
        }),
      );
    }
  });
}

/**
 * A backing store (golden's snapshot v1) and a writable vdisk over it (clone), both on the medium.
 */
async function makeScene({ acts, vdisk, engine }: TestEngine): Promise<void> {
  await acts.create('golden', SIZE);
  await vdisk('golden').write(0, content);
  await acts.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
  await acts.clone('golden@v1', 'clone');
  for (const block of OWN)
    await vdisk('clone').write(block * BLOCK_BYTES, pattern(BLOCK_BYTES, block));
  await engine.consistencyPoint();
}

interface Field {
  readonly vbn: number;
  readonly crc: number;
}

/** The fields of the level-1 buffer that covers this FBN; none if there is no such buffer. */
async function fieldsOf({ engine }: TestEngine, tree: Tree, fbn: number): Promise<Field[]> {
  const { trees } = engine;
  for (;;) {
    const found = trees.walk(tree, fbn - (fbn % FIELDS_PER_BLOCK));
    if (found === WALK_FIELD) break;
    if (found < WALK_FIELD) return [];
    await engine.loader.loadMeta(trees.missVbn, trees.missCrc);
  }
  return Array.from({ length: FIELDS_PER_BLOCK }, (_, index) => {
    const at = trees.fieldAt + index * POINTER_WORDS;
    return { vbn: vbnAt(trees.fieldWords, at), crc: trees.fieldWords[at + 2] ?? 0 };
  });
}

/** All fields of the level-1 buffer that begins there. */
function whole(base: number): Fields {
  return { base, first: 0, end: FIELDS_PER_BLOCK };
}

async function fill(parts: TestEngine, fbn: number, mode: SplitMode): Promise<number> {
  const outcome = await fillFields(parts, {
    clone: parts.head('clone'),
    mode,
    fields: whole(fbn),
    reads: new BackingReads(new ReadMemory()),
    isShared: false,
    reservation: undefined,
  });
  assert.ok(outcome.kind === 'filled' && outcome.bad.length === 0);
  return outcome.blocks;
}

/** True if the block allocation structures say that the block is in use. */
async function isAllocated({ engine }: TestEngine, vbn: number): Promise<boolean> {
  const { editor, metafiles, medium, pool } = engine;
  if (medium.kind === 'in-place') {
    const buffer = await editor.load(metafiles.map, Math.floor(vbn / 32768));
    const bit = vbn % 32768;
    return ((pool.bytes(buffer)[bit >>> 3] ?? 0) & (1 << (bit & 7))) !== 0;
  }
  const record = Math.floor(vbn / 1024);
  const buffer = await editor.load(metafiles.usage, Math.floor(record / USAGE_ENTRIES_PER_BLOCK));
  const at = pool.wordStart(buffer) + (record % USAGE_ENTRIES_PER_BLOCK) * 2;
  return usageLive(pool.wordsOf(buffer)[at] ?? 0) > 0;
}

onEachMedium(
  'claims 1, 19, 20: each hole becomes a pointer to the block that the backing field names',
  async (parts) => {
    const clone = parts.head('clone');
    const backing = parts.head('golden@v1');
    const before = await fieldsOf(parts, clone, 0);
    const theirs = await fieldsOf(parts, backing, 0);
    // Searching each field of the writable vdisk's indirect block for a hole.
    const { holes } = await loadHoles(parts, clone, whole(0));
    const indexes = before.flatMap(({ vbn }, index) => (vbn === HOLE_VBN ? [index] : []));
    assert.deepEqual(
      holes.map(({ index }) => index),
      indexes,
    );
    assert.equal(await fill(parts, 0, 'share'), indexes.length);
    const after = await fieldsOf(parts, clone, 0);
    for (const [index, field] of after.entries()) {
      const wanted = OWN.includes(index) ? before[index] : theirs[index];
      assert.deepEqual(field, wanted, `field ${index}`);
    }
  },
);

onEachMedium(
  'claim 2: a block is dirtied for write allocation without altering its content',
  async (parts) => {
    const theirs = await fieldsOf(parts, parts.head('golden@v1'), 0);
    await fill(parts, 0, 'copy');
    const fields = await fieldsOf(parts, parts.head('clone'), 0);
    const [block] = [new Uint8Array(BLOCK_BYTES)];
    for (const [index, { vbn, crc }] of fields.entries()) {
      if (OWN.includes(index)) continue;
      // It went through the write allocator of every write, as a block of this generation.
      assert.ok(parts.engine.generation.allocated.has(vbn), `VBN ${vbn}`);
      assert.equal(crc, theirs[index]?.crc);
      await parts.engine.medium.readBlocks(vbn, [block]);
      same(
        block,
        content.subarray(index * BLOCK_BYTES, (index + 1) * BLOCK_BYTES),
        `block ${index}`,
      );
      assert.equal(crc32(block), crc);
    }
  },
);

onEachMedium(
  'claims 3, 10: a new pointer is chosen, its bits are set, it is placed in the field',
  async (parts) => {
    const theirs = await fieldsOf(parts, parts.head('golden@v1'), 0);
    await fill(parts, 0, 'copy');
    await parts.engine.consistencyPoint();
    const fields = await fieldsOf(parts, parts.head('clone'), 0);
    const all = new Set([...theirs, ...fields].map(({ vbn }) => vbn));
    assert.equal(all.size, 2 * FIELDS_PER_BLOCK, 'no VBN stands twice');
    for (const { vbn } of fields) assert.ok(await isAllocated(parts, vbn), `VBN ${vbn}`);
  },
);

onEachMedium(
  'claims 4, 11: the dirty block is let go, the new one written, the old one untouched',
  async (parts) => {
    const { engine } = parts;
    const theirs = await fieldsOf(parts, parts.head('golden@v1'), 0);
    const dirty = engine.pool.dirtyCount;
    await fill(parts, 0, 'copy');
    // No dirty data buffer is left: the one indirect block, and what is above it.
    assert.ok(
      engine.pool.dirtyCount - dirty <= 2,
      `${engine.pool.dirtyCount - dirty} dirty buffers`,
    );
    await engine.consistencyPoint();
    assert.equal(engine.pool.dirtyCount, 0);
    for (const { vbn } of theirs)
      assert.ok(await isAllocated(parts, vbn), `VBN ${vbn} is not freed`);
    await reads(parts.vdisk('golden@v1'), content);
  },
);

onEachMedium('claim 5: the association is released when no hole is left', async (parts) => {
  const { engine, table, head } = parts;
  const jobs = new SplitJobs(parts, table, new ClientLoad(parts.clock), () => undefined);
  const clone = head('clone');
  await jobs.start(table.get('clone'), 'copy');
  await jobs.doneOf(clone);
  assert.equal(clone.backing, undefined);
  for (const fbn of [0, FIELDS_PER_BLOCK]) {
    for (const { vbn } of await fieldsOf(parts, clone, fbn)) assert.notEqual(vbn, HOLE_VBN);
  }
  assert.equal(engine.isDurable(clone), true);
  assert.equal(head('golden@v1').overCount, 1, 'only golden is over it');
});

onEachMedium(
  'claims 6, 13: pointers are VBNs; claims 7, 14: VBN zero is the hole',
  async (parts) => {
    for (const name of ['clone', 'golden@v1']) {
      for (const [index, { vbn, crc }] of (await fieldsOf(parts, parts.head(name), 0)).entries()) {
        if (name === 'clone' && !OWN.includes(index)) {
          assert.equal(vbn, 0);
          continue;
        }
        const block = new Uint8Array(BLOCK_BYTES);
        await parts.engine.medium.readBlocks(vbn, [block]);
        assert.equal(crc32(block), crc, `VBN ${vbn} leads to block ${index} of ${name}`);
      }
    }
    assert.equal(isHoleField(new Uint32Array(POINTER_WORDS), 0), true);
  },
);

onEachMedium(
  'claims 8, 15: the fields of one level-1 buffer are the unit of work',
  async (parts) => {
    const clone = parts.head('clone');
    const first = await loadHoles(parts, clone, whole(0));
    assert.equal(first.nextFbn, FIELDS_PER_BLOCK);
    assert.equal(first.holes.length, FIELDS_PER_BLOCK - 2);
    await fill(parts, 0, 'share');
    assert.deepEqual((await loadHoles(parts, clone, whole(0))).holes, []);
    // The level-1 buffer beside it is as it was.
    const second = await loadHoles(parts, clone, whole(FIELDS_PER_BLOCK));
    assert.equal(second.holes.length, FIELDS_PER_BLOCK - 1);
  },
);

onEachMedium(
  'claim 9: the special load looks for the holes that the ordinary load reads through',
  async (parts) => {
    const { vdisk, head, engine, table } = parts;
    const bytes = await readAll(vdisk('clone'), 0, BLOCK_BYTES);
    same(bytes, content.subarray(0, BLOCK_BYTES), 'the ordinary load');
    const { holes } = await loadHoles(parts, head('clone'), whole(0));
    assert.equal(holes[0]?.index, 0);
    assert.equal(holes[0]?.vbn, (await fieldsOf(parts, head('golden@v1'), 0))[0]?.vbn);
    // The backdoor: messages without a client behind them, one range after the other.
    const jobs = new SplitJobs(parts, table, new ClientLoad(parts.clock), () => undefined);
    await jobs.start(table.get('clone'), 'share');
    await jobs.idle();
    assert.equal(jobs.counters.blocksFilled, SIZE / BLOCK_BYTES - OWN.length);
    assert.equal(jobs.counters.completed, 1);
    await engine.consistencyPoint();
  },
);

describe('claim 12: it works in periods of reduced activity', () => {
  for (const medium of MEDIA) {
    test(medium, () =>
      withStore(medium, {}, async ({ store, clock }) => {
        await makeClones(store, sparsePattern(12), 'clone');
        const job = await store.split('clone', { mode: 'copy', pace: 'now' });
        const positions = new Set<number>();
        // Whoever else has something to do has a turn between two steps.
        for (let state = job.state(); state !== undefined; state = job.state()) {
          positions.add(state.positionBytes);
          await clock.yield();
        }
        assert.ok(positions.size >= 3, `${positions.size} steps`);
      }),
    );
  }
});

describe('claims 16, 17, 18: separate, then delete the backing store, without interrupting access', () => {
  for (const medium of MEDIA) {
    for (const mode of ['copy', 'share'] as const) {
      test(`${medium}, ${mode}`, () =>
        withStore(medium, {}, async ({ store, clock }) => {
          const model = pattern(6 * MIB, 16);
          await makeClones(store, model, 'clone');
          const clone = store.vdisk('clone');
          let isOver = false;
          let served = 0;
          const client = async (): Promise<void> => {
            for (; !isOver; served++) {
              const at = ((served * 7919) % 1535) * BLOCK_BYTES + (served % 5) * 300;
              const bytes = pattern(1000, served);
              await clone.write(at, bytes);
              model.set(bytes, at);
              const seen = await readAll(clone, at - (at % BLOCK_BYTES), BLOCK_BYTES);
              same(
                seen,
                model.subarray(at - (at % BLOCK_BYTES)).subarray(0, BLOCK_BYTES),
                'served',
              );
              if (served % 10 === 0) await clone.flush();
              await clock.yield();
            }
          };
          const access = client();
          await (await store.split('clone', { mode, pace: 'now' })).done;
          await store.delete('golden@v1');
          await store.idle();
          await store.delete('golden');
          await store.idle();
          isOver = true;
          await access;
          assert.deepEqual(
            store.list().map(({ name }) => name),
            ['clone'],
          );
          assert.ok(served > 5, `${served} requests were served meanwhile`);
          await reads(clone, model);
        }));
    }
  }
});
