/** Cuts the bytes of blocks where their VBNs are not adjacent: what can be written in one call. */
import { BLOCK_BYTES } from '../../base/units.js';

export interface VbnRange {
  readonly vbn: number;
  /** The VBN after the last one. */
  readonly endVbn: number;
}

/** Blocks with adjacent VBNs: one write. */
export interface BlockRun extends VbnRange {
  endVbn: number;
  readonly pieces: Uint8Array[];
}

/** @param pieces  the bytes of these blocks in order, one block or several in a piece */
export function toRuns(vbns: readonly number[], pieces: readonly Uint8Array[]): BlockRun[] {
  const runs: BlockRun[] = [];
  let index = 0;
  for (const piece of pieces) {
    for (let from = 0; from < piece.length; ) {
      const vbn = vbns[index] as number;
      const countMax = (piece.length - from) / BLOCK_BYTES;
      let count = 1;
      while (count < countMax && vbns[index + count] === vbn + count) count++;
      const end = from + count * BLOCK_BYTES;
      const bytes = end - from === piece.length ? piece : piece.subarray(from, end);
      const last = runs.at(-1);
      if (last?.endVbn === vbn) {
        last.pieces.push(bytes);
        last.endVbn += count;
      } else {
        runs.push({ vbn, endVbn: vbn + count, pieces: [bytes] });
      }
      index += count;
      from = end;
    }
  }
  return runs;
}

/** The same VBNs as ranges. */
export function toRanges(vbns: readonly number[]): VbnRange[] {
  const ranges: { readonly vbn: number; endVbn: number }[] = [];
  for (const vbn of vbns) {
    const last = ranges.at(-1);
    if (last?.endVbn === vbn) last.endVbn++;
    else ranges.push({ vbn, endVbn: vbn + 1 });
  }
  return ranges;
}
