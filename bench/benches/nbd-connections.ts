/**
 * A thousand connections that do nothing and 64 that are busy, each on a clone of its own, for a
 * minute (KEIKI_BENCH_SECONDS). Meanwhile, four times a second, a client comes, reads a block and
 * goes, and one that was idle reads a block. All clients live in one process: their own queues are
 * in the figures.
 */
import { GIB, MIB } from '../../src/base/units.js';
import type { Bench } from '../harness/bench.js';
import { noise } from '../harness/file-store.js';
import { atLeast, atMost, type Report } from '../harness/report.js';
import { withScratch, writeFile } from '../harness/scratch.js';
import { elapsedMs, median } from '../harness/timing.js';
import type { LoadJob, LoadResult } from '../nbd/load-connection.js';
import { LoadProcess } from '../nbd/load-process.js';
import { buildServer, KeikiServer, type ServerProcess } from '../nbd/nbd-servers.js';

const IDLE = 1000;
const BUSY = 64;
const DISK_BYTES = 8 * MIB;
const DEPTH = 4;
const SECONDS = Number(process.env.KEIKI_BENCH_SECONDS ?? 60);
const VISIT_MS = 250;
/** The server's buffers, as it comes, and what everything else of it may take. */
const MEMORY_MIB = 256 + 150;

const BLOCKS = { order: 'random', requestBytes: 4096, spanBytes: DISK_BYTES, seed: 5 } as const;
const ONE_READ: LoadJob = { ...BLOCKS, kind: 'read', depth: 1, operations: 1 };
const BUSY_JOB: LoadJob = { ...BLOCKS, kind: 'mixed', depth: DEPTH, ms: SECONDS * 1000 };

interface Visits {
  readonly connectMs: number[];
  readonly newMs: number[];
  readonly idleMs: number[];
}

export const nbdConnections: Bench = {
  name: 'nbd-connections',
  question: `do ${BUSY} busy clients of ${BUSY} clones and ${IDLE} idle ones get along?`,
  run: (report) =>
    withScratch(async (folder) => {
      const build = buildServer();
      const load = new LoadProcess();
      const keiki = new KeikiServer(folder, build);
      const server = await keiki.start(2 * GIB);
      try {
        await measure(report, folder, { keiki, server, load });
      } finally {
        load.close();
        await server.stop();
        build.remove();
      }
    }),
};

interface Parts {
  readonly keiki: KeikiServer;
  readonly server: ServerProcess;
  readonly load: LoadProcess;
}

async function measure(report: Report, folder: string, parts: Parts): Promise<void> {
  const { keiki, server, load } = parts;
  const clones = Array.from({ length: BUSY }, (_, index) => `clone${index}`);
  writeFile(`${folder}/golden.raw`, DISK_BYTES, noise(MIB, 31));
  keiki.command('import', `${folder}/golden.raw`, 'golden');
  keiki.command('snapshot', 'golden', 'v1');
  keiki.command('clone', 'golden@v1', ...clones);
  const mib = (): number => Math.round(server.residentBytes / MIB);
  const atStart = mib();
  const idleNames = Array.from({ length: IDLE }, (_, index) => clones[index % BUSY] as string);
  const openMs = await elapsedMs(() => load.open('idle', keiki.socketPath, idleNames));
  report.note(`${IDLE} connections opened one after the other in ${Math.round(openMs)} ms`);
  await load.open('lonely', keiki.socketPath, ['golden@v1']);
  await load.open('busy', keiki.socketPath, clones);
  const withIdle = mib();
  let isOver = false;
  const running = load.run('busy', BUSY_JOB).finally(() => {
    isOver = true;
  });
  const visits = await visit(parts, () => isOver);
  reportBusy(report, await running);
  reportVisits(report, visits);
  report.note(`memory: ${atStart} MiB, with all connections ${withIdle} MiB, at the end ${mib()}`);
  report.figure({
    what: 'memory at the end',
    value: mib(),
    unit: 'MiB',
    target: atMost(MEMORY_MIB),
  });
}

async function visit({ keiki, load }: Parts, isOver: () => boolean): Promise<Visits> {
  const visits: Visits = { connectMs: [], newMs: [], idleMs: [] };
  while (!isOver()) {
    await new Promise((resolve) => setTimeout(resolve, VISIT_MS));
    const [connectMs = Number.NaN] = await load.open('new', keiki.socketPath, ['clone0']);
    visits.connectMs.push(connectMs);
    const [fresh] = await load.run('new', ONE_READ);
    visits.newMs.push(fresh?.worstMs ?? Number.NaN);
    const [idle] = await load.run('lonely', { ...ONE_READ, seed: visits.idleMs.length });
    visits.idleMs.push(idle?.worstMs ?? Number.NaN);
  }
  return visits;
}

function reportBusy(report: Report, results: readonly LoadResult[]): void {
  const counts = results.map(({ operations }) => operations);
  const worst = results.map(({ worstMs }) => worstMs);
  const total = counts.reduce((sum, count) => sum + count, 0);
  const most = Math.max(...counts);
  report.note(
    `${BUSY} busy, ${DEPTH} requests under way each, ${SECONDS} s: ${total} operations; of a ` +
      `connection ${Math.min(...counts)}, ${median(counts)}, ${most} (least, median, most)`,
  );
  report.figure({
    what: 'the slowest busy connection',
    value: Math.min(...counts),
    unit: 'operations',
    peer: { what: 'the median', value: median(counts) },
    target: atLeast(0.5),
  });
  report.figure({
    what: `longest wait of an operation (median of the connections ${median(worst).toFixed(0)})`,
    value: Math.max(...worst),
    unit: 'ms',
    target: atMost(2000),
  });
}

function reportVisits(report: Report, { connectMs, newMs, idleMs }: Visits): void {
  for (const [what, times] of [
    ['connecting meanwhile', connectMs],
    ['first read of a new client', newMs],
    ['a read of an idle client', idleMs],
  ] as const) {
    report.figure({
      what: `${what}, longest of ${times.length} (median ${median(times).toFixed(1)} ms)`,
      value: Math.max(...times),
      unit: 'ms',
      target: atMost(2000),
    });
  }
}
