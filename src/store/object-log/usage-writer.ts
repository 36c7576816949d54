/**
 * Writes the usage file of an object log, in a consistency point: live counts of all records that
 * gained or lost blocks, also those of the records that the file itself is put in.
 */
import { crc32 } from '../../base/checksum.js';
import { invariant } from '../../base/invariant.js';
import { BLOCK_BYTES, SEGMENT_BLOCKS } from '../../base/units.js';
import type { BlockTag } from '../../layout/log-record.js';
import {
  SEGMENT_FREE,
  SEGMENT_META,
  USAGE_ENTRIES_PER_BLOCK,
  usageLive,
  usageWord,
} from '../../layout/usage-entry.js';
import type { Generation } from '../generation.js';
import { collectDirty, type MetafileEditor } from '../metafile.js';
import type { Tree } from '../tree.js';
import { popcountAll, type VbnSet } from '../vbn-set.js';
import type { OpenRecord } from './open-record.js';
import type { RecordChain } from './record-chain.js';
import type { RecordLedger } from './record-ledger.js';

export interface UsageParts {
  readonly editor: MetafileEditor;
  readonly usage: Tree;
  readonly chain: RecordChain;
  readonly ledger: RecordLedger;
  readonly close: (record: OpenRecord) => void;
  /** The block of the usage file is this generation's. */
  readonly adopt: (vbn: number, generation: Generation) => void;
}

interface ReservedPlace {
  readonly record: OpenRecord;
  readonly vbn: number;
}

/** Brings the live counts up to date and puts the blocks of the usage file into records. */
export async function writeUsage(
  parts: UsageParts,
  generation: Generation,
  freed: VbnSet,
): Promise<void> {
  const { editor, usage } = parts;
  const applied = new Map<number, number>();
  const assigned = new Map<number, ReservedPlace>();
  const records: OpenRecord[] = [];
  for (const renewal of generation.renewals) {
    if (renewal.name === 'usage') await editor.renew(usage, renewal, generation);
  }
  for (;;) {
    for (const vbn of generation.metaFrees.values()) freed.add(vbn);
    const touched = new Set([...generation.allocated.segments(), ...freed.segments()]);
    let changed = false;
    for (const record of [...touched].sort((a, b) => a - b)) {
      const target = count(generation.allocated, record) - count(freed, record);
      const delta = target - (applied.get(record) ?? 0);
      if (delta === 0 && applied.has(record)) continue;
      applied.set(record, target);
      changed = true;
      await applyUsage(parts, record, delta, generation);
    }
    collectDirty(editor.pool, usage.root, usage.height).forEach((dirty, level) => {
      dirty.buffers.forEach((buffer, index) => {
        if (assigned.has(buffer)) return;
        changed = true;
        const fbn = dirty.fbns[index] as number;
        assigned.set(buffer, reserve(parts, records, generation, { fbn, level }));
      });
    });
    if (!changed) break;
  }
  // Their entries stand in blocks that are dirty by now.
  for (const record of records) await notePut(parts, record, generation);
  settle(parts, assigned);
  for (const record of records) {
    record.cpNumber = generation.number;
    parts.close(record);
  }
}

async function applyUsage(
  { editor, usage, ledger }: UsageParts,
  record: number,
  delta: number,
  generation: Generation,
): Promise<void> {
  const fbn = Math.floor(record / USAGE_ENTRIES_PER_BLOCK);
  const buffer = await editor.edit(usage, fbn, generation);
  const words = editor.pool.wordsOf(buffer);
  const at = editor.pool.wordStart(buffer) + (record % USAGE_ENTRIES_PER_BLOCK) * 2;
  const live = usageLive(words[at] as number) + delta;
  invariant(live >= 0 && live <= SEGMENT_BLOCKS, `record ${record} has ${live} live blocks`);
  const kind = ledger.kinds.get(record) ?? ((words[at] as number) >>> 16) & 0xff;
  words[at] = live === 0 ? SEGMENT_FREE : usageWord(live, kind);
  const put = ledger.putBlocks.get(record) ?? Math.max(words[at + 1] as number, live);
  words[at + 1] = live === 0 ? 0 : put;
  if (live === 0) ledger.known.add(record);
}

/** The usage file's own records grow until all of its blocks have a place: counted at the end. */
async function notePut(
  { editor, usage }: UsageParts,
  record: OpenRecord,
  generation: Generation,
): Promise<void> {
  const fbn = Math.floor(record.number / USAGE_ENTRIES_PER_BLOCK);
  const buffer = await editor.edit(usage, fbn, generation);
  const words = editor.pool.wordsOf(buffer);
  const at = editor.pool.wordStart(buffer) + (record.number % USAGE_ENTRIES_PER_BLOCK) * 2;
  if (usageLive(words[at] as number) > 0) words[at + 1] = record.blockCount;
}

/**
 * Takes a place for a block whose bytes come later, in a record of its own: an open one that a
 * FLUSH can close would leave too early.
 */
function reserve(
  { chain, ledger, adopt }: UsageParts,
  records: OpenRecord[],
  generation: Generation,
  { fbn, level }: Pick<BlockTag, 'fbn' | 'level'>,
): ReservedPlace {
  let record = records.at(-1);
  if (record === undefined || record.isFull) {
    record = chain.open();
    ledger.opened(record.number, SEGMENT_META);
    records.push(record);
  }
  const tag: BlockTag = { treeId: 0, fbn, level, crc: 0, kind: 'meta' };
  const vbn = chain.copyIn(record, new Uint8Array(BLOCK_BYTES), [tag]);
  adopt(vbn, generation);
  return { record, vbn };
}

function settle({ editor, usage }: UsageParts, assigned: ReadonlyMap<number, ReservedPlace>): void {
  for (const level of collectDirty(editor.pool, usage.root, usage.height)) {
    for (const buffer of level.buffers) {
      const place = assigned.get(buffer);
      invariant(place !== undefined, 'every usage block has its VBN');
      const bytes = editor.pool.bytes(buffer);
      const crc = crc32(bytes);
      const index = place.vbn % SEGMENT_BLOCKS;
      (place.record.block(index) as Uint8Array).set(bytes);
      place.record.tags[index] = { ...(place.record.tags[index] as BlockTag), crc };
      editor.trees.settle(buffer, place.vbn, crc, undefined, 0, false);
    }
  }
}

function count(set: VbnSet, record: number): number {
  const bits = set.bitsOf(record);
  return bits === undefined ? 0 : popcountAll(bits);
}
