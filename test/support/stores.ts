/**
 * Stores for tests, on each medium: in memory (`TestStore`), or on a machine of a simulated world
 * whose power can be cut (`SimulatedStore`). Both run on virtual time: nothing waits for real.
 */
import assert from 'node:assert/strict';
import { type Machine, MEDIUM_KINDS, type MediumKind, newMachine } from '../../sim/machine.js';
import { VirtualClock } from '../../sim/world/virtual-clock.js';
import { isStoreError, type StoreErrorKind } from '../../src/base/store-error.js';
import { BLOCK_BYTES, MIB } from '../../src/base/units.js';
import type { Clock } from '../../src/env/clock.js';
import { MemoryDevice } from '../../src/env/memory-device.js';
import { MemoryObjectStore } from '../../src/env/memory-object-store.js';
import { seededRandom } from '../../src/env/seeded-random.js';
import { checkStore } from '../../src/main/check.js';
import {
  formatStore,
  type OpenOptions,
  openStore,
  type StoreSource,
} from '../../src/main/open-store.js';
import type { Store } from '../../src/main/store.js';
import type { BlockTarget, Extent } from '../../src/vdisk/block-target.js';

export const MEDIA = MEDIUM_KINDS;

const PREFIX = 'store';
const HOUR_MS = 3_600_000;

export interface TestStoreOptions extends OpenOptions {
  /** Default 64 MiB, the smallest. */
  readonly sizeBytes?: number;
}

function toOpenOptions(options: TestStoreOptions, clock: Clock): OpenOptions {
  // Consistency points come when they are asked for, or when something needs one.
  return {
    cpIntervalMs: HOUR_MS,
    memoryBytes: 8 * MIB,
    clock,
    random: seededRandom(7),
    // A crash leaves an owner that never said that it has ended.
    alone: true,
    ...options,
  };
}

/** A store in memory. */
export class TestStore<C extends Clock = VirtualClock> {
  readonly medium: MediumKind;
  readonly clock: C;
  store: Store;
  source: StoreSource;
  readonly #options: TestStoreOptions;

  constructor(
    medium: MediumKind,
    clock: C,
    opened: { readonly store: Store; readonly source: StoreSource },
    options: TestStoreOptions,
  ) {
    this.medium = medium;
    this.clock = clock;
    this.store = opened.store;
    this.source = opened.source;
    this.#options = options;
  }

  /** Closes the store and opens it again: nothing of it is in memory any more. */
  async reopen(options: TestStoreOptions = this.#options): Promise<Store> {
    await this.store.close();
    if (this.source.kind === 'device' && this.source.device instanceof MemoryDevice) {
      this.source = { kind: 'device', device: this.source.device.reopen() };
    }
    this.store = await openStore(this.source, toOpenOptions(options, this.clock));
    return this.store;
  }

