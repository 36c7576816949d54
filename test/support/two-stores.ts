/**
 * Two stores on one object store in memory: `library` publishes, `shop` clones. Time is virtual.
 */
import { VirtualClock } from '../../sim/world/virtual-clock.js';
import { StoreError } from '../../src/base/store-error.js';
import { MIB } from '../../src/base/units.js';
import type { LogSink } from '../../src/env/log-sink.js';
import { MemoryObjectStore } from '../../src/env/memory-object-store.js';
import type { ObjectStore } from '../../src/env/object-store.js';
import { seededRandom } from '../../src/env/seeded-random.js';
import { formatStore, type OpenOptions, openStore } from '../../src/main/open-store.js';
import type { Store } from '../../src/main/store.js';
import { isSound } from './stores.js';

export const LIBRARY = 'memory:library';
const HOUR_MS = 3_600_000;

export type Which = 'library' | 'shop';

export class TwoStores {
  readonly clock: VirtualClock;
  readonly objects: MemoryObjectStore;
  library: Store;
  shop: Store;
  /** Every line of the log, of both. */
  readonly lines: string[] = [];
  #opens = 0;
  readonly #options: OpenOptions;

  private constructor(
    clock: VirtualClock,
    objects: MemoryObjectStore,
    stores: { readonly library: Store; readonly shop: Store },
    options: OpenOptions,
  ) {
    this.clock = clock;
    this.objects = objects;
    this.library = stores.library;
    this.shop = stores.shop;
    this.#options = options;
  }

  /** Fresh stores of 64 MiB. */
  static async make(clock: VirtualClock, options: OpenOptions = {}): Promise<TwoStores> {
    const objects = new MemoryObjectStore();
    for (const [seed, prefix] of ['library', 'shop'].entries()) {
      const format = { sizeBytes: 64 * MIB, random: seededRandom(seed + 1), clock };
      await formatStore({ kind: 'objects', objects, prefix }, format);
    }
    const two = TwoStores.#closed(clock, objects, options);
    two.library = await two.open('library');
    two.shop = await two.open('shop');
    return two;
  }

  static #closed(clock: VirtualClock, objects: MemoryObjectStore, options: OpenOptions): TwoStores {
    const nobody = {} as { library: Store; shop: Store };
    return new TwoStores(clock, objects, nobody, options);
  }

  /** Others, over a copy of all objects as they are now; not open yet. */
  copy(): TwoStores {
    return TwoStores.#closed(this.clock, this.objects.duplicate(), this.#options);
  }

  /** Opens it, whoever has it open. */
  open(which: Which, through: ObjectStore = this.objects): Promise<Store> {
    const log: LogSink = ({ event, message }) => this.lines.push(`${which} ${event}: ${message}`);
    return openStore(
      { kind: 'objects', objects: through, prefix: which },
      {
        cpIntervalMs: HOUR_MS,
        memoryBytes: 8 * MIB,
        clock: this.clock,
        random: seededRandom(100 + ++this.#opens),
        log,
        reach: (address) => reachIn(through, address),
        alone: true,
        ...this.#options,
      },
    );
  }

  /** Keys of the store that begin so. */
  keys(which: Which, start: string): string[] {
    return this.objects.objects.list(`${which}/${start}`);
  }

  async close(): Promise<void> {
    await this.library.close();
    await this.shop.close();
    await this.check('at the end');
  }

  async check(when: string): Promise<void> {
    for (const prefix of ['library', 'shop'] as const) {
      await isSound({ kind: 'objects', objects: this.objects, prefix }, `${prefix} ${when}`);
    }
  }
}

function reachIn(
  objects: ObjectStore,
  address: string,
): Promise<{ readonly objects: ObjectStore; readonly prefix: string }> {
  const [, prefix] = /^memory:(\w+)$/.exec(address) ?? [];
  if (prefix !== undefined) return Promise.resolve({ objects, prefix });
  return Promise.reject(new StoreError('invalid', `"${address}" is no address`));
}

/** Runs the body with two fresh stores, closes and checks them. */
export async function withTwoStores(
  body: (two: TwoStores) => Promise<void>,
  options: OpenOptions = {},
): Promise<void> {
  const clock = new VirtualClock();
  await clock.run(
    (async () => {
      const two = await TwoStores.make(clock, options);
      await body(two);
      await two.close();
    })(),
  );
}
