/** Which places of a record file are taken. The lowest free one is used next. */
export class RecordSlots {
  #end = 0;
  readonly #free: number[] = [];

  /** One more than the highest place that was ever taken. */
  get end(): number {
    return this.#end;
  }

  take(): number {
    return this.#free.pop() ?? this.#end++;
  }

  free(index: number): void {
    this.#free.push(index);
  }

  /** At open: the records read, in order; the gaps are free. */
  restore(taken: readonly number[]): void {
    this.#end = (taken.at(-1) ?? -1) + 1;
    this.#free.length = 0;
    let next = this.#end - 1;
    for (let at = taken.length - 1; at >= 0; at--) {
      const index = taken[at] as number;
      while (next > index) this.#free.push(next--);
      next = index - 1;
    }
    while (next >= 0) this.#free.push(next--);
  }
}
