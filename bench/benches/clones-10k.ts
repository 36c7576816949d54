/** Many clones at once, and what they cost at the next open. */
import { GIB, MIB } from '../../src/base/units.js';
import { openFileDevice } from '../../src/env/file-device.js';
import { formatStore, openStore } from '../../src/main/open-store.js';
import type { Bench } from '../harness/bench.js';
import { reportMemory, residentBytes } from '../harness/memory.js';
import { atMost } from '../harness/report.js';
import { withScratch } from '../harness/scratch.js';
import { elapsedMs } from '../harness/timing.js';

const CLONES = 10_000;
const MEMORY_BYTES = 64 * MIB;

export const clones10k: Bench = {
  name: 'clones-10k',
  question: 'how long do 10,000 clones of one snapshot take, and the next open?',
  run: (report) =>
    withScratch(async (folder) => {
      const path = `${folder}/store`;
      const create = { sizeBytes: 2 * GIB, preallocate: false };
      const device = await openFileDevice(path, { create });
      await formatStore({ kind: 'device', device });
      await device.close();
      const store = await openStore(path, { memoryBytes: MEMORY_BYTES });
      const golden = await store.createVdisk('golden', GIB);
      const data = Buffer.alloc(MIB, 1);
      for (let at = 0; at < 64 * MIB; at += MIB) await golden.write(at, data);
      await store.snapshot([{ vdisk: 'golden', snapshot: 'v1' }]);
      await store.consistencyPoint();
      const before = residentBytes();
      const names = Array.from({ length: CLONES }, (_, index) => `clone${index}`);
      const cloneMs = await elapsedMs(() =>
        Promise.all(names.map((name) => store.clone('golden@v1', name))),
      );
      const after = residentBytes();
      report.figure({
        what: `${CLONES} clones asked for together`,
        value: cloneMs / 1000,
        unit: 's',
        target: atMost(5),
      });
      report.figure({
        what: 'memory they take',
        value: Math.round((after - before) / MIB),
        unit: 'MiB',
        target: atMost(100),
      });
      reportMemory(report, MEMORY_BYTES, { what: '', bytes: 0 });
      const closeMs = await elapsedMs(() => store.close());
      report.figure({ what: 'close with its CP', value: closeMs / 1000, unit: 's' });
      const bytes = Buffer.alloc(4096);
      let second: Awaited<ReturnType<typeof openStore>> | undefined;
      const openMs = await elapsedMs(async () => {
        second = await openStore(path, { memoryBytes: MEMORY_BYTES });
        await second.vdisk(`clone${CLONES - 1}`).read(MIB, bytes);
      });
      if (bytes[0] !== 1 || second === undefined) throw new Error('the clone reads wrong bytes');
      report.figure({
        what: `open with ${second.list().length} vdisks and snapshots, first read`,
        value: openMs / 1000,
        unit: 's',
        target: atMost(2),
      });
      await second.close();
    }),
};
