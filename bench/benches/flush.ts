/**
 * A 4 KiB write and its FLUSH, beside the same 4 KiB written to a preallocated file of the same
 * file system through O_DSYNC. Both take turns in short slices; then once more while another vdisk
 * writes as fast as it can, where the other vdisk goes on writing in both kinds of slice.
 */
import * as fs from 'node:fs';
import { promisify } from 'node:util';
import { BLOCK_BYTES, GIB, MIB } from '../../src/base/units.js';
import { openStore } from '../../src/main/open-store.js';
import type { Vdisk } from '../../src/vdisk/vdisk.js';
import type { Bench } from '../harness/bench.js';
import { makeStoreFile, NoisePieces } from '../harness/file-store.js';
import { reportMemory } from '../harness/memory.js';
import { atLeast, type Report } from '../harness/report.js';
import { withScratch, writeFile } from '../harness/scratch.js';
import { nowMs, percentile, QuickRandom, turn } from '../harness/timing.js';

const MEMORY_BYTES = 64 * MIB;
const VDISK_BYTES = 64 * MIB;
const SLICE_MS = 150;
const SLICES = 20;

const openFile = promisify(fs.open);
const writeAt = promisify(fs.write);
const closeFile = promisify(fs.close);

interface Samples {
  readonly ms: number[];
  totalMs: number;
}

export const flush: Bench = {
  name: 'flush',
  question: 'how fast is a 4 KiB write with its FLUSH, beside a bare O_DSYNC write?',
  run: (report) =>
    withScratch(async (folder) => {
      const path = `${folder}/store`;
      await makeStoreFile(path, GIB, { preallocate: true });
      writeFile(`${folder}/bare`, VDISK_BYTES, new Uint8Array(0));
      const store = await openStore(path, { memoryBytes: MEMORY_BYTES });
      const vdisk = await store.createVdisk('v', VDISK_BYTES);
      const other = await store.createVdisk('other', 256 * MIB);
      const pieces = new NoisePieces();
      for (let at = 0; at < VDISK_BYTES; at += MIB) await vdisk.write(at, pieces.next());
      await store.consistencyPoint();
      const { O_RDWR, O_DSYNC } = fs.constants;
      const bare = await openFile(`${folder}/bare`, O_RDWR | O_DSYNC);
      await compare(report, 'alone', vdisk, bare);
      for (const [what, bytes] of [
        ['1 MiB writes', MIB],
        ['4 KiB random writes', BLOCK_BYTES],
      ] as const) {
        const writer = new BusyWriter(other, bytes);
        const start = nowMs();
        await compare(report, `while another vdisk does ${what} at full speed`, vdisk, bare);
        const bytesWritten = await writer.stop();
        const rate = bytesWritten / MIB / ((nowMs() - start) / 1000);
        report.note(`the other vdisk wrote ${rate.toFixed(0)} MiB a second meanwhile`);
      }
      await closeFile(bare);
      await store.close();
      reportMemory(report, MEMORY_BYTES, { what: '', bytes: 0 });
    }),
};

/** Writes a vdisk without end and without FLUSH. */
class BusyWriter {
  #stopped = false;
  #bytes = 0;
  readonly #done: Promise<void>;

  constructor(vdisk: Vdisk, writeBytes: number) {
    this.#done = this.#run(vdisk, new NoisePieces(writeBytes));
  }

  async #run(vdisk: Vdisk, pieces: NoisePieces): Promise<void> {
    const random = new QuickRandom(5);
    const size = pieces.bytes.length;
    for (let count = 0; !this.#stopped; count++) {
      await vdisk.write(random.below(vdisk.sizeBytes / size) * size, pieces.next());
      this.#bytes += size;
      // As requests from a socket do, a batch leaves others their turn.
      if (count % 16 === 0) await turn();
    }
  }

  async stop(): Promise<number> {
    this.#stopped = true;
    await this.#done;
    return this.#bytes;
  }
}

async function compare(report: Report, when: string, vdisk: Vdisk, bare: number): Promise<void> {
  const ours: Samples = { ms: [], totalMs: 0 };
  const theirs: Samples = { ms: [], totalMs: 0 };
  const data = new NoisePieces(BLOCK_BYTES);
  const random = new QuickRandom(9);
  const place = (): number => random.below(VDISK_BYTES / BLOCK_BYTES) * BLOCK_BYTES;
  const writeFlush = async (): Promise<void> => {
    await vdisk.write(place(), data.next());
    await vdisk.flush();
  };
  const writeBare = async (): Promise<void> => {
    await writeAt(bare, data.next(), 0, BLOCK_BYTES, place());
  };
  for (let slice = 0; slice < SLICES; slice++) {
    await runSlice(writeFlush, ours);
    await runSlice(writeBare, theirs);
  }
  report.figure({
    what: `write and FLUSH, ${when}`,
    value: rateOf(ours),
    unit: 'a second',
    peer: { what: 'O_DSYNC', value: rateOf(theirs) },
    target: atLeast(0.7),
  });
  report.note(`latency: ${latency(ours)}; O_DSYNC: ${latency(theirs)}`);
}

async function runSlice(one: () => Promise<void>, into: Samples): Promise<void> {
  const start = nowMs();
  let last = start;
  while (last - start < SLICE_MS) {
    await one();
    const now = nowMs();
    into.ms.push(now - last);
    last = now;
  }
  into.totalMs += last - start;
}

function rateOf({ ms, totalMs }: Samples): number {
  return ms.length / (totalMs / 1000);
}

function latency({ ms }: Samples): string {
  return `p50 ${percentile(ms, 0.5).toFixed(2)} ms, p99 ${percentile(ms, 0.99).toFixed(2)} ms`;
}
