/**
 * Opening after a crash with a full log of 4 KiB random writes. A process of its own writes and
 * flushes to a store whose device never ends a sync, so that no consistency point empties the log,
 * and kills itself. The time runs from the open to the first right read.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { BLOCK_BYTES, GIB, MIB } from '../../src/base/units.js';
import type { Device } from '../../src/env/device.js';
import { openFileDevice } from '../../src/env/file-device.js';
import { openStore } from '../../src/main/open-store.js';
import type { Bench } from '../harness/bench.js';
import { makeStoreFile } from '../harness/file-store.js';
import { reportMemory } from '../harness/memory.js';
import { atMost, type Report } from '../harness/report.js';
import { runCommand, withScratch } from '../harness/scratch.js';
import { elapsedMs, QuickRandom } from '../harness/timing.js';

const MEMORY_BYTES = 256 * MIB;
const STORE_BYTES = 16 * GIB;
const VDISK_BYTES = 8 * GIB;
const SEED = 21;

export const recovery = recoveryOf('recovery', 64);
export const recoverySingle = recoveryOf('recovery-single', 1);

/** @param group  writes of one FLUSH: a log group is a header block and these */
function recoveryOf(name: string, group: number): Bench {
  // The ring of 256 MiB less two blocks for fsinfo holds so many groups; one is for the acts.
  const writes = group * (Math.floor((256 * MIB) / BLOCK_BYTES / (group + 1)) - 2);
  return {
    name,
    question: `how long is the open after a crash, log of 256 MiB full of ${group} writes a FLUSH?`,
    run: (report) => withScratch((folder) => measure(report, `${folder}/store`, name, writes)),
    prepare: (path) => fillLogAndDie(path, writes, group),
  };
}

async function measure(report: Report, path: string, name: string, writes: number): Promise<void> {
  await makeStoreFile(path, STORE_BYTES, { preallocate: false });
  crashWithFullLog(path, name);
  const last = lastPlace(writes);
  const bytes = Buffer.alloc(BLOCK_BYTES);
  let store: Awaited<ReturnType<typeof openStore>> | undefined;
  const ms = await elapsedMs(async () => {
    store = await openStore(path, { memoryBytes: MEMORY_BYTES });
    await store.vdisk('v').read(last, bytes);
  });
  if (store === undefined || bytes.readUInt32LE(0) !== writes - 1) {
    throw new Error('the last flushed write is not there');
  }
  report.figure({
    what: `open until the first right read, ${writes} writes of 4 KiB in the log`,
    value: ms / 1000,
    unit: 's',
    target: atMost(2),
  });
  const zeros = [
    'if=/dev/zero',
    `of=${path}.dd`,
    'bs=1M',
    `count=${Math.floor((writes * BLOCK_BYTES) / MIB)}`,
  ];
  const ddMs = await elapsedMs(() =>
    Promise.resolve(runCommand('dd', [...zeros, 'conv=fdatasync', 'iflag=fullblock'])),
  );
  report.note(`dd of as many bytes with fdatasync, right after: ${(ddMs / 1000).toFixed(2)} s`);
  await store.close();
  reportMemory(report, MEMORY_BYTES, { what: '', bytes: 0 });
}

async function fillLogAndDie(path: string, writes: number, group: number): Promise<void> {
  const device = neverSynced(await openFileDevice(path));
  const options = { memoryBytes: 768 * MIB, dirtyBytesMax: 640 * MIB, cpIntervalMs: 3_600_000 };
  const store = await openStore({ kind: 'device', device }, options);
  const vdisk = await store.createVdisk('v', VDISK_BYTES);
  await store.consistencyPoint();
  device.holdSyncs();
  const random = new QuickRandom(SEED);
  const data = Buffer.alloc(BLOCK_BYTES, 9);
  for (let write = 0; write < writes; write++) {
    data.writeUInt32LE(write, 0);
    await vdisk.write(placeOf(random), data);
    if (write % group === group - 1) await vdisk.flush();
  }
  process.kill(process.pid, 'SIGKILL');
}

function crashWithFullLog(path: string, name: string): void {
  const run = fileURLToPath(new URL('../run.ts', import.meta.url));
  const words = [...process.execArgv, run, '--prepare', name, path];
  const { signal } = spawnSync(process.execPath, words, { stdio: 'inherit' });
  if (signal !== 'SIGKILL') throw new Error('the process that fills the log did not come through');
  runCommand('sync', [path]);
}

function placeOf(random: QuickRandom): number {
  return random.below(VDISK_BYTES / BLOCK_BYTES) * BLOCK_BYTES;
}

function lastPlace(writes: number): number {
  const random = new QuickRandom(SEED);
  for (let write = 0; write < writes - 1; write++) placeOf(random);
  return placeOf(random);
}

/**
 * From `holdSyncs` on a sync does not end, so no consistency point does. What the log writes stays
 * in the host's cache (the process dies, not the machine) and is synced before the open.
 */
function neverSynced(device: Device): Device & { holdSyncs(): void } {
  let isHeld = false;
  return {
    name: device.name,
    sizeBytes: device.sizeBytes,
    read: (offset, into) => device.read(offset, into),
    write: (offset, from) => device.write(offset, from),
    writeDurable: (offset, from) =>
      isHeld ? device.write(offset, from) : device.writeDurable(offset, from),
    copyBlocks: (copies) => device.copyBlocks(copies),
    sync: () => (isHeld ? new Promise<void>(() => undefined) : device.sync()),
    close: () => device.close(),
    holdSyncs() {
      isHeld = true;
    },
  };
}
