/**
 * How far splits have come by what a running server says, and how much of that a kill cannot take.
 *
 * 1. What was filled when no consistency point was being written is in the next one, at the latest.
 *    So it is durable as soon as the server has said a higher number.
 * 2. The server counts a fill after it has put the pointer: it never says too much.
 */

/** One look. Positions were looked at before the counts. */
export interface Look {
  readonly cpNumber: number;
  readonly cpInProgress: boolean;
  /** By all splits, since the server started. */
  readonly filledBlocks: number;
  /** Of each split, in bytes; Infinity: it has ended. */
  readonly positions: ReadonlyMap<string, number>;
}

export class Progress {
  #durable: Look | undefined;
  /** Waits for the consistency point after it. */
  #pending: Look | undefined;
  #last: Look | undefined;

  note(look: Look): void {
    if (this.#pending !== undefined && look.cpNumber > this.#pending.cpNumber) {
      this.#durable = this.#pending;
      this.#pending = undefined;
    }
    if (!look.cpInProgress) this.#pending = look;
    this.#last = look;
  }

  /** The last look of which all is surely durable. */
  get durable(): Look | undefined {
    return this.#durable;
  }

  get last(): Look | undefined {
    return this.#last;
  }
}
