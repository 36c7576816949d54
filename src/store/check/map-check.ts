/**
 * In place: the active map, the usage file and the counters of fsinfo against what was named.
 *
 * 1. Where metadata is lost, what it names is not known: then a set bit, or a count that is too
 *    high, is no fault.
 * 2. The counters are held against the usage file and the map as they are, so that one wrong entry
 *    is one fault.
 * 3. Bits and live counts are held against what was named with the pending runs of fsinfo in them.
 */
import { BLOCK_BYTES, SEGMENT_BLOCKS } from '../../base/units.js';
import type { Fsinfo, PendingRun } from '../../layout/fsinfo.js';
import {
  SEGMENT_DATA,
  SEGMENT_FREE,
  SEGMENT_META,
  SEGMENT_MIRROR,
  SEGMENT_RESERVED,
  USAGE_ENTRIES_PER_BLOCK,
  usageKind,
  usageLive,
  usageWord,
} from '../../layout/usage-entry.js';
import { MAP_BLOCK_SEGMENTS } from '../in-place/active-map.js';
import { countPair, type PairCounts } from '../in-place/segment-allocator.js';
import { popcount, popcountAll, SEGMENT_WORDS, VbnSet } from '../vbn-set.js';
import type { Findings } from './check-report.js';
import type { InPlaceCheckMedium } from './in-place-check-medium.js';
import type { TreeWalker } from './tree-walk.js';

/** Blocks of a metafile that are no holes, by FBN. */
export type FileBlocks = ReadonlyMap<number, Uint32Array>;

const KIND_NAMES = ['free', 'data', 'metadata', 'mirror', 'reserved'];

export function kindName(kind: number): string {
  return KIND_NAMES[kind] ?? `kind ${kind}`;
}

const NO_BITS = new Uint32Array(SEGMENT_WORDS);

export class MapCheck {
  readonly #medium: InPlaceCheckMedium;
  readonly #fsinfo: Fsinfo;
  readonly #walker: TreeWalker;
  readonly #findings: Findings;
  readonly #map: Map<number, Uint32Array>;
  readonly #usage: Map<number, Uint32Array>;
  /** fsinfo and log. */
  readonly #fixed = new VbnSet();

  constructor(
    medium: InPlaceCheckMedium,
    walker: TreeWalker,
    findings: Findings,
    files: { readonly map: FileBlocks; readonly usage: FileBlocks },
  ) {
    this.#medium = medium;
    this.#fsinfo = medium.fsinfo;
    this.#walker = walker;
    this.#findings = findings;
    this.#map = new Map(files.map);
    this.#usage = new Map(files.usage);
    for (let vbn = 0; vbn < medium.frontBlocks; vbn++) this.#fixed.add(vbn);
    for (const slot of [2, 1]) this.#fixed.add(this.#fsinfo.storeBlocks - slot);
  }

