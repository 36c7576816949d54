/**
 * A device that stops at its first failed write or sync: after a failed sync the system may have
 * dropped any unsynced bytes, so a later sync that succeeds proves nothing.
 *
 * 1. Every write or sync after a failed one is refused with that failure.
 * 2. One that was under way when another failed is refused when it settles, whatever came of it.
 * 3. Reads go on.
 */
import { isStoreError, StoreError } from '../../base/store-error.js';
import type { BlockCopies, Device } from '../../env/device.js';

export class FailStopDevice implements Device {
  readonly #device: Device;
  #failure: StoreError | undefined;

  constructor(device: Device) {
    this.#device = device;
  }

  get name(): string {
    return this.#device.name;
  }

  get sizeBytes(): number {
    return this.#device.sizeBytes;
  }

  read(offset: number, into: readonly Uint8Array[]): Promise<void> {
    return this.#device.read(offset, into);
  }

  write(offset: number, from: readonly Uint8Array[]): Promise<void> {
    return this.#guard(() => this.#device.write(offset, from));
  }

  writeDurable(offset: number, from: readonly Uint8Array[]): Promise<void> {
    return this.#guard(() => this.#device.writeDurable(offset, from));
  }

  sync(): Promise<void> {
    return this.#guard(() => this.#device.sync());
  }

  copyBlocks(copies: BlockCopies): Promise<readonly number[]> {
    return this.#guard(() => this.#device.copyBlocks(copies));
  }

  close(): Promise<void> {
    return this.#device.close();
  }

  async #guard<T>(call: () => Promise<T>): Promise<T> {
    this.#refuseIfFailed();
    let outcome: T;
    try {
      outcome = await call();
    } catch (error) {
      this.#failure ??= isStoreError(error)
        ? error
        : new StoreError('device', `${this.name}: ${String(error)}`, { cause: error });
      throw error;
    }
    this.#refuseIfFailed();
    return outcome;
  }

  #refuseIfFailed(): void {
    if (this.#failure !== undefined) throw this.#failure;
  }
}
