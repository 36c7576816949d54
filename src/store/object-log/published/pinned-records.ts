/**
 * Records that are not deleted though nothing in the store names them any more: others read them,
 * through a snapshot that is published.
 *
 * 1. A record that dies while it is pinned is forgotten: whoever ends the publication names all of
 *    its records again (`remove`), and the next consistency point finds which of them are dead.
 * 2. While somebody holds (a publication is being made) no record is deleted at all; those that
 *    would have been come back when the last hold ends.
 */
import { invariant } from '../../../base/invariant.js';
import type { RecordRun } from '../../../layout/publication.js';

export class PinnedRecords {
  /** By publication; 'all': nobody knows any more which it needs. */
  readonly #pins = new Map<number, readonly RecordRun[] | 'all'>();
  #holds = 0;
  readonly #heldBack: number[] = [];

  add(publication: number, runs: readonly RecordRun[] | 'all'): void {
    this.#pins.set(publication, runs);
  }

  /** The records that it pinned; those that are dead may be deleted now. */
  remove(publication: number): readonly RecordRun[] {
    const runs = this.#pins.get(publication);
    this.#pins.delete(publication);
    return runs === undefined || runs === 'all' ? [] : runs;
  }

  /** True if the record must stay, whatever is live in it. */
  has(record: number): boolean {
    for (const runs of this.#pins.values()) {
      if (runs === 'all' || isIn(runs, record)) return true;
    }
    return false;
  }

  /** Asked for a record that is dead: false if it is to be deleted. */
  keeps(record: number): boolean {
    if (this.has(record)) return true;
    if (this.#holds === 0) return false;
    this.#heldBack.push(record);
    return true;
  }

  /** A publication is being made. */
  get isHeld(): boolean {
    return this.#holds > 0;
  }

  beginHold(): void {
    this.#holds++;
  }

  /** Dead records that waited for this; none while others hold. */
  endHold(): number[] {
    invariant(this.#holds > 0, 'a hold that ends has begun');
    this.#holds--;
    return this.#holds === 0 ? this.#heldBack.splice(0) : [];
  }
}

function isIn(runs: readonly RecordRun[], record: number): boolean {
  let low = 0;
  let high = runs.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const { first, count } = runs[middle] as RecordRun;
    if (record < first) high = middle;
    else if (record < first + count) return true;
    else low = middle + 1;
  }
  return false;
}

/** Numbers as runs, in order. */
export function toRuns(records: Iterable<number>): RecordRun[] {
  const runs: { first: number; count: number }[] = [];
  for (const record of [...records].sort((a, b) => a - b)) {
    const last = runs.at(-1);
    if (last !== undefined && record === last.first + last.count) last.count++;
    else runs.push({ first: record, count: 1 });
  }
  return runs;
}
