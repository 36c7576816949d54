/** Object log: the usage file, and the counter of fsinfo, against what was named in each record. */
import {
  SEGMENT_DATA,
  SEGMENT_FREE,
  SEGMENT_META,
  USAGE_ENTRIES_PER_BLOCK,
  usageKind,
  usageLive,
} from '../../layout/usage-entry.js';
import { popcountAll } from '../vbn-set.js';
import type { Findings } from './check-report.js';
import { type FileBlocks, kindName } from './map-check.js';
import type { ObjectLogCheckMedium } from './object-log-check-medium.js';
import type { TreeWalker } from './tree-walk.js';

export async function compareRecordUsage(
  medium: ObjectLogCheckMedium,
  walker: TreeWalker,
  findings: Findings,
  usage: FileBlocks,
): Promise<void> {
  const records = new Set([...walker.data.segments(), ...walker.meta.segments()]);
  for (const [fbn, words] of usage) {
    for (let index = 0; index < USAGE_ENTRIES_PER_BLOCK; index++) {
      const isFree = words[index * 2] === 0 && words[index * 2 + 1] === 0;
      if (!isFree) records.add(fbn * USAGE_ENTRIES_PER_BLOCK + index);
    }
  }
  let used = 0;
  for (const record of [...records].sort((a, b) => a - b)) {
    used += await compareRecord(medium, walker, findings, usage, record);
  }
  const { usedBlocks } = medium.fsinfo;
  const isFault = usedBlocks < used || (findings.isComplete && usedBlocks !== used);
  if (!isFault) return;
  const stored = `fsinfo of ${medium.name} has usedBlocks ${usedBlocks}`;
  findings.add('counter', `${stored}, but ${used} are named`);
}

/** Returns the number of blocks of the record that are named. */
async function compareRecord(
  medium: ObjectLogCheckMedium,
  walker: TreeWalker,
  findings: Findings,
  usage: FileBlocks,
  record: number,
): Promise<number> {
  const what = `record ${record} of ${medium.name}`;
  const data = walker.data.bitsOf(record);
  const meta = walker.meta.bitsOf(record);
  const found = (data ? popcountAll(data) : 0) + (meta ? popcountAll(meta) : 0);
  if (data !== undefined && meta !== undefined) {
    findings.add('usage', `${what} holds data and metadata`);
  }
  let kind = SEGMENT_FREE;
  if (data !== undefined) kind = SEGMENT_DATA;
  else if (meta !== undefined) kind = SEGMENT_META;
  const words = usage.get(Math.floor(record / USAGE_ENTRIES_PER_BLOCK));
  const at = (record % USAGE_ENTRIES_PER_BLOCK) * 2;
  const word = words?.[at] ?? 0;
  const live = usageLive(word);
  const isKnown = findings.isComplete;
  if (live < found || (isKnown && live > found)) {
    findings.add('usage', `${what} has ${live} live blocks in the usage file, ${found} are named`);
  }
  const mayDiffer = !isKnown && kind === SEGMENT_FREE;
  if (usageKind(word) !== kind && !mayDiffer) {
    const stored = kindName(usageKind(word));
    findings.add('usage', `${what} is ${stored} in the usage file, but holds ${kindName(kind)}`);
  }
  // Named blocks are read by now, unless data is skipped: the record must be there all the same.
  const fetched = found > 0 ? await medium.fetch(record) : 'missing';
  const putWith = words?.[at + 1] ?? 0;
  if (live > 0 && typeof fetched !== 'string' && putWith !== fetched.record.blocks) {
    const { blocks } = fetched.record;
    findings.add('usage', `${what} has ${blocks} blocks, ${putWith} in the usage file`);
  }
  return found;
}
