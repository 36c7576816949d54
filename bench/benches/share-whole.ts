/**
 * A share split of a clone that nobody has written to yet: time and bytes written, on a large vdisk
 * of which a part is mapped; and beside the copy split of a smaller clone, on a file with its data.
 */
import { BLOCK_BYTES, GIB, MIB, TIB } from '../../src/base/units.js';
import { openFileDevice } from '../../src/env/file-device.js';
import { openStore } from '../../src/main/open-store.js';
import type { Store } from '../../src/main/store.js';
import type { Bench } from '../harness/bench.js';
import { CountingDevice } from '../harness/counting-device.js';
import { makeStoreFile, NoisePieces } from '../harness/file-store.js';
import { PatternDevice } from '../harness/pattern-device.js';
import { atLeast, atMost, type Report } from '../harness/report.js';
import { withScratch } from '../harness/scratch.js';
import { elapsedMs, median } from '../harness/timing.js';

const MEMORY_BYTES = 64 * MIB;
const LARGE_BYTES = TIB;
/** Mapping 64 GiB takes a minute or two; a smaller number of GiB shows the same cost sooner. */
const MAPPED_GIB = Number(process.env.KEIKI_BENCH_MAPPED_GIB ?? 64);
const SMALL_GIB = Number(process.env.KEIKI_BENCH_CLONE_GIB ?? 4);
const ROUNDS = 3;

export const shareWhole: Bench = {
  name: 'share-whole',
  question: 'what does the share split of an untouched clone cost, whatever its size?',
  run: (report) =>
    withScratch(async (folder) => {
      await measureLarge(report, folder);
      await measureSmall(report, folder);
    }),
};

/** 1 MiB extents, far apart. The data is one known block, which the device keeps as a bit. */
async function measureLarge(report: Report, folder: string): Promise<void> {
  const path = `${folder}/large`;
  await makeStoreFile(path, Math.ceil(MAPPED_GIB * 1.25) * GIB, { preallocate: false });
  const data = Buffer.alloc(MIB, 0xa5);
  const pattern = new PatternDevice(await openFileDevice(path), data.subarray(0, BLOCK_BYTES));
  const device = new CountingDevice(pattern);
  const store = await openStore({ kind: 'device', device }, { memoryBytes: MEMORY_BYTES });
  const golden = await store.createVdisk('golden', LARGE_BYTES);
  const extents = MAPPED_GIB * 1024;
  const stride = Math.floor(LARGE_BYTES / extents / MIB) * MIB;
  for (let index = 0; index < extents; index++) await golden.write(index * stride, data);
  await store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
  const seconds: number[] = [];
  const written: number[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    await store.clone('golden@v1', `clone${round}`);
    await store.consistencyPoint();
    const before = device.blocksWritten;
    seconds.push((await splitMs(store, `clone${round}`, 'share')) / 1000);
    written.push((device.blocksWritten - before) * BLOCK_BYTES);
  }
  const { mappedBytes } = store.show('clone0');
  if (mappedBytes !== MAPPED_GIB * GIB) throw new Error(`${mappedBytes} bytes are mapped`);
  const what = `of 1 TiB with ${MAPPED_GIB} GiB mapped (slowest of ${ROUNDS})`;
  report.figure({
    what: `share split ${what}`,
    value: Math.max(...seconds),
    unit: 's',
    target: atMost(1),
  });
  report.figure({
    what: 'bytes written',
    value: Math.max(...written),
    unit: `bytes, ${((Math.max(...written) / mappedBytes) * 100).toFixed(6)} % of what is mapped`,
    target: atMost(mappedBytes / 10_000),
  });
  await store.close();
}

/** Every block of it stands in the file. */
async function measureSmall(report: Report, folder: string): Promise<void> {
  const path = `${folder}/small`;
  const sizeBytes = SMALL_GIB * GIB;
  await makeStoreFile(path, Math.ceil(sizeBytes * 2.5), { preallocate: true });
  const store = await openStore(path, { memoryBytes: MEMORY_BYTES });
  const golden = await store.createVdisk('golden', sizeBytes);
  const pieces = new NoisePieces();
  for (let at = 0; at < sizeBytes; at += MIB) await golden.write(at, pieces.next());
  await store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
  const ms = { copy: [] as number[], share: [] as number[] };
  for (let round = 0; round < ROUNDS; round++) {
    for (const mode of ['copy', 'share'] as const) {
      await store.clone('golden@v1', 'clone');
      await store.consistencyPoint();
      ms[mode].push(await splitMs(store, 'clone', mode));
      if (store.show('clone').mappedBytes !== sizeBytes) throw new Error('not split');
      await store.delete('clone');
      await store.idle();
      await store.consistencyPoint();
    }
  }
  report.figure({
    what: `share split of an untouched clone of ${SMALL_GIB} GiB (median of ${ROUNDS})`,
    value: median(ms.share) / 1000,
    unit: 's',
    peer: { what: 'copy split', value: median(ms.copy) / 1000 },
    ratio: 'peer / value',
    target: atLeast(100),
  });
  await store.close();
}

function splitMs(store: Store, name: string, mode: 'copy' | 'share'): Promise<number> {
  return elapsedMs(async () => {
    const job = await store.split(name, { mode, pace: 'now' });
    await job.done;
  });
}
