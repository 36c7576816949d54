/**
 * What GETs bring: each a piece of one record, on its way or here.
 *
 * 1. A piece is found from the moment its GET begins: whoever wants a block of it waits for it.
 * 2. A block of a piece that is here is taken once: what was damaged on its way is fetched anew by
 *    the next read. The piece is kept until all are taken, or until newer pieces push it out. One
 *    that is on its way is not pushed out.
 * 3. A block that can be found is in one piece: a GET is for what is in none.
 */
import { BLOCK_BYTES, SEGMENT_BLOCKS } from '../../../base/units.js';

export interface Piece {
  readonly first: number;
  /** Behind its last block; smaller when it is here, and the record has ended before. */
  end: number;
  readonly coming: Promise<Uint8Array>;
  bytes: Uint8Array | undefined;
  /** By block: 1 if somebody has taken it. */
  readonly taken: Uint8Array;
  left: number;
}

export class Pieces {
  readonly #blocksMax: number;
  readonly #byRecord = new Map<number, Piece[]>();
  /** The oldest first. */
  readonly #all = new Set<Piece>();
  #blocks = 0;

  constructor(blocksMax: number) {
    this.#blocksMax = blocksMax;
  }

  /** Memory that they take, or will. */
  get heldBytes(): number {
    return this.#blocks * BLOCK_BYTES;
  }

  find(vbn: number): Piece | undefined {
    return this.#piecesOf(vbn).find(
      ({ first, end, taken }) => first <= vbn && vbn < end && taken[vbn - first] === 0,
    );
  }

  /** Behind the blocks from here on, up to `end`, that can be found in this piece. */
  runEnd(piece: Piece, vbn: number, end: number): number {
    const stop = Math.min(end, piece.end);
    const taken = piece.taken.indexOf(1, vbn - piece.first);
    return taken < 0 ? stop : Math.min(stop, piece.first + taken);
  }

  /** The first block from here on that can be found; `end` if none can. All of one record. */
  gapEnd(vbn: number, end: number): number {
    let next = end;
    for (const { first, end: behind, taken } of this.#piecesOf(vbn)) {
      const from = Math.max(vbn, first);
      if (from >= Math.min(behind, next)) continue;
      const at = taken.indexOf(0, from - first);
      if (at >= 0) next = Math.min(next, first + at);
    }
    return next;
  }

  #piecesOf(vbn: number): readonly Piece[] {
    return this.#byRecord.get(Math.floor(vbn / SEGMENT_BLOCKS)) ?? [];
  }

  /** Pushes older pieces out for so many blocks; false if there is no room all the same. */
  hasRoom(blocks: number): boolean {
    for (const piece of this.#all) {
      if (this.#blocks + blocks <= this.#blocksMax) return true;
      if (piece.bytes !== undefined) this.#drop(piece);
    }
    return this.#blocks + blocks <= this.#blocksMax;
  }

  /** The piece that this GET brings; it is gone again if that fails. */
  add(first: number, end: number, fetching: Promise<Uint8Array>): Piece {
    this.hasRoom(end - first);
    const coming = fetching.then(
      (bytes) => {
        this.#arrived(piece, bytes);
        return bytes;
      },
      (error: unknown) => {
        this.#drop(piece);
        throw error;
      },
    );
    const left = end - first;
    const taken = new Uint8Array(left);
    const piece: Piece = { first, end, coming, bytes: undefined, taken, left };
    const record = Math.floor(first / SEGMENT_BLOCKS);
    const beside = this.#byRecord.get(record);
    if (beside === undefined) this.#byRecord.set(record, [piece]);
    else beside.push(piece);
    this.#all.add(piece);
    this.#blocks += end - first;
    return piece;
  }

  #arrived(piece: Piece, bytes: Uint8Array): void {
    const missing = piece.end - piece.first - Math.floor(bytes.length / BLOCK_BYTES);
    piece.bytes = bytes;
    piece.end -= missing;
    piece.left -= missing;
    this.#blocks -= missing;
    if (piece.left <= 0) this.#drop(piece);
  }

  /** Somebody has these blocks of it now: they are his to keep. */
  take(piece: Piece, vbn: number, blocks: number): void {
    for (let at = vbn - piece.first; at < vbn - piece.first + blocks; at++) {
      // Several may have waited for it while it was on its way.
      if (piece.taken[at] === 0) piece.left--;
      piece.taken[at] = 1;
    }
    if (piece.left <= 0) this.#drop(piece);
  }

  /** Whoever comes for the block next does not get what is here; what is on its way he may. */
  forget(vbn: number): void {
    const piece = this.find(vbn);
    if (piece?.bytes !== undefined) this.take(piece, vbn, 1);
  }

  #drop(piece: Piece): void {
    if (!this.#all.delete(piece)) return;
    this.#blocks -= piece.end - piece.first;
    const record = Math.floor(piece.first / SEGMENT_BLOCKS);
    const beside = this.#byRecord.get(record)?.filter((each) => each !== piece) ?? [];
    if (beside.length === 0) this.#byRecord.delete(record);
    else this.#byRecord.set(record, beside);
  }
}
