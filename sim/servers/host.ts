/** Hosts that share an object store, and how they see it. */
import { MIB } from '../../src/base/units.js';
import { MemoryDevice } from '../../src/env/memory-device.js';
import type { ObjectStore } from '../../src/env/object-store.js';
import { SparseBytes } from '../../src/env/sparse-bytes.js';
import type { SimulatedObjectStore } from '../world/simulated-object-store.js';
import type { MachineClock, VirtualClock } from '../world/virtual-clock.js';
import type { Server } from './server.js';

/** Two groups: the ring comes round. */
const CACHE_BYTES = MIB;

/** Remembers which epochs the host claims. */
export class HostObjects implements ObjectStore {
  readonly name: string;
  readonly client: SimulatedObjectStore;
  /** The epoch that this host claimed last. */
  claimed = 0;

  constructor(client: SimulatedObjectStore) {
    this.name = client.name;
    this.client = client;
  }

  putNew(key: string, chunks: readonly Uint8Array[]): Promise<'created' | 'exists'> {
    const epoch = /\/epoch\/([0-9a-f]+)$/.exec(key)?.[1];
    if (epoch !== undefined) this.claimed = Number.parseInt(epoch, 16);
    return this.client.putNew(key, chunks);
  }

  get(key: string, offset?: number, length?: number): Promise<Uint8Array | undefined> {
    return this.client.get(key, offset, length);
  }

  delete(keys: readonly string[]): Promise<void> {
    return this.client.delete(keys);
  }

  list(prefix: string, after?: string): Promise<string[]> {
    return this.client.list(prefix, after);
  }
}

/** One machine of several that share an object store. Its local disk outlives what runs on it. */
export class Host {
  readonly name: string;
  readonly #world: VirtualClock;
  readonly #cacheBytes = new SparseBytes(MIB);
  /** Each process on it has a life of its own. */
  life = 0;
  clock: MachineClock;
  client: SimulatedObjectStore;
  server: Server | undefined;
  isOpening = false;

  constructor(name: string, world: VirtualClock, objects: SimulatedObjectStore) {
    this.name = name;
    this.#world = world;
    this.clock = world.machine();
    this.client = objects.anotherClient(this.clock);
  }

  /** Kills what runs on it; a new process may begin. */
  restart(): void {
    this.clock.powerOff();
    this.clock = this.#world.machine();
    this.client = this.client.cutClient(this.clock);
    this.life++;
    this.server = undefined;
    this.isOpening = false;
  }

  /** What the process before has kept of the store, perhaps of another epoch. */
  cacheDisk(): MemoryDevice {
    const options = { sizeBytes: CACHE_BYTES, name: `cache of ${this.name}` };
    return new MemoryDevice({ ...options, bytes: this.#cacheBytes });
  }
}
