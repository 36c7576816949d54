/**
 * What the usage file says of all records: how much of what is kept is live, and which records are
 * worth to be emptied. One pass, block by block; holes of the file are skipped at any level.
 */
import { SPAN_BLOCKS } from '../../../base/units.js';
import { recordBlocks } from '../../../layout/log-record.js';
import {
  SEGMENT_META,
  USAGE_ENTRIES_PER_BLOCK,
  usageKind,
  usageLive,
} from '../../../layout/usage-entry.js';
import { WALK_FIELD, WALK_HOLE, WALK_ZERO } from '../../buffer-tree.js';
import type { Engine } from '../../engine.js';
import { alignDown } from '../../tree.js';

/** A record that has something live. */
export interface RecordUse {
  readonly record: number;
  readonly liveBlocks: number;
  /** Blocks that it was put with. */
  readonly putBlocks: number;
  readonly isMeta: boolean;
}

export interface LiveScan {
  readonly records: number;
  readonly liveBlocks: number;
  /** Blocks of all records that have something live, trailers included. */
  readonly keptBlocks: number;
  /** Those that are worth it most, by rank. */
  readonly emptiest: readonly RecordUse[];
}

/** Of what the record takes in the object store; its trailer counts, so small records are poor. */
export function liveRatioOf({ liveBlocks, putBlocks }: RecordUse): number {
  return liveBlocks / recordBlocks(Math.max(putBlocks, liveBlocks));
}

export interface ScanWish {
  /** So many of the emptiest. */
  readonly countMax: number;
  /** Fuller records are not worth it. */
  readonly ratioMax: number;
  /** The lower, the sooner it is emptied. */
  readonly rank: (use: RecordUse) => number;
  readonly isWanted: (use: RecordUse) => boolean;
}

export async function scanRecords(engine: Engine, wish: ScanWish): Promise<LiveScan> {
  const { usage } = engine.metafiles;
  const totals = { records: 0, liveBlocks: 0, keptBlocks: 0 };
  let found: RecordUse[] = [];
  for (let fbn = 0; fbn < usage.capacityFbn; ) {
    engine.assertAlive();
    const next = skipHole(engine, fbn);
    if (next > fbn) {
      fbn = next;
      continue;
    }
    const buffer = await engine.editor.load(usage, fbn);
    if (buffer >= 0) takeBlock(engine, buffer, fbn, totals, wish, found);
    if (found.length > 4 * wish.countMax) found = firstOf(found, wish);
    if (++fbn % 64 === 0) await engine.options.clock.yield();
  }
  return { ...totals, emptiest: firstOf(found, wish) };
}

/** The FBN behind the hole that this one stands in; the same if it is none, or not known. */
function skipHole({ trees, metafiles }: Engine, fbn: number): number {
  const walked = trees.walk(metafiles.usage, fbn);
  if (walked === WALK_FIELD || (walked !== WALK_HOLE && walked !== WALK_ZERO)) return fbn;
  return alignDown(fbn, trees.level) + (SPAN_BLOCKS[trees.level] as number);
}

function takeBlock(
  { pool }: Engine,
  buffer: number,
  fbn: number,
  totals: { records: number; liveBlocks: number; keptBlocks: number },
  wish: ScanWish,
  found: RecordUse[],
): void {
  const words = pool.wordsOf(buffer);
  const start = pool.wordStart(buffer);
  for (let index = 0; index < USAGE_ENTRIES_PER_BLOCK; index++) {
    const word = words[start + index * 2] as number;
    const liveBlocks = usageLive(word);
    if (liveBlocks === 0) continue;
    const use: RecordUse = {
      record: fbn * USAGE_ENTRIES_PER_BLOCK + index,
      liveBlocks,
      putBlocks: words[start + index * 2 + 1] as number,
      isMeta: usageKind(word) === SEGMENT_META,
    };
    totals.records++;
    totals.liveBlocks += liveBlocks;
    totals.keptBlocks += recordBlocks(Math.max(use.putBlocks, liveBlocks));
    if (liveRatioOf(use) <= wish.ratioMax && wish.isWanted(use)) found.push(use);
  }
}

function firstOf(found: RecordUse[], { rank, countMax }: ScanWish): RecordUse[] {
  return found.sort((a, b) => rank(a) - rank(b)).slice(0, countMax);
}