  compare(): void {
    this.#compareCounters();
    for (const run of this.#fsinfo.pending) this.#applyRun(run);
    const segments = new Set([...this.#fixed.segments(), ...this.#walker.data.segments()]);
    for (const segment of this.#walker.meta.segments()) segments.add(segment).add(segment + 1);
    for (const fbn of this.#map.keys()) {
      for (let at = 0; at < MAP_BLOCK_SEGMENTS; at++) segments.add(fbn * MAP_BLOCK_SEGMENTS + at);
    }
    for (const fbn of this.#usage.keys()) {
      const start = fbn * USAGE_ENTRIES_PER_BLOCK;
      for (let at = 0; at < USAGE_ENTRIES_PER_BLOCK; at++) segments.add(start + at);
    }
    for (const segment of [...segments].sort((a, b) => a - b)) this.#compareSegment(segment);
  }

  #applyRun({ vbn, blocks, isFreed }: PendingRun): void {
    for (let at = vbn; at < vbn + blocks; at++) {
      this.#applyPending(at, isFreed);
      this.#applyPending(at + SEGMENT_BLOCKS, isFreed);
    }
    const segment = Math.floor(vbn / SEGMENT_BLOCKS);
    this.#countPending(segment, isFreed ? -blocks : blocks, SEGMENT_META);
    this.#countPending(segment + 1, isFreed ? -blocks : blocks, SEGMENT_MIRROR);
  }

  #applyPending(vbn: number, isFreed: boolean): void {
    const words = copiedBlock(this.#map, Math.floor(vbn / (MAP_BLOCK_SEGMENTS * SEGMENT_BLOCKS)));
    const at = (vbn % (MAP_BLOCK_SEGMENTS * SEGMENT_BLOCKS)) >>> 5;
    const mask = 1 << (vbn & 31);
    if ((((words[at] as number) & mask) !== 0) !== isFreed) {
      const state = isFreed ? 'free' : 'in use';
      this.#findings.add(
        'usage',
        `VBN ${vbn} of ${this.#medium.name} is pending in fsinfo, and ${state} in the map already`,
      );
    }
    words[at] = isFreed ? (words[at] as number) & ~mask : (words[at] as number) | mask;
  }

  #countPending(segment: number, change: number, kind: number): void {
    const words = copiedBlock(this.#usage, Math.floor(segment / USAGE_ENTRIES_PER_BLOCK));
    const at = (segment % USAGE_ENTRIES_PER_BLOCK) * 2;
    const word = words[at] as number;
    const live = usageLive(word) + change;
    const before = usageKind(word);
    const after = before === SEGMENT_FREE ? kind : before;
    const spare = word & 0xff00_0000;
    const entry = live <= 0 ? usageWord(0, SEGMENT_FREE) : usageWord(live, after);
    words[at] = (entry | spare) >>> 0;
  }

  #compareSegment(segment: number): void {
    const bits = new Uint32Array(SEGMENT_WORDS);
    const kind = this.#foundIn(segment, bits);
    const stored = this.#storedBits(segment);
    for (let word = 0; word < SEGMENT_WORDS; word++) {
      const found = bits[word] as number;
      const marked = stored[word] as number;
      if (found === marked) continue;
      const base = segment * SEGMENT_BLOCKS + word * 32;
      this.#eachBit(base, found & ~marked, (vbn) => this.#addMissing(vbn));
      if (this.#findings.isComplete) {
        this.#eachBit(base, marked & ~found, (vbn) => this.#addLeak(vbn));
      }
    }
    this.#compareUsage(segment, popcountAll(bits), kind);
  }

  /** Fills in the bits of what was named in the segment; returns its kind. */
  #foundIn(segment: number, bits: Uint32Array): number {
    const kinds: number[] = [];
    const take = (set: VbnSet, from: number, kind: number): void => {
      const more = set.bitsOf(from);
      if (more === undefined) return;
      for (let word = 0; word < SEGMENT_WORDS; word++) {
        bits[word] = ((bits[word] as number) | (more[word] as number)) >>> 0;
      }
      kinds.push(kind);
    };
    const isFront = segment * SEGMENT_BLOCKS < this.#medium.frontBlocks;
    // The last blocks of the store are fsinfo, in a segment that else holds data.
    take(this.#fixed, segment, isFront ? SEGMENT_RESERVED : SEGMENT_DATA);
    take(this.#walker.data, segment, SEGMENT_DATA);
    take(this.#walker.meta, segment, SEGMENT_META);
    if (segment % 2 === 1) take(this.#walker.meta, segment - 1, SEGMENT_MIRROR);
    const [kind = SEGMENT_FREE] = kinds;
    const other = kinds.find((each) => each !== kind);
    if (other !== undefined) {
      const what = `holds ${kindName(kind)} and ${kindName(other)}`;
      this.#findings.add('usage', `segment ${segment} of ${this.#medium.name} ${what}`);
    }
    return kind;
  }

  #storedBits(segment: number): Uint32Array {
    const block = this.#map.get(Math.floor(segment / MAP_BLOCK_SEGMENTS));
    if (block === undefined) return NO_BITS;
    const start = (segment % MAP_BLOCK_SEGMENTS) * SEGMENT_WORDS;
    return block.subarray(start, start + SEGMENT_WORDS);
  }

  #eachBit(base: number, bits: number, visit: (vbn: number) => void): void {
    let rest = bits;
    while (rest !== 0) {
      visit(base + 31 - Math.clz32(rest & -rest));
      rest &= rest - 1;
    }
  }

  #addLeak(vbn: number): void {
    this.#findings.add(
      'map-leak',
      `VBN ${vbn} of ${this.#medium.name} is in use in the active map, and nothing names it`,
    );
  }

