/**
 * Builds the image of an in-place store block by block, with the codecs and nothing of the engine.
 *
 * For tests of what only reads a store. It is as docs/FORMAT.md says: maps, counts and second
 * copies are right. Small: 64 MiB, of which one segment pair takes all metadata.
 *
 * 1. Every block is placed once; data from the first segment behind the log upwards.
 * 2. `finish` writes metafiles and fsinfo; the store is not to be added to from then on.
 */
import assert from 'node:assert/strict';
import { crc32 } from '../../src/base/checksum.js';
import { BLOCK_BYTES, FIELDS_PER_BLOCK, SEGMENT_BLOCKS } from '../../src/base/units.js';
import { encodeFsinfo, type Metafile, type MetafileRoot } from '../../src/layout/fsinfo.js';
import type { LogEntry } from '../../src/layout/log-entry.js';
import { encodeGroupHeader, type GroupHead } from '../../src/layout/log-group.js';
import { FLAG_FILLED, POINTER_WORDS, putPointer } from '../../src/layout/pointer.js';
import { REFERENCE_ENTRIES_PER_BLOCK, toggleOwner } from '../../src/layout/reference-entry.js';
import {
  encodeTreeRecord,
  TREE_RECORD_BYTES,
  TREE_RECORDS_PER_BLOCK,
  type TreeRecord,
} from '../../src/layout/tree-record.js';
import {
  SEGMENT_DATA,
  SEGMENT_META,
  SEGMENT_MIRROR,
  SEGMENT_RESERVED,
  USAGE_ENTRY_BYTES,
  usageWord,
} from '../../src/layout/usage-entry.js';
import {
  encodeVdiskRecord,
  VDISK_RECORD_BYTES,
  VDISK_RECORDS_PER_BLOCK,
  type VdiskRecord,
} from '../../src/layout/vdisk-record.js';
import { PLAIN_FSINFO, PLAIN_TREE, PLAIN_VDISK, UUID } from './layout-values.js';

const SEGMENTS = 16;
const STORE_BLOCKS = SEGMENTS * SEGMENT_BLOCKS;
const LOG_START = 2;
const LOG_BLOCKS = SEGMENT_BLOCKS - LOG_START;
const META_SEGMENT = 4;
const LAST_SEGMENT = SEGMENTS - 1;

/** A block that a tree names: what stands where. */
export interface PlacedBlock {
  readonly vbn: number;
  readonly crc: number;
}

/** What a tree has at an FBN. `subtree`: the field at this level that covers the FBN is zero. */
export type Content =
  | { readonly kind: 'block'; readonly block: PlacedBlock; readonly filled?: boolean }
  | { readonly kind: 'zero'; readonly filled?: boolean; readonly level?: number };

interface Field {
  readonly words: readonly [number, number, number, number];
}
const HOLE: Field = { words: [0, 0, 0, 0] };

function fieldOf(vbn: number, crc: number, filled = false): Field {
  const words = new Uint32Array(POINTER_WORDS);
  putPointer(words, 0, vbn, crc, filled ? FLAG_FILLED : 0);
  return { words: [words[0] ?? 0, words[1] ?? 0, words[2] ?? 0, words[3] ?? 0] };
}

export class HandmadeStore {
  readonly image = new Uint8Array(STORE_BLOCKS * BLOCK_BYTES);
  readonly #used = new Uint8Array(STORE_BLOCKS);
  readonly #owners = new Map<number, number[]>();
  readonly #trees: TreeRecord[] = [];
  readonly #vdisks: VdiskRecord[] = [];
  #nextData = SEGMENT_BLOCKS;
  #nextMeta = META_SEGMENT * SEGMENT_BLOCKS;
  #logEnd = 0;
  #replayPosition = 0;
  #replayFrom = 1;

  constructor() {
    this.#used.fill(1, 0, SEGMENT_BLOCKS);
    this.#used.fill(1, STORE_BLOCKS - 2);
  }

  /** Places a data block that the active map counts; several trees may name it. */
  placeData(bytes: Uint8Array): PlacedBlock {
    const vbn = this.#nextData++;
    assert.ok(vbn < META_SEGMENT * SEGMENT_BLOCKS, 'the data fits');
    this.#used[vbn] = 1;
    return this.#put(vbn, bytes);
  }