  /** Another store, opened from what a crash now would leave. */
  async crashed(): Promise<TestStore<C>> {
    const source = duplicate(this.source);
    const store = await openStore(source, toOpenOptions(this.#options, this.clock));
    return new TestStore(this.medium, this.clock, { store, source }, this.#options);
  }

  /** What the last consistency point left on the medium has no fault. */
  async check(when: string): Promise<void> {
    await isSound(this.source, when);
  }

  /** Bytes that were read from the medium since it was opened. */
  get bytesRead(): number {
    if (this.source.kind === 'objects')
      return (this.source.objects as MemoryObjectStore).stats.bytesGot;
    return (this.source.device as MemoryDevice).stats.blocksRead * BLOCK_BYTES;
  }

  /** Inverts one bit of every copy of this block on the medium; again: it is as it was. */
  rot(block: Uint8Array): number {
    return this.source.kind === 'device'
      ? rotDevice(this.source.device as MemoryDevice, block)
      : rotObjects(this.source.objects as MemoryObjectStore, block);
  }
}

/** An independent copy of what stands on the medium. */
export function duplicate(source: StoreSource): StoreSource {
  if (source.kind === 'device') {
    return { kind: 'device', device: (source.device as MemoryDevice).duplicate() };
  }
  const objects = (source.objects as MemoryObjectStore).duplicate();
  return { kind: 'objects', objects, prefix: source.prefix };
}

function rotDevice(device: MemoryDevice, block: Uint8Array): number {
  const bytes = new Uint8Array(MIB);
  let found = 0;
  for (let offset = 0; offset < device.sizeBytes; offset += MIB) {
    // In memory, so it is done at once.
    void device.read(offset, [bytes]);
    for (let at = 0; at < MIB; at += BLOCK_BYTES) {
      if (!isNearly(bytes.subarray(at, at + BLOCK_BYTES), block)) continue;
      device.flipBit(offset + at, 0);
      found++;
    }
  }
  return found;
}

function rotObjects(store: MemoryObjectStore, block: Uint8Array): number {
  let found = 0;
  let after: string | undefined;
  for (;;) {
    const keys = store.objects.list(PREFIX, after);
    if (keys.length === 0) return found;
    after = keys.at(-1);
    for (const key of keys) {
      const bytes = store.objects.get(key) ?? new Uint8Array(0);
      for (let at = 0; at + BLOCK_BYTES <= bytes.length; at += BLOCK_BYTES) {
        if (!isNearly(bytes.subarray(at, at + BLOCK_BYTES), block)) continue;
        store.objects.flipBit(key, at, 0);
        found++;
      }
    }
  }
}

/** The same but for the first byte. */
function isNearly(bytes: Uint8Array, block: Uint8Array): boolean {
  return bytes[1] === block[1] && Buffer.compare(bytes.subarray(1), block.subarray(1)) === 0;
}

/** What a store of this kind stands on, without a store yet. */
export function newSource(medium: MediumKind, sizeBytes: number): StoreSource {
  return medium === 'in-place'
    ? { kind: 'device', device: new MemoryDevice({ sizeBytes }) }
    : { kind: 'objects', objects: new MemoryObjectStore(), prefix: PREFIX };
}

/** The offline check finds no fault: nothing leaked, nothing has an owner that nobody knows of. */
export async function isSound(source: StoreSource, when: string): Promise<void> {
  const { faults } = await checkStore(duplicate(source));
  const texts = faults.slice(0, 5).map(({ kind, message }) => `${kind}: ${message}`);
  assert.equal(faults.length, 0, `${when}: ${texts.join('; ')}`);
}

/** A fresh store in memory. */
export async function openTestStore<C extends Clock>(
  medium: MediumKind,
  clock: C,
  options: TestStoreOptions = {},
): Promise<TestStore<C>> {
  const sizeBytes = options.sizeBytes ?? 64 * MIB;
  const source = newSource(medium, sizeBytes);
  await formatStore(source, { sizeBytes, random: seededRandom(1), clock });
  const store = await openStore(source, toOpenOptions(options, clock));
  return new TestStore(medium, clock, { store, source }, options);
}

/** Runs the body with a fresh store in memory, closes and checks it. Time is virtual. */
export async function withStore(
  medium: MediumKind,
  options: TestStoreOptions,
  body: (test: TestStore) => Promise<void>,
): Promise<void> {
  const clock = new VirtualClock();
  await clock.run(
    (async () => {
      const test = await openTestStore(medium, clock, options);
      await body(test);
      await test.store.close();
      await test.check('at the end');
    })(),
  );
}

/** A store on a simulated machine. */
export class SimulatedStore {
  readonly world: VirtualClock;
  machine: Machine;
  store: Store;
  readonly #options: TestStoreOptions;

  constructor(world: VirtualClock, machine: Machine, store: Store, options: TestStoreOptions) {
    this.world = world;
    this.machine = machine;
    this.store = store;
    this.#options = options;
  }

  /**
   * Power fails (if it has not yet) and comes back; the store is opened again.
   * @param cutsDuringRecovery  so often it fails again in the next open, each time a write later
   */
  async cut(cutsDuringRecovery = 0): Promise<Store> {
    this.machine.powerOff();
    for (let cuts = 1; cuts <= cutsDuringRecovery; cuts++) {
      this.machine = this.machine.next();
      let isCut: (value: 'cut') => void = () => undefined;
      const cut = new Promise<'cut'>((resolve) => {
        isCut = resolve;
      });
      this.machine.cutAtCall(cuts, () => isCut('cut'));
      const opened = this.#open();
      const outcome = await Promise.race([cut, opened]);
      this.machine.powerOff();
      if (outcome !== 'cut') break;
    }
    this.machine = this.machine.next();
    this.store = await this.#open();
    return this.store;
  }

  /** Closes the store and opens it again. */
  async reopen(): Promise<Store> {
    await this.store.close();
    this.machine = this.machine.next();
    this.store = await this.#open();
    return this.store;
  }

  /** What the last consistency point left on the medium has no fault. */
  async check(when: string): Promise<void> {
    await isSound(this.machine.duplicate(), when);
  }

  #open(): Promise<Store> {
    return openStore(this.machine.source, toOpenOptions(this.#options, this.machine.clock));
  }
}

/** Runs the body in a world of its own, with a fresh store on a machine in it. */
export async function withSimulatedStore(
  medium: MediumKind,
  seed: number,
  options: TestStoreOptions,
  body: (test: SimulatedStore) => Promise<void>,
): Promise<void> {
  const world = new VirtualClock();
  await world.run(
    (async () => {
      const sizeBytes = options.sizeBytes ?? 64 * MIB;
      const machine = newMachine({ world, medium, seed, sizeBytes });
      const { source, clock } = machine;
      await formatStore(source, { sizeBytes, random: seededRandom(seed), clock });
      const store = await openStore(source, toOpenOptions(options, clock));
      await body(new SimulatedStore(world, machine, store, options));
    })(),
  );
}

// -- bytes

/** Bytes that differ in every block and at every offset. */
export function pattern(length: number, seed: number): Uint8Array {
  const words = new Uint32Array(Math.ceil(length / 4));
  // Xorshift; a seed next to another gives quite other numbers.
  let word = (Math.imul(seed + 1, 0x9e3779b1) | 1) >>> 0;
  for (let index = 0; index < words.length; index++) {
    word ^= word << 13;
    word ^= word >>> 17;
    word ^= word << 5;
    words[index] = word;
  }
  return new Uint8Array(words.buffer, 0, length);
}

export async function readAll(
  target: BlockTarget,
  offset = 0,
  length = target.sizeBytes - offset,
): Promise<Uint8Array> {
  // Not zeros: what is not filled must show.
  const into = new Uint8Array(length).fill(0xaa);
  for (let at = 0; at < length; at += MIB) {
    await target.read(offset + at, into.subarray(at, Math.min(length, at + MIB)));
  }
  return into;
}

/** Compares, and names the first block that differs. */
export function same(actual: Uint8Array, expected: Uint8Array, what: string): void {
  if (Buffer.compare(actual, expected) === 0) return;
  assert.equal(actual.length, expected.length, `${what}: length`);
  const at = actual.findIndex((byte, index) => byte !== expected[index]);
  assert.fail(
    `${what}: byte ${at} (block ${Math.floor(at / BLOCK_BYTES)}) is ${actual[at]}, ` +
      `not ${expected[at]}`,
  );
}

export async function reads(
  target: BlockTarget,
  expected: Uint8Array,
  what?: string,
): Promise<void> {
  assert.equal(target.sizeBytes, expected.length, `${target.name}: size`);
  same(await readAll(target), expected, what ?? target.name);
}

/** The content with another size: cut, or with zeros behind it. */
export function resized(bytes: Uint8Array, length: number): Uint8Array {
  const copy = new Uint8Array(length);
  copy.set(bytes.subarray(0, length));
  return copy;
}

export function ofKind(kind: StoreErrorKind, mentions = ''): (error: unknown) => boolean {
  return (error) => isStoreError(error, kind) && error.message.includes(mentions);
}

/** Block status as text: `data 0 2` is data of depth 0 in two blocks, `data 0f 2` was filled. */
export function statusText(extents: readonly Extent[]): string {
  return extents
    .map(({ kind, depth, filled, length }) => {
      return `${kind} ${depth}${filled ? 'f' : ''} ${length / BLOCK_BYTES}`;
    })
    .join(', ');
}
