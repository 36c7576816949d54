/**
 * Owns what clients of the simulation write: content that says where it belongs.
 *
 * A sector's content follows from a *stamp* (one number for each write) and the sector's number, so
 * that the model keeps one number for a sector, and a sector that turns up in a wrong place, or is
 * older than it may be, is told apart from every other one.
 *
 * 1. Stamp 0 is zeros. No two writes have the same stamp.
 * 2. A sector that a write covered in part has a stamp of its own; its bytes are kept.
 */
import { SECTOR_BYTES } from '../src/base/units.js';
import { seededRandom } from '../src/env/seeded-random.js';

export const ZERO_STAMP = 0;

const HEADER_BYTES = 8;
const BODY_BYTES = SECTOR_BYTES - HEADER_BYTES;
const TABLE_BYTES = 1 << 16;
const ZERO_SECTOR = Buffer.alloc(SECTOR_BYTES);

/** Bodies are cut from this table; header and place of the cut make them differ. */
const TABLE = Buffer.alloc(TABLE_BYTES + BODY_BYTES);
seededRandom(0).fill(TABLE);

function tableStart(stamp: number, sector: number): number {
  const mixed = Math.imul(stamp ^ Math.imul(sector | 0, 0x85eb_ca6b), 0x9e37_79b1);
  return (mixed >>> 16) & ~3;
}

export class Contents {
  #lastStamp = 0;
  readonly #mixed = new Map<number, Buffer>();
  readonly #scratch = Buffer.alloc(SECTOR_BYTES);

  newStamp(): number {
    return ++this.#lastStamp;
  }

  /** A stamp for a sector that has these bytes. */
  stampOf(bytes: Uint8Array): number {
    const copy = Buffer.from(bytes);
    if (copy.equals(ZERO_SECTOR)) return ZERO_STAMP;
    const stamp = this.newStamp();
    this.#mixed.set(stamp, copy);
    return stamp;
  }

  /** Puts the sector's content at `at`. */
  fillSector(into: Buffer, at: number, stamp: number, sector: number): void {
    if (stamp === ZERO_STAMP) {
      into.fill(0, at, at + SECTOR_BYTES);
      return;
    }
    const mixed = this.#mixed.get(stamp);
    if (mixed !== undefined) {
      mixed.copy(into, at);
      return;
    }
    const start = tableStart(stamp, sector);
    TABLE.copy(into, at + HEADER_BYTES, start, start + BODY_BYTES);
    into.writeUInt32LE(stamp, at);
    into.writeUInt32LE(sector % 0x1_0000_0000, at + 4);
  }

  /** True if the sector at `at` has the content of this stamp. */
  isSector(bytes: Buffer, at: number, stamp: number, sector: number): boolean {
    if (stamp === ZERO_STAMP) return isEqual(bytes, at, ZERO_SECTOR, 0, SECTOR_BYTES);
    const mixed = this.#mixed.get(stamp);
    if (mixed !== undefined) return isEqual(bytes, at, mixed, 0, SECTOR_BYTES);
    if (bytes.readUInt32LE(at) !== stamp) return false;
    if (bytes.readUInt32LE(at + 4) !== sector % 0x1_0000_0000) return false;
    return isEqual(bytes, at + HEADER_BYTES, TABLE, tableStart(stamp, sector), BODY_BYTES);
  }

  /** True if bytes [at, at + length) are those of the sector from byte `from` on. */
  isPart(
    bytes: Buffer,
    part: { readonly at: number; readonly from: number; readonly length: number },
    stamp: number,
    sector: number,
  ): boolean {
    this.fillSector(this.#scratch, 0, stamp, sector);
    return isEqual(bytes, part.at, this.#scratch, part.from, part.length);
  }

  /** What a person is told of a sector's bytes. */
  describe(bytes: Buffer, at: number): string {
    if (isEqual(bytes, at, ZERO_SECTOR, 0, SECTOR_BYTES)) return 'zeros';
    const stamp = bytes.readUInt32LE(at);
    const sector = bytes.readUInt32LE(at + 4);
    if (stamp <= this.#lastStamp && this.isSector(bytes, at, stamp, sector)) {
      return `write ${stamp} of sector ${sector}`;
    }
    for (const [mixed, content] of this.#mixed) {
      if (isEqual(bytes, at, content, 0, SECTOR_BYTES)) return `mixed content ${mixed}`;
    }
    return `bytes that nobody wrote (${bytes.toString('hex', at, at + 16)}...)`;
  }
}

function isEqual(a: Buffer, aStart: number, b: Buffer, bStart: number, length: number): boolean {
  return a.compare(b, bStart, bStart + length, aStart, aStart + length) === 0;
}
