/**
 * Calls that run at the same time, a bounded number of them, as one act that ends once.
 *
 * 1. At most `limit` calls are under way.
 * 2. After a failure none begins.
 * 3. `inFlight` settles when all calls have: nothing touches a buffer or a target behind its back.
 */

export class InFlight {
  readonly #limit: number;
  readonly #running = new Set<Promise<void>>();
  #failure: { readonly cause: unknown } | undefined;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** Begins the call as soon as there is room; throws if one has failed before. */
  async begin(call: () => Promise<void>): Promise<void> {
    while (this.#running.size >= this.#limit) await Promise.race(this.#running);
    this.rethrow();
    const running: Promise<void> = call().then(
      () => void this.#running.delete(running),
      (cause: unknown) => {
        this.#failure ??= { cause };
        this.#running.delete(running);
      },
    );
    this.#running.add(running);
  }

  /** Waits until nothing is under way. */
  async settle(): Promise<void> {
    while (this.#running.size > 0) await Promise.all(this.#running);
  }

  rethrow(): void {
    if (this.#failure !== undefined) throw this.#failure.cause;
  }
}

/** Runs the body, waits for all that it has begun, throws the first failure of either. */
export async function inFlight(
  limit: number,
  body: (flight: InFlight) => Promise<void>,
): Promise<void> {
  const flight = new InFlight(limit);
  try {
    await body(flight);
  } finally {
    await flight.settle();
  }
  flight.rethrow();
}

/**
 * Loads items ahead, a bounded number of them, and hands them over in their order.
 *
 * @param use  is awaited before the next item is handed over
 */
export async function inOrder<Item, Loaded>(
  limit: number,
  items: AsyncIterable<Item>,
  load: (item: Item) => Promise<Loaded>,
  use: (loaded: Loaded) => Promise<void>,
): Promise<void> {
  const ahead: Promise<Loaded>[] = [];
  const next = async (): Promise<void> => {
    const first = ahead.shift();
    if (first !== undefined) await use(await first);
  };
  try {
    for await (const item of items) {
      const loading = load(item);
      // It is awaited later, or not at all: its failure must not end the process.
      loading.catch(() => undefined);
      ahead.push(loading);
      if (ahead.length >= limit) await next();
    }
    while (ahead.length > 0) await next();
  } finally {
    await Promise.allSettled(ahead);
  }
}
