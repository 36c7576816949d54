/**
 * What the workload tells on its standard output, a line of JSON each, before it asks for something
 * and after it was answered. The trace has these lines among the calls on the store's file, so that
 * for each moment of the trace it is known what had been asked for and what had been answered.
 */
import type { SplitMode } from '../../src/layout/tree-record.js';

export interface WriteStep {
  readonly step: 'write';
  /** Counts all steps, from 1; sectors carry it. */
  readonly id: number;
  readonly vdisk: string;
  readonly sector: number;
  readonly sectors: number;
  /** Zeros by TRIM instead of sectors that carry the id. */
  readonly isTrim: boolean;
  readonly fua: boolean;
}

export interface ActStep {
  readonly step: 'create' | 'snapshot' | 'clone' | 'delete' | 'split' | 'flush' | 'point' | 'open';
  readonly id: number;
  /** What it makes, deletes, splits or flushes; '' for the whole store. */
  readonly name: string;
  /** Snapshot: the vdisk. Clone: the snapshot. */
  readonly of?: string;
  readonly mode?: SplitMode;
}

export type Step = WriteStep | ActStep;

export interface Answer {
  readonly step: 'answer';
  readonly id: number;
}

export const SECTOR_BYTES = 512;
const WORDS = SECTOR_BYTES / 4;

/** A sector says which write it comes from, and where it belongs. */
export function putStamp(words: Uint32Array, at: number, id: number, sector: number): void {
  for (let word = 0; word < WORDS; word += 2) {
    words[at * WORDS + word] = id;
    words[at * WORDS + word + 1] = sector;
  }
}

/** The write that a sector comes from; 0: zeros; undefined: no whole sector of one write. */
export function stampOf(words: Uint32Array, at: number, sector: number): number | undefined {
  const id = words[at * WORDS] as number;
  const place = id === 0 ? 0 : sector;
  for (let word = 0; word < WORDS; word += 2) {
    if (words[at * WORDS + word] !== id || words[at * WORDS + word + 1] !== place) return undefined;
  }
  return id;
}
