/**
 * NBD on a unix socket: the server as users run it, serving a clone of a golden disk, beside
 * qemu-nbd (a qcow2 overlay of the same content, --cache=writeback: writes go to the system's
 * cache, FLUSH is honest) and nbdkit's memory plugin. All take turns in short slices, in an order
 * that changes; a ratio is the median of those of the rounds. Reads read the golden disk through
 * clone and overlay; writes come after a slice that has given both their own blocks, but for those
 * `to new disks`: there each slice begins with a new clone and a new overlay.
 */
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
  makeQcow2,
  type ServerBuild,
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

const SERVERS = ['keiki', 'qemu-nbd', 'nbdkit memory'] as const;
type Server = (typeof SERVERS)[number];
type Peer = Exclude<Server, 'keiki'>;

interface Row {
  readonly what: string;
  readonly job: Pick<LoadJob, 'kind' | 'order' | 'requestBytes' | 'depth'>;
  readonly targets: Readonly<Partial<Record<Peer, number>>>;
  readonly onNewDisks?: boolean;
}

const VERBS = { read: 'reads', write: 'writes', 'write-flush': 'writes, each with its FLUSH' };

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
  onNewDisks(small('write-flush', 1, { 'qemu-nbd': 1.5 })),
  onNewDisks(small('write-flush', 16, { 'qemu-nbd': 4 })),
  onNewDisks(large('write', 4)),
];

function small(kind: keyof typeof VERBS, depth: number, targets: Row['targets']): Row {
  const what = `4 KiB random ${VERBS[kind]}, ${depth} under way`;
  return { what, job: { kind, order: 'random', requestBytes: SMALL_BYTES, depth }, targets };
}

function large(kind: 'read' | 'write', depth: number): Row {
  const what = `1 MiB sequential ${kind}s, ${depth} under way`;
  const job = { kind, order: 'sequential', requestBytes: MIB, depth } as const;
  return { what, job, targets: { 'qemu-nbd': 1.5 } };
}

function onNewDisks(row: Row): Row {
  return { ...row, what: `${row.what}, to new disks`, onNewDisks: true };
}

export const nbdSpeed: Bench = {
  name: 'nbd-speed',
  question: 'how fast is the server over NBD, beside qemu-nbd and nbdkit?',
  run: (report) =>
    withScratch(async (folder) => {
      const build = buildServer();
      const lab = new Lab(folder, build);
      try {
        await lab.start();
        await generatorLimit(report, lab);
        if (ONLY === undefined) fioBeside(report, folder);
        const rows = ROWS.filter(({ what }) => what.includes(ONLY ?? ''));
        for (const row of rows) await measure(report, lab, row);
      } finally {
        await lab.stop();
        build.remove();
      }
    }),
};

/** The servers, each with its content in memory, and the load that is turned on them. */
class Lab {
  readonly folder: string;
  readonly load = new LoadProcess();
  readonly #keiki: KeikiServer;
  readonly #servers: ServerProcess[] = [];
  #newDisks = 0;

  constructor(folder: string, build: ServerBuild) {
    this.folder = folder;
    this.#keiki = new KeikiServer(folder, build);
  }

  async start(): Promise<void> {
    const raw = `${this.folder}/golden.raw`;
    writeFile(raw, DISK_BYTES, noise(MIB, 31));
    makeQcow2(raw, `${this.folder}/golden.qcow2`);
    this.#servers.push(await this.#keiki.start(2 * GIB, ['--store-preallocate']));
    this.#keiki.command('import', raw, 'golden');
    this.#keiki.command('snapshot', 'golden', 'v1');
    await this.newDisk('keiki');
    await this.newDisk('qemu-nbd');
    await this.nbdkit('memory', 'nbdkit memory');
    await this.load.run('nbdkit memory', wholeDisk('write', MIB));
    for (const group of SERVERS) await this.load.run(group, wholeDisk('read', SMALL_BYTES));
  }

  /** A new clone, or a new overlay, takes the place of the one that was written to. */
  async newDisk(server: Server): Promise<void> {
    const name = this.#newDisks++;
    if (server === 'keiki') {
      this.#keiki.command('clone', 'golden@v1', `clone${name}`);
      await this.load.open(server, this.#keiki.socketPath, [`clone${name}`]);
    } else {
      const path = `${this.folder}/overlay${name}`;
      const golden = `${this.folder}/golden.qcow2`;
      this.#servers.push(await startQemuNbd(golden, `${path}.qcow2`, `${path}.sock`));
      await this.load.open(server, `${path}.sock`, ['']);
    }
  }

  async nbdkit(plugin: 'memory' | 'null', group: string): Promise<string> {
    const socketPath = `${this.folder}/${plugin}.sock`;
    this.#servers.push(await startNbdkit(plugin, DISK_BYTES, socketPath));
    await this.load.open(group, socketPath, ['']);
    return socketPath;
  }

  async stop(): Promise<void> {
    this.load.close();
    for (const server of this.#servers) await server.stop();
  }
}

/** Every byte of the disk once. */
function wholeDisk(kind: 'read' | 'write', requestBytes: number): LoadJob {
  const operations = DISK_BYTES / requestBytes;
  const order = 'sequential';
  return { kind, order, requestBytes, depth: 8, operations, spanBytes: DISK_BYTES, seed: SEED };
}

/** What the generator reaches where the server does nothing, and what fio would. */
async function generatorLimit(report: Report, lab: Lab): Promise<void> {
  const socketPath = await lab.nbdkit('null', 'null');
  for (const kind of ['read', 'write'] as const) {
    const { job } = small(kind, 32, {});
    const rates: number[] = [];
    for (let round = 0; round < 3; round++) rates.push(await rateOf(lab.load, 'null', job, round));
    const ours = Math.round(median(rates));
    const theirs = Math.round(fioRate(`nbd+unix:///?socket=${socketPath}`, kind));
    report.note(`4 KiB ${kind}s, 32 under way, of nbdkit null: ${ours} a second; fio ${theirs}`);
  }
}

/** fio asks one request at a time and is the limit itself; its figures stand here all the same. */
function fioBeside(report: Report, folder: string): void {
  const paths = { keiki: '/clone0?socket=keiki', 'qemu-nbd': '/?socket=overlay1' };
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

async function measure(report: Report, lab: Lab, row: Row): Promise<void> {
  const { what, job, targets } = row;
  const peers = Object.keys(targets) as Peer[];
  const order: Server[] = ['keiki', ...peers];
  const rates: Record<Server, number[]> = { keiki: [], 'qemu-nbd': [], 'nbdkit memory': [] };
  for (let round = 0; round <= ROUNDS; round++) {
    for (const server of order) {
      if (row.onNewDisks === true) await lab.newDisk(server);
      const rate = await rateOf(lab.load, server, job, round);
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
