import { MEDIUM_KINDS } from '../../sim/machine.js';
import { MIB } from '../../src/base/units.js';
import { silentLog } from '../../src/env/log-sink.js';
import { MemoryDevice } from '../../src/env/memory-device.js';
import { MemoryObjectStore } from '../../src/env/memory-object-store.js';
import { seededRandom } from '../../src/env/seeded-random.js';
import { systemClock } from '../../src/env/system-clock.js';
import { formatStore } from '../../src/main/open-store.js';
import { Engine } from '../../src/store/engine.js';
import { LocalLog } from '../../src/store/object-log/local-log/local-log.js';
import type { ObjectLogMedium } from '../../src/store/object-log/object-log-medium.js';
import { openObjectLog } from '../../src/store/object-log/open.js';
import { openMedium, openNewMedium } from '../support/engines.js';
import { duplicate } from '../support/stores.js';
import { type MediumFixture, mediumContract } from './medium.js';

for (const kind of MEDIUM_KINDS) {
  mediumContract(kind, async () => {
    const { medium, source } = await openNewMedium(kind, systemClock);
    return { medium, crashed: () => openMedium(duplicate(source)) };
  });
}

const random = seededRandom(3);

function nonce(): Uint8Array {
  const bytes = new Uint8Array(16);
  random.fill(bytes);
  return bytes;
}

async function openWithLog(
  objects: MemoryObjectStore,
  disk: MemoryDevice,
): Promise<ObjectLogMedium> {
  const options = { clock: systemClock, isUsed: true, lagMsMax: Number.POSITIVE_INFINITY };
  const log = await LocalLog.open({ ...options, device: disk });
  return openObjectLog(objects, 'p', nonce, { access: { log, isGivenUp: false } });
}

mediumContract('object-log with a local log', async (): Promise<MediumFixture> => {
  const objects = new MemoryObjectStore();
  const disk = new MemoryDevice({ sizeBytes: 4 * MIB });
  await formatStore({ kind: 'objects', objects, prefix: 'p' }, { sizeBytes: 64 * MIB, random });
  const medium = await openWithLog(objects, disk);
  // The consistency point that says where the log is.
  const options = { memoryBytes: MIB, dirtyBytesMax: MIB, cpIntervalMs: 3_600_000 };
  await new Engine(medium, { ...options, clock: systemClock, log: silentLog }).consistencyPoint();
  return { medium, crashed: () => openWithLog(objects.duplicate(), disk.duplicate()) };
});
