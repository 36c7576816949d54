/**
 * Buffers: 4 KiB each, in slabs outside the V8 heap, known by a number. What is known of a buffer
 * stands in parallel typed arrays, so that two million of them cost the collector nothing.
 *
 * 1. A clean buffer holds a block as it is (or is being) written at its VBN, and the index finds
 *    it.
 * 2. A dirty buffer has no VBN and is not in the index: the pointer that leads to it names it.
 *    `holder` and `holderIndex` say where that pointer is in the live tree (see buffer-tree.ts).
 * 3. A pinned buffer is not evicted and its bytes do not change.
 * 4. Only clean, unpinned buffers are evicted, down to a few that stay: a step that needs two paths
 *    of metadata at once would load one by evicting the other, for ever. The bound is soft: when
 *    nothing can be evicted the pool grows, since waiting here could wait for itself. Who makes
 *    buffers dirty keeps the bound.
 * 5. Metadata outlasts data while it takes little of the pool: a block of it leads to 256 others,
 *    and a vdisk that writes at full speed must not make the next write to another one wait.
 */
import { invariant } from '../base/invariant.js';
import { BLOCK_BYTES } from '../base/units.js';

const SLAB_SHIFT = 8;
/** Buffers of a slab: 256, 1 MiB. */
export const SLAB_BUFFERS = 1 << SLAB_SHIFT;
const SLAB_MASK = SLAB_BUFFERS - 1;
const BLOCK_WORDS = BLOCK_BYTES / 4;
/** So many clean buffers stay: several times what the steps that are under way look at. */
const CLEAN_MIN = 64;

export const BUFFER_FREE = 0;
export const BUFFER_CLEAN = 1;
export const BUFFER_DIRTY = 2;

/** No live pointer leads to the buffer any more. */
export const HOLDER_NONE = -1;
/** Holder code of the root pointer of the tree with this table index. */
export function rootHolder(treeIndex: number): number {
  return -2 - treeIndex;
}

export class BufferPool {
  readonly #buffersMax: number;
  readonly #slabs: Buffer[] = [];
  /** The slabs as 32-bit words: block `b` begins at word (b & 255) x 1024 of words[b >> 8]. */
  readonly words: Uint32Array[] = [];
  /** BUFFER_FREE, BUFFER_CLEAN or BUFFER_DIRTY. */
  state = new Uint8Array(0);
  pins = new Uint16Array(0);
  vbn = new Float64Array(0);
  /** Checksum of the content; of a dirty buffer only if `summed`. */
  crc = new Uint32Array(0);
  summed = new Uint8Array(0);
  /** Dirty: consistency point that the content belongs to. */
  generation = new Float64Array(0);
  holder = new Int32Array(0);
  holderIndex = new Uint8Array(0);
  /** Dirty data block: a FLUSH has still to log it. */
  unlogged = new Uint8Array(0);
  #referenced = new Uint8Array(0);
  /** Clean metadata, and how many buffers of it there are. */
  #isMeta = new Uint8Array(0);
  #metaCount = 0;
  /** Buffers there are; the arrays have room for more. */
  #count = 0;
  readonly #free: number[] = [];
  #hand = 0;
  #table = new Int32Array(1024);
  #tableMask = 1023;
  #indexed = 0;
  #dirtyCount = 0;

  constructor(buffersMax: number) {
    this.#buffersMax = Math.max(SLAB_BUFFERS, buffersMax);
    this.#addSlab();
  }

  get bytesAllocated(): number {
    return this.#slabs.length * SLAB_BUFFERS * BLOCK_BYTES;
  }

  get buffersMax(): number {
    return this.#buffersMax;
  }

  get dirtyCount(): number {
    return this.#dirtyCount;
  }

  /** The buffer's bytes, as a view. */
  bytes(buffer: number): Buffer {
    const start = (buffer & SLAB_MASK) * BLOCK_BYTES;
    return this.slabOf(buffer).subarray(start, start + BLOCK_BYTES);
  }

  slabOf(buffer: number): Buffer {
    return this.#slabs[buffer >>> SLAB_SHIFT] as Buffer;
  }

  wordsOf(buffer: number): Uint32Array {
    return this.words[buffer >>> SLAB_SHIFT] as Uint32Array;
  }

  /** Index in wordsOf(buffer) of the buffer's first word. */
  wordStart(buffer: number): number {
    return (buffer & SLAB_MASK) * BLOCK_WORDS;
  }

