/**
 * A week of a busy store on an object store, in virtual time: what it asks for, what it keeps, and
 * that nothing grows which should not.
 *
 * 1. Each minute some blocks are written, four of five to a tenth of the disk, flushed in groups,
 *    and some are read. Each hour a snapshot is taken and the seventh deleted; each day a clone is
 *    made, split and deleted; twice a day the server is killed.
 * 2. Answers of PUTs get lost and DELETEs fail now and then.
 * 3. At the end of each day what is kept must be in proportion to what is live, and no more objects
 *    be there than records and what each start leaves for ever.
 */
import { BLOCK_BYTES, MIB } from '../src/base/units.js';
import { MemoryObjectStore } from '../src/env/memory-object-store.js';
import { seededRandom } from '../src/env/seeded-random.js';
import { checkStore } from '../src/main/check.js';
import { formatStore, openStore } from '../src/main/open-store.js';
import type { Store } from '../src/main/store.js';
import type { CleanerOptions } from '../src/store/object-log/cleaner/cleaner.js';
import { Violation } from './model/violation.js';
import { SimulatedObjectStore } from './world/simulated-object-store.js';
import { type MachineClock, VirtualClock } from './world/virtual-clock.js';

const PREFIX = 'week';
const DISK_BLOCKS = 16_384;
const WRITES_A_MINUTE = 128;
const WRITES_A_FLUSH = 16;
const READS_A_MINUTE = 32;
const SNAPSHOTS = 6;
const KILL_HOURS = 12;
const MINUTES_A_DAY = 1440;
const MINUTE_MS = 60_000;
const FAULTS = { lostResponse: 0.002, failedDelete: 0.02 };
/** What may be dead beyond the bound of the cleaner, which is at rest below some MiB. */
const SLACK_BYTES = 64 * MIB;
const LIVE_RATIO_MIN = 0.6;
/** Epoch, index and SEAL of each start, and what is not swept yet. */
const OBJECTS_A_START = 4;
const OBJECTS_SLACK = 64;

export interface WeekOptions {
  readonly seed: number;
  readonly days: number;
  readonly choice: CleanerOptions['choice'];
  readonly print: (line: string) => void;
}

export interface WeekReport {
  readonly writtenBytes: number;
  readonly readBytes: number;
  readonly writeAmplification: number;
  readonly liveRatio: number;
  readonly putsPerTb: number;
  readonly getsPerTbRead: number;
  readonly orphansDeleted: number;
}

/** @throws {Violation} something grows that should not, or a check finds a fault */
export function simulateWeek(options: WeekOptions): Promise<WeekReport> {
  const world = new VirtualClock();
  return world.run(new Week(world, options).run());
}

class Week {
  readonly #world: VirtualClock;
  readonly #options: WeekOptions;
  readonly #random;
  #client: SimulatedObjectStore;
  #clock: MachineClock;
  /** Of clients that were cut off. */
  readonly #asked = { puts: 0, gets: 0, bytesPut: 0 };
  #writes = 0;
  #reads = 0;
  #starts = 0;
  #orphansDeleted = 0;
  readonly #ratios: number[] = [];
  readonly #snapshots: string[] = [];

  constructor(world: VirtualClock, options: WeekOptions) {
    this.#world = world;
    this.#options = options;
    this.#random = seededRandom(options.seed);
    const random = seededRandom(options.seed + 2 ** 40);
    this.#client = new SimulatedObjectStore({ clock: world, random, lateMsMax: 30_000 });
    this.#clock = world.machine();
  }

