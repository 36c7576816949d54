/**
 * What clones that stand alone need, by what they read as: nothing of it is taken from the server's
 * counters.
 *
 * 1. A block that is not all zeros takes a block. After a share, those that still read as the
 *    golden disk's are named by all the clones, and are there once.
 * 2. Those that several clones name are counted in the reference file: a block of it for each MiB
 *    of the store in which one stands.
 * 3. A megabyte with a block in it takes an indirect block of level 1; above it there is one for
 *    each 256. Shared whole, they may be fewer; one that has only a TRIM's zeros is not counted.
 */
import { Violation } from '../../sim/model/violation.js';
import { BLOCK_BYTES, FIELDS_PER_BLOCK, MIB } from '../../src/base/units.js';
import type { RemoteStore } from '../crash-loop/remote-store.js';

/** A range that somebody else looks after. */
export interface Range {
  readonly offset: number;
  readonly sizeBytes: number;
}

export interface SpaceNeed {
  readonly dataBlocks: number;
  readonly metaBlocksMax: number;
}

const EMPTY = Buffer.alloc(BLOCK_BYTES);
const EMPTY_MEGABYTE = Buffer.alloc(MIB);

export class SpaceCount {
  readonly #isShare: boolean;
  /** How many clones name each block of the golden disk. */
  readonly #named = new Map<number, number>();
  #ownBlocks = 0;
  #indirectBlocks = 0;

  constructor(isShare: boolean) {
    this.#isShare = isShare;
  }

  /**
   * Reads all of a clone beside the golden disk.
   * @throws {Violation} outside of `changed` it is another disk; undefined: anywhere it may be
   */
  async add(
    store: RemoteStore,
    { clone, golden, sizeBytes }: { clone: string; golden: string; sizeBytes: number },
    changed: readonly Range[] | undefined,
  ): Promise<void> {
    const bytes = Buffer.alloc(MIB);
    const old = Buffer.alloc(MIB);
    for (let offset = 0; offset < sizeBytes; offset += MIB) {
      await Promise.all([
        store.vdisk(clone).read(offset, bytes),
        store.vdisk(golden).read(offset, old),
      ]);
      const isChanged = changed?.some((range) => isIn(offset, range)) ?? true;
      if (!isChanged && !bytes.equals(old)) {
        throw new Violation(
          `${clone} at ${offset}: not what ${golden} has, and nobody wrote there`,
        );
      }
      this.#addMegabyte(offset, bytes, old);
    }
    // Above level 1: one for each 256, up to one alone.
    for (let count = sizeBytes / MIB; count > 1; ) {
      count = Math.ceil(count / FIELDS_PER_BLOCK);
      this.#indirectBlocks += count;
    }
  }

  #addMegabyte(offset: number, bytes: Buffer, old: Buffer): void {
    if (!bytes.equals(EMPTY_MEGABYTE)) this.#indirectBlocks++;
    for (let at = 0; at < MIB; at += BLOCK_BYTES) {
      const block = bytes.subarray(at, at + BLOCK_BYTES);
      if (block.equals(EMPTY)) continue;
      if (this.#isShare && block.equals(old.subarray(at, at + BLOCK_BYTES))) {
        const index = (offset + at) / BLOCK_BYTES;
        this.#named.set(index, (this.#named.get(index) ?? 0) + 1);
      } else this.#ownBlocks++;
    }
  }

  /** @param metaBlocks  what a store without vdisks has */
  need(metaBlocks: number): SpaceNeed {
    let counted = 0;
    for (const clones of this.#named.values()) if (clones > 1) counted++;
    // Half of a megabyte on average may be of others.
    const referenceBlocks = Math.ceil((2 * counted) / FIELDS_PER_BLOCK) + Math.sign(counted);
    return {
      dataBlocks: this.#ownBlocks + this.#named.size,
      metaBlocksMax: metaBlocks + this.#indirectBlocks + referenceBlocks,
    };
  }
}

function isIn(offset: number, range: Range): boolean {
  return offset >= range.offset && offset < range.offset + range.sizeBytes;
}
