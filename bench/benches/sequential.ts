/** Sequential 1 MiB writes to a vdisk in a file, beside dd on the same file system. */
import { GIB, MIB } from '../../src/base/units.js';
import { openStore } from '../../src/main/open-store.js';
import type { Bench } from '../harness/bench.js';
import { makeStoreFile, NoisePieces, noise } from '../harness/file-store.js';
import { reportMemory } from '../harness/memory.js';
import { atLeast } from '../harness/report.js';
import { runCommand, withScratch, writeFile } from '../harness/scratch.js';
import { elapsedMs, median } from '../harness/timing.js';

const MEMORY_BYTES = 64 * MIB;
const PART_MIB = 128;
const ROUNDS = 5;
/** Writes under way, as a client with a queue has them. */
const QUEUE = 4;

export const sequential: Bench = {
  name: 'sequential',
  question: 'how fast are sequential 1 MiB writes with one FLUSH at the end, beside dd?',
  run: (report) =>
    withScratch(async (folder) => {
      const path = `${folder}/store`;
      await makeStoreFile(path, 2 * GIB, { preallocate: true });
      writeFile(`${folder}/source`, PART_MIB * MIB, noise(MIB, 77));
      writeFile(`${folder}/bare`, PART_MIB * MIB, new Uint8Array(0));
      const store = await openStore(path, { memoryBytes: MEMORY_BYTES });
      const vdisk = await store.createVdisk('v', PART_MIB * MIB);
      const rates: Record<'one' | 'queue' | 'dd', number[]> = { one: [], queue: [], dd: [] };
      for (let round = 0; round <= ROUNDS; round++) {
        const ddMs = await elapsedMs(() => Promise.resolve(dd(folder)));
        const oneMs = await elapsedMs(() => writeAll(vdisk, 1));
        const queueMs = await elapsedMs(() => writeAll(vdisk, QUEUE));
        // The first round warms up; the CP of one must not run in the time of the next.
        await store.consistencyPoint();
        if (round === 0) continue;
        rates.one.push(PART_MIB / (oneMs / 1000));
        rates.queue.push(PART_MIB / (queueMs / 1000));
        rates.dd.push(PART_MIB / (ddMs / 1000));
      }
      const peer = { what: 'dd bs=1M conv=fdatasync,notrunc', value: median(rates.dd) };
      for (const [what, values] of [
        ['one at a time', rates.one],
        [`${QUEUE} under way`, rates.queue],
      ] as const) {
        report.figure({
          what: `1 MiB writes, ${what}, then FLUSH (median of ${ROUNDS})`,
          value: median(values),
          unit: 'MiB a second',
          peer,
          target: atLeast(0.5),
        });
      }
      await store.close();
      reportMemory(report, MEMORY_BYTES, { what: '', bytes: 0 });
    }),
};

function dd(folder: string): void {
  runCommand('dd', [
    `if=${folder}/source`,
    `of=${folder}/bare`,
    'bs=1M',
    'conv=fdatasync,notrunc',
    'status=none',
  ]);
}

interface Target {
  write(offset: number, data: Uint8Array): void | Promise<void>;
  flush(): Promise<void>;
}

async function writeAll(vdisk: Target, queue: number): Promise<void> {
  let at = 0;
  const one = async (): Promise<void> => {
    const pieces = new NoisePieces();
    while (at < PART_MIB * MIB) {
      const offset = at;
      at += MIB;
      await vdisk.write(offset, pieces.next());
    }
  };
  await Promise.all(Array.from({ length: queue }, one));
  await vdisk.flush();
}
