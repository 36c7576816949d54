/**
 * A block target that counts what goes through it: operations, bytes, errors, times.
 *
 * 1. What is done at once stays without a promise: the hot path gets no slower than two looks at
 *    the clock.
 * 2. A vdisk keeps its meter through renames, and until the server ends.
 */
import type { Clock } from '../env/clock.js';
import type { BlockTarget, Extent, WriteOptions } from '../vdisk/block-target.js';
import { Histogram } from './histogram.js';
import { OPERATION_NAMES, type OperationName } from './schemas.js';

/** Figures of one operation on one vdisk. */
export class OperationMeter {
  readonly times = new Histogram();
  errors = 0;
  bytes = 0;
}

export type VdiskMeter = Readonly<Record<OperationName, OperationMeter>>;

export function newVdiskMeter(): VdiskMeter {
  const meters = OPERATION_NAMES.map((name) => [name, new OperationMeter()]);
  return Object.fromEntries(meters) as VdiskMeter;
}

export class MeteredTarget implements BlockTarget {
  readonly #target: BlockTarget;
  readonly #meter: VdiskMeter;
  readonly #clock: Clock;

  constructor(target: BlockTarget, meter: VdiskMeter, clock: Clock) {
    this.#target = target;
    this.#meter = meter;
    this.#clock = clock;
  }

  get name(): string {
    return this.#target.name;
  }

  get sizeBytes(): number {
    return this.#target.sizeBytes;
  }

  get readOnly(): boolean {
    return this.#target.readOnly;
  }

  read(offset: number, into: Uint8Array): void | Promise<void> {
    return this.#count(this.#meter.read, into.length, () => this.#target.read(offset, into));
  }

  write(offset: number, data: Uint8Array, options?: WriteOptions): void | Promise<void> {
    const write = () => this.#target.write(offset, data, options);
    return this.#count(this.#meter.write, data.length, write);
  }

  trim(offset: number, length: number, options?: WriteOptions): void | Promise<void> {
    return this.#count(this.#meter.zero, length, () => this.#target.trim(offset, length, options));
  }

  writeZeroes(offset: number, length: number, options?: WriteOptions): void | Promise<void> {
    const write = () => this.#target.writeZeroes(offset, length, options);
    return this.#count(this.#meter.zero, length, write);
  }

  async flush(): Promise<void> {
    await this.#count(this.#meter.flush, 0, () => this.#target.flush());
  }

  async blockStatus(offset: number, length: number, extentsMax?: number): Promise<Extent[]> {
    const { status } = this.#meter;
    const startMs = this.#clock.nowMs();
    try {
      const extents = await this.#target.blockStatus(offset, length, extentsMax);
      this.#done(status, 0, startMs);
      return extents;
    } catch (error) {
      this.#failed(status, startMs);
      throw error;
    }
  }

  #count(
    meter: OperationMeter,
    bytes: number,
    operate: () => void | Promise<void>,
  ): void | Promise<void> {
    const startMs = this.#clock.nowMs();
    let outcome: void | Promise<void>;
    try {
      outcome = operate();
    } catch (error) {
      this.#failed(meter, startMs);
      throw error;
    }
    if (outcome === undefined) {
      this.#done(meter, bytes, startMs);
      return undefined;
    }
    return this.#later(meter, bytes, startMs, outcome);
  }

  async #later(
    meter: OperationMeter,
    bytes: number,
    startMs: number,
    outcome: Promise<void>,
  ): Promise<void> {
    try {
      await outcome;
    } catch (error) {
      this.#failed(meter, startMs);
      throw error;
    }
    this.#done(meter, bytes, startMs);
  }

  #done(meter: OperationMeter, bytes: number, startMs: number): void {
    meter.bytes += bytes;
    meter.times.add(this.#clock.nowMs() - startMs);
  }

  #failed(meter: OperationMeter, startMs: number): void {
    meter.errors++;
    meter.times.add(this.#clock.nowMs() - startMs);
  }
}
