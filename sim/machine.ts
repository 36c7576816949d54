/**
 * Owns one simulated machine with a store: its clock, and the device or the client of an object
 * store that outlives it. Power is cut, and comes back; what a test opens next is what the cut
 * left.
 */

import { MIB } from '../src/base/units.js';
import type { Clock } from '../src/env/clock.js';
import type { Device } from '../src/env/device.js';
import { MemoryDevice } from '../src/env/memory-device.js';
import { MemoryObjectStore } from '../src/env/memory-object-store.js';
import type { ObjectStore } from '../src/env/object-store.js';
import { seededRandom } from '../src/env/seeded-random.js';
import type { OpenOptions, StoreSource } from '../src/main/open-store.js';
import { SimulatedDevice } from './world/simulated-device.js';
import { type ObjectFaultRates, SimulatedObjectStore } from './world/simulated-object-store.js';
import type { MachineClock, VirtualClock } from './world/virtual-clock.js';

export type MediumKind = 'in-place' | 'object-log';
export const MEDIUM_KINDS: readonly MediumKind[] = ['in-place', 'object-log'];

const PREFIX = 'store';
/** Small: now and then it is full. */
const LOCAL_LOG_BYTES = 4 * MIB;

export interface MachineOptions {
  readonly world: VirtualClock;
  readonly medium: MediumKind;
  readonly seed: number;
  readonly sizeBytes: number;
  /** A device that does not keep its word, to see that the model finds out. */
  readonly disguise?: ((device: SimulatedDevice) => Device) | undefined;
  /** The same for a client of an object store. */
  readonly disguiseObjects?: ((objects: SimulatedObjectStore) => ObjectStore) | undefined;
  readonly faultRates?: ObjectFaultRates;
  /** Object log: with a local log, in which the object store may lag so far behind. */
  readonly localLagMs?: number | undefined;
}

export interface Machine {
  readonly medium: MediumKind;
  readonly clock: Clock;
  readonly source: StoreSource;
  /** What an open of the store needs beside the source. */
  openOptions(): Pick<OpenOptions, 'localLog'>;
  /** Writes, syncs or puts so far: the points of `cutAtCall`. */
  readonly callsIssued: number;
  /** Faults that may make a call fail although nobody asked for it. */
  readonly faultsSeen: number;
  /** Power fails in the call of this number; `onCut` is called a moment later. */
  cutAtCall(number: number, onCut: () => void): void;
  /** A write, or a sync, `ahead` calls from now fails; false if the medium knows no such fault. */
  failCall(ahead: number, kind: 'write' | 'sync'): boolean;
  /** The machine stands still; what reaches it meanwhile waits. */
  freeze(durationMs: number): void;
  powerOff(): void;
  /** Power is back, if it was cut; else the same medium, opened once more after a close. */
  next(): Machine;
  /** An independent copy of what is durable, without latencies. */
  duplicate(): StoreSource;
}

export function newMachine(options: MachineOptions): Machine {
  const random = seededRandom(options.seed);
  if (options.medium === 'in-place') {
    const { world, sizeBytes } = options;
    const device = new SimulatedDevice({ clock: world, random, sizeBytes, name: 'sim-device' });
    return new DeviceMachine(options, device);
  }
  const clock = options.world.machine();
  const objects = new SimulatedObjectStore({
    clock: options.world,
    random,
    name: 'sim-bucket',
    receiver: clock,
  });
  objects.faultRates = options.faultRates ?? {};
  if (options.localLagMs === undefined) return new ObjectMachine(options, objects, clock);
  const deviceOptions = { random: seededRandom(options.seed + 1), name: 'sim-local-log' };
  const sizeBytes = LOCAL_LOG_BYTES;
  const device = new SimulatedDevice({ ...deviceOptions, clock: options.world, sizeBytes });
  return new LocalLogMachine(options, objects, device, clock);
}

class DeviceMachine implements Machine {
  readonly medium = 'in-place';
  readonly clock: MachineClock;
  readonly source: StoreSource;
  readonly #options: MachineOptions;
  readonly #device: SimulatedDevice;

  constructor(options: MachineOptions, device: SimulatedDevice) {
    this.#options = options;
    this.#device = device;
    this.clock = options.world.machine();
    this.source = { kind: 'device', device: options.disguise?.(device) ?? device };
  }

  openOptions(): Pick<OpenOptions, 'localLog'> {
    return {};
  }

  get callsIssued(): number {
    return this.#device.writesIssued;
  }

  get faultsSeen(): number {
    const { failedWrites, failedSyncs, failedReads } = this.#device.counts;
    return failedWrites + failedSyncs + failedReads;
  }

  cutAtCall(number: number, onCut: () => void): void {
    this.#device.cutAtWrite(number, onCut);
  }

  failCall(ahead: number, kind: 'write' | 'sync'): boolean {
    if (kind === 'write') this.#device.failWriteAt(this.#device.dataWritesIssued + ahead);
    else this.#device.failSyncAt(this.#device.syncsIssued + ahead);
    return true;
  }

  freeze(durationMs: number): void {
    this.clock.freeze(durationMs);
  }

  powerOff(): void {
    this.clock.powerOff();
    this.#device.powerOff();
  }

  next(): Machine {
    const device = this.#device.isOn ? this.#device.reopen() : this.#device.cutPower();
    return new DeviceMachine(this.#options, device);
  }

  duplicate(): StoreSource {
    const { sizeBytes, name } = this.#device;
    const bytes = this.#device.durableImage();
    return { kind: 'device', device: new MemoryDevice({ sizeBytes, name, bytes }) };
  }
}

class ObjectMachine implements Machine {
  readonly medium = 'object-log';
  readonly clock: MachineClock;
  readonly source: StoreSource;
  readonly #options: MachineOptions;
  readonly #objects: SimulatedObjectStore;

