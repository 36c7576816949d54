/**
 * What the client writes, all of it known beforehand: so that a run that was killed can go on, and
 * the disk's right content can be told from the golden image and the number of writes alone.
 *
 * 1. Places do not overlap and lie within the diary. The client goes over all of them, again and
 *    again: write n is to place n % count, in pass n / count.
 * 2. Neighbours, and the passes over one place, have different patterns.
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

/** A prime, so that steps below it lead to another pattern. */
const PATTERNS = 251;

export class WritePlan {
  readonly #places: readonly Stretch[];

  /** So many places, or fewer if the diary is short, all over it, in a fixed order. */
  constructor(diary: readonly Stretch[], count: number) {
    const bytes = diary.reduce((sum, { length }) => sum + length, 0);
    const slotBytes = Math.max(144 * KIB, Math.floor(bytes / count / 4096) * 4096);
    const places: Stretch[] = [];
    for (const { offset, length } of diary) {
      for (let at = 0; at + slotBytes <= length; at += slotBytes) {
        const shape = SHAPES[places.length % SHAPES.length] ?? SHAPES[0];
        places.push({ offset: offset + at + shape.skip, length: shape.length });
      }
    }
    this.#places = scatter(places);
  }

  /** Writes of one pass. */
  get placeCount(): number {
    return this.#places.length;
  }

  /** Writes `from` to `to`, in their order. */
  writes(from: number, to: number): PlannedWrite[] {
    return Array.from({ length: to - from }, (_, index) => this.#write(from + index));
  }

  /** What the places hold after so many writes: for each the last one. */
  content(writeCount: number): PlannedWrite[] {
    return this.writes(Math.max(0, writeCount - this.placeCount), writeCount);
  }

  #write(number: number): PlannedWrite {
    const index = number % this.placeCount;
    const pass = Math.floor(number / this.placeCount);
    const place = this.#places[index];
    if (place === undefined) throw new Error('the diary is too short for a single write');
    return { ...place, pattern: 1 + ((index * 7 + pass * 13) % PATTERNS) };
  }
}

/** Neighbours come far apart: some before the split gets there, some after. */
function scatter(places: readonly Stretch[]): Stretch[] {
  const rounds = 8;
  return Array.from({ length: rounds }, (_, round) =>
    places.filter((_place, index) => index % rounds === round),
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
