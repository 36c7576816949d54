/**
 * The vdisks as NBD sees them: names, metered targets, and who has which one open.
 *
 * 1. A vdisk that is being deleted, or imported into, is not to be had: from the question who uses
 *    it to its end nobody new gets in.
 * 2. Names that begin with `_keiki.` are the server's own, and seen by nobody.
 */
import { isStoreError } from '../base/store-error.js';
import type { Clock } from '../env/clock.js';
import type { ExportTable, NbdConnection } from '../target/nbd/exports.js';
import type { BlockTarget } from '../vdisk/block-target.js';
import type { ControlStore, StoreVdisk } from './control-store.js';
import { MeteredTarget, newVdiskMeter, type VdiskMeter } from './metered-target.js';
import { ApiError } from './problem.js';

const OWN_PREFIX = '_keiki.';

/** True for a name that only the server uses. */
export function isOwnName(name: string): boolean {
  return name.startsWith(OWN_PREFIX);
}

export interface ExportsOptions {
  readonly store: ControlStore;
  readonly clock: Clock;
  readonly onClient: (connection: NbdConnection, isThere: boolean) => void;
}

export class Exports implements ExportTable {
  readonly #options: ExportsOptions;
  readonly #connections = new Set<NbdConnection>();
  readonly #meters = new Map<string, VdiskMeter>();
  readonly #closedNames = new Set<string>();
  readonly #readers = new Map<object, BlockTarget>();

  constructor(options: ExportsOptions) {
    this.#options = options;
  }

  /** Everything that clients of the API and of NBD see. */
  vdisks(): StoreVdisk[] {
    return this.#options.store.list().filter(({ name }) => !isOwnName(name));
  }

  list(): string[] {
    return this.vdisks().map(({ name }) => name);
  }

  open(name: string): BlockTarget | undefined {
    if (isOwnName(name) || this.#closedNames.has(name)) return undefined;
    return this.target(name);
  }

  /** The vdisk itself, metered, even if nobody else gets it. Undefined: there is none. */
  target(name: string): MeteredTarget | undefined {
    const { store, clock } = this.#options;
    try {
      return new MeteredTarget(store.vdisk(name), this.#meterOf(name), clock);
    } catch (error) {
      if (isStoreError(error, 'not-found')) return undefined;
      throw error;
    }
  }

  attached(connection: NbdConnection): void {
    this.#connections.add(connection);
    this.#options.onClient(connection, true);
  }

  detached(connection: NbdConnection): void {
    this.#connections.delete(connection);
    this.#options.onClient(connection, false);
  }

  /** Clients of the vdisk, by the name it has now. */
  clientsOf(name: string): NbdConnection[] {
    return [...this.#connections].filter(({ target }) => target.name === name);
  }

  get clientCount(): number {
    return this.#connections.size;
  }

  /**
   * Keeps clients out of the vdisk while `act` runs.
   * @throws {ApiError} in-use, with the clients that are in it
   */
  async alone<T>(name: string, act: () => Promise<T>): Promise<T> {
    if (this.#closedNames.has(name)) {
      throw new ApiError('in-use', `${name} is being deleted or imported already`);
    }
    const clients = this.clientsOf(name).map(({ id, peer }) => `NBD client ${id} (${peer})`);
    for (const target of this.#readers.values()) {
      if (target.name === name) clients.push('a stream of its data');
    }
    if (clients.length > 0) {
      const some = clients.slice(0, 10).join(', ');
      const message = `${name} is open in ${clients.length} clients: ${some}; end them first`;
      throw new ApiError('in-use', message, { clients: clients.slice(0, 100) });
    }
    this.#closedNames.add(name);
    try {
      return await act();
    } finally {
      this.#closedNames.delete(name);
    }
  }

  /** Somebody reads the vdisk until `key` is taken back. */
  hold(key: object, target: BlockTarget): void {
    this.#readers.set(key, target);
  }

  release(key: object): void {
    this.#readers.delete(key);
  }

  /** The vdisk has another name now, and so have its snapshots. */
  renamed(name: string, newName: string): void {
    for (const [key, meter] of [...this.#meters]) {
      if (key !== name && !key.startsWith(`${name}@`)) continue;
      this.#meters.delete(key);
      this.#meters.set(newName + key.slice(name.length), meter);
    }
  }

  deleted(name: string): void {
    this.#meters.delete(name);
  }

  /** Of those that had a client since the start, in order of names. */
  meters(): [string, VdiskMeter][] {
    return [...this.#meters].sort(([a], [b]) => (a < b ? -1 : 1));
  }

  #meterOf(name: string): VdiskMeter {
    let meter = this.#meters.get(name);
    if (meter === undefined) {
      meter = newVdiskMeter();
      this.#meters.set(name, meter);
    }
    return meter;
  }
}
