/**
 * A large read answered by chunks of data and of holes, so that zeroes that nobody stored are
 * neither made, nor copied, nor sent.
 *
 * 1. The chunks cover the range in order, without gaps or overlaps; the last one ends the reply.
 * 2. All chunks together fit into one header and `length` bytes: a hole that is told apart is
 *    longer than the two headers it costs.
 * 3. When it fails, no read is under way any more: the buffer may be lent again.
 */
import type { BlockTarget, Extent } from '../../vdisk/block-target.js';
import type { ChunkCodec } from './wire-chunks.js';
import type { RequestId } from './wire-transmission.js';

/** A smaller read is not worth asking what is mapped. */
export const SPARSE_READ_BYTES_MIN = 128 * 1024;
/** A smaller hole is sent as zeroes: a chunk costs the client more than it saves. */
const HOLE_BYTES_MIN = 32 * 1024;

export interface SparseRead {
  readonly target: BlockTarget;
  readonly id: RequestId;
  readonly chunks: ChunkCodec;
  readonly offset: number;
  readonly length: number;
  /** Where the reply is made: the header of a data chunk + length bytes. */
  readonly into: Uint8Array;
}

/** Makes the reply; tells how many bytes of `into` it takes. */
export async function readSparse(read: SparseRead): Promise<number> {
  const { target, id, chunks, into } = read;
  const runs = splitRuns(await target.blockStatus(read.offset, read.length));
  const reads: Promise<void>[] = [];
  let offset = read.offset;
  let at = 0;
  for (const [index, { length, isHole }] of runs.entries()) {
    const run = { offset, length, isLast: index === runs.length - 1 };
    if (isHole) {
      chunks.putHole(into, at, id, run);
      at += chunks.holeBytes;
    } else {
      chunks.putData(into, at, id, run);
      at += chunks.dataHeaderBytes;
      reads.push(readRun(target, offset, into.subarray(at, at + length)));
      at += length;
    }
    offset += length;
  }
  // All of them, even if one fails: they write into the buffer.
  for (const result of await Promise.allSettled(reads)) {
    if (result.status === 'rejected') throw result.reason;
  }
  return at;
}

/** A throw of `read` becomes a rejection like any other. */
async function readRun(target: BlockTarget, offset: number, into: Uint8Array): Promise<void> {
  await target.read(offset, into);
}

interface SparseRun {
  readonly length: number;
  readonly isHole: boolean;
}

/** Extents as runs of data and of holes worth telling. */
function splitRuns(extents: readonly Extent[]): SparseRun[] {
  const zeroes: SparseRun[] = [];
  for (const extent of extents) pushRun(zeroes, extent.length, extent.kind !== 'data');
  const runs: SparseRun[] = [];
  for (const run of zeroes) pushRun(runs, run.length, run.isHole && run.length >= HOLE_BYTES_MIN);
  return runs;
}

function pushRun(runs: SparseRun[], length: number, isHole: boolean): void {
  const last = runs.at(-1);
  if (last?.isHole === isHole) runs[runs.length - 1] = { length: last.length + length, isHole };
  else runs.push({ length, isHole });
}
