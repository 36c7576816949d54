/**
 * The metadata contexts a client may select, and what they say of a range.
 *
 * | context | flags |
 * | --- | --- |
 * | base:allocation | 0 for data; HOLE and ZERO where nothing is mapped or a zero block is |
 * | qemu:allocation-depth | 0 where nothing is mapped, 1 in the vdisk's own tree, 2 one behind |
 * | keiki:state | 0 hole: read through it; 1 own data; 2 zeros of its own; 3 filled by a split |
 *
 * Source: proto.md, "Metadata querying"; qemu, docs/interop/nbd.txt.
 */

import { BLOCK_BYTES, GIB } from '../../base/units.js';
import type { BlockTarget, Extent } from '../../vdisk/block-target.js';
import {
  KEIKI_STATE_FILLED,
  KEIKI_STATE_HOLE,
  KEIKI_STATE_OWN,
  KEIKI_STATE_ZERO,
  NBD_STATE_HOLE,
  NBD_STATE_ZERO,
} from './protocol.js';
import type { ContextStatus, StatusExtent } from './wire-chunks.js';

export interface MetaContext {
  readonly id: number;
  readonly name: string;
  flagsOf(extent: Extent): number;
}

/** Extents of one answer; the client asks again from where it ends. */
const EXTENTS_MAX = 1024;
/**
 * Data of one answer, which the target looks at block by block, where holes are passed over in one
 * go. Compact requests end before it.
 */
const DATA_BYTES_MAX = 4 * GIB;
/** What an extent takes, of the target's answer and of each context, until it is answered. */
const EXTENT_HELD_BYTES = 80;

const META_CONTEXTS: readonly MetaContext[] = [
  {
    id: 1,
    name: 'base:allocation',
    flagsOf: (extent) => (extent.kind === 'data' ? 0 : NBD_STATE_HOLE | NBD_STATE_ZERO),
  },
  {
    id: 2,
    name: 'qemu:allocation-depth',
    flagsOf: (extent) => (extent.kind === 'hole' ? 0 : extent.depth + 1),
  },
  { id: 3, name: 'keiki:state', flagsOf: stateOf },
];

/** What the vdisk's own tree has there, whatever lies behind it. */
function stateOf({ kind, depth, filled }: Extent): number {
  if (kind === 'hole' || depth > 0) return KEIKI_STATE_HOLE;
  if (filled) return KEIKI_STATE_FILLED;
  return kind === 'zero' ? KEIKI_STATE_ZERO : KEIKI_STATE_OWN;
}

/** For NBD_OPT_LIST_META_CONTEXT: a namespace alone means all its contexts, no query all. */
export function listContexts(queries: readonly string[]): MetaContext[] {
  if (queries.length === 0) return [...META_CONTEXTS];
  const matches = (name: string): boolean =>
    queries.some((query) => query === name || (query.endsWith(':') && name.startsWith(query)));
  return META_CONTEXTS.filter((context) => matches(context.name));
}

/** For NBD_OPT_SET_META_CONTEXT: exact names only; unknown ones select nothing. */
export function selectContexts(queries: readonly string[]): MetaContext[] {
  return META_CONTEXTS.filter((context) => queries.includes(context.name));
}

export interface StatusRange {
  readonly offset: number;
  readonly length: number;
  /** One extent only (NBD_CMD_FLAG_REQ_ONE). */
  readonly isOne: boolean;
}

/** Memory that the answer takes at most: for the account, before the question is asked. */
export function statusBytes(contexts: readonly MetaContext[], range: StatusRange): number {
  const { length, isOne } = range;
  const extents = isOne ? 1 : Math.min(EXTENTS_MAX, Math.ceil(length / BLOCK_BYTES) + 1);
  return (1 + contexts.length) * extents * EXTENT_HELD_BYTES;
}

/** What each context says of the range, from its start as far as that goes; one extent at least. */
export async function collectStatus(
  target: BlockTarget,
  contexts: readonly MetaContext[],
  range: StatusRange,
): Promise<ContextStatus[]> {
  const lists = contexts.map((context) => new ExtentList(context));
  // One more than is answered: then the last one that is answered is known to be complete.
  const extentsMax = range.isOne ? 1 : EXTENTS_MAX;
  const hasRoom = (list: ExtentList): boolean => list.extents.length <= extentsMax;
  let done = 0;
  let dataBytes = 0;
  while (done < range.length && dataBytes < DATA_BYTES_MAX && lists.some(hasRoom)) {
    const length = Math.min(DATA_BYTES_MAX, range.length - done);
    const extents = await target.blockStatus(range.offset + done, length, extentsMax + 1);
    for (const extent of extents) {
      for (const list of lists) list.add(extent);
      done += extent.length;
      if (extent.kind === 'data') dataBytes += extent.length;
    }
  }
  return lists.map((list) => ({
    contextId: list.context.id,
    extents: list.extents.slice(0, extentsMax),
  }));
}

/** Extents of one context, neighbours of the same flags merged. */
class ExtentList {
  readonly context: MetaContext;
  readonly extents: StatusExtent[] = [];

  constructor(context: MetaContext) {
    this.context = context;
  }

  add(extent: Extent): void {
    const flags = this.context.flagsOf(extent);
    const last = this.extents.at(-1);
    if (last?.flags === flags) {
      this.extents[this.extents.length - 1] = { length: last.length + extent.length, flags };
    } else {
      this.extents.push({ length: extent.length, flags });
    }
  }
}
