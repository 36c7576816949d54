/**
 * Codec of the sparse stream: content of a vdisk as pieces of data and of zeros.
 *
 *     "KEIKISP1", then records of 24 bytes, big-endian:
 *
 *     0  4  kind: 1 data, 2 zeros, 3 end
 *     4  4  0
 *     8  8  offset in the vdisk, bytes
 *    16  8  length, bytes; behind a data record so many bytes follow
 *
 * 1. Pieces ascend and do not overlap. What lies between them stays as it is.
 * 2. The end record closes the stream: its offset is the end of the range, its length 0. A stream
 *    without it was cut off.
 * 3. A decoder keeps at most one record; data goes through as it comes.
 */
import { StoreError } from '../base/store-error.js';

export type SparsePiece =
  | { readonly kind: 'data'; readonly offset: number; readonly bytes: Uint8Array }
  | { readonly kind: 'zero'; readonly offset: number; readonly length: number };

const MAGIC = new TextEncoder().encode('KEIKISP1');
const RECORD_BYTES = 24;
const KIND_DATA = 1;
const KIND_ZERO = 2;
const KIND_END = 3;

/** @param endOffset  where the range ends; told when all pieces have been taken */
export async function* encodeSparse(
  pieces: AsyncIterable<SparsePiece>,
  endOffset: () => number,
): AsyncGenerator<Uint8Array> {
  yield MAGIC;
  for await (const piece of pieces) {
    if (piece.kind === 'zero') {
      yield encodeRecord(KIND_ZERO, piece.offset, piece.length);
    } else {
      yield encodeRecord(KIND_DATA, piece.offset, piece.bytes.length);
      yield piece.bytes;
    }
  }
  yield encodeRecord(KIND_END, endOffset(), 0);
}

/**
 * @param onEnd  told where the range ends, when all pieces have been taken
 * @throws {StoreError} invalid: no sparse stream, out of order, or cut off
 */
export async function* decodeSparse(
  chunks: AsyncIterable<Uint8Array>,
  onEnd: (endOffset: number) => void = () => undefined,
): AsyncGenerator<SparsePiece> {
  const decoder = new SparseDecoder();
  for await (const chunk of chunks) yield* decoder.push(chunk);
  onEnd(decoder.end());
}

class SparseDecoder {
  /** A head that is not whole yet: magic, then records. */
  #head = new Uint8Array(MAGIC.length);
  #headBytes = 0;
  #hasMagic = false;
  #isEnded = false;
  #offset = 0;
  #dataBytes = 0;

  *push(chunk: Uint8Array): Generator<SparsePiece> {
    let at = 0;
    while (at < chunk.length) {
      if (this.#isEnded) throw bad('bytes follow the end record');
      if (this.#dataBytes > 0) {
        const bytes = chunk.subarray(at, at + this.#dataBytes);
        yield { kind: 'data', offset: this.#offset, bytes };
        at += bytes.length;
        this.#offset += bytes.length;
        this.#dataBytes -= bytes.length;
        continue;
      }
      const part = chunk.subarray(at, at + this.#head.length - this.#headBytes);
      this.#head.set(part, this.#headBytes);
      this.#headBytes += part.length;
      at += part.length;
      if (this.#headBytes === this.#head.length) yield* this.#takeHead();
    }
  }

  /** @returns what the end record says */
  end(): number {
    if (!this.#isEnded) throw bad('it was cut off');
    return this.#offset;
  }

  *#takeHead(): Generator<SparsePiece> {
    const head = this.#head;
    this.#headBytes = 0;
    if (!this.#hasMagic) {
      if (!MAGIC.every((byte, index) => head[index] === byte)) throw bad('it has another magic');
      this.#hasMagic = true;
      this.#head = new Uint8Array(RECORD_BYTES);
      return;
    }
    const view = new DataView(head.buffer);
    const kind = view.getUint32(0);
    if (view.getUint32(4) !== 0) throw bad('a record of another version');
    const offset = toNumber(view.getBigUint64(8));
    const length = toNumber(view.getBigUint64(16));
    if (offset < this.#offset) throw bad(`byte ${offset} comes after byte ${this.#offset}`);
    if (!Number.isSafeInteger(offset + length)) throw bad(`${length} bytes in one piece`);
    this.#offset = offset;
    if (kind === KIND_DATA) {
      this.#dataBytes = length;
    } else if (kind === KIND_ZERO) {
      this.#offset = offset + length;
      yield { kind: 'zero', offset, length };
    } else if (kind === KIND_END) {
      this.#isEnded = true;
    } else {
      throw bad(`a record of kind ${kind}`);
    }
  }
}

function encodeRecord(kind: number, offset: number, length: number): Uint8Array {
  const record = new Uint8Array(RECORD_BYTES);
  const view = new DataView(record.buffer);
  view.setUint32(0, kind);
  view.setBigUint64(8, BigInt(offset));
  view.setBigUint64(16, BigInt(length));
  return record;
}

function toNumber(value: bigint): number {
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw bad(`${value} is beyond any vdisk`);
  return Number(value);
}

function bad(what: string): StoreError {
  return new StoreError('invalid', `the sparse stream is not one: ${what}`);
}