  /** Byte offset of the buffer in slabOf(buffer). */
  byteStart(buffer: number): number {
    return (buffer & SLAB_MASK) * BLOCK_BYTES;
  }

  /** The clean buffer of this VBN, or -1. Marks it as used. */
  find(vbn: number): number {
    let at = hash(vbn) & this.#tableMask;
    for (;;) {
      const entry = this.#table[at] as number;
      if (entry === 0) return -1;
      if (this.vbn[entry] === vbn) {
        this.#referenced[entry] = 1;
        return entry;
      }
      at = (at + 1) & this.#tableMask;
    }
  }

  /** A buffer of undefined content, pinned once. Make it clean or dirty, or let it go. */
  take(): number {
    const buffer = this.#free.pop() ?? this.#evict() ?? this.#grow();
    this.pins[buffer] = 1;
    this.summed[buffer] = 0;
    this.unlogged[buffer] = 0;
    this.holder[buffer] = HOLDER_NONE;
    return buffer;
  }

  /**
   * Sees to it that so many buffers can be taken without evicting any: what a synchronous step has
   * found in memory stays there until it is through.
   */
  makeFree(count: number): void {
    while (this.#free.length < count) {
      const buffer = this.#evict();
      if (buffer === undefined) this.#addSlab();
      else this.#free.push(buffer);
    }
  }

  pin(buffer: number): void {
    this.pins[buffer] = (this.pins[buffer] as number) + 1;
  }

  unpin(buffer: number): void {
    invariant((this.pins[buffer] as number) > 0, 'a buffer is unpinned as often as it was pinned');
    this.pins[buffer] = (this.pins[buffer] as number) - 1;
    if (this.pins[buffer] === 0 && this.state[buffer] === BUFFER_FREE) this.#free.push(buffer);
  }

  /**
   * The buffer holds the block of this VBN from now on. Another buffer of the same VBN is dropped:
   * it is of an earlier use of that place.
   */
  setClean(buffer: number, vbn: number, crc: number): void {
    const old = this.find(vbn);
    if (old >= 0) this.drop(old);
    if (this.state[buffer] === BUFFER_DIRTY) this.#dirtyCount--;
    this.state[buffer] = BUFFER_CLEAN;
    this.vbn[buffer] = vbn;
    this.crc[buffer] = crc;
    this.summed[buffer] = 1;
    this.#referenced[buffer] = 1;
    this.#insert(buffer);
  }

  /** What was just made clean is metadata. */
  noteMeta(buffer: number): void {
    invariant(this.state[buffer] === BUFFER_CLEAN, 'what is noted as metadata is clean');
    if (this.#isMeta[buffer] === 1) return;
    this.#isMeta[buffer] = 1;
    this.#metaCount++;
  }

  /** The buffer becomes dirty in this generation; it leaves the index. */
  setDirty(buffer: number, generation: number): void {
    if (this.state[buffer] === BUFFER_CLEAN) this.#remove(buffer);
    if (this.state[buffer] !== BUFFER_DIRTY) this.#dirtyCount++;
    this.state[buffer] = BUFFER_DIRTY;
    this.generation[buffer] = generation;
    this.summed[buffer] = 0;
  }

  /** Lets the buffer and its content go. A pinned one becomes free when it is unpinned. */
  drop(buffer: number): void {
    if (this.state[buffer] === BUFFER_CLEAN) this.#remove(buffer);
    if (this.state[buffer] === BUFFER_DIRTY) this.#dirtyCount--;
    this.state[buffer] = BUFFER_FREE;
    if (this.pins[buffer] === 0) this.#free.push(buffer);
  }

  /** Lets go of the block of this VBN, if it is here. */
  dropVbn(vbn: number): void {
    const buffer = this.find(vbn);
    if (buffer >= 0) this.drop(buffer);
  }

  #evict(): number | undefined {
    const count = this.#count;
    if (count < this.#buffersMax || this.#indexed <= CLEAN_MIN) return undefined;
    const spared = this.#sparesMeta ? 2 * count : 0;
    // Two turns of the clock: the first may only take marks away. Two more if metadata was spared.
    for (let step = 0; step < 2 * count + spared; step++) {
      const buffer = this.#hand === 0 ? 1 : this.#hand;
      this.#hand = (buffer + 1) % count;
      if (this.state[buffer] !== BUFFER_CLEAN || this.pins[buffer] !== 0) continue;
      if (this.#referenced[buffer] === 1) {
        this.#referenced[buffer] = 0;
        continue;
      }
      if (step < spared && this.#isMeta[buffer] === 1) continue;
      this.#remove(buffer);
      this.state[buffer] = BUFFER_FREE;
      return buffer;
    }
    return undefined;
  }

  /** True if data is to go first: there is enough of it. */
  get #sparesMeta(): boolean {
    const most = this.#buffersMax;
    return this.#metaCount * 4 < most && (this.#metaCount + this.#dirtyCount) * 8 < most * 7;
  }

  #grow(): number {
    this.#addSlab();
    return this.#free.pop() as number;
  }

