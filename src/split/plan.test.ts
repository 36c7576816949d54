/** The plan of a split, against what the split then does. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { type TestEngine, withEngine } from '../../test/support/engines.js';
import { MEDIA, ofKind, pattern } from '../../test/support/stores.js';
import { BLOCK_BYTES, MIB } from '../base/units.js';
import type { SplitMode } from '../layout/tree-record.js';
import type { Tree } from '../store/tree.js';
import { ClientLoad } from '../vdisk/client-load.js';
import { BackingReads, ReadMemory } from './backing-reads.js';
import { fillFields } from './fill.js';
import { planTree, type SplitWork } from './plan.js';
import { loadHoles } from './special-load.js';
import { SplitJobs } from './split-jobs.js';

const MODES: readonly SplitMode[] = ['copy', 'share'];
/** The tree's record and the vdisk's, with the blocks over them, in each consistency point. */
const RECORD_BLOCKS = 8;

interface Shape {
  readonly name: string;
  /** Makes `clone`, which is split then; the data is durable before it is planned. */
  make(parts: TestEngine): Promise<void>;
  /** Blocks that the plan cannot know to be zeros, and that are. */
  readonly zeroBlocks?: number;
}

async function golden(
  { acts, vdisk }: TestEngine,
  content: Uint8Array,
  ...clones: string[]
): Promise<void> {
  await acts.create('golden', content.length);
  for (let at = 0; at < content.length; at += MIB) {
    const part = content.subarray(at, at + MIB);
    if (part.some((byte) => byte !== 0)) await vdisk('golden').write(at, part);
  }
  await acts.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
  for (const name of clones) await acts.clone('golden@v1', name);
}

/** Writes and trims here and there, of single blocks and of more than a level-1 range. */
async function scribble(parts: TestEngine, name: string, seed: number): Promise<void> {
  const vdisk = parts.vdisk(name);
  const blocks = vdisk.sizeBytes / BLOCK_BYTES;
  for (let block = seed % 7; block < blocks; block += 11 + (block % 5)) {
    if (block % 3 === 0) await vdisk.trim(block * BLOCK_BYTES, 2 * BLOCK_BYTES);
    else await vdisk.write(block * BLOCK_BYTES, pattern(BLOCK_BYTES, seed + block));
  }
}

const SHAPES: readonly Shape[] = [
  {
    name: 'an untouched clone',
    make: (parts) => golden(parts, pattern(3 * MIB, 1), 'clone'),
  },
  {
    name: 'a backing store with nothing in it',
    make: (parts) => golden(parts, new Uint8Array(2 * MIB), 'clone'),
  },
  {
    name: 'far apart, so that indirect blocks of two levels are missing',
    make: async (parts) => {
      const content = new Uint8Array(4 * MIB);
      content.set(pattern(MIB, 1), MIB);
      await parts.acts.create('golden', 600 * MIB);
      for (const at of [0, 300 * MIB, 596 * MIB]) await parts.vdisk('golden').write(at, content);
      await parts.acts.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
      await parts.acts.clone('golden@v1', 'clone');
      await parts.vdisk('clone').write(301 * MIB, pattern(BLOCK_BYTES, 9));
    },
    // Where golden was written with zeros, it has blocks of zeros.
    zeroBlocks: 3 * 768,
  },
  {
    name: 'a clone with writes and trims of its own',
    make: async (parts) => {
      await golden(parts, pattern(3 * MIB, 1), 'clone');
      await scribble(parts, 'clone', 100);
      await parts.vdisk('clone').trim(MIB, MIB);
    },
  },
  {
    name: 'blocks of zeros in the backing store',
    make: async (parts) => {
      const content = pattern(2 * MIB, 1);
      content.fill(0, 5 * BLOCK_BYTES, 25 * BLOCK_BYTES);
      await golden(parts, content, 'clone');
    },
    zeroBlocks: 20,
  },
  {
    name: 'blocks of zeros beside blocks of its own',
    make: async (parts) => {
      const content = pattern(2 * MIB, 1);
      content.fill(0, 5 * BLOCK_BYTES, 25 * BLOCK_BYTES);
      await golden(parts, content, 'clone');
      for (const at of [0, MIB]) await parts.vdisk('clone').write(at, pattern(BLOCK_BYTES, 3));
    },
    zeroBlocks: 20,
  },
  {
    name: 'smaller than its backing store, by a part of a block: that one is copied',
    make: async (parts) => {
      await golden(parts, pattern(3 * MIB, 1), 'clone');
      await parts.acts.resize('clone', MIB + 100 * BLOCK_BYTES + 512);
    },
  },
  {
    name: 'larger than its backing store, and smaller once',
    make: async (parts) => {
      await golden(parts, pattern(3 * MIB, 1), 'clone');
      await parts.acts.resize('clone', 2 * MIB);
      await parts.acts.resize('clone', 5 * MIB);
    },
  },
  {
    name: 'a clone of a clone of a clone',
    make: async (parts) => {
      const { acts } = parts;
      await golden(parts, pattern(3 * MIB, 1), 'one');
      await scribble(parts, 'one', 200);
      await acts.snapshot([{ vdisk: 'one', snapshot: 's' }]);
      await acts.clone('one@s', 'two');
      await scribble(parts, 'two', 303);
      await acts.resize('two', 2 * MIB + 1024);
      await acts.snapshot([{ vdisk: 'two', snapshot: 's' }]);
      await acts.clone('two@s', 'clone');
      await scribble(parts, 'clone', 405);
    },
  },
  {
    name: 'blocks that a sibling shares already',
    make: async (parts) => {
      await golden(parts, pattern(3 * MIB, 1), 'sibling', 'clone');
      await scribble(parts, 'clone', 500);
      await parts.engine.consistencyPoint();
      await splitNow(parts, 'sibling', 'share');
    },
  },
  {
    name: 'a vdisk with snapshots of its own: its oldest tree is filled',
    make: async (parts) => {
      await golden(parts, pattern(3 * MIB, 1), 'clone');
      await scribble(parts, 'clone', 600);
      await parts.acts.snapshot([{ vdisk: 'clone', snapshot: 'old' }]);
      await parts.vdisk('clone').write(0, pattern(MIB, 7));
    },
  },
  {
    name: 'a part is filled already',
    make: async (parts) => {
      await golden(parts, pattern(3 * MIB, 1), 'clone');
      const reads = new BackingReads(new ReadMemory());
      const fields = { base: 256, first: 0, end: 256 };
      const clone = parts.head('clone');
      const task = { clone, mode: 'copy', fields, reads, isShared: false } as const;
      await fillFields(parts, { ...task, reservation: undefined });
    },
  },
];

