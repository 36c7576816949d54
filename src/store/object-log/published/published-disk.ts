/**
 * Reads a published snapshot from the records of the store that published it, without that store:
 * from the roots in its manifest down, every block checked against the pointer that led to it.
 *
 * 1. The records are pinned and never change, so what was found is true for ever: there is nothing
 *    to look at again, and a cache keyed by VBN is never stale.
 * 2. A block that is missing or damaged fails the read: zeros are only what the trees say is zeros.
 * 3. Through a hole it goes on to the tree behind, below the read-through limit, as docs/FORMAT.md
 *    §9 has it.
 */
import { crc32 } from '../../../base/checksum.js';
import { StoreError } from '../../../base/store-error.js';
import {
  BLOCK_BYTES,
  FIELDS_PER_BLOCK,
  MIB,
  SEGMENT_BLOCKS,
  SPAN_BLOCKS,
} from '../../../base/units.js';
import { HOLE_VBN, POINTER_WORDS, vbnAt, ZERO_VBN } from '../../../layout/pointer.js';
import type { Manifest, PublishedTree } from '../../../layout/publication.js';
import { fieldIndex } from '../../tree.js';
import { BlockCache } from '../cache/block-cache.js';
import { getPatiently } from '../chain-walk.js';
import { recordKey } from '../record-chain.js';
import type { StorePrefix } from './publication-objects.js';

/** Memory for what was read ahead. */
const AHEAD_BYTES = 16 * MIB;
/** Indirect blocks that are kept: 16 MiB. */
const INDIRECT_MAX = 4096;
/** Ranges of which it is known where their blocks are: 3 KiB each. */
const RANGES_MAX = 4096;
/** Ranges that are looked at together. */
const RANGES_AT_ONCE = 16;

/** Where the blocks of one level-1 range are. */
interface Range {
  /** 0: zeros. */
  readonly vbns: Float64Array;
  readonly crcs: Uint32Array;
  /** Blocks of which only so many bytes count, by index: a limit lies in them. */
  readonly masked: Map<number, number>;
}

type Level1 = Uint32Array | 'hole' | 'zero';

export class PublishedDisk {
  readonly #place: StorePrefix;
  readonly #manifest: Manifest;
  readonly #cache = new BlockCache((vbn, count) => this.#fetch(vbn, count), AHEAD_BYTES, undefined);
  /** The oldest first, both. */
  readonly #indirect = new Map<number, Promise<Uint32Array>>();
  readonly #ranges = new Map<number, Promise<Range>>();

  constructor(place: StorePrefix, manifest: Manifest) {
    this.#place = place;
    this.#manifest = manifest;
  }

  get sizeBytes(): number {
    return this.#manifest.sizeBytes;
  }

  /**
   * Fills `into`, whole blocks, from block `fbn` on; behind the end with zeros. When it rejects, no
   * more is written to the buffer.
   * @throws {StoreError} corrupt, device
   */
  async read(fbn: number, into: Uint8Array): Promise<void> {
    const reads: Promise<void>[] = [];
    const end = fbn + into.length / BLOCK_BYTES;
    for (let at = fbn; at < end; ) {
      const first = Math.floor(at / FIELDS_PER_BLOCK) * FIELDS_PER_BLOCK;
      const stop = Math.min(end, first + FIELDS_PER_BLOCK);
      const part = into.subarray((at - fbn) * BLOCK_BYTES, (stop - fbn) * BLOCK_BYTES);
      reads.push(this.#readInRange(at, part));
      at = stop;
    }
    for (const outcome of await Promise.allSettled(reads)) {
      if (outcome.status === 'rejected') throw outcome.reason;
    }
  }

  async #readInRange(fbn: number, into: Uint8Array): Promise<void> {
    const range = await this.#range(Math.floor(fbn / FIELDS_PER_BLOCK));
    const start = fbn % FIELDS_PER_BLOCK;
    const end = start + into.length / BLOCK_BYTES;
    const blockOf = (index: number): Uint8Array =>
      into.subarray((index - start) * BLOCK_BYTES, (index - start + 1) * BLOCK_BYTES);
    const reads: Promise<void>[] = [];
    for (let index = start; index < end; ) {
      const vbn = range.vbns[index] as number;
      let stop = index + 1;
      if (vbn === HOLE_VBN) {
        blockOf(index).fill(0);
        index = stop;
        continue;
      }
      while (stop < end && isNext(range.vbns[stop] as number, vbn + stop - index)) stop++;
      const views: Uint8Array[] = [];
      for (let each = index; each < stop; each++) views.push(blockOf(each));
      reads.push(this.#readRun(vbn, views, range.crcs.subarray(index, stop)));
      index = stop;
    }
    for (const outcome of await Promise.allSettled(reads)) {
      if (outcome.status === 'rejected') throw outcome.reason;
    }
    for (const [index, validBytes] of range.masked) {
      if (index >= start && index < end) blockOf(index).fill(0, validBytes);
    }
  }

  /** Blocks of one record, each as its checksum says. */
  async #readRun(vbn: number, into: readonly Uint8Array[], crcs: ArrayLike<number>): Promise<void> {
    await this.#cache.read(vbn, into);
    for (const [index, block] of into.entries()) {
      if (crc32(block) === crcs[index]) continue;
      // It may have been damaged on its way.
      block.set(await this.#fetch(vbn + index, 1));
      if (crc32(block) !== crcs[index]) throw this.#damaged(vbn + index);
    }
  }

  /** Blocks of one record; fewer where it ends. */
  async #fetch(vbn: number, count: number): Promise<Uint8Array> {
    const { objects, prefix } = this.#place;
    const record = Math.floor(vbn / SEGMENT_BLOCKS);
    const offset = (vbn % SEGMENT_BLOCKS) * BLOCK_BYTES;
    const key = recordKey(prefix, record);
    const bytes = await getPatiently(objects, key, offset, count * BLOCK_BYTES);
    if (bytes !== undefined && bytes.length >= BLOCK_BYTES) return bytes;
    const what = bytes === undefined ? 'is missing' : 'is too short';
    throw new StoreError('device', `${this.#name}: record ${record} ${what}; check that store`);
  }

