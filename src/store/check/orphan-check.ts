/**
 * Object log: objects that nothing names (object-log/orphans.ts). They are no fault: a crash leaves
 * some behind, and a server that has the store open deletes them.
 *
 * Each is read whole, for its size, and because a SEAL is none.
 */
import { decodeRecord } from '../../layout/log-record.js';
import { USAGE_ENTRIES_PER_BLOCK, usageLive } from '../../layout/usage-entry.js';
import { getPatiently } from '../object-log/chain-walk.js';
import { findSuspects, type Suspect } from '../object-log/orphans.js';
import type { Findings } from './check-report.js';
import type { FileBlocks } from './map-check.js';
import type { ObjectLogCheckMedium } from './object-log-check-medium.js';
import type { TreeWalker } from './tree-walk.js';

export async function countOrphans(
  medium: ObjectLogCheckMedium,
  walker: TreeWalker,
  findings: Findings,
  usage: FileBlocks,
): Promise<void> {
  const { where, epoch, fsinfo } = medium;
  for await (const suspect of findSuspects(where, { epoch, replayFrom: fsinfo.replayFrom })) {
    if (suspect.kind === 'record' && isInUse(suspect.number, walker, usage)) continue;
    const object = await getPatiently(where.objects, suspect.key);
    if (object === undefined || !mayGo(suspect, object, fsinfo.uuid)) continue;
    findings.addOrphan(suspect.key, object.length);
  }
}

function isInUse(number: number, walker: TreeWalker, usage: FileBlocks): boolean {
  const words = usage.get(Math.floor(number / USAGE_ENTRIES_PER_BLOCK));
  const live = usageLive(words?.[(number % USAGE_ENTRIES_PER_BLOCK) * 2] ?? 0);
  const isNamed =
    walker.data.bitsOf(number) !== undefined || walker.meta.bitsOf(number) !== undefined;
  return live > 0 || isNamed;
}

function mayGo(suspect: Suspect, object: Uint8Array, uuid: Uint8Array): boolean {
  if (suspect.kind !== 'record') return true;
  const record = decodeRecord(object, uuid);
  return record !== undefined && record.kind !== 'seal';
}