function jobsOf(parts: TestEngine): SplitJobs {
  return new SplitJobs(parts, parts.table, new ClientLoad(parts.clock), () => undefined);
}

function targetOf(parts: TestEngine, name: string): Tree {
  const tree = jobsOf(parts).targetOf(parts.table.get(name));
  assert.ok(tree !== undefined);
  return tree;
}

/** @returns how many blocks of backing stores it read */
async function splitNow(parts: TestEngine, name: string, mode: SplitMode): Promise<number> {
  const jobs = jobsOf(parts);
  const tree = await jobs.start(parts.table.get(name), mode);
  await jobs.doneOf(tree);
  return jobs.counters.backingBlocksRead;
}

/** No data of the holes is in memory: so every block that is read is counted. */
async function forgetData(parts: TestEngine, tree: Tree): Promise<void> {
  for (let fbn = 0; fbn < tree.capacityFbn; fbn += 256) {
    const { holes } = await loadHoles(parts, tree, { base: fbn, first: 0, end: 256 });
    for (const { vbn } of holes) if (vbn !== 0) parts.engine.pool.dropVbn(vbn);
  }
}

interface Done {
  readonly readBlocks: number;
  readonly mappedBlocks: number;
  readonly sharedBlocks: number;
  readonly metaBlocks: number;
  readonly usedBlocks: number;
}

async function measureSplit(parts: TestEngine, mode: SplitMode, tree: Tree): Promise<Done> {
  const { engine } = parts;
  const { mappedBlocks, sharedBlocks } = tree;
  const { usedBlocks } = engine.medium.space;
  const { cpBlocksWritten } = engine.stats;
  const readBlocks = await splitNow(parts, 'clone', mode);
  await engine.consistencyPoint();
  return {
    readBlocks,
    mappedBlocks: tree.mappedBlocks - mappedBlocks,
    sharedBlocks: tree.sharedBlocks - sharedBlocks,
    metaBlocks: engine.stats.cpBlocksWritten - cpBlocksWritten,
    usedBlocks: engine.medium.space.usedBlocks - usedBlocks,
  };
}

function compare(plan: SplitWork, done: Done, zeroBlocks: number, metaCopies: number): void {
  const text = JSON.stringify({ plan, done });
  assert.equal(done.readBlocks, plan.readBlocks, text);
  assert.equal(done.sharedBlocks, plan.sharedBlocks, text);
  const written = done.mappedBlocks - done.sharedBlocks;
  // Blocks of zeros that are shared whole, with others, are not looked at.
  assert.equal(written, plan.dataBlocks - Math.min(zeroBlocks, plan.dataBlocks), text);
  assert.ok(written >= plan.dataBlocksMin, text);
  const metaMore = done.metaBlocks - plan.metaBlocks;
  assert.ok(metaMore >= 0 && metaMore <= RECORD_BLOCKS, text);
  assert.equal(done.usedBlocks, written + metaCopies * plan.newMetaBlocks, text);
}