  constructor(options: MachineOptions, objects: SimulatedObjectStore, clock: MachineClock) {
    this.#options = options;
    this.#objects = objects;
    this.clock = clock;
    const disguised = options.disguiseObjects?.(objects) ?? objects;
    this.source = { kind: 'objects', objects: disguised, prefix: PREFIX };
  }

  openOptions(): Pick<OpenOptions, 'localLog'> {
    return {};
  }

  get callsIssued(): number {
    return this.#objects.putsIssued;
  }

  get faultsSeen(): number {
    // None of its faults may end a store: what fails is tried again.
    return 0;
  }

  cutAtCall(number: number, onCut: () => void): void {
    this.#objects.cutAtPut(number, onCut);
  }

  failCall(): boolean {
    return false;
  }

  freeze(durationMs: number): void {
    this.clock.freeze(durationMs);
  }

  powerOff(): void {
    this.clock.powerOff();
    this.#objects.powerOff();
  }

  next(): Machine {
    const before = this.#objects;
    const clock = this.#options.world.machine();
    const objects = before.isOn ? before.anotherClient(clock) : before.cutClient(clock);
    return new ObjectMachine(this.#options, objects, clock);
  }

  duplicate(): StoreSource {
    const objects = new MemoryObjectStore({ objects: this.#objects.objects.clone() });
    return { kind: 'objects', objects, prefix: PREFIX };
  }
}

/** An object store and a local disk: power fails for both at one moment. */
class LocalLogMachine implements Machine {
  readonly medium = 'object-log';
  readonly clock: MachineClock;
  readonly source: StoreSource;
  readonly #options: MachineOptions;
  readonly #objects: SimulatedObjectStore;
  #device: SimulatedDevice;
  #isDeviceOpen = false;
  #callsIssued = 0;
  #cutAt: { readonly number: number; readonly onCut: () => void } | undefined;

  constructor(
    options: MachineOptions,
    objects: SimulatedObjectStore,
    device: SimulatedDevice,
    clock: MachineClock,
  ) {
    this.#options = options;
    this.#objects = objects;
    this.#device = device;
    this.clock = clock;
    const { disguiseObjects } = options;
    const counted: ObjectStore = {
      name: objects.name,
      putNew: (key, chunks) => {
        const cut = this.#count();
        if (cut !== undefined) objects.cutAtPut(objects.putsIssued + 1, cut);
        const outcome = objects.putNew(key, chunks);
        if (cut !== undefined) this.powerOff();
        return outcome;
      },
      get: (key, offset, length) => objects.get(key, offset, length),
      delete: (keys) => objects.delete(keys),
      list: (prefix, after) => objects.list(prefix, after),
    };
    const disguised = disguiseObjects === undefined ? counted : disguiseObjects(objects);
    this.source = { kind: 'objects', objects: disguised, prefix: PREFIX };
  }

  openOptions(): Pick<OpenOptions, 'localLog'> {
    if (this.#isDeviceOpen) return {};
    this.#isDeviceOpen = true;
    const device = this.#counted(this.#device);
    return { localLog: { device, lagMsMax: this.#options.localLagMs ?? 0 } };
  }

  #counted(device: SimulatedDevice): Device {
    const { disguise } = this.#options;
    const inner: Device = disguise?.(device) ?? device;
    const call = (work: () => Promise<void>): Promise<void> => {
      const cut = this.#count();
      if (cut !== undefined) device.cutAtWrite(device.writesIssued + 1, cut);
      const outcome = work();
      if (cut !== undefined) this.powerOff();
      return outcome;
    };
    return {
      name: device.name,
      sizeBytes: device.sizeBytes,
      read: (offset, into) => inner.read(offset, into),
      write: (offset, from) => call(() => inner.write(offset, from)),
      writeDurable: (offset, from) => call(() => inner.writeDurable(offset, from)),
      sync: () => call(() => inner.sync()),
      copyBlocks: (copies) => inner.copyBlocks(copies),
      close: async () => {
        await inner.close();
        this.#device = device.reopen();
        this.#isDeviceOpen = false;
      },
    };
  }

  /** Returns what to do when power fails in this call; undefined if it does not. */
  #count(): (() => void) | undefined {
    if (++this.#callsIssued !== this.#cutAt?.number) return undefined;
    return this.#cutAt.onCut;
  }

  get callsIssued(): number {
    return this.#callsIssued;
  }

  get faultsSeen(): number {
    return this.#device.counts.failedWrites;
  }

  cutAtCall(number: number, onCut: () => void): void {
    this.#cutAt = { number, onCut };
  }

  failCall(ahead: number, kind: 'write' | 'sync'): boolean {
    if (kind === 'sync') return false;
    this.#device.failWriteAt(this.#device.dataWritesIssued + ahead);
    return true;
  }

  freeze(durationMs: number): void {
    this.clock.freeze(durationMs);
  }

  powerOff(): void {
    this.clock.powerOff();
    this.#objects.powerOff();
    this.#device.powerOff();
  }

  next(): Machine {
    const { isOn } = this.#objects;
    const clock = this.#options.world.machine();
    const objects = isOn ? this.#objects.anotherClient(clock) : this.#objects.cutClient(clock);
    const device = isOn ? this.#device : this.#device.cutPower();
    return new LocalLogMachine(this.#options, objects, device, clock);
  }

  duplicate(): StoreSource {
    const objects = new MemoryObjectStore({ objects: this.#objects.objects.clone() });
    return { kind: 'objects', objects, prefix: PREFIX };
  }
}
