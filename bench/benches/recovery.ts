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
import { atMost } from '../harness/report.js';
import { withScratch } from '../harness/scratch.js';
import { elapsedMs, QuickRandom } from '../harness/timing.js';

const MEMORY_BYTES = 256 * MIB;
const STORE_BYTES = 16 * GIB;
const VDISK_BYTES = 8 * GIB;
/** Writes of one FLUSH: 64 blocks and a header. */
const GROUP = 64;
/** The ring of 256 MiB less two blocks for fsinfo holds so many groups. */
const GROUPS = Math.floor((256 * MIB) / BLOCK_BYTES / (GROUP + 1)) - 1;
const SEED = 21;

export const recovery: Bench = {
  name: 'recovery',
  question: 'how long does the open after a crash take, with a full log of 256 MiB?',
  run: (report) =>
    withScratch(async (folder) => {
      const path = `${folder}/store`;
      await makeStoreFile(path, STORE_BYTES, { preallocate: false });
      crashWithFullLog(path);
      const last = lastPlace();
      const bytes = Buffer.alloc(BLOCK_BYTES);
      let store: Awaited<ReturnType<typeof openStore>> | undefined;
      const ms = await elapsedMs(async () => {
        store = await openStore(path, { memoryBytes: MEMORY_BYTES });
        await store.vdisk('v').read(last, bytes);
      });
      if (store === undefined || bytes.readUInt32LE(0) !== GROUP * GROUPS - 1) {
        throw new Error('the last flushed write is not there');
      }
      report.figure({
        what: `open until the first right read, ${GROUP * GROUPS} writes of 4 KiB in the log`,
        value: ms / 1000,
        unit: 's',
        target: atMost(2),
      });
      await store.close();
      reportMemory(report, MEMORY_BYTES, { what: '', bytes: 0 });
    }),
  async prepare(path) {
    const device = neverSynced(await openFileDevice(path));
    const options = { memoryBytes: 768 * MIB, dirtyBytesMax: 640 * MIB, cpIntervalMs: 3_600_000 };
    const store = await openStore({ kind: 'device', device }, options);
    const vdisk = await store.createVdisk('v', VDISK_BYTES);
    await store.consistencyPoint();
    device.holdSyncs();
    const random = new QuickRandom(SEED);
    const data = Buffer.alloc(BLOCK_BYTES, 9);
    for (let group = 0; group < GROUPS; group++) {
      for (let index = 0; index < GROUP; index++) {
        data.writeUInt32LE(group * GROUP + index, 0);
        await vdisk.write(placeOf(random), data);
      }
      await vdisk.flush();
    }
    process.kill(process.pid, 'SIGKILL');
  },
};

function crashWithFullLog(path: string): void {
  const run = fileURLToPath(new URL('../run.ts', import.meta.url));
  const words = [...process.execArgv, run, '--prepare', 'recovery', path];
  const { signal } = spawnSync(process.execPath, words, { stdio: 'inherit' });
  if (signal !== 'SIGKILL') throw new Error('the process that fills the log did not come through');
}

function placeOf(random: QuickRandom): number {
  return random.below(VDISK_BYTES / BLOCK_BYTES) * BLOCK_BYTES;
}

function lastPlace(): number {
  const random = new QuickRandom(SEED);
  for (let write = 0; write < GROUP * GROUPS - 1; write++) placeOf(random);
  return placeOf(random);
}

/** From `holdSyncs` on a sync does not end: nothing but the log becomes durable. */
function neverSynced(device: Device): Device & { holdSyncs(): void } {
  let isHeld = false;
  return {
    name: device.name,
    sizeBytes: device.sizeBytes,
    read: (offset, into) => device.read(offset, into),
    write: (offset, from) => device.write(offset, from),
    writeDurable: (offset, from) => device.writeDurable(offset, from),
    sync: () => (isHeld ? new Promise<void>(() => undefined) : device.sync()),
    close: () => device.close(),
    holdSyncs() {
      isHeld = true;
    },
  };
}