for (const shape of SHAPES) {
  describe(`the plan tells what the split does: ${shape.name}`, () => {
    for (const medium of MEDIA) {
      for (const mode of MODES) {
        test(`${medium}, ${mode}`, () =>
          withEngine(medium, async (parts) => {
            await shape.make(parts);
            await parts.engine.consistencyPoint();
            const tree = targetOf(parts, 'clone');
            await forgetData(parts, tree);
            const { blocksRead } = parts.engine.loader;
            const plan = await planTree(parts, tree, mode);
            assert.equal(parts.engine.loader.blocksRead, blocksRead, 'all metadata is in memory');
            const done = await measureSplit(parts, mode, tree);
            compare(plan, done, shape.zeroBlocks ?? 0, medium === 'in-place' ? 2 : 1);
          }));
      }
    }
  });
}

/** A clone whose plan takes several slices. */
async function makeLarge(parts: TestEngine): Promise<Tree> {
  await parts.acts.create('golden', 64 * MIB);
  for (let at = 0; at < 64; at += 8) await parts.vdisk('golden').write(at * MIB, pattern(MIB, at));
  await parts.acts.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
  await parts.acts.clone('golden@v1', 'clone');
  await parts.engine.consistencyPoint();
  return parts.head('clone');
}

describe('a plan that is under way', () => {
  const onEachMedium = (name: string, body: (parts: TestEngine) => Promise<void>): void => {
    for (const medium of MEDIA) test(`${name}: ${medium}`, () => withEngine(medium, body));
  };

  onEachMedium('it ends when it is aborted, and holds the tree no longer', async (parts) => {
    const tree = await makeLarge(parts);
    const controller = new AbortController();
    const plan = planTree(parts, tree, 'copy', { signal: controller.signal });
    await undefined;
    assert.equal(tree.holds, 1);
    controller.abort(new Error('enough'));
    await assert.rejects(plan, /enough/);
    assert.equal(tree.holds, 0);
  });

  onEachMedium('it lets clients run, and never says too little', async (parts) => {
    const tree = await makeLarge(parts);
    const before = await planTree(parts, tree, 'copy');
    assert.equal(before.dataBlocks, 8 * 256);
    const planning = planTree(parts, tree, 'copy');
    let isPlanned = false;
    const planned = planning.finally(() => {
      isPlanned = true;
    });
    // From the end on, so that the scan meets some of them.
    let writes = 0;
    for (let at = 56; at >= 0 && !isPlanned; at -= 8, writes++) {
      await parts.vdisk('clone').write(at * MIB, pattern(MIB, 100 + at));
      await parts.clock.yield();
    }
    const plan = await planned;
    assert.ok(writes > 1, 'clients wrote meanwhile');
    const after = await planTree(parts, tree, 'copy');
    assert.equal(after.dataBlocks, before.dataBlocks - writes * 256);
    assert.ok(plan.dataBlocks < before.dataBlocks, 'it counts what it has not passed');
    assert.ok(plan.dataBlocks >= after.dataBlocks);
  });

  onEachMedium('it says so when the vdisk is deleted', async (parts) => {
    const tree = await makeLarge(parts);
    const plan = planTree(parts, tree, 'share');
    const [outcome] = await Promise.allSettled([plan, parts.acts.delete('clone', 'refuse')]);
    assert.ok(outcome.status === 'rejected');
    assert.ok(ofKind('not-found', 'was deleted')(outcome.reason), String(outcome.reason));
    assert.equal(tree.holds, 0);
  });

  onEachMedium('it ends with what is left when the association is gone', async (parts) => {
    const tree = await makeLarge(parts);
    const plan = planTree(parts, tree, 'copy');
    await undefined;
    tree.backing = undefined;
    assert.ok((await plan).dataBlocks < 8 * 256);
  });

  onEachMedium('what has no VBN yet is copied at most', async (parts) => {
    const { acts, vdisk, engine, head } = parts;
    await acts.create('golden', MIB);
    await vdisk('golden').write(0, pattern(8 * BLOCK_BYTES, 1));
    await acts.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
    await acts.clone('golden@v1', 'clone');
    const before = await planTree(parts, head('clone'), 'share');
    assert.deepEqual([before.dataBlocks, before.dataBlocksMin, before.sharedBlocks], [8, 0, 0]);
    await engine.consistencyPoint();
    const after = await planTree(parts, head('clone'), 'share');
    assert.deepEqual([after.dataBlocks, after.dataBlocksMin, after.sharedBlocks], [0, 0, 8]);
  });
});
