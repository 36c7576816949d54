/**
 * Which slot of the cache file holds a VBN: open addressing over typed arrays, 17 to 25 bytes a
 * slot, so that a hundred million slots cost the collector nothing (a Map ends at 2^24 entries).
 */
const NONE = -1;

export class SlotIndex {
  /** VBN of each slot; 0: none. */
  readonly #vbns: Float64Array;
  /** 1: read since it was put there. */
  readonly #used: Uint8Array;
  /** Slot + 1 at its hash; 0: free. */
  readonly #table: Int32Array;
  readonly #mask: number;
  #count = 0;

  constructor(slots: number) {
    this.#vbns = new Float64Array(slots);
    this.#used = new Uint8Array(slots);
    let size = 16;
    while (size < 2 * slots) size *= 2;
    this.#table = new Int32Array(size);
    this.#mask = size - 1;
  }

  get count(): number {
    return this.#count;
  }

  vbnOf(slot: number): number {
    return this.#vbns[slot] as number;
  }

  isUsed(slot: number): boolean {
    return this.#used[slot] === 1;
  }

  noteUse(slot: number): void {
    this.#used[slot] = 1;
  }

  /** The slot of this VBN, or -1. */
  find(vbn: number): number {
    const at = this.#find(vbn);
    return at === NONE ? NONE : (this.#table[at] as number) - 1;
  }

  #find(vbn: number): number {
    for (let at = hash(vbn) & this.#mask; ; at = (at + 1) & this.#mask) {
      const entry = this.#table[at] as number;
      if (entry === 0) return NONE;
      if (this.#vbns[entry - 1] === vbn) return at;
    }
  }

  /** The slot, which is empty, holds this VBN from now on, and no other slot does. */
  set(slot: number, vbn: number): void {
    this.delete(vbn);
    this.#vbns[slot] = vbn;
    this.#used[slot] = 0;
    let at = hash(vbn) & this.#mask;
    while (this.#table[at] !== 0) at = (at + 1) & this.#mask;
    this.#table[at] = slot + 1;
    this.#count++;
  }

  delete(vbn: number): void {
    let gap = this.#find(vbn);
    if (gap === NONE) return;
    this.#vbns[(this.#table[gap] as number) - 1] = 0;
    this.#count--;
    // Close the gap: whatever follows and hashes to or before the gap moves into it.
    for (let next = (gap + 1) & this.#mask; this.#table[next] !== 0; ) {
      const entry = this.#table[next] as number;
      const home = hash(this.#vbns[entry - 1] as number) & this.#mask;
      if (((next - home) & this.#mask) >= ((next - gap) & this.#mask)) {
        this.#table[gap] = entry;
        gap = next;
      }
      next = (next + 1) & this.#mask;
    }
    this.#table[gap] = 0;
  }
}

function hash(vbn: number): number {
  const high = (vbn / 0x1_0000_0000) | 0;
  let mixed = Math.imul((vbn >>> 0) ^ Math.imul(high, 0x9e37_79b1), 0x85eb_ca6b);
  mixed ^= mixed >>> 15;
  return Math.imul(mixed, 0xc2b2_ae35) >>> 3;
}