  async run(): Promise<WeekReport> {
    const source = { kind: 'objects', objects: this.#client, prefix: PREFIX } as const;
    await formatStore(source, { sizeBytes: 1024 * MIB, random: this.#random });
    this.#client.faultRates = FAULTS;
    let store = await this.#open();
    await store.createVdisk('disk', DISK_BLOCKS * BLOCK_BYTES);
    for (let minute = 1; minute <= this.#options.days * MINUTES_A_DAY; minute++) {
      await this.#minute(store);
      if (minute % 60 === 0) await this.#hour(store, minute / 60);
      if (minute % (KILL_HOURS * 60) === 0) store = await this.#kill(store);
      if (minute % MINUTES_A_DAY === 0) await this.#endOfDay(store, minute / MINUTES_A_DAY);
    }
    await store.close();
    await this.#check();
    return this.#report();
  }

  #open(): Promise<Store> {
    this.#starts++;
    return openStore(
      { kind: 'objects', objects: this.#client, prefix: PREFIX },
      {
        memoryBytes: 16 * MIB,
        clock: this.#clock,
        random: this.#random,
        cleaner: { choice: this.#options.choice },
        alone: true,
        sweep: { intervalMs: 3_600_000, graceMs: 600_000 },
      },
    );
  }

  async #minute(store: Store): Promise<void> {
    const disk = store.vdisk('disk');
    const random = this.#random;
    const bytes = new Uint8Array(BLOCK_BYTES);
    for (let write = 1; write <= WRITES_A_MINUTE; write++) {
      random.fill(bytes.subarray(0, 64));
      await disk.write(this.#block() * BLOCK_BYTES, bytes);
      if (write % WRITES_A_FLUSH === 0) await disk.flush();
    }
    for (let read = 0; read < READS_A_MINUTE; read++) {
      await disk.read(this.#block() * BLOCK_BYTES, bytes);
    }
    this.#writes += WRITES_A_MINUTE;
    this.#reads += READS_A_MINUTE;
    await this.#world.sleep(MINUTE_MS);
  }

  #block(): number {
    const isHot = this.#random.chance(0.8);
    return this.#random.below(isHot ? Math.floor(DISK_BLOCKS / 10) : DISK_BLOCKS);
  }

  async #hour(store: Store, hour: number): Promise<void> {
    this.#snapshots.push(`h${hour}`);
    await store.snapshot([{ vdisk: 'disk', snapshot: `h${hour}` }]);
    if (this.#snapshots.length > SNAPSHOTS) await store.delete(`disk@${this.#snapshots.shift()}`);
    if (hour % 24 !== 6) return;
    const clone = await store.clone(`disk@h${hour}`, 'clone');
    await clone.write(0, new Uint8Array(MIB).fill(hour));
    await (await store.split('clone', { mode: 'copy' })).done;
    await store.delete('clone');
  }

  async #kill(store: Store): Promise<Store> {
    this.#orphansDeleted += store.stats().sweep?.orphansDeleted ?? 0;
    this.#clock.powerOff();
    const { puts, gets, bytesPut } = this.#client.stats;
    this.#asked.puts += puts;
    this.#asked.gets += gets;
    this.#asked.bytesPut += bytesPut;
    this.#client = this.#client.cutClient();
    this.#clock = this.#world.machine();
    const next = await this.#open();
    // Time for the cleaner, and for two sweeps: what is behind the last consistency point the first
    // leaves to the second, an hour later.
    await next.consistencyPoint();
    await this.#world.sleep(100 * MINUTE_MS);
    await next.consistencyPoint();
    return next;
  }

  async #endOfDay(store: Store, day: number): Promise<void> {
    await store.idle();
    const { cleaner, memoryBytes } = store.stats();
    if (cleaner === undefined) throw new Violation('an object log has a cleaner');
    const { objects } = this.#client;
    let bytes = 0;
    let count = 0;
    for (let keys = objects.list(''); keys.length > 0; keys = objects.list('', keys.at(-1))) {
      count += keys.length;
      for (const key of keys) bytes += objects.get(key)?.length ?? 0;
    }
    const live = cleaner.liveBlocks * BLOCK_BYTES;
    const ratio = live / bytes;
    this.#ratios.push(ratio);
    const heap = process.memoryUsage().heapUsed / MIB;
    this.#options.print(
      `day ${day}: ${count} objects, ${(bytes / MIB).toFixed(0)} MiB, ` +
        `${(live / MIB).toFixed(0)} MiB live (${(ratio * 100).toFixed(0)} %), ` +
        `${this.#amplification().toFixed(2)} bytes put for each written, ` +
        `${(memoryBytes / MIB).toFixed(0)} MiB of buffers, ${heap.toFixed(0)} MiB of heap`,
    );
    if (bytes > live / LIVE_RATIO_MIN + SLACK_BYTES) {
      throw new Violation(`day ${day}: ${bytes} bytes are kept, ${live} are live`);
    }
    const countMax = cleaner.records + this.#starts * OBJECTS_A_START + OBJECTS_SLACK;
    if (count > countMax) {
      throw new Violation(`day ${day}: ${count} objects, ${cleaner.records} records`);
    }
  }

  #amplification(): number {
    const put = this.#asked.bytesPut + this.#client.stats.bytesPut;
    return put / (this.#writes * BLOCK_BYTES);
  }

  async #check(): Promise<void> {
    const objects = new MemoryObjectStore({ objects: this.#client.objects.clone() });
    const report = await checkStore({ kind: 'objects', objects, prefix: PREFIX });
    const [fault] = report.faults;
    if (fault !== undefined) throw new Violation(`store check: ${fault.kind}: ${fault.message}`);
    if (report.orphans.objects > OBJECTS_SLACK) {
      throw new Violation(`${report.orphans.objects} orphans are left`);
    }
  }

  #report(): WeekReport {
    const { puts, gets } = this.#client.stats;
    const writtenBytes = this.#writes * BLOCK_BYTES;
    const readBytes = this.#reads * BLOCK_BYTES;
    return {
      writtenBytes,
      readBytes,
      writeAmplification: this.#amplification(),
      liveRatio: this.#ratios.reduce((sum, ratio) => sum + ratio, 0) / this.#ratios.length,
      putsPerTb: ((this.#asked.puts + puts) / writtenBytes) * 1e12,
      getsPerTbRead: ((this.#asked.gets + gets) / readBytes) * 1e12,
      orphansDeleted: this.#orphansDeleted,
    };
  }
}
