/** An engine and the layers over it, open to tests that look inside. */
import type { MediumKind } from '../../sim/machine.js';
import { VirtualClock } from '../../sim/world/virtual-clock.js';
import { MIB } from '../../src/base/units.js';
import type { Clock } from '../../src/env/clock.js';
import { silentLog } from '../../src/env/log-sink.js';
import { seededRandom } from '../../src/env/seeded-random.js';
import { formatStore, type StoreSource } from '../../src/main/open-store.js';
import { Engine } from '../../src/store/engine.js';
import { openDevice } from '../../src/store/in-place/format.js';
import type { Medium } from '../../src/store/medium.js';
import { openObjectLog } from '../../src/store/object-log/open.js';
import { loadRecords, replayLog } from '../../src/store/recovery.js';
import type { Tree } from '../../src/store/tree.js';
import { Acts } from '../../src/vdisk/acts.js';
import { ClientLoad } from '../../src/vdisk/client-load.js';
import { Reader } from '../../src/vdisk/reader.js';
import { Resolver } from '../../src/vdisk/resolution.js';
import { Vdisk } from '../../src/vdisk/vdisk.js';
import { RecordCollector, type VdiskTable } from '../../src/vdisk/vdisk-table.js';
import { Writer } from '../../src/vdisk/writer.js';
import { newSource } from './stores.js';

export interface TestEngine {
  readonly source: StoreSource;
  readonly clock: VirtualClock;
  readonly engine: Engine;
  readonly resolver: Resolver;
  readonly reader: Reader;
  readonly acts: Acts;
  readonly table: VdiskTable;
  vdisk(name: string): Vdisk;
  /** The tree that takes the vdisk's writes. */
  head(name: string): Tree;
}

/** A medium that holds an empty store, opened. */
export async function openNewMedium(
  kind: MediumKind,
  clock: Clock,
): Promise<{ readonly medium: Medium; readonly source: StoreSource }> {
  const source = newSource(kind, 64 * MIB);
  await formatStore(source, { sizeBytes: 64 * MIB, random: seededRandom(1), clock });
  return { medium: await openMedium(source), source };
}

export function openMedium(source: StoreSource): Promise<Medium> {
  if (source.kind === 'device') return openDevice(source.device, silentLog);
  const random = seededRandom(2);
  return openObjectLog(source.objects, source.prefix, () => {
    const nonce = new Uint8Array(16);
    random.fill(nonce);
    return nonce;
  });
}

/** Runs the body with an engine on a new medium; background jobs are the test's own affair. */
export async function withEngine(
  kind: MediumKind,
  body: (test: TestEngine) => Promise<void>,
): Promise<void> {
  const clock = new VirtualClock();
  await clock.run(
    (async () => {
      const { medium, source } = await openNewMedium(kind, clock);
      const engine = new Engine(medium, {
        memoryBytes: 16 * MIB,
        dirtyBytesMax: 8 * MIB,
        cpIntervalMs: 3_600_000,
        clock,
        log: silentLog,
      });
      const records = new RecordCollector(engine);
      await loadRecords(engine, records);
      await replayLog(engine, records);
      await engine.consistencyPoint();
      const table = records.toTable();
      const resolver = new Resolver(engine.trees, engine.options.memoryBytes);
      const reader = new Reader(engine, resolver);
      const writer = new Writer(engine, reader);
      const parts = { engine, reader, writer, load: new ClientLoad(clock) };
      const acts = new Acts(parts, table, seededRandom(3));
      const vdisk = (name: string): Vdisk => new Vdisk(parts, table.get(name));
      const head = (name: string): Tree => table.get(name).head;
      await body({ source, clock, engine, resolver, reader, acts, table, vdisk, head });
      await engine.close();
    })(),
  );
}
