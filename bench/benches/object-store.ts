/**
 * A store on a real S3 gateway (Ceph's, from Debian's packages, objects in memory): the server over
 * NBD beside the bare S3 client, beside a store on a file, and beside RBD on the same OSD. Peers
 * take turns; a ratio is the median of those of the rounds.
 *
 * Gateway, OSD, server, load and bare client share the processors: what the server adds to each
 * byte shows in the ratio, even where a gateway elsewhere would hide it.
 */
import { MIB } from '../../src/base/units.js';
import type { Bench } from '../harness/bench.js';
import { atLeast, type Figure, type Report } from '../harness/report.js';
import { withScratch } from '../harness/scratch.js';
import { elapsedMs, median } from '../harness/timing.js';
import type { LoadJob } from '../nbd/load-connection.js';
import { ObjectStoreLab } from '../object-store/object-store-lab.js';
import { RbdPeer } from '../object-store/rbd-peer.js';

const DISK_BYTES = 256 * MIB;
const STREAM_BYTES = 128 * MIB;
const WARM_BYTES = 64 * MIB;
const ROUNDS = Number(process.env.KEIKI_BENCH_ROUNDS ?? 5);
const CLONES = 12;
const WRITERS = 32;
const SLICE_MS = 2000;
const RECORD_MIB = 4;
/** First writes to one clone: later ones would find objects that RBD has copied already. */
const FIRST_WRITES = 96;
/** For work on one figure: only rows whose words contain this. */
const ONLY = process.env.KEIKI_BENCH_ROWS;

type Job = Omit<LoadJob, 'seed'>;

export const objectStore: Bench = {
  name: 'object-store',
  question: 'a store on S3: how near to the bare client, to a file, and how far from RBD?',
  run: (report) =>
    withScratch(async (folder) => {
      const lab = await ObjectStoreLab.start(folder);
      try {
        await lab.onS3.api.create('disk', DISK_BYTES);
        await lab.open(lab.onS3, 'disk');
        await lab.rate(lab.onS3, stream('write', 8, DISK_BYTES));
        for (const [what, row] of ROWS) {
          if (what.includes(ONLY ?? '')) await row(report, lab, what);
        }
        if (!RBD_ROWS.some((what) => what.includes(ONLY ?? ''))) return;
        await besideRbd(report, lab);
      } finally {
        await lab.stop();
      }
    }),
};

type Row = (report: Report, lab: ObjectStoreLab, what: string) => Promise<void>;

const ROWS: readonly (readonly [string, Row])[] = [
  ['1 MiB sequential writes, 8 under way', sequentialWrites],
  ['1 MiB sequential reads, 8 under way', (...row) => sequentialReads(8, ...row)],
  ['1 MiB sequential reads, 1 under way', (...row) => sequentialReads(1, ...row)],
  [`4 KiB writes, each with its FLUSH, ${WRITERS} under way`, flushedWrites],
  ['4 KiB random reads of what memory has, 32 under way', warmReads],
];

const RBD_ROWS = [
  'first 4 KiB writes to a fresh clone, each durable, 1 under way',
  `first 4 KiB writes to a fresh clone, each durable, ${WRITERS} under way`,
  'a clone',
  'a clone made independent',
] as const;

/** The rounds of two sides in turns; the first warms up. */
async function inTurns(
  ours: () => Promise<number>,
  theirs: () => Promise<number>,
  rounds = ROUNDS,
): Promise<Turns> {
  const turns: Turns = { ours: [], theirs: [] };
  for (let round = 0; round <= rounds; round++) {
    const sides = [
      [ours, turns.ours],
      [theirs, turns.theirs],
    ] as const;
    for (const [measure, rates] of round % 2 === 0 ? sides : sides.toReversed()) {
      const rate = await measure();
      if (round > 0) rates.push(rate);
    }
  }
  return turns;
}

interface Turns {
  readonly ours: number[];
  readonly theirs: number[];
}

interface Shown extends Pick<Figure, 'what' | 'unit' | 'ratio' | 'target'> {
  readonly peer: string;
}

function show(report: Report, { ours, theirs }: Turns, { peer, ...shown }: Shown): void {
  const isTime = shown.ratio === 'peer / value';
  const ratios = ours.map((value, at) => {
    const other = theirs[at] as number;
    return isTime ? other / value : value / other;
  });
  const peerFigure = { what: peer, value: median(theirs), ratio: median(ratios) };
  report.figure({ ...shown, value: median(ours), peer: peerFigure });
}

function stream(kind: 'read' | 'write', depth: number, bytes = STREAM_BYTES): Job {
  const operations = bytes / MIB;
  const shape = { order: 'sequential', requestBytes: MIB, spanBytes: DISK_BYTES } as const;
  return { kind, ...shape, depth, operations, endsWithFlush: kind === 'write' };
}

async function sequentialWrites(report: Report, lab: ObjectStoreLab, what: string): Promise<void> {
  const turns = await inTurns(
    () => lab.rate(lab.onS3, stream('write', 8)),
    () => lab.bare.writeRate(STREAM_BYTES / MIB / RECORD_MIB, 8),
  );
  const peer = 'bare client, 8 PUTs of 4 MiB under way';
  show(report, turns, { what, unit: 'MiB a second', peer, target: atLeast(0.7) });
}

async function sequentialReads(
  depth: number,
  report: Report,
  lab: ObjectStoreLab,
  what: string,
): Promise<void> {
  const keys = await lab.bare.makeObjects(STREAM_BYTES / MIB / RECORD_MIB);
  const turns = await inTurns(
    () => lab.rate(lab.onS3, stream('read', depth)),
    () => lab.bare.readRate(keys, 8),
  );
  const peer = 'bare client, 8 GETs of 4 MiB under way';
  show(report, turns, { what, unit: 'MiB a second', peer, target: atLeast(0.7) });
}