  #addMissing(vbn: number): void {
    const { data, meta } = this.#walker;
    let what = 'a block of fsinfo or the log';
    if (data.has(vbn)) what = 'a data block';
    else if (meta.has(vbn)) what = 'a metadata block';
    else if (meta.has(vbn - SEGMENT_BLOCKS)) what = 'the second copy of a metadata block';
    this.#findings.add(
      'map-missing',
      `VBN ${vbn} of ${this.#medium.name}, ${what}, is free in the active map`,
    );
  }

  #wordOf(segment: number): number {
    const block = this.#usage.get(Math.floor(segment / USAGE_ENTRIES_PER_BLOCK));
    return block?.[(segment % USAGE_ENTRIES_PER_BLOCK) * 2] ?? 0;
  }

  #compareUsage(segment: number, found: number, kind: number): void {
    const word = this.#wordOf(segment);
    const live = usageLive(word);
    const what = `segment ${segment} of ${this.#medium.name}`;
    const isKnown = this.#findings.isComplete;
    if (live < found || (isKnown && live > found)) {
      const stored = `has ${live} live blocks in the usage file`;
      this.#findings.add('usage', `${what} ${stored}, but ${found} are named`);
    }
    const storedKind = usageKind(word);
    const mayDiffer = !isKnown && kind === SEGMENT_FREE;
    if (storedKind !== kind && !mayDiffer) {
      const stored = `is ${kindName(storedKind)} in the usage file`;
      this.#findings.add('usage', `${what} ${stored}, but holds ${kindName(kind)}`);
    }
    const block = this.#usage.get(Math.floor(segment / USAGE_ENTRIES_PER_BLOCK));
    const spare = block?.[(segment % USAGE_ENTRIES_PER_BLOCK) * 2 + 1] ?? 0;
    if (spare === 0 && word >>> 24 === 0) return;
    this.#findings.add('usage', `${what} has bytes in the usage file that must be 0`);
  }

  #compareCounters(): void {
    const { storeBlocks, usedBlocks } = this.#fsinfo;
    const pairs = storeBlocks / (2 * SEGMENT_BLOCKS);
    // Every pair is free until its entries say otherwise.
    const counts: PairCounts = { freePairs: pairs, dataGaps: 0, metaGaps: 0 };
    for (const fbn of this.#usage.keys()) {
      const start = fbn * USAGE_ENTRIES_PER_BLOCK;
      const end = Math.min(start + USAGE_ENTRIES_PER_BLOCK, pairs * 2);
      for (let segment = start; segment < end; segment += 2) {
        const words = [this.#wordOf(segment), this.#wordOf(segment + 1)] as const;
        const live = [usageLive(words[0]), usageLive(words[1])] as const;
        counts.freePairs--;
        countPair([usageKind(words[0]), usageKind(words[1])], live, counts, 1);
      }
    }
    for (const name of ['freePairs', 'dataGaps', 'metaGaps'] as const) {
      this.#compareCounter(name, this.#fsinfo[name], counts[name], 'the usage file');
    }
    let used = 0;
    for (const block of this.#map.values()) for (const word of block) used += popcount(word);
    for (const { blocks, isFreed } of this.#fsinfo.pending) {
      used += isFreed ? -2 * blocks : 2 * blocks;
    }
    this.#compareCounter('usedBlocks', usedBlocks, used, 'the active map');
  }

  #compareCounter(name: string, stored: number, found: number, where: string): void {
    if (stored === found) return;
    this.#findings.add(
      'counter',
      `fsinfo of ${this.#medium.name} has ${name} ${stored}, ${where} makes it ${found}`,
    );
  }
}

/** A copy that stands in the files for the block, or a block of zeros. */
function copiedBlock(files: Map<number, Uint32Array>, fbn: number): Uint32Array {
  const words = files.get(fbn)?.slice() ?? new Uint32Array(BLOCK_BYTES / 4);
  files.set(fbn, words);
  return words;
}