  #addSlab(): void {
    const slab = Buffer.alloc(SLAB_BUFFERS * BLOCK_BYTES);
    const base = this.#slabs.length * SLAB_BUFFERS;
    this.#slabs.push(slab);
    this.words.push(new Uint32Array(slab.buffer, slab.byteOffset, SLAB_BUFFERS * BLOCK_WORDS));
    this.#count = base + SLAB_BUFFERS;
    if (this.#count > this.state.length) this.#growArrays(2 * this.#count);
    // Buffer 0 is never handed out: 0 means none in the index.
    for (let index = SLAB_BUFFERS - 1; index >= 0; index--) {
      if (base + index !== 0) this.#free.push(base + index);
    }
  }

  #growArrays(count: number): void {
    const grow = <T extends { set(from: T): void }>(array: T, bigger: T): T => {
      bigger.set(array);
      return bigger;
    };
    this.state = grow(this.state, new Uint8Array(count));
    this.pins = grow(this.pins, new Uint16Array(count));
    this.vbn = grow(this.vbn, new Float64Array(count));
    this.crc = grow(this.crc, new Uint32Array(count));
    this.summed = grow(this.summed, new Uint8Array(count));
    this.generation = grow(this.generation, new Float64Array(count));
    this.holder = grow(this.holder, new Int32Array(count));
    this.holderIndex = grow(this.holderIndex, new Uint8Array(count));
    this.unlogged = grow(this.unlogged, new Uint8Array(count));
    this.#referenced = grow(this.#referenced, new Uint8Array(count));
    this.#isMeta = grow(this.#isMeta, new Uint8Array(count));
  }

  #insert(buffer: number): void {
    if (this.#indexed * 2 >= this.#table.length) this.#rehash(this.#table.length * 2);
    this.#place(buffer);
    this.#indexed++;
  }

  #place(buffer: number): void {
    let at = hash(this.vbn[buffer] as number) & this.#tableMask;
    while (this.#table[at] !== 0) at = (at + 1) & this.#tableMask;
    this.#table[at] = buffer;
  }

  #rehash(size: number): void {
    const old = this.#table;
    this.#table = new Int32Array(size);
    this.#tableMask = size - 1;
    for (let index = 0; index < old.length; index++) {
      if (old[index] !== 0) this.#place(old[index] as number);
    }
  }

  #remove(buffer: number): void {
    if (this.#isMeta[buffer] === 1) {
      this.#isMeta[buffer] = 0;
      this.#metaCount--;
    }
    const mask = this.#tableMask;
    let at = hash(this.vbn[buffer] as number) & mask;
    while (this.#table[at] !== buffer) {
      invariant(this.#table[at] !== 0, 'a clean buffer is in the index');
      at = (at + 1) & mask;
    }
    // Close the gap: whatever follows and hashes to or before the gap moves into it.
    let gap = at;
    for (let next = (gap + 1) & mask; this.#table[next] !== 0; next = (next + 1) & mask) {
      const home = hash(this.vbn[this.#table[next] as number] as number) & mask;
      if (((next - home) & mask) >= ((next - gap) & mask)) {
        this.#table[gap] = this.#table[next] as number;
        gap = next;
      }
    }
    this.#table[gap] = 0;
    this.#indexed--;
  }
}

function hash(vbn: number): number {
  const high = (vbn / 0x1_0000_0000) | 0;
  let mixed = Math.imul((vbn >>> 0) ^ Math.imul(high, 0x9e37_79b1), 0x85eb_ca6b);
  mixed ^= mixed >>> 15;
  return Math.imul(mixed, 0xc2b2_ae35) >>> 7;
}
