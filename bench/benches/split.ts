/**
 * A copy split beside cp of as many bytes with a sync at the end, and a share split of the same
 * clone. Everything is durable when it counts as done; the host's cache holds the source for both.
 */
import { GIB, MIB } from '../../src/base/units.js';
import { openStore } from '../../src/main/open-store.js';
import type { Store } from '../../src/main/store.js';
import type { Bench } from '../harness/bench.js';
import { makeStoreFile, NoisePieces, noise } from '../harness/file-store.js';
import { reportMemory } from '../harness/memory.js';
import { atLeast } from '../harness/report.js';
import { runCommand, withScratch, writeFile } from '../harness/scratch.js';
import { elapsedMs, median } from '../harness/timing.js';

const MEMORY_BYTES = 64 * MIB;
const GOLDEN_MIB = 1024;
const ROUNDS = 3;
/** Rounds before those that count: a share split is so short that its code must be warm. */
const WARM_ROUNDS = 2;

export const split: Bench = {
  name: 'split',
  question: 'how fast is a copy split beside cp, and how much faster a share split?',
  run: (report) =>
    withScratch(async (folder) => {
      const path = `${folder}/store`;
      await makeStoreFile(path, 4 * GIB, { preallocate: true });
      writeFile(`${folder}/source`, GOLDEN_MIB * MIB, noise(MIB, 78));
      const store = await openStore(path, { memoryBytes: MEMORY_BYTES });
      const golden = await store.createVdisk('golden', GOLDEN_MIB * MIB);
      const pieces = new NoisePieces();
      for (let at = 0; at < GOLDEN_MIB * MIB; at += MIB) await golden.write(at, pieces.next());
      await store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
      await store.consistencyPoint();
      const ms: Record<'cp' | 'copy' | 'share', number[]> = { cp: [], copy: [], share: [] };
      for (let round = -WARM_ROUNDS; round < ROUNDS; round++) {
        const cpMs = await elapsedMs(() => Promise.resolve(copyFile(folder)));
        const copyMs = await splitOnce(store, 'copy');
        const shareMs = await splitOnce(store, 'share');
        if (round < 0) continue;
        ms.cp.push(cpMs);
        ms.copy.push(copyMs);
        ms.share.push(shareMs);
      }
      const toRate = (values: number[]): number => GOLDEN_MIB / (median(values) / 1000);
      report.figure({
        what: `copy split of ${GOLDEN_MIB} MiB (median of ${ROUNDS})`,
        value: toRate(ms.copy),
        unit: 'MiB a second',
        peer: { what: 'cp --reflink=never and sync', value: toRate(ms.cp) },
        target: atLeast(0.6),
      });
      report.figure({
        what: 'share split',
        value: median(ms.share) / 1000,
        unit: 's',
        peer: { what: 'copy split', value: median(ms.copy) / 1000 },
        ratio: 'peer / value',
        target: atLeast(20),
      });
      await store.close();
      reportMemory(report, MEMORY_BYTES, { what: '', bytes: 0 });
    }),
};

function copyFile(folder: string): void {
  runCommand('sh', [
    '-c',
    `cp --reflink=never ${folder}/source ${folder}/copy && sync ${folder}/copy`,
  ]);
  // Removed outside of the next round's time, and a new file each time, as with a split.
  runCommand('sh', ['-c', `rm ${folder}/copy; sync -f ${folder}`]);
}

async function splitOnce(store: Store, mode: 'copy' | 'share'): Promise<number> {
  await store.clone('golden@v1', 'clone');
  await store.consistencyPoint();
  const ms = await elapsedMs(async () => {
    const job = await store.split('clone', { mode });
    await job.done;
  });
  const { mappedBytes, backing } = store.show('clone');
  if (mappedBytes !== GOLDEN_MIB * MIB || backing !== undefined) throw new Error('not split');
  await store.delete('clone');
  await store.idle();
  await store.consistencyPoint();
  await store.consistencyPoint();
  return ms;
}
