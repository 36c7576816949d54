/**
 * Several servers and one store on an object store, from a seed: take-overs at any moment, races
 * for the store, hosts that stand still, requests that are lost, stuck or late.
 *
 * 1. No acknowledged write is lost, doubled or out of order (shared-disk.ts).
 * 2. No server answers a read after a successor may have answered.
 * 3. Every server that was deposed, and runs, comes to say `fenced`.
 * 4. At the end the store is whole: the offline check finds nothing.
 */
import { isStoreError } from '../../src/base/store-error.js';
import { BLOCK_BYTES, MIB } from '../../src/base/units.js';
import { MemoryObjectStore } from '../../src/env/memory-object-store.js';
import type { Random } from '../../src/env/random.js';
import { seededRandom } from '../../src/env/seeded-random.js';
import { checkStore } from '../../src/main/check.js';
import { formatStore, type OpenOptions, openStore } from '../../src/main/open-store.js';
import { Digest } from '../digest.js';
import { Violation } from '../model/violation.js';
import { type ObjectFaultRates, SimulatedObjectStore } from '../world/simulated-object-store.js';
import { VirtualClock } from '../world/virtual-clock.js';
import { Host, HostObjects } from './host.js';
import { DISK, Server } from './server.js';
import { SharedDisk } from './shared-disk.js';

export interface ServersOptions {
  readonly seed: number;
  readonly servers: number;
  readonly trace?: ((line: string) => void) | undefined;
}

export interface ServersReport {
  readonly digest: string;
  /** By name: what happened, and how often. */
  readonly counts: Readonly<Record<string, number>>;
}

const PREFIX = 'store';
const BLOCKS = 24;
/** Servers need not agree. */
const STALE_READS_MS = [100, 300, 900] as const;
const STALE_READS_MS_MAX = 900;
const RUN_MS = 15_000;
/** In which a deposed server that runs must have found out. */
const SETTLE_MS = 10 * STALE_READS_MS_MAX;
const FREEZE_MS_MAX = 3000;
const DELAY_MS_MAX = 3000;
const EVENT_MS_MAX = 500;
const FAULTS: ObjectFaultRates = {
  lostRequest: 0.01,
  lostResponse: 0.015,
  latePut: 0.01,
  lateCopy: 0.01,
  repeatedPut: 0.005,
  failedGet: 0.01,
  corruptedGet: 0.002,
  failedList: 0.02,
  failedDelete: 0.05,
  delayed: 0.0025,
};

/** @throws {Violation} the store did what it must never do */
export async function simulateServers(options: ServersOptions): Promise<ServersReport> {
  const world = new VirtualClock();
  const servers = new Servers(world, options);
  return world.run(servers.run());
}

