/**
 * Space that is set aside: nobody else finds room in it. In memory only: who needs it again after
 * an open sets it aside again.
 */
import type { Demand } from './medium.js';

export class Reservations implements Demand {
  dataBlocks = 0;
  metaBlocks = 0;

  make({ dataBlocks, metaBlocks }: Demand): Reservation {
    this.dataBlocks += dataBlocks;
    this.metaBlocks += metaBlocks;
    return new Reservation(this, { dataBlocks, metaBlocks });
  }
}

export class Reservation implements Demand {
  readonly #all: Reservations;
  #dataBlocks: number;
  #metaBlocks: number;

  constructor(all: Reservations, { dataBlocks, metaBlocks }: Demand) {
    this.#all = all;
    this.#dataBlocks = dataBlocks;
    this.#metaBlocks = metaBlocks;
  }

  get dataBlocks(): number {
    return this.#dataBlocks;
  }

  get metaBlocks(): number {
    return this.#metaBlocks;
  }

  get blocks(): number {
    return this.#dataBlocks + this.#metaBlocks;
  }

  /** Gives back what is more than this. */
  keep({ dataBlocks, metaBlocks }: Demand): void {
    const data = Math.max(0, this.#dataBlocks - dataBlocks);
    const meta = Math.max(0, this.#metaBlocks - metaBlocks);
    this.#dataBlocks -= data;
    this.#metaBlocks -= meta;
    this.#all.dataBlocks -= data;
    this.#all.metaBlocks -= meta;
  }

  /** So many data blocks have been placed: they take space of their own now. */
  placed(dataBlocks: number): void {
    this.keep({
      dataBlocks: Math.max(0, this.#dataBlocks - dataBlocks),
      metaBlocks: this.#metaBlocks,
    });
  }

  release(): void {
    this.keep({ dataBlocks: 0, metaBlocks: 0 });
  }
}
