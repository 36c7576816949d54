/** Block status: what each extent of a vdisk is, and which backing store has it. */
import { BLOCK_BYTES } from '../base/units.js';
import { FLAG_FILLED } from '../layout/pointer.js';
import { WALK_FIELD } from '../store/buffer-tree.js';
import type { Engine } from '../store/engine.js';
import type { Tree } from '../store/tree.js';
import { SOURCE_MISS, SOURCE_ZERO } from './block-source.js';
import type { Extent } from './block-target.js';
import type { Externals } from './externals.js';
import type { Reader, ReadTarget } from './reader.js';

interface Parts {
  readonly engine: Engine;
  readonly reader: Reader;
}

/** Blocks between two yields: 64 MiB of a vdisk. */
const SLICE_BLOCKS = 16384;
/** Extents of one answer; what follows has to be asked for again. */
const EXTENTS_MAX = 1 << 20;

export interface StatusQuestion {
  readonly offset: number;
  readonly length: number;
  /** One or more. */
  readonly extentsMax?: number | undefined;
}

export async function blockStatus(
  parts: Parts,
  target: ReadTarget,
  { offset, length, extentsMax = EXTENTS_MAX }: StatusQuestion,
): Promise<Extent[]> {
  const answer: Answer = { extents: [], extentsMax, at: offset, end: offset + length };
  while (!isComplete(answer)) {
    target.checkRange(0, 0);
    await statusSlice(parts, target, answer);
    await parts.engine.options.clock.yield();
  }
  return answer.extents;
}

/** The last one of an answer grows. */
type GrowingExtent = { -readonly [Key in keyof Extent]: Extent[Key] };

/** An answer that is being made: `extents` reach up to `at`. */
interface Answer {
  readonly extents: GrowingExtent[];
  readonly extentsMax: number;
  at: number;
  readonly end: number;
}

function isComplete({ at, end, extents, extentsMax }: Answer): boolean {
  return at >= end || extents.length >= extentsMax;
}

async function statusSlice(parts: Parts, target: ReadTarget, answer: Answer): Promise<void> {
  const { source } = parts.reader;
  const { extents, end } = answer;
  const stop = (Math.floor(answer.at / BLOCK_BYTES) + SLICE_BLOCKS) * BLOCK_BYTES;
  source.begin();
  while (answer.at < stop && !isComplete(answer)) {
    const { at } = answer;
    const fbn = Math.floor(at / BLOCK_BYTES);
    const tree = target.head;
    const found = source.find(tree, fbn);
    if (found === SOURCE_MISS) {
      await parts.reader.loadAll(source.missing.slice());
      parts.engine.assertAlive();
      target.checkRange(0, 0);
      source.begin();
      continue;
    }
    const isZero = found === SOURCE_ZERO;
    const isHole = isZero && source.isHole;
    const { externals } = parts.reader;
    const next = isZero ? emptyUntil(parts.engine, externals, tree, fbn) : fbn + 1;
    const to = Math.min(next * BLOCK_BYTES, end);
    const kind = isHole ? 'hole' : isZero ? 'zero' : 'data';
    const depth = isZero ? 0 : source.depth;
    const filled = !isHole && source.depth === 0 && isFilled(parts.engine, tree, fbn);
    const last = extents.at(-1);
    if (last?.kind === kind && last.depth === depth && last.filled === filled) {
      last.length += to - at;
    } else extents.push({ offset: at, length: to - at, kind, depth, filled });
    answer.at = to;
  }
}

/** End of the stretch that one pointer says is empty, in this tree and all it reads through. */
export function emptyUntil(engine: Engine, externals: Externals, tree: Tree, fbn: number): number {
  let until = Number.POSITIVE_INFINITY;
  for (let at: Tree | undefined = tree; at !== undefined; at = at.backing) {
    if (at.isExternal) {
      // It has no blocks of its own; behind its end there is nothing.
      if (fbn * BLOCK_BYTES >= at.sizeBytes) break;
      return Math.min(until, externals.emptyUntil(at, fbn));
    }
    const found = engine.trees.walk(at, fbn);
    if (found === WALK_FIELD || found > WALK_FIELD) return fbn + 1;
    const beyond = fbn >= at.capacityFbn;
    if (!beyond) {
      const span = 256 ** engine.trees.level;
      const end = (Math.floor(fbn / span) + 1) * span;
      // What was merged away or freed is one hole, whatever level the walk ended at.
      until = Math.min(until, fbn < at.goneBelowFbn ? Math.max(end, at.goneBelowFbn) : end);
    }
    if (found === 1 && !beyond) break;
    if (fbn * BLOCK_BYTES >= at.readThroughLimitBytes) break;
    if (at.backing !== undefined) {
      until = Math.min(
        until,
        Math.max(fbn + 1, Math.floor(at.readThroughLimitBytes / BLOCK_BYTES)),
      );
    }
  }
  return until;
}

function isFilled(engine: Engine, tree: Tree, fbn: number): boolean {
  if (engine.trees.walk(tree, fbn) !== WALK_FIELD) return engine.trees.filledAbove;
  const high = engine.trees.fieldWords[engine.trees.fieldAt + 1] as number;
  return engine.trees.filledAbove || (high & FLAG_FILLED) !== 0;
}