  /** Places a data block that only a log entry names: the map of the fsinfo lacks it. */
  placeUncounted(bytes: Uint8Array): PlacedBlock {
    return this.#put(this.#nextData++, bytes);
  }

  /** Nothing owns the block any more; its bytes stay. */
  freeData(block: PlacedBlock): void {
    this.#used[block.vbn] = 0;
  }

  addTree(
    attributes: Partial<TreeRecord> & { readonly id: number },
    content: ReadonlyMap<number, Content> = new Map(),
  ): void {
    const height = attributes.height ?? 1;
    const goneBelowFbn = attributes.goneBelowFbn ?? 0;
    const root = this.#buildTree(height, content, goneBelowFbn);
    let mappedBlocks = 0;
    for (const [fbn, item] of content) {
      // What has moved on is still named here, but belongs to another tree, or to none.
      if (item.kind !== 'block' || fbn < goneBelowFbn) continue;
      mappedBlocks++;
      const { vbn } = item.block;
      this.#owners.set(vbn, [...(this.#owners.get(vbn) ?? []), attributes.id]);
    }
    this.#trees.push({ ...PLAIN_TREE, height, mappedBlocks, ...attributes, root: root.words });
  }

  addVdisk(attributes: Partial<VdiskRecord> & { readonly id: number }): void {
    this.#vdisks.push({ ...PLAIN_VDISK, ...attributes });
  }

  /** Writes a group behind the last one; returns the VBN it begins at. */
  addGroup(
    sequence: number,
    entries: readonly LogEntry[],
    payload: readonly Uint8Array[],
    changes: Partial<GroupHead> = {},
  ): number {
    const plain = { uuid: UUID, sequence, epoch: 1, cpNumber: 6, syncedThrough: sequence - 1 };
    const head = { ...plain, ...changes };
    const header = encodeGroupHeader(head, entries, payload.length);
    const blocks = header.length / BLOCK_BYTES + payload.length;
    if (this.#logEnd + blocks > LOG_BLOCKS) this.#logEnd = 0;
    const vbn = LOG_START + this.#logEnd;
    this.image.set(header, vbn * BLOCK_BYTES);
    const start = vbn * BLOCK_BYTES + header.length;
    for (const [index, block] of payload.entries()) {
      this.image.set(block, start + index * BLOCK_BYTES);
    }
    this.#logEnd += blocks;
    return vbn;
  }

  /** Groups so far are old ones: the log begins with the next, of this sequence. */
  beginLog(sequence: number): void {
    this.#replayFrom = sequence;
    this.#replayPosition = this.#logEnd;
  }

  /** The whole image, as of consistency point 5. */
  finish(): Uint8Array {
    for (const [index, tree] of this.#trees.entries()) this.#trees[index] = this.#withShares(tree);
    const treeRoot = this.#recordFile(this.#trees, TREE_RECORD_BYTES, encodeTreeRecord);
    const vdiskRoot = this.#recordFile(this.#vdisks, VDISK_RECORD_BYTES, encodeVdiskRecord);
    const reference = this.#buildFile(this.#referenceBlocks(), 2);
    // Usage file and map count themselves, so they get their places before they are filled in.
    const usageBlock = this.#placeMeta(new Uint8Array(BLOCK_BYTES));
    const mapBlock = this.#placeMeta(new Uint8Array(BLOCK_BYTES));
    const usageTop = this.#placeMeta(new Uint8Array(BLOCK_BYTES));
    const mapTop = this.#placeMeta(new Uint8Array(BLOCK_BYTES));
    const roots: Record<Metafile, MetafileRoot> = {
      tree: treeRoot,
      vdisk: vdiskRoot,
      reference,
      usage: this.#replaceFile(usageBlock.vbn, this.#usageBytes(), usageTop.vbn),
      map: this.#replaceFile(mapBlock.vbn, this.#mapBytes(), mapTop.vbn),
    };
    this.#writeFsinfo(roots);
    return this.image;
  }

  #put(vbn: number, bytes: Uint8Array): PlacedBlock {
    assert.equal(bytes.length, BLOCK_BYTES);
    this.image.set(bytes, vbn * BLOCK_BYTES);
    return { vbn, crc: crc32(bytes) };
  }

  /** Both copies. */
  #putMeta(vbn: number, bytes: Uint8Array): PlacedBlock {
    this.#used[vbn] = 1;
    this.#used[vbn ^ SEGMENT_BLOCKS] = 1;
    this.#put(vbn ^ SEGMENT_BLOCKS, bytes);
    return this.#put(vbn, bytes);
  }

