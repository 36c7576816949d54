/**
 * Runs the workload on a real file, with every system call written down, then cuts the power at
 * many moments of what was written: opens what a device may hold then, and compares.
 */
import { spawn } from 'node:child_process';
import { createReadStream, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { MIB } from '../../src/base/units.js';
import { MemoryDevice } from '../../src/env/memory-device.js';
import { seededRandom } from '../../src/env/seeded-random.js';
import type { SparseBytes } from '../../src/env/sparse-bytes.js';
import { checkStore } from '../../src/main/check.js';
import { openStore } from '../../src/main/open-store.js';
import type { Store } from '../../src/main/store.js';
import { CrashImages } from './crash-images.js';
import { History } from './history.js';
import { SECTOR_BYTES } from './story.js';
import { type Trace, TraceReader } from './trace.js';

const STORE_BYTES = 64 * MIB;
/** Strings of the trace are whole: longer than any write. */
const STRING_BYTES = 64 * MIB;
const CALLS = 'openat,close,write,writev,pwrite64,pwritev,pwritev2,fsync,fdatasync';

export interface PowerCutOptions {
  readonly seed: number;
  readonly cuts: number;
}

export interface PowerCutReport {
  readonly writes: number;
  readonly syncs: number;
  readonly steps: number;
  readonly cuts: number;
  readonly sectors: number;
  readonly faults: readonly string[];
}

/** The workload under strace, to its end. */
export async function traceWorkload(seed: number, steps: number): Promise<Trace> {
  const folder = mkdtempSync(join(tmpdir(), 'power-cut-'));
  try {
    return await traceIn(folder, seed, steps);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function traceIn(folder: string, seed: number, steps: number): Promise<Trace> {
  const store = join(folder, 'store.keiki');
  const traceFile = join(folder, 'trace');
  const workload = resolve(import.meta.dirname, 'run-workload.ts');
  const command = [process.execPath, '--import', 'tsx', workload, store, `${seed}`, `${steps}`];
  const flags = ['-f', '-xx', '-s', `${STRING_BYTES}`, '-e', `trace=${CALLS}`, '-o', traceFile];
  const traced = spawn('strace', [...flags, ...command], { stdio: ['ignore', 'ignore', 'pipe'] });
  let complaint = '';
  traced.stderr.on('data', (chunk: Buffer) => {
    complaint += chunk.toString();
  });
  const code = await new Promise((done, fail) => traced.on('error', fail).on('close', done));
  if (code !== 0) throw new Error(`the workload of seed ${seed} ended with ${code}: ${complaint}`);
  const reader = new TraceReader(store);
  const lines = createInterface({ input: createReadStream(traceFile, 'latin1') });
  for await (const line of lines) reader.take(line);
  return reader.trace();
}

/** Cuts the power at so many moments of the trace, and compares what is there then. */
export async function cutPower(trace: Trace, options: PowerCutOptions): Promise<PowerCutReport> {
  const random = seededRandom(options.seed);
  const images = new CrashImages(trace);
  const history = new History();
  const opened = trace.told.find(({ text }) => text.includes('"open"'))?.line ?? 0;
  const moments = images.lines.filter((line) => line > opened);
  const chosen = new Set<number>();
  const count = Math.min(options.cuts, moments.length);
  while (chosen.size < count) chosen.add(moments[random.below(moments.length)] as number);
  const faults: string[] = [];
  let sectors = 0;
  let told = 0;
  for (const line of [...chosen].sort((a, b) => a - b)) {
    for (; (trace.told[told]?.line ?? Number.POSITIVE_INFINITY) <= line; told++) {
      history.take(trace.told[told] as (typeof trace.told)[number]);
    }
    const result = await examine(images.at(line, random), history, random.chance(0.3));
    sectors += result.sectors;
    faults.push(...result.faults.map((fault) => `cut behind line ${line}: ${fault}`));
  }
  faults.push(...images.faults);
  const { calls } = trace;
  return {
    writes: calls.filter(({ kind }) => kind === 'write').length,
    syncs: calls.filter(({ kind }) => kind === 'sync').length,
    steps: trace.told.filter(({ text }) => text.includes('"answer"')).length,
    cuts: chosen.size,
    sectors,
    faults,
  };
}

/** Opens the image, compares all of it, and lets the check look at it. */
async function examine(
  image: SparseBytes,
  history: History,
  endsSplits: boolean,
): Promise<{ sectors: number; faults: string[] }> {
  const faults: string[] = [];
  let sectors = 0;
  const newDevice = (): MemoryDevice => new MemoryDevice({ sizeBytes: STORE_BYTES, bytes: image });
  try {
    const source = { kind: 'device', device: newDevice() } as const;
    const store = await openStore(source, { memoryBytes: 8 * MIB });
    const found = store.list().map(({ name }) => name);
    faults.push(...history.compareNames(found));
    if (endsSplits) await store.idle();
    for (const name of found.filter((each) => history.names.includes(each))) {
      const words = await contentOf(store, name);
      const count = (words.length * 4) / SECTOR_BYTES;
      sectors += count;
      faults.push(...history.compareContent(name, words, count));
    }
    await store.close();
    const report = await checkStore({ kind: 'device', device: newDevice() });
    faults.push(...report.faults.map(({ kind, message }) => `check: ${kind}: ${message}`));
  } catch (error) {
    faults.push(error instanceof Error ? (error.stack ?? error.message) : String(error));
  }
  return { sectors, faults };
}

async function contentOf(store: Store, name: string): Promise<Uint32Array> {
  const vdisk = store.vdisk(name);
  const bytes = new Uint8Array(vdisk.sizeBytes);
  for (let offset = 0; offset < bytes.length; offset += MIB) {
    await vdisk.read(offset, bytes.subarray(offset, offset + MIB));
  }
  return new Uint32Array(bytes.buffer);
}
