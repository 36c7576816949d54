/**
 * Sixteen clones of one backing store split: together, and one after the other. How much of the
 * backing store is read, by the server's own count and by what it asks the system for.
 */
import { GIB, MIB } from '../../src/base/units.js';
import type { Bench } from '../harness/bench.js';
import { noise } from '../harness/file-store.js';
import { atMost, type Report } from '../harness/report.js';
import { withScratch, writeFile } from '../harness/scratch.js';
import { elapsedMs } from '../harness/timing.js';
import { buildServer, KeikiServer, type ServerProcess } from '../nbd/nbd-servers.js';
import { KeikiApi } from '../split/keiki-api.js';

const SIBLINGS = 16;
const MAPPED_BYTES = Number(process.env.KEIKI_BENCH_SIBLING_MIB ?? 256) * MIB;

interface Lab {
  readonly server: ServerProcess;
  readonly api: KeikiApi;
}

interface Work {
  readonly seconds: number;
  /** In parts of what is mapped. */
  readonly backingReads: number;
  readonly bytesRead: number;
}

export const splitSiblings: Bench = {
  name: 'split-siblings',
  question: `how often is a backing store read when ${SIBLINGS} clones split from it?`,
  run: (report) =>
    withScratch(async (folder) => {
      const build = buildServer();
      const keiki = new KeikiServer(folder, build);
      const storeBytes = (SIBLINGS + 2) * MAPPED_BYTES + GIB;
      const server = await keiki.start(storeBytes, ['--store-preallocate']);
      try {
        writeFile(`${folder}/golden`, MAPPED_BYTES, noise(16 * MIB, 92));
        keiki.command('import', `${folder}/golden`, 'golden');
        keiki.command('snapshot', 'golden', 'v1');
        await measure(report, { server, api: new KeikiApi(keiki.apiPath) });
      } finally {
        await server.stop();
        build.remove();
      }
    }),
};

async function measure(report: Report, lab: Lab): Promise<void> {
  const together = await work(lab, async (names) => {
    await Promise.all(names.map((name) => lab.api.split(name, { mode: 'copy', pace: 'now' })));
  });
  const apart = await work(lab, async (names) => {
    for (const name of names) await lab.api.split(name, { mode: 'copy', pace: 'now' });
  });
  const what = `${SIBLINGS} clones of ${MAPPED_BYTES / MIB} MiB together`;
  const peer = 'one after the other';
  report.figure({
    what: `${what}: blocks of the backing store read, by the server's count, of those mapped`,
    value: together.backingReads,
    unit: 'times',
    target: atMost(1.2),
  });
  report.figure({
    what: 'bytes that the server asked the system for, of those mapped',
    value: together.bytesRead,
    unit: 'times',
    target: atMost(1.2),
  });
  report.note(
    `${peer}: ${apart.backingReads.toFixed(2)} by count, ${apart.bytesRead.toFixed(2)} by bytes`,
  );
  report.figure({
    what: 'time',
    value: together.seconds,
    unit: 's',
    peer: { what: peer, value: apart.seconds },
    ratio: 'peer / value',
  });
}

/** Splits new clones, and deletes them. */
async function work(
  { server, api }: Lab,
  split: (names: readonly string[]) => Promise<void>,
): Promise<Work> {
  const names = Array.from({ length: SIBLINGS }, (_, index) => `clone${index}`);
  await api.clone('golden@v1', names);
  const before = await api.stats();
  const bytesBefore = server.readBytes;
  const ms = await elapsedMs(() => split(names));
  const bytesRead = server.readBytes - bytesBefore;
  const { store } = await api.stats();
  const blocks = store.splitBackingBlocksRead - before.store.splitBackingBlocksRead;
  await api.deleteVdisks(names);
  const backingReads = (blocks * 4096) / MAPPED_BYTES;
  return { seconds: ms / 1000, backingReads, bytesRead: bytesRead / MAPPED_BYTES };
}