  #placeMeta(bytes: Uint8Array): PlacedBlock {
    assert.ok(this.#nextMeta < (META_SEGMENT + 1) * SEGMENT_BLOCKS, 'the metadata fits');
    return this.#putMeta(this.#nextMeta++, bytes);
  }

  #buildTree(height: number, content: ReadonlyMap<number, Content>, goneBelowFbn = 0): Field {
    let fields = new Map<number, Field>();
    const zeroes = (level: number): [number, Field][] =>
      [...content]
        .filter(([, item]) => item.kind === 'zero' && (item.level ?? 0) === level)
        .map(([fbn, item]) => [
          Math.floor(fbn / FIELDS_PER_BLOCK ** level),
          fieldOf(1, 0, item.filled),
        ]);
    for (const [fbn, item] of content) {
      if (item.kind !== 'block') continue;
      fields.set(fbn, fieldOf(item.block.vbn, item.block.crc, item.filled));
    }
    for (const [index, field] of zeroes(0)) fields.set(index, field);
    for (let level = 1; level <= height; level++) {
      fields = this.#buildLevel(fields, Math.floor(goneBelowFbn / FIELDS_PER_BLOCK ** level));
      for (const [index, field] of zeroes(level)) fields.set(index, field);
    }
    return fields.get(0) ?? HOLE;
  }

  /** The blocks before `gone` are still named, but free. */
  #buildLevel(fields: ReadonlyMap<number, Field>, gone: number): Map<number, Field> {
    const blocks = new Map<number, Uint32Array>();
    for (const [index, field] of fields) {
      const above = Math.floor(index / FIELDS_PER_BLOCK);
      const words = blocks.get(above) ?? new Uint32Array(BLOCK_BYTES / 4);
      words.set(field.words, (index % FIELDS_PER_BLOCK) * POINTER_WORDS);
      blocks.set(above, words);
    }
    const built = new Map<number, Field>();
    for (const [index, words] of blocks) {
      const { vbn, crc } = this.#placeMeta(new Uint8Array(words.buffer));
      built.set(index, fieldOf(vbn, crc));
      if (index >= gone) continue;
      this.#used[vbn] = 0;
      this.#used[vbn ^ SEGMENT_BLOCKS] = 0;
    }
    return built;
  }

  #buildFile(blocks: ReadonlyMap<number, Uint8Array>, height: number): MetafileRoot {
    const content = new Map<number, Content>();
    for (const [index, bytes] of blocks) {
      content.set(index, { kind: 'block', block: this.#placeMeta(bytes) });
    }
    return { words: this.#buildTree(height, content).words, height };
  }

  #recordFile<T>(
    records: readonly T[],
    size: number,
    encode: (record: T, bytes: Uint8Array) => void,
  ): MetafileRoot {
    const perBlock = size === TREE_RECORD_BYTES ? TREE_RECORDS_PER_BLOCK : VDISK_RECORDS_PER_BLOCK;
    const blocks = new Map<number, Uint8Array>();
    for (const [index, record] of records.entries()) {
      // Every other slot, and every other block, stays empty.
      const slot = Math.floor(index / (perBlock / 2)) * 2 * perBlock + (index % (perBlock / 2)) * 2;
      const block = Math.floor(slot / perBlock);
      const bytes = blocks.get(block) ?? new Uint8Array(BLOCK_BYTES);
      const at = (slot % perBlock) * size;
      encode(record, bytes.subarray(at, at + size));
      blocks.set(block, bytes);
    }
    return this.#buildFile(blocks, 2);
  }

  #withShares(tree: TreeRecord): TreeRecord {
    let sharedBlocks = 0;
    for (const owners of this.#owners.values()) {
      if (owners.length > 1 && owners.includes(tree.id)) sharedBlocks++;
    }
    return { ...tree, sharedBlocks };
  }

  #referenceBlocks(): Map<number, Uint8Array> {
    const blocks = new Map<number, Uint8Array>();
    for (const [vbn, owners] of this.#owners) {
      if (owners.length < 2) continue;
      const index = Math.floor(vbn / REFERENCE_ENTRIES_PER_BLOCK);
      const bytes = blocks.get(index) ?? new Uint8Array(BLOCK_BYTES);
      const words = new Uint32Array(bytes.buffer);
      const word = (vbn % REFERENCE_ENTRIES_PER_BLOCK) * 4;
      words[word] = owners.length;
      for (const owner of owners) toggleOwner(words, word, owner);
      blocks.set(index, bytes);
    }
    return blocks;
  }

  #usageBytes(): Uint8Array {
    const words = new Uint32Array(BLOCK_BYTES / 4);
    for (let segment = 0; segment < SEGMENTS; segment++) {
      const live = this.#live(segment);
      const kind = this.#kind(segment, live);
      words[(segment * USAGE_ENTRY_BYTES) / 4] = usageWord(live, kind);
    }
    return new Uint8Array(words.buffer);
  }

  #live(segment: number): number {
    const start = segment * SEGMENT_BLOCKS;
    return this.#used.subarray(start, start + SEGMENT_BLOCKS).reduce((sum, bit) => sum + bit, 0);
  }

  #kind(segment: number, live: number): number {
    if (segment === 0) return SEGMENT_RESERVED;
    if (segment === META_SEGMENT) return SEGMENT_META;
    if (segment === META_SEGMENT + 1) return SEGMENT_MIRROR;
    return segment === LAST_SEGMENT || live > 0 ? SEGMENT_DATA : 0;
  }

  #mapBytes(): Uint8Array {
    const bytes = new Uint8Array(BLOCK_BYTES);
    for (const [vbn, bit] of this.#used.entries()) {
      const at = vbn >>> 3;
      bytes[at] = (bytes[at] ?? 0) | (bit << (vbn & 7));
    }
    return bytes;
  }

  #replaceFile(blockVbn: number, bytes: Uint8Array, topVbn: number): MetafileRoot {
    const words = new Uint32Array(BLOCK_BYTES / 4);
    const block = this.#putMeta(blockVbn, bytes);
    words.set(fieldOf(block.vbn, block.crc).words);
    const top = this.#putMeta(topVbn, new Uint8Array(words.buffer));
    return { words: fieldOf(top.vbn, top.crc).words, height: 1 };
  }

  #writeFsinfo(roots: Record<Metafile, MetafileRoot>): void {
    let freePairs = 0;
    let dataGaps = 0;
    for (let pair = 0; pair < SEGMENTS / 2; pair++) {
      const live = this.#live(pair * 2) + this.#live(pair * 2 + 1);
      if (live === 0) freePairs++;
      else if (pair * 2 !== META_SEGMENT) dataGaps += 2 * SEGMENT_BLOCKS - live;
    }
    const info = {
      ...PLAIN_FSINFO,
      cpNumber: 5,
      epoch: 1,
      replayFrom: this.#replayFrom,
      replayPosition: this.#replayPosition,
      localFrom: 0,
      nextTreeId: Math.max(0, ...this.#trees.map((tree) => tree.id)) + 1,
      nextVdiskId: Math.max(0, ...this.#vdisks.map((vdisk) => vdisk.id)) + 1,
      freePairs,
      dataGaps,
      metaGaps: SEGMENT_BLOCKS - this.#live(META_SEGMENT),
      usedBlocks: this.#used.reduce((sum, bit) => sum + bit, 0),
      roots,
    };
    const NO_ROOT = { words: [0, 0, 0, 0], height: 1 } as const;
    const none = {
      tree: NO_ROOT,
      vdisk: NO_ROOT,
      reference: NO_ROOT,
      usage: NO_ROOT,
      map: NO_ROOT,
    };
    // Slot 0 has the consistency point before, in which nothing was.
    const before = encodeFsinfo({ ...info, cpNumber: 4, roots: none, replayFrom: 0 });
    for (const vbn of [0, STORE_BLOCKS - 2]) this.#put(vbn, before);
    for (const vbn of [1, STORE_BLOCKS - 1]) this.#put(vbn, encodeFsinfo(info));
  }
}
