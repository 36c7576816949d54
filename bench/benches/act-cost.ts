/**
 * What snapshot and clone cost, in blocks written to the device: until the act is answered, and
 * with the consistency point (CP) that follows. Where buffers are dirty, that CP writes them
 * anyway, so a control run with the same dirty buffers and no act is taken off.
 */
import { BLOCK_BYTES, GIB, MIB } from '../../src/base/units.js';
import type { Device } from '../../src/env/device.js';
import { MemoryDevice } from '../../src/env/memory-device.js';
import { formatStore, openStore } from '../../src/main/open-store.js';
import type { Store } from '../../src/main/store.js';
import type { Vdisk } from '../../src/vdisk/vdisk.js';
import type { Bench } from '../harness/bench.js';
import { CountingDevice } from '../harness/counting-device.js';
import { reportMemory } from '../harness/memory.js';
import { MetadataDevice } from '../harness/metadata-device.js';
import { atMost, type Report } from '../harness/report.js';

const MEMORY_BYTES = 64 * MIB;
/** Mapping 64 GiB takes a minute or two; a smaller number of GiB shows the same cost sooner. */
const LARGE_GIB = Number(process.env.KEIKI_BENCH_MAPPED_GIB ?? 64);
const BLOCKS_MAX = 16;
/** Just under half of the dirty bytes that are allowed: above it a CP begins by itself. */
const DIRTY_BLOCKS = Math.floor(MEMORY_BYTES / 4 / BLOCK_BYTES) - 512;

type Act = 'snapshot' | 'clone' | 'nothing';

interface Subject {
  readonly store: Store;
  readonly device: CountingDevice;
  readonly vdisk: Vdisk;
}

export const actCost: Bench = {
  name: 'act-cost',
  question: 'how many block writes do snapshot and clone cost, whatever the size?',
  async run(report) {
    const data = Buffer.alloc(MIB, 0xa5);
    // In a function of its own: its device and buffers are not held beside those of the large one.
    await measureSmall(report, data);
    const device = new MetadataDevice(
      Math.ceil(LARGE_GIB * 1.25) * GIB,
      data.subarray(0, BLOCK_BYTES),
    );
    const large = await prepare(device, LARGE_GIB * GIB, data);
    const mapped = large.store.show('golden@base').mappedBytes / GIB;
    await measure(report, `vdisk with ${mapped} GiB mapped`, large);
    await large.store.close();
    reportMemory(report, MEMORY_BYTES, { what: 'device', bytes: device.heldBytes });
  },
};

async function measureSmall(report: Report, data: Uint8Array): Promise<void> {
  const small = await prepare(new MemoryDevice({ sizeBytes: 256 * MIB }), MIB, data);
  await measure(report, '1 MiB vdisk', small);
  await small.store.close();
}

async function prepare(beneath: Device, mappedBytes: number, data: Uint8Array): Promise<Subject> {
  const device = new CountingDevice(beneath);
  await formatStore({ kind: 'device', device: notClosing(beneath) });
  const store = await openStore(
    { kind: 'device', device },
    { memoryBytes: MEMORY_BYTES, cpIntervalMs: 3_600_000 },
  );
  const vdisk = await store.createVdisk('golden', mappedBytes);
  for (let at = 0; at < mappedBytes; at += data.length) await vdisk.write(at, data);
  await store.snapshot([{ vdisk: 'golden', snapshot: 'base' }]);
  await store.consistencyPoint();
  return { store, device, vdisk };
}

/** Formatting closes what it is given; the bench goes on with it. */
function notClosing(device: Device): Device {
  return {
    name: device.name,
    sizeBytes: device.sizeBytes,
    read: (offset, into) => device.read(offset, into),
    write: (offset, from) => device.write(offset, from),
    writeDurable: (offset, from) => device.writeDurable(offset, from),
    copyBlocks: (copies) => device.copyBlocks(copies),
    sync: () => device.sync(),
    close: () => Promise.resolve(),
  };
}

async function measure(report: Report, what: string, subject: Subject): Promise<void> {
  const { store, device, vdisk } = subject;
  let number = 0;
  const once = async (act: Act, dirty: boolean): Promise<{ answered: number; all: number }> => {
    await settle(store, vdisk);
    if (dirty) makeDirty(vdisk);
    const before = device.blocksWritten;
    const name = `${act}${number++}`;
    if (act === 'snapshot') await store.snapshot([{ vdisk: 'golden', snapshot: name }]);
    if (act === 'clone') await store.clone('golden@base', name);
    const answered = device.blocksWritten - before;
    await store.consistencyPoint();
    return { answered, all: device.blocksWritten - before };
  };
  for (const dirty of [false, true]) {
    const state = dirty ? 'buffers full of dirty blocks' : 'idle';
    const control = await once('nothing', dirty);
    const beyond = dirty ? `, beyond the ${control.all} of a CP without it` : '';
    for (const act of ['snapshot', 'clone'] as const) {
      const { answered, all } = await once(act, dirty);
      const title = `${act}, ${what}, ${state}`;
      report.figure({
        what: `${title}, until answered`,
        value: answered,
        unit: 'blocks',
        target: atMost(BLOCKS_MAX),
      });
      report.figure({
        what: `${title}, with its CP${beyond}`,
        value: all - control.all,
        unit: 'blocks',
        target: atMost(BLOCKS_MAX),
      });
    }
  }
}

/** Nothing dirty, and the vdisk's own tree has the blocks that `makeDirty` writes: runs compare. */
async function settle(store: Store, vdisk: Vdisk): Promise<void> {
  makeDirty(vdisk);
  await store.consistencyPoint();
  await store.consistencyPoint();
}

function makeDirty(vdisk: Vdisk): void {
  const block = new Uint8Array(BLOCK_BYTES).fill(7);
  const blocks = Math.min(DIRTY_BLOCKS, vdisk.sizeBytes / BLOCK_BYTES);
  for (let index = 0; index < blocks; index++) {
    if (vdisk.write(index * BLOCK_BYTES, block) !== undefined) throw new Error('a write waited');
  }
}
