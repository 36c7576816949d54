/**
 * NBD on a unix socket: the server as users run it, serving a clone of a golden disk, beside
 * qemu-nbd (a qcow2 overlay of the same content, --cache=writeback: writes go to the system's
 * cache, FLUSH is honest) and nbdkit's memory plugin. All take turns in short slices, in an order
 * that changes; a ratio is the median of those of the rounds. Reads read the golden disk through
 * clone and overlay; writes come after a slice that has given both their own blocks.
 */
import { rmSync } from 'node:fs';
import { GIB, MIB } from '../../src/base/units.js';
import type { Bench } from '../harness/bench.js';
import { noise } from '../harness/file-store.js';
import { atLeast, type Report } from '../harness/report.js';
import { withScratch, writeFile } from '../harness/scratch.js';
import { median } from '../harness/timing.js';
import { fioRate } from '../nbd/fio.js';
import type { LoadJob } from '../nbd/load-connection.js';
import { LoadProcess } from '../nbd/load-process.js';
import {
  buildServer,
  KeikiServer,
  type ServerProcess,
  startNbdkit,
  startQemuNbd,
} from '../nbd/nbd-servers.js';

const DISK_BYTES = 128 * MIB;
const SMALL_BYTES = 4096;
const SLICE_MS = 500;
const ROUNDS = 9;
const FIO_ROUNDS = 3;
const SEED = 4711;
/** For work on one figure: only rows whose words contain this. */
const ONLY = process.env.KEIKI_BENCH_ROWS;

type Server = 'keiki' | 'qemu-nbd' | 'nbdkit memory';
type Peer = Exclude<Server, 'keiki'>;

interface Row {
  readonly what: string;
  readonly job: Pick<LoadJob, 'kind' | 'order' | 'requestBytes' | 'depth'>;
  readonly targets: Readonly<Partial<Record<Peer, number>>>;
}

const ROWS: readonly Row[] = [
  small('read', 32, { 'qemu-nbd': 1.5, 'nbdkit memory': 0.6 }),
  small('read', 1, { 'qemu-nbd': 1 }),
  large('read', 1),
  large('read', 4),
  small('write', 32, { 'qemu-nbd': 1.5, 'nbdkit memory': 0.6 }),
  small('write', 1, { 'qemu-nbd': 1 }),
  small('write-flush', 1, { 'qemu-nbd': 1.5 }),
  small('write-flush', 16, { 'qemu-nbd': 4 }),
  large('write', 1),
  large('write', 4),
];

function small(kind: LoadJob['kind'], depth: number, targets: Row['targets']): Row {
  const verb = { read: 'reads', write: 'writes', 'write-flush': 'writes, each with its FLUSH' };
  const what = `4 KiB random ${verb[kind]}, ${depth} under way`;
  return { what, job: { kind, order: 'random', requestBytes: SMALL_BYTES, depth }, targets };
}

function large(kind: 'read' | 'write', depth: number): Row {
  const what = `1 MiB sequential ${kind}s, ${depth} under way`;
  const job = { kind, order: 'sequential', requestBytes: MIB, depth } as const;
  return { what, job, targets: { 'qemu-nbd': 1.5 } };
}

export const nbdSpeed: Bench = {
  name: 'nbd-speed',
  question: 'how fast is the server over NBD, beside qemu-nbd and nbdkit?',
  run: (report) =>
    withScratch(async (folder) => {
      const load = new LoadProcess();
      const servers: ServerProcess[] = [];
      const build = buildServer();
      try {
        await connectAll({ folder, build }, load, servers);
        await generatorLimit(report, folder, load, servers);
        if (ONLY === undefined) fioBeside(report, folder);
        const rows = ROWS.filter(({ what }) => what.includes(ONLY ?? ''));
        for (const row of rows) await measure(report, load, row);
      } finally {
        load.close();
        for (const server of servers) await server.stop();
        rmSync(build, { recursive: true, force: true });
      }
    }),
};

