/** What depth costs a read: clones of snapshots of clones, 64 trees deep, beside one. */
import { BLOCK_BYTES, GIB, MIB } from '../../src/base/units.js';
import { openStore } from '../../src/main/open-store.js';
import type { Store } from '../../src/main/store.js';
import type { Vdisk } from '../../src/vdisk/vdisk.js';
import type { Bench } from '../harness/bench.js';
import { makeStoreFile, NoisePieces } from '../harness/file-store.js';
import { reportMemory } from '../harness/memory.js';
import { atMost } from '../harness/report.js';
import { withScratch } from '../harness/scratch.js';
import { median, nowMs, QuickRandom } from '../harness/timing.js';

const MEMORY_BYTES = 128 * MIB;
const VDISK_BYTES = 64 * MIB;
const DEPTH = 64;
const WARM_READS = 50_000;
const COLD_OPENS = 5;

export const depth: Bench = {
  name: 'depth',
  question: 'what does a 4 KiB random read cost at clone depth 64, warm and cold?',
  run: (report) =>
    withScratch(async (folder) => {
      const path = `${folder}/store`;
      await makeStoreFile(path, GIB, { preallocate: true });
      let store = await openStore(path, { memoryBytes: MEMORY_BYTES });
      await lineage(store, 'old', false);
      await lineage(store, 'all', true);
      const warm = await warmReads(store);
      await store.close();
      report.figure({
        what: 'warm read at depth 64',
        value: warm.deep,
        unit: 'µs',
        peer: { what: 'depth 1', value: warm.shallow },
        target: atMost(1.15),
      });
      const cold: Record<string, number[]> = {};
      for (let open = 0; open < COLD_OPENS; open++) {
        for (const name of ['old1', 'old64', 'all1', 'all64']) {
          // A new open each: nothing is in the store's memory. The host's cache stays warm.
          store = await openStore(path, { memoryBytes: MEMORY_BYTES });
          (cold[name] ??= []).push(...(await coldReads(store.vdisk(name))));
          await store.close();
        }
      }
      const at = (name: string): number => median(cold[name] ?? []);
      report.figure({
        what: 'cold read (median) at depth 64, only the oldest tree has data',
        value: at('old64'),
        unit: 'µs',
        peer: { what: 'depth 1', value: at('old1') },
        target: atMost(3),
      });
      report.figure({
        what: 'cold read (median) at depth 64, all 64 have data in the range',
        value: at('all64'),
        unit: 'µs',
        peer: { what: 'depth 1', value: at('all1') },
      });
      reportMemory(report, MEMORY_BYTES, { what: '', bytes: 0 });
    }),
};

/** NAME1 is a clone of the oldest tree's snapshot, NAME64 one with 64 trees beneath it. */
async function lineage(store: Store, name: string, allWrite: boolean): Promise<void> {
  const pieces = new NoisePieces();
  const small = new NoisePieces(BLOCK_BYTES);
  let last = await store.createVdisk(`${name}0`, VDISK_BYTES);
  for (let at = 0; at < VDISK_BYTES; at += MIB) await last.write(at, pieces.next());
  for (let level = 1; level <= DEPTH; level++) {
    await store.snapshot([{ vdisk: last.name, snapshot: 's' }]);
    last = await store.clone(`${last.name}@s`, `${name}${level}`);
    if (!allWrite) continue;
    // One block in each level-1 range: every tree has a level-1 block there.
    for (let at = level * BLOCK_BYTES; at < VDISK_BYTES; at += MIB) {
      await last.write(at, small.next());
    }
  }
  await store.consistencyPoint();
}

async function warmReads(store: Store): Promise<{ deep: number; shallow: number }> {
  const random = new QuickRandom(3);
  const into = Buffer.alloc(BLOCK_BYTES);
  const vdisks = { deep: store.vdisk('old64'), shallow: store.vdisk('old1') };
  const us: Record<'deep' | 'shallow', number[]> = { deep: [], shallow: [] };
  for (const vdisk of [vdisks.deep, vdisks.shallow]) {
    for (let at = 0; at < VDISK_BYTES; at += BLOCK_BYTES) await vdisk.read(at, into);
  }
  for (let slice = 0; slice < 12; slice++) {
    for (const which of ['deep', 'shallow'] as const) {
      const start = nowMs();
      for (let count = 0; count < WARM_READS; count++) {
        const at = random.below(VDISK_BYTES / BLOCK_BYTES) * BLOCK_BYTES;
        if (vdisks[which].read(at, into) !== undefined) throw new Error('a warm read waited');
      }
      if (slice > 1) us[which].push(((nowMs() - start) * 1000) / WARM_READS);
    }
  }
  return { deep: median(us.deep), shallow: median(us.shallow) };
}

/**
 * One read in each level-1 range, in random order: each finds nothing of its range in memory.
 * Returns what each took, in µs: their median is not the machine's other work.
 */
async function coldReads(vdisk: Vdisk): Promise<number[]> {
  const random = new QuickRandom(11);
  const into = Buffer.alloc(BLOCK_BYTES);
  const ranges = Array.from({ length: VDISK_BYTES / MIB }, (_, index) => index);
  for (let index = ranges.length - 1; index > 0; index--) {
    const other = random.below(index + 1);
    [ranges[index], ranges[other]] = [ranges[other] as number, ranges[index] as number];
  }
  const us: number[] = [];
  for (const range of ranges) {
    const start = nowMs();
    await vdisk.read(range * MIB + (100 + random.below(150)) * BLOCK_BYTES, into);
    us.push((nowMs() - start) * 1000);
  }
  return us;
}
