/**
 * What the client writes, all of it known beforehand: so that a run that was killed can go on, and
 * the disk's right content can be told from the golden image alone.
 *
 * 1. The writes do not overlap, lie within the diary, and no two neighbours have the same pattern.
 */
import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { KIB, MIB } from '../../src/base/units.js';
import type { Stretch } from './disk-image.js';

export interface PlannedWrite extends Stretch {
  /** The byte that it consists of. */
  readonly pattern: number;
}

/** Whole blocks, pieces of blocks, and what lies across the borders of blocks. */
const SHAPES = [
  { skip: 0, length: 64 * KIB },
  { skip: 512, length: 512 },
  { skip: 3584, length: 1024 },
  { skip: 4096, length: 4096 },
  { skip: 1536, length: 33 * KIB },
  { skip: 8192, length: 128 * KIB },
] as const;

/** So many writes, or fewer if the diary is short, all over it, in a fixed order. */
export function planWrites(diary: readonly Stretch[], count: number): PlannedWrite[] {
  const bytes = diary.reduce((sum, { length }) => sum + length, 0);
  const slotBytes = Math.max(144 * KIB, Math.floor(bytes / count / 4096) * 4096);
  const writes: PlannedWrite[] = [];
  for (const { offset, length } of diary) {
    for (let at = 0; at + slotBytes <= length; at += slotBytes) {
      const shape = SHAPES[writes.length % SHAPES.length] ?? SHAPES[0];
      const pattern = 1 + (writes.length % 250);
      writes.push({ offset: offset + at + shape.skip, length: shape.length, pattern });
    }
  }
  return scatter(writes);
}

/** Neighbours come far apart: some before the split gets there, some after. */
function scatter(writes: readonly PlannedWrite[]): PlannedWrite[] {
  const rounds = 8;
  return Array.from({ length: rounds }, (_, round) =>
    writes.filter((_write, index) => index % rounds === round),
  ).flat();
}

/** SHA-256 of the image with the writes done to it. */
export async function hashAfter(image: string, writes: readonly PlannedWrite[]): Promise<string> {
  const hash = createHash('sha256');
  const left = [...writes].sort((a, b) => a.offset - b.offset);
  let start = 0;
  for await (const piece of createReadStream(image, { highWaterMark: MIB })) {
    const chunk = piece as Buffer;
    const end = start + chunk.length;
    for (let next = left[0]; next !== undefined && next.offset < end; next = left[0]) {
      const last = next.offset + next.length;
      chunk.fill(
        next.pattern,
        Math.max(0, next.offset - start),
        Math.min(chunk.length, last - start),
      );
      if (last > end) break;
      left.shift();
    }
    hash.update(chunk);
    start = end;
  }
  return hash.digest('hex');
}
