/** A device that keeps the times of its calls, for the metrics. */
import { Histogram } from '../control/histogram.js';
import type { Clock } from '../env/clock.js';
import type { BlockCopies, Device } from '../env/device.js';

export class TimedDevice implements Device {
  readonly #device: Device;
  readonly #clock: Clock;
  readonly times = {
    read: new Histogram(),
    write: new Histogram(),
    /** Durable writes: groups of the log, and the store's roots. */
    log: new Histogram(),
    sync: new Histogram(),
    copy: new Histogram(),
  };

  constructor(device: Device, clock: Clock) {
    this.#device = device;
    this.#clock = clock;
  }

  get name(): string {
    return this.#device.name;
  }

  get sizeBytes(): number {
    return this.#device.sizeBytes;
  }

  read(offset: number, into: readonly Uint8Array[]): Promise<void> {
    return this.#time(this.times.read, this.#device.read(offset, into));
  }

  write(offset: number, from: readonly Uint8Array[]): Promise<void> {
    return this.#time(this.times.write, this.#device.write(offset, from));
  }

  writeDurable(offset: number, from: readonly Uint8Array[]): Promise<void> {
    return this.#time(this.times.log, this.#device.writeDurable(offset, from));
  }

  sync(): Promise<void> {
    return this.#time(this.times.sync, this.#device.sync());
  }

  copyBlocks(copies: BlockCopies): Promise<readonly number[]> {
    return this.#time(this.times.copy, this.#device.copyBlocks(copies));
  }

  close(): Promise<void> {
    return this.#device.close();
  }

  async #time<T>(histogram: Histogram, call: Promise<T>): Promise<T> {
    const startMs = this.#clock.nowMs();
    try {
      return await call;
    } finally {
      histogram.add(this.#clock.nowMs() - startMs);
    }
  }
}