  get #name(): string {
    return `${this.#place.objects.name}/${this.#place.prefix}`;
  }

  #damaged(vbn: number): StoreError {
    return new StoreError('corrupt', `block ${vbn} of ${this.#name} is damaged; check that store`);
  }

  /**
   * A bit for each of `count` blocks from `fbn` on, a multiple of the blocks of a range: has it
   * data?
   * @throws {StoreError} corrupt, device
   */
  async presence(fbn: number, count: number): Promise<Uint8Array> {
    const bits = new Uint8Array(count / 8);
    const end = Math.min(fbn + count, Math.ceil(this.sizeBytes / BLOCK_BYTES));
    const ranges: number[] = [];
    for (let at = fbn; at < end; at += FIELDS_PER_BLOCK) ranges.push(at / FIELDS_PER_BLOCK);
    for (let start = 0; start < ranges.length; start += RANGES_AT_ONCE) {
      const some = ranges.slice(start, start + RANGES_AT_ONCE);
      const found = await Promise.all(some.map((range) => this.#range(range)));
      for (const [index, { vbns }] of found.entries()) {
        const from = (some[index] as number) * FIELDS_PER_BLOCK - fbn;
        for (let each = 0; each < FIELDS_PER_BLOCK; each++) {
          if (vbns[each] === HOLE_VBN) continue;
          const at = from + each;
          bits[at >>> 3] = (bits[at >>> 3] as number) | (1 << (at & 7));
        }
      }
    }
    return bits;
  }

  #range(range: number): Promise<Range> {
    return kept(this.#ranges, range, RANGES_MAX, () => this.#findRange(range));
  }

  /** What the holes over the range lead to, all trees considered. */
  async #findRange(number: number): Promise<Range> {
    const range: Range = {
      vbns: new Float64Array(FIELDS_PER_BLOCK),
      crcs: new Uint32Array(FIELDS_PER_BLOCK),
      masked: new Map(),
    };
    const open = new Set(Array.from({ length: FIELDS_PER_BLOCK }, (_, index) => index));
    const startBytes = number * FIELDS_PER_BLOCK * BLOCK_BYTES;
    let limit = this.#manifest.sizeBytes;
    for (const tree of this.#manifest.trees) {
      if (limit <= startBytes || open.size === 0) break;
      const words = await this.#level1(tree, number * FIELDS_PER_BLOCK);
      if (words === 'zero') break;
      if (words !== 'hole') takeFields(range, open, words, limit - startBytes);
      limit = Math.min(limit, tree.readThroughLimitBytes);
    }
    return range;
  }

  /** The level-1 block that covers this FBN, the first of its range. */
  async #level1(tree: PublishedTree, fbn: number): Promise<Level1> {
    if (fbn >= (SPAN_BLOCKS[tree.height] as number)) return 'hole';
    let words = Uint32Array.from(tree.root);
    let at = 0;
    for (let level = tree.height; ; level--) {
      const vbn = vbnAt(words, at);
      if (vbn === HOLE_VBN) return 'hole';
      if (vbn === ZERO_VBN) return 'zero';
      words = await this.#indirectBlock(vbn, words[at + 2] as number);
      if (level === 1) return words;
      at = fieldIndex(fbn, level) * POINTER_WORDS;
    }
  }

  #indirectBlock(vbn: number, crc: number): Promise<Uint32Array<ArrayBuffer>> {
    return kept(this.#indirect, vbn, INDIRECT_MAX, async () => {
      const words = new Uint32Array(FIELDS_PER_BLOCK * POINTER_WORDS);
      await this.#readRun(vbn, [new Uint8Array(words.buffer)], [crc]);
      return words;
    }) as Promise<Uint32Array<ArrayBuffer>>;
  }
}

/** Takes what the level-1 block has for fields that are still open. */
function takeFields(
  { vbns, crcs, masked }: Range,
  open: Set<number>,
  words: Uint32Array,
  limitBytes: number,
): void {
  for (const index of open) {
    const left = limitBytes - index * BLOCK_BYTES;
    const at = index * POINTER_WORDS;
    const vbn = vbnAt(words, at);
    if (left > 0 && vbn === HOLE_VBN) continue;
    open.delete(index);
    if (left <= 0 || vbn === ZERO_VBN) continue;
    vbns[index] = vbn;
    crcs[index] = words[at + 2] as number;
    if (left < BLOCK_BYTES) masked.set(index, left);
  }
}

/** The VBN follows, in the same record. */
function isNext(vbn: number, expected: number): boolean {
  return vbn === expected && vbn % SEGMENT_BLOCKS !== 0;
}

/** What is kept under the key, or is on its way, or is made now; a failure is not kept. */
function kept<T>(
  all: Map<number, Promise<T>>,
  key: number,
  countMax: number,
  make: () => Promise<T>,
): Promise<T> {
  const known = all.get(key);
  if (known !== undefined) {
    // The youngest again.
    all.delete(key);
    all.set(key, known);
    return known;
  }
  const made = make();
  all.set(key, made);
  made.catch(() => {
    if (all.get(key) === made) all.delete(key);
  });
  const [oldest] = all.keys();
  if (all.size > countMax && oldest !== undefined) all.delete(oldest);
  return made;
}
