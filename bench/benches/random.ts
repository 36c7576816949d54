/** 4 KiB at random places, in process, on a memory device. */
import { BLOCK_BYTES, GIB, MIB } from '../../src/base/units.js';
import { MemoryDevice } from '../../src/env/memory-device.js';
import { SparseBytes } from '../../src/env/sparse-bytes.js';
import { formatStore, openStore } from '../../src/main/open-store.js';
import type { Store } from '../../src/main/store.js';
import type { Vdisk } from '../../src/vdisk/vdisk.js';
import type { Bench } from '../harness/bench.js';
import { reportMemory } from '../harness/memory.js';
import { atLeast } from '../harness/report.js';
import { nowMs, percentile, QuickRandom, turn } from '../harness/timing.js';

const BATCH = 64;

interface Subject {
  readonly store: Store;
  readonly vdisk: Vdisk;
  readonly bytes: SparseBytes;
}

async function prepare(vdiskBytes: number, memoryBytes: number): Promise<Subject> {
  const bytes = new SparseBytes(MIB);
  const device = new MemoryDevice({ sizeBytes: 4 * vdiskBytes, bytes });
  // Touched before: the first use of memory costs the system more than the store's own work.
  for (let at = 0; at < device.sizeBytes; at += MIB) bytes.write(at, Buffer.alloc(MIB));
  await formatStore({ kind: 'device', device });
  const store = await openStore({ kind: 'device', device: device.reopen() }, { memoryBytes });
  const vdisk = await store.createVdisk('v', vdiskBytes);
  const data = Buffer.alloc(MIB);
  for (let at = 0; at < vdiskBytes; at += MIB) {
    for (let block = 0; block < MIB; block += BLOCK_BYTES) {
      data.fill(((at + block) / BLOCK_BYTES) & 0xff, block, block + BLOCK_BYTES);
    }
    await vdisk.write(at, data);
  }
  await store.consistencyPoint();
  return { store, vdisk, bytes };
}

export const randomRead: Bench = {
  name: 'random-read',
  question: 'how many 4 KiB random reads from memory, into the caller\u2019s buffer, in a second?',
  async run(report) {
    const memoryBytes = 256 * MIB;
    const vdiskBytes = 64 * MIB;
    const { store, vdisk, bytes } = await prepare(vdiskBytes, memoryBytes);
    const into = Buffer.alloc(BLOCK_BYTES);
    for (let at = 0; at < vdiskBytes; at += BLOCK_BYTES) await vdisk.read(at, into);
    const copyFrom = Buffer.alloc(vdiskBytes, 1);
    const blocks = vdiskBytes / BLOCK_BYTES;
    const random = new QuickRandom(1);
    const rates: number[] = [];
    const copies: number[] = [];
    for (let slice = 0; slice < 21; slice++) {
      const start = nowMs();
      for (let count = 0; count < 100_000; count++) {
        const block = random.below(blocks);
        if (vdisk.read(block * BLOCK_BYTES, into) !== undefined) throw new Error('a read waited');
        if (into[4095] !== (block & 0xff)) throw new Error(`block ${block} reads wrong bytes`);
      }
      const middle = nowMs();
      for (let count = 0; count < 100_000; count++) {
        const from = random.below(blocks) * BLOCK_BYTES;
        copyFrom.copy(into, 0, from, from + BLOCK_BYTES);
      }
      if (slice === 0) continue;
      rates.push(100_000 / ((middle - start) / 1000));
      copies.push(100_000 / ((nowMs() - middle) / 1000));
    }
    report.figure({
      what: 'random reads (median of 20 slices)',
      value: percentile(rates, 0.5),
      unit: 'a second',
      target: atLeast(400_000),
    });
    report.note(`bare copies of the same size: ${Math.round(percentile(copies, 0.5))} a second`);
    await store.close();
    reportMemory(report, memoryBytes, {
      what: 'device and peer',
      bytes: bytes.residentBytes + copyFrom.length,
    });
  },
};

export const randomWrite: Bench = {
  name: 'random-write',
  question: 'how many 4 KiB random writes a second over 10 s, consistency points included?',
  async run(report) {
    const memoryBytes = 256 * MIB;
    const vdiskBytes = GIB / 4;
    const { store, vdisk, bytes } = await prepare(vdiskBytes, memoryBytes);
    const blocks = vdiskBytes / BLOCK_BYTES;
    const random = new QuickRandom(1);
    const data = Buffer.alloc(BLOCK_BYTES, 3);
    const latencies: number[] = [];
    const cpsBefore = store.stats().cpCount;
    const cpuStart = process.cpuUsage();
    const start = nowMs();
    let end = start;
    let writes = 0;
    while (end - start < 10_000) {
      for (let index = 0; index < BATCH; index++) {
        data.writeUInt32LE(writes, 0);
        const done = vdisk.write(random.below(blocks) * BLOCK_BYTES, data);
        if (done !== undefined) await done;
        writes++;
      }
      await turn();
      const now = nowMs();
      latencies.push(now - end);
      end = now;
    }
    const { user, system } = process.cpuUsage(cpuStart);
    const cps = store.stats().cpCount - cpsBefore;
    report.figure({
      what: `random writes, ${cps} CPs among them`,
      value: writes / ((end - start) / 1000),
      unit: 'a second',
      target: atLeast(150_000),
    });
    report.note(`a second of processor time: ${Math.round(writes / ((user + system) / 1e6))}`);
    report.note(
      `a batch of ${BATCH}: p50 ${percentile(latencies, 0.5).toFixed(2)} ms, ` +
        `p99 ${percentile(latencies, 0.99).toFixed(2)} ms, ` +
        `longest ${percentile(latencies, 1).toFixed(1)} ms`,
    );
    await store.close();
    reportMemory(report, memoryBytes, { what: 'device', bytes: bytes.residentBytes });
  },
};
