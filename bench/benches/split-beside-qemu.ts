/**
 * A copy split in Keiki beside `block-stream` of qemu-storage-daemon: the same content, the same
 * file system, the same client, in turns.
 *
 * 1. Idle: nobody else is there. Both count until the server says that it is done. Keiki's is
 *    durable then; how long block-stream takes with a sync of its file stands beside it.
 * 2. Beside a client: every measurement has a disk of its own, and a client that was there for some
 *    seconds before, so that what it meets is the same with and without. Pairs, one after the
 *    other, in an order that alternates. KEIKI_BENCH_ROWS=idle: only the first part;
 *    balanced: without what Keiki's balanced split is compared with.
 * 3. block-stream has no way to make room for clients but a rate that somebody has to choose: it
 *    runs as fast as it goes, and at the rate that Keiki chose by itself.
 * KEIKI_BENCH_CHART names a file for the chart.
 */
import { writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { MIB } from '../../src/base/units.js';
import type { Bench } from '../harness/bench.js';
import { atLeast, atMost, type Report } from '../harness/report.js';
import { withScratch } from '../harness/scratch.js';
import { median } from '../harness/timing.js';
import type { SplitTimes } from '../split/keiki-api.js';
import { type ChartPanel, drawLatencyChart } from '../split/latency-chart.js';
import { type LatencyLog, latenciesOf } from '../split/latency-log.js';
import { DISK_GIB, SplitLab, type Way } from '../split/split-lab.js';
import { FILE_OPTIONS } from '../split/storage-daemon.js';

const IDLE_ROUNDS = 3;
const PAIRS = Number(process.env.KEIKI_BENCH_PAIRS ?? 5);
const ROWS = process.env.KEIKI_BENCH_ROWS;
const CHART = process.env.KEIKI_BENCH_CHART;
const WARM_MS = 4000;
const ALONE_MS = 6000;
const AFTER_MS = 2000;
const SLICE_MS = 250;
const SLICES_MAX = 240;

const NOW: Way = { kind: 'keiki', pace: 'now' };
const BALANCED: Way = { kind: 'keiki', pace: 'balanced' };
const QEMU: Way = { kind: 'qemu', bytesPerSecond: 0 };

export const splitBesideQemu: Bench = {
  name: 'split-beside-qemu',
  question: 'a copy split beside block-stream: how long, and what do clients feel?',
  run: (report) =>
    withScratch(async (folder) => {
      const lab = new SplitLab(folder);
      try {
        await lab.start();
        report.note(`${DISK_GIB} GiB; qemu-storage-daemon: raw under qcow2, ${FILE_OPTIONS}`);
        const idleS = await idle(report, lab);
        if (ROWS !== 'idle') await besideClient(report, lab, idleS);
      } finally {
        await lab.stop();
      }
    }),
};

/** @returns how long a balanced split takes */
async function idle(report: Report, lab: SplitLab): Promise<number> {
  const seconds = { now: [] as number[], balanced: [] as number[], qemu: [] as number[] };
  const durableS: number[] = [];
  const ways = [
    [NOW, seconds.now],
    [QEMU, seconds.qemu],
    [BALANCED, seconds.balanced],
  ] as const;
  for (let round = 0; round < IDLE_ROUNDS; round++) {
    for (const [way, times] of ways) {
      const disk = await lab.newDisk(way);
      const tookS = lengthS(await lab.split(way, disk));
      times.push(tookS);
      if (way.kind === 'qemu') durableS.push(tookS + (await lab.syncS(way, disk)));
      await lab.removeDisk(way, disk);
    }
  }
  for (const pace of ['now', 'balanced'] as const) {
    report.figure({
      what: `copy split, ${pace}, no client (of ${texts(seconds[pace])})`,
      value: median(seconds[pace]),
      unit: 's',
      peer: { what: `block-stream (of ${texts(seconds.qemu)})`, value: median(seconds.qemu) },
      ratio: 'peer / value',
      target: atLeast(2),
    });
  }
  const synced = median(durableS).toPrecision(3);
  report.note(`block-stream with a sync of its file: ${synced} s (of ${texts(durableS)})`);
  return median(seconds.balanced);
}

interface Pair {
  readonly aloneMs: number;
  readonly togetherMs: number;
  readonly splitS: number;
}

async function besideClient(report: Report, lab: SplitLab, idleS: number): Promise<void> {
  const { pairs, panel } = await pairsOf(lab, BALANCED, 'Keiki, balanced', PAIRS);
  const splitS = median(pairs.map((pair) => pair.splitS));
  tell(report, 'Keiki, balanced', pairs, true);
  report.figure({
    what: 'split, balanced, beside the client',
    value: splitS,
    unit: 's',
    peer: { what: 'without', value: idleS },
    target: atMost(10),
  });
  const panels = [panel];
  const bytesPerSecond = Math.round((DISK_GIB * 1024 * MIB) / splitS);
  const rate = `${Math.round(bytesPerSecond / MIB)} MiB/s`;
  if (ROWS === 'balanced') return;
  const others: readonly (readonly [string, Way, number])[] = [
    ['qemu block-stream', QEMU, PAIRS],
    [`qemu block-stream, ${rate}`, { kind: 'qemu', bytesPerSecond }, 1],
    ['Keiki, now', NOW, PAIRS],
  ];
  for (const [what, way, count] of others) {
    const other = await pairsOf(lab, way, what, count);
    tell(report, what, other.pairs, false);
    panels.push(other.panel);
  }
  if (CHART === undefined) return;
  const title = `p50 and p99 of a client beside a split of ${DISK_GIB} GiB`;
  writeFileSync(CHART, drawLatencyChart(title, panels));
  report.note(`${CHART} written`);
}

function tell(report: Report, what: string, pairs: readonly Pair[], isOurs: boolean): void {
  const alone = pairs.map((pair) => pair.aloneMs);
  const together = pairs.map((pair) => pair.togetherMs);
  const ratios = pairs.map((pair) => pair.togetherMs / pair.aloneMs);
  report.figure({
    what: `${what}: p99 during the split (of ${texts(together)})`,
    value: median(together),
    unit: 'ms',
    peer: {
      what: `without (of ${texts(alone)})`,
      value: median(alone),
      ratio: median(together) / median(alone),
    },
    ...(isOurs ? { target: atMost(1.25) } : {}),
  });
  const lengths = texts(pairs.map((pair) => pair.splitS));
  report.note(
    `  ratios of pairs ${texts(ratios)}, median ${median(ratios).toFixed(2)}; ${lengths} s`,
  );
}

/** With and without a split, in turns; the panel is that of the last. */
async function pairsOf(
  lab: SplitLab,
  way: Way,
  title: string,
  count: number,
): Promise<{ readonly pairs: Pair[]; readonly panel: ChartPanel }> {
  const pairs: Pair[] = [];
  let panel: ChartPanel = { title, splitS: 0, points: [] };
  for (let pair = 0; pair < count; pair++) {
    const isAloneFirst = pair % 2 === 0;
    let aloneMs = isAloneFirst ? await alone(lab, way) : 0;
    const { log, times } = await together(lab, way);
    if (!isAloneFirst) aloneMs = await alone(lab, way);
    const { p99Ms } = latenciesOf(log, times.startMs, times.endMs);
    pairs.push({ aloneMs, togetherMs: p99Ms, splitS: lengthS(times) });
    panel = { title, splitS: lengthS(times), points: pointsOf(log, times) };
  }
  return { pairs, panel };
}

async function alone(lab: SplitLab, way: Way): Promise<number> {
  const disk = await lab.newDisk(way);
  const client = lab.client(way, disk);
  await sleep(WARM_MS);
  const fromMs = Date.now();
  await sleep(ALONE_MS);
  const log = await client.end();
  await lab.removeDisk(way, disk);
  return latenciesOf(log, fromMs, fromMs + ALONE_MS).p99Ms;
}

async function together(
  lab: SplitLab,
  way: Way,
): Promise<{ readonly log: LatencyLog; readonly times: SplitTimes }> {
  const disk = await lab.newDisk(way);
  const client = lab.client(way, disk);
  await sleep(WARM_MS);
  const times = await lab.split(way, disk);
  await sleep(AFTER_MS);
  const log = await client.end();
  await lab.removeDisk(way, disk);
  return { log, times };
}

/** By slices of a quarter of a second, or longer ones if there were too many. */
function pointsOf(log: LatencyLog, { startMs, endMs }: SplitTimes): ChartPanel['points'] {
  const fromMs = startMs - WARM_MS + 1000;
  const toMs = endMs + AFTER_MS;
  const sliceMs = SLICE_MS * Math.ceil((toMs - fromMs) / SLICE_MS / SLICES_MAX);
  const points: ChartPanel['points'][number][] = [];
  for (let atMs = fromMs; atMs + sliceMs <= toMs; atMs += sliceMs) {
    const { operations, p50Ms, p99Ms } = latenciesOf(log, atMs, atMs + sliceMs);
    if (operations > 0) points.push({ atS: (atMs + sliceMs / 2 - startMs) / 1000, p50Ms, p99Ms });
  }
  return points;
}

function lengthS({ startMs, endMs }: SplitTimes): number {
  return (endMs - startMs) / 1000;
}

function texts(values: readonly number[]): string {
  return values.map((value) => value.toPrecision(3)).join(', ');
}