/** Starts the servers, gives them their content, and brings it into memory. */
async function connectAll(
  { folder, build }: { readonly folder: string; readonly build: string },
  load: LoadProcess,
  servers: ServerProcess[],
): Promise<void> {
  const raw = `${folder}/golden.raw`;
  writeFile(raw, DISK_BYTES, noise(MIB, 31));
  const keiki = new KeikiServer(folder, build);
  servers.push(await keiki.start(2 * GIB));
  keiki.command('import', raw, 'golden');
  keiki.command('snapshot', 'golden', 'v1');
  keiki.command('clone', 'golden@v1', 'clone');
  await load.open('keiki', keiki.socketPath, ['clone']);
  const qemuSocket = `${folder}/qemu.sock`;
  servers.push(await startQemuNbd(folder, raw, qemuSocket));
  await load.open('qemu-nbd', qemuSocket, ['']);
  const memorySocket = `${folder}/memory.sock`;
  servers.push(await startNbdkit('memory', DISK_BYTES, memorySocket));
  await load.open('nbdkit memory', memorySocket, ['']);
  await load.run('nbdkit memory', wholeDisk('write', MIB));
  for (const group of ['keiki', 'qemu-nbd', 'nbdkit memory']) {
    await load.run(group, wholeDisk('read', SMALL_BYTES));
  }
}

/** Every byte of the disk once. */
function wholeDisk(kind: 'read' | 'write', requestBytes: number): LoadJob {
  const operations = DISK_BYTES / requestBytes;
  const order = 'sequential';
  return { kind, order, requestBytes, depth: 8, operations, spanBytes: DISK_BYTES, seed: SEED };
}

/** What the generator reaches where the server does nothing, and what fio would. */
async function generatorLimit(
  report: Report,
  folder: string,
  load: LoadProcess,
  servers: ServerProcess[],
): Promise<void> {
  const socketPath = `${folder}/null.sock`;
  servers.push(await startNbdkit('null', DISK_BYTES, socketPath));
  await load.open('null', socketPath, ['']);
  for (const kind of ['read', 'write'] as const) {
    const { job } = small(kind, 32, {});
    const rates: number[] = [];
    for (let round = 0; round < 3; round++) rates.push(await rateOf(load, 'null', job, round));
    const ours = Math.round(median(rates));
    const theirs = Math.round(fioRate(`nbd+unix:///?socket=${socketPath}`, kind));
    report.note(`4 KiB ${kind}s, 32 under way, of nbdkit null: ${ours} a second; fio ${theirs}`);
  }
}

/** fio asks one request at a time and is the limit itself; its figures stand here all the same. */
function fioBeside(report: Report, folder: string): void {
  const paths = { keiki: '/clone?socket=keiki', 'qemu-nbd': '/?socket=qemu' };
  const all = { ...paths, 'nbdkit memory': '/?socket=memory' };
  for (const kind of ['read', 'write'] as const) {
    const rates: Record<string, number[]> = {};
    for (let round = 0; round < FIO_ROUNDS; round++) {
      for (const [server, path] of Object.entries(all)) {
        const uri = `nbd+unix://${path.replace('socket=', `socket=${folder}/`)}.sock`;
        (rates[server] ??= []).push(fioRate(uri, kind));
      }
    }
    const texts = Object.entries(rates).map(
      ([server, of]) => `${server} ${Math.round(median(of))}`,
    );
    report.note(`fio, 4 KiB random ${kind}s, 32 under way, a second: ${texts.join(', ')}`);
  }
}

/** Operations a second in one slice. */
async function rateOf(
  load: LoadProcess,
  group: string,
  job: Row['job'],
  round: number,
): Promise<number> {
  const slice = { ms: SLICE_MS, spanBytes: DISK_BYTES, seed: SEED + round };
  const [result] = await load.run(group, { ...job, ...slice });
  return result === undefined ? Number.NaN : result.operations / (result.ms / 1000);
}

async function measure(
  report: Report,
  load: LoadProcess,
  { what, job, targets }: Row,
): Promise<void> {
  const peers = Object.keys(targets) as Peer[];
  const order: Server[] = ['keiki', ...peers];
  const rates: Record<Server, number[]> = { keiki: [], 'qemu-nbd': [], 'nbdkit memory': [] };
  for (let round = 0; round <= ROUNDS; round++) {
    for (const server of order) {
      const rate = await rateOf(load, server, job, round);
      // The first round warms up.
      if (round > 0) rates[server].push(rate);
    }
    order.push(...order.splice(0, 1));
  }
  const unit = job.requestBytes === MIB ? 'MiB a second' : 'a second';
  for (const peer of peers) {
    const ratios = rates.keiki.map((rate, at) => rate / (rates[peer][at] as number));
    report.figure({
      what,
      value: median(rates.keiki),
      unit,
      peer: { what: peer, value: median(rates[peer]), ratio: median(ratios) },
      target: atLeast(targets[peer] ?? 0),
    });
  }
}