async function flushedWrites(report: Report, lab: ObjectStoreLab, what: string): Promise<void> {
  const job = { ...small('write-flush', WRITERS), spanBytes: DISK_BYTES, ms: SLICE_MS };
  const ours = (): Promise<number> => lab.rate(lab.onS3, job);
  const unit = 'a second';
  const each = await inTurns(ours, () => lab.bare.createRate(WRITERS, 1000));
  const alone = `bare client, an object each, ${WRITERS} under way`;
  show(report, each, { what, unit, peer: alone, target: atLeast(0.7) });
  const groups = await inTurns(ours, () => lab.bare.groupRate(WRITERS, 5000));
  const peer = 'bare client, an object for all who wait';
  show(report, groups, { what, unit, peer, target: atLeast(0.7) });
}

async function warmReads(report: Report, lab: ObjectStoreLab, what: string): Promise<void> {
  await lab.inPlace.api.create('warm', WARM_BYTES);
  await lab.onS3.api.create('warm', WARM_BYTES);
  const sides = [lab.onS3, lab.inPlace] as const;
  for (const side of sides) {
    await lab.open(side, 'warm');
    const operations = WARM_BYTES / 4096;
    const all = { ...small('write', WRITERS), order: 'sequential', operations } as const;
    await lab.rate(side, { ...all, endsWithFlush: true });
    await lab.rate(side, { ...all, kind: 'read' });
  }
  const job = { ...small('read', WRITERS), ms: SLICE_MS / 2 };
  const [ours, theirs] = sides.map((side) => () => lab.rate(side, job));
  if (ours === undefined || theirs === undefined) return;
  const turns = await inTurns(ours, theirs, 2 * ROUNDS);
  show(report, turns, { what, unit: 'a second', peer: 'a store on a file', target: atLeast(0.9) });
  await lab.onS3.api.deleteVdisks(['warm']);
  await lab.open(lab.onS3, 'disk');
}

function small(kind: LoadJob['kind'], depth: number): Job {
  return { kind, order: 'random', requestBytes: 4096, spanBytes: WARM_BYTES, depth };
}

async function besideRbd(report: Report, lab: ObjectStoreLab): Promise<void> {
  const rbd = await RbdPeer.make(lab.ceph, DISK_BYTES);
  const { api } = lab.onS3;
  await api.snapshot('disk', 'v1');
  const [firstAlone, firstTogether, clones, independence] = RBD_ROWS;
  await cloneTimes(report, lab, rbd, clones);
  await firstWrites(report, lab, rbd, { what: firstAlone, depth: 1 });
  await firstWrites(report, lab, rbd, { what: firstTogether, depth: WRITERS });
  await splits(report, lab, rbd, independence);
}

async function cloneTimes(
  report: Report,
  lab: ObjectStoreLab,
  rbd: RbdPeer,
  what: string,
): Promise<void> {
  const { names, ms: theirs } = rbd.clone(CLONES);
  const ours: number[] = [];
  const ourNames = names.map((name) => `timed-${name}`);
  for (const name of ourNames)
    ours.push(await elapsedMs(() => lab.onS3.api.clone('disk@v1', [name])));
  const shown = { what, unit: 'ms', ratio: 'peer / value', target: atLeast(10) } as const;
  show(report, { ours, theirs: [...theirs] }, { ...shown, peer: 'rbd clone, by librbd' });
  for (const name of names) rbd.remove(name);
  await lab.onS3.api.deleteVdisks(ourNames);
}

/** Each side on a clone that nobody has written to. */
async function firstWrites(
  report: Report,
  lab: ObjectStoreLab,
  rbd: RbdPeer,
  { what, depth }: { readonly what: string; readonly depth: number },
): Promise<void> {
  let seed = 1;
  const ours = async (): Promise<number> => {
    const name = `first${depth}-${seed++}`;
    await lab.onS3.api.clone('disk@v1', [name]);
    await lab.open(lab.onS3, name);
    const shape = { ...small('write-flush', depth), spanBytes: DISK_BYTES };
    return lab.rate(lab.onS3, { ...shape, operations: FIRST_WRITES }, seed);
  };
  const theirs = (): Promise<number> => {
    const [name] = rbd.clone(1).names;
    const rate = rbd.writeRate(name ?? '', depth, FIRST_WRITES);
    rbd.remove(name ?? '');
    return Promise.resolve(rate);
  };
  const turns = await inTurns(ours, theirs);
  show(report, turns, { what, unit: 'a second', peer: 'RBD', target: atLeast(5) });
}

async function splits(
  report: Report,
  lab: ObjectStoreLab,
  rbd: RbdPeer,
  what: string,
): Promise<void> {
  for (const mode of ['copy', 'share'] as const) {
    const { api } = lab.onS3;
    let number = 0;
    const ours = async (): Promise<number> => {
      const name = `${mode}${number++}`;
      await api.clone('disk@v1', [name]);
      const { startMs, endMs } = await api.split(name, { mode, pace: 'now' });
      await api.deleteVdisks([name]);
      return endMs - startMs;
    };
    const theirs = async (): Promise<number> => {
      const [name] = rbd.clone(1).names;
      const ms = await rbd.split(name ?? '');
      rbd.remove(name ?? '');
      return ms;
    };
    const turns = await inTurns(ours, theirs, 2);
    const shown = { what: `${what}, ${DISK_BYTES / MIB} MiB, ${mode}`, unit: 'ms' } as const;
    show(report, turns, { ...shown, peer: 'rbd flatten', ratio: 'peer / value' });
  }
}