class Servers {
  readonly #world: VirtualClock;
  readonly #random: Random;
  readonly #storeRandom: Random;
  readonly #trace: (line: string) => void;
  readonly #disk = new SharedDisk(BLOCKS);
  readonly #hosts: Host[] = [];
  /** All that ever served, but those killed or closed. */
  readonly #alive = new Set<Server>();
  readonly #objects: SimulatedObjectStore;
  readonly #counts = {
    opens: 0,
    takeOvers: 0,
    refused: 0,
    lostRaces: 0,
    kills: 0,
    closes: 0,
    freezes: 0,
    deposed: 0,
  };
  readonly #failure: Promise<never>;
  #fail: (error: unknown) => void = () => undefined;

  constructor(world: VirtualClock, { seed, servers, trace }: ServersOptions) {
    this.#world = world;
    this.#random = seededRandom(seed + 2 ** 42);
    this.#storeRandom = seededRandom(seed + 2 ** 43);
    this.#trace = (line) => trace?.(`${world.nowMs().toFixed(1).padStart(9)} ${line}`);
    this.#objects = new SimulatedObjectStore({
      clock: world,
      random: seededRandom(seed + 2 ** 44),
      name: 'sim-bucket',
      lateMsMax: 5000,
      delayMsMax: DELAY_MS_MAX,
    });
    for (let index = 0; index < servers; index++) {
      const name = String.fromCharCode(65 + index);
      this.#hosts.push(new Host(name, world, this.#objects));
    }
    this.#failure = new Promise((_, reject) => {
      this.#fail = reject;
    });
    this.#failure.catch(() => undefined);
  }

  async run(): Promise<ServersReport> {
    await this.#makeDisk();
    for (const host of this.#hosts) host.client.faultRates = FAULTS;
    const end = this.#world.nowMs() + RUN_MS;
    while (this.#world.nowMs() < end) {
      this.#event();
      const pause = this.#world.sleep(this.#random.nextFraction() * EVENT_MS_MAX);
      await Promise.race([this.#failure, pause]);
    }
    while (this.#hosts.some(({ isOpening }) => isOpening)) {
      await Promise.race([this.#failure, this.#world.sleep(STALE_READS_MS_MAX)]);
    }
    const settled = this.#world.sleep(FREEZE_MS_MAX + DELAY_MS_MAX + SETTLE_MS);
    await Promise.race([this.#failure, settled]);
    this.#checkDeposed();
    await Promise.race([this.#failure, this.#finish()]);
    const digest = new Digest();
    const counts = { ...this.#counts, ...this.#disk.counts, ...this.#objects.counts };
    for (const [name, count] of Object.entries(counts)) digest.add(name, count);
    digest.add('end', Math.round(this.#world.nowMs() * 1000));
    return { digest: digest.toString(), counts };
  }

  async #makeDisk(): Promise<void> {
    const source = { kind: 'objects', objects: this.#objects, prefix: PREFIX } as const;
    const shared = { random: this.#storeRandom, clock: this.#world };
    await formatStore(source, { sizeBytes: 64 * MIB, ...shared });
    const store = await openStore(source, { memoryBytes: MIB, alone: true, ...shared });
    await store.createVdisk(DISK, BLOCKS * BLOCK_BYTES);
    await store.close();
  }

  #event(): void {
    const random = this.#random;
    const host = this.#hosts[random.below(this.#hosts.length)] as Host;
    const { server } = host;
    const drawn = random.below(20);
    if (server === undefined && !host.isOpening) this.#open(host);
    else if (drawn < 8) this.#freeze(host);
    else if (drawn < 11) this.#kill(host);
    else if (drawn < 13 && server !== undefined) this.#close(host, server);
    else if (server?.stoppedBy !== undefined) host.restart();
  }

  #freeze(host: Host): void {
    const durationMs = this.#random.nextFraction() * FREEZE_MS_MAX;
    this.#trace(`${host.name} stands still for ${durationMs.toFixed(0)} ms`);
    this.#counts.freezes++;
    host.clock.freeze(durationMs);
  }

  #kill(host: Host): void {
    this.#trace(`${host.name} is killed`);
    this.#counts.kills++;
    if (host.server !== undefined) this.#alive.delete(host.server);
    host.restart();
  }

  #close(host: Host, server: Server): void {
    this.#trace(`${host.name} closes`);
    this.#counts.closes++;
    void server.close().then((isClean) => {
      this.#trace(`${host.name} closed, ${isClean ? 'clean' : 'deposed'}`);
      this.#alive.delete(server);
      if (host.server === server) host.restart();
    }, this.#fail);
  }

  #open(host: Host): void {
    const random = this.#random;
    const { clock, life } = host;
    const takeOver = random.chance(0.6);
    host.isOpening = true;
    this.#trace(`${host.name} opens${takeOver ? ', by force' : ''}`);
    // What it has seen is old by the time it goes on.
    if (random.chance(0.5)) {
      this.#world.setTimer(random.nextFraction() * 80, () => {
        if (host.life === life) this.#freeze(host);
      });
    }
    // Another one begins at the same time.
    const rival = this.#hosts.find(({ server, isOpening }) => server === undefined && !isOpening);
    if (rival !== undefined && random.chance(0.3)) this.#open(rival);
    const objects = new HostObjects(host.client);
    let server: Server | undefined;
    let stoppedBy: string | undefined;
    const options: OpenOptions = {
      memoryBytes: MIB,
      cpIntervalMs: [10, 25, 60][random.below(3)] ?? 10,
      cleaner: { liveRatioMin: 0.95, blocksPerCp: 64, deadBlocksMin: 8 },
      ...(random.chance(0.5) ? { cache: host.cacheDisk() } : {}),
      clock,
      random: this.#storeRandom,
      ownership: {
        owner: { machine: host.name, program: `${life}`, label: `${host.name}${life}` },
        isGone: (program) => program !== `${host.life}`,
        takeOver,
        staleReadsMsMax: STALE_READS_MS[random.below(3)] ?? STALE_READS_MS_MAX,
      },
      log: ({ event, fields }) => {
        if (event !== 'store-stopped') return;
        this.#trace(`${host.name} life ${life} stops: ${fields?.kind}`);
        stoppedBy = String(fields?.kind);
        if (server !== undefined) server.stoppedBy = stoppedBy;
      },
    };
    void openStore({ kind: 'objects', objects, prefix: PREFIX }, options)
      .then(
        (store) => {
          this.#counts.opens++;
          if (takeOver) this.#counts.takeOvers++;
          const { claimed } = objects;
          this.#trace(`${host.name} serves epoch ${claimed}`);
          const view = this.#disk.open(`${host.name}${life}`, claimed, this.#world.nowMs());
          server = new Server({ store, clock, view }, this.#disk, random, this.#fail);
          server.stoppedBy = stoppedBy;
          host.server = server;
          host.isOpening = false;
          this.#alive.add(server);
          server.start();
        },
        (error: unknown) => this.#refused(host, life, error),
      )
      .catch(this.#fail);
  }

  #refused(host: Host, life: number, error: unknown): void {
    this.#trace(`${host.name} is refused: ${String(error)}`);
    if (isStoreError(error, 'in-use')) this.#counts.refused++;
    else if (isStoreError(error, 'fenced')) this.#counts.lostRaces++;
    else {
      this.#fail(error);
      return;
    }
    if (host.life === life) host.restart();
  }

  /** @throws {Violation} somebody was deposed and does not know it */
  #checkDeposed(): void {
    const newest = Math.max(0, ...[...this.#alive].map(({ view }) => view.epoch));
    for (const { view, stoppedBy } of this.#alive) {
      if (stoppedBy !== undefined) this.#counts.deposed++;
      if (view.epoch === newest || stoppedBy === 'fenced') continue;
      throw new Violation(
        `${view.name} (epoch ${view.epoch}) was deposed, and ` +
          (stoppedBy === undefined ? 'does not know it' : `stopped with ${stoppedBy}`),
      );
    }
  }

  /** Opens the store once more, reads all, and checks it offline. */
  async #finish(): Promise<void> {
    for (const host of this.#hosts) this.#kill(host);
    await this.#world.sleep(SETTLE_MS + 5000);
    const clock = this.#world.machine();
    const random = this.#random;
    const objects = new HostObjects(this.#objects.anotherClient(clock));
    const source = { kind: 'objects', objects, prefix: PREFIX } as const;
    const options = { memoryBytes: MIB, alone: true, random: this.#storeRandom, clock };
    const store = await openStore(source, options);
    const view = this.#disk.open('the last', objects.claimed, this.#world.nowMs());
    const server = new Server({ store, clock, view }, this.#disk, random, this.#fail);
    await server.readAll();
    await store.close();
    const copy = new MemoryObjectStore({ objects: this.#objects.objects.clone() });
    const report = await checkStore({ kind: 'objects', objects: copy, prefix: PREFIX });
    const [fault] = report.faults;
    if (fault !== undefined) throw new Violation(`store check: ${fault.kind}: ${fault.message}`);
  }
}
